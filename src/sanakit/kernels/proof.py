"""Trials on CPUs: a row runs a small problem beside the reference, once per process, before it is chosen.

A library that has an operator need not have it for this chip: it may walk through a reference loop hundreds of times
slower than plain torch, or overflow. So what a row says about the chip is tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.chip import Chip
from sanakit.base.measured import on_one_core

__all__ = ["SAMPLES", "Ready", "failure", "half_slowness"]

Ready = Callable[..., Callable[[], Tensor]]
Sample = Callable[[torch.dtype], tuple[Any, ...]]

SLOWER, SLACK = 8.0, 2e-4
"""Times as long as the reference, and seconds besides, that a row may take: far above noise, far below a loop."""

_HALF = 3.0
"""Times as long as in float32 that half precision may take: less with units, 7 to 60 times as long in loops."""

_ROUNDS, _TRIES = 4, 3
_ERROR = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}
"""Largest error of a result over its largest value."""


def failure(op: str, row: Ready, reference: Ready, dtype: torch.dtype, chip: Chip) -> str | None:
    """Return why a row is not to be trusted with an operator on this machine's CPU, or None.

    row, reference: make a call of the operator's sample; rows of operators without one are taken at their word. chip:
    the key under which the answer is kept.
    """
    known = op in SAMPLES and dtype in _ERROR
    return _failure(op, row, reference, dtype, chip) if known else None


@cache
def _failure(op: str, row: Ready, reference: Ready, dtype: torch.dtype, chip: Chip) -> str | None:
    return on_one_core(partial(_try, op, row, reference, dtype))


def _try(op: str, row: Ready, reference: Ready, dtype: torch.dtype) -> str | None:
    sample = SAMPLES[op](dtype)
    try:
        run, plain = row(*sample), reference(*sample)
        got, wanted = run(), plain()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        return (
            f"fails on this CPU: {str(error).splitlines()[0][:120] if str(error) else type(error).__name__}"
        )
    off = float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())
    if not off <= _ERROR[dtype]:
        return f"gives wrong numbers on this CPU: a small problem is off by {off:.1%} of its largest value"
    times = _slowness(run, plain)
    return None if times is None else f"takes {times:.0f} times as long as plain torch on this CPU"


@cache
def half_slowness(dtype: torch.dtype, chip: Chip) -> float | None:
    """Return how many times as long torch's own products take in half precision as in float32; None if not many.

    Of a linear layer and a convolution, the slower. chip: the key under which the answer is kept.
    """

    def compare() -> list[float | None]:
        found = []
        x, weight = (
            _numbers(*shape, dtype=torch.float32, seed=1) for shape in ((1, 32, 24, 24), (32, 32, 3, 3))
        )
        for call, full in (
            (F.linear, _linear(torch.float32)[:3]),
            (partial(F.conv2d, padding=1), (x, weight)),
        ):
            half = tuple(tensor.to(dtype) for tensor in full)
            call(*half), call(*full)  # the first call also sets things up, and does not count
            found.append(_slowness(partial(call, *half), partial(call, *full), _HALF, 0.0))
        return found

    return max((times for times in on_one_core(compare) if times is not None), default=None)


def _slowness(
    run: Callable[[], object], plain: Callable[[], object], times: float = SLOWER, slack: float = SLACK
) -> float | None:
    """Return how many times as long as `plain` a call takes; None if no more than `times`, and `slack` seconds.

    Others on the machine only add to a time, so the best of some rounds counts, and what looks slow is tried again.
    """
    best = [float("inf"), float("inf")]
    for _ in range(_TRIES):
        for _ in range(_ROUNDS):
            for index, call in enumerate((plain, run)):
                begun = time.perf_counter()
                call()
                best[index] = min(best[index], time.perf_counter() - begun)
            if best[1] <= times * best[0] + slack:
                return None
    return best[1] / best[0]


def _numbers(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Draw from a generator of its own, so that no caller's random numbers change."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _linear(dtype: torch.dtype) -> tuple[Any, ...]:
    return (
        _numbers(65, 131, dtype=dtype, seed=0), _numbers(97, 131, dtype=dtype, seed=1),
        _numbers(97, dtype=dtype, seed=2), "silu",
    )  # fmt: skip


def _int8(dtype: torch.dtype) -> tuple[Any, ...]:
    """Weights and tokens at both ends of their range among them, where units that sum in int16 overflow."""
    weight = _numbers(97, 131, dtype=torch.float32, seed=3).mul(40).round().clamp(-127, 127)
    weight[:2] = torch.tensor([[127.0], [-127.0]])
    x = _numbers(65, 131, dtype=torch.float32, seed=4)
    x[:2] = torch.tensor([[1.0], [-1.0]])
    return (
        x.to(dtype),
        weight.to(torch.int8),
        torch.full((97,), 2.0**-7),
        _numbers(97, dtype=dtype, seed=5),
        "none",
    )


def _depthwise_glu(dtype: torch.dtype) -> tuple[Any, ...]:
    value, gate = (_numbers(2, 40, 17, 15, dtype=dtype, seed=seed) for seed in (6, 7))
    return value, gate, _numbers(80, 1, 3, 3, dtype=dtype, seed=8), _numbers(80, dtype=dtype, seed=9)


def _conv(dtype: torch.dtype) -> tuple[Any, ...]:
    return (
        _numbers(1, 19, 17, 15, dtype=dtype, seed=10), _numbers(33, 19, 3, 3, dtype=dtype, seed=11),
        _numbers(33, dtype=dtype, seed=12), "silu",
    )  # fmt: skip


SAMPLES: dict[str, Sample] = {
    "linear": _linear,
    "int8_matmul": _int8,
    "depthwise_glu": _depthwise_glu,
    "conv": _conv,
}
"""Operator -> arguments of its reference for a trial: those that libraries outside torch run on CPUs."""
