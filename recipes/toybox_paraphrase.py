"""The shipped text encoder learns to read other words as it reads plain ones: distilled from itself.

    python -m recipes.toybox paraphrase               as many steps as `PARAPHRASE` says
    python -m recipes.toybox_paraphrase --steps 300   another number

A caption in other words asks for the same picture as its plain form, so at the same noisy latent it must give the same
velocity. The plain form is read by the shipped text encoder, which stays as it is; the trained one begins as a copy of
it. The transformer stays, too: what it draws for plain captions can change by no more than the reading of those, which
is held by plain captions and empty ones among the others. No picture's own noise is in the target, as it is in that of
the flow, so some hundred steps teach what would take thousands.
"""

from __future__ import annotations

import argparse
import random
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Gemma2Model, PreTrainedTokenizerBase

from recipes.settings import recipe_trainer, resumable, run_training, settings, shortened
from recipes.toybox_flow import SHIFT, LatentScenes, open_scenes
from recipes.toybox_model import Captions, TextToVelocity, read_captions
from recipes.toybox_second import LATENTS, shipped_networks
from recipes.toybox_shards import RUNS, SIZE
from recipes.toybox_text import extended_text
from sanakit.base.seeds import batch_indices
from sanakit.flow.path import LinearPath
from sanakit.flow.times import ShiftedTimes
from sanakit.toybox.captions import BESIDE, partial_spec, phrase
from sanakit.toybox.grammar import NEXT_TO, Scene
from sanakit.toybox.trials import phrasings
from sanakit.toybox.wording import trained_wording

BATCH = 32
PARAPHRASE = settings(
    RUNS / "paraphrase", 400, size=SIZE, batch=BATCH, lr=3e-4, warmup=30, cooldown=0.25, ema=0.99, minutes=3, report=20
)  # fmt: skip
EMPTY, SAME = 0.05, 0.2
"""Shares of the captions that are empty, and that are plain on both sides."""
ASIDE = 0.2
"""Of "left of" and "right of", how many are said as "next to"."""


@dataclass(frozen=True)
class Pair:
    """Latents [B, C, h, w] with a caption for each, as it is written and as it is meant."""

    x0: Tensor
    written: Captions
    meant: Captions


def caption_pair(scene: Scene, draw: random.Random) -> tuple[str, str]:
    """A caption of the scene, and the plain one that means the same."""
    chance = draw.random()
    if chance < EMPTY:
        return "", ""
    spec = partial_spec(scene, draw)
    meant = phrase(spec)
    if chance < EMPTY + SAME:
        return meant, meant
    if spec.relation in BESIDE and draw.random() < ASIDE:
        spec = replace(spec, relation=NEXT_TO)
    return trained_wording(spec, draw), meant


class ParaphraseTraining:
    """Batches and losses of the run. `model` is the text encoder that is trained; all else is frozen."""

    def __init__(
        self,
        joint: TextToVelocity,
        tokenizer: PreTrainedTokenizerBase,
        scenes: LatentScenes,
        batch: int = BATCH,
    ) -> None:
        self.joint, self.tokenizer, self.scenes, self.batch = joint, tokenizer, scenes, batch
        self.model: Gemma2Model = joint.text
        self.teacher = TextToVelocity(deepcopy(joint.text), joint.transformer).requires_grad_(False)
        self.path, self.times = LinearPath(), ShiftedTimes(SHIFT)

    def batches(self, step: int) -> Pair:
        """The scenes of a step, with captions drawn for it."""
        rows = batch_indices(step, self.batch, len(self.scenes.latents), seed=5)
        draws = [random.Random(step * 1_000_003 + row) for row in rows]
        pairs = [
            caption_pair(self.scenes.shards.scene(row), draw) for row, draw in zip(rows, draws, strict=True)
        ]
        return self.pair(rows, pairs)

    def pair(self, rows: list[int], captions: list[tuple[str, str]]) -> Pair:
        """The latents of some rows with these captions."""
        device = next(self.model.parameters()).device
        written, meant = (
            read_captions(self.tokenizer, list(lines)).to(device) for lines in zip(*captions, strict=True)
        )
        return Pair(self.scenes.x0(rows).to(device), written, meant)

    def losses(self, batch: Pair, generator: torch.Generator) -> dict[str, Tensor]:
        """`loss`: how far the velocities are apart, over how large they are."""
        t = self.times.sample(len(batch.x0), generator).to(batch.x0.device)
        noise = torch.randn(batch.x0.shape, generator=generator).to(batch.x0.device)
        point, time = self.path.point(batch.x0, noise, t), (1000 * t).floor()
        with sdpa_kernel(SDPBackend.MATH):  # the fused one's backward pass is slow on a CPU
            with torch.no_grad():
                wanted, _ = self.teacher(point, time, batch.meant)
            found, _ = self.joint(point, time, batch.written)
        return {"loss": (found.float() - wanted).square().mean() / wanted.square().mean()}


def paraphrase_training() -> ParaphraseTraining:
    """The run from the shipped weights, which know all words of captions."""
    tokenizer, joint = shipped_networks(extended_text)
    return ParaphraseTraining(joint, tokenizer, open_scenes(RUNS / "train", LATENTS))


@torch.no_grad()
def held_out_gap(training: ParaphraseTraining, count: int = 120) -> float:
    """The loss on phrasings that no training caption has, at `count` noisy latents."""
    found = phrasings(count)
    specs = [
        replace(trial.spec, relation="left of") if trial.spec.relation == NEXT_TO else trial.spec
        for trial in found
    ]
    captions = [(trial.prompt, phrase(spec)) for trial, spec in zip(found, specs, strict=True)]
    batch = training.pair(list(range(count)), captions)
    return float(training.losses(batch, torch.Generator().manual_seed(0))["loss"])


def train_paraphrase(steps: int | None = None) -> None:
    """Train the text encoder, from the shipped one or this stage's newest checkpoint."""
    training = paraphrase_training()
    print(f"held-out phrasings: {held_out_gap(training):.4f} before", flush=True)
    trainer = run_training(training.model, shortened(PARAPHRASE, steps), training.losses, training.batches)
    trainer.ema.copy_to(training.model)
    print(f"held-out phrasings: {held_out_gap(training):.4f} with the averaged weights", flush=True)


def paraphrased_networks() -> tuple[PreTrainedTokenizerBase, TextToVelocity]:
    """The tokenizer, and both networks with the averaged text encoder of the run."""
    tokenizer, joint = shipped_networks(extended_text)
    recipe_trainer(joint.text, PARAPHRASE).ema.copy_to(joint.text)
    return tokenizer, joint


@resumable
def main() -> None:
    """Train for a number of steps; a run that has them goes on if more are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=PARAPHRASE.phases[0].steps)
    train_paraphrase(parser.parse_args().steps)


if __name__ == "__main__":
    main()
