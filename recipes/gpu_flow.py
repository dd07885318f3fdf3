"""Toybox's text encoder and flow transformer on one GPU, from the shipped weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from recipes.gpu_autoencoder import trained_autoencoder
from recipes.gpu_loop import Learner, Pace, recorded, run_for
from recipes.gpu_run import ON_GPU, GpuRun, default_generator, say
from recipes.gpu_scenes import SceneTensors
from recipes.settings import fast_autocast
from recipes.toybox import write_model
from recipes.toybox_alignment import Aligned, alignment_loss
from recipes.toybox_contrast import CONTRAST, TIMES, contrast
from recipes.toybox_flow import CAPTION_DROPOUT, PLACING, SHIFT, Levers
from recipes.toybox_model import DEVICE, UNPLACED, Captions, between, read_captions
from recipes.toybox_second import shipped_autoencoder, shipped_networks
from recipes.toybox_text import extended_text
from sanakit.flow.path import LinearPath
from sanakit.flow.times import ShiftedTimes
from sanakit.layers.block import LinearBlock
from sanakit.training.edits import edit_blocks

BATCH, RATE = 768, 1e-3
EMA = 0.999
WEIGHT_DECAY = 0.01
LEVERS = Levers(alignment=0.1, two=0.2)
SIDES = 64
"""Scenes of a step that are seen under their caption and under the mirrored one (recipes/toybox_contrast.py)."""
HELD_BATCHES = 16


class FlowData:
    """Latents and captions of a run's scenes, drawn on the device.

    run: whose files it reads. empty: the caption of samples without one. latents: of the scenes and the factor that
    scaled them; None for those of the run.
    """

    def __init__(self, run: GpuRun, empty: Captions, latents: tuple[Tensor, float] | None = None) -> None:
        self.run, self.empty = run, empty
        self.scenes: SceneTensors = run.open_scenes()
        self.latents, self.factor = latents or run.open_latents()
        self.two = self.scenes.two[: -run.held].nonzero()[:, 0]
        self.sided = (self.scenes.sided[: -run.held] >= 0).nonzero()[:, 0]

    def draw_rows(self, count: int, two: float = 0.0) -> Tensor:
        """Numbers of scenes to learn from [count]; two: the share of those that show two different shapes."""
        apart = round(count * two) if len(self.two) else 0
        rows = self.run.rows(count - apart, len(self.scenes))
        return torch.cat([drawn_from(self.two, apart), rows]) if apart else rows

    def held_rows(self, count: int) -> Tensor:
        """Numbers of scenes that were held out, [count]."""
        last = len(self.scenes) - 1
        return last - torch.arange(count, device=DEVICE) % self.run.held

    def x0(self, rows: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] float32."""
        return self.latents[rows].float()

    def captions(self, rows: Tensor, dropout: float = 0.0) -> Captions:
        """One caption of each scene, of which a share is left out."""
        variant = torch.randint(self.scenes.ids.shape[1] - 1, (len(rows),), device=DEVICE)
        return dropped(self.scenes.captions(rows, variant, self.empty.words), self.empty, dropout)

    def pairs(self, rows: Tensor) -> Captions:
        """The captions of scenes that name a side, then the same ones mirrored."""
        true, false = self.scenes.sided[rows].long(), torch.full_like(rows, self.scenes.ids.shape[1] - 1)
        return self.scenes.captions(rows.repeat(2), torch.cat([true, false]), self.empty.words)


class FlowLosses:
    """The losses of the networks at times drawn on the device.

    sides: how many scenes are seen under two captions as well.
    """

    def __init__(self, model: Aligned, sides: int = SIDES) -> None:
        self.model, self.sides = model, sides
        self.path, self.times = LinearPath(), ShiftedTimes(SHIFT)

    def __call__(self, data: FlowData, rows: Tensor) -> dict[str, Tensor]:
        """`loss` is the sum of flow, places, sides and alignment by their weights."""
        sides = self.sides if len(data.sided) else 0
        apart, (low, high) = drawn_from(data.sided, sides), TIMES
        x0 = data.x0(torch.cat([rows, apart]))
        t = self.times.sample(len(rows), default_generator())
        t = torch.cat([t, low + (high - low) * torch.rand(sides, device=DEVICE)])
        noise = torch.randn_like(x0)
        point, target = (
            twice(x, sides) for x in (self.path.point(x0, noise, t), self.path.target(x0, noise))
        )
        captions = joined(data.captions(rows, CAPTION_DROPOUT), data.pairs(apart))
        with fast_autocast(DEVICE):
            predicted, misplaced, read = self.model(point, (1000 * twice(t, sides)).floor(), captions)
        errors = (predicted.float() - target).square().flatten(1).mean(1)  # [B + 2S]
        flow, true, false = errors.split([len(rows), sides, sides])
        aligned = alignment_loss({name: x[: len(rows)] for name, x in read.items()}, data.scenes.cells(rows))
        parts = {"flow": flow.mean(), "placing": misplaced, "alignment": aligned}
        total = parts["flow"] + PLACING * misplaced + LEVERS.alignment * aligned
        if sides:
            parts["sides"] = contrast(true, false)
            total = total + CONTRAST * parts["sides"]
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}


def train_flow(run: GpuRun) -> None:
    """Train both networks, and write the whole model to the run's `model`."""
    tokenizer, joint = shipped_networks(extended_text)
    torch.manual_seed(0)  # of the head, and of all that is drawn
    model, batch = Aligned(joint, LEVERS.block).to(DEVICE), run.batch or BATCH
    if ON_GPU:
        edit_blocks(joint.transformer.blocks, DEVICE, every=0, compiled=True)
        for layer in joint.text.layers:
            layer.compile()
    losses = FlowLosses(model)
    # With --wait the step is recorded on empty latents, which the real ones then overwrite.
    later = run.later_latents()
    data = FlowData(run, read_captions(tokenizer, [""]).to(DEVICE), later)
    learner = Learner(model, Pace(lr=run.lr or RATE, ema=EMA, weight_decay=WEIGHT_DECAY))
    compute = recorded(learner.gradients(lambda: losses(data, data.draw_rows(batch, LEVERS.two))))
    if later is not None:
        latents, data.factor = run.open_latents()
        data.latents.copy_(latents)
    say(f"flow: {held_out(losses, data, batch):.4f} on scenes that are held out, before")

    def step(number: int, done: float) -> dict[str, Tensor]:
        return {**compute(), "gradient": learner.step(done)}

    say(f"flow: {run_for(run.seconds, step, say)} steps of {batch}")
    learner.average.copy_to(model)
    write_model(tokenizer, joint.cpu(), trained_autoencoder(run).cpu(), data.factor, run.folder / "model")
    joint.to(DEVICE)
    say(f"flow: {held_out(losses, data, batch):.4f} on scenes that are held out, with the averaged weights")


def ship(run: GpuRun) -> None:
    """Write the run's model to the package; its cross-attentions go `share` of the way from the shipped weights."""
    folder = run.ready("model/model_index.json").parent
    (tokenizer, joint), (_, former) = shipped_networks(folder=folder), shipped_networks()
    for block, before in zip(joint.transformer.blocks, former.transformer.blocks, strict=True):
        between(cast(LinearBlock, block).cross, cast(LinearBlock, before).cross, 1 - run.share)
    write_model(tokenizer, joint.cpu(), *shipped_autoencoder(folder))


@torch.no_grad()
def held_out(losses: Callable[[FlowData, Tensor], dict[str, Tensor]], data: FlowData, batch: int) -> float:
    """The flow's loss on scenes that are held out."""
    found = [losses(data, data.held_rows(batch))["flow"] for _ in range(HELD_BATCHES)]
    return float(torch.stack(found).mean())


def drawn_from(rows: Tensor, count: int) -> Tensor:
    """Some of the numbers [n], drawn: [count]."""
    return rows[torch.randint(max(1, len(rows)), (count,), device=DEVICE)]


def twice(x: Tensor, last: int) -> Tensor:
    """A batch with its last samples once more."""
    return torch.cat([x, x[len(x) - last :]])


def joined(first: Captions, second: Captions) -> Captions:
    """The captions of two batches as those of one."""
    parts = {
        name: torch.cat([getattr(first, name), getattr(second, name)])
        for name in ("ids", "mask", "spot", "place")
    }
    return Captions(**parts, words=first.words)


def dropped(captions: Captions, empty: Captions, share: float) -> Captions:
    """Captions [B, L] of which a share is replaced by the empty one [1, L]."""
    gone = torch.rand(len(captions.ids), device=captions.ids.device) < share
    return Captions(
        ids=torch.where(gone[:, None], empty.ids, captions.ids),
        mask=torch.where(gone[:, None], empty.mask, captions.mask),
        spot=torch.where(gone, 0, captions.spot),
        place=torch.where(gone, UNPLACED, captions.place),
        words=captions.words,
    )
