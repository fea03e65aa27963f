"""Scale and shift come back from points of known depth, and what cannot give them is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

import depthcli
from depthcli.calibration import Calibration, calibration_of, describe_calibration
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.geometry.metres import Points, fit_ground, fit_points, fit_references, numbers_at
from depthcli.geometry.rays import rays
from tests.geometry.scenes import PROVENANCE, VGA, camera, plane

S, B = 0.04, 0.02
DISPARITY = "relative_disparity"
RNG = np.random.default_rng


def numbers(z: np.ndarray, s: float = S, b: float = B) -> np.ndarray:
    """What a network whose answer is exact gives for these depths."""
    return (1 / z - b) / s


def depths(count: int, seed: int = 1) -> np.ndarray:
    return np.exp(RNG(seed).uniform(np.log(1.5), np.log(30), count))


def relative(p: np.ndarray, **layers: object) -> DepthMap:
    return DepthMap(p, DepthKind.RELATIVE_DISPARITY, PROVENANCE, camera=camera(), **layers)


@pytest.mark.parametrize("count", [5, 10, 100])
def test_scale_and_shift_of_exact_points_are_exact(count):
    z = depths(count)
    found = fit_points(numbers(z), z, DISPARITY)
    assert np.allclose((found.scale, found.shift), (S, B), rtol=1e-6)
    assert (found.rule, found.points, found.inliers) == ("line", count, count)
    assert (found.nearest, found.farthest_point) == (z.min(), z.max())


@pytest.mark.parametrize("seed", range(5))
def test_thirty_percent_of_wrong_depths_move_scale_and_shift_by_less_than_a_percent(seed):
    z = depths(100, seed)
    p = numbers(z)
    z[:30] = RNG(seed).uniform(1.5, 30, 30)
    found = fit_points(p, z, DISPARITY)
    assert found.scale == pytest.approx(S, rel=0.01) and found.shift == pytest.approx(B, rel=0.01)
    assert 70 <= found.inliers < 90


def test_a_fit_is_the_same_every_time():
    z = depths(200)
    p = numbers(z) + RNG(3).normal(0, 0.3, 200)
    assert fit_points(p, z, DISPARITY) == fit_points(p, z, DISPARITY)


# --- Few points -------------------------------------------------------------------------------------------------------


def test_one_point_gives_a_scale():
    found = fit_points([5.0], [2.0], DISPARITY)
    assert (found.rule, found.scale, found.shift, found.error, found.notes) == (
        "scale",
        pytest.approx(0.1),
        0,
        None,
        (),
    )


def test_two_points_give_a_shift_only_if_their_numbers_differ_by_half():
    far, near = np.array([20.0, 2.0])
    both = np.array([far, near])
    assert fit_points(numbers(both), both, DISPARITY).rule == "line"
    close = np.array([2.0, 2.2])
    found = fit_points(numbers(close), close, DISPARITY)
    assert (found.rule, found.shift) == ("scale", 0) and "1.5 times" in found.notes[0]


def test_two_points_that_run_backwards_give_a_scale_or_nothing():
    found = fit_points([1.0, 1.6], [2.0, 2.1], DISPARITY)
    assert (found.rule, found.shift) == ("scale", 0) and "contradict the map" in found.notes[0]
    with pytest.raises(UsageError, match="contradict each other") as told:
        fit_points([1.0, 4.0], [2.0, 20.0], DISPARITY)
    assert told.value.exit_code == 2


@pytest.mark.parametrize("count", [3, 4, 20])
def test_points_that_run_backwards_are_refused(count):
    z = np.linspace(2, 20, count)
    with pytest.raises(UsageError, match=r"contradict the map: .* farther \(s <= 0\)"):
        fit_points(z, z, DISPARITY, "line")


@pytest.mark.parametrize("p", [[0.0], [-1.0], [0.0, 0.0], [3.0, 3.0, 3.0]])
def test_numbers_that_give_no_scale_are_refused(p):
    fit = "line" if len(p) == 3 else "auto"
    with pytest.raises(UsageError, match="contradict the map: it has one number at all of them, or 0"):
        fit_points(p, np.full(len(p), 2.0), DISPARITY, fit)


def test_two_groups_that_contradict_each_other_are_refused():
    z = depths(30)
    p = numbers(z)
    z[:14] *= 4
    z[14:18] *= 12
    with pytest.raises(UsageError, match="contradict each other: only") as told:
        fit_points(p, z, DISPARITY, "scale")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("kind", "fit", "count", "reason"),
    [
        (DISPARITY, "line", 1, "`fit` line needs 2 points"),
        (DISPARITY, "isotonic", 99, "`fit` isotonic needs 100 points, got 99"),
        ("metric_depth", "line", 9, "`fit` line is for disparity"),
        ("relative_depth", "isotonic", 200, "`fit` isotonic is for disparity"),
    ],
)
def test_a_fit_that_is_impossible_is_refused(kind, fit, count, reason):
    z = depths(count)
    with pytest.raises(UsageError, match=reason):
        fit_points(z, z, kind, fit)


def test_scale_alone_leaves_the_shift_out():
    z = np.linspace(2, 4, 50)
    assert fit_points(numbers(z, b=0), z, DISPARITY, "scale").scale == pytest.approx(S)


@pytest.mark.parametrize("kind", ["relative_depth", "metric_depth"])
def test_depth_takes_one_factor(kind):
    z = depths(40)
    p = z / 1.08
    z[:10] *= 3
    found = fit_points(p, z, kind)
    assert found.scale == pytest.approx(1.08, rel=0.01) and found.shift == 0
    assert found.metres(np.array([10.0]))[0] == pytest.approx(10.8, rel=0.01)


def test_a_curve_follows_what_no_line_does():
    z = depths(1000)
    p = numbers(z, b=0) ** 1.5
    line, curve = fit_points(p, z, DISPARITY), fit_points(p, z, DISPARITY, "isotonic")
    errors = [np.abs(each.metres(p)[0] / z - 1).mean() for each in (line, curve)]
    assert errors[1] < 0.2 * errors[0]
    assert (np.diff(curve.metres(np.linspace(0, 80, 500))[0][10:]) <= 1e-9).all()


# --- The left-out error -----------------------------------------------------------------------------------------------


def test_the_left_out_error_is_told_from_ten_points_on_and_is_near_the_true_one():
    z = depths(1000)
    p = numbers(z * np.exp(RNG(5).normal(0, 0.05, 1000)))
    assert fit_points(p[:9], z[:9], DISPARITY).error is None
    assert fit_points(p[:10], z[:10], DISPARITY).error is not None
    for start in range(0, 300, 30):
        part = slice(start, start + 30)
        found = fit_points(p[part], z[part], DISPARITY)
        assert 0.5 < found.error / np.median(np.abs(found.metres(p)[0] / z - 1)) < 2


# --- A map ------------------------------------------------------------------------------------------------------------


def test_a_map_becomes_metres_exactly_and_what_is_infinitely_far_is_counted():
    p = RNG(2).uniform(0.1, 10, (12, 16)).astype(np.float32)
    z = 1 / (S * p.astype(np.float64) + B)
    p[0, :5] = -1, -0.5, -0.6, -2, -3  # s p + b <= 0
    valid = np.ones(p.shape, bool)
    valid[1, 1] = valid[0, 1] = False
    rows = np.array([[u, v, z[v, u]] for v in range(2, 12) for u in range(0, 16, 3)])
    depth = relative(p, valid=valid)
    found = depthcli.calibrate(depth, rows)
    made = found.apply(depth)
    assert made.kind is DepthKind.METRIC_DEPTH and made.camera is depth.camera
    assert np.allclose(made.values[2:], z[2:], rtol=2e-6)
    assert made.calibration.invalid == 4 and (~made.valid).sum() == 6 and not made.values[~made.valid].any()
    assert found.line().startswith("metres: 1/z = 0.04 p + 0.02 (line), 60 of 60 points within 10 %, measured at ")
    assert "4 pixels infinitely far or beyond 107.6 m have no depth" in made.calibration.line()
    with pytest.raises(UsageError, match="calibrated already"):
        made.calibrated(found)


def test_a_calibration_of_another_model_or_kind_is_refused():
    depth = relative(np.ones((2, 2)))
    with pytest.raises(UsageError, match="for the model vitl, and this map has vits"):
        Calibration(DISPARITY, 1.0, model="vitl").apply(depth)
    with pytest.raises(UsageError, match="for the numbers metric_depth, and this map has relative_disparity"):
        Calibration("metric_depth", 1.0).apply(depth)


def test_a_metric_map_keeps_its_limit_in_scale():
    depth = DepthMap(np.full((2, 2), 10.0), DepthKind.METRIC_DEPTH, max_depth=20.0)
    made = Calibration("metric_depth", 1.5, rule="factor").apply(depth)
    assert made.values[0, 0] == 15 and made.max_depth == 30


def test_facts_describe_a_calibration_whole():
    z = depths(300)
    for fit in ("auto", "isotonic"):
        found = fit_points(numbers(z), z, DISPARITY, fit)
        assert calibration_of(describe_calibration(found)) == found
    with pytest.raises(ValueError, match="scale must be positive"):
        calibration_of({"kind": DISPARITY, "scale": -1, "shift": 0})
    with pytest.raises(ValueError, match="must rise"):
        Calibration(DISPARITY, 1.0, rule="isotonic", knots=((0, 1), (1, 0.5)))


def test_numbers_lie_at_pixel_centres():
    u, v = np.meshgrid(np.arange(8.0), np.arange(6.0))
    valid = np.ones((6, 8), bool)
    valid[5, 7] = False
    depth = relative(3 * u + 10 * v, valid=valid)
    places = np.array([[0, 0], [2.5, 3.25], [7, 4], [6.5, 4.5], [7.6, 0], [0, -0.6]])
    assert np.allclose(numbers_at(depth, places), [0, 40, 61, np.nan, np.nan, np.nan], equal_nan=True)


def test_references_beside_the_picture_are_one_line():
    outside = Points(np.array([[700.0, 0.0]]), np.array([1.0]), "z.csv")
    with pytest.raises(UsageError, match=r"none of the 1 points of z\.csv lies on a pixel with depth"):
        fit_references(relative(np.ones((480, 640))), [outside])


# --- What was typed ---------------------------------------------------------------------------------------------------


def test_a_tape_measures_along_the_ray():
    """At the corner of a VGA camera with 525 pixels a ray is 1.26 times as long as its depth."""
    depth = relative(np.full((480, 640), 2.0))
    tape = depthcli.calibrate(depth, "at:0,0=2.52").apply(depth).values[0, 0]
    axis = depthcli.calibrate(depth, "z:0,0=2.52").apply(depth).values[0, 0]
    length = math.sqrt(1 + (319.5**2 + 239.5**2) / 525**2)
    assert (
        axis == pytest.approx(2.52)
        and tape == pytest.approx(2.52 / length)
        and 2.52 / tape == pytest.approx(1.26, 0.01)
    )


def test_the_size_of_an_object_gives_its_depth():
    depth = relative(np.full((480, 640), 2.0))
    found = depthcli.calibrate(depth, "size:100,50,100,250=1.75")
    assert found.nearest == pytest.approx(1.75 * 525 / 200) and found.camera == "given"
    with pytest.raises(UsageError, match="both ends"):
        depthcli.calibrate(depth, "size:100,50,100,50=1.75")


@pytest.mark.parametrize(("pitch", "roll"), [(0.0, 0.0), (3.0, 2.0), (-1.0, -4.0)])
def test_an_exact_road_gives_scale_and_shift_to_a_ten_thousandth(pitch, roll):
    theta, phi = math.radians(pitch), math.radians(roll)
    normal = math.sin(phi) * math.cos(theta), math.cos(phi) * math.cos(theta), math.sin(theta)
    z = plane(camera(), normal, 1.65, VGA).astype(np.float64)
    p = np.where(np.isfinite(z), numbers(z), 0)
    p[340:400, 250:300] += 5  # a box on the road
    found = fit_ground(relative(p), camera(), 1.65, pitch, "ground:1.65")
    assert np.allclose((found.scale, found.shift), (S, B), rtol=1e-4)
    assert f"roll {roll:g} degrees" in found.notes[0]


def test_ground_that_comes_nearer_upward_is_none():
    v = np.mgrid[0:480, 0:640][0]
    with pytest.raises(UsageError, match=r"ground:1\.65 finds no ground"):
        fit_ground(relative(500.0 - v), camera(), 1.65, 0.0, "ground:1.65")


def test_a_guessed_range_gives_no_metres_and_a_shape_keeps_it():
    z = np.abs(rays(VGA, camera())[..., 0]) * 10 + 1
    depth = relative(numbers(z))
    made = depthcli.calibrate(depth, "range:0.5,20").apply(depth)
    assert made.kind is DepthKind.RELATIVE_DEPTH and made.calibration.unit == "guess"
    assert np.allclose(
        np.percentile(made.values[made.valid] if made.valid is not None else made.values, [1, 99]), [0.5, 20], rtol=0.02
    )
    cloud = depthcli.points(made, choice=depthcli.ShapeChoice(edges=None, axes="opencv"))
    assert cloud.unit == "arbitrary" and cloud.points[:, 2].max() == pytest.approx(made.values.max())
    assert cloud.facts["shape"]["rule"] == "z = value, as calibrated"


@pytest.mark.parametrize("kind", [DepthKind.RELATIVE_DEPTH, DepthKind.METRIC_DEPTH])
def test_maps_of_depth_are_multiplied(kind):
    depth = DepthMap(RNG(4).uniform(1, 5, (20, 30)), kind, max_depth=20.0 if kind.is_metric else None)
    found = depthcli.calibrate(depth, [f"z:{u},3={2 * depth.values[3, u]}" for u in range(0, 30, 3)])
    made = found.apply(depth)
    assert found.line().startswith("metres: z = 2 p (scale), 10 of 10") and made.kind is DepthKind.METRIC_DEPTH
    assert np.allclose(made.values, 2 * depth.values) and made.max_depth == (40.0 if kind.is_metric else None)
