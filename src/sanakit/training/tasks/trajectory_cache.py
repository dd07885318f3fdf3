"""Trajectories of a run's teacher that are followed before the first step, and kept in its cache.

    number ──▶ picture, caption, noise, scale, levels ──▶ teacher ──▶ points, angles, end     `fill`
    step ──▶ numbers, points of each ──▶ batch                                                 `StoredTrajectories.draw`

They belong to the teacher and the set, like latents: runs of another seed, rate or length share them.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision, autocast
from sanakit.base.seeds import sample_seed
from sanakit.base.sentinel import check_finite
from sanakit.base.text_states import TextStates
from sanakit.base.units import dtype_name
from sanakit.data.cache import TensorCache
from sanakit.data.cache.fill import written
from sanakit.data.cache.index import trajectory_key
from sanakit.data.cache.store import shards_in
from sanakit.data.items import PictureSet
from sanakit.pipeline.components import fingerprint
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message, Progress, with_messages
from sanakit.training.objectives.flow_matching import phase_config
from sanakit.training.objectives.sprint_draws import SprintBatch, draw
from sanakit.training.objectives.sprint_networks import Teacher
from sanakit.training.objectives.trajectory import Levels, Trajectory, follow
from sanakit.training.parallel import World
from sanakit.training.tasks.latents import LatentData, Latents, cache_folder
from sanakit.weights import ModelSpec

_ON_CPU, _ON_GPU = 8, 64
"""Trajectories that are followed at once and share their levels; with fewer a GPU waits for launches."""
_SHARD_BYTES = 32 * 2**20
"""What a process that is killed may lose: a minute or two of the teacher's work."""

ReadCaptions = Callable[[Sequence[str]], TextStates]
"""Captions -> their states [B, L, D], padded to the longest."""


class TrajectoryCache:
    """The trajectories of a run by phase and number; what a number stands for follows from the set and the settings."""

    def __init__(
        self, config: TrainConfig, spec: ModelSpec, precision: Precision, pictures: PictureSet
    ) -> None:
        self.config, self.spec, self.precision, self.pictures = config, spec, precision, pictures
        self.settings = config.sprint.trajectory
        self.folder = cache_folder(config)
        self.together = min(_ON_CPU if precision.device.type == "cpu" else _ON_GPU, config.batch)

    def missing(self) -> list[tuple[int, int]]:
        """(phase, number) of those that the cache lacks."""
        filled = self.wanted > 0 and bool(shards_in(self.folder))
        there = TensorCache(self.folder, read_only=True) if filled else ()
        return [
            (phase, number)
            for phase in range(len(self.config.phases))
            for number in range(self.each)
            if self._key(phase, number) not in there
        ]

    @property
    def each(self) -> int:
        """How many a phase takes; 0 if the run learns from none, or follows new ones in every step."""
        return self.settings.stored if self.settings.weight else 0

    @property
    def wanted(self) -> int:
        """How many there will be, over all phases."""
        return self.each * len(self.config.phases)

    def fill(self, world: World, cached: Latents, load: Callable[[], Teacher]) -> Iterator[Event]:
        """Follow what is missing, each process its share; yield progress and messages.

        cached: latents and text states, filled. load: loads the teacher, only if something is missing. What is done is
        kept however it ends. Raises OutputError.
        """
        lacking = dict.fromkeys((phase, number // self.together) for phase, number in self.missing())
        # By number, not by place: while this process looks, another may have begun to write.
        share = [each for each in lacking if each[1] % world.size == world.rank]
        if not share:
            return
        cache = TensorCache(self.folder, shard_bytes=_SHARD_BYTES)
        data, teacher = self._data(cached, world), load()
        with written(cache):
            yield from with_messages(self._fill(cache, data, teacher, share))
        yield Message(step=0, text=f"followed {len(share) * self.together} trajectories of the teacher")

    def _fill(
        self, cache: TensorCache, data: LatentData, teacher: Teacher, share: Sequence[tuple[int, int]]
    ) -> Iterator[Progress]:
        """Follow groups of (phase, number), one after the other."""
        begun = time.monotonic()
        for done, (phase, group) in enumerate(share, start=1):
            batch = self._batch(data, phase, group)
            self._keep(cache, batch, self._follow(teacher, batch))
            left = (time.monotonic() - begun) / done * (len(share) - done)
            yield Progress(
                label="following trajectories", done=done * self.together,
                total=len(share) * self.together, remaining=left,
            )  # fmt: skip

    def stored(self, read: ReadCaptions) -> tuple[StoredTrajectories, ...]:
        """Open those of every phase. read: captions -> their states."""
        cache = TensorCache(self.folder, read_only=True)
        keys = [
            [self._key(phase, number) for number in range(self.each)]
            for phase in range(len(self.config.phases))
        ]
        return tuple(
            StoredTrajectories(cache, each, self.together, self.settings.points, read) for each in keys
        )

    def _data(self, cached: Latents, world: World) -> LatentData:
        """Return the pictures in an order of their own, which no setting of the run but its set changes."""
        config = replace(self.config, seed=0, batch=self.together, accumulate=1, validate=0)
        return LatentData(config, self.pictures, cached, world)

    def _batch(self, data: LatentData, phase: int, group: int) -> SprintBatch:
        """Return the pictures, captions, noise and scales that a group of numbers stands for."""
        chosen = data.orders[phase].batch(group)
        seeds = [sample_seed(0, group, row) for row in range(self.together)]
        plain = data.make(phase, chosen.indices, seeds, step=group, epoch=chosen.epoch)
        return draw(plain, self.config.sprint).to(self.precision.device)

    def _follow(self, teacher: Teacher, batch: SprintBatch) -> Trajectory:
        """Follow the teacher from a group's noise, or from its pictures with noise, and keep every point."""
        every = replace(self.settings, points=self.settings.steps)
        levels = Levels.draw(batch.step, every, self.spec.schedule.shift)
        phase = self.config.phases[batch.phase]
        size = phase_config(self.spec.transformer, phase, self.spec.autoencoder.ratio)
        guided = partial(teacher.guided, positions=size.positions)
        with autocast(self.precision.device, self.precision.dtype):
            x = levels.start(batch.x0, batch.noise)
            path = follow(x, levels, guided, batch.text, batch.guidance)
        check_finite(path.end, "the teacher")
        return path

    def _keep(self, cache: TensorCache, batch: SprintBatch, path: Trajectory) -> None:
        """Keep all of a group; those beyond `stored` serve a run that wants more."""
        points, angles = torch.stack(path.points, 1), torch.stack(path.angles, 1)  # [B, K, ...]
        for row, caption in enumerate(batch.captions):
            cache.put(
                self._key(batch.phase, batch.step * self.together + row),
                {
                    "points": points[row].half(), "angles": angles[row], "end": path.end[row].half(),
                    "guidance": path.guidance[row], "caption": _to_bytes(caption),
                },
            )  # fmt: skip

    def _key(self, phase: int, number: int) -> str:
        return trajectory_key(number, self.config.phases[phase].size, self._fingerprint)

    @cached_property
    def _fingerprint(self) -> str:
        """A hash of all that a trajectory depends on: teacher, settings, dtype, and the set."""
        data, settings = self.config.data, self.settings
        asked = [
            settings.steps, settings.noise, self.config.sprint.guidance, self.together, data.square, data.held,
            asdict(data.captions), self.spec.schedule.shift, dtype_name(self.precision.dtype),
        ]  # fmt: skip
        digest = hashlib.sha256(fingerprint(self.spec).encode())
        digest.update(json.dumps(asked, sort_keys=True, default=str).encode())
        for item in self.pictures:
            told = [item.key, item.width, item.height, [caption.text for caption in item.captions]]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()


class StoredTrajectories:
    """The trajectories of a phase in the cache.

    keys: of all of them. together: how many in a row have one size. points: that are taken of each. read: captions ->
    states.
    """

    def __init__(
        self, cache: TensorCache, keys: Sequence[str], together: int, points: int, read: ReadCaptions
    ) -> None:
        self.cache, self.points, self.read = cache, points, read
        self.alike: dict[torch.Size, list[str]] = defaultdict(list)
        for first in range(0, len(keys), together):
            size = cache.shape(keys[first], "end")
            if size is None:
                raise self._lost()
            self.alike[size] += keys[first : first + together]

    def draw(self, shared: int, seeds: Sequence[int]) -> Trajectory:
        """Draw one for the seed of each sample, and some points of each.

        shared: a seed that all processes and micro-batches of a step have, for their common size.
        """
        sizes = list(self.alike)
        weights = [len(self.alike[size]) for size in sizes]
        keys = self.alike[random.Random(shared).choices(sizes, weights)[0]]
        rows = [self._row(keys, random.Random(seed)) for seed in seeds]
        columns = {name: [row[name] for row in rows] for name in ("points", "angles", "end", "guidance")}
        return Trajectory(
            points=[torch.stack(each).float() for each in zip(*columns["points"], strict=True)],
            angles=[torch.stack(each) for each in zip(*columns["angles"], strict=True)],
            end=torch.stack(columns["end"]).float(), guidance=torch.stack(columns["guidance"]),
            text=self.read([_from_bytes(row["caption"]) for row in rows]),
        )  # fmt: skip

    def _row(self, keys: Sequence[str], drawn: random.Random) -> dict[str, Tensor]:
        """One trajectory with as many points as are taken, the first among them; a short one repeats it."""
        found = self._get(drawn.choice(keys))
        count = len(found["angles"])
        others = drawn.sample(range(1, count), min(self.points, count) - 1)
        chosen = [0] * (self.points - len(others)) + sorted(others)
        return found | {"points": found["points"][chosen], "angles": found["angles"][chosen]}

    def _get(self, key: str) -> dict[str, Tensor]:
        found = self.cache.get(key)
        if found is None:
            raise self._lost()
        return found

    def _lost(self) -> ConfigError:
        return ConfigError(
            f"the cache {self.cache.folder} lost a trajectory while the run began: resume it, and what is missing "
            "is followed again"
        )


def _to_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode("utf-8", "surrogatepass")), dtype=torch.uint8)


def _from_bytes(text: Tensor) -> str:
    return bytes(text.tolist()).decode("utf-8", "surrogatepass")
