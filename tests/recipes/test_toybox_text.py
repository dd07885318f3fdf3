"""The text encoder of the Toybox recipe learns more words: each is one token, and begins as what it stands for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Model, PreTrainedTokenizerBase

from recipes.toybox_contrast import mirrored
from recipes.toybox_model import PLACES, TOKENS, UNPLACED, read_captions
from recipes.toybox_text import ABOUT, extended_text, origin
from sanakit.text import load_tokenizer, save_tokenizer, tokenise, words_of
from sanakit.text.tokenizer import read_tokens
from sanakit.toybox import sample_scene
from sanakit.toybox.captions import caption
from sanakit.toybox.trials import trials
from sanakit.toybox.words import all_words
from sanakit.weights import read_model_spec, read_words, resolve

SPEC = read_model_spec(resolve("toybox"))


@pytest.fixture(scope="module")
def extended() -> tuple[PreTrainedTokenizerBase, Gemma2Model]:
    return extended_text(SPEC, all_words() | {"zeppelin"})


def states_of(tokenizer: PreTrainedTokenizerBase, model: Gemma2Model, text: str) -> torch.Tensor:
    with torch.no_grad():
        return read_tokens(model, tokenise(tokenizer, [text], lowercase=True)).states[0]


def test_every_word_is_one_token_in_any_case(extended: tuple[PreTrainedTokenizerBase, Gemma2Model]) -> None:
    tokenizer, model = extended
    for word in all_words():
        ids = {tuple(tokenizer(form)["input_ids"]) for form in (word, word.upper(), word.title())}
        assert len(ids) == 1 and len(ids.pop()) == 2, word  # behind <bos>
    assert len(tokenizer) == model.embed_tokens.weight.shape[0] == model.config.vocab_size
    assert tokenizer.decode(tokenizer("two Crimson balls, on the lawn.")["input_ids"][1:]).strip() == (
        "two crimson balls, on the lawn."
    )


def test_known_text_is_read_as_before(
    extended: tuple[PreTrainedTokenizerBase, Gemma2Model], tmp_path: Path
) -> None:
    tokenizer, model = extended
    save_tokenizer(tokenizer, tmp_path)
    tokenizer = load_tokenizer(tmp_path)  # and a file keeps it all
    old = load_tokenizer(SPEC.tokenizer_folder)
    for trial in trials(60):
        assert tokenizer(trial.prompt)["input_ids"] == old(trial.prompt)["input_ids"]
    assert tokenizer("a pizza")["input_ids"] == old("a pizza")["input_ids"]
    before = extended_text(SPEC, frozenset())[1]
    text = trials(1)[0].prompt
    assert torch.equal(states_of(tokenizer, model, text), states_of(old, before, text))


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("a crimson ball on grass", "a red sphere on grass"),
        ("2 tiny boxes at dusk", "two small cubes at sunset"),
    ],
)
def test_a_synonym_begins_as_what_it_stands_for(
    extended: tuple[PreTrainedTokenizerBase, Gemma2Model], said: str, plain: str
) -> None:
    told, meant, else_ = (states_of(*extended, text) for text in (said, plain, "a zeppelin on snow at night"))
    alike = torch.cosine_similarity(told, meant).mean()
    assert alike > 0.97 > torch.cosine_similarity(meant[: len(else_)], else_[: len(meant)]).mean()
    assert not torch.equal(told, meant)


def test_the_shipped_folder_says_what_it_draws() -> None:
    assert SPEC.about == ABOUT


def test_words_begin_as_words_that_are_known() -> None:
    known = read_words(SPEC)
    assert {word for new in all_words() - known for word in words_of(origin(new))} <= known
    assert (origin("boxes"), origin("meadow"), origin("beside")) == ("cubes", "grass", "left right")


def test_captions_keep_their_places_in_other_words(
    extended: tuple[PreTrainedTokenizerBase, Gemma2Model],
) -> None:
    tokenizer, _ = extended
    lines = {
        "a crimson ball with a navy box on its left": ("box", "left"),
        "On the right of a can is a party hat, snow": ("hat", "right"),
        "a tent next to a block": ("block", None),
    }
    captions = read_captions(tokenizer, list(lines))
    for row, (noun, place) in enumerate(lines.values()):
        assert tokenizer.decode([int(captions.ids[row, captions.spot[row]])]).strip() == noun
        assert int(captions.place[row]) == (UNPLACED if place is None else PLACES.index(place))
    assert mirrored("a ball with a box on its left.") == "a ball with a box on its right."


def test_no_caption_is_cut(extended: tuple[PreTrainedTokenizerBase, Gemma2Model]) -> None:
    scenes = [sample_scene(seed) for seed in range(100)]
    lines = [caption(scenes[number % 100], random.Random(number)) for number in range(4000)]
    assert max(map(len, extended[0](lines)["input_ids"])) <= TOKENS
