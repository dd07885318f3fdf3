"""Where the time goes: stages of a picture, ours and others' side by side, with the machine's own limit beside them."""

from sanakit.benchmark.machine import Machine, measure_machine
from sanakit.benchmark.run import Row, bench
from sanakit.benchmark.trial import LeftOut

__all__ = ["LeftOut", "Machine", "Row", "bench", "measure_machine"]
