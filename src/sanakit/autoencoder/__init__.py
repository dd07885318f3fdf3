"""DC-AE: images to deeply compressed latents and back (f32c32: 1024 px is 32 x 32 positions of 32 channels)."""

from sanakit.autoencoder.config import AutoencoderConfig, Stage
from sanakit.autoencoder.model import DCAE, LatentDecoder, LatentEncoder
from sanakit.autoencoder.presets import PRESETS
from sanakit.autoencoder.tiling import BAND, Decodes, Encodes, decode_tiled, encode_tiled

__all__ = [
    "BAND",
    "DCAE",
    "PRESETS",
    "AutoencoderConfig",
    "Decodes",
    "Encodes",
    "LatentDecoder",
    "LatentEncoder",
    "Stage",
    "decode_tiled",
    "encode_tiled",
]
