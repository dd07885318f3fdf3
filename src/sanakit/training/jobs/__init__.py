"""What a session trains: a job brings the network, its batches and its loss, and knows what the finished model is.

text_to_image   the transformer, on latents and text states of a frozen base model
autoencoder     the autoencoder, on pictures
"""

from sanakit.training.jobs.autoencoder import Autoencoder
from sanakit.training.jobs.job import Job, Size, Visit
from sanakit.training.jobs.text_to_image import TextToImage

__all__ = ["Autoencoder", "Job", "Size", "TextToImage", "Visit"]
