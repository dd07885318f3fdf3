"""Which words a tokenizer reads whole, and how it gets more of them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from sanakit.text import (
    TextConfig,
    add_words,
    build_gemma,
    is_closed,
    load_tokenizer,
    new_words,
    save_tokenizer,
    tokenise,
    tokens_per_word,
    widen,
    widened,
    words_in_pieces,
    words_of,
)
from sanakit.text.tokenizer import read_tokens
from sanakit.weights import resolve


@pytest.fixture
def toybox() -> PreTrainedTokenizerBase:
    return load_tokenizer(resolve("toybox") / "tokenizer")


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a large red metal sphere left of a small blue rubber cube on grass at sunset", []),
        ("A RED Cube, two yellow cones!", []),
        ("pizza", ["pizza"]),
        ("a red pizza on a fire engine, pizza", ["pizza", "fire", "engine"]),
        ("the chef's caffè", ["chef's", "caffè"]),
        ("e\u0301clair red", ["éclair"]),  # a letter and its accent, apart
        ("İzmir", ["i̇zmir"]),  # whose lower case has one letter more
        ("犬", ["犬"]),
        ("", []),
        (" ,;! ", []),
    ],
)
def test_words_that_are_read_in_pieces(
    toybox: PreTrainedTokenizerBase, prompt: str, unknown: list[str]
) -> None:
    assert words_in_pieces(toybox, prompt) == unknown


def test_tokens_are_counted_by_word(toybox: PreTrainedTokenizerBase) -> None:
    assert tokens_per_word(toybox, ["pizza cube", "a pizza"]) == {"pizza": 5, "cube": 1, "a": 1}
    assert words_of("A dog's life, 2 cats") == ["a", "dog's", "life", "2", "cats"]
    assert is_closed(toybox)


def test_new_words_are_whole_and_stay_so_in_a_file(toybox: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    before, [start, article] = toybox("a red cube")["input_ids"], toybox("a")["input_ids"]
    first = max(toybox.get_vocab().values()) + 1  # the id of the first new word
    words = new_words(toybox, ["pizza", "a pizza with cheese", "red cheese"])
    assert words == ["cheese", "pizza"]  # both twice, in the order of the alphabet
    assert add_words(toybox, words) == 2 and add_words(toybox, words) == 0
    save_tokenizer(toybox, tmp_path)
    again = load_tokenizer(tmp_path)
    for tokenizer in (toybox, again):
        assert words_in_pieces(tokenizer, "Pizza, a red cube with cheese; pizzas") == ["pizzas"]
        assert tokenizer("a red cube")["input_ids"] == before
        assert tokenizer("a pizza")["input_ids"] == [start, article, first + 1]
    assert new_words(toybox, ["a zebra, an owl, pizza"], most=1) == ["owl"]


def test_rows_are_added_and_the_others_stay(config: TextConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    model, tokenizer = build_gemma(config), deepcopy(tokenizer)
    old = model.embed_tokens.weight.detach().clone()
    add_words(tokenizer, ["zebra"])
    wide = widened(config, tokenizer)
    widen(model, wide["vocab_size"], torch.Generator().manual_seed(0))
    new = model.embed_tokens.weight
    assert new.shape[0] == wide["vocab_size"] >= max(tokenizer.get_vocab().values()) + 1
    assert torch.equal(new[: len(old)], old)
    assert float(new[len(old) :].detach().std()) == pytest.approx(float(old.std()), rel=0.5)
    tokens = tokenise(tokenizer, ["a zebra", ""], lowercase=True)
    states = read_tokens(model, tokens)
    assert states.states.shape[:2] == tokens.mask.shape == (2, 3)
    assert tokens.mask.tolist() == [[True] * 3, [True, False, False]]
    assert widened(wide, tokenizer) == wide
