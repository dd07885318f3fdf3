"""The configuration of a SANA transformer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sanakit.base.dialect import Dialect
from sanakit.base.errors import ConfigError


@dataclass(frozen=True)
class Positions:
    """The positional table: `side` of the token grid in training, and the interpolation `scale`; None for no table."""

    side: int
    scale: float | None


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and numerics of one network. Every published checkpoint is a value of this class (`presets.py`).

    Attributes:
        latent_channels: C, channels of the latent in and of the velocity out.
        width: D, channels of a token.
        depth: number of blocks.
        heads: of the linear self-attention; D / heads channels each (32 in all published image models).
        cross_heads: of the cross-attention.
        text_width: channels of the text encoder's states.
        ffn_ratio: hidden width of the Mix-FFN over D.
        patch_size: latent positions per token along one side.
        sample_size: side of the latent in training; sizes are binned around it and positions scaled to it.
        position_scale: None for no positional table, else its interpolation (1 at 2K, 2 at 4K).
        rotary: rotary positions in the linear attention.
        qk_norm: RMS norm of queries and keys in both attentions (SANA-1.5, Sprint).
        guidance_embed: the guidance scale is an input (Sprint).
        guidance_scale: the factor on that input before its sinusoid.
        time_scale: the factor on time before its sinusoid.
        norm_eps, text_norm_eps, attention_eps, qk_norm_eps, cross_norm_eps: see `base/dialect.py` for those that
            differ between the two dialects.
    """

    latent_channels: int = 32
    width: int
    depth: int
    heads: int
    cross_heads: int
    text_width: int = 2304
    ffn_ratio: float = 2.5
    patch_size: int = 1
    sample_size: int = 32
    position_scale: float | None = None
    rotary: bool = False
    qk_norm: bool = False
    guidance_embed: bool = False
    guidance_scale: float = 0.1
    time_scale: float = 1.0
    norm_eps: float = 1e-6
    text_norm_eps: float = 1e-5
    attention_eps: float = 1e-15
    qk_norm_eps: float = 1e-5
    cross_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("latent_channels", "width", "depth", "heads", "cross_heads", "text_width", "patch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"transformer: {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("heads", "cross_heads"):
            if self.width % getattr(self, name):
                raise ConfigError(
                    f"transformer: width {self.width} is not a multiple of {name} {getattr(self, name)}"
                )
        if self.position_scale is not None and self.width % 4:
            raise ConfigError(
                f"transformer: a positional table needs a width that is a multiple of 4, not {self.width}"
            )
        if self.rotary and (self.width // self.heads) % 2:
            raise ConfigError(f"transformer: rotary needs an even head width, not {self.width // self.heads}")

    @property
    def positions(self) -> Positions:
        """The positional table that the network was trained with."""
        return Positions(self.sample_size // self.patch_size, self.position_scale)

    def with_dialect(self, dialect: Dialect) -> TransformerConfig:
        """Return the same network with the epsilons of a dialect."""
        return replace(
            self,
            attention_eps=dialect.attention_eps,
            qk_norm_eps=dialect.qk_norm_eps,
            cross_norm_eps=dialect.cross_norm_eps,
        )
