"""DC-AE, the figure: encoder down, latent, decoder up (arXiv 2410.10733, figure 4).

Stages are numbered by resolution, 0 = full: the encoder runs them upwards, the decoder downwards.
Letters: B batch, C latent channels, r = config.ratio, H/W pixels.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.autoencoder.blocks import build_blocks
from sanakit.autoencoder.config import AutoencoderConfig
from sanakit.autoencoder.tiling import in_bands
from sanakit.layers.norm import ChannelRMSNorm
from sanakit.layers.resample import Downsample, Upsample, group_mean


class EncoderStage(nn.Module):
    """Blocks, then (but for the last stage) a downsampler to the next."""

    def __init__(self, config: AutoencoderConfig, index: int) -> None:
        super().__init__()
        stage = config.encoder[index]
        self.blocks = build_blocks(stage, config.head_dim)
        self.down: Downsample | None = None
        if index + 1 < len(config.encoder) and stage.depth > 0:
            width = config.encoder[index + 1].width
            self.down = Downsample(stage.width, width, unshuffle=config.downsample == "unshuffle")

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_s, h, w] -> [B, C_s+1, h/2, w/2]."""
        for block in self.blocks:
            x = block(x)
        return x if self.down is None else self.down(x)


class DecoderStage(nn.Module):
    """(But for the coarsest stage) an upsampler from the coarser stage, then blocks."""

    def __init__(self, config: AutoencoderConfig, index: int) -> None:
        super().__init__()
        stage = config.decoder[index]
        self.up: Upsample | None = None
        if index + 1 < len(config.decoder) and stage.depth > 0:
            width = config.decoder[index + 1].width
            self.up = Upsample(width, stage.width, shuffle=config.upsample == "shuffle")
        self.blocks = build_blocks(stage, config.head_dim)
        self.width, self.reach = stage.width, 2 * stage.depth
        self.local = stage.kind == "res"

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_s+1, h, w] -> [B, C_s, 2h, 2w]."""
        if self.up is None or not self.local:
            return self.run(x)
        return in_bands(self.run, x, width=self.width, reach=self.reach)

    def run(self, x: Tensor) -> Tensor:
        """`forward`, on the whole of a map or on a band of it."""
        x = x if self.up is None else self.up(x)
        for block in self.blocks:
            x = block(x)
        return x


class Encoder(nn.Module):
    """Pixels to latent."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        first, last = config.encoder[0], config.encoder[-1]
        unshuffle = config.downsample == "unshuffle"
        self.channels = config.latent_channels
        self.shortcut = config.encoder_shortcut
        self.entry: nn.Module = (
            nn.Conv2d(3, first.width, 3, padding=1)
            if first.depth > 0
            else Downsample(3, config.encoder[1].width, unshuffle=unshuffle, shortcut=False)
        )
        self.stages = nn.ModuleList(EncoderStage(config, s) for s in range(len(config.encoder)))
        self.exit = nn.Conv2d(last.width, config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> [B, C, H/r, W/r]."""
        x = self.entry(pixels)
        for stage in self.stages:
            x = stage(x)
        return self.exit(x) + group_mean(x, self.channels) if self.shortcut else self.exit(x)


class Decoder(nn.Module):
    """Latent to pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        first, last = config.decoder[0], config.decoder[-1]
        shuffle = config.upsample == "shuffle"
        final = first.width if first.depth > 0 else config.decoder[1].width
        self.act = F.relu if config.decoder_out_act == "relu" else F.silu
        self.repeats = last.width // config.latent_channels if config.decoder_shortcut else 0
        self.entry = nn.Conv2d(config.latent_channels, last.width, 3, padding=1)
        self.stages = nn.ModuleList(DecoderStage(config, s) for s in range(len(config.decoder)))
        self.norm = ChannelRMSNorm(final)
        self.reach = 2 * first.depth + 1
        self.exit: nn.Module = (
            nn.Conv2d(final, 3, 3, padding=1)
            if first.depth > 0
            else Upsample(final, 3, shuffle=shuffle, shortcut=False)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, 3, r*h, r*w], about -1..1, not clamped."""
        x = self.entry(latent)
        if self.repeats:
            x = x + latent.repeat_interleave(self.repeats, dim=1)
        for stage in reversed(self.stages[1:]):
            x = stage(x)
        return in_bands(self.finish, x, width=len(self.norm.weight), reach=self.reach)

    def finish(self, x: Tensor) -> Tensor:
        """Run the finest stage and the way out, on a map or a band of it: [B, C_1, h, w] -> [B, 3, 2h, 2w]."""
        finest = self.stages[0]
        assert isinstance(finest, DecoderStage)
        out: Tensor = self.exit(self.act(self.norm(finest.run(x))))
        return out


class LatentDecoder(nn.Module):
    """The decoding half of a `DCAE`, its weights under the same names: all that generation needs."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config)

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> pixels [B, 3, r*h, r*w]."""
        pixels: Tensor = self.decoder(latent)
        return pixels


class LatentEncoder(nn.Module):
    """The encoding half of a `DCAE`, its weights under the same names: what editing needs besides."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1, H and W multiples of r -> latent [B, C, H/r, W/r]. Deterministic."""
        latent: Tensor = self.encoder(pixels)
        return latent


class DCAE(nn.Module):
    """Deep-compression autoencoder. Latents are unscaled; flow networks see `latent * config.scaling_factor`."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1, H and W multiples of r -> latent [B, C, H/r, W/r]. Deterministic."""
        latent: Tensor = self.encoder(pixels)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> pixels [B, 3, r*h, r*w]."""
        pixels: Tensor = self.decoder(latent)
        return pixels

    def forward(self, pixels: Tensor) -> Tensor:
        """Make the round trip [B, 3, H, W] -> [B, 3, H, W], as training sees it."""
        return self.decode(self.encode(pixels))
