"""Noise: a seed means what it means in diffusers, whatever the batch."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import RequestError
from sanakit.base.noise import MAX_SEED, seeded_noise


@given(seeds=st.lists(st.integers(0, MAX_SEED), min_size=1, max_size=4))
def test_a_row_does_not_depend_on_its_batch(seeds: list[int]) -> None:
    together = seeded_noise(seeds, (4, 2, 3))
    assert together.dtype == torch.float32
    for row, seed in zip(together, seeds, strict=True):
        assert torch.equal(row, seeded_noise([seed], (4, 2, 3))[0])


def test_noise_equals_that_of_diffusers() -> None:
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (0, 7)]
    theirs = randn_tensor((2, 32, 3, 5), generator=generators, dtype=torch.float32)
    assert torch.equal(seeded_noise([0, 7], (32, 3, 5)), theirs)


def test_noise_ignores_default_dtype_and_global_state() -> None:
    before = torch.get_rng_state()
    expected = seeded_noise([3], (2,))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(seeded_noise([3], (2,)), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seeds", [[], [-1], [0, MAX_SEED + 1]])
def test_seeds_that_are_none_are_refused(seeds: list[int]) -> None:
    with pytest.raises(RequestError, match="seed"):
        seeded_noise(seeds, (2,))
