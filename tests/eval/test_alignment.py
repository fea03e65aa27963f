"""What is done to a prediction before it is compared: exactly what its kind leaves open, and in the open."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.depthmap import DepthKind
from depthcli.errors import PictureError, UsageError
from depthcli.eval.alignment import Alignment, align, choose, fit_median, fit_scale_shift, protocol
from depthcli.eval.truth import Truth

DISPARITY, DEPTH, METRES = DepthKind.RELATIVE_DISPARITY, DepthKind.RELATIVE_DEPTH, DepthKind.METRIC_DEPTH
RANDOM = np.random.default_rng(5)
# A floor seen from above it: depth falls towards the lower rows.
PLANE = np.repeat((30 / np.arange(3, 15))[:, None], 7, axis=1)


def truth(depth=PLANE, kind=METRES) -> Truth:
    return Truth(depth, kind)


class TestFits:
    def test_least_squares_is_what_the_normal_equations_give(self):
        p, t = RANDOM.random(40), RANDOM.random(40)
        expected = np.linalg.lstsq(np.stack([p, np.ones(40)], axis=1), t, rcond=None)[0]
        assert fit_scale_shift(p, t) == pytest.approx(tuple(expected))

    def test_no_neighbouring_scale_or_shift_is_better(self):
        p, t = RANDOM.random(40), RANDOM.random(40)
        scale, shift = fit_scale_shift(p, t)
        least = ((scale * p + shift - t) ** 2).sum()
        for a, b in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3), (1e-3, -1e-3)):
            assert (((scale + a) * p + shift + b - t) ** 2).sum() > least

    def test_a_constant_prediction_fits_with_the_mean(self):
        assert fit_scale_shift(np.full(4, 0.1), np.array([1.0, 2, 3, 6])) == (0, 3)

    def test_median(self):
        assert fit_median(np.array([1.0, 2, 100]), np.array([5.0, 6, 7])) == 3
        with pytest.raises(PictureError, match="0 or below"):
            fit_median(np.array([0.0, 0, 5]), np.ones(3))


class TestScaleShift:
    @pytest.mark.parametrize(("scale", "shift"), [(1, 0), (250.0, 0), (3.0, -7.0), (0.01, 100)])
    def test_any_scaled_and_shifted_disparity_is_perfect(self, scale, shift):
        aligned, done = align(scale / PLANE + shift, DISPARITY, truth())
        assert np.allclose(aligned, PLANE, rtol=1e-9)
        assert (done.method, done.turned_over) == ("scale-shift", False)
        assert (done.scale, done.shift) == pytest.approx((1 / scale, -shift / scale))

    def test_only_known_elements_take_part(self):
        holes = PLANE.copy()
        holes[2:9, 3:] = np.nan
        wrong = np.where(np.isnan(holes), 1e6, 5 / PLANE + 2)
        aligned, _ = align(wrong, DISPARITY, truth(holes))
        assert np.allclose(aligned[~np.isnan(holes)], PLANE[~np.isnan(holes)])

    def test_a_reversed_prediction_is_marked_and_its_scale_is_kept(self):
        aligned, done = align(9 - 2 / PLANE, DISPARITY, truth())
        assert done.turned_over and done.scale == pytest.approx(-0.5)
        assert np.allclose(aligned, PLANE)  # which is why it has to be marked

    def test_a_constant_prediction_becomes_the_mean_disparity_and_is_not_called_turned(self):
        aligned, done = align(np.full(PLANE.shape, 3), DISPARITY, truth())
        assert np.allclose(aligned, 1 / (1 / PLANE).mean())
        assert (done.scale, done.turned_over) == (0, False)

    def test_disparity_is_held_above_that_of_max_depth_or_of_the_farthest_truth(self):
        prediction = 1 / PLANE
        prediction[0, 0] = -5  # one sky element far below all others
        for limit, top in ((None, PLANE.max()), (80.0, 80.0)):
            aligned, _ = align(prediction, DISPARITY, truth(), max_depth=limit)
            assert aligned.max() == aligned[0, 0] == pytest.approx(top)
            assert (aligned > 0).all()

    def test_a_truth_in_disparity_needs_no_unit(self):
        aligned, done = align(4 / PLANE + 1, DISPARITY, truth(60 / PLANE, DISPARITY))
        assert np.allclose(aligned, PLANE / 60)
        assert done.scale == pytest.approx(15)

    def test_metric_depth_can_be_fitted_too(self):
        aligned, _ = align(1 / (2 / PLANE + 0.3), METRES, truth(), "scale-shift")
        assert np.allclose(aligned, PLANE)
        with pytest.raises(PictureError, match="no disparity"):
            align(PLANE * 0, METRES, truth(), "scale-shift")


class TestDepth:
    def test_none_leaves_metres_alone(self):
        aligned, done = align(PLANE * 3, METRES, truth())
        assert np.array_equal(aligned, PLANE * 3) and done == Alignment("none", 1, 0)

    def test_metres_are_held_inside_the_limits_of_the_list(self):
        aligned, _ = align(np.where(PLANE > 5, 500.0, 0.0), METRES, truth(), min_depth=0.5, max_depth=80)
        assert set(aligned.ravel()) == {80, 0.5}
        aligned, _ = align(np.where(PLANE > 5, 500.0, 0.0), METRES, truth())
        assert set(aligned.ravel()) == {500, PLANE.min() / 1000}

    @pytest.mark.parametrize("kind", [DEPTH, METRES])
    def test_median_takes_a_factor_out(self, kind):
        aligned, done = align(PLANE / 8, kind, truth(), "median")
        assert np.allclose(aligned, PLANE) and (done.scale, done.shift) == (pytest.approx(8), 0)

    def test_but_no_shift(self):
        aligned, _ = align(PLANE + 5, DEPTH, truth())
        assert not np.allclose(aligned, PLANE, rtol=0.1)


@pytest.mark.parametrize(
    ("wanted", "kind", "metres", "method"),
    [
        ("auto", DISPARITY, True, "scale-shift"),
        ("auto", DISPARITY, False, "scale-shift"),
        ("auto", DEPTH, True, "median"),
        ("auto", METRES, True, "none"),
        ("auto", METRES, False, "median"),
        ("median", METRES, True, "median"),
        ("scale-shift", DEPTH, True, "scale-shift"),
        ("median", DISPARITY, True, "unknown shift"),
        ("none", DISPARITY, True, "has no unit"),
        ("none", DEPTH, True, "has no unit"),
        ("none", METRES, False, "has no unit"),
        ("best", METRES, True, "unknown `align` 'best'"),
    ],
)
def test_the_kind_decides_and_what_would_mean_nothing_is_refused(wanted, kind, metres, method):
    if " " in method:
        with pytest.raises(UsageError, match=method):
            choose(wanted, kind, metres)
    else:
        assert choose(wanted, kind, metres) == method


@pytest.mark.parametrize("known", [0, 1])
@pytest.mark.parametrize(("kind", "wanted"), [(DISPARITY, "scale-shift"), (METRES, "median"), (METRES, "none")])
def test_fewer_than_two_known_elements_are_no_truth(known, kind, wanted):
    values = np.full((3, 3), np.nan)
    values.ravel()[:known] = 2
    with pytest.raises(PictureError, match=f"knows {known} elements"):
        align(np.ones((3, 3)), kind, truth(values), wanted)


def test_the_protocol_says_what_was_done_and_to_how_many():
    one = Alignment("scale-shift", 2, 1)
    assert protocol([one, one]).startswith("scale-shift: ") and "least squares in disparity" in protocol([one])
    both = protocol([Alignment("none"), Alignment("none"), Alignment("median", 3)])
    assert "none (pictures: 2): " in both and "median (pictures: 1): " in both
    assert protocol([]).startswith("nothing was aligned")
    for method in ("scale-shift", "median", "none"):
        assert "min_depth (of the list, else a thousandth of the nearest truth)" in protocol([Alignment(method)])
