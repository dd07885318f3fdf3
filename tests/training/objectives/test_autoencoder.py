"""The autoencoder's objective: phases freeze what they should, gradients go where they should, and it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig, Stage
from sanakit.base.errors import ConfigError
from sanakit.training import DataConfig, RunPhase, TrainConfig
from sanakit.training.objectives import (
    LPIPS_FILES,
    AutoencoderLoss,
    PatchDiscriminator,
    Perceptual,
    adaptive_weight,
    choose_perceptual,
    hinge_discriminator,
    hinge_generator,
    last_layer,
    log_power,
    lpips_missing,
    moment_kl,
    multiscale_edges,
)
from sanakit.training.objectives import perceptual as perceptual_module
from sanakit.training.objectives.autoencoding import AutoencoderPair, Autoencoding
from sanakit.training.optim import OptimizerConfig
from sanakit.training.sections import AutoencoderRun
from sanakit.training.tasks.phases import PHASES, Phase, trained_parameters

STAGES = (Stage("res", 8, 1), Stage("res", 8, 1), Stage("evit", 16, 1, (5,)))
TINY = AutoencoderConfig(latent_channels=4, head_dim=8, encoder=STAGES, decoder=STAGES)
FULL, ADAPTATION, REFINEMENT = PHASES.values()
EDGES = Perceptual(multiscale_edges, "edges")


def tiny() -> DCAE:
    torch.manual_seed(2)
    return DCAE(TINY)


def small_discriminator() -> PatchDiscriminator:
    torch.manual_seed(4)
    return PatchDiscriminator(width=8, layers=2)


def objective(phase: Phase, critic: OptimizerConfig | None = None, **weights: object) -> Autoencoding:
    model, loss = tiny(), AutoencoderLoss(**weights)  # type: ignore[arg-type]
    trained_parameters(model, phase)
    config = TrainConfig(
        folder=Path("run"), phases=(RunPhase(steps=1, size=32),), data=DataConfig(path=Path("set")),
        autoencoder=AutoencoderRun(loss=loss, critic=critic), clip=0.5, ema=0.9,
    )  # fmt: skip
    return Autoencoding(
        config, AutoencoderPair(model, small_discriminator() if phase.critic else None), EDGES
    )


def trained_names(model: nn.Module) -> set[str]:
    return {".".join(name.split(".")[:3]) for name, p in model.named_parameters() if p.requires_grad}


def test_phases_train_what_the_paper_says() -> None:
    model = tiny()
    assert len(trained_parameters(model, FULL)) == len(list(model.parameters()))
    trained_parameters(model, ADAPTATION)
    assert trained_names(model) == {
        "encoder.exit.weight",
        "encoder.exit.bias",
        "encoder.stages.2",
        "decoder.entry.weight",
        "decoder.entry.bias",
        "decoder.stages.2",
    }
    chosen = trained_parameters(model, REFINEMENT)
    assert trained_names(model) == {
        "decoder.stages.0",
        "decoder.norm.weight",
        "decoder.norm.bias",
        "decoder.exit.weight",
        "decoder.exit.bias",
    }
    assert {id(p) for p in chosen} == {id(p) for p in model.parameters() if p.requires_grad}
    assert [(p.trained, p.critic) for p in PHASES.values()] == [
        ("all", False), ("latent", False), ("head", True)
    ]  # fmt: skip


def test_empty_stages_are_not_counted() -> None:
    model = DCAE(PRESETS["toybox"])
    trained_parameters(model, REFINEMENT)
    names = trained_names(model)
    assert "decoder.stages.1" in names
    assert last_layer(model) is model.decoder.exit.conv.weight  # type: ignore[union-attr]
    trained_parameters(model, replace(ADAPTATION, stages=2))
    assert {"encoder.stages.4", "decoder.stages.4", "encoder.stages.5"} <= trained_names(model)


def test_refinement_leaves_the_latent_alone() -> None:
    task = objective(REFINEMENT)
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    before = task.model.encode(pixels)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=1e-2)
    task.generator_loss(pixels, 0)["loss"].backward()
    optimizer.step()
    assert torch.equal(task.model.encode(pixels), before)
    assert not before.requires_grad


def test_each_loss_moves_its_own_network() -> None:
    task = objective(REFINEMENT)
    assert task.critic is not None
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    made = task.reconstruct(pixels)
    parts = task.generator_loss(pixels, 0, made)
    parts["loss"].backward()
    assert {"loss", "pixel", "perceptual", "latent", "adversarial", "adversarial_weight", "psnr"} == set(
        parts
    )
    assert all(p.grad is None for p in task.critic.parameters())
    assert last_layer(task.model).grad is not None
    task.model.zero_grad()
    task.critic_loss(pixels, made)["critic_loss"].backward()
    assert all(p.grad is not None for p in task.critic.parameters())
    assert all(p.grad is None for p in task.model.parameters())


def test_the_discriminator_waits_for_its_step_and_its_phase() -> None:
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    late = objective(REFINEMENT, adversarial_start=10)
    assert [late.plays(step) for step in (0, 9, 10)] == [False, False, True]
    assert "adversarial" not in late.generator_loss(pixels, 9)
    assert "adversarial" in late.generator_loss(pixels, 10)
    assert not objective(FULL).plays(100)
    with pytest.raises(ConfigError, match="this phase has no critic"):
        objective(FULL).critic_loss(pixels, objective(FULL).reconstruct(pixels))


def test_the_critic_is_a_player_of_its_own() -> None:
    (alone,) = objective(FULL).players()
    assert (alone.name, alone.loss, alone.ema) == ("autoencoder", "loss", 0.9)
    for settings, lr in ((None, 1e-4), (OptimizerConfig(lr=3e-4, betas=(0.5, 0.9)), 3e-4)):
        task = objective(REFINEMENT, critic=settings)
        first, critic = task.players()
        assert first.module is task.model and critic.module is task.critic
        assert (critic.name, critic.loss, critic.lr, critic.clip, critic.ema) == (
            "critic", "critic_loss", lr, 0.5, None,
        )  # fmt: skip
        assert not {id(p) for group in first.optimizer.param_groups for p in group["params"]} & {
            id(p) for p in critic.module.parameters()
        }


def test_the_loss_is_the_sum_of_its_parts() -> None:
    task = objective(REFINEMENT, pixel=2.0, perceptual=0.5, adversarial=0.3, latent=0.1, regularisation="rms")
    parts = task.generator_loss(torch.rand(2, 3, 16, 16) * 2 - 1, 0)
    adversarial = 0.3 * parts["adversarial_weight"] * parts["adversarial"]
    wanted = 2 * parts["pixel"] + 0.5 * parts["perceptual"] + adversarial + 0.1 * parts["latent"]
    torch.testing.assert_close(parts["loss"].detach(), wanted)


def test_noise_on_the_latent_is_the_generators() -> None:
    task = objective(FULL, latent_noise=0.5)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    first, again = (task.reconstruct(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.pixels, again.pixels)
    assert torch.equal(first.latent, task.model.encode(pixels))
    assert not torch.equal(first.pixels, task.model(pixels))


def test_both_sides_learn() -> None:
    """Ten steps of full training with a GAN on one picture: it is redrawn better, and told from its copy."""
    task = objective(Phase(critic=True))
    assert task.critic is not None
    pixels = (torch.arange(16) % 4 < 2).float().expand(2, 3, 16, 16) * 1.6 - 0.8
    model = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    judge = torch.optim.AdamW(task.critic.parameters(), lr=1e-3)
    errors, verdicts = [], []
    for step in range(25):
        made = task.reconstruct(pixels)
        parts = task.generator_loss(pixels, step, made)
        model.zero_grad()
        parts["loss"].backward()
        model.step()
        verdict = task.critic_loss(pixels, made)
        judge.zero_grad()
        verdict["critic_loss"].backward()
        judge.step()
        errors.append(parts["pixel"].item())
        verdicts.append((verdict["real"] - verdict["fake"]).item())
    assert errors[-1] < 0.6 * errors[0]
    assert verdicts[-1] > verdicts[0] + 0.5


def test_patches_are_seventy_pixels() -> None:
    judge = PatchDiscriminator(width=4, norm=lambda channels: nn.Identity())
    assert judge(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    pixels = torch.zeros(1, 3, 256, 256, requires_grad=True)
    judge(pixels)[0, 0, 15, 15].backward()
    assert pixels.grad is not None
    rows = pixels.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert len(rows) == rows[-1] - rows[0] + 1 == 70
    assert (
        sum(p.numel() for p in PatchDiscriminator().parameters()) == 2_765_633
    )  # CycleGAN's, the same network


def test_hinges() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge_discriminator(real, fake).item() == pytest.approx(0.5 * (0.25 + 0.5))
    assert hinge_generator(fake).item() == pytest.approx(1.5)


def test_the_adaptive_weight_balances_gradients() -> None:
    last = nn.Parameter(torch.tensor([3.0, -4.0]))
    ours, theirs = (last * torch.tensor([6.0, 8.0])).sum(), (last * torch.tensor([0.0, 2.0])).sum()
    weight = adaptive_weight(ours, theirs, last)
    assert weight.item() == pytest.approx(5.0, rel=1e-5)
    assert not weight.requires_grad
    assert adaptive_weight(ours, theirs * 0, last).item() == 1e4


@pytest.mark.parametrize("loss", [moment_kl, log_power])
def test_regularisation_is_least_at_unit_size(loss: object) -> None:
    latent = torch.randn(8, 4, 16, 16)
    latent = (latent - latent.mean((0, 2, 3), keepdim=True)) / latent.std(
        (0, 2, 3), correction=0, keepdim=True
    )
    small, unit, large = (loss(latent * factor).item() for factor in (0.3, 1.0, 3.0))  # type: ignore[operator]
    assert unit == pytest.approx(0.0, abs=1e-5)
    assert min(small, large) > 0.5
    assert moment_kl(latent * 3).item() == pytest.approx((9 - 1 - math.log(9)) / 2, rel=1e-4)


def test_edges_see_what_colour_forgives() -> None:
    sharp = (torch.arange(32) % 2).float().expand(1, 3, 32, 32) * 2 - 1
    assert multiscale_edges(sharp + 0.5, sharp).item() == pytest.approx(0.0, abs=1e-6)
    assert multiscale_edges(torch.zeros_like(sharp), sharp) > 0.4
    assert multiscale_edges(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)).isfinite()


def test_what_stands_for_lpips_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: set[str] = set()
    monkeypatch.setattr(perceptual_module, "find_spec", lambda name: name if name in found else None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert lpips_missing() == "torchmetrics is not installed"
    found.add("torchmetrics")
    chosen = choose_perceptual(torch.device("cpu"))
    assert chosen.loss is multiscale_edges
    assert chosen.words.endswith("in place of LPIPS, because torchvision is not installed")
    found.add("torchvision")
    path = tmp_path / "checkpoints" / LPIPS_FILES["vgg"]
    assert lpips_missing() == f"its weights are not at {path}"
    path.parent.mkdir()
    path.touch()
    assert lpips_missing() is None


def test_lpips_is_taken_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def distance(decoded: Tensor, pixels: Tensor) -> Tensor:
        return (decoded - pixels).square().mean()

    monkeypatch.setattr(perceptual_module, "lpips_missing", lambda net: None)
    monkeypatch.setattr(perceptual_module, "_lpips", lambda net, device: distance)
    chosen = choose_perceptual(torch.device("cpu"), "alex")
    assert (chosen.loss, chosen.words) == (distance, "perceptual loss: LPIPS with alex features")
