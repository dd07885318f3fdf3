"""Captions and their scores: which one a step reads, models that write and score them, pictures chosen by them.

sampler    the caption of a step             chosen       pictures by score, and lists of them
labellers  what a captioner and a scorer are models       a name -> one of them
vision     made of transformers' models      contrastive  made of open_clip's models
toyworld   made of the Toybox judge          walk         through a set, here
ray_job    through a set, as a Ray Data job
"""

from sanakit.data.labels.chosen import keys_above, places_of, read_keys, write_keys
from sanakit.data.labels.models import LabelModel, load_captioner, load_labeller, load_scorer
from sanakit.data.labels.sampler import (
    CaptionRule,
    caption_for,
    caption_shares,
    choose_caption,
    without_scores,
)
from sanakit.data.labels.walk import label_here, write_labelled

__all__ = [
    "CaptionRule",
    "LabelModel",
    "caption_for",
    "caption_shares",
    "choose_caption",
    "keys_above",
    "label_here",
    "load_captioner",
    "load_labeller",
    "load_scorer",
    "places_of",
    "read_keys",
    "without_scores",
    "write_keys",
    "write_labelled",
]
