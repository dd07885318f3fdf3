"""What a server offers, told to clients: its models and files, the annotators, its limits, and the words of Toybox."""

from __future__ import annotations

from sanakit import __version__
from sanakit.data.annotators import ANNOTATORS
from sanakit.server.api.bodies import Capabilities, ToyboxBody
from sanakit.server.service import Service
from sanakit.toybox import grammar, words

_WORLD = "Toybox"  # as the names of its models begin in sanakit.json


def capabilities(service: Service) -> Capabilities:
    """Return what may be asked for."""
    told, settings = service.engine.capabilities(), service.settings
    limits = {**told["limits"], "body": settings.body, "cells": settings.cells}
    return Capabilities.model_validate(
        {
            **told,
            "version": __version__,
            "annotators": list(ANNOTATORS),
            "limits": limits,
            "toybox": _toybox(service),
        }
    )


def _toybox(service: Service) -> ToyboxBody | None:
    abouts = [model.spec.about for model in service.engine.catalogue.models.values()]
    if not any(about is not None and about.name.startswith(_WORLD) for about in abouts):
        return None
    return ToyboxBody(
        shapes={shape: f"{words.SHAPE_WAYS[shape][0]}s" for shape in grammar.SHAPES},
        colours=list(grammar.COLOURS),
        materials=list(grammar.MATERIALS),
        sizes=list(grammar.SIZES),
        relations=list(grammar.RELATIONS),
        floors={floor: words.FLOOR_WAYS[floor][0] for floor in grammar.FLOORS},
        lights={light: words.LIGHT_WAYS[light][0] for light in grammar.LIGHTS},
        most_objects=grammar.MAX_OBJECTS,
    )
