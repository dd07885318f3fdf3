"""Measures of pictures and of the models that draw them."""

from sanakit.evaluation.distance import frechet_distance, kernel_distance
from sanakit.evaluation.fidelity import edge_sharpness, psnr, ssim
from sanakit.evaluation.interval import Share

__all__ = ["Share", "edge_sharpness", "frechet_distance", "kernel_distance", "psnr", "ssim"]
