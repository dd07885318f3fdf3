"""The published DC-AE configurations, and the small one of Toybox, as values."""

from __future__ import annotations

from sanakit.autoencoder.config import AutoencoderConfig, Stage

_WIDTHS = (128, 256, 512, 512, 1024, 1024)


def _halves(depths: tuple[int, ...]) -> tuple[Stage, ...]:
    """Three residual stages, then three EfficientViT stages with one 5x5 scale."""
    return tuple(
        Stage("res", width, depth) if index < 3 else Stage("evit", width, depth, (5,))
        for index, (width, depth) in enumerate(zip(_WIDTHS, depths, strict=True))
    )


# sana-1.1 has sana-1.0's graph and encoder with a better trained decoder.
SANA_1_0 = AutoencoderConfig(
    encoder=_halves((2, 2, 2, 3, 3, 3)), decoder=_halves((3, 3, 3, 3, 3, 3)), scaling_factor=0.41407
)
LITE_1_1 = AutoencoderConfig(
    encoder=_halves((2, 2, 2, 3, 3, 3)),
    decoder=tuple(Stage("res", w, d) for w, d in zip(_WIDTHS, (0, 3, 5, 4, 4, 4), strict=True)),
    upsample="shuffle",
    decoder_out_act="silu",
    scaling_factor=0.41407,
)
TOYBOX = AutoencoderConfig(
    encoder=(
        Stage("res", 48, 0),
        Stage("res", 48, 1),
        Stage("res", 96, 1),
        Stage("res", 128, 2),
        Stage("evit", 128, 2, (5,)),
        Stage("evit", 128, 2, (5,)),
    ),
    decoder=(
        Stage("res", 48, 0),
        Stage("res", 48, 2),
        Stage("res", 96, 3),
        Stage("res", 192, 2),
        Stage("evit", 192, 2, (5,)),
        Stage("evit", 192, 1, (5,)),
    ),
    downsample="unshuffle",
    decoder_out_act="silu",
)

PRESETS = {
    "f32c32-sana-1.0": SANA_1_0,
    "f32c32-sana-1.1": SANA_1_0,
    "f32c32-lite-1.1": LITE_1_1,
    "toybox": TOYBOX,
}
