"""PSNR, SSIM and edges against their definitions on pictures whose values are known."""

from __future__ import annotations

import math

import pytest
import torch

from sanakit.evaluation import edge_sharpness, psnr, ssim


def test_psnr_of_a_known_error() -> None:
    original = torch.rand(2, 3, 16, 16) * 0.5
    assert psnr(original + 0.1, original).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert torch.isinf(psnr(original, original)).all()


def test_ssim_is_one_for_equal_pictures_and_symmetric() -> None:
    a, b = torch.rand(2, 3, 20, 24), torch.rand(2, 3, 20, 24)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert (ssim(a, b) < 0.2).all()


def test_ssim_of_constant_pictures_is_the_light_term() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.4), torch.full((1, 3, 16, 16), 0.8)
    want = (2 * 0.4 * 0.8 + 1e-4) / (0.16 + 0.64 + 1e-4)
    assert ssim(a, b).item() == pytest.approx(want, rel=1e-6)


def test_ssim_equals_the_window_written_out() -> None:
    a, b = torch.rand(1, 1, 11, 11, dtype=torch.float64), torch.rand(1, 1, 11, 11, dtype=torch.float64)
    line = [math.exp(-((i - 5) ** 2) / 4.5) for i in range(11)]
    weight = torch.tensor([[x * y for x in line] for y in line], dtype=torch.float64)
    weight /= weight.sum()
    ma, mb = (weight * a).sum(), (weight * b).sum()
    va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
    both = (weight * (a - ma) * (b - mb)).sum()
    want = (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    assert ssim(a, b).item() == pytest.approx(want.item(), rel=1e-9)


def test_edges_are_as_sharp_as_their_slope() -> None:
    """A step of height 1 spread over three pixels has central differences of 2/3 at most."""
    step = torch.zeros(2, 3, 40, 40)
    step[..., 20:] = 1
    blurred = torch.nn.functional.avg_pool2d(step, (1, 3), 1, (0, 1), count_include_pad=False)
    assert edge_sharpness(step, step).tolist() == pytest.approx([1.0, 1.0])
    assert edge_sharpness(blurred, step).tolist() == pytest.approx([2 / 3, 2 / 3])
    assert edge_sharpness(step * 0.5, step).tolist() == pytest.approx([0.5, 0.5])
    assert edge_sharpness(step, blurred).min() > 1
