"""Players: each is moved by its own loss alone; they may take turns; a resumed game equals the uninterrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanakit.base.errors import ConfigError
from sanakit.training import OptimizerConfig, StepReport, Trainer, make_player
from sanakit.training.objectives.objective import choose_objective
from sanakit.training.session import Session
from tests.training.sets import config
from tests.training.small import DATA, small_config


class Game(nn.Module):
    """A generator of points and a critic of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.generator = nn.Linear(3, 3)
        self.critic = nn.Linear(3, 1)


class InTurn:
    """An objective whose players move in turn, as in adversarial distillation; the critic from step `start` on."""

    def __init__(self, start: int = 0) -> None:
        self.network, self.start = Game(), start
        self.moved: list[str] = []

    def losses(self, batch: tuple[int, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        step, x = batch
        noise = torch.randn(x.shape, generator=generator)
        made = self.network.generator(noise)
        if step >= self.start and step % 2:
            self.moved.append("critic")
            score = self.network.critic(x).mean() - self.network.critic(made.detach()).mean()
            return {
                "critic_loss": -score + self.network.critic.weight.square().sum(),
                "score": score.detach(),
            }
        self.moved.append("generator")
        return {"loss": (made - x).square().mean()}


def begun(folder: Path, objective: InTurn, steps: int) -> Trainer:
    settings = small_config(folder, steps, report=1, save_steps=3, keep=0)
    network = objective.network
    players = (
        make_player(network.generator, settings, name="generator"),
        make_player(
            network.critic, settings, name="critic", loss="critic_loss", average=False,
            optimizer=OptimizerConfig(name="came", lr=1e-2),
        ),
    )  # fmt: skip
    return Trainer(network, settings, players)


def played(trainer: Trainer, objective: InTurn, until: int | None = None) -> list[StepReport]:
    def losses(batch: Any, generator: torch.Generator) -> dict[str, Tensor]:
        if batch[0] == until:
            raise ConnectionAbortedError
        return objective.losses(batch, generator)

    events = []
    try:
        for event in trainer.train(losses, lambda number: (number, DATA[number % 4 : number % 4 + 4])):
            events.append(event)
    except ConnectionAbortedError:
        trainer.checkpoints.finish()
    return [event for event in events if isinstance(event, StepReport)]


def changed(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_player_whose_loss_is_missing_waits(tmp_path: Path) -> None:
    objective = InTurn()
    game = objective.network
    trainer = begun(tmp_path, objective, 1)
    before = [p.detach().clone() for p in game.parameters()]
    reports = played(trainer, objective)
    after = list(game.parameters())
    assert changed(before[:2], after[:2]) and not changed(before[2:], after[2:])
    assert list(reports[0].losses) == ["loss"]
    assert set(trainer.averages) == {"generator"} and trainer.ema is trainer.averages["generator"]


@pytest.mark.parametrize("start", [0, 5])
def test_a_resumed_game_equals_the_uninterrupted_one(tmp_path: Path, start: int) -> None:
    """Also if the critic had not moved when the checkpoint was written."""
    whole = InTurn(start)
    reports = played(begun(tmp_path / "whole", whole, 9), whole)
    assert whole.moved.count("critic") == (4 if start == 0 else 2)
    assert [name for name in reports[5].losses] == ["critic_loss", "score", "loss"]
    assert reports[5].losses["loss"] == reports[5].losses["critic_loss"]
    first = InTurn(start)
    played(begun(tmp_path / "parts", first, 9), first, until=4)
    second = InTurn(start)
    trainer = begun(tmp_path / "parts", second, 9)
    assert trainer.step == 3
    played(trainer, second)
    assert not changed(list(whole.network.parameters()), list(second.network.parameters()))


def test_an_objective_is_named_or_refused(tmp_path: Path) -> None:
    assert choose_objective(("a", "b"), None) == "a"
    with pytest.raises(
        ConfigError, match="objective: 'sprint' is not one of this task's; it has flow_matching"
    ):
        Session(config(tmp_path, objective="sprint"), device="cpu")
    usual, named = config(tmp_path), config(tmp_path, objective="flow_matching")
    assert "objective" not in usual.identity and named.identity["objective"] == "flow_matching"
    assert "critic" not in usual.identity["autoencoder"]
