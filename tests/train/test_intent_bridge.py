from __future__ import annotations

import torch

from blm.train.intent_bridge import IntentBridge, alignment, fourier_features

D, W, N, L = 10, 16, 4, 7


def bridge(layers: int = 2) -> IntentBridge:
    torch.manual_seed(0)
    return IntentBridge(D, W, N, layers, heads=2, segments=3).eval()


def tokens() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, L, D, generator=generator)
    mask = torch.ones(2, L, dtype=torch.bool)
    segment = torch.tensor([0, 1, 1, 1, 2, 2, 2]).expand(2, -1)
    return hidden, mask, segment, torch.rand(2, L, 2, generator=generator)


def test_shape_and_independence_of_the_order_of_tokens() -> None:
    hidden, mask, segment, position = tokens()
    out = bridge()(hidden, mask, segment, position)
    assert out.shape == (2, N, W)
    order = torch.randperm(L)
    shuffled = bridge()(hidden[:, order], mask[:, order], segment[:, order], position[:, order])
    torch.testing.assert_close(out, shuffled)


def test_padding_changes_nothing() -> None:
    hidden, mask, segment, position = tokens()
    mask = mask.clone()
    mask[:, -2:] = False
    out = bridge()(hidden, mask, segment, position)
    noisy, elsewhere = hidden.clone(), position.clone()
    noisy[:, -2:], elsewhere[:, -2:] = 1e3, 5.0
    torch.testing.assert_close(out, bridge()(noisy, mask, segment, elsewhere))
    short = bridge()(hidden[:, :-2], mask[:, :-2], segment[:, :-2], position[:, :-2])
    torch.testing.assert_close(out, short)


def test_place_and_camera_matter() -> None:
    hidden, mask, segment, position = tokens()
    out = bridge()(hidden, mask, segment, position)
    assert (out - bridge()(hidden, mask, segment, 1 - position)).abs().max() > 1e-3
    assert (out - bridge()(hidden, mask, 2 - segment, position)).abs().max() > 1e-3


def test_a_row_without_tokens_is_finite() -> None:
    hidden, mask, segment, position = tokens()
    assert bridge()(hidden, torch.zeros_like(mask), segment, position).isfinite().all()


def test_fourier_features_tell_all_places_of_a_fine_grid_apart() -> None:
    grid = torch.cartesian_prod(torch.linspace(0, 1, 33), torch.linspace(0, 1, 33))
    features = fourier_features(grid, 5)
    assert features.shape == (33 * 33, 22)
    distance = torch.cdist(features, features) + torch.eye(len(features)) * 9
    assert distance.min() > 0.1


def test_alignment_compares_tokens_over_their_width() -> None:
    target = torch.randn(2, 1, N, W)
    assert alignment(3 * target, target).item() < 1e-6
    assert abs(alignment(-target, target).item() - 2) < 1e-6
    # Over the tokens instead of the width, a permutation of channels would go unnoticed.
    assert alignment(target.flip(-1), target).item() > 0.1
