"""Networks under training with their losses, and the batches they are given.

transformer  velocities of noisy latents        autoencoder  pictures given back
latents      batches from a cache               frozen       the encoders that fill it
"""

from sanakit.training.tasks.autoencoder import AutoencoderPair, AutoencoderTask
from sanakit.training.tasks.frozen import Frozen
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.transformer import TransformerTask

__all__ = ["AutoencoderPair", "AutoencoderTask", "Frozen", "LatentBatch", "LatentData", "TransformerTask"]
