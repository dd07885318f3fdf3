"""One item to a PNG, by a model that each process opens for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sanakit.base.errors import NumericsError, OutputError, PictureError, RequestError
from sanakit.batch.items import Item
from sanakit.pipeline.events import Done, PictureDone
from sanakit.pipeline.loading import load
from sanakit.pipeline.model import Model
from sanakit.pipeline.png import Record, read_picture, write_picture
from sanakit.pipeline.request import ImageRequest


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a process loads the model: the arguments of `pipeline.load`, `options` those by name.

    Can be sent to another process, and be the key of a cache.
    """

    name: str = "toybox"
    device: str | None = None
    dtype: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def load(self, announce: Callable[[str], object] = lambda text: None) -> Model:
        """Return the model. Raises as `pipeline.load` does."""
        return load(self.name, self.device, self.dtype, announce=announce, **dict(self.options))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An item that is over: its picture is on disk, or `fault` says why there is none. seconds: that it took."""

    key: str
    fault: str = ""
    seconds: float = 0.0


class Drawer:
    """Draws items into a folder; a process has one. Its model is loaded by the first item."""

    def __init__(self, folder: Path, loading: Loading) -> None:
        self.folder = folder
        self.loading = loading

    @cached_property
    def model(self) -> Model:
        """The model of this process."""
        model = self.loading.load()
        model.frugal = False  # other items follow
        return model

    def draw(self, item: Item) -> Drawn:
        """Draw an item, unless its file is there: a job that lost a worker gives the same items to another.

        What is wrong with the item alone is its fault; what is wrong with the model or the disk is raised.
        """
        path = self.folder / item.file
        if path.exists():
            return Drawn(key=item.key)
        seconds = 0.0
        try:
            for event in self.model.generate(item.request):
                if isinstance(event, PictureDone):
                    record = Record(request=event.request, made=self.model.provenance)
                    write_picture(path, event.image, record)
                elif isinstance(event, Done):
                    seconds = sum(event.timings.values())
        except (RequestError, PictureError, NumericsError) as error:
            return Drawn(key=item.key, fault=str(error))
        return Drawn(key=item.key, seconds=seconds)


def check_there(path: Path, request: ImageRequest, model: Model) -> bool:
    """Return whether the picture of a request is there already.

    Raises OutputError for a file of that name that shows another request, or was drawn with other weights.
    """
    if not path.exists():
        return False
    advice = "choose another folder, or take the file away"
    try:
        found = read_picture(path)
    except PictureError as error:
        raise OutputError(f"{error}: {advice}") from None
    if found.request != request.complete(model.defaults):
        raise OutputError(f"{path} shows another request than its line: {advice}")
    if found.made.get("weights") != model.provenance["weights"]:
        raise OutputError(f"{path} was drawn with other weights: {advice}")
    return True
