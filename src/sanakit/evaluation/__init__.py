"""Measures of images and of the models that draw them."""

from sanakit.evaluation.measures import (
    Share,
    edge_sharpness,
    edge_slope,
    frechet_distance,
    kernel_distance,
    psnr,
    ssim,
)

__all__ = ["Share", "edge_sharpness", "edge_slope", "frechet_distance", "kernel_distance", "psnr", "ssim"]
