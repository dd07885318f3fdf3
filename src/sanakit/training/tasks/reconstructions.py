"""Pictures of a set beside what an autoencoder under training makes of them: previews and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from sanakit.autoencoder import DCAE
from sanakit.base.errors import PictureError
from sanakit.data import PictureSet
from sanakit.data.buckets import crop_for, picture_tensor
from sanakit.pipeline import make_grid
from sanakit.pipeline.decoder import to_image
from sanakit.training.config import TrainConfig
from sanakit.training.objectives.autoencoding import to_range
from sanakit.training.parallel import World
from sanakit.training.preview import save_sheet
from sanakit.training.tasks.training_set import held_items
from sanakit.training.trainer import Trainer

_SHOWN, _GAP = 4, 4  # pictures of a preview, and pixels between them


class Reconstructions:
    """The pictures of a run, cut to the middle at its size, and their reconstructions.

    notify: is given the name of each picture that can't be read, once.
    """

    def __init__(
        self, config: TrainConfig, pictures: PictureSet, world: World, notify: Callable[[str], object]
    ) -> None:
        self.config, self.pictures, self.world, self.notify = config, pictures, world, notify
        self._bad: set[int] = set()

    @cached_property
    def held(self) -> list[int]:
        """The pictures that are kept out of training."""
        return list(held_items(self.pictures, self.config.data.held))

    @torch.no_grad()
    def measure(self, trainer: Trainer, model: DCAE) -> Mapping[str, float]:
        """Return mean PSNR in dB and L1 of the averaged weights on held-out pictures; nothing if none can be read."""
        model.eval()
        errors = []
        with trainer.ema.applied(model), trainer.autocast():
            for pixels in self.centres(self.held):
                errors.append(model(pixels).clamp(-1, 1).float() - pixels)
        if not errors:
            return {}
        psnr = torch.stack([-10 * torch.log10(error.square().mean() / 4) for error in errors])
        return {"psnr": float(psnr.mean()), "l1": float(torch.cat(errors).abs().mean())}

    @torch.no_grad()
    def draw(self, trainer: Trainer, model: DCAE) -> Mapping[str, float]:
        """Write some pictures beside what the averaged weights make of them to `sheet`; measures nothing."""
        if not self.world.leads:
            return {}
        model.eval()
        chosen = self.held or held_items(self.pictures, min(_SHOWN, len(self.pictures)))
        with trainer.ema.applied(model), trainer.autocast():
            pairs = [(x, model(x).float()) for x in islice(self.centres(chosen), _SHOWN)]
        images = [to_image(x) for both in pairs for x in both]
        save_sheet(self.sheet(trainer), make_grid(images, columns=2, gap=_GAP))
        return {}

    def sheet(self, trainer: Trainer) -> Path:
        """Return the path of a step's preview."""
        return self.config.folder / "previews" / f"step-{trainer.step:08d}.png"

    def centres(self, indices: Iterable[int]) -> Iterator[Tensor]:
        """Yield the middle [1, 3, H, W] in -1..1 of each picture that can be read."""
        for index in indices:
            if index in self._bad:
                continue
            try:
                yield self._centre(index)
            except PictureError as error:
                self._bad.add(index)
                self.notify(f"passed over: {self.pictures[index].key}: {error}")

    def _centre(self, index: int) -> Tensor:
        side = self.config.phases[0].size
        crop = crop_for(self.pictures[index], (side, side))
        return to_range(picture_tensor(self.pictures.read(index), crop)[None]).to(self.world.device)
