"""What a block does is measured: one without effect is found, and pruning takes it out without a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.adapt.depth import plan_growth, plan_pruning
from sanakit.base.errors import RequestError
from sanakit.evaluation.importance import (
    BlockImportance,
    BlockMeasures,
    most_important,
    read_importance,
    to_json,
)
from sanakit.pipeline import ImageRequest
from sanakit.pipeline.depth import write_reshaped
from sanakit.weights import read_model_spec
from tests.cli.running import Sana, lines_of
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_model, ours

REQUEST = ImageRequest(prompt="a red cube", width=64, height=64, steps=2, chi=False)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks that do something, and two that do nothing yet between them."""
    home = tmp_path_factory.mktemp("grown")
    found = read_model_spec(Folders(home)(Recipe(depth=3)))
    plan = plan_growth(3, 5, drop=0, how="progressive")  # 0, 0 again, 1, 1 again, 2
    assert [origin.silent for origin in plan] == [False, True, False, True, False]
    write_reshaped(found, plan, home / "deep")
    return home / "deep"


@pytest.fixture(scope="module")
def found(grown: Path) -> list[BlockImportance]:
    measures = BlockMeasures(open_model(grown, fast="off"))
    states = list(measures.draw(REQUEST))
    assert len(states) == REQUEST.steps == measures.count
    return measures.importance()


def test_a_block_without_effect_turns_no_token_and_is_not_missed(found: list[BlockImportance]) -> None:
    assert [one.block for one in found] == [0, 1, 2, 3, 4]
    for one in found:
        if one.block in (1, 3):
            assert one.similarity == pytest.approx(1.0, abs=1e-6) and one.rise == 0.0
        else:
            assert one.similarity < 0.9999 and one.rise > 1e-6


def test_measuring_leaves_the_picture_alone(grown: Path) -> None:
    model = open_model(grown, fast="off")
    wanted, _ = ours(model, REQUEST)
    *_, last = BlockMeasures(model).draw(REQUEST)
    assert torch.equal(last.x, wanted)
    assert torch.equal(ours(model, REQUEST)[0], wanted)  # no hook is left


@pytest.mark.parametrize("by", ["rise", "similarity"])
def test_the_least_important_blocks_go(found: list[BlockImportance], by: str) -> None:
    assert most_important(found, 3, by=by) == [0, 2, 4]
    assert most_important(found, 4, by=by, ends=2) == [0, 1, 3, 4]
    with pytest.raises(RequestError, match="keep is 1; of 5 blocks, 1 kept at each end, 2 to 4 can stay"):
        most_important(found, 1, by=by)
    with pytest.raises(RequestError, match="unknown measure 'size'"):
        most_important(found, 3, by="size")


def test_a_block_without_effect_is_pruned_without_a_trace(grown: Path, tmp_path: Path) -> None:
    spec = read_model_spec(grown)
    write_reshaped(spec, plan_pruning(5, (0, 2, 4)), tmp_path / "small")
    small = open_model(tmp_path / "small", fast="off")
    assert torch.allclose(ours(small, REQUEST)[0], ours(open_model(grown, fast="off"), REQUEST)[0], atol=1e-5)
    assert small.spec.transformer == replace(spec.transformer, depth=3)


def test_the_commands_measure_and_prune(sana: Sana, grown: Path, tmp_path: Path) -> None:
    told = sana(
        "importance",
        grown,
        "--prompts",
        1,
        "--steps",
        1,
        "--dtype",
        "fp32",
        "--json",
        "blocks.json",
        "--plot",
        "b.png",
    )
    assert told.exit_code == 0, told.stderr
    assert len(told.stdout.splitlines()) == 6 and (tmp_path / "b.png").stat().st_size > 1000
    [made] = lines_of(
        sana("prune", grown, "--keep", 3, "--importance", "blocks.json", "--out", "small", "--json")
    )
    assert [one["block"] for one in made["blocks"]] == [0, 2, 4]
    other = sana("prune", sana.model, "--keep", 1, "--importance", "blocks.json", "--out", "no")
    assert other.exit_code == 2 and "measures 5 blocks, and the model has 2" in other.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say what to keep"),
        (("--keep", 1), "--keep needs --importance FILE"),
        (("--blocks", "0,a"), "--blocks must be numbers such as 0,1,4"),
        (("--blocks", "0,7"), "there is no block 7: the model has blocks 0 to 1"),
        (("--blocks", "0", "--importance", "x.json"), "--importance decides with --keep"),
        (("--keep", 1, "--importance", "x.json"), "x.json can't be read"),
    ],
)
def test_what_cannot_be_pruned_is_one_sentence(
    sana: Sana, tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    done = sana("prune", sana.model, "--out", "small", *arguments)
    assert done.exit_code == 2 and told in done.stderr and not (tmp_path / "small").exists()


def test_two_sources_of_prompts_are_refused(sana: Sana, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red cube\n")
    done = sana(
        "importance", sana.model, "--prompts", 2, "--prompt-file", "prompts.txt", "--json", "new/x.json"
    )
    assert done.exit_code == 2 and "--prompts or --prompt-file, not both" in done.stderr
    assert not (tmp_path / "new").exists()


def test_measures_survive_their_file(found: list[BlockImportance], tmp_path: Path) -> None:
    file = tmp_path / "blocks.json"
    file.write_text(to_json(found, "abc"))
    assert read_importance(file) == (found, "abc")
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"blocks": told["blocks"][1:]}))
    with pytest.raises(RequestError, match="doesn't measure every block once"):
        read_importance(file)
    file.write_text("[]")
    with pytest.raises(RequestError, match="isn't what `sanakit importance --json` writes"):
        read_importance(file)
