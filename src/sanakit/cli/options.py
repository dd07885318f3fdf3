"""The options of the commands with their help, and the small texts they parse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.base.echo import quoted

if TYPE_CHECKING:
    from sanakit.weights import Hints

_OWN = "the model's own"

PromptArgument = Annotated[str | None, typer.Argument(help="What to draw.", show_default=False)]
ModelOption = Annotated[
    str | None,
    typer.Option(
        help="A model folder, a file of weights, a hub id, or the shipped `toybox`.", show_default="toybox"
    ),
]
PartsOption = Annotated[
    str | None,
    typer.Option(
        help="For a file of weights: the model that gives text encoder and autoencoder.", show_default=False
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="For a file of weights: the JSON file that describes its network.",
        show_default=False,
    ),
]
LikeModelOption = Annotated[
    str | None,
    typer.Option(
        help="For a file of weights: the published model (or model folder) it is like, e.g. sana-1.6b-4k.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="For a trainer's file: model, or ema for the moving average.",
        show_default="model if it is there",
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(help="Weights such as fp16 or bf16 of the model, where it has them.", show_default="plain"),
]
IgnoreOption = Annotated[
    str | None,
    typer.Option(
        "--ignore-config-fields",
        metavar="NAME,...",
        help="Read configuration files as if they lacked these fields.",
        show_default=False,
    ),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(help="Whose autoencoder makes the picture: RUN/vae, or another model.", show_default=_OWN),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, mps or auto.", show_default="auto")
]
DtypeOption = Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or auto.", show_default="auto")]
FastOption = Annotated[
    str | None,
    typer.Option(
        help="auto, off (plain torch), int8, compiled, int8-compiled; on CUDA also graphs, fp8 and both with graphs.",
        show_default="auto",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(help="CPU threads; chosen by the size of the work unless given.", show_default="auto"),
]
NegativeOption = Annotated[str | None, typer.Option(help="What to keep away from.", show_default=False)]
StepsOption = Annotated[int | None, typer.Option(help="Solver steps.", show_default=_OWN)]
GuidanceOption = Annotated[
    float | None,
    typer.Option(help="How strictly to follow the prompt; 1 for no guidance.", show_default=_OWN),
]
SeedOption = Annotated[int | None, typer.Option(help="Picture k is drawn with seed + k.", show_default="0")]
SizeOption = Annotated[
    str | None, typer.Option(metavar="WxH", help="Pixels, multiples of 32.", show_default=_OWN)
]
CountOption = Annotated[int | None, typer.Option(help="Pictures per prompt.", show_default="1")]
GridOption = Annotated[
    bool | None,
    typer.Option("--grid/--no-grid", help="Put all pictures on one sheet too.", show_default="no-grid"),
]
SolverOption = Annotated[str | None, typer.Option(help="dpm1, dpm2, dpm3, euler or scm.", show_default=_OWN)]
OutOption = Annotated[
    Path | None,
    typer.Option(help="FILE.png for one picture, or a folder that gets named files.", show_default="out"),
]
PromptFileOption = Annotated[
    Path | None, typer.Option(help="One prompt per line; - reads standard input.", show_default=False)
]
ChiOption = Annotated[
    bool | None,
    typer.Option(
        "--chi/--no-chi", help="Use the instruction the model was trained with.", show_default="chi"
    ),
]
TruncateOption = Annotated[
    bool | None,
    typer.Option(
        "--truncate/--no-truncate", help="Cut a prompt that is too long.", show_default="no-truncate"
    ),
]
ShowPromptOption = Annotated[bool, typer.Option("--show-prompt", help="Print the text the model reads, too.")]
LikeOption = Annotated[
    Path | None, typer.Option(help="Recreate this picture; other options change it.", show_default=False)
]
IntervalOption = Annotated[
    str | None,
    typer.Option(metavar="LOW,HIGH", help="Guide only in this part of the noise range.", show_default="0,1"),
]
PagOption = Annotated[
    float | None, typer.Option(help="Scale of perturbed attention guidance.", show_default="0")
]
PagBlocksOption = Annotated[
    str | None,
    typer.Option(metavar="N,...", help="Transformer blocks that --pag perturbs, from 0.", show_default=_OWN),
]
BinsOption = Annotated[
    bool | None,
    typer.Option(
        "--bins/--no-bins", help="Draw at the nearest trained size and scale to --size.", show_default="bins"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def hints_of(config: Path | None, like_model: str | None, weights: str | None, **numbers: Any) -> Hints:
    """What was said about a file of weights. Raises RequestError."""
    from sanakit.base.errors import RequestError
    from sanakit.weights import Hints

    if weights not in (None, "model", "ema"):
        raise RequestError(f"--weights is model or ema, not {weights[:40]!r}.")
    return Hints(config=config, like_model=like_model, weights=weights, **numbers)  # type: ignore[arg-type]


def parse_size(text: str) -> tuple[int, int]:
    """`512x768` -> (512, 768), width first; one number stands for a square. Raises RequestError."""
    match = re.fullmatch(r"\s*(\d{1,6})(?:[xX×](\d{1,6}))?\s*", text)
    if match is None:
        from sanakit.base.errors import RequestError

        raise RequestError(f"a size looks like 512x768 (width x height), not {quoted(text)}.")
    return int(match[1]), int(match[2] or match[1])


def parse_interval(text: str) -> tuple[float, float]:
    """`0.1,0.9` -> (0.1, 0.9). Raises RequestError."""
    try:
        low, high = (float(part) for part in re.split(r"[,:]", text))
    except ValueError:
        from sanakit.base.errors import RequestError

        raise RequestError(f"a CFG interval looks like 0.1,0.9, not {quoted(text)}.") from None
    return low, high


def parse_blocks(text: str) -> tuple[int, ...]:
    """`8,14` -> (8, 14). Raises RequestError."""
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,6}\s*", part) for part in parts):
        from sanakit.base.errors import RequestError

        raise RequestError(f"blocks are numbers from 0 with commas, such as 8,14, not {quoted(text)}.")
    return tuple(int(part) for part in parts)


def parse_fields(text: str | None) -> tuple[str, ...]:
    """`a, b` -> ("a", "b"): names of fields. Raises RequestError where there is none between two commas."""
    names = () if text is None else tuple(name.strip() for name in text.split(","))
    if not all(names):
        from sanakit.base.errors import RequestError

        raise RequestError(f"--ignore-config-fields takes names with commas, not {quoted(text)}.")
    return names
