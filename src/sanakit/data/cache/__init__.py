"""Latents and text states that are computed once: a folder of tensors by key, filling it, reading it in training.

store     safetensors shards, manifests, verification
index     keys, and notes on what a cache was filled with
encoders  the frozen networks and their fingerprints
fill      encode every picture and caption of a set
cached    a filled cache as training reads it
"""

from sanakit.data.cache.cached import CachedSet
from sanakit.data.cache.encoders import latent_fingerprint, picture_encoder, text_encoder, text_fingerprint
from sanakit.data.cache.fill import (
    FillReport,
    captions_of,
    fill_for_model,
    fill_latents,
    fill_texts,
    open_for_model,
)
from sanakit.data.cache.index import latent_key, picture_hash, text_key
from sanakit.data.cache.store import TensorCache, verify

__all__ = [
    "CachedSet",
    "FillReport",
    "TensorCache",
    "captions_of",
    "fill_for_model",
    "fill_latents",
    "fill_texts",
    "latent_fingerprint",
    "latent_key",
    "open_for_model",
    "picture_encoder",
    "picture_hash",
    "text_encoder",
    "text_fingerprint",
    "text_key",
    "verify",
]
