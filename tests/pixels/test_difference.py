import numpy as np
import pytest

from depthcli.pixels.difference import compare_maps


def test_differences_are_shares_of_the_exact_range() -> None:
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = wanted.copy()
    found[1, 2] += 1.1
    difference = compare_maps(wanted, found)
    assert difference.greatest == pytest.approx(0.1) and difference.mean == pytest.approx(0.1 / 12)
    assert compare_maps(wanted, found * 2).mean > 0.4


def test_rank_asks_for_the_order_alone() -> None:
    wanted = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert compare_maps(wanted, wanted**2).rank == pytest.approx(1)
    assert compare_maps(wanted, -wanted).rank == pytest.approx(-1)
    assert 0 < compare_maps(wanted, wanted[:, ::-1]).rank < 1


def test_flat_maps_and_single_pixels_have_a_difference() -> None:
    flat = np.full((2, 2), 3, np.float32)
    assert compare_maps(flat, flat + 1).mean == 1
    assert compare_maps(flat[:1, :1], flat[:1, :1]).rank == 1
