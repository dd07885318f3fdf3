"""The published image transformers, and the small one of Toybox, as values (names: family-size-side)."""

from __future__ import annotations

from dataclasses import replace

from sanakit.transformer.config import TransformerConfig

_SMALL = TransformerConfig(width=1152, depth=28, heads=36, cross_heads=16)
_LARGE = TransformerConfig(width=2240, depth=20, heads=70, cross_heads=20)

PRESETS: dict[str, TransformerConfig] = {
    "sana-0.6b-512": replace(_SMALL, sample_size=16),
    "sana-0.6b-1024": _SMALL,
    "sana-1.6b-512": replace(_LARGE, sample_size=16),
    "sana-1.6b-1024": _LARGE,
    "sana-1.6b-2k": replace(_LARGE, sample_size=64, position_scale=1.0),
    "sana-1.6b-4k": replace(_LARGE, sample_size=128, position_scale=2.0),
    "sana1.5-1.6b-1024": replace(_LARGE, qk_norm=True),
    "sana1.5-4.8b-1024": replace(_LARGE, depth=60, qk_norm=True),
    "sprint-0.6b-1024": replace(_SMALL, qk_norm=True, guidance_embed=True),
    "sprint-1.6b-1024": replace(_LARGE, qk_norm=True, guidance_embed=True),
    "toybox": TransformerConfig(
        width=256,
        depth=10,
        heads=8,
        cross_heads=8,
        text_width=160,
        sample_size=8,
        qk_norm=True,
        position_scale=1.0,
    ),
}
