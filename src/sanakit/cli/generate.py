"""`sanakit generate PROMPT`: its options. `orders.py` reads them and `draw.py` does the work."""

from __future__ import annotations

from sanakit.cli import options as o


def generate(
    prompt: o.PromptArgument = None,
    model: o.ModelOption = None,
    parts: o.PartsOption = None,
    variant: o.VariantOption = None,
    ignore_config_fields: o.IgnoreOption = None,
    config: o.ConfigOption = None,
    like_model: o.LikeModelOption = None,
    weights: o.WeightsOption = None,
    decoder: o.DecoderOption = None,
    negative: o.NegativeOption = None,
    steps: o.StepsOption = None,
    guidance: o.GuidanceOption = None,
    seed: o.SeedOption = None,
    size: o.SizeOption = None,
    count: o.CountOption = None,
    grid: o.GridOption = None,
    solver: o.SolverOption = None,
    dtype: o.DtypeOption = None,
    device: o.DeviceOption = None,
    fast: o.FastOption = None,
    threads: o.ThreadsOption = None,
    out: o.OutOption = None,
    prompt_file: o.PromptFileOption = None,
    chi: o.ChiOption = None,
    truncate: o.TruncateOption = None,
    show_prompt: o.ShowPromptOption = False,
    like: o.LikeOption = None,
    cfg_interval: o.IntervalOption = None,
    pag: o.PagOption = None,
    pag_blocks: o.PagBlocksOption = None,
    bins: o.BinsOption = None,
    as_json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Draw pictures. A named FILE.png is replaced, but only once the new picture is whole."""
    from sanakit.cli.draw import draw
    from sanakit.cli.orders import Orders

    fields = {"negative": negative, "steps": steps, "guidance": guidance, "seed": seed, "count": count,
              "solver": solver, "chi": chi, "pag": pag, "truncate": truncate, "bins": bins}  # fmt: skip
    orders = Orders(
        prompt=prompt, prompt_file=prompt_file, like=like, size=size, cfg_interval=cfg_interval,
        pag_blocks=pag_blocks, fields=fields, model=model, parts=parts, decoder=decoder, variant=variant,
        ignored=o.parse_fields(ignore_config_fields), hints=o.hints_of(config, like_model, weights),
        device=device, dtype=dtype, fast=fast, threads=threads, out=out, grid=grid,
        show_prompt=show_prompt, as_json=as_json,
    )  # fmt: skip
    draw(orders)
