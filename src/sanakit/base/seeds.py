"""What is random, and from what: seeds of pictures, of training samples, and of the order of a set.

noise_stream(seed, shape, device)      the noise of a picture
hash_seed("caption", seed, epoch, key) a whole number of 64 bits, a pure function of its arguments
hash_uniform("crop", seed, epoch, 17)  a number in 0..1, likewise
batch_indices(step, batch, count, seed) the samples of a training batch

Everything is drawn on the CPU, so it is the same on every device and for any number of processes, and a resumed run
needs no state of a random generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

__all__ = [
    "batch_indices",
    "epoch_generator",
    "epoch_seed",
    "hash_seed",
    "hash_uniform",
    "noise_stream",
    "sample_seed",
]

_FRACTION_BITS = 53  # of a float64, so that hash_uniform stays below 1
_STRIDE = 1_000_003  # a prime: seeds and epochs (or steps) of any practical size never meet in one sum


def noise_stream(seed: int, shape: Sequence[int], device: torch.device) -> Callable[[int], Tensor]:
    """noise(step) -> standard normal [1, *shape] float32 on `device`.

    Successive draws of one CPU generator, whatever `step` is: what a seed means in diffusers, too.
    """
    generator = torch.Generator("cpu").manual_seed(seed)

    def draw(step: int) -> Tensor:
        return torch.randn((1, *shape), generator=generator, dtype=torch.float32, device="cpu").to(device)

    return draw


def hash_seed(*names: str | int) -> int:
    """64 bits, the same on every machine; independent for different names."""
    text = " ".join(map(str, names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


def hash_uniform(*names: str | int) -> float:
    """Return a number from 0 to below 1, the same on every machine."""
    return float((hash_seed(*names) >> (64 - _FRACTION_BITS)) * 2.0**-_FRACTION_BITS)


def sample_seed(seed: int, step: int, row: int) -> int:
    """Return the 63-bit seed of one sample: `row` is its place in the global batch of a step.

    One process, several, and accumulated micro-batches therefore draw the same numbers.
    """
    return hash_seed(seed, step, row) >> 1


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the CPU generator from which everything random about an epoch (or a step) is drawn."""
    return torch.Generator().manual_seed(epoch_seed(seed, epoch))


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch, or of a step."""
    return seed * _STRIDE + epoch


def batch_indices(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Return sample numbers of batch `step`: each epoch is a fresh permutation of range(count), walked without gaps."""
    first = step * batch
    return [_permutation(seed, n // count, count)[n % count] for n in range(first, first + batch)]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=epoch_generator(seed, epoch)).tolist()
    return order
