"""FlowEdit: from a sample to its edit by the difference of two velocities, without inverting anything.

At each level s the source x is noised, x_s = (1-s) x + s n, and the edit y is moved along with it, y_s = y + x_s - x.
The network is asked at both points, with the words of the source and with those of the target, and y follows the
difference:

    y <- y + (s_{i+1} - s_i) mean over n of (v_target(y_s) - v_source(x_s))

With equal words nothing moves. The levels begin where the source may be forgotten: at 1 nothing but the words is left
of it, lower down its layout stays (n_max of the paper, in noise levels).

A consistency model's velocity at s is (x_s - x0) / s, and a step to level 0 gives x + x0_target - x0_source: two or
four steps of a Sprint model edit as well.

Source: Kulikov et al. 2024, "FlowEdit", arXiv:2412.08629, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.flow.inpainting import is_free
from sanakit.flow.path import LinearPath
from sanakit.flow.sampling import Noise, State, check_sigmas

__all__ = ["FlowEdit", "PairQuery", "PairWalk", "drive_pairs", "flow_edit"]

HIGHEST = 1.00001
"""No noise level is above it; the first of scm is 1.0000037."""


@dataclass(frozen=True, eq=False)
class PairQuery:
    """Two points at which FlowEdit needs velocities: that of the source's words, and that of the target's.

    source, target  noisy samples [B, ...] float32
    edit            the edit so far [B, ...] float32
    sigma, step     the noise level, and the index of the step from 0
    """

    source: Tensor
    target: Tensor
    edit: Tensor
    sigma: float
    step: int

    @property
    def points(self) -> tuple[Tensor, ...]:
        """Where a velocity is needed: by the words of the source, and by those of the target."""
        return self.source, self.target


FlowEdit = Generator[PairQuery, tuple[Tensor, Tensor], Tensor]
"""Yields queries, is sent the velocities at source and target, and returns the edit [B, ...] float32."""


def flow_edit(
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    noise: Noise,
    averages: int = 1,
    free_below: Tensor | None = None,
) -> FlowEdit:
    """Edit a clean sample.

    Args:
        x: the source [B, ...].
        sigmas: falling noise levels, from where the edit begins.
        noise: fresh noise, `averages` times for each step.
        averages: noises over which each step averages (n_avg).
        free_below: where the sample may change, see `inpainting.is_free`; None for everywhere.

    Returns the edit [B, ...] float32. Raises RequestError for bad levels or no average.
    """
    sigmas = check_sigmas(sigmas, HIGHEST)
    if averages < 1:
        raise RequestError(f"a step averages over at least one noise, not {averages}")
    x, path = x.float(), LinearPath()
    edit = x
    for step, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        total = torch.zeros_like(x)
        for _ in range(averages):
            noisy = path.point(x, noise(step).to(x), sigma)
            source, target = yield PairQuery(noisy, edit + (noisy - x), edit, sigma, step)
            total = total + (target - source)
        moved = edit + (next_sigma - sigma) * total / averages
        edit = moved if free_below is None else torch.where(is_free(free_below, sigma), moved, edit)
    return edit


class PairWalk:
    """An edit by words between two queries, as `sampling.Walk` is a solver. query: None once it has its sample."""

    def __init__(self, editor: FlowEdit) -> None:
        self._editor = editor
        self.query: PairQuery | None = next(editor)

    def answer(self, source: Tensor, target: Tensor) -> State | None:
        """Go on with the velocities [B, ...] at both points; return the state after a step, None between averages.

        `x` and `x0` of a state are the edit so far.
        """
        query = self.query
        assert query is not None, "the edit has its sample"
        try:
            self.query = self._editor.send((source.float(), target.float()))
        except StopIteration as end:
            self.query = None
            return State(query.step, end.value, end.value)
        following = self.query
        return State(query.step, following.edit, following.edit) if following.step != query.step else None


def drive_pairs(editor: FlowEdit, answer: Callable[[PairQuery], tuple[Tensor, Tensor]]) -> Iterator[State]:
    """Answer the queries of `flow_edit` and yield a State after each step; `x` and `x0` are the edit so far."""
    walk = PairWalk(editor)
    while (query := walk.query) is not None:
        state = walk.answer(*answer(query))
        if state is not None:
            yield state
