"""Dialects: the numerical conventions in which the official code and diffusers read the same weights, as data.

The two implementations differ in a few details that no tensor records: the mask of the unconditional prompt, whether
prompts are lower-cased, whether times are truncated to whole numbers, and three epsilons. A checkpoint is in the
dialect of the code that wrote its format, and generates that code's pictures only if it is read in that dialect.
Networks take these values from their configuration and never ask which dialect they are in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One set of conventions.

    null_mask: mask of the unconditional branch, its "own" or that of the "prompt".
    lowercase: prompts are lower-cased and stripped before tokenising.
    integer_time: model times are truncated to whole numbers whatever the solver.
    attention_eps: added to the divisor of linear attention.
    qk_norm_eps, cross_norm_eps: of the RMS norms of queries and keys in self- and cross-attention.
    """

    name: str
    null_mask: Literal["own", "prompt"]
    lowercase: bool
    integer_time: bool
    attention_eps: float
    qk_norm_eps: float
    cross_norm_eps: float


OFFICIAL = Dialect(
    name="official",
    null_mask="prompt",
    lowercase=False,
    integer_time=True,
    attention_eps=1e-8,
    qk_norm_eps=1e-5,
    cross_norm_eps=1e-6,
)

# integer_time is False: here the DPM solver truncates its own times, and Euler does not.
DIFFUSERS = Dialect(
    name="diffusers",
    null_mask="own",
    lowercase=True,
    integer_time=False,
    attention_eps=1e-15,
    qk_norm_eps=1e-5,
    cross_norm_eps=1e-5,
)
