"""`sanakit importance`: how much each block of a transformer does, as a table, JSON and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanakit.cli import options as o
from sanakit.cli.say import note, notify, say

_PROMPTS = 12

_ModelArgument = Annotated[
    str, typer.Argument(help="The model: `toybox`, a folder, a published short name, or a hub id.")
]
_PromptFileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Read one prompt per line.", show_default="prompts of the Toybox world"
    ),
]
_CountOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=10_000, help="Draw this many prompts of the Toybox world.", show_default="12"
    ),
]
_StepsOption = Annotated[
    int,
    typer.Option(metavar="N", min=1, max=1000, help="Number of solver steps; blocks are measured at each."),
]


def importance(
    model: _ModelArgument = "toybox",
    prompt_file: _PromptFileOption = None,
    prompts: _CountOption = None,
    steps: _StepsOption = 5,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the measures here, for sanakit prune."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Plot the measures to this file.")
    ] = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Measure how far each block of a model turns its tokens, and what leaving it out does to the velocity."""
    from sanakit.base.errors import RequestError
    from sanakit.base.files import atomic_write, ensure_writable_folder
    from sanakit.cli.progress import ProgressBar
    from sanakit.cli.prompts import read_prompts
    from sanakit.evaluation.importance import BlockMeasures, to_json, write_plot
    from sanakit.pipeline.loading import load
    from sanakit.pipeline.request import ImageRequest
    from sanakit.toybox.trials import trials

    if None not in (prompts, prompt_file):
        raise RequestError("give --prompts or --prompt-file, not both")
    for path in (json_file, plot):
        if path is not None:
            ensure_writable_folder(path.parent)
    drawn = [trial.prompt for trial in trials(prompts or _PROMPTS)]
    chosen = drawn if prompt_file is None else read_prompts(prompt_file)
    opened = load(model, device, dtype, fast="off", announce=notify)
    for text in opened.spec.notes:
        note(text)
    measures = BlockMeasures(opened)
    requests = [ImageRequest(prompt=text, seed=seed, steps=steps) for seed, text in enumerate(chosen)]
    with ProgressBar() as bar:
        points = (state for request in requests for state in measures.draw(request))
        for _ in bar.follow("measuring", points, steps * len(requests)):
            pass
    found = measures.importance()
    say(f"{'block':>5}  {'similarity':>10}  {'rise':>8}")
    for one in found:
        say(f"{one.block:>5}  {one.similarity:>10.4f}  {one.rise:>8.4f}")
    if json_file is not None:
        atomic_write(json_file, to_json(found, opened.provenance["weights"]).encode())
    if plot is not None:
        write_plot(plot, found, f"blocks of {opened.name}")
