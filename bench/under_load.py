"""What a busy machine costs: the same work beside idle cores, and beside one busy loop per core.

    python -m bench.under_load --work draw [--against TREE] [--env GOMP_SPINCOUNT=0 ...] [--rounds 5]

Works: draw (a Toybox picture), step and decode (`--model`, `--size`), train (a step of examples/train.yaml, batch 32),
and cache and evaluate as commands. `--against` names a checkout of another version to measure beside this one (for
step and decode, one whose benchmark has the same functions), `--env` settings of the environment to measure besides the
usual ones. Every way lives in a process of its own, loaded before anything is measured, and they take turns, so that
changes of the machine's speed fall on all alike. `others` says how many cores other programs took meanwhile: only
figures with less than 0.2 count.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a large red metal sphere left of a small blue rubber cube on grass at sunset"
Work = Callable[[], object]


def drawing(options: argparse.Namespace) -> Work:
    """A picture of the shipped model, 20 steps; loaded once."""
    import sanakit

    model = sanakit.load("toybox")
    request = sanakit.ImageRequest(prompt=PROMPT, width=options.size or 256, height=options.size or 256)
    return lambda: model.images(request)


def stage(options: argparse.Namespace) -> Work:
    """A guided step or a decode of a published size with random weights, in this machine's dtype."""
    import torch

    from sanakit.base.heap import keep_pages
    from sanakit.base.precision import decide
    from sanakit.benchmark.engines import ENGINES
    from sanakit.benchmark.stages import work_of
    from sanakit.benchmark.workload import Workload
    from sanakit.pipeline.shapes import shapes_of

    side = options.size or 1024
    dtype = decide("cpu", options.dtype).dtype
    shapes = shapes_of(options.model)
    if options.depth is not None:
        shapes = replace(shapes, transformer=replace(shapes.transformer, depth=options.depth))
    workload = Workload(shapes=shapes, width=side, height=side, dtype=dtype)
    work = work_of(options.work, workload, ENGINES["sanakit"], {})
    keep_pages()
    return torch.no_grad()(work.run)


def training(options: argparse.Namespace) -> Work:
    """A step of training a Toybox transformer on 32 rendered pictures, batch 32."""
    from sanakit.training.schema import read_config
    from sanakit.training.session import Session

    folder = Path(tempfile.mkdtemp())
    command("data", "toybox", str(folder / "set"), "--count", "32", "--workers", "1")
    changes = [
        f"data.path={folder / 'set'}",
        f"folder={folder / 'run'}",
        "batch=32",
        "report=1",
        "validate=0",
    ]
    changes += ["phases=[{steps: 100000, size: 256}]", "data.held=0", "preview.every=0"]
    events = Session(read_config(ROOT / "examples" / "train.yaml", changes), device="cpu").events()
    return lambda: next(event for event in events if hasattr(event, "losses"))


def caching(options: argparse.Namespace) -> Work:
    """`sanakit data cache` over 32 rendered pictures, the model's loading included."""
    folder = Path(tempfile.mkdtemp())
    command("data", "toybox", str(folder / "set"), "--count", "32", "--workers", "1")
    count = itertools.count()
    return lambda: command("data", "cache", str(folder / "set"), "--out", str(folder / f"cache{next(count)}"))


def evaluating(options: argparse.Namespace) -> Work:
    """`sanakit evaluate toybox` over six prompts of eight steps, the model's loading included."""
    folder = tempfile.mkdtemp()
    return lambda: command("evaluate", "toybox", "--prompts", "6", "--steps", "8", "--out", folder)


WORKS: dict[str, Callable[[argparse.Namespace], Work]] = {
    "draw": drawing, "step": stage, "decode": stage, "train": training, "cache": caching, "evaluate": evaluating,
}  # fmt: skip


def command(*arguments: str) -> None:
    """A command of sanakit in this process; what it says is dropped."""
    from sanakit.cli import app

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app(list(arguments), standalone_mode=False)


def serve(options: argparse.Namespace) -> None:
    """The child: do the work whenever a line comes, and answer with its seconds."""
    with contextlib.suppress(ImportError):  # versions that leave waiting as it is
        from sanakit.base.waiting import spin_briefly

        spin_briefly()  # as the command does, before torch is imported
    work = WORKS[options.work](options)
    work()
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        work()
        print(time.perf_counter() - begun, flush=True)


@dataclass(kw_only=True)
class Way:
    """One version with one environment, as a process, and the seconds it took: idle, then under load."""

    name: str
    child: subprocess.Popen[str]
    seconds: dict[bool, list[float]] = field(default_factory=lambda: {False: [], True: []})

    def measure(self) -> float:
        """Seconds of the work, once."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write("go\n")
        self.child.stdin.flush()
        return float(self.child.stdout.readline())


def start(source: Path, settings: str) -> Way:
    """A child that has loaded what it needs. Raises SystemExit where it can't."""
    pairs = [pair.split("=", 1) for pair in settings.split()]
    environment = os.environ | {"PYTHONPATH": str(source / "src")} | dict(pairs)
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.under_load", "--child", *sys.argv[1:]],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise SystemExit(f"{source} {settings}: the work can't be done")
    return Way(name=f"{source.name} {settings}".strip(), child=child)


def spin() -> None:
    """Keep one core busy for ever, as `stress` does."""
    number = 1
    while True:
        number = number * 1_103_515_245 % 2_147_483_647


@contextlib.contextmanager
def load(processes: int) -> Iterator[list[int]]:
    """So many busy loops beside the block; their numbers."""
    loops = [multiprocessing.get_context("spawn").Process(target=spin, daemon=True) for _ in range(processes)]
    for loop in loops:
        loop.start()
    time.sleep(1.0 if loops else 0.0)
    try:
        yield [loop.pid for loop in loops if loop.pid is not None]
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def worked(pids: list[int]) -> float:
    """Seconds that all cores have worked, less those of some processes; 0 where the system does not tell."""
    try:
        whole = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
        mine = [
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split() for pid in pids
        ]
    except OSError:
        return 0.0
    ticks = sum(map(int, whole)) - int(whole[3]) - int(whole[4])  # without idle and waiting for disks
    return (ticks - sum(int(fields[11]) + int(fields[12]) for fields in mine)) / os.sysconf("SC_CLK_TCK")


def measure(ways: list[Way], loaded: bool, rounds: int) -> None:
    """All ways in turn."""
    with load(len(os.sched_getaffinity(0)) if loaded else 0) as loops:
        for _ in range(rounds):
            for way in ways:
                before, begun = worked([*loops, way.child.pid]), time.perf_counter()
                seconds = way.measure()
                others = (worked([*loops, way.child.pid]) - before) / (time.perf_counter() - begun)
                way.seconds[loaded].append(seconds)
                told = (
                    f"{'load' if loaded else 'idle':<5} {way.name:<30} {seconds:8.3f} s   others {others:.2f}"
                )
                print(told, flush=True)


def table(ways: list[Way]) -> None:
    """The least and the median of both, and how many times as long the load made it."""
    print(f"{'':<30} {'idle: least':>12} {'median':>8} {'load: least':>12} {'median':>8} {'times':>6}")
    for way in ways:
        idle, busy = way.seconds[False], way.seconds[True]
        middle = statistics.median(idle), statistics.median(busy)
        print(
            f"{way.name:<30} {min(idle):12.3f} {middle[0]:8.3f} {min(busy):12.3f} {middle[1]:8.3f} "
            f"{middle[1] / middle[0]:6.2f}"
        )


def main() -> None:
    """Measure idle, then under load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", choices=WORKS, default="draw")
    parser.add_argument("--model", default="sana-0.6b-1024")
    parser.add_argument("--size", type=int)
    parser.add_argument("--dtype")
    parser.add_argument(
        "--depth", type=int, help="blocks of the transformer, to have a step of a large one sooner"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        serve(options)
        return
    chosen = [(ROOT, ""), *((tree.resolve(), "") for tree in options.against)]
    ways = [start(*way) for way in (*chosen, *((ROOT, settings) for settings in options.env))]
    for loaded in (False, True):
        measure(ways, loaded, options.rounds)
    table(ways)
    for way in ways:
        way.child.kill()


if __name__ == "__main__":
    main()
