"""Seeds: a seed means what it means in diffusers; numbers drawn by name are the same everywhere."""

from __future__ import annotations

import torch
from diffusers.utils.torch_utils import randn_tensor

from sanakit.base.seeds import batch_indices, hash_seed, hash_uniform, noise_stream

CPU = torch.device("cpu")


def test_noise_equals_that_of_diffusers() -> None:
    draw, generator = noise_stream(7, (32, 3, 5), CPU), torch.Generator("cpu").manual_seed(7)
    for step in (-1, 0, 1):
        theirs = randn_tensor((1, 32, 3, 5), generator=generator, dtype=torch.float32)
        assert torch.equal(draw(step), theirs)


def test_noise_ignores_default_dtype_and_global_state() -> None:
    before = torch.get_rng_state()
    expected = noise_stream(3, (2,), CPU)(0)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(noise_stream(3, (2,), CPU)(0), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_hash_depends_on_its_names_alone() -> None:
    assert hash_seed("caption", 0, 0, "a") == hash_seed("caption", 0, 0, "a")
    names = [(1, 2, 3), (1, 2, 4), (1, 3, 2), ("caption", 1, 2, 3), (12, 3), (1, 23)]
    assert len({hash_seed(*name) for name in names}) == 6


def test_hashes_are_the_same_in_every_version() -> None:
    assert hash_seed(0, 7, 3) == 12190219675000889363
    assert hash_uniform("caption", 0, 0, "a") == 0.08845867179311329


def test_uniform_hashes_fill_the_range_and_stay_below_1() -> None:
    shares = [hash_uniform("crop", 0, epoch, index) for epoch in range(20) for index in range(20)]
    assert len(set(shares)) == 400
    assert 0 <= min(shares) < 0.05
    assert 0.95 < max(shares) < 1


def test_names_need_not_be_valid_text() -> None:
    assert hash_seed("a\udcff") != hash_seed("a")


def test_batches_walk_whole_epochs() -> None:
    seen = [index for step in range(7) for index in batch_indices(step, 5, 7, seed=3)]
    assert all(sorted(seen[start : start + 7]) == list(range(7)) for start in range(0, 35, 7))
    assert seen[:7] != seen[7:14]
    assert batch_indices(4, 5, 7, seed=3) == seen[20:25]
