"""The configuration of a DC-AE: stages of both halves, from full resolution (first) to that of the latent (last)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sanakit.base.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One resolution: `depth` blocks of one kind at `width` channels; `scales` are EfficientViT's extra kernels."""

    kind: Literal["res", "evit"]
    width: int
    depth: int
    scales: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """A deep-compression autoencoder (arXiv 2410.10733). `encoder[s]` and `decoder[s]` work at resolution 1 / 2**s.

    A first stage of depth 0 has no full-resolution features: the entry downsamples at once, the exit upsamples last.
    """

    latent_channels: int = 32
    head_dim: int = 32
    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    downsample: Literal["conv", "unshuffle"] = "conv"
    upsample: Literal["interpolate", "shuffle"] = "interpolate"
    decoder_out_act: Literal["relu", "silu"] = "relu"
    encoder_shortcut: bool = True
    decoder_shortcut: bool = True
    scaling_factor: float = 1.0

    def __post_init__(self) -> None:
        if len(self.encoder) != len(self.decoder) or len(self.encoder) < 2:
            raise ConfigError(
                f"autoencoder: encoder has {len(self.encoder)} stages and decoder {len(self.decoder)}; "
                "give both the same number, at least 2"
            )
        for half, stages in (("encoder", self.encoder), ("decoder", self.decoder)):
            self._check_half(half, stages)

    def _check_half(self, half: str, stages: tuple[Stage, ...]) -> None:
        for index, stage in enumerate(stages):
            if stage.kind == "evit" and stage.width % self.head_dim:
                raise ConfigError(
                    f"autoencoder: {half} stage {index} has width {stage.width}, not a multiple of "
                    f"head_dim {self.head_dim}"
                )
        first = 1 if stages[0].depth == 0 else 0
        for fine, coarse in zip(stages[first:], stages[first + 1 :], strict=False):
            if (4 * fine.width) % coarse.width:
                raise ConfigError(
                    f"autoencoder: {half} widths {fine.width} and {coarse.width} of neighbouring stages need "
                    "4 x the finer to be a multiple of the coarser (the shortcut averages or repeats channels)"
                )
        if stages[-1].width % self.latent_channels:
            raise ConfigError(
                f"autoencoder: the last {half} width {stages[-1].width} is not a multiple of "
                f"latent_channels {self.latent_channels}"
            )

    @property
    def ratio(self) -> int:
        """Pixels per latent position along one side."""
        return int(2 ** (len(self.encoder) - 1))
