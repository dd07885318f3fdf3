"""Steps that would do harm: a loss or gradient that is not finite, or a gradient far larger than those before it.

Such a step is skipped, and its batch is kept in RUN/skipped. After `patience` of them in a row the weights themselves
are suspect: the run goes back to its last checkpoint and passes the steps in question by.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from sanakit.base.bounds import Bounds, Count
from sanakit.base.files import atomic_write, ensure_writable_folder

Verdict = Literal["keep", "skip", "back"]

_REMEMBERED = 100  # norms whose median a spike is measured by
_FEWEST = 20  # norms, before which nothing counts as a spike
_FOLDER, _MOST = "skipped", 50


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When a step is skipped, and when the run goes back.

    Attributes:
        spike: a gradient norm this many times the median of the last 100 is a spike; 0 looks for none.
        patience: steps skipped in a row that make the run go back; 0 never does.
        rollbacks: how often it may go back before it gives up.
    """

    spike: Annotated[float, Bounds(least=1, most=10**9, off=True)] = 0.0
    patience: Count = 0
    rollbacks: Count = 3


class Guard:
    """Judges each step by its loss and the gradient norms before clipping; its memory is part of a checkpoint.

    main: the name of the main player. Norms are given by player.
    """

    def __init__(self, config: GuardConfig, main: str = "model") -> None:
        self.config, self.main = config, main
        self.skipped = 0
        self.avoided: set[int] = set()
        self.rolled_back = 0
        self.strikes: list[int] = []
        self._norms = {main: deque[float](maxlen=_REMEMBERED)}

    def judge(self, step: int, loss: float, norms: Mapping[str, float]) -> Verdict:
        """Decide on step `step`: take it, skip it, or go back to the last checkpoint."""
        if self.fault(loss, norms) is None:
            for name, norm in norms.items():
                self._norms.setdefault(name, deque(maxlen=_REMEMBERED)).append(norm)
            self.strikes.clear()
            return "keep"
        self.skipped += 1
        self.strikes.append(step)
        return "back" if 0 < self.config.patience <= len(self.strikes) else "skip"

    def fault(self, loss: float, norms: Mapping[str, float]) -> str | None:
        """Return what is wrong with a step, in words; None if nothing is."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        for name, norm in norms.items():
            whose = "the gradient's norm" if len(norms) == 1 else f"the norm of the {name}'s gradient"
            if not math.isfinite(norm):
                return f"{whose} is {norm}"
            before = self._norms.get(name, ())
            if self.config.spike and len(before) >= _FEWEST:
                usual = statistics.median(before)
                if norm > self.config.spike * usual:
                    return f"{whose} is {norm:.3g}, {norm / usual:.0f} times what is usual"
        return None

    def go_back(self, strikes: list[int]) -> None:
        """Pass these steps by from now on. Call it once the checkpoint's state is restored."""
        self.avoided.update(strikes)
        self.strikes.clear()
        self.rolled_back += 1

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as JSON."""
        others = {name: list(norms) for name, norms in self._norms.items() if name != self.main}
        return {
            "skipped": self.skipped,
            "avoided": sorted(self.avoided),
            "rolled_back": self.rolled_back,
            "strikes": self.strikes,
            "norms": list(self._norms[self.main]),
            **({"other_norms": others} if others else {}),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; steps that are avoided already stay so."""
        self.skipped = max(self.skipped, int(state["skipped"]))
        self.avoided |= set(state["avoided"])
        self.rolled_back = max(self.rolled_back, int(state["rolled_back"]))
        self.strikes = list(state["strikes"])
        kept = {self.main: state["norms"], **state.get("other_norms", {})}
        self._norms = {name: deque(norms, maxlen=_REMEMBERED) for name, norms in kept.items()}


def dump_batch(folder: Path, step: int, rank: int, batch: object) -> Path:
    """Write what this process saw at a step, to be read with `torch.load(..., weights_only=True)`.

    Only the first fifty skipped steps are kept. Returns the path, written or not. Raises OutputError.
    """
    home = ensure_writable_folder(folder / _FOLDER)
    path = home / f"step-{step:08d}-{rank}.pt"
    if len(list(home.glob("step-*.pt"))) < _MOST:
        atomic_write(path, lambda draft: torch.save(plain(batch), draft))
    return path


def plain(value: object) -> Any:
    """Values of our own as dictionaries, tensors on the CPU, anything else as text: what weights_only reads."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
