"""Latents and text states that are computed once: a folder of tensors by key, filling it, reading it in training.

keys      what a result depends on           store     safetensors shards
manifest  their sizes and hashes             about     what a cache was filled with
encoders  the frozen networks                fill      every picture and caption of a set
cached    the cache as training reads it     model     filling and opening by a model's spec
verify    every byte
"""

from sanakit.data.cache.cached import CachedSet
from sanakit.data.cache.encoders import latent_mark, picture_encoder, text_encoder, text_mark
from sanakit.data.cache.fill import FillReport, captions_of, fill_latents, fill_texts
from sanakit.data.cache.keys import latent_key, picture_hash, text_key
from sanakit.data.cache.model import fill_for_model, open_for_model
from sanakit.data.cache.store import TensorCache
from sanakit.data.cache.verify import verify

__all__ = [
    "CachedSet",
    "FillReport",
    "TensorCache",
    "captions_of",
    "fill_for_model",
    "fill_latents",
    "fill_texts",
    "latent_key",
    "latent_mark",
    "open_for_model",
    "picture_encoder",
    "picture_hash",
    "text_encoder",
    "text_key",
    "text_mark",
    "verify",
]
