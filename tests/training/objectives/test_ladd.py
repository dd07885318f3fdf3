"""The critic: spectral norms, norms of small batches, blocks by depth, passes that leave it alone."""

from __future__ import annotations

import pytest
import torch

from sanakit.training.objectives.ladd import (
    ChannelGroupNorm,
    Critic,
    LocalBatchNorm,
    SpectralConv,
    gradient_penalty,
)
from sanakit.training.objectives.sprint_settings import CriticConfig

WIDTH, TOKENS = 8, 12


def critic() -> Critic:
    return Critic(WIDTH, 2, lambda width: LocalBatchNorm(width, size=2))


@pytest.mark.parametrize(
    ("depth", "blocks"), [(20, (2, 8, 14, 19)), (28, (2, 11, 19, 26)), (10, (1, 4, 7, 9)), (1, (0,))]
)
def test_blocks_are_chosen_by_depth_as_published(depth: int, blocks: tuple[int, ...]) -> None:
    assert CriticConfig().numbers(depth) == blocks


def test_a_convolution_has_a_spectral_norm_of_one() -> None:
    conv = SpectralConv(WIDTH, WIDTH, 9)
    for _ in range(100):
        conv(torch.randn(1, WIDTH, TOKENS))
    largest = conv._largest(conv.weight, follow=False)
    assert torch.allclose(largest, torch.linalg.svdvals(conv.weight.flatten(1))[0], rtol=1e-3)


def test_the_wide_convolution_runs_in_a_circle() -> None:
    conv, x = SpectralConv(WIDTH, 3, 9).eval(), torch.randn(2, WIDTH, TOKENS)
    assert torch.allclose(conv(x.roll(5, 2)), conv(x).roll(5, 2), atol=1e-6)


def test_a_frozen_pass_changes_nothing_and_gives_the_tokens_a_gradient() -> None:
    model, tokens = critic(), [torch.randn(4, TOKENS, WIDTH, requires_grad=True) for _ in range(2)]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(tokens, frozen=True).mean().backward()
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in tokens)
    scores = model([each.detach() for each in tokens])
    assert scores.shape == (4, 1, 2 * TOKENS)
    scores.mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not torch.equal(model.heads[0].first.left, before["heads.0.first.left"])


def test_a_local_batch_norm_sees_the_samples_of_its_part() -> None:
    norm, x = LocalBatchNorm(WIDTH, size=2), torch.randn(5, WIDTH, TOKENS)
    found = norm(x)
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):  # at most two together, as even as it gets
        mean, var = x[part].mean((0, 2), keepdim=True), x[part].var((0, 2), keepdim=True, unbiased=False)
        assert torch.allclose(found[part], (x[part] - mean) / (var + 1e-5).sqrt(), atol=1e-5)
    whole = LocalBatchNorm(WIDTH, size=8)
    assert torch.equal(whole(x), whole.eval()(x))


def test_a_group_norm_sees_each_sample_alone() -> None:
    norm, x = ChannelGroupNorm(WIDTH), torch.randn(3, WIDTH, TOKENS)
    assert torch.allclose(norm(x)[1:2], norm(x[1:2]), atol=1e-6)


def test_the_gradient_penalty_is_that_of_the_scores() -> None:
    weights = torch.randn(2, TOKENS, WIDTH, requires_grad=True)
    features = [torch.randn(3, TOKENS, WIDTH, requires_grad=True) for _ in range(2)]
    scores = torch.stack([(w * f).sum((1, 2)) for w, f in zip(weights, features, strict=True)], dim=1)
    found = gradient_penalty(scores, features)
    assert torch.allclose(found, weights.square().sum())
    found.backward()
    assert torch.allclose(weights.grad, 2 * weights)
