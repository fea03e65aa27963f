from __future__ import annotations

import numpy as np
import pytest

from depthcli.pixels.alignment import fit_line, places, ranks


def test_a_line_is_fitted_in_float64_whatever_the_shape() -> None:
    p = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    assert fit_line(p, 3 * p.astype(np.float64) - 2) == pytest.approx((3, -2))
    assert fit_line(p, p[::-1]) == fit_line(p.ravel(), p[::-1].ravel())


def test_values_without_variance_have_no_line() -> None:
    assert fit_line(np.zeros(3), np.arange(3.0)) is None


def test_equal_values_share_a_rank_and_keep_their_places() -> None:
    values = np.array([30, 10, 20, 10, 30, 30])
    assert ranks(values).tolist() == [5, 1.5, 3, 1.5, 5, 5]
    assert places(values.reshape(2, 3)).tolist() == [3, 0, 2, 1, 4, 5]
