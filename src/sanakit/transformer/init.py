"""Fresh weights for training from scratch, as the published recipe starts (DiT's scheme, arXiv 2212.09748)."""

from __future__ import annotations

from torch import nn

from sanakit.layers.cross_attention import CrossAttention
from sanakit.layers.embed import ScalarEmbed, TextEmbed
from sanakit.transformer.model import SanaTransformer


def initialise(model: SanaTransformer) -> SanaTransformer:
    """Xavier for linear layers, N(0, 0.02) for time, modulation and text, zero for the output. In place.

    The cross-attention's output also starts at zero, so that text enters gradually. Gates stay as constructed.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(model.patch.weight.view(model.patch.weight.shape[0], -1))
    embeds: list[ScalarEmbed | TextEmbed] = [model.time, model.text]
    embeds += [] if model.guidance is None else [model.guidance]
    for linear in [model.modulation, *(part for e in embeds for part in (e.input, e.output))]:
        nn.init.normal_(linear.weight, std=0.02)
    for block in model.modules():
        if isinstance(block, CrossAttention):
            nn.init.zeros_(block.out.weight)
    nn.init.zeros_(model.head.out.weight)
    nn.init.zeros_(model.head.out.bias)
    return model
