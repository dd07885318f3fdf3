"""The task of training a ControlNet beside a frozen model (arXiv 2302.05543; for SANA, no published code trains one).

What the trainer sees is the ControlNet alone: it is optimised, averaged and kept in checkpoints. The base network is in
memory once, in the dtype of the computation; a step passes through all of it, and its weights have no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from sanakit.base.errors import ConfigError
from sanakit.base.files import user_path
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.data import PictureSet
from sanakit.data.buckets import crop_for
from sanakit.pipeline.shapes import control_parameters, transformer_parameters
from sanakit.training.config import TrainConfig
from sanakit.training.cost import kept_bytes, transformer_operations, transformer_pass
from sanakit.training.edits import edit_blocks
from sanakit.training.events import Event
from sanakit.training.objectives.control_matching import ControlBatch, ControlMatching
from sanakit.training.objectives.objective import Objective, choose_objective
from sanakit.training.parallel import World
from sanakit.training.tasks.control_pictures import ControlPictures, PairedCache, paired
from sanakit.training.tasks.control_preview import control_preview
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.network import load_base
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.training_set import held_items
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.training.trainer import Hook, Trainer
from sanakit.training.validation import validation
from sanakit.transformer import ControlConfig, ControlNet, SanaTransformer, TransformerConfig, copy_base
from sanakit.weights import read_control_spec, save_control

OBJECTIVES = ("flow_matching",)
FOLDER = "control"
"""Where in RUN the finished ControlNet lies."""

_FROZEN_SHARE = 2 / 3  # of training a sample: frozen weights have no gradients, their inputs have


class ControlTask(TransformerTask):
    """See `Task`. Raises ConfigError, DataError or ModelNotFoundError."""

    instead = (
        ": a ControlNet is trained on the teacher of a model of few steps, and steers both (docs/control.md)"
    )

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        _check(config)
        self.files: PictureSet | None = None
        super().__init__(config, precision, world, notify)
        kept = {item.key for item in self.pictures}
        files = None if self.files is None else self.files.only(
            [row for row, item in enumerate(self.files) if item.key in kept]
        )  # fmt: skip
        self.controls = ControlPictures(config, self.spec, precision, self.pictures, files)
        self.control_config = self._read_config()

    def opened(self) -> PictureSet:
        """Open the set, and find the control picture of each picture if they are files."""
        pictures, self.files = paired(self.config, super().opened())
        return pictures

    def _read_config(self) -> ControlConfig:
        """Return the shape of the ControlNet. Raises ConfigError if it does not fit the base network."""
        wanted, base = self.config.control, self.network_config
        if wanted.start != "base":
            found = read_control_spec(user_path(Path(wanted.start)), base).config
            if found.lead:
                raise ConfigError(
                    f"control.start: {wanted.start} has the official wiring: convert it to a folder first"
                )
            return found
        made = ControlConfig(backbone=replace(base, depth=wanted.copies))
        if made.mismatch(base) is not None:
            raise ConfigError(
                f"control.copies is {wanted.copies}, and {self.config.base_model} has {base.depth} blocks: "
                f"at most {base.depth - 1} can be copied"
            )
        return made

    def wanted_network(self) -> TransformerConfig:
        """Return the base model's network as it is. Raises ConfigError for an objective that is not known."""
        choose_objective(OBJECTIVES, self.config.objective)
        return self.spec.transformer

    def workload(self) -> Workload:
        """As `Task.workload`: the ControlNet is all that is trained, averaged and kept."""
        config, work = self.config, super().workload()
        own = partial(control_pass, self.control_config, self.side, self.words)
        base = partial(transformer_pass, self.network_config, self.side, self.words, frozen=True)
        parameters, frozen = (
            control_parameters(self.control_config),
            transformer_parameters(self.network_config),
        )
        return replace(
            work, network=f"a ControlNet of {self.control_config.copies} blocks beside {config.base_model}",
            parameters=parameters, trained=parameters, frozen=frozen * self.precision.dtype.itemsize,
            operations=config.batch * self._per_sample(self.side**2, self.words),
            activations=int(self.samples * self._kept() * (kept_bytes(own) + kept_bytes(base))),
        )  # fmt: skip

    @cached_property
    def _per_sample(self) -> Callable[[int, int], float]:
        """Operations of a sample: training the ControlNet, and a pass through the base and back."""
        base = transformer_operations(self.network_config)
        own = transformer_operations(self.control_config.backbone)
        return lambda positions, words: own(positions, words) + _FROZEN_SHARE * base(positions, words)

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what is frozen and what steers."""
        yield "frozen", f"{self.config.base_model}: none of its weights is trained, averaged or saved"
        copies, depth = self.control_config.copies, self.network_config.depth
        yield "control", f"{copies} of {depth} blocks are copied; control pictures are {self.controls.words}"
        yield from super().remarks()

    def prepare(self) -> Iterator[Event]:
        """Fill the cache, with the control pictures, too."""
        yield from super().prepare()
        if self.world.leads:
            yield from self.controls.fill(self.cache.folder)
        self.world.wait()

    @cached_property
    def data(self) -> ControlData:
        """The batches; the cache must be filled."""
        cached = self.controls.cached(self.cache.folder, self.cache.cached())
        return ControlData(self.config, self.pictures, cached, self.world)

    def objective(self) -> Objective:
        """Build the ControlNet with its first weights, float32, and the frozen base."""
        base, device = self._base(), self.world.device
        start = self.config.control.start
        if start == "base":
            network = copy_base(load_base(self.spec, torch.float32, device), self.control_config.copies)
        else:
            spec = read_control_spec(user_path(Path(start)), self.network_config)
            network = spec.build(dtype=torch.float32)
        network = network.to(device).requires_grad_(True)
        return ControlMatching(self.config, network, base, self.ratio, self.spec.schedule.shift)

    def _base(self) -> SanaTransformer:
        model = load_base(self.spec, self.precision.dtype, self.world.device).requires_grad_(False)
        edit_blocks(
            model.blocks, self.world.device, every=self.config.recompute, compiled=self.config.compile
        )
        return model

    def blocks(self, network: nn.Module) -> nn.ModuleList:
        """Return those of the ControlNet."""
        return cast(ControlNet, network).blocks

    def hooks(self, objective: Objective) -> list[Hook]:
        """Return previews of the first pictures held out, or of the set, and validation if it is asked for."""
        rows = held_items(self.pictures, self.config.data.held) or list(range(len(self.pictures)))
        assert isinstance(objective, ControlMatching)
        hooks = [
            control_preview(self.config, self.spec, self.precision, self.control_config, self.controls, rows)
        ]
        if self.config.validate:
            hooks.append(validation(objective, self.data, self.config.validate))
        return hooks

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write the averaged weights to RUN/control, as diffusers' SanaControlNetModel has them."""
        weights, folder = trainer.ema.gathered(), self.config.folder / FOLDER
        if trainer.world.leads:
            save_control(folder, self.control_config, weights, dtype=torch.bfloat16)
        trainer.world.wait()
        model = self.config.base_model
        return f"the ControlNet is in {folder}: sanakit generate PROMPT --model {model} --control {folder}:PICTURE"


class ControlData(LatentData):
    """As `LatentData`, with the control of every picture. paired: latents of both."""

    def __init__(self, config: TrainConfig, pictures: PictureSet, paired: PairedCache, world: World) -> None:
        super().__init__(config, pictures, paired, world)
        self.paired = paired

    def make(
        self, phase: int, indices: Sequence[int], seeds: Sequence[int], *, step: int, epoch: int
    ) -> LatentBatch:
        """Return items of one bucket, with a seed each, as a batch."""
        made = super().make(phase, indices, seeds, step=step, epoch=epoch)
        bucket, items = self.buckets[phase][indices[0]], [self.pictures[index] for index in indices]
        control = torch.stack([self.paired.control(item, crop_for(item, bucket)) for item in items]).float()
        known = {field.name: getattr(made, field.name) for field in fields(LatentBatch)}
        return ControlBatch(**known, control=control)


def control_pass(config: ControlConfig, side: int, words: int) -> Tensor:
    """Run one sample forwards on the meta device: latents [1, C, side, side] with `words` tokens of text."""
    shape = (1, config.backbone.latent_channels, side, side)
    with torch.device("meta"):
        net = ControlNet(config)
        text = TextStates(
            torch.empty(1, words, config.backbone.text_width), torch.ones(1, words, dtype=torch.bool)
        )
        residuals: Tensor = net(torch.empty(shape), torch.empty(1), text, torch.empty(shape))
    return residuals


def _check(config: TrainConfig) -> None:
    """Refuse settings that this task does not read. Raises ConfigError."""
    if config.model != type(config.model)():
        raise ConfigError("model: the task control steers the base model as it is; leave it out")
    if config.text.train:
        raise ConfigError("text.train: the task control trains the ControlNet alone; leave it out")
