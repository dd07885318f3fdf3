"""A batch as a Ray Data job, on this machine or a cluster whose machines share the folder; ray is optional."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sanakit.base.errors import ConfigError
from sanakit.batch.draw import Drawer, Drawn, Loading
from sanakit.batch.items import Item
from sanakit.batch.workers import Workers, share_cores


def on_ray(workers: int, gpus: float = 0.0) -> Workers:
    """Return workers that are Ray actors, each with a model. gpus: of each. Raises ConfigError if ray is missing.

    A worker that dies is replaced by Ray, and its items are given to another, which passes over those that are there.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ConfigError('--engine ray needs ray: pip install "sanakit[ray]"') from error
    return partial(_draw_on_ray, workers, gpus)


def _draw_on_ray(
    workers: int, gpus: float, folder: Path, loading: Loading, items: Sequence[Item]
) -> Iterator[Drawn]:
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    shared = loading if gpus else share_cores(loading, workers)
    rows = ray.data.from_items(
        [{"item": item} for item in items], override_num_blocks=max(1, min(len(items), 4 * workers))
    )
    drawn = rows.map_batches(
        _Worker, fn_constructor_args=(folder.resolve(), shared), batch_size=1, num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )  # fmt: skip
    for row in drawn.iter_rows():
        yield Drawn(key=str(row["key"]), fault=str(row["fault"]), seconds=float(row["seconds"]))


class _Worker:
    """One process of a job."""

    def __init__(self, folder: Path, loading: Loading) -> None:
        self.drawer = Drawer(folder, loading)

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Items -> columns of what became of them."""
        drawn = [self.drawer.draw(item) for item in rows["item"]]
        return {
            "key": [one.key for one in drawn],
            "fault": [one.fault for one in drawn],
            "seconds": [one.seconds for one in drawn],
        }
