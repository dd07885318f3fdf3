"""`sanakit generate PROMPT`: its options. `orders.py` reads them and `draw.py` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sanakit.cli.options import DebugOption, DeviceOption, DtypeOption, JsonOption, ModelOption, SizeOption


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to draw.", show_default=False)] = None,
    model: ModelOption = None,
    negative: Annotated[str | None, typer.Option(help="What to keep away from.", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps.", show_default="the model's own")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strictly to follow the prompt.", show_default="the model's own")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Picture k is drawn with seed + k.", show_default="0")
    ] = None,
    size: SizeOption = None,
    count: Annotated[int | None, typer.Option(help="Pictures per prompt.", show_default="1")] = None,
    grid: Annotated[
        bool | None,
        typer.Option("--grid/--no-grid", help="Put all pictures on one sheet too.", show_default="off"),
    ] = None,
    solver: Annotated[
        str | None, typer.Option(help="dpm1, dpm2, dpm3, euler or scm.", show_default="the model's own")
    ] = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="FILE.png for one picture, or a folder that gets named files.", show_default="out"),
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(help="One prompt per line; - reads standard input.", show_default=False)
    ] = None,
    chi: Annotated[
        bool | None,
        typer.Option("--chi/--no-chi", help="Use the model's instruction text.", show_default="chi"),
    ] = None,
    show_prompt: Annotated[
        bool, typer.Option("--show-prompt", help="Print the text the model reads.")
    ] = False,
    like: Annotated[
        Path | None, typer.Option(help="Recreate this picture; other options change it.", show_default=False)
    ] = None,
    cfg_interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Guide only in this part of the noise range 0..1.")
    ] = None,
    pag: Annotated[
        float | None, typer.Option(help="Scale of perturbed attention guidance.", show_default="0")
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw pictures. A named FILE.png is replaced, but only once the new picture is whole."""
    from sanakit.cli.draw import draw
    from sanakit.cli.orders import Orders

    fields = {"negative": negative, "steps": steps, "guidance": guidance, "seed": seed, "count": count}
    fields |= {"solver": solver, "chi": chi, "pag": pag}
    draw(
        Orders(
            prompt=prompt,
            prompt_file=prompt_file,
            like=like,
            size=size,
            cfg_interval=cfg_interval,
            fields=fields,
            model=model,
            device=device,
            dtype=dtype,
            out=out,
            grid=grid,
            show_prompt=show_prompt,
            as_json=as_json,
        )  # fmt: skip
    )
