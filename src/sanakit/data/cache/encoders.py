"""The frozen networks whose results are cached, and their fingerprints: hashes of all that a result depends on.

Letters: B pictures, H/W pixels, C latent channels, h/w latent position, L tokens, D width of the text states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from sanakit.autoencoder import DCAE
from sanakit.base.files import file_sha256
from sanakit.base.precision import Precision
from sanakit.base.sentinel import check_finite
from sanakit.pipeline.components import Components
from sanakit.pipeline.engine import choose_engine
from sanakit.text import CHI, MAX_TOKENS, Instruction
from sanakit.weights import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    ModelSpec,
    load_autoencoder,
    tokenizer_files,
    weight_files,
)

EncodePictures = Callable[[Tensor], Tensor]
"""uint8 [B, 3, H, W] -> latents [B, C, h, w], scaled as the transformer sees them."""

EncodeTexts = Callable[[Sequence[str]], list[Tensor]]
"""Captions -> the states of each, [L, D], without padding."""

_DIGITS = 16
_IRRELEVANT = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def latent_fingerprint(spec: ModelSpec) -> str:
    """16 hexadecimal digits: the configuration of an autoencoder and every byte of its weights."""
    files = weight_files(spec.autoencoder_folder, DIFFUSERS_STEM)
    return _fingerprint("autoencoder", asdict(spec.autoencoder), _hashes(files))


def text_fingerprint(spec: ModelSpec) -> str:
    """16 hexadecimal digits: configuration, weights, tokenizer, instruction, case and length of a text encoder."""
    config = {name: value for name, value in spec.text_config.items() if name not in _IRRELEVANT}
    files = weight_files(spec.text_folder, TRANSFORMERS_STEM)
    tokenizer = tokenizer_files(spec.tokenizer_folder)
    reading = [CHI.text if spec.instruct else "", spec.dialect.lowercase, MAX_TOKENS]
    return _fingerprint("text", config, _hashes(files), _hashes(tokenizer), reading)


def _hashes(files: Sequence[Path]) -> list[str]:
    stats = [(file, file.stat()) for file in files]
    return [_hash(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]


@lru_cache(maxsize=64)
def _hash(file: Path, size: int, changed: int) -> str:
    """Hash a file once per size and modification time, because it may have gigabytes."""
    return file_sha256(file)


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:_DIGITS]


def picture_encoder(spec: ModelSpec, precision: Precision) -> EncodePictures:
    """Load the encoder half of a model's autoencoder. Raises WeightsError."""
    dtype = torch.float32 if precision.dtype == torch.float16 else precision.dtype  # fp16 overflows in DC-AE
    with torch.device("meta"):
        model = DCAE(spec.autoencoder)
    folder, device = spec.autoencoder_folder, precision.device
    load_autoencoder(model, spec.autoencoder, folder, dtype=dtype, device=device)
    del model.decoder  # encoding needs the encoder only
    model.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(pictures: Tensor) -> Tensor:
        pixels = (pictures.to(device).float() / 127.5 - 1).to(dtype)
        latent = model.encode(pixels) * spec.autoencoder.scaling_factor
        check_finite(latent, "the autoencoder's encoder")
        return latent.cpu()

    return encode


def text_encoder(spec: ModelSpec, precision: Precision) -> EncodeTexts:
    """Load a model's text encoder, with the instruction and the case it was trained with. Raises WeightsError.

    The empty caption, for classifier-free guidance, is read without the instruction, as in generation.
    """
    encoder = Components(spec, precision, choose_engine("off", precision)).text
    instruction = CHI if spec.instruct else None

    @torch.inference_mode()
    def read(captions: Sequence[str], instruction: Instruction | None) -> list[Tensor]:
        text = encoder.encode_batch(captions, instruction, lowercase=spec.dialect.lowercase)
        check_finite(text.states, "the text encoder")
        return [states[mask].cpu() for states, mask in zip(text.states, text.mask, strict=True)]

    def encode(captions: Sequence[str]) -> list[Tensor]:
        given = [caption for caption in captions if caption]
        states = iter(read(given, instruction) if given else ())
        return [next(states) if caption else read([""], None)[0] for caption in captions]

    return encode
