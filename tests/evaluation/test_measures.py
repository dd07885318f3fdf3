"""Measures: against definitions, closed forms and published tables."""

from __future__ import annotations

import math

import pytest
import torch

from sanakit.evaluation import (
    Share,
    edge_sharpness,
    edge_slope,
    frechet_distance,
    kernel_distance,
    psnr,
    ssim,
)


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


def test_slope_is_taken_at_an_images_own_edges() -> None:
    """Half of a step's height is half of its slope, wherever the step stands."""
    images = torch.zeros(2, 3, 102, 102)
    images[0, ..., 50:] = 1
    images[1, ..., 70:] = 0.5
    steep, half = edge_slope(images).tolist()
    assert steep == pytest.approx(3**0.5)  # a step of 1 in each of three channels
    assert half == pytest.approx(steep / 2)


def features(n: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) * scale + shift


def test_frechet_of_gaussians() -> None:
    """Diagonal covariances s^2 and 1, means apart by d in each of C dimensions: C (d^2 + (s - 1)^2)."""
    a, b = features(200_000, 0), features(200_000, 1, scale=2.0, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(6 * (0.25 + 1.0), rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)


def test_frechet_sees_correlation() -> None:
    a = features(50_000, 0)
    b = a.clone()
    b[:, 1] = b[:, 0]
    # One pair of dimensions: tr(I + B - 2 (B)^1/2) with eigenvalues 2 and 0 of B.
    assert frechet_distance(a, b) == pytest.approx(4 - 2 * 2**0.5, rel=0.03)


def test_frechet_bears_fewer_pictures_than_features() -> None:
    assert frechet_distance(features(4, 0), features(3, 1, shift=3.0)) > 20


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    same = [kernel_distance(features(60, 2 * k), features(60, 2 * k + 1)) for k in range(40)]
    mean, spread = sum(same) / 40, torch.tensor(same).std().item()
    assert abs(mean) < 4 * spread / 40**0.5
    assert min(same) < 0 < max(same)
    assert kernel_distance(features(60, 0), features(60, 1, shift=1.0)) > max(same)


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance])
def test_one_picture_is_no_set(measure) -> None:
    with pytest.raises(ValueError, match="n >= 2"):
        measure(features(1, 0), features(5, 1))


def test_known_values() -> None:
    """Newcombe (1998), table I: 81 of 263 and 15 of 148 and 0 of 20."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert Share(hits=hits, n=n).interval == pytest.approx((low, high), abs=1e-4)


def test_the_ends_stay_inside_and_hold_the_share() -> None:
    for n in (*range(1, 200), 600):
        for hits in {*range(0, n + 1, max(1, n // 7)), n}:
            low, high = Share(hits=hits, n=n).interval
            assert 0 <= low <= hits / n <= high <= 1


def test_no_trials() -> None:
    share = Share(hits=0, n=0)
    assert math.isnan(share.accuracy)
    assert share.to_json() == {"accuracy": None, "low": 0.0, "high": 1.0, "n": 0}
    assert str(share) == "no trials"
