from __future__ import annotations

import numpy as np
import pytest

from depthcli.pixels.alignment import fit_line, fit_robust, ranks


def test_a_line_is_fitted_in_float64_whatever_the_shape() -> None:
    p = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    assert fit_line(p, 3 * p.astype(np.float64) - 2) == pytest.approx((3, -2))
    assert fit_line(p, p[::-1]) == fit_line(p.ravel(), p[::-1].ravel())


def test_values_without_variance_have_no_line() -> None:
    assert fit_line(np.zeros(3), np.arange(3.0)) is None


def test_equal_values_share_a_rank() -> None:
    assert ranks(np.array([30, 10, 20, 10, 30, 30])).tolist() == [5, 1.5, 3, 1.5, 5, 5]


def test_a_robust_fit_ignores_outliers_as_a_line_does_not() -> None:
    p = np.random.default_rng(0).random(1000)
    t = 3 * p - 2 + 0.01 * np.random.default_rng(1).standard_normal(1000)
    t[:200] += 5
    assert fit_robust(p, t) == pytest.approx((3, -2), abs=0.1)
    assert abs(fit_line(p, t)[1] + 2) > 0.5  # type: ignore[index]


def test_a_robust_fit_without_shift_finds_the_scale() -> None:
    p = 1 + np.random.default_rng(0).random((20, 30)).astype(np.float32)
    t = 2.5 * p
    t[:2] = 40
    scale, shift = fit_robust(p, t, shift=False)
    assert scale == pytest.approx(2.5, abs=0.05) and shift == 0


def test_a_robust_fit_undoes_any_scale_and_shift() -> None:
    p, t = np.random.default_rng(2).random((2, 500))
    scale, shift = fit_robust(p, t)
    other = fit_robust(1e-3 * p + 40, t)
    assert other[0] * 1e-3 == pytest.approx(scale, rel=1e-6)
    assert other[1] + other[0] * 40 == pytest.approx(shift, rel=1e-6)


def test_even_values_have_no_scale() -> None:
    assert fit_robust(np.full(9, 2.0), np.arange(9.0)) == (0, 4)
