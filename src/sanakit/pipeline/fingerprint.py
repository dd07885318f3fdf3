"""A short mark of a model's weights, cheap enough to compute for every picture.

It covers the name and size of each weight file and samples of its bytes, not all of them: training changes all
weights, so a sample tells models apart, while reading gigabytes for each picture would not pay.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sanakit.weights import STEMS, ModelSpec, variant_of, weight_files

_SAMPLES = 8
_SAMPLE_BYTES = 1 << 16
_DIGITS = 12


def fingerprint(spec: ModelSpec) -> str:
    """12 hexadecimal digits for the weights a spec points to; files that are missing do not count."""
    source = spec.transformer_source
    variant = spec.variant
    files = [source] if source.is_file() else _weights(source, variant)
    files += _weights(spec.autoencoder_folder, variant) + _weights(spec.text_folder, variant)
    digest = hashlib.sha256()
    for file in files:
        _add(digest, file)
    if spec.weights == "ema":  # the same file gives others, too
        digest.update(b"ema")
    return digest.hexdigest()[:_DIGITS]


def _weights(folder: Path, variant: str | None) -> list[Path]:
    """All weight files of a component; where a variant was asked for and is there, its own.

    Hidden files are drafts of writers that were stopped, and no part of a model.
    """
    stem = STEMS.get(folder.name, "")
    if variant_of(folder, stem, variant) is not None:
        return [file for file in weight_files(folder, stem, variant) if file.suffix == ".safetensors"]
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _add(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{file.parent.name}/{file.name}:{size};".encode())
    last = max(0, size - _SAMPLE_BYTES)
    with file.open("rb") as stream:
        for start in sorted({last * part // (_SAMPLES - 1) for part in range(_SAMPLES)}):
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
