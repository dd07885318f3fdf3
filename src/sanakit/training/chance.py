"""Numbers drawn by name: a pure function of what they are for, alike in every process and every resumed run.

drawn("caption", seed, epoch, key)     a whole number of 64 bits
share_drawn("crop", seed, epoch, 17)   a number in 0..1
"""

from __future__ import annotations

import hashlib

_BITS = 53  # of a double's fraction


def drawn(*names: str | int) -> int:
    """64 bits, the same on every machine; independent for different names."""
    text = " ".join(map(str, names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def share_drawn(*names: str | int) -> float:
    """A number from 0 to below 1."""
    return float((drawn(*names) >> (64 - _BITS)) * 2.0**-_BITS)
