"""From the name of a model to a `Model`; only configuration files are read."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from sanakit.base.precision import decide
from sanakit.pipeline.model import Model
from sanakit.pipeline.origin import Origin
from sanakit.weights import Hints, read_model_spec, resolve, with_decoder


def load(
    name: str | Path = "toybox",
    device: str | None = None,
    dtype: str | None = None,
    *,
    parts: str | Path | None = None,
    hints: Hints | None = None,
    decoder: str | Path | None = None,
    fast: str | None = None,
    variant: str | None = None,
    ignore_config_fields: Collection[str] = (),
    threads: int | None = None,
    swap_loras: bool = False,
    together: int = 1,
    announce: Callable[[str], object] = lambda text: None,
) -> Model:
    """Load a model by name: the shipped `toybox`, a folder, a published model's short name, a hub id, or a `.pth`.

    Reads configuration files only; the first request loads the weights, stage by stage.

    Args:
        name: the model.
        device: cpu, cuda, cuda:N or mps; None for the best this machine has.
        dtype: fp32, bf16 or fp16; None for the best on the device, see `base.precision.decide`.
        parts: for a file of weights, which holds a transformer only: the model that gives the other parts.
        hints: what such a file doesn't say.
        decoder: whose autoencoder makes the image: RUN/vae, another model, a hub id, or `lite`, the published one with
            the faster decoder; None for the model's own.
        fast: how the model runs, see `engine.choose_engine`.
        variant: weights such as fp16 or bf16 of a folder or hub repository; components without it give their plain
            ones, with a note.
        ignore_config_fields: fields of configuration files to read as if they weren't there.
        threads: as of `Model`.
        swap_loras: as of `Model`.
        together: as of `Model`.
        announce: called with the sizes before anything is downloaded.

    Raises:
        ModelNotFoundError: for an unknown name.
        ConfigError: for configuration files that are missing, malformed or contradictory.
        WeightsError: for a variant that nothing has.
        RequestError: for a device, dtype or engine that this machine doesn't have.
    """
    precision = decide(device, dtype)
    if isinstance(ignore_config_fields, str):
        ignore_config_fields = ignore_config_fields.split(",")
    wanted = {} if variant is None else {"variant": variant}  # else that of a published name
    path = resolve(name, announce=announce, **wanted)
    others = None if parts is None else resolve(parts, announce=announce, **wanted)
    found = read_model_spec(path, parts=others, hints=hints, variant=variant, ignore=ignore_config_fields)
    if decoder is not None:
        found = with_decoder(found, decoder, announce=announce)
    origin = Origin(
        name=str(name),
        parts=None if parts is None else str(parts),
        decoder=None if decoder is None else str(decoder),
        hints=hints or Hints(),
        ignored=tuple(sorted(ignore_config_fields)),
    )
    return Model(
        found, precision, origin=origin, fast=fast, threads=threads, swap_loras=swap_loras, together=together
    )
