"""A Toybox for small devices: `python -m recipes.edge [--depth 3] [--steps 4000] [--sprint-steps 4000]`.

A transformer with three of the shipped one's ten blocks, a third of its parameters. It begins with those blocks that
end each third, learns the shipped one's velocities and the tokens after each third, and is then distilled into a model
of few steps. Runs lie in runs/edge; they go on where they are. At the end a table: score, size, time of a picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from recipes.few_steps import CACHE, PICTURES, SIZE, kept_measures, ready_pictures, sprint_config
from recipes.settings import resumable, run_flow
from recipes.toybox_sprint import train
from recipes.toybox_steps import told
from sanakit.adapt.depth import plan_pruning, reshape_network
from sanakit.base.precision import decide
from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.pipeline import Model, load
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    OptimizerConfig,
    Player,
    RunPhase,
    SavingConfig,
    TrainConfig,
)
from sanakit.training.objectives.flow_matching import FlowMatching, phase_config
from sanakit.training.objectives.velocity import velocity
from sanakit.training.tasks.latents import LatentBatch, NoisyBatch
from sanakit.transformer import SanaTransformer
from sanakit.weights import load_transformer, read_model_spec, resolve

RUNS = Path("runs/edge")
DEPTH = 3
BATCH = 32
FEATURES = 0.5
"""Weight of the tokens' error, which is a share of their variance, beside the velocity's."""
DRAWN = {"toybox": (20,), "flow": (20,), "sprint": (1, 2, 4)}


class FeatureDistillation:
    """The squared error of a frozen teacher's velocity, and of its tokens after some blocks; see `Objective`.

    flow: of the student; draws times and noise. blocks: of the teacher, one for each of the student's.
    """

    def __init__(self, flow: FlowMatching, teacher: SanaTransformer, blocks: Sequence[int]) -> None:
        self.flow, self.blocks = flow, tuple(blocks)
        self.network: nn.Module = flow.network
        self.teacher = teacher.eval().requires_grad_(False)

    def players(self) -> tuple[Player, ...]:
        """The student."""
        return self.flow.players()

    def draw(self, batch: LatentBatch) -> NoisyBatch:
        """Times and noise as for a flow."""
        return self.flow.draw(batch)

    def losses(self, batch: NoisyBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`loss` is the sum of `velocity` and of `features` by its weight."""
        student = self.flow.transformer
        batch = batch.to(next(student.parameters()).device)
        mine, tokens = answers(student, range(student.config.depth), batch, self.flow)
        with torch.no_grad():
            theirs, wanted = answers(self.teacher, self.blocks, batch, self.flow)
        error = velocity(mine, theirs)["loss"]
        apart = torch.stack([feature_error(*pair) for pair in zip(tokens, wanted, strict=True)]).mean()
        return {"loss": error + FEATURES * apart, "velocity": error.detach(), "features": apart.detach()}


def answers(
    model: SanaTransformer, blocks: Sequence[int], batch: NoisyBatch, flow: FlowMatching
) -> tuple[Tensor, list[Tensor]]:
    """The velocity [B, C, h, w] at a batch's noisy points, and the tokens [B, N, D] after blocks, up to the last."""
    point, time = flow.path.point(batch.x0, batch.noise, batch.t), (1000 * batch.t).floor()
    positions = phase_config(model.config, flow.config.phases[batch.phase], flow.ratio).positions
    assert isinstance(batch.text, TextStates)  # the text encoder is frozen
    tokens = model.features(point, time, batch.text, blocks, positions)
    out = model.head(tokens[-1], model.embed_time(time, None))
    return model.unpatch(out, Grid.of(point, model.config.patch_size)), tokens


def feature_error(tokens: Tensor, wanted: Tensor) -> Tensor:
    """The mean squared error of tokens as a share of the variance of what is wanted."""
    wanted = wanted.float()
    return (tokens.float() - wanted).square().mean() / wanted.var().clamp(min=1e-6)


def ends(depth: int, parts: int) -> list[int]:
    """The numbers of the blocks that end each of so many equal parts of a network."""
    return [round((part + 1) * depth / parts) - 1 for part in range(parts)]


def shallow(teacher: SanaTransformer, blocks: Sequence[int]) -> SanaTransformer:
    """A network with these blocks of the teacher, and everything else of it."""
    return reshape_network(teacher, plan_pruning(teacher.config.depth, blocks))


def flow_config(
    steps: int, folder: Path = RUNS, pictures: Path = PICTURES, cache: Path = CACHE, size: int = SIZE
) -> TrainConfig:
    """The run that teaches the shallow network the teacher's flow."""
    return TrainConfig(
        folder=folder / "flow", batch=BATCH, phases=(RunPhase(steps=steps, size=size),),
        data=DataConfig(path=pictures, cache=cache, square=True), optimizer=OptimizerConfig(lr=5e-4, betas=(0.9, 0.99)),
        schedule=LRScheduleConfig(warmup=min(100, steps), cooldown=0.3), clip=1.0, ema=0.998,
        saving=SavingConfig(minutes=5, keep=1),
    )  # fmt: skip


def distil_flow(config: TrainConfig, depth: int = DEPTH) -> Path:
    """Train the shallow network, unless it is there; return the folder of its model."""
    blocks = ends(read_model_spec(resolve(config.base_model)).transformer.depth, depth)
    return distil(config, blocks, blocks)


def distil(config: TrainConfig, blocks: Sequence[int], targets: Sequence[int]) -> Path:
    """Train a network of some blocks of the base model, unless its model is there; return the folder of that.

    targets: the base model's blocks whose tokens each of its blocks should give.
    """
    precision, spec = decide(dtype=config.dtype), read_model_spec(resolve(config.base_model))
    teacher = SanaTransformer(spec.transformer)
    load_transformer(teacher, spec.transformer, spec.transformer_source, dtype=torch.float32)
    student = shallow(teacher, blocks).to(precision.device)
    teacher = teacher.to(precision.device)
    return run_flow(
        config, student, precision,
        lambda task: FeatureDistillation(
            FlowMatching(config, student, task.ratio, task.spec.schedule.shift), teacher, targets
        ),
    )  # fmt: skip


def table(models: Sequence[tuple[str, Model]], prompts: int, folder: Path) -> str:
    """Markdown: a row for each model and number of steps that it is for."""
    rows = [
        "| model | parameters, M | weights, MB | steps | right | score | Frechet distance | denoising, ms |"
    ]
    rows.append("|---" * 8 + "|")
    for name, model in models:
        with torch.device("meta"):
            count = sum(p.numel() for p in SanaTransformer(model.spec.transformer).parameters())
        for steps in DRAWN[name]:
            cell = kept_measures(folder / f"{name}-{steps}-{prompts}.json", model, steps, prompts)
            rows.append(f"| {name} | {count / 1e6:.1f} | {2 * count / 1e6:.1f} | {steps} | {told(cell)} |")
    return "\n".join(rows)


@resumable
def main() -> None:
    """Train what is missing, measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=DEPTH, help="blocks of the network")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--sprint-steps", type=int, default=4000)
    parser.add_argument("--prompts", type=int, default=150)
    given = parser.parse_args()
    ready_pictures()
    folder = RUNS if given.depth == DEPTH else RUNS / f"{given.depth}-blocks"
    flow = distil_flow(flow_config(given.steps, folder), given.depth)
    sprint = sprint_config(folder / "sprint", given.sprint_steps, base=str(flow))
    train(sprint)
    models = [("toybox", load("toybox")), ("flow", load(flow)), ("sprint", load(sprint.folder / "model"))]
    print(table(models, given.prompts, folder))


if __name__ == "__main__":
    main()
