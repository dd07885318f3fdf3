"""The loop: resumed equals uninterrupted, bad gradients are skipped, the average averages, batches never repeat."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sanakit.base.seeds import batch_indices
from sanakit.training import (
    EMA,
    StepReport,
    Trainer,
    read_journal,
    reconstruction,
    trapezoid,
    velocity,
    write_entry,
)
from sanakit.training.objectives.perceptual import edge_error, slope_deficit, steepness_error
from tests.training.small import DATA
from tests.training.small import start as small_start


def start(folder: Path, steps: int, **changes: object) -> tuple[Trainer, nn.Module]:
    run = small_start(folder, steps, **changes)
    return run, run.model


def train(run: Trainer, model: nn.Module, until: int | None = None) -> list[float]:
    """Train on noisy regression; stop without saving after step `until`."""
    losses: list[float] = []

    def loss(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if until is not None and run.step >= until:
            raise KeyboardInterrupt
        noise = torch.randn(batch.shape, generator=generator)
        parts = velocity(model(batch + noise), noise - batch)
        losses.append(parts["loss"].item())
        return parts

    try:
        for _ in run.train(loss, lambda step: DATA[batch_indices(step, 4, len(DATA), seed=0)]):
            pass
    except KeyboardInterrupt:
        pass
    return losses


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    whole, reference = start(tmp_path / "whole", 12)
    train(whole, reference)
    first, model = start(tmp_path / "parts", 12)
    train(first, model, until=7)
    first.save()
    second, model = start(tmp_path / "parts", 12)
    assert second.step == 7
    train(second, model)
    for a, b in zip(reference.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(whole.ema.weights[name], second.ema.weights[name]) for name in whole.ema.weights)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_whole_steps(tmp_path: Path, number: signal.Signals) -> None:
    whole, reference = start(tmp_path / "whole", 8)
    train(whole, reference)
    run, model = start(tmp_path / "parts", 8)
    usual, mine = signal.getsignal(number), signal.signal(number, signal.default_int_handler)

    def loss(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if run.step == 4:
            os.kill(os.getpid(), number)
        noise = torch.randn(batch.shape, generator=generator)
        return velocity(model(batch + noise), noise - batch)

    try:
        with pytest.raises(KeyboardInterrupt):
            list(run.train(loss, lambda step: DATA[batch_indices(step, 4, len(DATA), seed=0)]))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, mine)
    assert usual is mine
    second, model = start(tmp_path / "parts", 8)
    assert second.step == 5
    train(second, model)
    assert all(torch.equal(a, b) for a, b in zip(reference.parameters(), model.parameters(), strict=True))


def test_the_journal_keeps_the_last_word_on_every_step(tmp_path: Path) -> None:
    run, model = start(tmp_path, 6)
    losses = train(run, model)
    kept = read_journal(tmp_path)
    means = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [entry["loss"] for entry in kept.values()] == pytest.approx(means)
    assert (list(kept), kept[6]["lr"]) == ([3, 6], 5e-4 * trapezoid(5, 6, 2, 0.2))
    write_entry(tmp_path, 3, {"loss": 7.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    again = read_journal(tmp_path)
    assert (list(again), again[3], again[6]) == ([3, 6], {"loss": 7.0}, kept[6])
    assert read_journal(tmp_path / "none") == {}


def test_training_learns(tmp_path: Path) -> None:
    run, model = start(tmp_path, 400, lr=1e-2)
    losses = train(run, model)
    assert sum(losses[-50:]) < 0.85 * sum(losses[:50])


def test_a_nonfinite_gradient_is_skipped_and_counted(tmp_path: Path) -> None:
    run, model = start(tmp_path, 3)
    before = [p.detach().clone() for p in model.parameters()]

    def loss(batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": model(batch).sum() * math.inf}

    events = list(run.train(loss, lambda step: DATA[:2]))
    reports = [event for event in events if isinstance(event, StepReport)]
    assert reports[-1].skipped == 3
    assert "skipped 3" in str(reports[-1])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_ema_is_the_average_and_steps_aside(tmp_path: Path) -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = EMA(model, decay=0.5)
    nn.init.ones_(model.weight)
    ema.update(model, step=1000)
    assert ema.weights["weight"].item() == 0.5
    with ema.applied(model):
        assert model.weight.item() == 0.5
    assert model.weight.item() == 1.0


def test_learning_rate_shape() -> None:
    shape = [trapezoid(step, 100, 10, 0.2) for step in range(101)]
    assert shape[0] == pytest.approx(0.1)
    assert shape[10:81] == [1.0] * 71
    assert shape[90] == pytest.approx(0.5)
    assert shape[100] == 0.0


def test_steepness_prefers_half_an_edge_to_none() -> None:
    """L1 of differences loses as much either way, where an edge lies at either of two places."""
    edge = torch.zeros(2, 3, 4, 8)
    edge[0, ..., 3:], edge[1, ..., 4:] = 1.0, 1.0
    none, half = torch.full_like(edge, 0.5), edge.mean(0, keepdim=True).expand_as(edge)
    assert edge_error(none - edge) == pytest.approx(float(edge_error(half - edge)))
    assert steepness_error(half - edge) < 0.6 * steepness_error(none - edge)
    assert steepness_error(edge - edge) == 0


def test_the_slope_deficit_is_that_of_blurred_edges_alone() -> None:
    edge = torch.zeros(2, 3, 24, 24)
    edge[..., 12:] = torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    blurred = F.avg_pool2d(F.pad(edge, (2, 2, 0, 0), mode="replicate"), (1, 5), 1)
    slope = edge.amax((1, 2, 3)) * 3**0.5 / 2  # of both columns beside an edge, by central differences
    assert slope_deficit(edge, edge) == 0 and slope_deficit(2 * edge, edge) == 0
    assert slope_deficit(torch.zeros_like(edge), edge) == pytest.approx(float(slope.mean()))
    assert slope_deficit(blurred, edge) == pytest.approx(0.6 * float(slope.mean()), rel=1e-4)
    assert slope_deficit(-edge, edge) == pytest.approx(2 * float(slope.mean())), (
        "a slope the other way is none"
    )
    flat = torch.full_like(edge, 0.3).requires_grad_()
    slope_deficit(flat, torch.zeros_like(edge)).backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_reconstruction_sees_blur_that_colour_forgives() -> None:
    sharp = (torch.arange(16) % 2).float().expand(1, 3, 16, 16) * 2 - 1
    flat = torch.zeros_like(sharp)
    shifted = sharp * -1
    assert reconstruction(sharp, sharp)["loss"] < 0.01
    assert reconstruction(flat, sharp)["loss"] > 1.5
    assert reconstruction(flat, sharp)["psnr"].item() == pytest.approx(10 * math.log10(4.0))
    assert reconstruction(shifted, sharp)["psnr"].item() == pytest.approx(0.0, abs=1e-5)
