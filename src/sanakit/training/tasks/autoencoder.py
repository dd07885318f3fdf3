"""The task of training an autoencoder on pictures, in one of the phases of DC-AE (arXiv 2410.10733, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig
from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.data import BatchOrder, PictureBatch, PictureReader
from sanakit.pipeline.components import fingerprint
from sanakit.pipeline.threads import encoder_product
from sanakit.training.config import TrainConfig
from sanakit.training.cost import counted_step, kept_bytes, train_operations
from sanakit.training.events import Message
from sanakit.training.objectives.adversarial import PatchDiscriminator
from sanakit.training.objectives.autoencoding import AutoencoderPair, Autoencoding
from sanakit.training.objectives.objective import Objective, choose_objective
from sanakit.training.objectives.perceptual import Perceptual, choose_perceptual
from sanakit.training.parallel import World
from sanakit.training.tasks.base_model import read_base
from sanakit.training.tasks.phases import PHASES, trained_parameters
from sanakit.training.tasks.reconstructions import Reconstructions
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.training_set import (
    Epoch,
    epochs_of,
    held_items,
    open_training_set,
    phase_buckets,
)
from sanakit.training.trainer import Batches, Hook, Trainer
from sanakit.weights import load_autoencoder, read_autoencoder_config, save_autoencoder

_NAME = "vae"
_SCALED_ON = 64  # pictures whose latents give the scaling factor
_SIDE = 128  # pixels of the picture that operations are counted on
OBJECTIVES: dict[str, Callable[[TrainConfig, AutoencoderPair, Perceptual, World], Objective]] = {
    "autoencoding": Autoencoding,
}
"""Each is made of (config, autoencoder and critic, perceptual loss, world); the first is the default."""

_UNREAD = ("model", "text", "times", "compile", "recompute")


class AutoencoderTask:
    """See `Task`. One size; every process holds it whole. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        _check(config)
        self.config, self.precision, self.world, self.notify = config, precision, world, notify
        self.phase, self.wanted = PHASES[config.autoencoder.phase], config.autoencoder
        self.chosen = OBJECTIVES[choose_objective(tuple(OBJECTIVES), config.objective)]
        self.folder: Path | None = None
        self.base_weights = ""
        self.autoencoder_config = self._read_config(notify)
        self.pictures = open_training_set(config)
        self.perceptual = choose_perceptual(precision.device)
        self.reconstructions = Reconstructions(config, self.pictures, world, self._say)

    def _read_config(self, notify: Callable[[str], object]) -> AutoencoderConfig:
        """Read the configuration, and note where the first weights lie."""
        start = self.wanted.start
        if start == "scratch":
            if self.wanted.preset not in PRESETS:
                raise ConfigError(
                    f"autoencoder.preset: {self.wanted.preset!r} is not one of {', '.join(PRESETS)}"
                )
            return PRESETS[self.wanted.preset]
        if start == "base":
            base = read_base(self.config, notify)
            self.folder, self.base_weights = base.autoencoder_folder, fingerprint(base)
            return base.autoencoder
        self.folder = Path(start)
        return read_autoencoder_config(self.folder)

    def workload(self) -> Workload:
        """As `Task.workload`, counted on the meta device."""
        side, batch = self.config.phases[0].size, self.config.batch
        samples = batch // self.world.size
        with torch.device("meta"):
            model = DCAE(self.autoencoder_config)
        once = partial(model, torch.empty(1, 3, side, side, device="meta"))
        return Workload(
            network=f"autoencoder {self.wanted.start}, phase {self.wanted.phase}",
            parameters=sum(p.numel() for p in model.parameters()),
            trained=sum(p.numel() for p in trained_parameters(model, self.phase)),
            operations=batch * side * side * self._per_pixel,
            activations=samples * kept_bytes(once),
        )

    @cached_property
    def _per_pixel(self) -> float:
        """Operations of training on one pixel: every layer is a convolution, or linear attention.

        What a phase freezes has less of a backward pass, or none.
        """
        with torch.device("meta"):
            model, picture = DCAE(self.autoencoder_config), torch.empty(1, 3, _SIDE, _SIDE)
        whole = train_operations(lambda: model(picture)) / _SIDE**2
        if self.phase.trained == "all":
            return whole
        everything = counted_step(lambda: model(picture).sum())
        trained_parameters(model, self.phase)
        return whole * counted_step(lambda: model(picture).sum()) / everything

    def operations(self) -> Callable[[Any], float]:
        """Count by the pixels of a batch."""

        def of(batch: PictureBatch) -> float:
            count, _, height, width = batch.pixels.shape
            return count * height * width * self._per_pixel

        return of

    def epochs(self) -> tuple[Epoch, ...]:
        """Count epochs by the sizes of the set."""
        return epochs_of(self.config, self.pictures)

    def product(self) -> float:
        """Count a product of the encoder."""
        samples = self.config.batch // self.world.size
        return encoder_product(self.autoencoder_config, samples * self.config.phases[0].size ** 2)

    def prepare(self) -> Iterator[Message]:
        """Say what the loss is made of, and check the pictures that are held out. Raises ConfigError."""
        yield Message(step=0, text=self.perceptual.words)
        held = self.reconstructions.held
        if held and not any(True for _ in self.reconstructions.centres(held)) and self.config.validate:
            raise ConfigError(
                f"none of the {len(held)} pictures that are held out can be read (the first is "
                f"{self.pictures[held[0]].key}): replace them, or leave out validate"
            )

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what becomes of the latents."""
        yield "latents", self._fate

    @property
    def _fate(self) -> str:
        """A phrase: whether transformers of the autoencoder that this run continues still fit."""
        vae = self.config.folder / _NAME
        if self.phase.trained == "head":
            return f"stay as they are: transformers of before fit it, too (sanakit generate --decoder {vae})"
        return (
            "are moved by this phase: a transformer that was trained before no longer fits; "
            f"train one on the new latents (base.autoencoder={vae})"
        )

    def objective(self) -> Objective:
        """Build autoencoder and critic, float32, under the objective of the config."""
        torch.manual_seed(self.config.seed)
        if self.folder is None:
            model = DCAE(self.autoencoder_config)
        else:
            with torch.device("meta"):
                model = DCAE(self.autoencoder_config)
            load_autoencoder(model, self.autoencoder_config, self.folder, dtype=torch.float32)
        pair = AutoencoderPair(
            model.requires_grad_(True), PatchDiscriminator() if self.phase.critic else None
        )
        trained_parameters(model, self.phase)
        pair.to(self.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self.chosen(self.config, pair, self.perceptual, self.world)

    def blocks(self, network: nn.Module) -> nn.ModuleList:
        """Return none: every process holds the network whole."""
        return nn.ModuleList()

    def parts(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return none."""
        return ()

    @contextmanager
    def batches(self, objective: Objective) -> Iterator[Batches]:
        """Read random crops ahead in threads."""
        config = self.config
        buckets = phase_buckets(config, config.phases[0], self.pictures)
        held = set(held_items(self.pictures, config.data.held))
        usable = [index for index in range(len(self.pictures)) if index not in held]
        order = BatchOrder(buckets, config.batch, config.seed, usable)
        with PictureReader(
            self.pictures, order, rank=self.world.rank, world=self.world.size,
            crops="random", workers=config.data.workers,
        ) as reader:  # fmt: skip
            yield lambda number: objective.draw(reader(number))
            for fault in reader.faults:
                self._say(f"passed over: {fault.text}")

    def hooks(self, objective: Objective) -> list[Hook]:
        """Return reconstructions, and fidelity on the pictures that are held out."""
        model, every, shown = _autoencoder(objective), self.config.validate, self.reconstructions
        sheet = Hook(
            name="preview", every=self.config.preview.every, run=lambda trainer: shown.draw(trainer, model),
            required=False, at_start=True, picture=shown.sheet,
        )  # fmt: skip
        measure = Hook(name="validation", every=every, run=lambda trainer: shown.measure(trainer, model))
        return [sheet, measure] if every else [sheet]

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write the averaged autoencoder to RUN/vae, with a scaling factor measured on the set."""
        model, folder = _autoencoder(objective), self.config.folder / _NAME
        with trainer.ema.applied(model):
            config = self._scaled(model)
            if self.world.leads:
                save_autoencoder(folder, config, model, dtype=torch.float32)
        self.world.wait()
        return f"the autoencoder is in {folder}, scaling factor {config.scaling_factor}; the latents {self._fate}"

    @torch.no_grad()
    def _scaled(self, autoencoder: DCAE) -> AutoencoderConfig:
        """Return the config with 1 / std of some latents as its factor; unchanged if the phase leaves latents alone."""
        if self.phase.trained == "head":
            return self.autoencoder_config
        indices = range(0, len(self.pictures), max(1, len(self.pictures) // _SCALED_ON))
        latents = [
            autoencoder.encode(pixels).float().flatten() for pixels in self.reconstructions.centres(indices)
        ]
        if not latents:  # the set is gone
            return self.autoencoder_config
        return replace(self.autoencoder_config, scaling_factor=round(1 / float(torch.cat(latents).std()), 5))

    def _say(self, text: str) -> None:
        if self.world.leads:
            self.notify(text)


def _autoencoder(objective: Objective) -> DCAE:
    return cast(AutoencoderPair, objective.network).autoencoder


def _check(config: TrainConfig) -> None:
    """Refuse settings that this task does not read. Raises ConfigError."""
    if config.accumulate > 1 or len(config.phases) > 1:
        raise ConfigError(
            "the task autoencoder trains at one size and with one micro-batch a step: "
            "leave out accumulate and all phases but one"
        )
    if config.parallel == "fsdp":
        raise ConfigError("the task autoencoder holds its weights whole on every process: say parallel=ddp")
    usual = TrainConfig(folder=config.folder, phases=config.phases, data=config.data)
    unread = [name for name in _UNREAD if getattr(config, name) != getattr(usual, name)]
    drawing, usually = config.preview, usual.preview
    unread += [
        f"preview.{field.name}"
        for field in fields(drawing)
        if field.name != "every" and getattr(drawing, field.name) != getattr(usually, field.name)
    ]
    phase = config.phases[0]
    unread += [
        f"phases[0].{name}" for name in ("shift", "position_scale") if getattr(phase, name) is not None
    ]
    if unread:
        raise ConfigError(f"{unread[0]}: the task autoencoder has no such setting; leave it out")
