"""Is a network that grows ahead of one from nothing? `python -m recipes.grow [RUN ...] [--seeds 3] [--steps 200]`.

A shallow network is trained first. Then a deep one begins where it is, in each way of `sanakit grow`, beside one of the
same shape from nothing: the same pictures in the same order, noise, times and rate (SANA-1.5, arXiv 2501.18427,
section 3.1). Every run goes through `model.start: grow` or `scratch` of a training config, and lies in runs/grow; runs
are resumed, and finished ones not repeated. --table prints what is there, as Markdown; --plot draws the curves.

`steep` and `steep, norms` are fresh deep networks at a rate that is too high, without and with norms of queries and
keys.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from recipes.few_steps import CACHE, PICTURES, SIZE
from recipes.repeats import spread
from recipes.settings import resumable
from sanakit.adapt.depth import GROWTHS
from sanakit.base.errors import SanakitError
from sanakit.base.files import atomic_write
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    ModelConfig,
    OptimizerConfig,
    RunPhase,
    SavingConfig,
    TrainConfig,
    read_journal,
    sentences,
)
from sanakit.training.model_settings import GrowthConfig
from sanakit.training.session import Session

RUNS = Path("runs/grow")
SHAPE = {"width": 64, "heads": 2, "cross_heads": 2}
SHALLOW, DEEP = 4, 8
BATCH = 16
RATE, STEEP = 1e-3, 3e-2
LOOK = 25
"""Steps between looks at the held-out pictures."""
FRESH = ("shallow", "scratch", "steep", "steep, norms")
NAMES = (*FRESH, *GROWTHS)


def config_of(
    name: str,
    seed: int,
    steps: int,
    *,
    pictures: Path = PICTURES,
    cache: Path = CACHE,
    size: int = SIZE,
    runs: Path = RUNS,
    held: int = 64,
    look: int = LOOK,
    batch: int = BATCH,
    shape: dict[str, int] = SHAPE,
    rate: float = RATE,
) -> TrainConfig:
    """A run: `shallow` and `scratch` of FRESH networks, or a way to grow from the shallow one of the same seed."""
    steep = name.startswith("steep")
    return TrainConfig(
        folder=folder_of(name, seed, runs), seed=seed, batch=batch, phases=(RunPhase(steps=steps, size=size),),
        base="toybox" if name in FRESH else str(folder_of("shallow", seed, runs) / "model"),
        model=model_of(name, shape), data=DataConfig(path=pictures, cache=cache, square=True, held=held),
        optimizer=OptimizerConfig(lr=STEEP if steep else rate, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=min(20, steps), cooldown=0.0), clip=1.0, ema=0.95,
        saving=SavingConfig(minutes=2, keep=1), validate=look, report=look,
    )  # fmt: skip


def folder_of(name: str, seed: int, runs: Path = RUNS) -> Path:
    """The folder of a run."""
    return runs / f"{name.replace(', ', '-')}-{seed}"


def model_of(name: str, shape: dict[str, int]) -> ModelConfig:
    """The network of a run, and where it begins."""
    if name in FRESH:
        own = {"depth": SHALLOW if name == "shallow" else DEEP, "qk_norm": name != "steep"}
        return ModelConfig(start="scratch", changes=shape | own)
    growth = GrowthConfig(drop=0, how=name)  # type: ignore[arg-type]
    return ModelConfig(start="grow", changes={"depth": DEEP}, growth=growth)


def train(config: TrainConfig) -> None:
    """Train, unless its model is there."""
    if (config.folder / "model/model_index.json").is_file():
        return
    for event in sentences(Session(config, resume=True).events()):
        print(f"{config.folder.name}: {event}", flush=True)


Curve = dict[int, list[float]]
"""step -> held-out losses, one of each seed."""


def curve(name: str, seeds: int, runs: Path = RUNS) -> Curve:
    """The held-out losses of a run with its seeds."""
    found: Curve = {}
    for seed in range(seeds):
        for step, row in read_journal(folder_of(name, seed, runs), kind="validation").items():
            found.setdefault(step, []).append(row["loss"])
    return found


def reached(run: Curve, wanted: Sequence[float]) -> list[float]:
    """The steps at which each seed of a run first has the loss that is wanted of it, between two looks by a line."""
    found = []
    for seed, loss in enumerate(wanted):
        before: tuple[int, float] | None = None
        for step in sorted(run):
            if len(run[step]) <= seed:
                continue
            here = run[step][seed]
            if here <= loss:
                share = 1.0 if before is None else (before[1] - loss) / (before[1] - here)
                start = 0 if before is None else before[0]
                found.append(start + share * (step - start))
                break
            before = step, here
    return found


def table(seeds: int, runs: Path = RUNS) -> str:
    """Markdown: losses at some steps, and the steps after which a run is where the one from nothing ends."""
    fresh = curve("scratch", seeds, runs)
    last = max(fresh)
    looks = [step for step in (LOOK, 2 * LOOK, 4 * LOOK, 8 * LOOK) if step < last] + [last]
    head = " | ".join(f"loss at {step}" for step in looks)
    rows = [f"| run | seeds | {head} | steps to the end of `scratch` |", "|---" * (len(looks) + 3) + "|"]
    for name in ("scratch", *GROWTHS):
        run = curve(name, seeds, runs)
        if run:
            cells = " | ".join(spread(run.get(step, [])) for step in looks)
            steps = spread(reached(run, fresh[last]), 0)
            rows.append(f"| {name} | {len(run[min(run)])} | {cells} | {steps} |")
    return "\n".join(rows)


def plot(path: Path, seeds: int, runs: Path = RUNS) -> None:
    """Held-out losses over steps: means of the seeds, with their standard deviation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for name in ("scratch", *GROWTHS):
        run = curve(name, seeds, runs)
        steps = sorted(run)
        means = [statistics.mean(run[step]) for step in steps]
        bars = [statistics.stdev(run[step]) if len(run[step]) > 1 else 0.0 for step in steps]
        if steps:
            axes.errorbar(steps, means, yerr=bars, capsize=2, linewidth=1.2, label=name)
    axes.set_xlabel("steps of the deep network")
    axes.set_ylabel("held-out loss")
    axes.grid(alpha=0.3)
    axes.legend()
    atomic_write(path, lambda draft: figure.savefig(draft, format="png", dpi=120))


@resumable
def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", help=f"of {'; '.join(NAMES)}; default: shallow, scratch, partial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--rate", type=float, default=RATE, help="learning rate of all runs but the steep ones"
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    for name in given.runs:
        if name not in NAMES:
            parser.error(f"{name!r} is no run: choose of {'; '.join(NAMES)}")
    runs = RUNS if given.rate == RATE else RUNS / f"at-{given.rate:g}"
    try:
        for seed in () if given.table else given.seeds:
            for name in given.runs or ("shallow", "scratch", "partial"):
                train(config_of(name, seed, given.steps, runs=runs, rate=given.rate))
    except SanakitError as error:
        print(f"error: {error}.", file=sys.stderr)
        raise SystemExit(2) from None
    print(table(max(given.seeds) + 1, runs))
    if given.plot is not None:
        plot(given.plot, max(given.seeds) + 1, runs)


if __name__ == "__main__":
    main()
