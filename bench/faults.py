"""Kill commands at every file operation, fill their disk, run several in one place, and count what is lost.

    make faults                     everything, some minutes
    python -m bench.faults EVERY    every EVERY-th operation only

Prints a table in Markdown (see docs/robustness.md) and ends with 1 where anything was lost. As root the disk is a small
one in memory that does fill up; every operation is also told that there is no room, which needs no root.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from bench.fault_cases import Case, Sources, cases, drafts, draw, fill, sana
from bench.operations import Ended, run, together
from sanakit.data.cache.index import read_encoders
from sanakit.pipeline import read_picture

_DISKS = 8
"""Small disks per command, from no room beyond the old result to room for nearly two."""


@dataclass
class Count:
    """A row: how many file operations were interrupted, and what was lost in which."""

    name: str
    kind: str
    operations: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, moment: object, fault: str | None) -> None:
        """One moment more."""
        self.operations += 1
        if fault is not None:
            self.faults.append(f"{self.name}, {self.kind}, {moment}: {fault}")

    @property
    def row(self) -> str:
        """As a line of a table."""
        lost = len(self.faults)
        return f"| {self.name} | {self.kind} | {self.operations} | {self.operations - lost} | {lost} |"


def fault_after(case: Case, home: Path, ended: Ended) -> str | None:
    """What is wrong after a command was killed or refused, and after it was run again."""
    if ended.how == "broken":
        return ended.text
    if ended.how == "refused" and (left := drafts(home)):
        return f"a refused command left {left}"
    fault = case.lost(home)
    if fault is not None:
        return fault
    again = run(case.command, home)
    if again.how != "well":
        return f"run again it ended {again.how}: {again.text}"
    left = drafts(home)
    return f"{left} are left" if left else case.lost(home) or case.undone(home)


@contextmanager
def copied(template: Path) -> Iterator[Path]:
    """A copy of the old result."""
    home = Path(tempfile.mkdtemp(prefix="sanakit-fault-")).resolve()
    shutil.copytree(template, home, dirs_exist_ok=True)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def at_every_operation(case: Case, template: Path, kind: str, every: int) -> Count:
    """Kill it, or say that the disk is full, at one operation after the other."""
    words = {"kill": "killed at a file operation", "full": "no room, said at an operation"}[kind]
    count = Count(case.name, words)
    with copied(template) as home:
        whole = run(case.command, home)
        count.note("undisturbed", whole.text if whole.how != "well" else case.undone(home))
    for at in range(1, whole.operations + 1, every):
        with copied(template) as home:
            count.note(f"operation {at}", fault_after(case, home, run(case.command, home, kind, at)))
    return count


@contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """A disk in memory of so many bytes; None without the right to mount one."""
    home = Path(tempfile.mkdtemp(prefix="sanakit-disk-")).resolve()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(home)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    try:
        yield home if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(home)], check=True)
        home.rmdir()


def on_small_disks(case: Case, template: Path) -> Count:
    """The old result stays, the refusal is one sentence, and no temporary file is left to keep the disk full."""
    count = Count(case.name, "on a disk that is full")
    pages = sum(-(-path.stat().st_size // 4096) + 1 for path in template.rglob("*"))
    for number in range(_DISKS):
        with small_disk(4096 * (pages + 8 + pages * number // _DISKS)) as home:
            if home is None:
                return count
            shutil.copytree(template, home, dirs_exist_ok=True)
            ended = run(case.command, home)
            fault = ended.text if ended.how == "broken" else case.lost(home)
            fault = fault or (f"it left {drafts(home)}" if drafts(home) else None)
            fault = fault or (f"many sentences: {ended.text}" if ended.text.strip().count("\n") else None)
            count.note(f"disk {number}", fault)
    return count


def pictures_together(sources: Sources) -> Count:
    """Four processes draw three times two pictures with the same seed into one folder: 24 pictures."""
    count = Count("generate", "four processes in one folder")
    with copied(sources.home / "few") as home:

        def three(place: Path) -> None:
            for _ in range(3):
                draw(sources.models[0], place / "out")

        ended = together([three] * 4, home)
        found = list((home / "out").glob("*.png"))
        for path in found:
            read_picture(path)
        bad = [one.text for one in ended if one.how != "well"]
        for number in range(24):
            count.note(number, None if number < len(found) and not bad else f"{len(found)} of 24 {bad}")
    return count


def notes_together(sources: Sources) -> Count:
    """Two models fill one cache for two sets at once: all four encoders are noted."""
    count = Count("data cache", "four processes in one folder")
    with copied(sources.home / "few") as home:
        jobs = [partial(fill, sources, model, name) for model in (0, 1) for name in ("few", "more")]
        ended = together(jobs, home)
        noted = len(read_encoders(home / "cache"))
        bad = [one.text for one in ended if one.how != "well"]
        for number in range(4):
            count.note(number, None if number < noted and not bad else f"{noted} of 4 {bad}")
    return count


def conversions_together(sources: Sources) -> Count:
    """Two processes convert two models into one folder by force: it is one of them, whole."""
    count = Count("convert .pth to a folder", "two processes in one folder")
    for number in range(5):
        with copied(sources.home / "few") as home:
            jobs = [partial(_convert, path) for path in sources.pth]
            bad = [one.text for one in together(jobs, home) if one.how != "well"]
            again = run(lambda place: sana("convert", place / "out", place / "again.pth"), home)
            count.note(number, "; ".join([*bad, again.text][:1]) or None)
    return count


def _convert(path: Path, home: Path) -> None:
    sana("convert", path, home / "out", "--cross-heads", 2, "--force")


def main() -> None:
    """Do it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("every", type=int, nargs="?", default=1)
    every = parser.parse_args().every
    torch.set_num_threads(1)
    begun, home = time.monotonic(), Path(tempfile.mkdtemp(prefix="sanakit-faults-")).resolve()
    sources, counts = Sources(home), list[Count]()
    for case in cases(sources):
        template = home / case.name.replace(" ", "-").replace("/", "-")
        template.mkdir()
        case.prepare(template)
        counts += [at_every_operation(case, template, kind, every) for kind in ("kill", "full")]
        counts.append(on_small_disks(case, template))
        print("\n".join(count.row for count in counts[-3:]), flush=True)
    counts += [pictures_together(sources), notes_together(sources), conversions_together(sources)]
    print("\n".join(count.row for count in counts[-3:]), flush=True)
    shutil.rmtree(home)
    report(counts, time.monotonic() - begun)


def report(counts: list[Count], seconds: float) -> None:
    """The sum, and every fault; ends with 1 where there is one."""
    faults = [fault for count in counts for fault in count.faults]
    operations = sum(count.operations for count in counts)
    print(f"| all | | {operations} | {operations - len(faults)} | {len(faults)} |")
    print(f"\n{seconds:.0f} s on {platform.machine()}, {_chip()}, {platform.system()}")
    if any(count.kind == "on a disk that is full" and not count.operations for count in counts):
        print("small disks need root and were left out; operations were told that there is no room instead")
    if faults:
        raise SystemExit("\n".join(["", *faults]))


def _chip() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
