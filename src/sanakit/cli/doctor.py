"""`sanakit doctor`: what this machine is, what was decided for it and why, and what a model would need."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from sanakit import __version__
from sanakit.base.sizes import Size
from sanakit.base.units import dtype_name
from sanakit.cli.options import (
    DebugOption,
    DeviceOption,
    DtypeOption,
    IgnoreOption,
    JsonOption,
    ModelOption,
    SizeOption,
    parse_fields,
)
from sanakit.cli.say import note, say

if TYPE_CHECKING:
    from sanakit.base.precision import Precision
    from sanakit.pipeline.shapes import Shapes

_LIBRARIES = ("torch", "triton", "transformers", "safetensors", "huggingface-hub", "pillow", "typer")


def doctor(
    model: ModelOption = None,
    size: SizeOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    ignore_config_fields: IgnoreOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print versions, device and dtype with the reason, kernel choices, and memory per stage for a model and size."""
    from sanakit.base.chip import this_chip
    from sanakit.base.precision import decide
    from sanakit.kernels import gpu, tuning
    from sanakit.pipeline.engine import choose_engine, describe_int8
    from sanakit.pipeline.shapes import shapes_of

    name = "toybox" if model is None else model
    shapes = shapes_of(name, ignore=parse_fields(ignore_config_fields), note=note)
    precision = decide(device, dtype)
    engine = choose_engine(None, precision)
    found = {
        "versions": _versions(),
        "device": str(precision.device),
        "dtype": dtype_name(precision.dtype),
        "reason": precision.reason,
        "engine": engine.name,
        "engine_reason": engine.reason,
        "int8": describe_int8(precision),
        "cpu": str(this_chip()),
        "threads": _threads(),
        "gpu": gpu.describe(),
        "tuning": tuning.describe(),
        "kernels": _kernels(shapes, precision),
        "memory": _memory(name, shapes, size, precision),
        "stage_threads": _stage_threads(shapes, size, precision),
    }
    if as_json:
        say(json.dumps(found))
        return
    for line in _lines(found):
        say(line)


def _versions() -> dict[str, str]:
    versions = {"sanakit": __version__, "python": platform.python_version(), "system": platform.platform()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _stage_threads(shapes: Shapes, size: str | None, precision: Precision) -> dict[str, str]:
    """Return how many threads of the CPU each stage gets, and why."""
    from sanakit.pipeline.threads import stage_threads

    side = shapes.transformer.sample_size * shapes.autoencoder.ratio
    drawn = Size.parse(size) if size else Size(side, side)
    chosen = stage_threads(shapes, drawn.width, drawn.height, precision.device)
    return {stage: f"{threads.count} ({threads.reason})" for stage, threads in chosen.items()}


def _kernels(shapes: Shapes, precision: Precision) -> list[str]:
    """One line per implementation, with the reason of those that refuse; attention as the model has it."""
    from sanakit.kernels.choice import Problem, explain, operators

    network = shapes.transformer
    attention = (("rotary", int(network.rotary)), ("width", network.width // network.heads))
    facts = {"linear_attention": attention, "qk_norm_linear_attention": attention}
    place = (precision.device.type, precision.dtype)
    problems = [Problem(op, *place, facts.get(op, ())) for op in operators()]
    return [line for problem in problems for line in explain(problem)]


def _memory(name: str, shapes: Shapes, size: str | None, precision: Precision) -> dict[str, Any]:
    """Bytes per stage; a model that is not on this machine is estimated if its name is a published one.

    The encoder, which edits alone need, is a row of its own and counts in no verdict.
    """
    from sanakit.pipeline.memory import available_bytes, estimate, fits_together
    from sanakit.pipeline.request import ImageRequest

    side = shapes.transformer.sample_size * shapes.autoencoder.ratio
    drawn = Size.parse(size) if size else Size(side, side)
    ImageRequest(prompt="", width=drawn.width, height=drawn.height)  # the same check as of a picture
    *stages, added = estimate(
        shapes, drawn.width, drawn.height, precision.dtype, device=precision.device.type, encode=True
    )
    available = available_bytes(precision.device)
    rows = {
        stage.stage: {"parameters": stage.parameters, "weights": stage.weights, "work": stage.work}
        for stage in (*stages, added)
    }
    largest = max(stage.total for stage in stages)
    return {
        "model": name,
        "size": str(drawn),
        "stages": rows,
        "available": available,
        "together": fits_together(tuple(stages), available),
        "one_by_one": available is None or largest <= available,
    }


def _lines(found: dict[str, Any]) -> list[str]:
    memory = found["memory"]
    lines = [f"{name:16}{version}" for name, version in found["versions"].items()]
    lines += ["", f"{'cpu':16}{found['cpu']}"]
    lines += [f"{'device':16}{found['device']}, {found['threads']} CPU threads"]
    lines += [
        f"{'threads':16}{', '.join(f'{stage} {threads}' for stage, threads in found['stage_threads'].items())}"
    ]
    lines += [f"{'dtype':16}{found['dtype']}", f"{'reason':16}{found['reason']}"]
    lines += [f"{'engine':16}{found['engine']}: {found['engine_reason']}"]
    lines += [f"{'int8':16}{found['int8']}"]
    lines += [f"{'gpu':16}{found['gpu']}", f"{'launches':16}{found['tuning']}", "", "kernels"]
    lines += [f"  {line}" for line in found["kernels"]]
    lines += [
        "",
        f"memory for {memory['model']} at {memory['size']} (weights counted, work estimated; encode is for edits)",
    ]
    lines += [
        f"  {stage:10}{need['parameters'] / 1e6:10.1f} M   "
        f"weights {_size(need['weights'])}   work {_size(need['work'])}"
        for stage, need in memory["stages"].items()
    ]
    here = "unknown" if memory["available"] is None else _size(memory["available"]).strip()
    return [*lines, f"  available {here}: {_verdict(memory)}"]


def _verdict(memory: dict[str, Any]) -> str:
    if memory["together"]:
        return "everything fits at once"
    if memory["one_by_one"]:
        return "it fits stage by stage, each part is freed after its stage"
    return "too little: choose a smaller size or another dtype"


def _size(count: int) -> str:
    return f"{count / 2**30:8.2f} GiB" if count >= 2**30 else f"{count / 2**20:8.1f} MiB"
