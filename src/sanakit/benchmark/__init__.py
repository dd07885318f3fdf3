"""Where the time goes: stages of an image, ours and others' side by side, with the machine's own limit beside them."""

from sanakit.benchmark.machine import Machine, measure_machine
from sanakit.benchmark.pilot import Skipped
from sanakit.benchmark.report import Row
from sanakit.benchmark.run import bench

__all__ = ["Machine", "Row", "Skipped", "bench", "measure_machine"]
