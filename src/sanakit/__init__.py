"""sanakit: the SANA family of text-to-image models, from prompt to picture.

    import sanakit
    model = sanakit.load("toybox")
    model.images(sanakit.ImageRequest(prompt="a small red cube on grass at noon"))[0].save("cube.png")

Names are resolved when first used, so that `import sanakit` costs no torch import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.base.errors import (
        ConfigError,
        DataError,
        InputError,
        ModelNotFoundError,
        NumericsError,
        OutputError,
        PictureError,
        RequestError,
        SanakitError,
        ShortageError,
        WeightsError,
    )
    from sanakit.pipeline.loading import load
    from sanakit.pipeline.request import ImageRequest

__version__ = "0.1.0"

__all__ = [
    "ConfigError",
    "DataError",
    "ImageRequest",
    "InputError",
    "ModelNotFoundError",
    "NumericsError",
    "OutputError",
    "PictureError",
    "RequestError",
    "SanakitError",
    "ShortageError",
    "WeightsError",
    "__version__",
    "load",
]

_HOMES = {name: "sanakit.base.errors" for name in __all__ if name.endswith("Error")} | {
    "ImageRequest": "sanakit.pipeline.request",
    "load": "sanakit.pipeline.loading",
}


def __getattr__(name: str) -> object:
    """Import the home of a public name on first use. Raises AttributeError for any other name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sanakit' has no attribute {name!r}")
    import_module("sanakit.base.waiting").spin_before_torch()
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, those not yet imported included."""
    return sorted(__all__)
