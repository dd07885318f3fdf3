"""Variants of a folder's weights (fp16, bf16, ...): which of its components have the one that was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from sanakit.base.echo import quoted
from sanakit.base.errors import WeightsError
from sanakit.weights.read import variants

__all__ = ["check_variant", "has_variant", "missing_variant", "variant_of"]

_WORD = re.compile(r"[A-Za-z0-9_]{1,40}")


def check_variant(name: str) -> None:
    """Raises WeightsError for what can't be part of a file's name."""
    if not _WORD.fullmatch(name):
        raise WeightsError(f"a variant is a word such as fp16 or bf16, not {quoted(name)}")


def has_variant(folder: Path, stem: str, variant: str) -> bool:
    """Whether a component's folder holds weights of the variant."""
    return folder.is_dir() and variant in variants((path.name for path in folder.iterdir()), stem)


def variant_of(folder: Path, stem: str, variant: str | None) -> str | None:
    """The variant to open in one component: None (the plain weights, or the only ones) where it lacks the one asked."""
    return variant if variant is not None and has_variant(folder, stem, variant) else None


def missing_variant(stems: Mapping[Path, str], variant: str | None, note: Callable[[str], object]) -> None:
    """Notes on the components that lack a variant. Raises WeightsError where none of them has it."""
    if variant is None:
        return
    check_variant(variant)
    lacking = [folder for folder, stem in stems.items() if not has_variant(folder, stem, variant)]
    if len(lacking) == len(stems):
        places = " and ".join(folder.name for folder in stems)
        root = next(iter(stems)).parent
        raise WeightsError(f"{root} has no variant {variant!r}: neither of {places} holds such weights")
    for folder in lacking:
        note(f"{folder} has no variant {variant!r}: its plain weights are read")
