"""Latents and text states that are computed once: a folder of tensors by key, filling it, reading it in training.

keys      what a result depends on           store     safetensors shards
manifest  their sizes and hashes             about     what a cache was filled with
encoders  the frozen networks                fill      every picture and caption of a set
cached    the cache as training reads it     verify    every byte
"""

from sanakit.training.cache.cached import CachedSet
from sanakit.training.cache.encoders import latent_mark, text_mark
from sanakit.training.cache.fill import FillReport, fill_latents, fill_texts
from sanakit.training.cache.keys import latent_key, picture_hash, text_key
from sanakit.training.cache.store import TensorCache
from sanakit.training.cache.verify import verify

__all__ = [
    "CachedSet",
    "FillReport",
    "TensorCache",
    "fill_latents",
    "fill_texts",
    "latent_key",
    "latent_mark",
    "picture_hash",
    "text_key",
    "text_mark",
    "verify",
]
