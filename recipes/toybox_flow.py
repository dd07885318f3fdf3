"""One training step of Toybox's text encoder and flow transformer: its batch, its losses, and what can be switched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerBase

from recipes.toybox_alignment import Aligned, Cells, alignment_loss, cells_of
from recipes.toybox_contrast import CONTRAST, EVERY, PAIRS, TransformerBatch, mirrored, side_contrast
from recipes.toybox_model import TextToVelocity, draw_lines, read_captions, shows_two
from recipes.toybox_shards import SceneShards, keep
from sanakit.base.errors import InputError
from sanakit.base.seeds import batch_indices
from sanakit.flow.path import LinearPath
from sanakit.flow.times import ShiftedTimes
from sanakit.training import velocity
from sanakit.training.optim import OptimizerName

SHIFT = 2.0
CAPTION_DROPOUT = 0.1
PLACING = 0.1
EDGES = 0.4
"""Below this noise level what remains to be decided is where things end, not what they are."""


@dataclass(frozen=True, kw_only=True)
class Levers:
    """What a run does beside the flow's loss on scenes and times as they come; the defaults are the first run's.

    Attributes:
        alignment: weight of the alignment head's loss; 0 trains without one.
        block: number of the block whose tokens the head reads.
        two: share of each batch that is drawn from scenes with two different shapes alone.
        uneven: share of the captions of such scenes that say all of one thing and only the shape of the other.
        edges: share of the times that are drawn evenly from 0 to `EDGES`.
        objects: how much more the flow's loss weighs in cells that show an object; 0 for as much as elsewhere.
        optimizer: of the run.
    """

    alignment: float = 0.0
    block: int = 4
    two: float = 0.0
    uneven: float = 0.0
    edges: float = 0.0
    objects: float = 0.0
    optimizer: OptimizerName = "adamw"


@dataclass(frozen=True)
class LatentScenes:
    """Scenes with the latents of their pictures [n, C, h, w] bf16, the factor that scales them, and what cells show."""

    shards: SceneShards
    latents: Tensor
    factor: float
    cells: Cells | None = None

    @property
    def two(self) -> list[int]:
        """The scenes with two objects of different shapes."""
        return [row for row in range(len(self.latents)) if shows_two(self.shards.scene(row))]

    def x0(self, rows: Sequence[int]) -> Tensor:
        """Scaled latents [B, C, h, w] float32."""
        return self.latents[list(rows)].float() * self.factor


def open_scenes(folder: Path, latents: Path, cells: Path | None = None) -> LatentScenes:
    """The scenes of a folder with their latents. cells: file of what their cells show, made if it is not there.

    Raises InputError if the latents are not there.
    """
    if not latents.exists():
        raise InputError(f"{latents} is not there; run `python -m recipes.toybox latents` first")
    stored, shards = torch.load(latents, weights_only=True), SceneShards(folder)
    found = LatentScenes(shards, stored["latents"], stored["scaling_factor"])
    return found if cells is None else replace(found, cells=_stored_cells(found, cells))


def _stored_cells(scenes: LatentScenes, path: Path) -> Cells:
    """The cells in a file; those of all scenes are written there if it has none, or those of fewer scenes."""
    stored = torch.load(path, weights_only=True) if path.exists() else None
    if stored is None or len(stored["things"]) != len(scenes.latents):
        made = cells_of([scenes.shards.scene(row) for row in range(len(scenes.latents))])
        stored = {"things": made.things, "places": made.places}
        keep(path, stored)
    return Cells(stored["things"], stored["places"])


@dataclass(frozen=True)
class FlowBatch(TransformerBatch):
    """A batch with what the cells of its scenes show; None where no lever asks."""

    cells: Cells | None


class FlowTraining:
    """Batches and losses of a run, from the number of a step alone.

    Args:
        joint: both networks, on their device.
        scenes: to train on.
        tokenizer: of the captions.
        levers: what is switched on.
        batch: scenes of a step.
        compiled: whether the networks go through torch.compile.
    """

    def __init__(
        self,
        joint: TextToVelocity,
        scenes: LatentScenes,
        tokenizer: PreTrainedTokenizerBase,
        levers: Levers = Levers(),  # noqa: B008 -- a frozen value
        batch: int = 64,
        compiled: bool = True,
    ) -> None:
        self.scenes, self.tokenizer, self.levers, self.batch = scenes, tokenizer, levers, batch
        self.joint, self.device = joint, next(joint.parameters()).device
        self.model: nn.Module = joint
        if levers.alignment:
            self.model = Aligned(joint, levers.block).to(self.device)
        # The contrast has few rows: compiled once more for them, not for every number of rows.
        self.forward = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.path, self.times = LinearPath(), ShiftedTimes(SHIFT)
        self.two = scenes.two if levers.two else []

    def batches(self, step: int) -> FlowBatch:
        """The scenes of a step with captions drawn for it; in every few steps some with mirrored captions, too."""
        rows = self.rows(step)
        lines = draw_lines(self.scenes.shards, rows, step, CAPTION_DROPOUT, self.levers.uneven)
        sided = [row for row, line in enumerate(lines) if mirrored(line) != line][:PAIRS]
        pairs = None
        if step % EVERY == 0 and len(sided) == PAIRS:
            captions = [lines[row] for row in sided]
            pairs = read_captions(self.tokenizer, captions + [mirrored(line) for line in captions]).to(
                self.device
            )
        x0 = self.scenes.x0(rows).to(self.device)
        cells = None
        if (self.levers.alignment or self.levers.objects) and self.scenes.cells is not None:
            cells = self.scenes.cells[rows].to(self.device)
        return FlowBatch(x0, read_captions(self.tokenizer, lines).to(self.device), x0[sided], pairs, cells)

    def rows(self, step: int) -> list[int]:
        """The numbers of a step's scenes: those with two shapes first, then any."""
        apart = round(self.batch * self.levers.two)
        chosen = [self.two[n] for n in batch_indices(step, apart, len(self.two), seed=3)] if apart else []
        return chosen + batch_indices(step, self.batch - apart, len(self.scenes.latents), seed=0)

    def losses(self, batch: FlowBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss` is the sum of flow, places, sides and alignment by their weights."""
        t = self.draw_times(len(batch.x0), generator).to(self.device)
        noise = torch.randn(batch.x0.shape, generator=generator).to(self.device)
        # Torch's flash attention takes a third of the step in its backward pass on a CPU; plain products a tenth.
        with sdpa_kernel(SDPBackend.MATH):
            point = self.path.point(batch.x0, noise, t)
            predicted, misplaced, *read = self.forward(point, (1000 * t).floor(), batch.captions)
            sides = side_contrast(self._plain, self.path, batch, generator)
        flow = self.flow_loss(predicted, self.path.target(batch.x0, noise, t), batch.cells)
        parts = {"flow": flow, "placing": misplaced, "sides": sides}
        total = flow + PLACING * misplaced + CONTRAST * sides
        if self.levers.alignment and batch.cells is not None:
            parts["alignment"] = alignment_loss(read[0], batch.cells)
            total = total + self.levers.alignment * parts["alignment"]
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    def flow_loss(self, predicted: Tensor, target: Tensor, cells: Cells | None) -> Tensor:
        """The mean squared error of velocities [B, C, 8, 8]; cells that show an object may weigh more."""
        if not self.levers.objects or cells is None:
            return velocity(predicted, target)["loss"]
        weights = 1 + self.levers.objects * cells.shown  # [B, 1, 8, 8]
        return ((predicted.float() - target).square() * weights).mean() / weights.mean()

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Times [count]: a share of them, of any rows, evenly below `EDGES`, the others by the shifted density."""
        t = self.times.sample(count, generator)
        low = round(count * self.levers.edges)
        if low:
            chosen = torch.randperm(count, generator=generator)[:low]
            t[chosen] = EDGES * torch.rand(low, generator=generator)
        return t

    def _plain(self, *inputs: object) -> tuple[Tensor, Tensor]:
        """Velocity and the loss of places, whether a head is trained or not."""
        velocity, misplaced, *_ = self.forward(*inputs)
        return velocity, misplaced
