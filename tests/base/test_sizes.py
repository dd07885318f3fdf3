"""Sizes: token grids, the multiple-of-32 check, and the same buckets as diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers.image_processor import PixArtImageProcessor
from diffusers.pipelines.pixart_alpha.pipeline_pixart_alpha import (
    ASPECT_RATIO_512_BIN,
    ASPECT_RATIO_1024_BIN,
)
from diffusers.pipelines.pixart_alpha.pipeline_pixart_sigma import ASPECT_RATIO_2048_BIN
from diffusers.pipelines.sana.pipeline_sana import ASPECT_RATIO_4096_BIN
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import RequestError, SanakitError
from sanakit.base.sizes import BUCKETS, SIZE_STEP, Grid, Size, nearest_bucket

THEIRS = {
    512: ASPECT_RATIO_512_BIN,
    1024: ASPECT_RATIO_1024_BIN,
    2048: ASPECT_RATIO_2048_BIN,
    4096: ASPECT_RATIO_4096_BIN,
}


def test_grid_of_images_and_videos() -> None:
    assert Grid.of(torch.zeros(2, 32, 3, 5)) == Grid(1, 3, 5)
    assert Grid.of(torch.zeros(2, 32, 7, 4, 6), patch=2) == Grid(7, 2, 3)
    assert Grid(7, 2, 3).tokens == 42
    with pytest.raises(SanakitError, match="4 or 5 dimensions"):
        Grid.of(torch.zeros(3, 5))


@pytest.mark.parametrize("base", BUCKETS)
def test_buckets_equal_diffusers(base: int) -> None:
    theirs = {(int(h), int(w)) for h, w in THEIRS[base].values()}
    assert set(BUCKETS[base]) == theirs
    assert len(BUCKETS[base]) == len(theirs)
    assert all(value % SIZE_STEP == 0 for size in BUCKETS[base] for value in size)


@given(base=st.sampled_from(sorted(BUCKETS)), height=st.integers(32, 4096), width=st.integers(32, 4096))
def test_the_nearest_bucket_is_the_one_diffusers_picks(base: int, height: int, width: int) -> None:
    theirs = PixArtImageProcessor.classify_height_width_bin(height, width, ratios=THEIRS[base])
    assert nearest_bucket(base, height, width) == theirs


def test_every_ratio_key_is_the_rounded_ratio() -> None:
    for base, table in THEIRS.items():
        keys = [float(key) for key in table]
        assert sorted(keys) == [round(height / width, 2) for height, width in BUCKETS[base]]


def test_a_base_without_buckets_is_refused() -> None:
    with pytest.raises(RequestError, match="no aspect-ratio buckets for 256"):
        nearest_bucket(256, 256, 256)


def test_sizes_are_multiples() -> None:
    assert Size(32, 4096).check() == Size(32, 4096)
    Size(8, 16).check(step=8)
    for width, height, advice in (
        (100, 64, "width .* 96 is"),
        (64, 0, "height .* 32 is"),
        (64, -32, "32 is"),
    ):
        with pytest.raises(RequestError, match=f"{advice} the nearest"):
            Size(width, height).check()


@given(st.integers(1, 20000), st.integers(1, 20000))
def test_sizes_are_text_and_have_a_nearest(width: int, height: int) -> None:
    size = Size(width, height)
    assert Size.parse(str(size)) == size
    near = size.nearest().check()
    assert abs(near.width - width) <= 16 or near.width == SIZE_STEP


def test_a_size_is_read_width_first() -> None:
    assert Size.parse(" 512x768 ") == Size(512, 768)
    assert Size.parse("512") == Size(512, 512)
    for text in ("", "big", "512x", "-1x2", "1x2x3", "1" * 9):
        with pytest.raises(RequestError, match="looks like 512x768"):
            Size.parse(text)
