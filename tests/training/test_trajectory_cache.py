"""Stored trajectories: they are the teacher's, followed once, shared by runs, and drawn by the samples' seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from sanakit.base import ConfigError
from sanakit.base.text_states import TextStates
from sanakit.data.cache import TensorCache
from sanakit.flow.path import broadcast_time, linear_scale, time_from_angle
from sanakit.training import Event, Message, Progress, read_journal
from sanakit.training.session import Session
from sanakit.training.tasks.sprint import SprintTask
from sanakit.training.tasks.trajectory_cache import StoredTrajectories
from tests.oracles.bounds import within
from tests.training.pair import Pair, losses_of
from tests.training.sets import config, pictures, values
from tests.training.test_session import run


def settings(teacher: Path, cache: Path, stored: int = 20, **changes: Any) -> dict[str, Any]:
    """A run on stored trajectories alone. **changes: of `sprint.trajectory`."""
    path = {"weight": 1.0, "steps": 3, "points": 2, "stored": stored} | changes
    data = {"path": str(pictures()), "cache": str(cache), "square": True, "held": 4}
    sprint = {"consistency": 0, "adversarial": 0, "trajectory": path}
    return {"task": "sprint", "base": str(teacher), "model": {}, "sprint": sprint, "data": data}


def task_of(folder: Path, changes: dict[str, Any]) -> SprintTask:
    task = Session(config(folder, **changes), device="cpu").task
    assert isinstance(task, SprintTask)
    return task


def test_a_trajectory_of_one_step_ends_where_the_guided_teacher_points(teacher: Path, tmp_path: Path) -> None:
    changes = settings(teacher, tmp_path / "cache", stored=11, steps=1, points=1)
    changes["data"]["captions"] = {"dropout": 0.3}  # some captions are empty
    task = task_of(tmp_path, changes)
    list(task.prepare())
    (stored,) = task.trajectories.stored(task.data.cached_states)
    path, frozen = stored.draw(0, range(60)), task._teacher()
    ((x,), (angle,)) = path.points, path.angles
    s = time_from_angle(angle)
    x = x * broadcast_time(linear_scale(s), x)
    ends = x - broadcast_time(s, x) * frozen.guided(x, s, path.text, path.guidance)
    within("stored trajectory, end", path.end, ends, 4e-3)  # float16
    # A batch of 4 is followed at once and shares its level; 11 numbers have three of those.
    assert set(path.guidance.tolist()) <= {4.0, 4.5, 5.0} and len(set(s.tolist())) == 3
    assert len({tuple(end.flatten()[:4].tolist()) for end in path.end}) == 11


def test_what_was_followed_is_kept_and_shared_by_runs(teacher: Path, tmp_path: Path) -> None:
    changes = settings(teacher, tmp_path / "cache")
    task = task_of(tmp_path / "run", changes)
    assert task.workload().follows == 20 and task.workload().followed == 0
    made = task.prepare()
    with closing(made):  # as a command that is stopped
        next(event for event in made if _following(event) and event.done == 8)
    assert len(task.trajectories.missing()) == 12
    again = list(task.prepare())
    assert [event.done for event in again if _following(event)] == [4, 8, 12]
    assert any("followed 12 trajectories" in event.text for event in again if isinstance(event, Message))
    work = task.workload()
    assert (work.followed, work.cache_bytes, work.cache_operations) == (20, 0, 0)
    other = changes | {"seed": 5, "batch": 4, "optimizer": {"lr": "1e-4"}}
    assert task_of(tmp_path / "other", other).trajectories.missing() == []
    for apart in (
        settings(teacher, tmp_path / "cache", steps=4),
        settings(teacher, tmp_path / "cache", noise=0.9),
        changes | {"dtype": "bf16"},
        changes | {"sprint": changes["sprint"] | {"guidance": [3.0], "guidance_input": False}},
    ):
        assert len(task_of(tmp_path / "apart", apart).trajectories.missing()) == 20


def _following(event: Event) -> bool:
    return isinstance(event, Progress) and event.label == "following trajectories"


def test_the_plan_says_what_is_followed_first(teacher: Path, tmp_path: Path) -> None:
    plan = Session(config(tmp_path, **settings(teacher, tmp_path / "cache")), device="cpu").plan
    told = " ".join("\n".join(plan.lines()).split())
    assert "0 of 12 latents are there, 0 of 20 trajectories; the others are made first" in told
    assert "at 2 points of each, of which 20 are stored" in told
    anew = Session(config(tmp_path, **settings(teacher, tmp_path / "cache", stored=0)), device="cpu").plan
    assert anew.work.operations > plan.work.operations
    assert anew.work.cache_operations < plan.work.cache_operations


def test_the_critic_takes_no_trajectories(teacher: Path, tmp_path: Path) -> None:
    changes = settings(teacher, tmp_path / "cache")
    changes["sprint"]["adversarial"] = 0.5
    task = task_of(tmp_path, changes)
    list(task.prepare())
    draw = task.drawing(task.objective())
    assert [draw(step).path is None for step in range(4)] == [False, True, False, True]


def test_two_processes_follow_and_train_as_one_does(teacher: Path, tmp_path: Path, pair: Pair) -> None:
    # A large epsilon: Adam would make steps of gradients that are rounding alone.
    adam = {"optimizer": {"lr": "1e-3", "eps": [1e-3]}}
    run(tmp_path / "one", **settings(teacher, tmp_path / "cache-1"), **adam)
    both = settings(teacher, tmp_path / "cache-2") | adam
    seen, _ = pair(losses_of, values(tmp_path / "two", **both, parallel="fsdp"))
    wanted = [entry["loss"] for _, entry in sorted(read_journal(tmp_path / "one").items())]
    assert seen == pytest.approx(wanted, abs=1e-4)


def read(captions: Sequence[str]) -> TextStates:
    return TextStates(torch.zeros(len(captions), 1, 2), torch.ones(len(captions), 1, dtype=torch.bool))


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Callable[[int], StoredTrajectories]]:
    """(points of each) -> eight trajectories: four of one size with 4 points, four of another with 2."""
    cache = TensorCache(tmp_path)
    for number in range(8):
        count, size = (4, (1, 2, 2)) if number < 4 else (2, (1, 3, 1))
        steps = torch.arange(count).float()
        cache.put(
            f"key{number}",
            {
                "points": (number + steps / 10).view(-1, 1, 1, 1).expand(count, *size).half(),
                "angles": 1.5 - steps / 10, "end": torch.full(size, float(number)).half(),
                "guidance": torch.tensor(4.5), "caption": torch.tensor(list(f"é {number}".encode()), dtype=torch.uint8),
            },
        )  # fmt: skip
    cache.flush()
    keys = [f"key{number}" for number in range(8)]
    yield lambda points: StoredTrajectories(TensorCache(tmp_path, read_only=True), keys, 4, points, read)


def test_a_batch_is_of_one_size_and_has_the_first_point_of_each(
    mixed: Callable[[int], StoredTrajectories],
) -> None:
    stored, captions = mixed(3), []
    stored.read = lambda given: captions.append(given) or read(given)  # type: ignore[func-returns-value]
    sizes = set()
    for step in range(12):
        path = stored.draw(step, range(10 * step, 10 * step + 6))
        sizes.add(path.end.shape)
        numbers = path.end.flatten(1)[:, 0]
        assert captions[-1] == [f"é {int(number)}" for number in numbers]
        firsts, *others = [point.flatten(1)[:, 0] for point in path.points]
        within("stored trajectory, first point", firsts, numbers, 1e-3)
        assert torch.equal(path.angles[0], torch.full((6,), 1.5)) and len(others) == len(path.angles) - 1 == 2
        for x, angle in zip([firsts, *others], path.angles, strict=True):
            assert torch.allclose(x - numbers, 1.5 - angle, atol=4e-3)  # float16
        for row, number in enumerate(numbers.tolist()):
            different = {float(angle[row]) for angle in path.angles}
            assert len(different) == (3 if number < 4 else 2)  # a short one repeats its first point
    assert sizes == {torch.Size((6, 1, 2, 2)), torch.Size((6, 1, 3, 1))}


def test_a_sample_s_draw_is_its_seed_s(mixed: Callable[[int], StoredTrajectories]) -> None:
    stored = mixed(2)
    together, alone = stored.draw(7, range(6)), stored.draw(7, [4])
    assert torch.equal(together.end[4], alone.end[0])
    assert torch.equal(together.points[1][4], alone.points[1][0])
    assert len({float(end.flatten()[0]) for end in together.end}) > 1


def test_a_lost_trajectory_is_told(mixed: Callable[[int], StoredTrajectories], tmp_path: Path) -> None:
    stored = mixed(2)
    stored.alike = {size: [f"gone-{key}" for key in keys] for size, keys in stored.alike.items()}
    with pytest.raises(ConfigError, match=r"lost a trajectory .* resume it"):
        stored.draw(0, [1])
