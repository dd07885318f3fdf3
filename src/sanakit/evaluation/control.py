"""How well drawn pictures keep to what steered them: outlines in place, and maps that rise and fall together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def edge_f1(found: Mask, wanted: Mask, tolerance: int = 2) -> float:
    """Return the F1 of outlines [H, W]: of precision and recall, where an outline within `tolerance` pixels counts.

    1 if both are empty, 0 if one is. As boundaries are scored in BSDS (Martin, Fowlkes and Malik, IEEE PAMI 26(5),
    2004), without matching pixel to pixel.
    """
    if not found.any() or not wanted.any():
        return float(not found.any() and not wanted.any())
    precision = float(found[_near(wanted, tolerance)].sum() / found.sum())
    recall = float(wanted[_near(found, tolerance)].sum() / wanted.sum())
    return 0.0 if not precision + recall else 2 * precision * recall / (precision + recall)


def correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Pearson's correlation of two maps [H, W]; 0 if one of them is flat."""
    a, b = one.astype(np.float64) - one.mean(), other.astype(np.float64) - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm else 0.0


def _near(outline: Mask, tolerance: int) -> Mask:
    """Return every pixel that is at most `tolerance` pixels from an outline, along both axes."""
    wide = np.pad(outline, tolerance)
    height, width = outline.shape
    near = np.zeros_like(outline)
    for down in range(2 * tolerance + 1):
        for across in range(2 * tolerance + 1):
            near |= wide[down : down + height, across : across + width]
    return near
