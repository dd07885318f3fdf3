"""How near to the oracles we are: comparisons record their errors, and a test run ends with the worst of each kind."""

from __future__ import annotations

from torch import Tensor

WORST: dict[str, float] = {}
"""Kind of comparison -> largest error of this process."""


def within(kind: str, found: Tensor, wanted: Tensor, bound: float) -> None:
    """Assert that the largest difference over the largest value is at most `bound`."""
    assert found.shape == wanted.shape, (kind, found.shape, wanted.shape)
    record(kind, float((found - wanted).abs().max() / wanted.abs().max()), bound)


def record(kind: str, error: float, bound: float) -> None:
    """Assert that an error is at most `bound`; NaN is not."""
    keep({kind: error})
    assert error <= bound, f"{kind}: {error:.2e} is more than {bound:.0e}"


def keep(errors: dict[str, float]) -> None:
    """Add errors of this process or of another."""
    for kind, error in errors.items():
        WORST[kind] = max(error, WORST.get(kind, 0.0))
