"""A plan says how well the text encoder reads the captions: which words it knows, whether it tells captions apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanakit.base.precision import decide
from sanakit.pipeline import ImageRequest, Note, load
from sanakit.pipeline.prompt import unknown_words
from sanakit.text import words_of
from sanakit.toybox.captions import captions
from sanakit.toybox.sampling import sample_scene
from sanakit.training.caption_reading import ADVICE, CaptionReading, read_set, share_alike
from sanakit.training.session import Session
from sanakit.weights import read_model_spec, read_words, resolve, write_words
from tests.training.sets import config

STRANGERS = [
    "fire engine",
    "grinning face",
    "pizza",
    "slice of cake",
    "zebra",
    "hot beverage",
    "sailboat",
    "owl",
]
TOYBOX = [
    f"a {colour} {shape}" for colour in ("red", "blue", "green") for shape in ("cube", "cone", "sphere")
]


@pytest.mark.parametrize(("captions", "unfit"), [(STRANGERS, True), (TOYBOX, False)])
def test_captions_of_other_words_are_told_from_toyboxs_own(captions: list[str], unfit: bool) -> None:
    found = read_set(read_model_spec(resolve("toybox")), captions, decide("cpu", "fp32"))
    assert (found.unfit, found.closed, found.captions) == (unfit, True, len(captions))
    assert found.alike is not None and (found.alike >= 0.5) == unfit
    told = found.sentence()
    assert (ADVICE in told) == unfit and ("it knows these captions" in told) != unfit
    if unfit:
        assert (found.pieces, found.words) == (12, 13) and found.tokens_per_word > 2
        assert (
            told.startswith("12 of 13 words are read in pieces")
            and "hardly tells these captions apart" in told
        )


def test_a_general_vocabulary_is_not_blamed_for_words_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sanakit.text.vocabulary.CLOSED", 100)
    found = read_set(read_model_spec(resolve("toybox")), STRANGERS, decide("cpu", "fp32"))
    assert not found.unfit and found.alike is None and "a general vocabulary" in found.sentence()


def test_words_that_are_whole_but_alike_are_blamed_on_the_states() -> None:
    row = torch.ones(2, 4)
    assert share_alike([row, row * 2, torch.tensor([[1.0, -1.0, 1.0, -1.0]])]) == pytest.approx(2 / 3)
    found = CaptionReading(
        words=9, pieces=0, tokens_per_word=0.0, examples=(), closed=True, captions=9, alike=0.9
    )
    assert found.unfit and "hardly tells these captions apart" in found.sentence()
    few = CaptionReading(
        words=9, pieces=3, tokens_per_word=4.0, examples=("x",), closed=True, captions=9, alike=0.0
    )
    assert few.unfit and "does not know these words" in few.sentence()


def test_the_plan_says_so_and_what_is_done_about_it(tmp_path: Path) -> None:
    from PIL import Image

    for number, text in enumerate(STRANGERS):
        Image.new("RGB", (64, 64), (30 * number, 90, 90)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(text)
    data = {"path": str(tmp_path), "square": True}

    def plan(**text: object) -> str:
        return "\n".join(Session(config(tmp_path / "run", data=data, text=text), device="cpu").plan.lines())

    assert "12 of 13 words are read in pieces" in plan() and "text.train=true" in plan()
    joint = plan(train=True, vocabulary="captions")
    assert "trained with the transformer; 12 words get a token of their own" in joint
    assert not (tmp_path / "run").exists()


def test_drawing_says_which_words_a_model_has_not_learnt(tmp_path: Path) -> None:
    model = load("toybox", device="cpu")

    def notes(prompt: str) -> list[str]:
        request = ImageRequest(prompt=prompt, steps=1, width=64, height=64)
        return [event.message for event in model.generate(request) if isinstance(event, Note)]

    assert notes("A red cube, on snow!") == []
    [told] = notes("a cat sitting on 2 sofas, a red pizza, a zebra, an owl, a lamp")
    assert told.startswith(
        "Toybox draws one to four solids on a floor under a light; it does not know: cat, "
    )
    assert all(
        word in told for word in ("sofas", "pizza", "more. It knows shapes: sphere, cube", "floors: grass")
    )
    model.spec = replace(model.spec, about=None)
    assert notes("a green pizza and a zebra") == [
        "this model has not learnt the words pizza, zebra, and draws something else in their place."
    ]


def test_a_model_knows_the_words_that_it_was_trained_on(tmp_path: Path) -> None:
    toybox = read_model_spec(resolve("toybox"))
    assert unknown_words(toybox, "a Pizza and a zebra, pizza") == ["pizza", "zebra"]
    other = replace(toybox, folder=tmp_path)
    assert unknown_words(other, "a zebra") == []  # it has no list
    write_words(tmp_path, {"pizza", "a"})
    assert unknown_words(other, "a Pizza, a zebra") == ["zebra"]


def test_the_shipped_list_holds_every_word_of_its_world() -> None:
    known = read_words(read_model_spec(resolve("toybox")))
    for number in range(100):
        for text in captions(sample_scene(number, "train")):
            assert set(words_of(text)) <= known, text
