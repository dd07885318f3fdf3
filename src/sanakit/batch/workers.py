"""Who draws the items of a batch: this process, or several on this machine; Ray's is in `ray.py`.

`Workers` take the folder, how the model is loaded and the items, and yield what is over, in any order. An item may
be given twice, to a second process after the first has died: whoever finds its file there draws nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from sanakit.base.errors import SanakitError
from sanakit.batch.draw import Drawer, Drawn, Loading
from sanakit.batch.items import Item

_FRUITLESS = (
    3  # pools that may die without a picture: the first process to grow too large takes the others along
)
Workers = Callable[[Path, Loading, Sequence[Item]], Iterator[Drawn]]


def draw_here(folder: Path, loading: Loading, items: Sequence[Item]) -> Iterator[Drawn]:
    """Draw one item after the other in this process."""
    drawer = Drawer(folder, loading)
    for item in items:
        yield drawer.draw(item)


def in_processes(workers: int) -> Workers:
    """Return workers that are processes of this machine, each with a model and its share of the cores."""
    return partial(_draw_in_processes, workers)


def _draw_in_processes(
    workers: int, folder: Path, loading: Loading, items: Sequence[Item]
) -> Iterator[Drawn]:
    """Draw in pools: a process that dies takes its pool along, and another draws the rest while that gets anywhere.

    Raises SanakitError if pools die before they have drawn anything.
    """
    shared = share_cores(loading, workers)
    left = {item.key: item for item in items}
    fruitless = 0
    while left:
        before = len(left)
        with ProcessPoolExecutor(min(workers, before), mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(_draw, folder, shared, item) for item in left.values()]
            try:
                for future in as_completed(futures):
                    drawn = future.result()
                    del left[drawn.key]
                    yield drawn
            except BrokenProcessPool:
                fruitless = fruitless + 1 if len(left) == before else 0
                if fruitless == _FRUITLESS:
                    raise SanakitError(
                        f"worker processes ended {_FRUITLESS} times before a picture was drawn, perhaps for lack of "
                        "memory: ask for fewer workers"
                    ) from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # when the caller stops


def share_cores(loading: Loading, workers: int) -> Loading:
    """Return the same with the threads of one of so many processes, unless a number was asked for."""
    options = dict(loading.options)
    if options.get("threads") is None:
        options["threads"] = max(1, (os.cpu_count() or 1) // workers)
    return replace(loading, options=tuple(options.items()))


def _draw(folder: Path, loading: Loading, item: Item) -> Drawn:
    return drawer_of(folder, loading).draw(item)


@cache
def drawer_of(folder: Path, loading: Loading) -> Drawer:
    """Return the drawer of a worker process, which keeps its model between items."""
    return Drawer(folder, loading)
