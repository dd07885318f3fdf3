"""The configurations of a model by its name, without its weights: for estimates and for the benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection

from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.errors import ModelNotFoundError
from sanakit.pipeline.memory import Shapes
from sanakit.text import GEMMA_2_2B
from sanakit.transformer import PRESETS
from sanakit.weights import PUBLISHED, read_model_spec, resolve


def shapes_of(
    name: str, *, ignore: Collection[str] = (), note: Callable[[str], object] = warnings.warn
) -> Shapes:
    """A published model by its short name, else a model that is on this machine; nothing is fetched.

    ignore: fields of configuration files to read as if they were not there. note: is told of fields passed over.
    Raises ModelNotFoundError where it is neither, ConfigError as `read_model_spec`.
    """
    if name in PRESETS and name in PUBLISHED:
        return Shapes(transformer=PRESETS[name], autoencoder=AUTOENCODERS["f32c32-sana-1.1"], text=GEMMA_2_2B)

    def refuse(text: str) -> None:
        raise ModelNotFoundError(
            f"the model is not on this machine, and nothing is downloaded here ({text})."
        )

    found = read_model_spec(resolve(name, announce=refuse), ignore=ignore)
    for text in found.notes:
        note(text)
    return Shapes(transformer=found.transformer, autoencoder=found.autoencoder, text=found.text_config)
