"""What training minimises: reconstruction for the autoencoder, velocity for the flow."""

from sanakit.training.objectives.reconstruction import reconstruction
from sanakit.training.objectives.velocity import velocity

__all__ = ["reconstruction", "velocity"]
