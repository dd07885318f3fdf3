"""Sets of pictures with captions: opening, checking, buckets and crops, and the order in which batches come."""

from sanakit.training.data.crops import Crop, crop_for, picture_tensor
from sanakit.training.data.items import Caption, Fault, Item, PictureSet, Place
from sanakit.training.data.order import Batch, BatchOrder, share
from sanakit.training.data.source import open_set, write_captions

__all__ = [
    "Batch",
    "BatchOrder",
    "Caption",
    "Crop",
    "Fault",
    "Item",
    "PictureSet",
    "Place",
    "crop_for",
    "open_set",
    "picture_tensor",
    "share",
    "write_captions",
]
