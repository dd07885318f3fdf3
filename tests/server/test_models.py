"""Networks come into memory when they are needed, and leave it for others, the least recently used first."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanakit.base.errors import ShortageError
from sanakit.pipeline import Model, make_plan
from sanakit.pipeline.components import PartName
from sanakit.server import JobSpec
from sanakit.server.engine.models import MARGIN, Models
from tests.oracles.tiny import Folders, Recipe
from tests.pipeline.drawing import open_model
from tests.server.engines import ask, finished, serving

PARTS: tuple[PartName, ...] = ("text", "transformer", "decoder")


@pytest.fixture
def two(tiny: Folders) -> dict[str, Model]:
    return {
        "one": open_model(tiny(Recipe(sample_size=2))),
        "two": open_model(tiny(Recipe(sprint=True, sample_size=2))),
    }


def loaded(models: dict[str, Model]) -> list[str]:
    return [
        f"{name} {part}" for name, model in models.items() for part in PARTS if model.parts.is_loaded(part)
    ]


def test_the_least_recently_used_part_leaves_and_parts_in_use_stay(two: dict[str, Model]) -> None:
    everything = Models(two, free=lambda device: None)
    for part in PARTS:
        everything.need("one", part)
    room = everything.bytes  # of one whole model, and nothing beside it
    for part in PARTS:
        two["one"].parts.release(part)

    models = Models(two, free=lambda device: int(room / MARGIN) - int(models.bytes / MARGIN))
    for part in PARTS:
        models.need("one", part)
    models.need("one", "text")
    assert loaded(two) == ["one text", "one transformer", "one decoder"] and models.bytes == room
    models.need("two", "decoder", keep={("one", "transformer")})
    assert loaded(two) == ["one text", "one transformer", "two decoder"], "the decoder was used longest ago"
    models.need("two", "transformer", keep={("one", "transformer")})
    assert loaded(two) == ["one transformer", "two transformer", "two decoder"] or loaded(two) == [
        "one transformer",
        "two transformer",
    ]
    assert models.bytes <= room


def test_work_makes_room_as_weights_do(two: dict[str, Model]) -> None:
    models = Models(two, free=lambda device: 10_000_000 - models.bytes)
    models.need("one", "text")
    models.need("one", "transformer")
    models.need("one", "transformer", work=int(MARGIN * 10_000_000) - 1)
    assert loaded(two) == ["one transformer"]
    assert models.fits("two", ("transformer",), 0, keep=())
    assert not models.fits("two", ("transformer",), 20_000_000, keep=())


def test_a_plan_is_checked_against_all_that_could_be_free(two: dict[str, Model]) -> None:
    """What is loaded, and what is alive during a pass, could be given back."""
    large = make_plan(two["one"].spec, ask(width=512, height=512))
    everything = Models(two, free=lambda device: None)
    everything.check("one", large)
    needed = max(everything.work("one", large, part) for part in PARTS)
    models = Models(two, free=lambda device: needed // 10)
    with pytest.raises(ShortageError, match="another model"):
        models.check("one", large)
    with models.working(2 * needed):
        models.check("one", large)
    with pytest.raises(ShortageError):
        models.check("one", large)


def test_models_that_do_not_fit_together_take_turns(
    tiny: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of both are drawn all the same, each model's together, and nobody waits for ever."""
    monkeypatch.setattr(Models, "fits", lambda *given: False)
    names = [str(tiny(Recipe(sample_size=2))), str(tiny(Recipe(sprint=True, sample_size=2)))]
    with serving(tmp_path, *names, start=False) as engine:
        jobs = [
            engine.submit(JobSpec(model=names[number % 2], request=ask(seed=number))) for number in range(6)
        ]
        engine.start()
        found = [finished(engine, job) for job in jobs]
        assert [job.state for job in found] == ["done"] * 6, [job.error for job in found]
        assert engine.stats.rows > engine.stats.forwards
