"""Options that several commands share, those that are made from the fields of a request, and the texts they parse."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.cli.say import notify
from sanakit.pipeline.fields import RequestField
from sanakit.pipeline.inputs import changed_inputs, require_inputs
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.request import ImageRequest, request_fields

if TYPE_CHECKING:
    from sanakit.pipeline.png import Record
    from sanakit.weights import Hints

Command = TypeVar("Command", bound=Callable[..., None])

OWN = "the model's own"
_METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The model: `toybox`, a folder, a file of weights, a published short name, or a hub id.",
        show_default="toybox",
    ),
]
PartsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="For a file of weights: the model that provides the text encoder and the autoencoder.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="For a file of weights: the JSON file that describes its network.",
        show_default="x.json beside x.pth",
    ),
]
LikeModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="For a file of weights: the published model or model folder whose network it has.",
        show_default=False,
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        metavar="model|ema",
        help="For a trainer's file: take the model's weights, or their moving average.",
        show_default="model if it is there",
    ),
]
VariantOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Read this variant of the weights, such as fp16 or bf16.", show_default="plain"
    ),
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
LikeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PICTURE.png",
        help="Recreate this picture from the request inside it; other options change it.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="FILE.png for one picture, or a folder in which files get names.",
        show_default="out",
    ),
]
SignOption = Annotated[
    str | None,
    typer.Option(
        metavar="CERT,KEY",
        envvar="SANAKIT_SIGN",
        show_envvar=False,
        help="Sign pictures by C2PA with these two PEM files; also SANAKIT_SIGN=CERT,KEY in the environment.",
        show_default=False,
    ),
]
GridOption = Annotated[
    bool | None,
    typer.Option("--grid/--no-grid", help="Put all pictures on one sheet, too.", show_default="--no-grid"),
]
ShowPromptOption = Annotated[
    bool,
    typer.Option("--show-prompt", help="Print the text that the model reads, too.", show_default=False),
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Decode with another autoencoder: `lite`, RUN/vae of `sanakit train`, that of another model, a hub id.",
        show_default=OWN,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Run on cpu, cuda, cuda:1 or mps.", show_default="auto"),
]
DtypeOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Compute in fp32, bf16 or fp16.", show_default="auto")
]
FastOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How the model runs: off (plain torch), int8, compiled or int8-compiled; on CUDA also graphs, "
        "int8-graphs, fp8 or fp8-graphs.",
        show_default="auto",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use this many CPU threads in every stage.", show_default="auto"),
]
TogetherOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Draw up to N pictures of a count in one batch: faster, and rounded a little differently than alone.",
        show_default="1; with --best-of up to 8 that fit into memory",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Width and height in pixels, multiples of 32; 512 stands for 512x512.",
        show_default=OWN,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line instead of text.", show_default=False)
]
DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", show_default=False)
]


def request_options(*names: str, command: str = "generate") -> Callable[[Command], Command]:
    """Replace `**fields` of a command by options for these fields of a request, else for all that are one option of it.

    `given_fields` reads what the command gets.
    """
    apart = ("prompt", "width", "height")
    wanted = names or [
        entry.name
        for entry in request_fields()
        if command in entry.commands and entry.argument is None and entry.name not in apart
    ]
    options = [_parameter(entry) for entry in request_fields() if entry.name in wanted]

    def change(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        others = [
            one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        first = [one for one in others if one.name in ("picture", "prompt", "requests")]
        rest = [one for one in others if one not in first]
        parameters = [*first, *options, *rest]
        changed: Any = command
        changed.__signature__ = signature.replace(
            parameters=[one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        )
        return command

    return change


def _parameter(entry: RequestField) -> inspect.Parameter:
    """Return a field of a request as a parameter of a command; None if it isn't given."""
    kind: Any = entry.kind if entry.kind in _METAVARS or entry.kind is bool else str
    kind = list[str] if entry.many else kind
    metavar = entry.metavar or _METAVARS.get(entry.kind)
    shown = entry.shown_default or (
        f"{entry.default:g}" if kind in (int, float, bool) else str(entry.default)
    )
    declarations = [entry.option]
    if kind is bool:
        no = entry.option.replace("--", "--no-", 1)
        declarations, shown = [f"{entry.option}/{no}"], entry.option if entry.default else no
    option = typer.Option(*declarations, metavar=metavar, help=entry.help, show_default=shown)
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(entry.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def given_fields(fields: dict[str, Any], record: Record | None = None) -> dict[str, Any]:
    """Return the fields of a request that were given as options, beside the record of a picture to recreate.

    Raises RequestError for a text that can't be parsed.
    """
    entries = {entry.name: entry for entry in request_fields()}
    given = {
        name: _parsed(entries[name], value)
        for name, value in fields.items()
        if value is not None and not (entries[name].many and not value)
    }
    return given | ({"loras": _loras(given["loras"], record)} if "loras" in given else {})


def _loras(texts: Sequence[str], record: Record | None) -> tuple[LoRAFile, ...]:
    """Return the LoRAs of `--lora`; one without a weight or blocks is used as the record's at its place."""
    found = [LoRAFile.parse(text, announce=notify) for text in texts]  # a download is announced
    before = () if record is None else record.request.loras
    return tuple(one.like(before[at]) if at < len(before) else one for at, one in enumerate(found))


def _parsed(entry: RequestField, value: Any) -> Any:
    """Return what an option was given as the field's value; a field that takes texts itself gets them as they are."""
    parse = None if entry.take is not None else _PARSERS.get(entry.kind)
    return value if parse is None else parse(value)


def check_inputs(requests: Sequence[ImageRequest], record: Record | None) -> list[str]:
    """Return a sentence for each input file that isn't the record's.

    Raises RequestError for a file that the record names and nobody gave.
    """
    for request in requests:
        require_inputs(request)
    return [] if record is None else changed_inputs(record.request, requests[0])


def hints_of(config: Path | None, like_model: str | None, weights: str | None, **numbers: Any) -> Hints:
    """Return the options about a file of weights as one value. Raises RequestError."""
    from sanakit.weights import Hints

    if weights not in (None, "model", "ema"):
        raise RequestError(f"--weights is model or ema, not {weights[:40]!r}")
    part: Any = weights
    return Hints(config=config, like_model=like_model, weights=part, **numbers)


def parse_interval(text: str) -> tuple[float, float]:
    """`0.1,0.9` -> (0.1, 0.9). Raises RequestError."""
    try:
        low, high = (float(part) for part in re.split(r"[,:]", text))
    except ValueError:
        raise RequestError(f"a CFG interval looks like 0.1,0.9, not {quoted(text)}") from None
    return low, high


def parse_angles(text: str) -> tuple[float, ...]:
    """`1.5708,1.3` -> (1.5708, 1.3). Raises RequestError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RequestError(
            f"angles are numbers with commas, such as 1.5708,1.3, not {quoted(text)}"
        ) from None


def parse_blocks(text: str) -> tuple[int, ...]:
    """`8,14` -> (8, 14). Raises RequestError."""
    parts = text.split(",")
    if not all(re.fullmatch(r"\s*[0-9]{1,6}\s*", part) for part in parts):
        raise RequestError(f"blocks are numbers from 0 with commas, such as 8,14, not {quoted(text)}")
    return tuple(int(part) for part in parts)


def parse_fields(text: str | None) -> tuple[str, ...]:
    """Read names of fields: `a, b` -> ("a", "b"). Raises RequestError for an empty name."""
    names = () if text is None else tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise RequestError(f"--ignore-config-fields takes names with commas, not {quoted(text)}")
    return names


_PARSERS: dict[Any, Callable[[str], Any]] = {
    tuple[float, float]: parse_interval,
    tuple[float, ...]: parse_angles,
    tuple[int, ...]: parse_blocks,
}
