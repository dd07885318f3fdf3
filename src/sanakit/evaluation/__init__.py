"""Measures of pictures and of the models that draw them."""

from sanakit.evaluation.distance import frechet_distance, kernel_distance
from sanakit.evaluation.fidelity import psnr, ssim
from sanakit.evaluation.interval import Share

__all__ = ["Share", "frechet_distance", "kernel_distance", "psnr", "ssim"]
