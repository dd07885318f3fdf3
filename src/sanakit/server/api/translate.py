"""From what clients send to an `ImageRequest`: pictures decoded, LoRAs and ControlNets looked up by name."""

from __future__ import annotations

from dataclasses import replace

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, RequestError
from sanakit.data.annotators import Annotator
from sanakit.pipeline.control import Control
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.regions import Region
from sanakit.pipeline.request import ImageRequest
from sanakit.server.api.images import decode_base64
from sanakit.server.api.request_body import ControlChoice, Inputs, LoraChoice, RequestParts
from sanakit.server.service import Service


def image_request(service: Service, body: RequestParts, inputs: Inputs | None = None) -> ImageRequest:
    """Return the request in a body. Raises RequestError or PictureError."""
    given = inputs or Inputs()
    return ImageRequest(
        **body.values,
        source=_picture(service, given.source, "source"),
        mask=_picture(service, given.mask, "mask"),
        loras=tuple(_lora(service, one) for one in body.loras),
        controls=tuple(_control(service, one) for one in body.controls),
        regions=tuple(Region(box=_box(one.box), prompt=one.prompt) for one in body.regions),
    )


def _picture(service: Service, text: str | None, name: str) -> InputImage | None:
    return None if text is None else decode_base64(text, name, service.settings.input_pixels)


def _lora(service: Service, choice: LoraChoice) -> LoRAFile:
    found = service.engine.catalogue.lora(choice.name, choice.weight)
    if choice.sha256 not in (None, found.sha256):
        raise RequestError(f"the LoRA {quoted(choice.name)} here is another file than the one asked for")
    return replace(found, blocks=tuple(choice.blocks))


def _control(service: Service, choice: ControlChoice) -> Control:
    network = service.engine.catalogue.control(choice.name)
    picture = decode_base64(choice.picture, "control", service.settings.input_pixels)
    if choice.annotator is not None:
        drawn = _annotator(choice.annotator).function()(picture.image.convert("RGB"))
        picture = InputImage.of(drawn, f"{choice.annotator}.png")
    return Control(
        network=network,
        picture=picture,
        scale=choice.scale,
        start=choice.start,
        end=choice.end,
        fit=choice.fit,
    )


def _annotator(name: str) -> Annotator:
    try:
        return Annotator(name=name)
    except ConfigError as error:
        raise RequestError(str(error)) from None


def _box(sides: list[float]) -> tuple[float, float, float, float]:
    left, top, width, height = sides
    return left, top, width, height
