"""Labelling on several processes or machines as a Ray Data job; ray is an optional library.

Every worker opens the set and loads the model itself, so both must have the same path on all machines. The
results return to the calling process, which alone writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sanakit.base.errors import ConfigError
from sanakit.data.items import Caption
from sanakit.data.labels.models import LabelModel, load_labeller
from sanakit.data.labels.run import Labelled, label_here
from sanakit.data.source import open_set


def label_with_ray(
    path: Path, indices: Sequence[int], model: LabelModel, batch: int, *, workers: int = 1, gpus: float = 0
) -> Iterator[Labelled]:
    """Label items of the set at `path`; results come in any order.

    Joins the cluster that `RAY_ADDRESS` names, else starts a local one. workers: processes that hold a model each;
    gpus: of each. Raises ConfigError if ray is missing.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError('labelling with --ray needs ray: pip install "sanakit[ray]"') from error
    if not ray.is_initialized():
        ray.init(logging_level="ERROR", log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Two blocks for each worker, so that none is idle at the end.
    blocks = max(1, min(2 * workers, len(indices) // batch))
    items = ray.data.from_items([{"index": index} for index in indices], override_num_blocks=blocks)
    labelled = items.map_batches(
        _Worker, fn_constructor_args=(path, model, batch), batch_size=batch, num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )  # fmt: skip
    for row in labelled.iter_rows():
        captions = zip(row["texts"], row["scores"], row["sources"], strict=True)
        yield Labelled(
            key=str(row["key"]),
            captions=tuple(_caption(*caption) for caption in captions),
            fault=str(row["fault"]),
        )


class _Worker:
    """One process of a job: the set and the model, opened once."""

    def __init__(self, path: Path, model: LabelModel, batch: int) -> None:
        self.pictures = open_set(path)
        self.labeller = load_labeller(model)
        self.batch = batch

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Label the items of these indices; return columns of results."""
        indices = [int(index) for index in rows["index"]]
        found = list(label_here(self.pictures, indices, self.labeller, self.batch))
        return {
            "key": [one.key for one in found],
            "fault": [one.fault for one in found],
            "texts": [[caption.text for caption in one.captions] for one in found],
            "sources": [[caption.source for caption in one.captions] for one in found],
            "scores": [
                [np.nan if caption.score is None else caption.score for caption in one.captions]
                for one in found
            ],
        }


def _caption(text: object, score: float, source: object) -> Caption:
    return Caption(text=str(text), score=None if np.isnan(score) else float(score), source=str(source))
