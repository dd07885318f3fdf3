"""`python -m tests.fuzz N`: N damaged inputs for every reader; what is not a typed error ends it with 1."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

import torch

from tests.fuzz.readers import READERS
from tests.fuzz.run import fuzz

_MEMORY = 12 * 2**30  # of addresses: past this an input's allocation fails instead of taking the machine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=2000, help="inputs of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    parser.add_argument(
        "--keep", type=Path, default=Path("out/fuzz"), help="folder for inputs that were answered wrong"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    failures = 0
    print(f"{'reader':<40}{'inputs':>8}{'accepted':>10}{'refused':>9}{'untyped':>9}{'worst s':>9}{'MiB':>7}")
    for reader in (reader for reader in READERS if given.only in reader.name):
        found = fuzz(reader, given.count, given.seed, given.keep)
        failures += len(found.untyped)
        print(
            f"{reader.name:<40}{found.inputs:>8}{found.accepted:>10}{found.refused:>9}{len(found.untyped):>9}"
            f"{found.seconds:>9.2f}{found.mib:>7.0f}",
            flush=True,
        )
        for line in dict.fromkeys(text.partition(": ")[2] for text in found.untyped):
            print(f"    {line}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
