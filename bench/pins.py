"""Compare what two versions of sanakit do, to the bit, on one machine: `python -m bench.pins COMMIT`.

Run it after any change that should change nothing. Both versions go through the command line only: pictures of each
solver, of a batch, with guidance of each kind and from `--like`; a rendered set; thirty steps of a transformer and of
an autoencoder; the keys of the cache; a checkpoint of the older version that the newer one resumes. Bits differ
between chips, so nothing is stored: COMMIT is checked out into a temporary folder and run beside the working tree.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a large red metal sphere left of a small blue rubber cube on grass at sunset"
PICTURES = {
    "dpm2": (),
    "dpm1": ("--solver", "dpm1", "--seed", "1"),
    "dpm3": ("--solver", "dpm3"),
    "euler": ("--solver", "euler", "--cfg-interval", "0.2,0.9"),
    "batch": ("--count", "3", "--negative", "snow"),
    "pag": ("--pag", "2", "--no-chi"),
    "fp32": ("--dtype", "fp32", "--fast", "off"),
}
TRAIN = """
folder: {folder}
batch: 4
phases: [{{steps: 30, size: 64}}]
data: {{path: {pictures}, square: true, held: 4, cache: {cache}}}
model: {{start: scratch, changes: {{depth: 2, width: 64, heads: 2, cross_heads: 2}}}}
optimizer: {{name: came, lr: 1.0e-3}}
schedule: {{warmup: 5}}
clip: 0.1
ema: 0.99
validate: 10
report: 1
saving: {{steps: 15, keep: 0}}
"""
AUTOENCODER = """
task: autoencoder
folder: {folder}
batch: 2
phases: [{{steps: 30, size: 64}}]
data: {{path: {pictures}, square: true, held: 4}}
autoencoder: {{phase: adaptation}}
schedule: {{warmup: 5}}
clip: 0.1
ema: 0.99
report: 1
saving: {{steps: 15, keep: 0}}
"""


@dataclass(frozen=True)
class Version:
    """A checkout, and the folder into which it works."""

    tree: Path
    out: Path

    def sanakit(self, *arguments: object) -> None:
        """Run the command. Raises SystemExit with what it printed if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "sanakit.cli", *map(str, arguments)], cwd=self.out, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(self.tree / "src"), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{self.tree}: sanakit {' '.join(map(str, arguments))}\n{done.stdout[-2000:]}")


def pictures(version: Version) -> dict[str, str]:
    """Pixels of pictures drawn in each way, by name."""
    for name, options in PICTURES.items():
        version.sanakit("generate", PROMPT, "--steps", 6, *options, "--out", f"drawn/{name}")
    first = next((version.out / "drawn/dpm2").glob("*.png"))
    version.sanakit("generate", "--like", first, "--out", "drawn/like")
    drawn = sorted((version.out / "drawn").glob("*/*.png"))
    return {f"{path.parent.name}/{path.name}": pixels_hash(path) for path in drawn}


def rendered_set(version: Version) -> dict[str, str]:
    """Pixels and captions of a rendered set."""
    version.sanakit("data", "toybox", "set", "--count", 24, "--size", 64)
    files = sorted(path for path in (version.out / "set").rglob("*") if path.is_file())
    return {
        path.name: pixels_hash(path) if path.suffix == ".png" else bytes_hash(path.read_bytes())
        for path in files
    }


def transformer(version: Version) -> dict[str, str]:
    """Losses and everything in the checkpoints of a run, and what it cached under which keys."""
    return trained(version, "transformer", TRAIN) | tensors_of(version.out / "cache")


def autoencoder(version: Version) -> dict[str, str]:
    """Losses and everything in the checkpoints of a run."""
    return trained(version, "autoencoder", AUTOENCODER)


def trained(version: Version, name: str, config: str) -> dict[str, str]:
    """Run a config from its beginning."""
    path = version.out / f"{name}.yaml"
    path.write_text(config.format(folder=name, pictures="set", cache="cache"))
    version.sanakit("train", path, "--quiet")
    return run_facts(version.out / name)


def resumed(older: Version, newer: Version, name: str) -> dict[str, str]:
    """What the newer version makes of the older one's run when it goes on from the middle."""
    folder = newer.out / f"{name}-resumed"
    shutil.copytree(older.out / name, folder, ignore=shutil.ignore_patterns("model", "vae"))
    steps = sorted((folder / "checkpoints").iterdir())
    shutil.rmtree(steps[-1])
    newer.sanakit("train", f"{name}.yaml", "--quiet", "--resume", "--set", f"folder={folder.name}")
    return checkpoint_facts(folder)


def run_facts(folder: Path) -> dict[str, str]:
    """Losses as told, and the tensors of all checkpoints."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = {f"loss of step {line['step']}": repr(line["loss"]) for line in lines if "loss" in line}
    return losses | checkpoint_facts(folder)


def checkpoint_facts(folder: Path) -> dict[str, str]:
    """The hash of every tensor of every checkpoint: weights, averages, state of the optimiser."""
    steps = sorted((folder / "checkpoints").iterdir())
    return {f"{step.name}: {name}": digest for step in steps for name, digest in tensors_of(step).items()}


def tensors_of(folder: Path) -> dict[str, str]:
    """The hash of every tensor in the files below a folder, whatever the files are called."""
    return {
        name: bytes_hash(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def pixels_hash(path: Path) -> str:
    """The hash of a picture's pixels; what else a PNG holds may change with the version."""
    with Image.open(path) as image:
        return bytes_hash(np.asarray(image).tobytes())


def bytes_hash(content: bytes) -> str:
    """Sixteen digits are enough to tell two results apart."""
    return hashlib.sha256(content).hexdigest()[:16]


def compare(title: str, older: dict[str, str], newer: dict[str, str]) -> bool:
    """Print one line, and the first facts that differ; True if none does."""
    differing = sorted(name for name in {*older, *newer} if older.get(name) != newer.get(name))
    print(f"{title}: {len(older)} facts, {len(differing)} differ", *differing[:5], sep="\n    ", flush=True)
    return not differing


@contextmanager
def two_versions(commit: str) -> Iterator[tuple[Version, Version]]:
    """The commit in a temporary checkout and the working tree, each with a folder to work in."""
    home = Path(tempfile.mkdtemp(prefix="pins-"))
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "-q", str(home / "tree"), commit], check=True)
    try:
        for name in ("older", "newer"):
            (home / name).mkdir()
        yield Version(home / "tree", home / "older"), Version(ROOT, home / "newer")
    finally:
        subprocess.run([*git, "remove", "--force", str(home / "tree")], check=False)
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Compare, and end with 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", help="the older version, as git names it")
    parser.add_argument("--without-pictures", action="store_true", help="compare the trainings only")
    given = parser.parse_args()
    kinds: list[Callable[[Version], dict[str, str]]] = [pictures, rendered_set, transformer, autoencoder]
    kinds = kinds[1:] if given.without_pictures else kinds
    with two_versions(given.commit) as (older, newer):
        same = []
        for kind in kinds:
            same.append(compare(kind.__name__, kind(older), kind(newer)))
        for name in ("transformer", "autoencoder"):
            wanted = checkpoint_facts(older.out / name)
            same.append(compare(f"{name}, resumed", wanted, resumed(older, newer, name)))
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
