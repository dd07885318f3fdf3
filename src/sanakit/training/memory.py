"""How many bytes a run takes at its highest, part by part, told before it begins.

Weights, averages, gradients and the optimiser's state are counted; activations too (`speed.kept_bytes`). What encodes
the set, what draws previews and what a checkpoint stages are at work at other times than a step, so the largest counts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

from sanakit.training.optim.config import OptimizerName

STATE: dict[OptimizerName, float] = {"adamw": 8.0, "came": 4.1, "came-8bit": 1.2, "adamw-8bit": 2.1}
"""Bytes of the optimiser's state per trained parameter, about; see docs/optimizers.md."""

_FLOAT = 4
_LATER = (
    80 * 2**20
)  # libraries that are loaded once training begins: measured 79 MB with TensorBoard and Gemma's code
_WRITING = 2  # copies of what a checkpoint holds that torch's writer makes; a third one where the run goes on meanwhile
_STARTED = 350 * 2**20  # torch and its libraries, where the system does not tell what is resident


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes per process.

    Attributes:
        program: Python, torch, and what is read of the set already.
        weights, gradients, average, optimizer: of the network.
        activations: kept for the backward pass. cast: weights in the dtype of the computation, kept as long.
        encoders: of the frozen networks, while the cache is filled.
        drawing: of a preview. checkpoint: of the copies that writing one takes.
    """

    program: int = 0
    weights: int = 0
    gradients: int = 0
    average: int = 0
    optimizer: int = 0
    activations: int = 0
    cast: int = 0
    encoders: int = 0
    drawing: int = 0
    checkpoint: int = 0

    @property
    def network(self) -> int:
        """What lies there as long as the run trains."""
        return self.weights + self.average + self.optimizer

    @property
    def step(self) -> int:
        """The most that a training step takes beside the program."""
        return self.network + self.checkpoint + self.gradients + self.activations + self.cast

    @property
    def peak(self) -> int:
        """The most that is there at once."""
        drawing = self.network + self.checkpoint + self.drawing if self.drawing else 0
        return self.program + max(self.encoders, self.step, drawing)

    @property
    def words(self) -> str:
        """The parts that count, in GB."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {name: size for name, size in parts.items() if size >= 0.005 * self.peak}
        return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in shown.items())


def step_memory(
    parameters: int, trained: int, optimizer: OptimizerName, activations: int, half: bool, share: int = 1
) -> Memory:
    """Of the network and its step. share: processes that hold it together. half: computed in bf16."""
    state = round(trained * STATE[optimizer] / share)
    return Memory(
        weights=parameters * _FLOAT // share, gradients=trained * _FLOAT // share,
        average=parameters * _FLOAT // share, optimizer=state,
        activations=activations // 2 if half else activations, cast=parameters * 2 if half else 0,
    )  # fmt: skip


def writing_bytes(network: int, behind: bool) -> int:
    """Of the copies that writing a checkpoint takes. behind: while the run goes on."""
    return network * (_WRITING + behind)


def program_bytes() -> int:
    """What this process holds now, or about what torch takes where the system does not tell, and will load yet."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return _STARTED + _LATER
    return pages * os.sysconf("SC_PAGE_SIZE") + _LATER
