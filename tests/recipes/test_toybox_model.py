"""The Toybox recipe: captions as tokens with the places that they name, and the losses on places and sides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from recipes.toybox_contrast import GAP, TransformerBatch, mirrored, side_contrast
from recipes.toybox_model import PLACES, UNPLACED, Captions, placing, read_captions
from sanakit.flow.path import LinearPath
from sanakit.text import load_tokenizer
from sanakit.weights import resolve


def test_captions_know_the_word_of_the_second_thing_and_its_side() -> None:
    lines = {
        "a red cube left of a blue pyramid on sand": ("pyramid", "right"),
        "a scene with a cone to the right of a cylinder": ("cylinder", "left"),
        "on grass, a small cone behind a striped sphere at night": ("sphere", "front"),
        "a large cone in front of a cube": ("cube", "behind"),
        "three green cones and a cube": ("cube", None),
        "": (None, None),
    }
    tokenizer = load_tokenizer(resolve("toybox") / "tokenizer")
    captions = read_captions(tokenizer, list(lines))
    for row, (noun, place) in enumerate(lines.values()):
        token = int(captions.ids[row, captions.spot[row]])
        assert noun is None or tokenizer.decode([token]).strip() == noun
        assert int(captions.place[row]) == (UNPLACED if place is None else PLACES.index(place))
    assert tokenizer.decode(captions.words.tolist()).split() == list(PLACES)
    assert captions.mask.sum(1).tolist()[-1] == 1  # an empty caption is <bos> alone


def captions_of(spot: list[int], place: list[int]) -> Captions:
    ids = torch.zeros(len(spot), 5, dtype=torch.long)
    return Captions(ids, ids == 0, torch.tensor(spot), torch.tensor(place), torch.tensor([3, 5, 6, 8]))


def test_the_loss_is_a_choice_between_the_places_at_the_named_token() -> None:
    torch.manual_seed(0)
    states, table = torch.randn(3, 5, 4), torch.randn(9, 4)
    captions = captions_of([2, 4, 1], [1, UNPLACED, 3])
    logits = torch.stack([states[0, 2], states[2, 1]]) @ table[[3, 5, 6, 8]].T
    wanted = F.cross_entropy(logits, torch.tensor([1, 3]))
    torch.testing.assert_close(placing(states, captions, table), wanted)
    states[1], states[0, 0] = 100.0, 100.0
    torch.testing.assert_close(placing(states, captions, table), wanted)


def test_captions_that_place_nothing_ask_for_nothing() -> None:
    states = torch.randn(2, 5, 4, requires_grad=True)
    loss = placing(states, captions_of([0, 1], [UNPLACED, UNPLACED]), torch.randn(9, 4))
    loss.backward()
    assert loss.item() == pytest.approx(0.0)
    assert not states.grad.any()


def test_mirrored_captions_swap_sides_and_nothing_else() -> None:
    assert mirrored("a red cube to the left of a cone on sand") == "a red cube to the right of a cone on sand"
    assert mirrored("a cone right of a cube") == "a cone left of a cube"
    assert mirrored("a bright cube behind a cone in daylight") == "a bright cube behind a cone in daylight"


def test_the_contrast_falls_as_the_true_caption_is_worth_more() -> None:
    """A network that predicts exactly under true captions, and is off by `miss` under mirrored ones."""
    x0 = torch.randn(4, 2, 3, 3)
    batch = TransformerBatch(x0, captions_of([1] * 4, [0] * 4), x0[:3], captions_of([1] * 6, [0] * 6))
    path, found = LinearPath(), []

    def network(point: torch.Tensor, time: torch.Tensor, captions: Captions, miss: float):
        assert point.shape == (6, 2, 3, 3)
        assert torch.equal(point[:3], point[3:])
        assert torch.equal(time[:3], time[3:])
        t = (time / 1000)[:, None, None, None]
        clean = x0[:3].repeat(2, 1, 1, 1)
        exact = (point - clean) / t.clamp_min(1e-3)
        return exact + miss * (torch.arange(6) >= 3)[:, None, None, None], torch.zeros(())

    for miss in (0.0, GAP**0.5, 1.0):
        generator = torch.Generator().manual_seed(0)
        found.append(side_contrast(lambda *a, miss=miss: network(*a, miss), path, batch, generator).item())
    assert found[0] == pytest.approx(0.693, abs=0.02)
    assert found[1] == pytest.approx(0.313, abs=0.05)
    assert found[2] < 1e-3


def test_a_step_without_pairs_contrasts_nothing() -> None:
    x0 = torch.randn(4, 2, 3, 3)
    batch = TransformerBatch(x0, captions_of([1] * 4, [0] * 4), x0[:0], None)
    assert side_contrast(None, LinearPath(), batch, torch.Generator()).item() == 0
