"""What requests may name: models, LoRAs and ControlNets, each by the name that the engine was given for it.

A request that is stored knows files by hash alone; `with_files` puts those of the catalogue back into it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import ModelNotFoundError, RequestError
from sanakit.flow import SOLVERS
from sanakit.pipeline.control import Control, ControlFile
from sanakit.pipeline.loading import load
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.model import Model
from sanakit.pipeline.request import MAX_SIDE, ImageRequest
from sanakit.server.engine.config import EngineConfig


class Catalogue:
    """The models, LoRAs and ControlNets of an engine. Reads configurations and LoRAs, and no weights of models.

    Raises ModelNotFoundError, ConfigError, WeightsError or RequestError for what can't be used.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.models: dict[str, Model] = {
            name: load(
                name, config.device, config.dtype, decoder=config.decoder, fast=config.fast,
                threads=config.threads, swap_loras=bool(config.loras),
            )
            for name in config.models
        }  # fmt: skip
        if not self.models:
            raise ModelNotFoundError("an engine needs at least one model")
        self.loras = {name: LoRAFile.read(path) for name, path in config.loras.items()}
        self.controls = {name: ControlFile.take(path) for name, path in config.controls.items()}

    @property
    def default(self) -> str:
        """The name of the first model."""
        return next(iter(self.models))

    def model(self, name: str) -> Model:
        """Return a model by its name. Raises ModelNotFoundError."""
        if name not in self.models:
            raise ModelNotFoundError(f"there is no model {quoted(name)} here: {', '.join(self.models)}")
        return self.models[name]

    def lora(self, name: str, weight: float = 1.0) -> LoRAFile:
        """Return a LoRA by its name, at a weight. Raises RequestError."""
        if name not in self.loras:
            raise RequestError(f"there is no LoRA {quoted(name)} here: {', '.join(self.loras) or 'none'}")
        return replace(self.loras[name], weight=weight)

    def control(self, name: str) -> ControlFile:
        """Return a ControlNet by its name. Raises RequestError."""
        if name not in self.controls:
            raise RequestError(
                f"there is no control {quoted(name)} here: {', '.join(self.controls) or 'none'}"
            )
        return self.controls[name]

    def with_files(self, request: ImageRequest) -> ImageRequest:
        """Return a stored request with its LoRAs and ControlNets. Raises RequestError for one that is gone."""
        loras = {each.sha256: each for each in self.loras.values()}
        controls = {each.sha256: each for each in self.controls.values()}

        def lora(one: LoRAFile) -> LoRAFile:
            if one.sha256 not in loras:
                raise RequestError(f"the LoRA {one.shown} is not offered here any more")
            return replace(one, lora=loras[one.sha256].lora)

        def control(one: Control) -> Control:
            if one.network.sha256 not in controls:
                raise RequestError(f"the control {one.network.shown} is not offered here any more")
            return replace(one, network=controls[one.network.sha256])

        if not request.loras and not request.controls:
            return request
        return replace(
            request, loras=tuple(map(lora, request.loras)), controls=tuple(map(control, request.controls))
        )

    def describe(self) -> dict[str, Any]:
        """Return what clients may ask for, as JSON."""
        config = self.config
        return {
            "models": [self._describe(name, model) for name, model in self.models.items()],
            "loras": [{"name": name} for name in self.loras],
            "controls": [{"name": name} for name in self.controls],
            "limits": {
                "queue": config.queue, "count": config.count, "steps": config.steps, "pixels": config.pixels,
                "keep_days": config.keep_days, "keep_pictures": config.keep_pictures,
            },
        }  # fmt: skip

    def _describe(self, name: str, model: Model) -> dict[str, Any]:
        spec, defaults = model.spec, model.defaults
        few = spec.schedule.kind == "scm"
        solvers = [row.name for row in SOLVERS.values() if row.consistency == few]
        about = spec.about
        return {
            "name": name,
            "default": name == self.default,
            "defaults": {
                "width": defaults.width, "height": defaults.height, "steps": defaults.steps,
                "guidance": defaults.guidance, "solver": defaults.solver,
            },
            "solvers": solvers,
            "few_steps": few,
            "about": None if about is None else f"{about.name} draws {about.draws}",
            "words": None if about is None else list(about.knows),
            "edit": True,
            "max_side": MAX_SIDE,
        }  # fmt: skip
