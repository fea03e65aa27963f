"""What the losses do not see, what they do, and that unknown pixels are nowhere in them."""

from __future__ import annotations

import math

import pytest
import torch

from depthcli.train.losses import GRADIENT, LAMBDA, scale_and_shift_invariant, silog

DRAW = torch.Generator().manual_seed(3)
TRUE = 1 + torch.rand(24, 32, generator=DRAW)
GUESS = 1 + torch.rand(24, 32, generator=DRAW)
KNOWN = torch.rand(24, 32, generator=DRAW) < 0.7


def test_silog_of_a_common_factor_is_its_logarithm_times_the_root_of_half():
    found = silog(3 * TRUE, TRUE, KNOWN)
    assert float(found) == pytest.approx(math.log(3) * math.sqrt(1 - LAMBDA), rel=1e-5)


def test_silog_at_the_truth_has_a_finite_slope():
    predicted = TRUE.clone().requires_grad_()
    silog(predicted, TRUE, KNOWN).backward()
    assert torch.isfinite(predicted.grad).all()


def test_neither_scale_nor_shift_counts_for_disparity():
    base = scale_and_shift_invariant(GUESS, TRUE, KNOWN)
    assert float(base) > 0.5
    assert float(scale_and_shift_invariant(7 * GUESS - 2, TRUE, KNOWN)) == pytest.approx(float(base), rel=1e-4)
    assert float(scale_and_shift_invariant(GUESS, 0.1 * TRUE + 5, KNOWN)) == pytest.approx(float(base), rel=1e-4)
    assert float(scale_and_shift_invariant(3 * TRUE - 1, TRUE, KNOWN)) == pytest.approx(0, abs=1e-5)
    assert float(scale_and_shift_invariant(-TRUE, TRUE, KNOWN)) > 1.9  # near and far turned over


@pytest.mark.parametrize("loss", [silog, scale_and_shift_invariant])
def test_unknown_pixels_have_no_part_in_it(loss):
    predicted = GUESS.clone().requires_grad_()
    value = loss(predicted, TRUE, KNOWN)
    value.backward()
    assert not predicted.grad[~KNOWN].any() and predicted.grad[KNOWN].any()
    elsewhere = torch.where(KNOWN, GUESS, torch.full_like(GUESS, 40))
    unknown = torch.where(KNOWN, TRUE, torch.zeros_like(TRUE))
    assert float(loss(elsewhere, unknown, KNOWN)) == pytest.approx(value.item(), rel=1e-6)


def test_a_blurred_edge_costs_its_slopes():
    truth = torch.zeros(8, 8)
    truth[:, 4:] = 1
    truth[0, 0] = 0.5  # the median and the spread are those of both
    sharp, blurred = truth.clone(), truth.clone()
    blurred[:, 3], blurred[:, 4] = 1 / 3, 2 / 3
    everywhere = torch.ones(8, 8, dtype=torch.bool)
    assert float(scale_and_shift_invariant(sharp, truth, everywhere)) == pytest.approx(0, abs=1e-6)
    assert float(scale_and_shift_invariant(blurred, truth, everywhere)) > GRADIENT * 0.2
