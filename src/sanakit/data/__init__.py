"""Sets of pictures with captions: opening, checking, buckets and crops, and the order in which batches come."""

from sanakit.data.buckets import BucketRule, assign_buckets, bucket_for, bucket_table, merge_small
from sanakit.data.check import CheckRules, Examined, collect, conclude
from sanakit.data.cost import CacheCost
from sanakit.data.crops import Crop, crop_for, picture_tensor
from sanakit.data.examine import Finding, examine
from sanakit.data.items import Caption, Fault, FilePlace, Item, PictureSet, Place
from sanakit.data.lengths import CountTokens, token_counter
from sanakit.data.order import Batch, BatchOrder, share
from sanakit.data.picture import ignore_remarks
from sanakit.data.prefetch import Prefetch
from sanakit.data.reader import PictureBatch, PictureReader
from sanakit.data.report import KINDS, CheckReport
from sanakit.data.source import open_set, write_captions

__all__ = [
    "Batch",
    "BatchOrder",
    "BucketRule",
    "CacheCost",
    "Caption",
    "CheckReport",
    "CheckRules",
    "CountTokens",
    "Crop",
    "Examined",
    "Fault",
    "FilePlace",
    "Finding",
    "Item",
    "KINDS",
    "PictureBatch",
    "PictureReader",
    "PictureSet",
    "Place",
    "Prefetch",
    "assign_buckets",
    "bucket_for",
    "bucket_table",
    "collect",
    "conclude",
    "crop_for",
    "examine",
    "ignore_remarks",
    "merge_small",
    "open_set",
    "picture_tensor",
    "share",
    "token_counter",
    "write_captions",
]
