"""Distances between two sets of pictures, from features [n, C] of any network."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """[n, C], [m, C] -> |mean difference|^2 + tr(A + B - 2 (A B)^1/2), of Gaussians fitted to both (arXiv 1706.08500).

    Raises ValueError for fewer than two rows.
    """
    a, b = _checked(a), _checked(b)
    difference = a.mean(0) - b.mean(0)
    cov_a, cov_b = _covariance(a), _covariance(b)
    root = _root(cov_a)
    # tr (A B)^1/2 = tr (A^1/2 B A^1/2)^1/2, and the latter is symmetric.
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float(difference.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """[n, C], [m, C] -> unbiased squared MMD with the kernel (x y / C + 1)^3 (KID, arXiv 1801.01401); may be below 0.

    Raises ValueError for fewer than two rows.
    """
    a, b = _checked(a), _checked(b)
    inside = [_off_diagonal_mean(_kernel(x, x)) for x in (a, b)]
    return float(inside[0] + inside[1] - 2 * _kernel(a, b).mean())


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a distance needs features [n, C] with n >= 2, not {list(features.shape)}")
    return features.double()


def _covariance(features: Tensor) -> Tensor:
    covariance: Tensor = torch.atleast_2d(torch.cov(features.T))
    return covariance


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    kernel: Tensor = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
