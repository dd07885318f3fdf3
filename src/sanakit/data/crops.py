"""Which part of a picture fills its bucket: the picture is made just large enough to cover it, and one side is cut.

    picture 6 x 4                resized 3 x 2            bucket 2 x 2
    ┌───────────┐                ┌─────┐                  ┌───┐
    │           │      ──▶       │     │        ──▶       │   │   left is what stood before the cut
    │           │                └─────┘                  └───┘
    └───────────┘

Shapes are never distorted, and the numbers of the cut are kept, so that latents can be filed under them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.data.items import Item
from sanakit.data.picture import cut_picture, to_tensor


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Resize so that the picture covers the bucket, then cut. All numbers are pixels.

    Attributes:
        height, width: of the bucket.
        resized_height, resized_width: of the whole picture after resizing; at least those of the bucket.
        top, left: of the cut, in the resized picture.
    """

    height: int
    width: int
    resized_height: int
    resized_width: int
    top: int
    left: int


def crop_for(item: Item, bucket: tuple[int, int], where: float | Literal["centre"] = "centre") -> Crop:
    """The crop of an item for a bucket (height, width).

    where: 0 keeps the top or left end of the side that is too long, 1 the bottom or right end; "centre" is 0.5.
    Raises RequestError for another number.
    """
    share = 0.5 if where == "centre" else float(where)
    if not 0 <= share <= 1:
        raise RequestError(f"where to crop is a number from 0 to 1 or 'centre', not {where}")
    height, width = bucket
    scale = max(height / item.height, width / item.width)
    resized_height = max(height, round(item.height * scale))
    resized_width = max(width, round(item.width * scale))
    return Crop(
        height=height,
        width=width,
        resized_height=resized_height,
        resized_width=resized_width,
        top=_start(resized_height - height, share),
        left=_start(resized_width - width, share),
    )


def _start(excess: int, share: float) -> int:
    """Every start from 0 to `excess` has the same part of the numbers from 0 to 1."""
    return min(int(share * (excess + 1)), excess)


def picture_tensor(data: bytes, crop: Crop) -> Tensor:
    """An encoded picture as uint8 [3, crop.height, crop.width], RGB.

    Rotated as EXIF says; alpha is laid on white; 16-bit grey is scaled to 8 bits; palettes, grey and CMYK become RGB;
    of an animation the first frame counts; colour profiles are not applied. Bicubic with antialiasing, as published.
    Raises PictureError where the picture is broken, of an unknown form, or larger than `picture.MOST_PIXELS`.
    """
    resized = (crop.resized_width, crop.resized_height)
    box = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
    return to_tensor(cut_picture(data, resized, box))
