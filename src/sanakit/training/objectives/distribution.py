"""Distribution matching (DMD): a student draws where its teacher would, whole pictures and not their mean.

    student's picture + noise ──▶ teacher, guided ──▶ x0 that the teacher's pictures would have    real
                              └─▶ score network   ──▶ x0 that the student's own pictures have      fake
    the picture is moved by real - fake

Where both expect the same, the two kinds of pictures are equally likely. Regression on where a trajectory ends moves a
student that can't tell two ends apart between them; this moves it to one.

Sources: Yin et al. 2023, "One-step diffusion with distribution matching distillation", arXiv:2311.18828, equations 7
and 8; Yin et al. 2024, "DMD2", arXiv:2405.14867 (more steps of the score network than of the student, section 4.2; the
pictures of several steps, section 4.5).
"""

from __future__ import annotations

from torch import Tensor

_LEAST = 0.02
"""Mean distance between a picture and the teacher's expectation below which the direction no longer grows."""


def matching_direction(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return the direction [B, ...] that pictures x0 are moved against.

    real, fake: what the teacher and the score network expect of the same noisy pictures, [B, ...]. Divided by how far
    the teacher expects the picture to be, so that all noise levels count alike.
    """
    distance = (x0 - real).abs().flatten(1).mean(1).clamp_min(_LEAST)
    return (fake - real) / distance.reshape(-1, *[1] * (x0.ndim - 1))


def matching_loss(x0: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return a scalar whose gradient by x0 [B, ...] is `matching_direction`, over the number of elements."""
    moved = (x0 - matching_direction(x0, real, fake)).detach()
    return 0.5 * (x0 - moved).square().mean()
