"""What `--like` takes from a picture besides its request: the model, how it ran, and why the new one may differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanakit.base.errors import RequestError
from sanakit.cli import options as o
from sanakit.cli.say import note, notify

if TYPE_CHECKING:
    from sanakit.pipeline.model import Model
    from sanakit.pipeline.png import Record
    from sanakit.weights import Hints

_DIFFERENCES = {
    "weights": "other weights",
    "version": "another version of sanakit",
    "torch": "another version of torch",
    "dtype": "another dtype",
    "engine": "another engine",
}
"""Entries of `Model.provenance` that must be the same to recreate a picture exactly."""


def load_like(
    record: Record | None, name: str | None, device: str | None, dtype: str | None, *, hints: Hints, **options: Any
) -> Model:  # fmt: skip
    """Load the named model, else that of the picture to recreate, run as it was there, else toybox.

    hints, options: of `load`; what wasn't given is taken from the picture, unless another model was named.
    """
    from sanakit.pipeline.engine import fast_of
    from sanakit.pipeline.loading import load
    from sanakit.weights import Hints

    made = {} if record is None else record.made
    same = made if name is None else {}  # the picture knows nothing of another model's files
    ignored = options.pop("ignore_config_fields") or o.parse_fields(same.get("ignore_config_fields"))
    # Pictures of ours that name no engine were drawn in plain torch.
    engine = fast_of(made.get("engine", "plain")) if made else None
    options |= {key: options[key] or same.get(key) for key in ("parts", "decoder", "variant")}
    options |= {"fast": options["fast"] or engine, "hints": hints if hints.given else Hints.from_texts(same)}
    name = made.get("model", "toybox") if name is None else name
    dtype = dtype or made.get("dtype")

    def load_on(device: str | None) -> Model:
        return load(name, device, dtype, ignore_config_fields=ignored, announce=notify, **options)

    if device is not None or "device" not in made:
        return load_on(device)
    try:
        return load_on(made["device"])
    except RequestError:
        note(f"the picture was drawn on {made['device']}, which is not here: it will differ a little.")
        return load_on(None)


def differences(record: Record, like: Path | None, model: Model) -> list[str]:
    """Return why a picture can't come out the same, in sentences."""
    here = model.provenance
    return [f"{like}: {note}" for note in record.notes] + [
        f"the picture was drawn with {what} ({record.made[name]}) and may come out different."
        for name, what in _DIFFERENCES.items()
        if record.made.get(name, here[name]) != here[name]
    ]
