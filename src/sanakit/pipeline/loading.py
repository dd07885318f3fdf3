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
    """Return a model by name: the shipped `toybox`, a folder, a published model's short name, a hub id, or a `.pth`.

    A file of weights holds a transformer only: `parts` names the model that gives text encoder and autoencoder, and
    `hints` say what the file doesn't.
    `decoder` names whose autoencoder makes the image instead of the model's: RUN/vae, another model, a hub id, or
    `lite`, the published one with the faster decoder.
    Reads configuration files only; weights are loaded by the first request, stage by stage. `device` and `dtype` as in
    `base.precision.decide`, `fast` as in `engine.choose_engine`, `threads`, `swap_loras` and `together` as in `Model`.
    `variant` chooses weights such as fp16 or bf16 of a folder or hub repository; components without it give their plain
    ones, with a note.
    `ignore_config_fields` are fields of configuration files to read as if they weren't there, for files of a newer
    diffusers. `announce` is called with the sizes before anything is downloaded.
    Raises ModelNotFoundError, ConfigError, WeightsError for a variant that nothing has, or RequestError.
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
