"""What the losses are blind to, and what they see."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training.loss import LEVEL, affine_invariant_losses, logarithmic_losses, normalise  # noqa: E402


def test_the_free_loss_is_blind_to_scale_and_shift_and_sees_order() -> None:
    torch.manual_seed(0)
    truth = torch.rand(2, 20, 24)
    error, slopes = affine_invariant_losses(3.0 * truth + 5.0, truth)
    assert float(error) < 1e-5 and float(slopes) < 1e-5
    assert float(affine_invariant_losses(-truth, truth)[0]) > 1.0
    given = torch.rand(2, 20, 24)
    one = affine_invariant_losses(given, truth)[0]
    other = affine_invariant_losses(0.2 * given - 1.0, 7.0 * truth + 2.0)[0]
    assert float(one) == pytest.approx(float(other), rel=1e-4)


def test_the_right_answer_costs_nothing_in_logarithms_either() -> None:
    torch.manual_seed(1)
    truth = torch.rand(2, 20, 24)
    right = normalise(truth)[0] + LEVEL
    error, slopes = logarithmic_losses(right, 4.0 * truth)
    assert float(error) < 1e-5 and float(slopes) < 1e-4


def test_logarithms_see_far_things_change_places_and_disparity_hardly_does() -> None:
    near, far, farther = 10.0, 0.4, 0.1
    truth = torch.full((1, 16, 24), near)
    truth[:, :, 8:16], truth[:, :, 16:] = far, farther
    swapped = truth.clone()
    swapped[:, :, 8:16], swapped[:, :, 16:] = farther, far
    scale = normalise(truth)[1]
    given = (swapped - truth.median()) / scale + LEVEL
    assert float(affine_invariant_losses(given, truth, free=False)[0]) < 0.1
    assert float(logarithmic_losses(given, truth)[0]) > 0.2
