"""Measures of pictures."""

from sanakit.evaluation.fidelity import psnr, ssim

__all__ = ["psnr", "ssim"]
