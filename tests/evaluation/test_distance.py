"""Distances between feature sets, against closed forms."""

from __future__ import annotations

import pytest
import torch

from sanakit.evaluation import frechet_distance, kernel_distance


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
