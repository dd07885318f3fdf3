"""The loop: damage a valid file, read it, and count what came of it."""

from __future__ import annotations

import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from sanakit.base.errors import SanakitError
from tests.fuzz.readers import Reader

_LONGEST = 2000  # letters of a message


@dataclass
class Counts:
    """Of one reader. untyped: what should not have come, one line each. seconds, mib: the worst input."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    untyped: list[str] = field(default_factory=list)
    seconds: float = 0.0
    mib: float = 0.0


def fuzz(reader: Reader, count: int, seed: int, keep: Path | None = None) -> Counts:
    """Read `count` damaged files. keep: a folder for the inputs that something untyped came of."""
    rng = random.Random(zlib.crc32(reader.name.encode()) ^ seed)
    counts = Counts()
    with tempfile.TemporaryDirectory(prefix="sanakit-fuzz-") as name:
        folder = Path(name)
        reader.make(folder)
        target = folder / reader.file
        content = target.read_bytes()
        _quietly(reader, folder)  # the valid file must be read
        for number in range(count):
            data = reader.damage(content, rng)
            target.unlink()  # a new file: tensors of the last round may still be mapped
            target.write_bytes(data)
            problem = _one(reader, folder, counts)
            if problem:
                counts.untyped.append(f"input {number}: {problem}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(target, keep / f"{_plain(reader.name)}-{number}")
    return counts


def _one(reader: Reader, folder: Path, counts: Counts) -> str | None:
    """What is wrong with how one input was answered, None where nothing is."""
    counts.inputs += 1
    before, started = _peak(), time.perf_counter()
    problem = None
    try:
        _quietly(reader, folder)
        counts.accepted += 1
    except SanakitError as error:
        counts.refused += 1
        text = str(error)
        if not text.strip() or len(text) > _LONGEST or "\n" in text:
            problem = f"no sentence: {text[:200]!r}"
    except (Exception, RecursionError) as error:  # noqa: BLE001  every kind is a finding
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = next(
            (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__))
             if "/sanakit/" in f.filename), f"{Path(frame.filename).name}:{frame.lineno}",
        )  # fmt: skip
        problem = f"{type(error).__name__} at {place}: {str(error)[:150]!r}"
    counts.seconds = max(counts.seconds, time.perf_counter() - started)
    counts.mib = max(counts.mib, _peak() - before)
    return problem


def _quietly(reader: Reader, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it then refuses
        reader.read(folder)


def _peak() -> float:
    """MiB that the process has held at most."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
