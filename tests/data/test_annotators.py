"""Annotators on pictures whose outlines, colours and brightness are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sanakit.base.errors import ConfigError
from sanakit.data.annotators import ANNOTATORS, Annotator


def square(inside: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """A square of 16 x 16 pixels in the middle of black."""
    picture = Image.new("RGB", (48, 40))
    ImageDraw.Draw(picture).rectangle((16, 12, 31, 27), fill=inside)
    return picture


def levels(name: str, picture: Image.Image, **settings: float) -> np.ndarray:
    made = Annotator(name=name, settings=settings).function()(picture)
    assert made.size == picture.size and made.mode == "RGB"
    return np.asarray(made).astype(int)


def test_canny_draws_a_closed_outline_one_pixel_wide() -> None:
    outline = levels("canny", square())[..., 0]
    assert set(np.unique(outline)) == {0, 255}
    rows, columns = np.nonzero(outline)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) in {
        (11, 28, 15, 32), (12, 27, 16, 31), (11, 27, 15, 31), (12, 28, 16, 32),
    }  # fmt: skip
    # Each line through the middle crosses it twice: it is one pixel wide, and has no gap there.
    assert (np.count_nonzero(outline[20]), np.count_nonzero(outline[:, 24])) == (2, 2)
    assert 52 <= len(rows) <= 68


def test_canny_sees_edges_between_colours_of_one_brightness_and_skips_faint_ones() -> None:
    picture = Image.new("RGB", (32, 32), (150, 0, 0))
    ImageDraw.Draw(picture).rectangle((16, 0, 31, 31), fill=(0, 76, 0))
    assert np.count_nonzero(levels("canny", picture)[..., 0]) == 32
    faint = square((20, 20, 20))
    assert not levels("canny", faint).any()
    assert levels("canny", faint, low=0.02, high=0.04).any()


def test_what_is_faint_stays_where_it_is_connected_with_what_is_not() -> None:
    """An edge whose contrast falls from left to right, through both limits."""
    fading = np.zeros((32, 64, 3), dtype=np.uint8)
    fading[16:] = np.linspace(250, 5, 64)[None, :, None]
    edge = levels("canny", Image.fromarray(fading), low=0.2, high=0.6)[..., 0]
    columns = np.nonzero(edge.any(axis=0))[0]
    assert columns.min() == 0 and 46 <= columns.max() <= 56 and len(columns) == columns.max() + 1
    faint_half = Image.fromarray(fading[:, 32:])
    assert not levels("canny", faint_half, low=0.2, high=0.6).any()


def test_soft_edges_are_white_at_the_edge_and_black_far_from_it() -> None:
    edges = levels("soft", square())[..., 0]
    assert edges[20, 16] > 200 and edges[20, 24] < 40 and edges[2, 2] == 0


def test_grid_and_tile_keep_mean_colours_and_grey_brightness() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8))
    cells = levels("grid", noise, cell=16)
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) == 8
    mean = np.asarray(noise)[:16, :16].mean(axis=(0, 1))
    assert np.abs(cells[3, 5] - mean).max() <= 1
    smooth = levels("tile", noise, factor=8)
    assert (
        np.abs(np.diff(smooth, axis=1)).mean()
        < 10
        < np.abs(np.diff(np.asarray(noise).astype(int), axis=1)).mean()
    )
    grey = levels("grey", square((255, 0, 0)))
    assert (grey[..., 0] == grey[..., 2]).all() and grey[20, 20, 0] == 76


def test_a_mask_hides_its_share_in_a_place_that_the_pixels_decide() -> None:
    picture = square()
    hidden = levels("mask", picture, share=0.25)
    share = (hidden == 127).all(axis=2).mean()
    assert 0.2 < share < 0.3
    assert (hidden == levels("mask", picture, share=0.25)).all()
    places = {
        tuple(np.argwhere((levels("mask", square((n, n, n))) == 127).all(axis=2))[0]) for n in range(1, 6)
    }
    assert len(places) > 2


@pytest.mark.parametrize("name", ANNOTATORS)
def test_a_picture_of_one_pixel_is_one(name: str) -> None:
    assert levels(name, Image.new("RGB", (1, 1), "red")).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("kanny", {}, "no annotator 'kanny': there is canny, soft"),
        ("canny", {"blur": 1}, "canny has no setting 'blur': it has sigma, low, high"),
        ("grey", {"sigma": 1}, "grey has no setting 'sigma': it has none"),
        ("tile", {"factor": 0}, "factor of the annotator tile is a number from 1 to 256, not 0"),
        ("canny", {"low": float("nan")}, "low of the annotator canny is a number from 0 to 1"),
    ],
)
def test_what_is_not_known_is_told(name: str, settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Annotator(name=name, settings=settings)
