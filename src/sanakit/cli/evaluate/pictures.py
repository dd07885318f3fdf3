"""`sanakit evaluate pictures FOLDER`: how well pictures show the prompts that they carry, by a judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.best_of import JUDGES
from sanakit.cli.say import note, notify, say

_FolderArgument = Annotated[
    Path, typer.Argument(help="A folder of pictures that carry their prompts.", show_default=False)
]
_JudgeOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Who scores: {JUDGES}.",
        show_default=False,
    ),
]


def pictures(
    folder: _FolderArgument,
    judge: _JudgeOption,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the score of every picture here, too."),
    ] = None,
    device: o.DeviceOption = None,
    dtype: Annotated[str, typer.Option(metavar="NAME", help="Compute in fp32, bf16 or fp16.")] = "fp32",
    debug: o.DebugOption = False,
) -> None:
    """Score pictures by the prompts inside them; nothing is drawn."""
    from sanakit.base.files import atomic_write, ensure_writable_folder
    from sanakit.cli.progress import ProgressBar
    from sanakit.data.labels.models import LabelModel, load_scorer
    from sanakit.evaluation.pictures import find_pictures, mean_of, score_pictures

    if json_file is not None:
        ensure_writable_folder(json_file.parent)
    found, without = find_pictures(folder)
    if without:
        note(f"{len(without)} files hold no prompt and are left out, such as {without[0].name}.")
    scorer = load_scorer(LabelModel(task="score", name=judge, device=device, dtype=dtype), notify)
    with ProgressBar() as bar:
        scores = list(bar.follow("judging", score_pictures(found, scorer), len(found)))
    summary = mean_of([one.score for one in scores])
    say(f"score by {judge}: {summary} pictures")
    if json_file is not None:
        rows = [
            {"file": str(one.path.relative_to(folder)), "prompt": one.prompt, "score": one.score}
            for one in scores
        ]
        content = {"judge": judge, **summary.to_json(), "pictures": rows}
        atomic_write(json_file, (json.dumps(content, indent=1) + "\n").encode())
