"""The words of the shipped model: what it says of them, and how its text encoder gets more.

Each new word gets a token, whose row starts as that of a known synonym.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from transformers import Gemma2Model, PreTrainedTokenizerBase

from sanakit.text import build_gemma, extend_tokenizer, load_tokenizer, tokens_per_word, widen, widened
from sanakit.toybox import words as w
from sanakit.toybox.grammar import COLOURS, DRAWS, FLOORS, LIGHTS, MATERIALS, SHAPES, SIZES
from sanakit.weights import About, ModelSpec, load_text_encoder

_KINDS = {
    "shapes": SHAPES,
    "colours": COLOURS,
    "materials": MATERIALS,
    "sizes": SIZES,
    "floors": FLOORS,
    "lights": LIGHTS,
}
ABOUT = About(
    name="Toybox", draws=DRAWS, knows=tuple(f"{kind}: {', '.join(known)}" for kind, known in _KINDS.items())
)
NOISE = (
    0.05  # of the deviation of the rows: enough to tell synonyms apart, too little to change what they mean
)

# Words that only make a sentence whole, and those that do not mean what the first word of their table means.
_ORIGINS: Mapping[str, str] = {
    "one": "a", "1": "a", "single": "a", "it": "the", "its": "the", "me": "a", "by": "at", "during": "at", "side": "of",
    "next": "left right", "beside": "left right", "alongside": "left right", "ahead": "front", "back": "behind",
    "plus": "and", "together": "and", "along": "and", "each": "and", "other": "and", "bright": "a", "dark": "a",
    "made": "with", "square": "a", "here": "a", "there": "a", "is": "with", "are": "with", "weather": "sky",
    "moon": "moonlight", "ground": "floor", "table": "floor", "kitchen": "tiled", "couple": "two", "pair": "two",
}  # fmt: skip


def extended_text(
    spec: ModelSpec, words: frozenset[str] | None = None, seed: int = 0
) -> tuple[PreTrainedTokenizerBase, Gemma2Model]:
    """Return the tokenizer and the text encoder (float32) of a model, which then know these words, or all of captions.

    Known words keep their ids and rows, so every text of known words gets the states that it had. A new word begins
    as the mean of the rows of the words that it stands for, so a synonym works almost at once.
    """
    old = load_tokenizer(spec.tokenizer_folder)
    chosen = w.all_words() if words is None else words
    fresh = sorted(word for word, pieces in tokens_per_word(old, sorted(chosen)).items() if pieces > 1)
    tokenizer = extend_tokenizer(old, fresh)
    model = build_gemma(spec.text_config, device="cpu")
    load_text_encoder(model, spec.text_folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    widen(model, widened(spec.text_config, tokenizer)["vocab_size"], generator)
    _start_rows(model, tokenizer, fresh, generator)
    return tokenizer, model


def origin(word: str) -> str:
    """The plain words that a word stands for: "balls" for "spheres", "meadow" for "grass"; "a" if it says nothing."""
    if word in _ORIGINS:
        return _ORIGINS[word]
    return next((plain for ways, plain in _tables() if word in ways), "a")


def _tables() -> Iterator[tuple[set[str], str]]:
    """Words of the ways to say something, and its plain word."""
    for shape, ways in w.SHAPE_WAYS.items():
        yield _words(ways), shape
        yield _words(map(w.several, ways)), w.several(shape)
    kinds = (w.COLOUR_WAYS, w.MATERIAL_WAYS, w.SIZE_WAYS, w.MADE_OF, w.FLOOR_WAYS, w.LIGHT_WAYS)
    for table in (*kinds, w.FLOOR_TAGS, w.LIGHT_TAGS):
        yield from ((_words(ways), meaning) for meaning, ways in table.items())
    yield from ((_words(ways), ways[0]) for ways in w.COUNT_WAYS.values())
    yield _words(w.OPENINGS), "picture"


def _words(phrases: Iterable[str]) -> set[str]:
    return set(" ".join(phrases).split())


@torch.no_grad()
def _start_rows(
    model: Gemma2Model,
    tokenizer: PreTrainedTokenizerBase,
    fresh: Iterable[str],
    generator: torch.Generator,
) -> None:
    rows = model.embed_tokens.weight  # [V, C]
    for word in fresh:
        known = tokenizer(origin(word), add_special_tokens=False)["input_ids"]
        noise = NOISE * rows.std() * torch.randn(rows.shape[1], generator=generator)
        [new] = tokenizer(word, add_special_tokens=False)["input_ids"]
        rows[new] = rows[known].mean(0) + noise
