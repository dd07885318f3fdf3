"""The task of training adapters beside a frozen model: LoRA (arXiv 2106.09685), of a subject or a style.

The base model is in memory once, in half precision or int8 if that is wanted, and its weights have no gradients. What
the trainer sees is the adapters alone: they are optimised, averaged and kept in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sanakit.adapt.quantise import expect_int8, quantise
from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.data import PictureSet, Prefetch
from sanakit.pipeline import Model
from sanakit.pipeline.shapes import transformer_parameters
from sanakit.training.config import TrainConfig
from sanakit.training.cost import kept_bytes, transformer_operations, transformer_pass
from sanakit.training.edits import edit_blocks
from sanakit.training.events import Event
from sanakit.training.objectives.objective import Objective
from sanakit.training.objectives.prior_preservation import AdapterMatching, ClassBatch
from sanakit.training.parallel import World
from sanakit.training.preview import Drawer, drawing_model
from sanakit.training.tasks.adapters import AdapterCount, AdapterSet, adapt, chosen_layers, count_adapters
from sanakit.training.tasks.class_pictures import ClassPictures
from sanakit.training.tasks.frozen_base import frozen_dtype, in_int8
from sanakit.training.tasks.latent_cache import LatentCacheFiller
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.transformer import TransformerTask, operations_of
from sanakit.training.trainer import Batches, Trainer
from sanakit.transformer import SanaTransformer
from sanakit.weights import LORA_FILE, LoRA, ModelSpec, int8_layers, load_transformer, write_lora
from sanakit.weights.lora_save import Target

_AHEAD = 4
_COMFYUI = "comfyui_lora_weights.safetensors"


class LoraTask(TransformerTask):
    """See `Task`. Raises ConfigError, DataError or ModelNotFoundError."""

    instead = ": a LoRA is trained on the teacher of a model of few steps, and works on both (docs/lora.md)"

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        _check(config)
        self.settings = config.lora
        super().__init__(config, precision, world, notify)
        with torch.device("meta"):
            bare = SanaTransformer(self.network_config)
        self.layers = chosen_layers(bare, self.settings)
        self.int8 = in_int8(config, self.spec, bare)
        self.frozen = frozen_dtype(config.lora, precision)
        self.classes = ClassPictures(config, self.spec, precision) if self.settings.prior.weight else None

    def opened(self) -> PictureSet:
        """Open the set; pictures without a caption get the prompt of the config."""
        pictures, prompt = super().opened(), self.settings.prompt
        return pictures if prompt is None else pictures.captioning(prompt)

    @cached_property
    def _count(self) -> AdapterCount:
        return count_adapters(self._adapted, self.layers, self.settings)

    @cached_property
    def _adapted(self) -> SanaTransformer:
        """The network with its adapters on the meta device."""
        with torch.device("meta"):
            model = SanaTransformer(self.network_config).requires_grad_(False)
            adapt(model, self.layers, replace(self.settings, init="kaiming"), 0)
        return model

    @cached_property
    def _base_parameters(self) -> int:
        return transformer_parameters(self.network_config)

    @property
    def _frozen_bytes(self) -> int:
        each = 1 if self.int8 else self.frozen.itemsize  # in int8 most of it
        return self._base_parameters * each

    def workload(self) -> Workload:
        """As `Task.workload`: adapters are all that is trained, averaged and kept."""
        config, work, count = self.config, super().workload(), self._count
        once = partial(transformer_pass, self.network_config, self.side, self.words, model=self._adapted)
        kept = self.samples * self._parts * self._kept() * kept_bytes(once)
        work = replace(
            work, network=f"a LoRA of rank {self.settings.rank} beside {config.base_model}",
            parameters=count.parameters + count.frozen, trained=count.parameters, unaveraged=count.frozen,
            frozen=self._frozen_bytes, activations=int(kept),
            operations=config.batch * self._per_pair(self.side**2, self.words),
        )  # fmt: skip
        if self.classes is None:
            return work
        there = 0 if self.classes.missing() else self._class_cache.count()[0]
        wanted = self.classes.count * len(config.phases)
        return replace(work, cached=work.cached + there, wanted=work.wanted + wanted)

    @property
    def _parts(self) -> int:
        """How often a batch is seen: with class pictures as many come beside it."""
        return 1 if self.classes is None else 2

    @cached_property
    def _per_sample(self) -> Callable[[int, int], float]:
        """Operations of a sample: frozen weights have no gradient, which is a third of their training."""
        whole = transformer_operations(self.network_config, self._adapted)
        base = transformer_operations(self.network_config)
        return lambda positions, words: whole(positions, words) - base(positions, words) / 3

    @cached_property
    def _answer(self) -> Callable[[int, int], float]:
        """Operations of the base model's own answer to a class picture: one pass forward, if that is the target."""
        base = transformer_operations(self.network_config)
        asked = self.classes is not None and self.settings.prior.target == "base"
        return lambda positions, words: base(positions, words) / 3 if asked else 0.0

    def _per_pair(self, positions: int, words: int) -> float:
        """Operations of a sample, and of the class picture beside it, if there is one."""
        return self._parts * self._per_sample(positions, words) + self._answer(positions, words)

    def operations(self) -> Callable[[Any], float]:
        """Count both parts of a batch."""
        of, answer = super().operations(), operations_of(self._answer)

        def both(batch: LatentBatch) -> float:
            prior = getattr(batch, "prior", None)
            return of(batch) + (0.0 if prior is None else of(prior) + answer(prior))

        return both

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what is frozen, what the adapters add, and what class pictures there are."""
        form = "int8" if self.int8 else dtype_name(self.frozen)
        size = f"{self._base_parameters / 1e6:.1f} M parameters, {self._frozen_bytes / 1e6:.0f} MB"
        yield "frozen", f"{self.config.base_model} in {form}: {size}"
        yield "adapters", f"beside {len(self.layers)} layers ({', '.join(self.settings.targets)})"
        if self._file != LORA_FILE:
            yield "file", "for ComfyUI and sanakit: diffusers has no LoRA of depthwise convolutions"
        if self.classes is not None:
            missing = len(self.classes.missing())
            drawn = f"; {missing} of them are drawn first" if missing else ""
            weight = self.settings.prior.weight
            yield (
                "class",
                f"{self.classes.count} pictures in {self.classes.folder}, with weight {weight:g}{drawn}",
            )
        yield from super().remarks()

    def prepare(self) -> Iterator[Event]:
        """Draw class pictures that are missing, and fill the cache with both sets."""
        if self.classes is not None:
            yield from self.classes.draw(self.world)
            self.world.wait()
        yield from super().prepare()
        if self.classes is not None:
            self.world.wait()
            yield from self._class_cache.fill(self.world)

    @property
    def _class_cache(self) -> LatentCacheFiller:
        assert self.classes is not None
        return LatentCacheFiller(self.classes.config, self.spec, self.precision, self.classes.open())

    @cached_property
    def network(self) -> SanaTransformer:
        """The frozen network in its form, without adapters."""
        config = self.network_config
        with torch.device("meta"):
            model = SanaTransformer(config)
        source, stored = self.spec.transformer_source, int8_layers(self.spec.transformer_source)
        expect_int8(model, stored)
        load_transformer(
            model, config, source, dtype=self.frozen, device=self.world.device, part=self.spec.weights
        )
        if self.int8 and not stored:
            quantise(model)
        return model.requires_grad_(False)

    def objective(self) -> Objective:
        """Build the frozen network with its adapters, and what they minimise."""
        model = self.network
        adapters = adapt(model, self.layers, self.settings, self.config.seed)
        edit_blocks(
            model.blocks, self.world.device, every=self.config.recompute, compiled=self.config.compile
        )
        return AdapterMatching(self.config, adapters, model, self.ratio, self.spec.schedule.shift)

    def blocks(self, network: nn.Module) -> nn.ModuleList:
        """Return none: every process holds the network and all adapters."""
        return nn.ModuleList()

    def parts(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return none."""
        return ()

    def batches(self, objective: Objective) -> AbstractContextManager[Batches]:
        """Read and draw ahead in threads."""
        own, classes = self.data, None
        if self.classes is not None:
            filler = self._class_cache
            classes = LatentData(filler.config, filler.pictures, filler.cached(), self.world)

        def batch(number: int) -> Any:
            found = own.batch(number)
            if classes is not None:
                found = ClassBatch(**vars(found), prior=classes.batch(number))
            return objective.draw(found)

        return Prefetch(batch, workers=self.config.data.workers, ahead=_AHEAD)

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write the averaged adapters to RUN/lora, as diffusers reads them, or else ComfyUI."""
        weights, path = trainer.ema.gathered(), self.config.folder / "lora" / self._file
        if self.world.leads:
            adapters = cast(AdapterSet, objective.network)
            named = Path(self.config.base_model)
            base = named.name if named.exists() else self.config.base_model  # no path of this machine
            found = LoRA(layers=adapters.values(weights), base=base)
            target: Target = "diffusers" if self._file == LORA_FILE else "comfyui"
            write_lora(path, found, target, patch_size=self.network_config.patch_size)
        self.world.wait()
        return (
            f"the LoRA is in {path}: sanakit generate --model {self.config.base_model} --lora {path} PROMPT"
        )

    @property
    def _file(self) -> str:
        """The name of the finished file: diffusers has no LoRA of depthwise convolutions."""
        return _COMFYUI if any(name.endswith(".depthwise") for name in self.layers) else LORA_FILE

    def drawer(self, objective: Objective) -> Drawer:
        """Draw with the network itself, its adapters averaged for the while."""
        network = self.network

        @contextmanager
        def draws(trainer: Trainer, spec: ModelSpec) -> Iterator[Model | None]:
            if not trainer.world.leads:
                yield None
                return
            player = trainer.players[0]
            with trainer.ema.applied(player.module):
                player.module.eval()  # the trainer turns dropout on again
                yield drawing_model(self.config, spec, self.precision, network)

        return draws


def _check(config: TrainConfig) -> None:
    """Refuse settings that this task does not read. Raises ConfigError."""
    usual = TrainConfig(folder=config.folder, phases=config.phases, data=config.data)
    for name, why in (
        ("model", "adapters begin beside the base model as it is"),
        ("text", "the text encoder of a LoRA's base model stays as it is"),
    ):
        if getattr(config, name) != getattr(usual, name):
            raise ConfigError(f"{name}: the task lora has no such setting, for {why}; leave it out")
    for number, phase in enumerate(config.phases):
        if phase.position_scale is not None:
            raise ConfigError(
                f"phases[{number}].position_scale: a LoRA draws with the positions of its base model; leave it out"
            )
