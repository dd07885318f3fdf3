"""The job of training an autoencoder on pictures, in one of the phases of DC-AE (arXiv 2410.10733, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig
from sanakit.base.errors import ConfigError, PictureError
from sanakit.base.precision import Precision
from sanakit.data import BatchOrder, PictureBatch, PictureReader
from sanakit.data.buckets import crop_for, picture_tensor
from sanakit.pipeline import make_grid
from sanakit.pipeline.decoder import to_image
from sanakit.pipeline.threads import encoder_product
from sanakit.training.config import TrainConfig
from sanakit.training.jobs.base import read_base
from sanakit.training.jobs.job import Size, Visit
from sanakit.training.jobs.opened import opened
from sanakit.training.jobs.visits import visits_of
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.objectives.perceptual import choose_perceptual
from sanakit.training.objectives.phases import trained_parameters
from sanakit.training.parallel import World
from sanakit.training.preview import save_sheet
from sanakit.training.report import Notice
from sanakit.training.speed import counted_step, kept_bytes, train_operations
from sanakit.training.tasks.autoencoder import PHASES, AutoencoderPair, AutoencoderTask, to_range
from sanakit.training.tasks.latents import held_items, phase_buckets
from sanakit.weights import (
    load_autoencoder,
    read_autoencoder_config,
    save_autoencoder,
)

_NAME = "vae"
_SCALED_ON = 64
_SIDE = 128  # pixels of the picture that operations are counted on
_UNREAD = ("model", "text", "times", "compile", "recompute")
_SHOWN, _GAP = 4, 4  # pictures of a preview, and pixels between them


class Autoencoder:
    """See `Job`. One size; every process holds it whole. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, told: Callable[[str], object]
    ) -> None:
        _check(config)
        self.config, self.precision, self.world, self.told = config, precision, world, told
        self.phase, self.wanted = PHASES[config.autoencoder.phase], config.autoencoder
        self.folder: Path | None = None
        self.shape = self._read_shape(told)
        self.pictures = opened(config)
        self.perceptual = choose_perceptual(precision.device)
        self._bad: set[int] = set()

    def _read_shape(self, told: Callable[[str], object]) -> AutoencoderConfig:
        """The configuration, and where the first weights lie."""
        start = self.wanted.start
        if start == "scratch":
            if self.wanted.preset not in PRESETS:
                raise ConfigError(
                    f"autoencoder.preset: {self.wanted.preset!r} is none of {', '.join(PRESETS)}"
                )
            return PRESETS[self.wanted.preset]
        if start == "base":
            base = read_base(self.config, told)
            self.folder = base.autoencoder_folder
            return base.autoencoder
        self.folder = Path(start)
        return read_autoencoder_config(self.folder)

    def size(self) -> Size:
        """Counted on the meta device."""
        side, batch = self.config.phases[0].size, self.config.batch
        samples = batch // self.world.size
        with torch.device("meta"):
            model = DCAE(self.shape)
        once = partial(model, torch.empty(1, 3, side, side, device="meta"))
        return Size(
            network=f"autoencoder {self.wanted.start}, phase {self.phase.name}",
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
            model, picture = DCAE(self.shape), torch.empty(1, 3, _SIDE, _SIDE)
        whole = train_operations(lambda: model(picture)) / _SIDE**2
        if self.phase.trained == "all":
            return whole
        everything = counted_step(lambda: model(picture).sum())
        trained_parameters(model, self.phase)
        return whole * counted_step(lambda: model(picture).sum()) / everything

    def operations(self) -> Callable[[Any], float]:
        """By the pixels of a batch."""

        def of(batch: PictureBatch) -> float:
            count, _, height, width = batch.pixels.shape
            return count * height * width * self._per_pixel

        return of

    def visits(self) -> tuple[Visit, ...]:
        """By the sizes of the set."""
        return visits_of(self.config, self.pictures)

    def product(self) -> float:
        """Of the encoder."""
        samples = self.config.batch // self.world.size
        return encoder_product(self.shape, samples * self.config.phases[0].size ** 2)

    def prepare(self) -> Iterator[Notice]:
        """Say what the loss is made of, and look at the pictures that are held out. Raises ConfigError."""
        yield Notice(step=0, text=self.perceptual.words)
        held = held_items(self.pictures, self.config.data.held)
        if held and not any(True for _ in self._centres(held)) and self.config.validate:
            raise ConfigError(
                f"none of the {len(held)} pictures that are held out can be read (the first is "
                f"{self.pictures[held[0]].key}): replace them, or leave out validate"
            )

    def remarks(self) -> Iterator[tuple[str, str]]:
        """What becomes of the latents."""
        yield "latents", self._fate

    @property
    def _fate(self) -> str:
        """Whether transformers of the autoencoder that is gone on from still fit."""
        vae = self.config.folder / _NAME
        if self.phase.trained == "head":
            return f"stay as they are: transformers of before fit it, too (sanakit generate --decoder {vae})"
        return (
            "are moved by this phase: a transformer that was trained before no longer fits; "
            f"train one on the new latents (base.autoencoder={vae})"
        )

    def build(self) -> AutoencoderPair:
        """Autoencoder and critic, float32."""
        torch.manual_seed(self.config.seed)
        if self.folder is None:
            model = DCAE(self.shape)
        else:
            with torch.device("meta"):
                model = DCAE(self.shape)
            load_autoencoder(model, self.shape, self.folder, dtype=torch.float32)
        pair = AutoencoderPair(model.requires_grad_(True), self.phase)
        return pair.to(self.world.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """None: every process holds it whole."""
        return ()

    @contextmanager
    def batches(self) -> Iterator[Batches]:
        """Pictures cut at random, read ahead by threads."""
        config = self.config
        buckets = phase_buckets(config, config.phases[0], self.pictures)
        held = set(held_items(self.pictures, config.data.held))
        usable = [index for index in range(len(self.pictures)) if index not in held]
        order = BatchOrder(buckets, config.batch, config.seed, usable)
        with PictureReader(
            self.pictures, order, rank=self.world.rank, world=self.world.size,
            crops="random", workers=config.data.workers,
        ) as reader:  # fmt: skip
            yield reader
            for fault in reader.faults:
                self._say(f"passed over: {fault.text}")

    def loss(self, model: nn.Module) -> Loss:
        """Of autoencoder and critic."""
        pair = cast(AutoencoderPair, model)
        return AutoencoderTask(pair, self.phase, self.wanted.loss, self.perceptual, self.world).loss

    def chores(self, model: nn.Module) -> list[Chore]:
        """Reconstructions, and fidelity on the pictures that are held out."""
        pair, every, shown = cast(AutoencoderPair, model), self.config.validate, self.config.preview.every
        sheet = Chore(
            name="preview", every=shown, run=lambda run: self._draw(run, pair), needed=False, at_start=True,
            picture=self._sheet,
        )  # fmt: skip
        measure = Chore(name="validation", every=every, run=lambda run: self._measure(run, pair))
        return [sheet, measure] if every else [sheet]

    @torch.no_grad()
    def _measure(self, run: Run, pair: AutoencoderPair) -> Mapping[str, float]:
        """Mean PSNR in dB and L1 of the averaged weights on centre crops."""
        pair.eval()
        errors = []
        with run.ema.applied(pair), run.autocast():
            for pixels in self._centres(held_items(self.pictures, self.config.data.held)):
                errors.append(pair.autoencoder(pixels).clamp(-1, 1).float() - pixels)
        if not errors:  # none of them can be read any more
            return {}
        psnr = torch.stack([-10 * torch.log10(error.square().mean() / 4) for error in errors])
        return {"psnr": float(psnr.mean()), "l1": float(torch.cat(errors).abs().mean())}

    @torch.no_grad()
    def _draw(self, run: Run, pair: AutoencoderPair) -> Mapping[str, float]:
        """Some pictures beside what the averaged weights give back, in RUN/previews/step-N.png."""
        if not self.world.leads:
            return {}
        pair.eval()
        chosen = held_items(self.pictures, self.config.data.held or min(_SHOWN, len(self.pictures)))
        with run.ema.applied(pair), run.autocast():
            pairs = [(x, pair.autoencoder(x).float()) for x in islice(self._centres(chosen), _SHOWN)]
        save_sheet(
            self._sheet(run), make_grid([to_image(x) for both in pairs for x in both], columns=2, gap=_GAP)
        )
        return {}

    def _sheet(self, run: Run) -> Path:
        return self.config.folder / "previews" / f"step-{run.step:08d}.png"

    def export(self, model: nn.Module, run: Run) -> str:
        """The averaged autoencoder in RUN/vae, with a scaling factor measured on the set."""
        pair, folder = cast(AutoencoderPair, model), self.config.folder / _NAME
        with run.ema.applied(pair):
            shape = self._scaled(pair.autoencoder)
            if self.world.leads:
                save_autoencoder(folder, shape, pair.autoencoder, dtype=torch.float32)
        self.world.wait()
        return (
            f"the autoencoder is in {folder}, scaling factor {shape.scaling_factor}; the latents {self._fate}"
        )

    @torch.no_grad()
    def _scaled(self, autoencoder: DCAE) -> AutoencoderConfig:
        """The shape with 1 / std of some latents as its factor; it stays where the phase leaves latents alone."""
        if self.phase.trained == "head":
            return self.shape
        indices = range(0, len(self.pictures), max(1, len(self.pictures) // _SCALED_ON))
        latents = [autoencoder.encode(pixels).float().flatten() for pixels in self._centres(indices)]
        if not latents:  # the set is gone
            return self.shape
        return replace(self.shape, scaling_factor=round(1 / float(torch.cat(latents).std()), 5))

    def _centres(self, indices: Iterable[int]) -> Iterator[Tensor]:
        """The middle of each picture that can be read; of any other the name is told, once."""
        for index in indices:
            if index in self._bad:
                continue
            try:
                yield self._centre(index)
            except PictureError as error:
                self._bad.add(index)
                self._say(f"passed over: {self.pictures[index].key}: {error}")

    def _say(self, text: str) -> None:
        if self.world.leads:
            self.told(text)

    def _centre(self, index: int) -> Tensor:
        """The middle of a picture [1, 3, H, W] in -1..1, at the size of the run."""
        side = self.config.phases[0].size
        crop = crop_for(self.pictures[index], (side, side))
        return to_range(picture_tensor(self.pictures.read(index), crop)[None]).to(self.world.device)


def _check(config: TrainConfig) -> None:
    """Refuse what this task does not do. Raises ConfigError."""
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
        raise ConfigError(f"{unread[0]}: the task autoencoder knows no such setting; leave it out")
