"""A flow model becomes a teacher of Sprint: dense time and qk-norm, begun where the base model is."""

from __future__ import annotations

from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base import ConfigError
from sanakit.base.text_states import TextStates
from sanakit.pipeline import ImageRequest, load
from sanakit.training import StepReport
from sanakit.training.export import export_step
from sanakit.training.objectives.flow_matching import model_time
from sanakit.training.session import Session
from sanakit.training.tasks.dense_time import DENSE_SCALE, fit_dense_time
from sanakit.training.tasks.qk_norm import NormWeights, real_tokens
from sanakit.training.tasks.teacher import reshaped
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import load_transformer, read_model_spec, resolve, write_derived
from tests.oracles.bounds import within
from tests.pipeline.drawing import open_diffusers, open_model, ours, theirs
from tests.training.sets import config
from tests.training.test_session import run, same, weights


def shipped(**changes: Any) -> SanaTransformer:
    """Two blocks of Toybox's network, with what it learnt; norms that `changes` leave out are dropped."""
    spec = read_model_spec(resolve("toybox"))
    whole = SanaTransformer(spec.transformer)
    load_transformer(whole, spec.transformer, spec.transformer_source, dtype=torch.float32)
    network = SanaTransformer(replace(spec.transformer, depth=2, **changes))
    state = whole.state_dict()
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network.requires_grad_(False)


def folder_of(network: SanaTransformer, folder: Path) -> Path:
    spec = replace(read_model_spec(resolve("toybox")), transformer=network.config)
    return write_derived(spec, folder, network, dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(shipped(qk_norm=False), tmp_path_factory.mktemp("base") / "model")


def changes(base: Path, **others: Any) -> dict[str, Any]:
    return {"task": "teacher", "base": str(base), "model": {}} | others


def inputs(samples: int = 3) -> tuple[Tensor, TextStates]:
    generator = torch.Generator().manual_seed(4)
    latent = torch.randn(samples, 32, 4, 4, generator=generator)
    states = torch.randn(samples, 6, 160, generator=generator)
    mask = torch.arange(6) < torch.tensor([[6], [3], [1]])[:samples]
    return latent, TextStates(states, mask)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


def test_a_teacher_begins_where_its_base_is_and_loads_everywhere(base: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "run", **changes(base, preview={"every": 6, "steps": 1}, validate=6))
    assert any("dense time: the embedding is fitted to the base model's" in line for line in told)
    assert any("qk-norm: the weights of the norms" in line for line in told)
    (line,) = (line for line in told if "velocities differ" in line)
    assert float(line.rsplit("by ", 1)[1].split("%")[0]) < 25
    found = read_model_spec(tmp_path / "run/model")
    before = read_model_spec(base).transformer
    assert found.transformer == replace(before, time_scale=DENSE_SCALE, qk_norm=True, sample_size=2)
    request = ImageRequest(prompt="a red cube", width=64, height=64, steps=3, seed=2, chi=False)
    mine = ours(open_model(tmp_path / "run/model"), request)
    their = theirs(open_diffusers("SanaPipeline", tmp_path / "run/model"), request)
    for part, one, other in zip(("latents", "pixels"), mine, their, strict=True):
        within(f"whole pipeline, {part}", one, other, 1e-4)


def test_a_resumed_teacher_equals_the_whole_to_the_bit_and_a_checkpoint_is_exported(
    base: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, **changes(base))
    session = Session(config(parts, **changes(base, saving={"steps": 2})), device="cpu")
    with closing(session.events()) as events:
        for event in events:
            if isinstance(event, StepReport) and event.step == 5:
                break
    run(parts, resume=True, **changes(base))
    assert same(whole, parts)
    exported = export_step(config(whole, **changes(base)), 6)
    assert exported.name == "model-00000006"
    (image,) = load(exported, device="cpu").images(ImageRequest(prompt="a cube", steps=1))
    (wanted,) = load(whole / "model", device="cpu").images(ImageRequest(prompt="a cube", steps=1))
    assert image.tobytes() == wanted.tobytes()
    assert any("norm_k" in name for name in weights(whole))


def test_what_the_base_has_is_skipped_and_both_are_refused(tmp_path: Path) -> None:
    normed = folder_of(shipped(), tmp_path / "normed")
    told = run(tmp_path / "run", **changes(normed))
    assert any("dense time: the embedding" in line for line in told)
    assert not any("qk-norm" in line for line in told)
    rows = dict(Session(config(tmp_path / "plan", **changes(normed)), device="cpu").task.remarks())
    assert rows["qk-norm"] == "the base model has it"
    assert rows["dense time"].startswith("the base model reads times of 0 to 1000")
    with pytest.raises(ConfigError, match="has dense time and qk-norm already: it can be distilled as it is"):
        Session(config(tmp_path / "again", **changes(tmp_path / "run/model")), device="cpu")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": {"start": "scratch"}}, "model: the task teacher begins"),
        ({"text": {"train": True}}, "text.train"),
    ],
)
def test_settings_that_are_not_read_are_refused(
    base: Path, tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Session(config(tmp_path, **changes(base) | wrong), device="cpu")


def test_the_dense_embedding_follows_the_old_one_and_is_smoother() -> None:
    old = shipped().time
    new, grid = deepcopy(old), torch.linspace(0, 1, 501)
    unfitted = difference(old(grid), old(1000 * grid))
    lost = fit_dense_time(new, 1000.0)
    assert lost < 0.012
    assert difference(new(grid), old(1000 * grid)) < 0.1 < 0.5 < unfitted
    steps = [(values[1:] - values[:-1]).norm() for values in (new(grid), old(1000 * grid))]
    assert steps[0] < steps[1]


def test_solved_norms_change_a_network_less_than_norms_of_one() -> None:
    torch.manual_seed(0)
    shape = TransformerConfig(width=64, depth=2, heads=2, cross_heads=2, text_width=160)
    plain = SanaTransformer(shape).requires_grad_(False)
    torch.nn.init.ones_(plain.text.norm.weight)  # text that counts
    latent, text = inputs()
    time = torch.tensor([300.0])
    norms = NormWeights(plain)
    norms.seen = real_tokens(text.mask)
    with norms.watching():
        wanted = plain(latent, time, text)
    ones = reshaped(plain, replace(plain.config, qk_norm=True))
    solved = reshaped(plain, ones.config)
    found = norms.weights()
    assert found.keys() == {name for name in ones.state_dict() if "norm_q" in name or "norm_k" in name}
    solved.load_state_dict(solved.state_dict() | found)
    after = [difference(network(latent, time, text), wanted) for network in (solved, ones)]
    assert after[0] < after[1] / 2
    with torch.no_grad():  # the hooks are gone
        plain(latent, time, text)
    assert norms.weights().keys() == found.keys()
    assert all(torch.equal(norms.weights()[name], found[name]) for name in found)


def test_weights_of_norms_solve_the_least_squares_problem() -> None:
    plain = shipped(qk_norm=False)
    latent, text = inputs()
    norms, queries = NormWeights(plain), []
    layer = plain.blocks[1].cross.q  # type: ignore[union-attr]
    handle = layer.register_forward_hook(lambda module, given, output: queries.append(output.flatten(0, 1)))  # type: ignore[operator]
    with norms.watching():
        plain(latent, torch.tensor([100.0]), text)
    handle.remove()
    (query,) = queries
    unit = F.rms_norm(query, query.shape[-1:], eps=1e-5).double()
    solved = torch.stack(
        [
            torch.linalg.lstsq(unit[:, [c]], query[:, [c]].double()).solution[0, 0]
            for c in range(query.shape[1])
        ]
    )
    found = norms.weights()["blocks.1.cross.norm_q.weight"]
    torch.testing.assert_close(found.double(), solved, rtol=1e-4, atol=1e-7)


def test_keys_of_padding_and_of_single_tokens_do_not_count() -> None:
    _, text = inputs()
    assert real_tokens(text.mask).sum(dim=1).tolist() == [6, 3, 0]
    alone = text.mask[2:]
    assert torch.equal(real_tokens(alone), alone)  # something must be counted


def test_dense_networks_read_all_times_and_others_whole_ones() -> None:
    published = shipped().config
    t = torch.tensor([0.1234567])
    assert model_time(published, t).tolist() == [123.0]
    assert model_time(replace(published, time_scale=DENSE_SCALE), t) == pytest.approx(123.4567)
