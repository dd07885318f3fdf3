"""Kill a small training run again and again, at random moments, and see that nothing is lost: `make kill9 N=25`.

A run of `sanakit train` on 48 Toybox pictures is killed by SIGKILL N times: while it encodes pictures, trains, saves,
validates and draws previews. It is resumed each time, and at the end its weights must be those of a run that nobody
disturbed, to the bit. Prints what the run was doing each time, and the counts. `--task sprint` kills a distillation of
the model that such a run gives.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from sanakit.toybox.folder import write_pictures

STEPS = 40
CONFIG = """
folder: {folder}
batch: 4
phases: [{{steps: 25, size: 64}}, {{steps: 15, size: 96}}]
data: {{path: {pictures}, square: true, held: 4, workers: 1}}
optimizer: {{name: {optimizer}, lr: 1.0e-3}}
schedule: {{warmup: 5}}
validate: 5
report: 1
saving: {{steps: 2}}
"""
TASKS = {
    "transformer": """
model: {{start: scratch, changes: {{depth: 1, width: 64, heads: 2, cross_heads: 2}}}}
preview: {{every: 4, steps: 2, prompts: [a red sphere]}}
""",
    "sprint": """
task: sprint
base: {teacher}
sprint: {{warmup: 4}}
preview: {{every: 4, prompts: [a red sphere]}}
""",
}
"""What each task adds to the config."""


def write_config(home: Path, name: str, task: str, optimizer: str) -> Path:
    """Write the config of a run of a task in `home`/`name`, and return its path."""
    path = home / f"{name}.yaml"
    folders = {"folder": home / name, "pictures": home / "pictures", "teacher": home / "teacher/model"}
    path.write_text((CONFIG + TASKS[task]).format(optimizer=optimizer, **folders))
    return path


def start(config: Path) -> subprocess.Popen[str]:
    """The run, resumed where there is something to resume."""
    return subprocess.Popen(
        [sys.executable, "-m", "sanakit.cli", "train", str(config), "--resume"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def whole(config: Path) -> str:
    """Run to the end; what it printed last."""
    told, _ = (process := start(config)).communicate(timeout=600)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}:\n{told[-2000:]}")
    return told.splitlines()[-1]


def killed(config: Path, after: float) -> str | None:
    """Kill the run so many seconds after it began; what it had said last, or None where it was through before."""
    process = start(config)
    try:
        process.wait(timeout=after)
        return None
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    told, _ = process.communicate()
    return (told.splitlines() or ["starting"])[-1]


def weights(folder: Path) -> dict[str, Tensor]:
    """Of the newest checkpoint, everything: weights, averages, the optimiser's state."""
    newest = max((folder / "checkpoints").glob("step-*"))
    return {name: tensor for path in newest.glob("*.safetensors") for name, tensor in load_file(path).items()}


def main() -> None:
    """Do it, and print the count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--task", choices=TASKS, default="transformer")
    given = parser.parse_args()
    chance, home = random.Random(given.seed), Path(tempfile.mkdtemp(prefix="kill9-"))
    for _ in write_pictures(home / "pictures", 48, size=96):
        pass
    if given.task == "sprint":
        print(
            "the teacher:", whole(write_config(home, "teacher", "transformer", given.optimizer)), flush=True
        )
    configs = {name: write_config(home, name, given.task, given.optimizer) for name in ("whole", "killed")}
    begun = time.monotonic()
    print("undisturbed:", whole(configs["whole"]), flush=True)
    usual, kills, rounds, seen = time.monotonic() - begun, 0, 0, collections.Counter[str]()
    while kills < given.count:
        last = killed(configs["killed"], chance.uniform(0.2, 1.1) * usual)
        if last is None:  # it was through: compare, and begin again
            rounds += 1
            compare(home)
            shutil.rmtree(home / "killed")
            continue
        kills += 1
        seen[" ".join(word for word in last.split()[:5] if word.strip("0123456789:/-"))] += (
            1  # no date, no step
        )
        print(f"kill {kills}: {last}", flush=True)
    print("the last one to its end:", whole(configs["killed"]))
    compare(home)
    print(
        f"{kills} kills, {rounds + 1} runs brought to their end: weights equal to the bit each time; {dict(seen)}"
    )
    shutil.rmtree(home)


def compare(home: Path) -> None:
    """End with an error unless both runs have the same weights."""
    one, other = weights(home / "whole"), weights(home / "killed")
    differing = [name for name in {*one, *other} if not torch.equal(one[name], other[name])]
    if differing:
        raise SystemExit(f"{len(differing)} tensors differ, {differing[0]} for one: {home} is kept")


if __name__ == "__main__":
    main()
