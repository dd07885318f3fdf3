"""Captions and their scores: which one a step reads, models that write and score them, pictures chosen by them."""

from sanakit.training.labels.sampler import CaptionRule, caption_for, choose_caption

__all__ = ["CaptionRule", "caption_for", "choose_caption"]
