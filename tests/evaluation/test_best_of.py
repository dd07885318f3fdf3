"""The best of many candidates, and scores of pictures that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from sanakit.base.errors import PictureError, RequestError
from sanakit.evaluation.best_of import Choice, Judged, best_of
from sanakit.evaluation.pictures import find_pictures, mean_of, score_pictures
from sanakit.pipeline import Done, ImageRequest, Model, Note, PictureDone, Record, Step, load, write_picture
from tests.oracles.tiny import Folders

REQUEST = ImageRequest(prompt="a cube", seed=40, steps=3, width=64, height=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(Folders(tmp_path_factory.mktemp("tiny"))(), "cpu", "fp32")


class Scorer:
    """Gives the scores of a list, one after the other, and remembers what it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), list[tuple[bytes, str]]()

    def __call__(
        self, pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        self.seen += [(one.tobytes(), texts[0]) for one, texts in zip(pictures, captions, strict=True)]
        return [[self.scores[len(self.seen) - 1]]]


def run(model: Model, scorer: Scorer, choice: Choice, request: ImageRequest = REQUEST):
    events = list(best_of(model, request, choice, scorer, "marks"))
    return events, [event for event in events if isinstance(event, PictureDone)]


def test_the_best_stay_with_their_scores_and_are_the_pictures_of_their_seeds(model):
    scorer = Scorer(3.0, 9.0, 1.0, 9.0)
    events, kept = run(model, scorer, Choice(candidates=4, keep=3))
    assert [(one.seed, one.index) for one in kept] == [(41, 0), (43, 1), (40, 2)]
    assert [one.made for one in kept] == [
        {"judge": "marks", "candidates": "4", "score": score} for score in ("9.00", "9.00", "3.00")
    ]
    assert {text for _, text in scorer.seen} == {"a cube"}
    assert model.images(kept[0].request)[0].tobytes() == kept[0].image.tobytes() == scorer.seen[1][0]
    assert [(one.score, one.best) for one in events if isinstance(one, Judged)] == [
        (3, 3),
        (9, 9),
        (1, 9),
        (9, 9),
    ]
    (done,) = (event for event in events if isinstance(event, Done))
    assert done is events[-1] and {"denoise", "decode", "judge"} <= set(done.timings)


def test_it_stops_once_all_that_are_kept_are_good_enough(model):
    scorer = Scorer(8.0, 2.0, 7.0, 9.0, 9.0)
    _, kept = run(model, scorer, Choice(candidates=5, keep=2, until=7.0))
    assert len(scorer.seen) == 3 and [one.seed for one in kept] == [40, 42]
    assert kept[0].made["candidates"] == "3"


def test_drafts_are_drawn_in_few_steps_and_only_the_kept_ones_in_all(model):
    scorer = Scorer(1.0, 5.0, 4.0, 0.5, 6.0)
    events, kept = run(model, scorer, Choice(candidates=3, keep=2, steps=1))
    assert [step.total for step in events if isinstance(step, Step)] == [1, 1, 1, 3, 3, 3, 3, 3, 3]
    # 41 and 42 were the better drafts; drawn in full, the second is scored higher.
    assert [(one.seed, one.made["score"]) for one in kept] == [(42, "6.00"), (41, "0.50")]
    assert all(one.request.steps == 3 for one in kept)
    assert model.images(kept[0].request)[0].tobytes() == kept[0].image.tobytes()


def test_a_judge_that_sees_no_difference_is_told(model):
    events, kept = run(model, Scorer(0.0, 0.0), Choice(candidates=2))
    assert [event.message for event in events if isinstance(event, Note)] == [
        "marks gives all candidates the same score: the first ones are kept"
    ]
    assert kept[0].seed == 40


@pytest.mark.parametrize(
    "numbers", [{"candidates": 0}, {"candidates": 3, "keep": 4}, {"candidates": 3, "keep": 0}]
)
def test_numbers_that_do_not_fit_are_refused(numbers):
    with pytest.raises(RequestError, match="must be from 1 to"):
        Choice(**numbers)


def test_what_the_model_cannot_draw_is_refused_before_it_draws(model):
    with pytest.raises(RequestError, match="leave count out"):
        best_of(model, REQUEST.replace(count=2), Choice(candidates=2), Scorer(), "marks")
    with pytest.raises(RequestError, match="steps"):
        best_of(model, REQUEST, Choice(candidates=2, steps=0), Scorer(), "marks")


def test_pictures_are_scored_by_the_prompts_that_they_carry(tmp_path: Path):
    for name, prompt in (("a", "a cube"), ("sub/b", "a cone")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_picture(
            tmp_path / f"{name}.png", Image.new("RGB", (8, 8)), Record(request=ImageRequest(prompt=prompt))
        )
    Image.new("RGB", (8, 8)).save(tmp_path / "stranger.png")
    sheet = Record(request=ImageRequest(prompt="a cube"), grid=True)
    write_picture(tmp_path / "sheet.png", Image.new("RGB", (16, 8)), sheet)
    found, without = find_pictures(tmp_path)
    assert [path.name for path in without] == ["sheet.png", "stranger.png"]

    def length(pictures, captions):
        return [[float(len(text)) for text in texts] for texts in captions]

    scores = list(score_pictures(found, length))
    assert [(one.path.name, one.prompt, one.score) for one in scores] == [
        ("a.png", "a cube", 6),
        ("b.png", "a cone", 6),
    ]
    assert str(mean_of([5.0, 7.0])) == "6.00 ± 1.96 of 2"
    assert mean_of([6.0]).to_json() == {"mean": 6.0, "low": None, "high": None, "n": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="no PNG file under"):
        find_pictures(tmp_path / "empty")
    with pytest.raises(PictureError, match="there is no folder"):
        find_pictures(tmp_path / "not-there")
