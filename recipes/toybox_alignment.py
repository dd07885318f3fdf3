"""What each cell of a latent shows, and a head that reads it from the transformer's tokens while it trains.

Representation alignment (arXiv 2410.06940) pulls the tokens of a middle block towards those of a frozen network that
knows pictures. Toybox needs no such network: its renderer knows what every ray meets. The head is the training's alone:
the transformer's forward pass does not change, and no model folder holds the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recipes.toybox_model import Captions, TextToVelocity
from sanakit.toybox.camera import camera_of, screen_points
from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, MATERIALS, SHAPES, SIZES, Scene
from sanakit.toybox.shapes import Solid, interval, move_in, solid_row, turn_in
from sanakit.transformer import TransformerConfig

CELLS = 8  # positions of the latent along a side
KINDS = ("sky", "floor", "object")
WORDS = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS, "size": SIZES}
PLACE = {"floor": FLOORS, "light": LIGHTS}
NOTHING = -1  # where a cell shows no object
_RAYS = 4  # of a cell along a side
_SEEN = 6  # of 16 rays must meet an object: small ones far away cover no cell by half
_SCENES = 64  # cast at once


@dataclass(frozen=True)
class Cells:
    """What pictures show.

    things: int8 [n, 5, 8, 8], of each cell its number in `KINDS`, then shape, colour, material and size of the object
    that it shows, or `NOTHING`. places: int8 [n, 2], floor and light.
    """

    things: Tensor
    places: Tensor

    @property
    def shown(self) -> Tensor:
        """Where an object is, [n, 1, 8, 8] of 0 and 1."""
        return (self.things[:, :1] == KINDS.index("object")).float()

    def __getitem__(self, rows: Sequence[int] | Tensor) -> Cells:
        return Cells(self.things[rows], self.places[rows])

    def to(self, device: torch.device) -> Cells:
        """The same on a device."""
        return Cells(self.things.to(device), self.places.to(device))


def cells_of(scenes: Sequence[Scene]) -> Cells:
    """What the cells of rendered scenes show, by 4 x 4 rays each."""
    things = torch.empty(len(scenes), 5, CELLS, CELLS, dtype=torch.int8)
    by_count = sorted(range(len(scenes)), key=lambda row: len(scenes[row].objects))
    for _, group in groupby(by_count, key=lambda row: len(scenes[row].objects)):
        rows = list(group)
        for at in range(0, len(rows), _SCENES):
            some = rows[at : at + _SCENES]
            things[some] = _things([scenes[row] for row in some])
    places = [[FLOORS.index(scene.floor), LIGHTS.index(scene.light)] for scene in scenes]
    return Cells(things, torch.tensor(places, dtype=torch.int8).reshape(-1, 2))


def _things(scenes: Sequence[Scene]) -> Tensor:
    """Of scenes with K objects each: [B, 5, 8, 8]."""
    first, above = _first_met(scenes)  # [B, R]
    met = F.one_hot(first + 1, 1 + len(scenes[0].objects))[..., 1:]  # [B, R, K]
    share = _by_cell(met.movedim(2, 1).float())  # [B, K, 8, 8] of the rays
    most, item = share.max(dim=1)
    sky = _by_cell((above & (first < 0)).float()[:, None])[:, 0] > 0.5 * (1 - share.sum(1))
    shown = most * _RAYS**2 >= _SEEN - 0.5
    kind = torch.where(
        shown, KINDS.index("object"), torch.where(sky, KINDS.index("sky"), KINDS.index("floor"))
    )
    words = torch.tensor([[_numbers(scene, k) for k in range(met.shape[2])] for scene in scenes])  # [B, K, 4]
    named = words.movedim(2, 1)[..., None, None].expand(-1, -1, -1, CELLS, CELLS)  # [B, 4, K, 8, 8]
    index = item[:, None, None].expand(-1, len(WORDS), 1, -1, -1)
    said = torch.where(shown[:, None], named.gather(2, index)[:, :, 0], NOTHING)
    return torch.cat([kind[:, None], said], dim=1).to(torch.int8)


def _first_met(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """The object that each ray meets first, [B, R], -1 for none; and whether it rises above the horizon, [B, R]."""
    u, v = screen_points(CELLS * _RAYS, CELLS * _RAYS)
    cameras = [camera_of(scene) for scene in scenes]
    eye, right, up, forward = (
        torch.tensor([getattr(camera, name) for camera in cameras])  # [B, 3]
        for name in ("eye", "right", "up", "forward")
    )
    rays = forward[:, :, None] + u * right[:, :, None] + v * up[:, :, None]  # [B, 3, R]
    rows = torch.tensor([[solid_row(item) for item in scene.objects] for scene in scenes])  # [B, K, 11]
    solid = Solid(*(column[..., None] for column in rows.unbind(2)))  # [B, K, 1] each
    ray_x, ray_y, ray_z = rays[:, :, None].unbind(1)  # [B, 1, R]
    eye_x, eye_y, eye_z = eye[:, :, None, None].unbind(1)  # [B, 1, 1]
    near, far = interval(solid, move_in(solid, (eye_x, eye_y, eye_z)), turn_in(solid, (ray_x, ray_y, ray_z)))
    met = (far > near) & (near > 0)  # [B, K, R]
    first = torch.where(met, near, torch.inf).argmin(1)
    return torch.where(met.any(1), first, -1), rays[:, 1] >= 0


def _by_cell(rays: Tensor) -> Tensor:
    """[B, K, R] -> means [B, K, 8, 8]."""
    side = CELLS * _RAYS
    return F.avg_pool2d(rays.unflatten(-1, (side, side)), _RAYS)


def _numbers(scene: Scene, item: int) -> list[int]:
    return [known.index(getattr(scene.objects[item], name)) for name, known in WORDS.items()]


class AlignmentHead(nn.Module):
    """Tokens of a block to words: kind and attributes for each cell, floor and light for the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = {"kind": len(KINDS), **{name: len(known) for name, known in WORDS.items()}}
        self.cells = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, sum(self.sizes.values())),
        )
        self.places = {name: len(known) for name, known in PLACE.items()}
        self.picture = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.places.values())))

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """tokens [B, 64, D] -> logits: of kind and attributes [B, 64, classes], of floor and light [B, classes]."""
        cells = self.cells(tokens).split(list(self.sizes.values()), dim=-1)
        places = self.picture(tokens.mean(1)).split(list(self.places.values()), dim=-1)
        return dict(zip([*self.sizes, *self.places], [*cells, *places], strict=True))


class Aligned(nn.Module):
    """Both networks, and a head that reads the tokens after a block of the transformer."""

    def __init__(self, joint: TextToVelocity, block: int) -> None:
        super().__init__()
        config: TransformerConfig = joint.transformer.config
        self.joint, self.head = joint, AlignmentHead(config.width)
        # Empty between two passes: a graph is compiled for what a list holds.
        self._tokens: list[Tensor] = []
        joint.transformer.blocks[block].register_forward_hook(self._keep)

    def forward(
        self, latent: Tensor, time: Tensor, captions: Captions
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As `TextToVelocity`, and the head's logits."""
        velocity, misplaced = self.joint(latent, time, captions)
        return velocity, misplaced, self.head(self._tokens.pop())

    def _keep(self, block: nn.Module, inputs: object, tokens: Tensor) -> None:
        self._tokens[:] = [tokens]


def alignment_loss(logits: dict[str, Tensor], cells: Cells) -> Tensor:
    """The mean cross-entropy of all that is asked; attributes only in cells that show an object."""
    losses = [_entropy(logits[name], wanted) for name, wanted in _wanted(cells).items()]
    return torch.stack(losses).mean()


def _entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    total = F.cross_entropy(
        logits.flatten(0, -2).float(), wanted.flatten(), ignore_index=NOTHING, reduction="sum"
    )
    return total / (wanted != NOTHING).sum().clamp_min(1)


def hits(logits: dict[str, Tensor], cells: Cells) -> dict[str, tuple[int, int]]:
    """How often the head is right, of how many: by what is asked."""
    found = {}
    for name, wanted in _wanted(cells).items():
        asked = wanted != NOTHING
        right = (logits[name].argmax(-1) == wanted) & asked
        found[name] = int(right.sum()), int(asked.sum())
    return found


def _wanted(cells: Cells) -> dict[str, Tensor]:
    """By the names of the logits: [B, 64] of cells, [B] of pictures."""
    things = cells.things.flatten(2).long().unbind(1)
    places = cells.places.long().unbind(1)
    return dict(zip(["kind", *WORDS, *PLACE], [*things, *places], strict=True))
