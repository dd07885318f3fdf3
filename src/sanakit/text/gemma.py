"""The Gemma-2 decoder (no language-model head) that turns tokens into states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sanakit.base.echo import printable
from sanakit.base.errors import ConfigError
from sanakit.text.config import FIELDS, TextConfig, check_text_config

if TYPE_CHECKING:
    from transformers import Gemma2Model


def build_gemma(config: TextConfig, device: torch.device | str | None = None) -> Gemma2Model:
    """Build a Gemma2Model in evaluation mode, float32, with eager attention and random weights.

    config: the content of `text_encoder/config.json`. device: of the parameters; "meta" gives them shapes
    only, to be filled by `load_state_dict(..., assign=True)`. The constants (rotary frequencies, embedding
    scale) aren't part of any checkpoint and always have values.
    Raises ConfigError for another architecture, or sizes that are missing, of a wrong type or contradictory.
    """
    check_text_config(config)
    from transformers import Gemma2Config, Gemma2Model

    fields = {name: config[name] for name in FIELDS if name in config}
    fields.update(use_cache=False, attn_implementation="eager")
    try:
        with torch.device(device if device is not None else torch.get_default_device()):
            model = Gemma2Model(Gemma2Config(**fields))
    except (
        Exception
    ) as error:  # the library raises what comes first: KeyError, RuntimeError, AssertionError ...
        reason = printable(error, 300)
        raise ConfigError(f"the text encoder's configuration can't be built: {reason}") from error
    restore_constants(model)
    model.train(False)
    return model


def restore_constants(model: Gemma2Model) -> None:
    """Restore the float32 values of rotary frequencies and embedding scale, in place.

    They are buffers outside the state dict: building on the meta device leaves them without values, and
    `model.to(torch.bfloat16)` rounds them, which turns every position.
    """
    table: Any = model.rotary_emb
    embedding: Any = model.embed_tokens
    target = embedding.weight.device
    where = torch.device("cpu") if target.type == "meta" else target
    if table.inv_freq.is_meta or table.inv_freq.dtype != torch.float32:
        with torch.device("cpu"):
            fresh = type(table)(model.config)
        model.rotary_emb = fresh.to(where)
    if embedding.embed_scale.is_meta or embedding.embed_scale.dtype != torch.float32:
        scale = torch.tensor(float(embedding.scalar_embed_scale), dtype=torch.float32, device=where)
        embedding.embed_scale = scale
