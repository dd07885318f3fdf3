"""A scorer made from a model of `open_clip`, an optional library: `open_clip:ViT-B-32/laion2b_s34b_b79k`, or a folder.

A name is the library's: model, a slash, and either a tag of weights, which the library downloads, or a weights file.
`open_clip:FOLDER` is a folder with `open_clip_config.json`, as in the library's repositories on the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.data.labels.labellers import Scorer

PREFIX = "open_clip:"


def open_clip_scorer(name: str, precision: Precision, announce: Callable[[str], object]) -> Scorer:
    """Load the scorer of a name without its prefix. announce: called before the library downloads weights.

    Raises ConfigError if the library is missing or knows no such model or weights.
    """
    model, prepare, tokenizer = _load(name, precision, announce)

    @torch.inference_mode()
    def score(pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[float]]:
        texts = list(dict.fromkeys(text for row in captions for text in row))
        if not texts:
            return [[] for _ in captions]
        pixels = torch.stack([prepare(picture) for picture in pictures]).to(precision.device, precision.dtype)
        shown = model.encode_image(pixels, normalize=True).float()
        meant = model.encode_text(tokenizer(texts).to(precision.device), normalize=True).float()
        row_of = {text: row for row, text in enumerate(texts)}
        cosines = (100 * shown @ meant.T).tolist()
        return [[cosines[row][row_of[text]] for text in texts] for row, texts in enumerate(captions)]

    return score


def _load(name: str, precision: Precision, announce: Callable[[str], object]) -> tuple[Any, Any, Any]:
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError(f'{PREFIX}{name} needs open_clip: pip install "sanakit[clip]"') from error
    model_name, weights = _parts(name)
    if weights is not None and not Path(weights).is_file():
        announce(f"open_clip downloads the weights {weights} of {model_name} unless they are in its cache")
    try:
        model, _, prepare = open_clip.create_model_and_transforms(
            model_name, pretrained=weights, precision="fp32", device=str(precision.device)
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:  # RuntimeError for names, and anything its loader raises
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"open_clip can't load {name}: {reason}") from error
    return model.to(precision.dtype).eval().requires_grad_(False), prepare, tokenizer


def _parts(name: str) -> tuple[str, str | None]:
    """Model and weights as the library names them. Raises ConfigError if no weights are named."""
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    model_name, _, weights = name.partition("/")
    if not model_name or not weights:
        raise ConfigError(
            f"{PREFIX}{name} names no weights: say for example {PREFIX}ViT-B-32/laion2b_s34b_b79k, or a folder"
        )
    return model_name, weights
