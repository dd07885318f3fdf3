"""Under which key a latent or a caption's states lie: a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from sanakit.data.crops import Crop

__all__ = ["latent_key", "picture_hash", "text_key"]

_DIGITS = 32  # 128 bits: no two keys of any set meet


def picture_hash(data: bytes) -> str:
    """sha256 (hex) of an encoded picture, as it lies in its file."""
    return hashlib.sha256(data).hexdigest()


def latent_key(picture_sha256: str, crop: Crop, encoder: str) -> str:
    """The key of the latent of a picture, cut by `crop`, made by the encoder with this mark."""
    return _key("latent", picture_sha256, asdict(crop), encoder)


def text_key(caption: str, encoder: str) -> str:
    """The key of the token states of a caption, made by the encoder with this mark."""
    return _key("text", caption, encoder)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_DIGITS]
