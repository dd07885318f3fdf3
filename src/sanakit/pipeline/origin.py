"""What a model was loaded by, and what an image records of how it was made."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from sanakit import __version__
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.pipeline.components import fingerprint
from sanakit.pipeline.engine import Engine
from sanakit.weights import Hints, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The arguments that a model was loaded by; see `load`."""

    name: str = ""
    parts: str | None = None
    decoder: str | None = None
    hints: Hints = field(default_factory=Hints)
    ignored: tuple[str, ...] = ()

    def provenance(self, spec: ModelSpec, precision: Precision, engine: Engine) -> dict[str, str]:
        """Return how images of the model are made, as texts: these arguments if given, weights and machine."""
        given = {
            "model": self.name or str(spec.folder),
            "parts": self.parts,
            "decoder": self.decoder,
            "variant": spec.variant,
            "ignore_config_fields": ",".join(self.ignored) or None,
            **self.hints.texts,
        }
        return {name: value for name, value in given.items() if value is not None} | {
            "weights": fingerprint(spec),
            "version": __version__,
            "torch": torch.__version__,
            "device": precision.device.type,
            "dtype": dtype_name(precision.dtype),
            "engine": engine.name,
        }
