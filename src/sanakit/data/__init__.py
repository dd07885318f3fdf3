"""Sets of pictures with captions: opening, checking, buckets and crops, and the order in which batches come."""

from sanakit.data.buckets import (
    BucketRule,
    Crop,
    assign_buckets,
    bucket_for,
    bucket_table,
    crop_for,
    merge_small,
    picture_tensor,
)
from sanakit.data.check import CheckRules, Examined, collect, conclude, examine
from sanakit.data.check_report import KINDS, CheckReport
from sanakit.data.cost import CacheCost, CountTokens, token_counter
from sanakit.data.image import ignore_warnings
from sanakit.data.items import Caption, Item, PictureSet
from sanakit.data.loader import PictureBatch, PictureReader, Prefetch
from sanakit.data.sampler import BatchOrder, share
from sanakit.data.source import open_set, write_captions

__all__ = [
    "BatchOrder",
    "BucketRule",
    "CacheCost",
    "Caption",
    "CheckReport",
    "CheckRules",
    "CountTokens",
    "Crop",
    "Examined",
    "Item",
    "KINDS",
    "PictureBatch",
    "PictureReader",
    "PictureSet",
    "Prefetch",
    "assign_buckets",
    "bucket_for",
    "bucket_table",
    "collect",
    "conclude",
    "crop_for",
    "examine",
    "ignore_warnings",
    "merge_small",
    "open_set",
    "picture_tensor",
    "share",
    "token_counter",
    "write_captions",
]
