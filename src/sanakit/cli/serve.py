"""`sanakit serve`: models as a service for programs and people, until Ctrl+C."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sanakit.base.errors import ConfigError
from sanakit.cli import options as o
from sanakit.cli.say import notify, say
from sanakit.server.engine.config import EngineConfig
from sanakit.server.ray.scale import Scale
from sanakit.server.settings import LOG_FORMS, Settings

_ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A model to offer, as for `sanakit generate`; may be repeated, and the first is the default.",
        show_default="toybox",
    ),
]
_HostOption = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Listen at this address; others than this machine's need keys.")
]
_PortOption = Annotated[int, typer.Option(metavar="N", help="Listen at this port; 0 takes a free one.")]
_AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="Answer to this name, too, such as that of a proxy; may be repeated.",
        show_default="names of this machine",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Where jobs, pictures and keys are kept; one server at a time.",
        show_default="~/.local/share/sanakit/server",
    ),
]
_LorasOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Offer the LoRAs in this folder, by the names of their files."),
]
_ControlsOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Offer the ControlNets in this folder, by their names."),
]
_QueueOption = Annotated[int, typer.Option(min=1, metavar="N", help="Let at most N jobs wait; refuse more.")]
_BatchOption = Annotated[int, typer.Option(min=1, metavar="N", help="Draw at most N pictures together.")]
_MaxCountOption = Annotated[int, typer.Option(min=1, metavar="N", help="The most pictures of a job.")]
_MaxStepsOption = Annotated[int, typer.Option(min=1, metavar="N", help="The most solver steps.")]
_MaxPixelsOption = Annotated[int, typer.Option(min=1, metavar="N", help="The most pixels of a picture.")]
_KeepDaysOption = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Delete finished jobs with their pictures X days after their end.",
        show_default="never",
    ),
]
_KeepPicturesOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Keep the newest N pictures; delete jobs before them.", show_default="all"
    ),
]
_RateOption = Annotated[
    str | None,
    typer.Option(
        metavar="RATE",
        help="Jobs of a key without a rate of its own, such as 60/minute.",
        show_default="any number",
    ),
]
_DrainOption = Annotated[
    float,
    typer.Option(
        min=0, metavar="SECONDS", help="Once told to stop, give running jobs this long; 0 stops them at once."
    ),
]
_LogsOption = Annotated[str, typer.Option(metavar="HOW", help=f"Log requests as {', '.join(LOG_FORMS)}.")]
_TracesOption = Annotated[
    bool,
    typer.Option(
        "--traces", help="Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT.", show_default=False
    ),
]
_RayOption = Annotated[
    bool,
    typer.Option(
        "--ray",
        help="Draw in replicas of Ray Serve, on the cluster of RAY_ADDRESS or here.",
        show_default=False,
    ),
]
_ReplicasOption = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN:MAX",
        help="With --ray: draw in this many replicas, or as many as there is work for.",
        show_default="1",
    ),
]
_GpusOption = Annotated[
    float | None,
    typer.Option(metavar="X", help="With --ray: number of GPUs for each replica.", show_default="0"),
]
_DEFAULTS = Settings()


def serve(
    model: _ModelsOption = None,
    host: _HostOption = _DEFAULTS.host,
    port: _PortOption = _DEFAULTS.port,
    data: DataOption = None,
    loras: _LorasOption = None,
    controls: _ControlsOption = None,
    queue: _QueueOption = EngineConfig.queue,
    batch: _BatchOption = EngineConfig.batch,
    max_count: _MaxCountOption = EngineConfig.count,
    max_steps: _MaxStepsOption = EngineConfig.steps,
    max_pixels: _MaxPixelsOption = EngineConfig.pixels,
    keep_days: _KeepDaysOption = None,
    keep_pictures: _KeepPicturesOption = None,
    rate: _RateOption = None,
    allow_host: _AllowHostOption = None,
    sign: o.SignOption = None,
    drain: _DrainOption = _DEFAULTS.drain,
    logs: _LogsOption = _DEFAULTS.logs,
    traces: _TracesOption = False,
    ray: _RayOption = False,
    replicas: _ReplicasOption = None,
    gpus: _GpusOption = None,
    decoder: o.DecoderOption = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = None,
    fast: o.FastOption = None,
    threads: o.ThreadsOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Serve models over HTTP: a page for people, and the APIs of OpenAI, AUTOMATIC1111 and our own for programs.

    Jobs survive a restart. Prints its address once it is ready; Ctrl+C ends it.
    """
    from sanakit.server.settings import need_libraries

    form: Any = logs
    settings = Settings(
        host=host, port=port, hosts=tuple(allow_host or ()), rate=rate, drain=drain, logs=form, traces=traces
    )
    scale = _scale(ray, replicas, gpus)
    need_libraries(traces, scale is not None)
    from sanakit.pipeline.signing import Signer
    from sanakit.server.engine.config import controls_in, loras_in
    from sanakit.server.logs import set_up_logs
    from sanakit.server.rates import check_rate
    from sanakit.server.settings import data_folder

    if rate is not None:
        check_rate(rate)
    if keep_days is not None and not keep_days > 0:
        raise ConfigError(f"--keep-days is a number of days above 0, not {keep_days:g}")
    config = EngineConfig(
        data=data or data_folder(), models=tuple(model or ("toybox",)), loras=loras_in(loras),
        controls=controls_in(controls), decoder=decoder, device=device, dtype=dtype, fast=fast, threads=threads,
        queue=queue, batch=batch, count=max_count, steps=max_steps, pixels=max_pixels, keep_days=keep_days,
        keep_pictures=keep_pictures,
        signer=None if sign is None else Signer.parse(sign),
    )  # fmt: skip
    set_up_logs(settings.logs, notify)
    left = _serve(config, settings, scale)
    wait = "1 job waits" if left == 1 else f"{left} jobs wait"
    notify(f"stopped; {wait} for the next start" if left else "stopped")


def _scale(ray: bool, replicas: str | None, gpus: float | None) -> Scale | None:
    """Return the replicas that were asked for; None without Ray. Raises ConfigError."""
    for name, value in (("--replicas", replicas), ("--gpus", gpus)):
        if value is not None and not ray:
            raise ConfigError(f"{name} goes with --ray")
    return Scale.parse(replicas or "1", gpus or 0.0) if ray else None


def _serve(config: EngineConfig, settings: Settings, scale: Scale | None) -> int:
    """Serve until told to end; return the number of jobs that are left."""

    def ready(address: str) -> None:
        say(f"sanakit serves at {address}")

    if scale is None:
        from sanakit.server.run import serve

        return serve(config, settings, ready)
    from sanakit.server.ray.cluster import serve_on_ray

    return serve_on_ray(config, settings, scale, ready)
