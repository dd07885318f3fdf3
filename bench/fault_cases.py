"""The commands that `bench.faults` kills, each with what must hold afterwards; models are of width 8 to 256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sanakit.base.drafts import is_draft
from sanakit.base.errors import InputError
from sanakit.cli import app
from sanakit.data.cache import TensorCache
from sanakit.data.cache.index import read_encoders, read_pictures
from sanakit.pipeline import read_picture
from sanakit.toybox.folder import write_pictures
from sanakit.training.checkpoint import Checkpoints
from sanakit.weights import folder_to_file, read_model_spec, write_derived
from tests.oracles.tiny import Recipe, write_tiny
from tests.training.small import start, train

Check = Callable[[Path], str | None]


@dataclass(frozen=True, kw_only=True)
class Case:
    """prepare: fills an empty folder with a complete old result. command: replaces it, or adds to it.

    lost: what is lost at any moment of it, None for nothing. undone: what is missing once it has run to its end.
    """

    name: str
    prepare: Callable[[Path], object]
    command: Callable[[Path], object]
    lost: Check
    undone: Check


def tree(folder: Path) -> dict[str, str]:
    """Path -> hash of every file in a folder, or of one file; drafts are none."""
    if folder.is_file():
        return {"": hashlib.sha256(folder.read_bytes()).hexdigest()}
    names = [path for path in folder.rglob("*") if path.is_file() and ".lock" not in path.name]
    shown = [path for path in names if not any(is_draft(part) for part in path.relative_to(folder).parts)]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown
    }


def drafts(home: Path) -> list[str]:
    """Temporary files that are left."""
    return [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if is_draft(path.name) or path.suffix == ".lock"
    ]


class Sources:
    """What commands read, made once in a folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.models = [
            write_tiny(home / f"model{seed}", Recipe(seed=seed, width=16, depth=1)) for seed in (1, 2)
        ]
        self.wide = write_tiny(home / "wide", Recipe(width=256, heads=8, cross_heads=8, depth=1))
        self.pth = [home / f"{seed}.pth" for seed in (1, 2)]
        for model, path in zip(self.models, self.pth, strict=True):
            (model / "sanakit.json").write_text(json.dumps({"bins": False}))
            folder_to_file(model, path)
        for name, count in (("few", 3), ("more", 6)):
            list(write_pictures(home / name, count, size=32))


def replaced(name: str, write: Callable[[Path, int], object], where: str) -> Case:
    """A result in one place that another takes: at every moment the old one or the new one is there, whole."""
    results: dict[int, dict[str, str]] = {}

    def prepare(home: Path) -> None:
        for which in (1, 0):
            write(home / where, which)
            results[which] = tree(home / where)

    def lost(home: Path) -> str | None:
        found = tree(home / where) if (home / where).exists() else {}
        return (
            None
            if found in results.values()
            else f"{where} is neither the old nor the new one: {sorted(found)}"
        )

    def undone(home: Path) -> str | None:
        return None if tree(home / where) == results[1] else f"{where} is not the new one"

    return Case(
        name=name, prepare=prepare, command=lambda home: write(home / where, 1), lost=lost, undone=undone
    )


def conversions(sources: Sources) -> list[Case]:
    """`sanakit convert --force` in its forms, and the export of a run."""

    def to_folder(target: Path, which: int) -> None:
        size = "20KB" if which else "5GB"
        sana("convert", sources.pth[which], target, "--cross-heads", 2, "--force", "--shard-size", size)

    def to_pth(target: Path, which: int) -> None:
        sana("convert", sources.models[which], target, "--force")

    def to_int8(target: Path, which: int) -> None:
        size = "200KB" if which else "5GB"
        sana("convert", sources.wide, target, "--dtype", "int8", "--force", "--shard-size", size)

    def export(target: Path, which: int) -> None:
        found = read_model_spec(sources.models[0])
        state = {name: torch.full_like(tensor, which) for name, tensor in _state(found.folder).items()}
        write_derived(found, target, state, force=True)

    return [
        replaced("convert .pth to a folder", to_folder, "folder"),
        replaced("convert a folder to .pth", to_pth, "model.pth"),
        replaced("convert to int8", to_int8, "int8"),
        replaced("export of a run", export, "model"),
    ]


def _state(folder: Path) -> dict[str, torch.Tensor]:
    from sanakit.transformer import SanaTransformer

    with torch.device("meta"):
        model = SanaTransformer(read_model_spec(folder).transformer)
    return {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}


def generation(sources: Sources) -> Case:
    """`sanakit generate` into a folder: pictures that are there stay, every picture that has a name is whole."""

    def command(home: Path, seed: int = 0) -> None:
        draw(sources.models[0], home / "out", seed)

    def lost(home: Path) -> str | None:
        found = sorted((home / "out").glob("*.png"))
        for path in found:
            read_picture(path)
        return None if (home / "out" / "a-red-cube-0.png") in found else "the picture that was there is gone"

    def undone(home: Path) -> str | None:
        return None if len(list((home / "out").glob("*.png"))) > 2 else "no picture was added"

    return Case(name="generate", prepare=command, command=command, lost=lost, undone=undone)


def draw(model: Path, out: Path, seed: int = 0) -> None:
    """Two pictures into a folder."""
    sana(
        "generate", "a red cube", "--model", model, "--size", "32x32", "--steps", 1, "--count", 2, "--seed", seed,
        "--device", "cpu", "--dtype", "fp32", "--fast", "off", "--json", "--out", out,
    )  # fmt: skip


def fill(sources: Sources, model: int, name: str, home: Path) -> None:
    """A set's latents and text states."""
    sana(
        "data", "cache", sources.home / name, "--model", sources.models[model], "--size", 32, "--square", "--batch", 4,
        "--device", "cpu", "--dtype", "fp32", "--json", "--out", home / "cache",
    )  # fmt: skip


def sana(*arguments: object) -> None:
    """`sanakit ...` in this process. Raises InputError with its words for exit code 2, SystemExit for any other."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code == 2:
        raise InputError(result.stderr)
    if result.exit_code:
        raise SystemExit(f"{result.stderr}\n{result.output}") from result.exception


def caching(sources: Sources) -> Case:
    """`sanakit data cache` of a larger set into a cache that holds a smaller one."""
    sizes: list[int] = []

    def prepare(home: Path) -> None:
        fill(sources, 0, "few", home)
        sizes.append(len(TensorCache(home / "cache", read_only=True)))

    def lost(home: Path) -> str | None:
        cache = TensorCache(home / "cache", read_only=True)
        if cache.faults or len(cache) < sizes[0] or any(cache.get(key) is None for key in cache):
            return f"{len(cache)} of {sizes[0]} entries are there, {len(cache.faults)} shards are broken"
        noted = read_encoders(home / "cache"), read_pictures(home / "cache", sources.home / "few")
        return None if len(noted[0]) == 2 and len(noted[1]) == 3 else f"notes are lost: {noted}"

    def undone(home: Path) -> str | None:
        noted = read_pictures(home / "cache", sources.home / "more")
        return None if len(noted) == 6 else f"{len(noted)} of 6 pictures are noted"

    return Case(
        name="data cache",
        prepare=prepare,
        command=partial(fill, sources, 0, "more"),
        lost=lost,
        undone=undone,
    )


def checkpoints() -> Case:
    """Training that keeps one checkpoint: it never has less than the step it had, and ends with the same weights."""
    results: list[dict[str, str]] = []

    def go_on(home: Path, steps: int = 8) -> None:
        train(start(home / "run", steps, save_steps=2, keep=1))

    def prepare(home: Path) -> None:
        go_on(home / "whole")
        results.append(_weights(home / "whole" / "run"))
        train(start(home / "run", 8, save_steps=2, keep=1), until=5)

    def lost(home: Path) -> str | None:
        newest = Checkpoints(home / "run").latest()
        return None if newest is not None and newest.name >= "step-00000004" else f"the newest is {newest}"

    def undone(home: Path) -> str | None:
        return None if _weights(home / "run") == results[0] else "the weights are others"

    return Case(
        name="training checkpoints", prepare=prepare, command=sweeping(go_on), lost=lost, undone=undone
    )


def sweeping(command: Callable[[Path], object]) -> Callable[[Path], object]:
    """As a run begins: what a killed one left is removed."""

    def act(home: Path) -> None:
        Checkpoints(home / "run").sweep()
        command(home)

    return act


def _weights(run: Path) -> dict[str, str]:
    newest = Checkpoints(run).latest()
    assert newest is not None
    return {  # tensors: their order in the file is the writer's own
        name: hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        for path in newest.glob("*.safetensors")
        for name, tensor in load_file(path).items()
    }


def cases(sources: Sources) -> list[Case]:
    """All of them."""
    return [*conversions(sources), generation(sources), caching(sources), checkpoints()]
