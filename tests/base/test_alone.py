"""Work in a thread of its own: on one core, from torch's plain state, and without a trace left behind."""

from __future__ import annotations

import pytest
import torch

from sanakit.base.measured import _setter, on_one_core


@pytest.mark.skipif(_setter() is None, reason="OpenMP can't be told here, and the work runs on all cores")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_threads_of_others_stay(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert on_one_core(torch.get_num_threads) == 1
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_nothing_of_the_caller_reaches_it() -> None:
    def state() -> tuple[bool, bool, str]:
        return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), str(torch.empty(0).device)

    with torch.enable_grad(), torch.autocast("cpu"), torch.device("meta"):
        assert on_one_core(state) == (False, False, "cpu")
        assert torch.is_grad_enabled()


def test_what_it_raises_is_raised() -> None:
    def fail() -> None:
        raise KeyError("within")

    with pytest.raises(KeyError, match="within"):
        on_one_core(fail)
