"""Dropout keeps the expectation, drops the share it is told, and does nothing in evaluation."""

from __future__ import annotations

import pytest
import torch

from multidomain.layers.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_dropped_and_the_mean_is_kept(share):
    torch.manual_seed(0)
    out = Dropout(share=share)(torch.ones(401, 501))  # 200,901 draws: not a multiple of four
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.004)
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert out.max().item() == pytest.approx(1 / (1 - share), rel=1e-4)


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(share=0.5)(torch.ones(100_000)) > 0).float()
    for distance in range(1, 9):  # four activations share a draw
        both = (kept[:-distance] * kept[distance:]).mean().item()
        assert both == pytest.approx(0.25, abs=0.01)


def test_evaluation_and_a_share_of_zero_change_nothing():
    x = torch.randn(3, 5)
    assert Dropout(share=0.5).eval()(x) is x
    assert Dropout(share=0.0)(x) is x


def test_the_gradient_flows_through_what_was_kept_and_the_seed_repeats_it():
    x = torch.ones(50, 7, requires_grad=True)
    torch.manual_seed(3)
    out = Dropout(share=0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach())
    torch.manual_seed(3)
    assert torch.equal(Dropout(share=0.3)(x), out)


def test_a_batch_without_rows_passes():
    assert Dropout(share=0.3)(torch.ones(0, 4)).shape == (0, 4)
