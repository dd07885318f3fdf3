"""`sanakit grow`: the grown model draws what the kept blocks drew, here and in diffusers; what can't grow is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanakit.pipeline import ImageRequest
from sanakit.transformer import PRESETS
from sanakit.weights import read_model_spec
from sanakit.weights.formats.diffusers_transformer import table
from tests.cli.running import Sana, lines_of, pictures_in
from tests.oracles.bounds import within
from tests.pipeline.drawing import open_diffusers, open_model, ours, theirs

REQUEST = ImageRequest(prompt="a red cube", width=64, height=64, steps=2, guidance=4.5, chi=False)


@pytest.mark.parametrize("how", ["partial", "progressive"])
def test_the_grown_model_draws_what_it_came_from_here_and_in_diffusers(
    sana: Sana, tmp_path: Path, how: str
) -> None:
    deep = tmp_path / "deep"
    depth = read_model_spec(Path(sana.model)).transformer.depth + 3
    [told] = lines_of(
        sana("grow", sana.model, "--depth", depth, "--drop", 0, "--how", how, "--out", deep, "--json")
    )
    assert (told["depth"], len(told["blocks"])) == (depth, depth)
    wanted, _ = ours(open_model(Path(sana.model), fast="off"), REQUEST)
    within("grown model: latents", ours(open_model(deep, fast="off"), REQUEST)[0], wanted, 1e-5)
    latents, _ = theirs(open_diffusers("SanaPipeline", deep), REQUEST, complex_human_instruction=None)
    within("grown model in diffusers: latents", latents, wanted, 1e-5)


def test_the_plan_of_a_published_model_lists_every_tensor(sana: Sana) -> None:
    """SANA-1.5's growth from 1.6B to 4.8B, with none of its files at hand."""
    told, *keys = lines_of(
        sana("grow", "sana-1.6b-1024", "--depth", 60, "--qk-norm", "--plan", "--keys", "--json")
    )
    assert told["depth"] == 60 and 4.6e9 < told["parameters"] < 4.9e9
    wanted = table(PRESETS["sana1.5-4.8b-1024"]).their_keys
    assert sorted(key["key"] for key in keys) == sorted(wanted)
    origins = {key["key"].removeprefix("transformer_blocks."): key["origin"] for key in keys}
    assert origins["17.attn1.to_q.weight"] == "of block 17" and origins["18.attn1.to_q.weight"] == "fresh"
    assert origins["18.attn1.to_out.0.weight"] == "zero" and origins["3.attn1.norm_q.weight"] == "one"
    assert origins["patch_embed.proj.weight"] == "kept"


def test_a_folder_of_a_published_name_is_planned_as_what_it_is(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sana-1.6b-1024").symlink_to(sana.model)
    (told,) = lines_of(sana("grow", "sana-1.6b-1024", "--depth", 9, "--drop", 0, "--plan", "--json"))
    assert told["parameters"] < 1e9


def test_the_plan_reads_no_weights(sana: Sana, tmp_path: Path) -> None:
    told = sana("grow", sana.model, "--depth", 9, "--drop", 0, "--plan", "--qk-norm")
    assert told.exit_code == 0, told.stderr
    assert "it would have" in told.stdout and "to 9 blocks" in told.stdout
    assert "norms with weights of 1" in told.stderr
    assert pictures_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--depth", 9), "say where to write the model"),
        (("--depth", 1, "--drop", 0, "--out", "deep"), "a depth of 1 isn't a growth"),
        (("--depth", 9, "--keys", "--out", "deep"), "--keys goes with --plan"),
        (("--depth", 9, "--drop", 90, "--out", "deep"), "drop is 90"),
        (("--depth", 9, "--drop", 0, "--how", "up", "--out", "deep"), "unknown growth 'up'"),
    ],
)
def test_what_cannot_grow_is_one_sentence(
    sana: Sana, tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    done = sana("grow", sana.model, *arguments)
    assert done.exit_code == 2 and told in done.stderr and not (tmp_path / "deep").exists()


def test_nothing_is_overwritten(sana: Sana, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/mine.txt").write_text("mine")
    done = sana("grow", sana.model, "--depth", 9, "--drop", 0, "--out", tmp_path / "deep")
    assert done.exit_code == 2 and (tmp_path / "deep/mine.txt").read_text() == "mine"
    again = sana("grow", sana.model, "--depth", 9, "--drop", 0, "--out", sana.model, "--force")
    assert again.exit_code == 2 and "is the model itself" in again.stderr
    assert json.loads((Path(sana.model) / "transformer/config.json").read_text())["num_layers"] < 9
