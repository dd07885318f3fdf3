"""How many replicas draw, and what each of them has of a machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError

_RANGE = re.compile(r"(\d{1,4})(?::(\d{1,4}))?")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From `least` to `most` replicas, of `gpus` each. Raises ConfigError for numbers that make no sense."""

    least: int = 1
    most: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ConfigError(f"replicas are N or MIN:MAX from 1 on, not {self.least}:{self.most}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise ConfigError(f"GPUs of a replica are a part of one or a whole number, not {self.gpus:g}")

    @classmethod
    def parse(cls, text: str, gpus: float = 0.0) -> Self:
        """Read `4`, or `1:4` for as many as there is work for. Raises ConfigError."""
        found = _RANGE.fullmatch(text)
        if found is None:
            raise ConfigError(f"replicas are N or MIN:MAX, such as 4 or 1:4, not {quoted(text)}")
        return cls(least=int(found[1]), most=int(found[2] or found[1]), gpus=gpus)

    def cpus(self, threads: int | None) -> int:
        """Return the cores of each replica: as many as its threads, else its share of a machine like this one."""
        return threads or max(1, (os.cpu_count() or 1) // self.most)
