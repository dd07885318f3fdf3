"""`sanakit data caption`, `score` and `filter`: captions by a model, scores of captions, pictures chosen by them."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sanakit.cli import options as o
from sanakit.cli.say import note, notify, say

if TYPE_CHECKING:
    from sanakit.data.items import PictureSet
    from sanakit.data.labels.models import LabelModel
    from sanakit.data.labels.run import LabelReport

SetArgument = Annotated[
    Path, typer.Argument(help="A folder of pictures, a .tar, or a pattern of shards.", show_default=False)
]
_BatchOption = Annotated[
    int, typer.Option(metavar="N", help="Number of pictures that go through the model together.")
]
_EveryOption = Annotated[int, typer.Option(metavar="N", help="Write labels each time this many are ready.")]
_RayOption = Annotated[bool, typer.Option("--ray", help="Run as a job of Ray Data.")]
_WorkersOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --ray: number of processes, each with a model.", show_default="1"),
]
_GpusOption = Annotated[
    float | None,
    typer.Option(metavar="X", help="With --ray: number of GPUs for each process.", show_default="0"),
]


def caption(
    path: SetArgument,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="A vision-language model: a folder, a hub id, or toybox.")
    ],
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The instruction that the model gets with each picture.",
            show_default="to describe the picture",
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(metavar="N", help="Most tokens that a caption may have.")] = 128,
    batch: _BatchOption = 8,
    every: _EveryOption = 512,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    ray: _RayOption = False,
    workers: _WorkersOption = None,
    gpus: _GpusOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Write a caption of every picture that has none by this model yet, into captions.jsonl beside the set."""
    from sanakit.data.labels.labellers import lacks_caption
    from sanakit.data.labels.models import LabelModel

    chosen = LabelModel(
        task="caption", name=model, device=device, dtype=dtype, instruction=instruction, max_tokens=max_tokens
    )
    pictures = _open(path, batch, every)
    wanted = [index for index, item in enumerate(pictures) if lacks_caption(item, model)]
    report = _label(pictures, wanted, chosen, batch, every, _spread(ray, workers, gpus))
    _print_report(report, "captioned", {"had a caption of this model": len(pictures) - len(wanted)}, as_json)


def score(
    path: SetArgument,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A CLIP or SigLIP model: a folder, a hub id, open_clip:MODEL/WEIGHTS, or toybox.",
        ),
    ],
    again: Annotated[bool, typer.Option("--again", help="Score again captions that have a score.")] = False,
    batch: _BatchOption = 16,
    every: _EveryOption = 512,
    device: o.DeviceOption = None,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Compute in fp32, bf16 or fp16; half precision changes scores by tenths."
        ),
    ] = "fp32",
    ray: _RayOption = False,
    workers: _WorkersOption = None,
    gpus: _GpusOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Score the captions of every picture that has one without a score: 100 x cosine, into captions.jsonl."""
    from sanakit.data.labels.labellers import lacks_score
    from sanakit.data.labels.models import LabelModel

    chosen = LabelModel(task="score", name=model, device=device, dtype=dtype)
    pictures = _open(path, batch, every)
    wanted = [k for k, item in enumerate(pictures) if lacks_score(item) or (again and item.captions)]
    bare = sum(not item.captions for item in pictures)
    report = _label(pictures, wanted, chosen, batch, every, _spread(ray, workers, gpus))
    others = {"had scores": len(pictures) - len(wanted) - bare, "have no caption": bare}
    _print_report(report, "scored", others, as_json)


def filter_set(
    path: SetArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The list to write, one key per line.", show_default=False)
    ],
    score: Annotated[
        float, typer.Option(metavar="X", help="List pictures whose best caption scores above this.")
    ] = 25.0,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """List the pictures whose best caption scores above a threshold, for training on them alone."""
    from sanakit.base.errors import DataError
    from sanakit.data.labels.select import keys_above, write_keys
    from sanakit.data.source import open_set

    pictures = open_set(path)
    keys, unscored = keys_above(pictures, score)
    if unscored == len(pictures):
        raise DataError(
            f"no caption of {path} has a score: run `sanakit data score {path} --model ...` first"
        )
    if not keys:
        raise DataError(f"no caption of {path} scores above {score:g}, so nothing was written")
    unlisted = write_keys(out, keys)
    for key in unlisted[:5]:
        note(f"{key!r} has a line break in its name and can't be listed")
    keys = [key for key in keys if key not in unlisted]
    facts = {"list": str(out), "chosen": len(keys), "pictures": len(pictures), "unscored": unscored}
    words = f"{out}  ({len(keys)} of {len(pictures)} pictures score above {score:g}"
    words += f"; {unscored} have no score and are not among them)" if unscored else ")"
    say(json.dumps(facts) if as_json else words)


def _open(path: Path, batch: int, every: int) -> PictureSet:
    from sanakit.base.errors import RequestError
    from sanakit.data.image import ignore_warnings
    from sanakit.data.source import open_set

    ignore_warnings()
    if batch < 1 or every < 1:
        raise RequestError(f"--batch and --every must be 1 or more, not {min(batch, every)}")
    return open_set(path)


def _spread(ray: bool, workers: int | None, gpus: float | None) -> dict[str, Any] | None:
    """Return arguments for a Ray job; None for this process alone."""
    from sanakit.base.errors import RequestError

    if not ray and (workers is not None or gpus is not None):
        raise RequestError("--workers and --gpus are for --ray: add it, or leave them out")
    if (workers or 1) < 1 or (gpus or 0) < 0:
        raise RequestError("--workers must be 1 or more, and --gpus not below 0")
    return {"workers": workers or 1, "gpus": gpus or 0} if ray else None


def _label(
    pictures: PictureSet,
    wanted: list[int],
    model: LabelModel,
    batch: int,
    every: int,
    spread: dict[str, Any] | None,
) -> LabelReport | None:
    """Label the wanted items; without any, the model is not loaded."""
    from sanakit.cli.progress import ProgressBar
    from sanakit.data.labels.models import fetch_model, load_labeller
    from sanakit.data.labels.ray import label_with_ray
    from sanakit.data.labels.run import label_here, write_labelled

    if not wanted:
        return None
    if spread is None:
        results = label_here(pictures, wanted, load_labeller(model, notify), batch)
    else:
        fetch_model(model, notify)
        results = label_with_ray(pictures.path, wanted, model, batch, **spread)
    last: LabelReport | None = None
    label = "captioning" if model.task == "caption" else "scoring"
    walk = write_labelled(pictures, results, len(wanted), every=every)
    with closing(walk), ProgressBar() as bar:  # closed, whatever happens: so it writes what it has
        for last in walk:
            bar.update(label, last.done, last.total, last.remaining)
    return last


def _print_report(report: LabelReport | None, done: str, others: dict[str, int], as_json: bool) -> None:
    """Print how many pictures were labelled, how many had labels, and the first few faults."""
    faults = report.faults if report else ()
    written = report.written if report else 0
    if as_json:
        plain = [{"key": one.key, "text": one.fault} for one in faults]
        counts = {name.replace(" ", "_"): count for name, count in others.items()}
        say(json.dumps({done: written, **counts, "faults": plain}))
        return
    known = [f"{count} {name}" for name, count in others.items() if count]
    failed = [f"{len(faults)} could not be"] if faults else []
    say(", ".join([f"{written} pictures {done}", *known, *failed]))
    for one in faults[:5]:
        note(f"{one.key}: {one.fault}")
