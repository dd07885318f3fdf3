"""The table "Adding things" of CONTRIBUTING.md is true: each thing is added here in just the places that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, ImageChops
from safetensors.torch import load_file, save_file
from torch import Tensor

import sanakit
from sanakit.flow import SOLVERS, Query, Solver, SolverSpec
from sanakit.kernels import table
from sanakit.kernels.choice import choose, explain, run
from sanakit.kernels.problem import Problem
from sanakit.kernels.table import Implementation
from sanakit.pipeline import read_picture
from sanakit.training import read_journal
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.tasks.latents import NoisyBatch
from sanakit.training.tasks.transformer import OBJECTIVES
from sanakit.weights.formats import registry, sana_pth
from sanakit.weights.rules import Table
from tests.cli.running import Sana, lines_of
from tests.training.sets import values

ROOT = Path(__file__).parents[2]


def row_of(thing: str) -> str:
    """The places that the table names for a thing."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {thing} |")]
    return row


def same_pixels(one: Path, other: Path) -> bool:
    with Image.open(one) as first, Image.open(other) as second:
        return ImageChops.difference(first, second).getbbox() is None


def my_solver(x: Tensor, sigmas: list[float]) -> Solver:
    for step, sigma in enumerate(sigmas[:-1]):
        velocity = yield Query(x, sigma, step)
        x = x + (sigmas[step + 1] - sigma) * velocity
    return x


def test_a_solver_is_a_generator_and_a_row(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "`flow/solvers.py`" in row_of("a solver")
    row = SolverSpec(
        name="mine", about="a solver of one's own", sigmas=SOLVERS["euler"].sigmas,
        run=lambda x, sigmas, schedule, noise: my_solver(x, sigmas),
    )  # fmt: skip
    monkeypatch.setitem(SOLVERS, "mine", row)
    for solver in ("mine", "euler"):
        lines_of(sana.draw("a red cube", "--solver", solver, "--out", f"{solver}.png", "--json"))
    assert read_picture(tmp_path / "mine.png").request.solver == "mine"
    assert same_pixels(tmp_path / "mine.png", tmp_path / "euler.png")


def test_a_kernel_is_a_row_in_front_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "a row in `kernels/table.py`" in row_of("a row for CPUs")

    def unsupported(problem: Problem) -> str | None:
        return None if problem.dtype == torch.float64 else "it multiplies float64 only"

    mine = Implementation("conv", "mine", lambda x, *rest: x + 1, unsupported)
    monkeypatch.setattr(table, "TABLE", (mine, *table.TABLE))
    x = torch.zeros(1, 4, 5, 5)
    # A fact that no other call states: choices are remembered for the rest of the process.
    assert float(run("conv", x.double(), of_mine=1)(x.double()).sum()) == x.numel()
    assert choose("conv", x, of_mine=1).name != "mine"
    assert "conv: mine: refuses: it multiplies float64 only" in explain(Problem.of("conv", x, of_mine=1))


MINE = "mine."


def without_prefix(shapes: registry.Shapes) -> registry.Shapes:
    return {key.removeprefix(MINE): shape for key, shape in shapes.items()}


def my_table(config: object) -> Table:
    return Table(replace(row, theirs=MINE + row.theirs) for row in sana_pth.table(config).rows)  # type: ignore[arg-type,type-var,operator]


def test_a_format_is_a_table_and_a_row(sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`weights/formats/registry.py`" in row_of("a checkpoint format")
    assert sana("convert", sana.model, "official.safetensors").exit_code == 0
    theirs: Mapping[str, Tensor] = {
        MINE + key: tensor for key, tensor in load_file("official.safetensors").items()
    }
    save_file(dict(theirs), "mine.safetensors")
    (tmp_path / "mine.json").write_bytes((tmp_path / "official.json").read_bytes())
    drawing = ("a red cube", "--parts", sana.model, "--model")
    assert sana.draw(*drawing, "mine.safetensors", "--out", "refused.png").exit_code == 2
    row = registry.FileFormat(
        name="mine", network="transformer", table=my_table,
        detect=lambda shapes: f"{MINE}x_embedder.proj.weight" in shapes,
        read_shapes=lambda shapes, where: sana_pth.read_shapes(without_prefix(shapes), where),
        infer=lambda shapes, **facts: sana_pth.infer_config(without_prefix(shapes), **facts),
    )  # fmt: skip
    monkeypatch.setattr(registry, "FILES", (row, *registry.FILES))
    for name in ("mine", "official"):
        lines_of(sana.draw(*drawing, f"{name}.safetensors", "--out", f"{name}.png", "--json"))
    assert same_pixels(tmp_path / "mine.png", tmp_path / "official.png")


class TwiceTheLoss(FlowMatching):
    """An objective with losses of its own."""

    def losses(self, batch: NoisyBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {name: 2 * value for name, value in super().losses(batch, generator).items()}


def test_an_objective_is_a_class_and_a_row(
    sana: Sana, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "`OBJECTIVES`" in row_of("a training objective")
    monkeypatch.setitem(OBJECTIVES, "twice", TwiceTheLoss)
    first = {}
    for name in ("twice", "flow_matching"):
        config = values(tmp_path / name, objective=name, report=1, phases=[{"steps": 1, "size": 64}])
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        result = sana("train", f"{name}.yaml", "--device", "cpu", "--quiet")
        assert result.exit_code == 0, result.stderr
        first[name] = read_journal(tmp_path / name)[1]["loss"]
    assert first["twice"] == pytest.approx(2 * first["flow_matching"])


def test_an_option_of_a_picture_is_a_field(sana: Sana, tmp_path: Path) -> None:
    assert "a field of `ImageRequest`" in row_of("an option of a picture")
    source = linked_source(tmp_path / "src")
    text = source.read_text()
    field = '    grain: float = option(0.0, "How grainy the picture is.", f.Number(9.0), png="Grain")\n'
    last = text.index("    def __post_init__")
    source.unlink()
    source.write_text(text[:last].rstrip() + f"\n{field}\n{text[last:]}")

    small = ("--model", sana.model, "--size", "64", "--steps", "1", "--device", "cpu", "--dtype", "fp32")
    help_text, refused, drawn, again = commands_of(
        tmp_path,
        ("generate", "--help"),
        ("generate", "x", "--grain", "10"),
        ("generate", "a red cube", "--grain", "2.5", *small, "--out", "x.png"),
        ("generate", "--like", "x.png", "--out", "y.png", "--json"),
    )
    assert "How grainy the picture is" in " ".join(help_text["out"].split())
    assert "grain must be a number from 0 to 9" in refused["err"]
    assert drawn["code"] == 0, drawn["err"]
    with Image.open(tmp_path / "x.png") as image:
        assert "Grain: 2.5" in image.info["parameters"]
    assert '"grain": 2.5' in again["out"]


def commands_of(folder: Path, *commands: tuple[str, ...]) -> list[dict[str, Any]]:
    """What commands of the sanakit in folder/src print, and their exit codes; one process runs them all."""
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from sanakit.cli import app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(app, command)\n"
        "    print(json.dumps({'code': done.exit_code, 'out': done.stdout, 'err': done.stderr}))\n"
    )
    env = os.environ | {"PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        env=env, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def linked_source(folder: Path) -> Path:
    """Link sanakit into a folder, but for the file that holds ImageRequest, which is copied; return that."""
    package = Path(sanakit.__file__).parent
    for real in ("", "pipeline"):
        (folder / "sanakit" / real).mkdir(parents=True)
        for path in (package / real).iterdir():
            if path.name not in ("pipeline", "__pycache__"):
                (folder / "sanakit" / real / path.name).symlink_to(path)
    source = folder / "sanakit/pipeline/request.py"
    content = source.read_text()
    source.unlink()
    source.write_text(content)
    return source
