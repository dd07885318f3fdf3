"""`sanakit bench`: stages of a picture timed side by side with diffusers, with the machine's limit beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.autoencoder import AutoencoderConfig
    from sanakit.base.precision import Precision
    from sanakit.benchmark import Row, Skipped
    from sanakit.benchmark.engines import EngineSpec
    from sanakit.benchmark.workload import Workload

_STAGES = ("text", "step", "decode")
_ALL_STAGES = ",".join(_STAGES)
_SIDES = (16, 32, 64, 128)

_StagesOption = Annotated[
    str, typer.Option(metavar="NAME,...", help="Stages to time: text, step and decode.")
]
_EnginesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Engines to time, ours and others.",
        show_default="sanakit, int8, diffusers, and OpenVINO where it is",
    ),
]
_ModelOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The short name of a published model, or a folder; its weights are random."
    ),
]
_RoundsOption = Annotated[
    int, typer.Option(metavar="N", help="Number of measured rounds; engines take turns.")
]
_MinutesOption = Annotated[
    float,
    typer.Option(
        metavar="X",
        help="Roughly how long everything may take; engines that need far more than their share are left out.",
    ),
]
_DecodersOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Time other decoders of the same latents as well: lite, full.",
        show_default="the model's own",
    ),
]
_FullOption = Annotated[
    bool, typer.Option("--full", help="Time all engines, and how time grows with the size.")
]
_JsonFileOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the rows to this file, too.")
]


def bench(
    stages: _StagesOption = _ALL_STAGES,
    engines: _EnginesOption = None,
    model: _ModelOption = "sana-0.6b-1024",
    decoders: _DecodersOption = None,
    size: o.SizeOption = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Run on cpu or cuda.")] = "cpu",
    dtype: o.DtypeOption = None,
    rounds: _RoundsOption = 3,
    minutes: _MinutesOption = 30.0,
    full: _FullOption = False,
    json_file: _JsonFileOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot the rows to this file.")] = None,
    debug: o.DebugOption = False,
) -> None:
    """Time text, one guided step and decode, ours and diffusers', in one process with the same weights."""
    from sanakit.base.errors import RequestError
    from sanakit.base.files import ensure_writable_folder
    from sanakit.base.precision import decide
    from sanakit.benchmark import bench as run
    from sanakit.benchmark import measure_machine, report

    _check(rounds, minutes)
    precision = decide(device, dtype)
    if full and precision.device.type != "cpu":
        raise RequestError("--full asks how time grows on a CPU: leave it out, or give --device cpu")
    chosen, wanted = _engines(engines, full, precision.device.type), _stages(stages)
    workload = _workload(model, size, precision)
    others = _decoders(decoders, workload)
    for path in (json_file, plot):
        if path is not None:
            ensure_writable_folder(path.parent)
    machine = measure_machine(workload.device)
    say("\n".join(machine.lines()))
    say(report.HEADER)
    rows, without = _print_results(
        run(model, workload, wanted, chosen, machine, rounds, notify, minutes * 60, others)
    )
    say("\n".join(report.ratios(rows)))
    if full:
        _growth(workload, rounds)
    if json_file is not None:
        report.write_json(json_file, machine, rows, without)
    if plot is not None:
        report.write_plot(plot, rows, f"{model}, {workload.width}x{workload.height}")


def _check(rounds: int, minutes: float) -> None:
    from sanakit.base.errors import RequestError

    if rounds < 1:
        raise RequestError(f"rounds must be 1 or more, not {rounds}")
    if not 0 < minutes < float("inf"):
        raise RequestError(f"minutes must be more than 0, not {minutes:g}")


def _print_results(results: Iterator[Row | Skipped]) -> tuple[list[Row], list[Skipped]]:
    """Print results as they come; return rows and skipped engines. Raises RequestError if nothing was timed."""
    from sanakit.base.errors import RequestError
    from sanakit.benchmark import Skipped, report

    rows: list[Row] = []
    without: list[Skipped] = []
    for found in results:
        if isinstance(found, Skipped):
            say(found)
            without.append(found)
        else:
            say(report.line(found))
            rows.append(found)
    if not rows:
        raise RequestError("nothing was timed: every engine was left out, see above")
    return rows, without


def _engines(named: str | None, full: bool, device: str) -> list[EngineSpec]:
    """Return the named engines, which must be able to run; else the usual ones and installed optional peers."""
    from sanakit.benchmark import engines as known
    from sanakit.benchmark.peers import PEERS

    chosen = known.engines_of(_words(named))
    for spec in chosen:
        if spec.peer is not None:
            PEERS[spec.peer].check(spec, device)
    if chosen:
        return chosen
    usual = known.FULL if full else known.DEFAULT if device == "cpu" else known.ON_GPU
    more = known.engines_of(known.OPTIONAL) if device == "cpu" else []
    there = [spec for spec in more if spec.peer is None or not PEERS[spec.peer].missing(spec)]
    return known.engines_of(usual) + there


def _decoders(text: str | None, workload: Workload) -> dict[str, AutoencoderConfig]:
    """Return the named decoders. Raises RequestError for an unknown one, and for one of other latents."""
    from sanakit.base.errors import RequestError
    from sanakit.weights import AUTOENCODERS

    shapes, found = workload.shapes, {}
    for name in _words(text):
        if name not in AUTOENCODERS:
            raise RequestError(f"there is no decoder {name!r} to time: choose from {', '.join(AUTOENCODERS)}")
        config = found[name] = AUTOENCODERS[name].config
        if (config.latent_channels, config.ratio) != (
            shapes.transformer.latent_channels,
            shapes.autoencoder.ratio,
        ):
            raise RequestError(f"the decoder {name} doesn't fit the latents of this model: leave it out")
    return found


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _stages(text: str) -> tuple[str, ...]:
    from sanakit.base.errors import RequestError

    found = _words(text)
    for name in found:
        if name not in _STAGES:
            raise RequestError(f"there is no stage {name!r} to time: choose from {', '.join(_STAGES)}")
    if not found:
        raise RequestError(f"name at least one stage: {', '.join(_STAGES)}")
    return found


def _workload(model: str, size: str | None, precision: Precision) -> Workload:
    from sanakit.base.sizes import Size
    from sanakit.benchmark.workload import Workload
    from sanakit.pipeline.shapes import shapes_of

    shapes = shapes_of(model, note=note)
    side = shapes.transformer.sample_size * shapes.autoencoder.ratio
    drawn = Size.parse(size) if size else Size(side, side)
    drawn.check(shapes.autoencoder.ratio * shapes.transformer.patch_size)
    return Workload(
        shapes=shapes, width=drawn.width, height=drawn.height, dtype=precision.dtype, device=precision.device
    )


def _growth(workload: Workload, rounds: int) -> None:
    from sanakit.benchmark.scaling import attention_table, growth

    for found in growth(workload.shapes.transformer, _SIDES, workload.dtype, rounds):
        say(str(found))
    table = attention_table(rounds)
    say("attention alone, B=4 N=4096 H=16 D=64: " + ", ".join(f"{n} {s:.3f} s" for n, s in table.items()))
