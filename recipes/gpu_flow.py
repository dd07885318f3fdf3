"""Toybox's text encoder and flow transformer on one GPU, from the shipped weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recipes.gpu_autoencoder import trained_autoencoder
from recipes.gpu_loop import Learner, Pace, run_for
from recipes.gpu_run import GpuRun, say
from recipes.gpu_scenes import SceneTensors
from recipes.settings import autocast
from recipes.toybox import write_model
from recipes.toybox_alignment import Aligned, alignment_loss
from recipes.toybox_flow import CAPTION_DROPOUT, PLACING, SHIFT, Levers
from recipes.toybox_model import DEVICE, UNPLACED, Captions, read_captions
from recipes.toybox_second import shipped_networks
from recipes.toybox_text import extended_text
from sanakit.flow.path import LinearPath
from sanakit.flow.times import ShiftedTimes

BATCH, RATE = 768, 1e-3
EMA = 0.9993
WEIGHT_DECAY = 0.01
LEVERS = Levers(alignment=0.1, two=0.3)
HELD_BATCHES = 16


class FlowData:
    """Latents and captions of a run's scenes, drawn on the device.

    run: whose files it reads. empty: the caption of samples without one.
    """

    def __init__(self, run: GpuRun, empty: Captions) -> None:
        self.run, self.empty = run, empty
        self.scenes: SceneTensors = run.open_scenes()
        self.latents, self.factor = run.open_latents()
        self.two = self.scenes.two[: -run.held].nonzero()[:, 0]

    def draw_rows(self, count: int, two: float = 0.0) -> Tensor:
        """Numbers of scenes to learn from [count]; two: the share of those that show two different shapes."""
        apart = round(count * two) if len(self.two) else 0
        rows = self.run.rows(count - apart, len(self.scenes))
        return (
            torch.cat([self.two[torch.randint(len(self.two), (apart,), device=DEVICE)], rows])
            if apart
            else rows
        )

    def held_rows(self, count: int) -> Tensor:
        """Numbers of scenes that were held out, [count]."""
        last = len(self.scenes) - 1
        return last - torch.arange(count, device=DEVICE) % self.run.held

    def x0(self, rows: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] float32."""
        return self.latents[rows].float()

    def captions(self, rows: Tensor, dropout: float = 0.0) -> Captions:
        """One caption of each scene, of which a share is left out."""
        variant = torch.randint(self.scenes.ids.shape[1], (len(rows),), device=DEVICE)
        return dropped(self.scenes.captions(rows, variant, self.empty.words), self.empty, dropout)


class FlowLosses:
    """The losses of the networks at times drawn on the device."""

    def __init__(self, model: Aligned) -> None:
        self.model = model
        self.path, self.times = LinearPath(), ShiftedTimes(SHIFT)
        self.generator = torch.Generator(DEVICE).manual_seed(0)

    def __call__(self, data: FlowData, rows: Tensor) -> dict[str, Tensor]:
        """`loss` is the sum of flow, places and alignment by their weights."""
        x0, captions = data.x0(rows), data.captions(rows, CAPTION_DROPOUT)
        t = self.times.sample(len(x0), self.generator)
        noise = torch.randn(x0.shape, generator=self.generator, device=DEVICE)
        with autocast(DEVICE):
            predicted, misplaced, read = self.model(
                self.path.point(x0, noise, t), (1000 * t).floor(), captions
            )
        flow = (predicted.float() - self.path.target(x0, noise, t)).square().mean()
        aligned = alignment_loss(read, data.scenes.cells(rows))
        parts = {"flow": flow, "placing": misplaced, "alignment": aligned}
        total = flow + PLACING * misplaced + LEVERS.alignment * aligned
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}


def train_flow(run: GpuRun) -> None:
    """Train both networks, and write the whole model to the run's `model`."""
    tokenizer, joint = shipped_networks(extended_text)
    torch.manual_seed(0)  # of the head
    model, batch = Aligned(joint, LEVERS.block).to(DEVICE), run.batch or BATCH
    losses = FlowLosses(model)
    data = FlowData(run, read_captions(tokenizer, [""]).to(DEVICE))
    pace = Pace(lr=run.lr or RATE, ema=EMA, weight_decay=WEIGHT_DECAY)
    learner = Learner(model, pace)
    say(f"flow: {held_out(losses, data, batch):.4f} on scenes that are held out, before")

    def step(number: int, done: float) -> dict[str, Tensor]:
        found = losses(data, data.draw_rows(batch, LEVERS.two))
        return {**found, "gradient": learner.step(found["loss"], done)}

    say(f"flow: {run_for(run.seconds, step, say)} steps of {batch}")
    learner.average.copy_to(model)
    say(f"flow: {held_out(losses, data, batch):.4f} on scenes that are held out, with the averaged weights")
    write_model(tokenizer, joint.cpu(), trained_autoencoder(run).cpu(), data.factor, run.folder / "model")


@torch.no_grad()
def held_out(losses: Callable[[FlowData, Tensor], dict[str, Tensor]], data: FlowData, batch: int) -> float:
    """The flow's loss on scenes that are held out."""
    found = [losses(data, data.held_rows(batch))["flow"] for _ in range(HELD_BATCHES)]
    return float(torch.stack(found).mean())


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
