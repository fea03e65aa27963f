"""Fit scale and shift to what was measured, so that a map of relative depth becomes metres.

Model: 1 / z = s p + b with s > 0 for disparity p, z = s p for depth p. Fits are made in disparity, t = 1 / z against
q = p or 1 / p. From five points on they are robust: RANSAC (Fischler and Bolles 1981), then Huber's weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from depthcli.calibration import GUESS, Calibration
from depthcli.camera import Camera
from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.geometry.rays import rays_at
from depthcli.pixels.alignment import fit_line, fit_robust
from depthcli.pixels.sampling import taps_at

MOST_POINTS = 5000  # of one reference: more change nothing
FEWEST_ISOTONIC = 100
_FEWEST_ROBUST, _FEWEST_LEFT_OUT = 5, 10
_DRAWS, _SEED = 300, 0
_WITHIN = 0.1  # of disparity: an inlier
_DISAGREES = 0.5  # of disparity: more than what a model errs by
_APART = 1.5  # times: numbers whose shift can be told from their scale
_FOLDS, _MOST_LEFT_OUT = 50, 1000  # fits of the left-out error, and points it is taken of
_BENDS = 100  # most knots of the monotone curve
_BENT = 2.0  # times: points farther from the line than this do not bend the curve
_GROUND_ROWS, _GROUND_COLUMNS = (0.62, 0.97), (0.30, 0.70)  # parts of the picture
_GROUND_PIXELS, _GROUND_WITHIN = 20_000, 0.02  # most pixels of it; of the spread of its numbers: an inlier
_SAMPLES = 1 << 20  # pixels that a percentile is taken of
_LEAST_FARTHEST, _FARTHER = 100.0, 3.0  # metres, and times the farthest reference: beyond is no depth
_LEAST, _MOST = 1e-6, 1e9  # metres; what is beyond was no depth
_CONTRADICTION = "check the pixels and the unit of each reference"


@dataclass(frozen=True, eq=False)
class Points:
    """Measured points of one reference.

    pixels: (N, 2) float64 (u, v). z: (N,) float64, metres along the optical axis. source: the reference's text.
    camera: where the camera came from that they needed, empty without one. notes: how they were found.
    """

    pixels: np.ndarray
    z: np.ndarray
    source: str = ""
    camera: str = ""
    notes: tuple[str, ...] = field(default_factory=tuple)


def at_distances(pixels: np.ndarray, distances: np.ndarray, camera: Camera) -> np.ndarray:
    """Return (N,) depths along the axis for distances from the camera along the rays: z = r / sqrt(1 + x^2 + y^2)."""
    xy = rays_at(np.asarray(pixels, np.float64), camera)
    return np.asarray(distances, np.float64) / np.sqrt(1 + (xy * xy).sum(axis=1))


def at_size(ends: np.ndarray, size: float, camera: Camera) -> float:
    """Return the depth of an object whose two ends (2, 2) have one depth: z = size / |ray1 - ray2|, rays at z = 1.

    Raises UsageError if both ends are one pixel.
    """
    one, other = rays_at(np.asarray(ends, np.float64), camera)
    length = float(np.linalg.norm(one - other))
    if not length > 0:
        raise UsageError("both ends of the object are one pixel", "give `scale_from` as size:u1,v1,u2,v2=METRES")
    return size / length


def thinned(points: Points, most: int = MOST_POINTS) -> Points:
    """Return at most so many of the points, drawn with a fixed seed."""
    if len(points.z) <= most:
        return points
    chosen = np.sort(np.random.default_rng(_SEED).choice(len(points.z), most, replace=False))
    return replace(points, pixels=points.pixels[chosen], z=points.z[chosen])


def numbers_at(depth: DepthMap, pixels: np.ndarray) -> np.ndarray:
    """Return the (N,) float64 numbers of a map at pixels (u, v), bilinear; NaN outside and beside invalid pixels."""
    width, height = depth.size
    u, v = np.asarray(pixels, np.float64).T
    inside = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
    rows, columns = taps_at(np.where(inside, v, 0), height), taps_at(np.where(inside, u, 0), width)
    values = depth.values if depth.valid is None else np.where(depth.valid, depth.values, np.nan)
    out = np.zeros(len(u))
    for row, down in ((rows.first, 1 - rows.weight), (rows.second, rows.weight)):
        for column, across in ((columns.first, 1 - columns.weight), (columns.second, columns.weight)):
            weight = down.astype(np.float64) * across
            out += np.where(weight > 0, weight * values[row, column], 0)
    return np.where(inside, out, np.nan)


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured points and what the map has there. numbers: (N,) float64, NaN where it has none."""

    numbers: np.ndarray
    points: Points


def measure(depth: DepthMap, points: Points) -> Measured:
    """Return the numbers of a map at measured points."""
    return Measured(numbers_at(depth, points.pixels), points)


def fit_references(depth: DepthMap, references: Sequence[Points], fit: str = "auto") -> Calibration:
    """Return the calibration of a map by measured points. fit: auto, scale, line or isotonic.

    Raises UsageError if no point lies on valid pixels, if the points contradict each other, and for a fit that the map
    or the number of points does not allow.
    """
    return fit_measured([measure(depth, points) for points in references], depth, fit)


def fit_measured(measured: Sequence[Measured], depth: DepthMap, fit: str = "auto") -> Calibration:
    """Return the calibration of several maps of one scale by points in each of them; see `fit_references`.

    depth: one of the maps, for their kind and their model.
    """
    references = list({item.points.source: item.points for item in measured}.values())
    p = np.concatenate([item.numbers for item in measured])
    z = np.concatenate([item.points.z for item in measured])
    usable = np.isfinite(p) & (z > _LEAST) & (z < _MOST)
    if not depth.kind.near_is_high:
        usable &= p > 0
    if not usable.any():
        raise UsageError(
            f"none of the {len(z)} points of {', '.join(points.source for points in references) or 'no reference'} lies"
            " on a pixel with depth",
            "pixels are u,v of the upright picture: columns from the left, rows from the top, from 0",
        )
    found = fit_points(p[usable], z[usable], depth.kind.value, fit)
    cameras = [points.camera for points in references if points.camera]
    return replace(
        found,
        sources=tuple(points.source for points in references),
        camera=cameras[0] if cameras else "",
        model=depth.provenance.model,
        weights=depth.provenance.sha256,
        notes=(*found.notes, *(note for points in references for note in points.notes)),
    )


def fit_points(p: np.ndarray, z: np.ndarray, kind: str, fit: str = "auto") -> Calibration:
    """Return the calibration by (N,) numbers of a map of this kind and their depths in metres. Raises UsageError.

    auto: one point gives a scale; more give scale and shift if their numbers differ by 1.5 times, and else a scale.
    """
    p, z = np.asarray(p, np.float64), np.asarray(z, np.float64)
    disparity = kind == "relative_disparity"
    if fit in ("line", "isotonic") and not disparity:
        raise UsageError(f"`fit` {fit} is for disparity, and the map has {kind}: one factor", "leave out `fit`")
    if fit == "isotonic" and len(p) < FEWEST_ISOTONIC:
        raise UsageError(f"`fit` isotonic needs {FEWEST_ISOTONIC} points, got {len(p)}", "use auto")
    if fit == "line" and len(p) < 2:
        raise UsageError("`fit` line needs 2 points, got 1", "give another reference, or use auto")
    q, t = p if disparity else 1 / p, 1 / z
    rule, note = _rule(q, t, fit if disparity else "scale")
    line = _fit(q, t, rule)
    if line is None:
        raise UsageError(f"the references contradict the map: {_backwards(q, t)}", _CONTRADICTION)
    within = _are_within(line, q, t)
    agreeing = int(_are_within(line, q, t, _DISAGREES).sum())
    if 2 * agreeing < len(p):
        reason = f"only {agreeing} of {len(p)} lie within {100 * _DISAGREES:.0f} % of the best {rule}"
        raise UsageError(f"the references contradict each other: {reason}", _CONTRADICTION)
    scale, shift, knots = line
    inside = z[within] if within.any() else z
    return Calibration(
        kind=kind,
        scale=scale if disparity else 1 / scale,
        shift=shift,
        rule=rule,
        points=len(p),
        inliers=int(within.sum()),
        nearest=float(inside.min()),
        farthest_point=float(inside.max()),
        error=_left_out(q, t, rule),
        farthest=far_end(float(inside.max())),
        notes=(note,) if note else (),
        knots=knots,
    )


def far_end(farthest_point: float, least: float = _LEAST_FARTHEST) -> float:
    """Return the depth beyond which a calibrated map has none: 3 times the farthest reference, but 100 m at least."""
    return max(least, _FARTHER * farthest_point)


_Line = tuple[float, float, tuple[tuple[float, float], ...]]  # scale, shift, knots


def _rule(q: np.ndarray, t: np.ndarray, fit: str) -> tuple[str, str]:
    """Return scale, line or isotonic, and a note if a shift was left out that was not ruled out by the user."""
    if fit != "auto":
        return fit, ""
    if len(q) == 1:
        return "scale", ""
    if q.max() < _APART * q.min():
        return "scale", f"no shift, as the numbers at the references differ by less than {_APART:g} times"
    if len(q) == 2 and not _rises(q, t):
        return "scale", "no shift, as the references contradict the map"
    return "line", ""


def _rises(q: np.ndarray, t: np.ndarray) -> bool:
    line = fit_line(q, t)
    return line is not None and line[0] > 0


def _fit(q: np.ndarray, t: np.ndarray, rule: str) -> Optional[_Line]:
    """Return the line, or the curve, through points of which some may be wrong; None if there is none with s > 0."""
    shift = rule != "scale"
    inliers = np.ones(len(q), bool)
    if len(q) >= _FEWEST_ROBUST:
        drawn = _drawn(q, t, shift)
        if drawn is None:
            return None
        inliers = _are_within((*drawn, ()), q, t)
    scale, offset = fit_robust(q[inliers], t[inliers], shift) if len(np.unique(q[inliers])) > 1 else (0.0, 0.0)
    if not shift and not scale > 0:
        middle = float(np.median(q[inliers]))
        scale, offset = (float(np.median(t[inliers])) / middle if middle > 0 else 0.0), 0.0
    if not (0 < scale < math.inf and math.isfinite(offset)):
        return None
    return scale, offset, _bends(q, t, scale, offset) if rule == "isotonic" else ()


def _drawn(q: np.ndarray, t: np.ndarray, shift: bool) -> Optional[tuple[float, float]]:
    """Return the line through two of the points, or from 0 through one, that has the most points within 10 %."""
    draw = np.random.default_rng(_SEED)
    one, other = draw.integers(len(q), size=_DRAWS), draw.integers(len(q), size=_DRAWS)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scales = (t[one] - t[other]) / (q[one] - q[other]) if shift else t[one] / q[one]
        shifts = t[one] - scales * q[one] if shift else np.zeros(_DRAWS)
    good = (scales > 0) & np.isfinite(scales) & np.isfinite(shifts)
    if not good.any():
        return None
    scales, shifts = scales[good], shifts[good]
    apart = np.abs(scales[:, None] * q + (shifts[:, None] - t))
    best = int(np.argmax(np.count_nonzero(apart <= _WITHIN * t, axis=1)))
    return float(scales[best]), float(shifts[best])


def _are_within(line: _Line, q: np.ndarray, t: np.ndarray, part: float = _WITHIN) -> np.ndarray:
    return np.abs(line[0] * q + line[1] - t) <= part * t


def _bends(q: np.ndarray, t: np.ndarray, scale: float, shift: float) -> tuple[tuple[float, float], ...]:
    """Return the knots of the curve that never falls and is nearest to the points, in groups of equal number.

    Pool adjacent violators (Ayer et al. 1955): neighbours in the wrong order share their mean.
    """
    ratio = (scale * q + shift) / t
    near = (ratio > 1 / _BENT) & (ratio < _BENT)
    order = np.argsort(q[near], kind="stable")
    if not len(order):
        return ()
    starts = np.linspace(0, len(order), min(_BENDS, 1 + len(order) // 5), endpoint=False).astype(np.intp)
    counts = np.diff(starts, append=len(order))
    sums = (np.add.reduceat(values[near][order], starts) for values in (q, t))
    blocks: list[list[float]] = []  # sum of q, sum of t, count
    for group in zip(*(column.tolist() for column in sums), counts.tolist()):
        blocks.append(list(group))
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [mine + more for mine, more in zip(blocks[-1], last)]
    knots = [(sum_q / count, sum_t / count) for sum_q, sum_t, count in blocks]
    return tuple(knot for place, knot in enumerate(knots) if not place or knot[0] > knots[place - 1][0])


def _left_out(q: np.ndarray, t: np.ndarray, rule: str) -> Optional[float]:
    """Return the median of |dz| / z of points left out of the fit, one by one or in 50 groups; None below 10 points."""
    if len(q) < _FEWEST_LEFT_OUT:
        return None
    order = np.random.default_rng(_SEED).permutation(len(q))[:_MOST_LEFT_OUT]
    q, t = q[order], t[order]
    errors = []
    for fold in range(min(_FOLDS, len(q))):
        out = np.arange(len(q)) % _FOLDS == fold
        line = _fit(q[~out], t[~out], rule)
        if line is None:
            continue
        scale, shift, knots = line
        z, known = Calibration("relative_disparity", scale, shift, rule, knots=knots).metres(q[out])
        errors.append(np.where(known, np.abs(z * t[out] - 1), np.inf))  # infinitely far: as wrong as can be
    error = float(np.median(np.concatenate(errors))) if errors else math.inf
    return error if math.isfinite(error) else None


def _backwards(q: np.ndarray, t: np.ndarray) -> str:
    if len(q) < 2 or np.ptp(q) == 0:
        return "it has one number at all of them, or 0"
    return "what they place nearer it has farther (s <= 0)"


# --- Whole calibrations from one number -------------------------------------------------------------------------------


def fit_ground(depth: DepthMap, camera: Camera, height: float, pitch: float, source: str) -> Calibration:
    """Return the calibration by the height of a camera above flat ground.

    height: metres. pitch: degrees that the camera looks down. The ground is the plane p = A x + B y + C over rays
    (x, y) of the lower middle of the picture. There 1 / z = (cos(pitch) (sin(roll) x + cos(roll) y) + sin(pitch)) /
    height, so that s = cos(pitch) / (height sqrt(A^2 + B^2)) and b = sin(pitch) / height - s C. One degree of unknown
    pitch is about 11 % of depth at 3 to 16 m. Raises UsageError if no plane is found that comes nearer downward.
    """
    width, rows = depth.size
    top, bottom = (int(part * (rows - 1)) for part in _GROUND_ROWS)
    left, right = (int(part * (width - 1)) for part in _GROUND_COLUMNS)
    step = max(1, math.ceil(math.sqrt((bottom - top) * (right - left) / _GROUND_PIXELS)))
    v, u = np.mgrid[top : bottom + 1 : step, left : right + 1 : step]
    pixels = np.stack([u.ravel(), v.ravel()], axis=1).astype(np.float64)
    p = numbers_at(depth, pixels)
    usable = np.isfinite(p) if depth.kind.near_is_high else p > 0
    q = p[usable] if depth.kind.near_is_high else 1 / p[usable]
    xy = rays_at(pixels[usable], camera)
    plane = _plane(xy, q)
    if plane is None or plane[0][1] <= 0:
        raise UsageError(f"{source} finds no ground in the lower middle of the picture", "use distances: at:u,v=METRES")
    (a, b, c), share = plane
    theta = math.radians(pitch)
    scale = math.cos(theta) / (height * math.hypot(a, b))
    shift = math.sin(theta) / height - scale * c
    level = q * scale + shift
    seen = level[level > 0]
    inside = (float(1 / seen.max()), float(1 / seen.min())) if len(seen) else (None, None)
    roll = round(math.degrees(math.atan2(a, b)), 1) + 0.0  # never -0
    disparity = depth.kind.near_is_high
    return Calibration(
        kind=depth.kind.value,
        scale=scale if disparity else 1 / scale,
        shift=shift if disparity else 0.0,
        rule="ground",
        nearest=inside[0],
        farthest_point=inside[1],
        farthest=far_end(inside[1] or 0),
        sources=(source,),
        camera=camera.source.value,
        model=depth.provenance.model,
        weights=depth.provenance.sha256,
        notes=(f"ground: {100 * share:.0f} % of the lower middle, roll {roll:g} degrees",),
    )


def _plane(xy: np.ndarray, q: np.ndarray) -> Optional[tuple[tuple[float, float, float], float]]:
    """Return (A, B, C) of q = A x + B y + C through most points, and the share of these; None without one."""
    if len(q) < 3:
        return None
    rows = np.c_[xy, np.ones(len(q))]
    limit = _GROUND_WITHIN * float(np.subtract(*np.percentile(q, [95, 5])))
    draw = np.random.default_rng(_SEED)
    best, most = None, 2
    for three in draw.integers(len(q), size=(_DRAWS, 3)):
        corner = rows[three]
        if abs(np.linalg.det(corner)) < 1e-9:
            continue
        found = np.abs(rows @ np.linalg.solve(corner, q[three]) - q) <= limit
        if found.sum() > most:
            best, most = found, int(found.sum())
    if best is None:
        return None
    a, b, c = (float(number) for number in np.linalg.lstsq(rows[best], q[best], rcond=None)[0])
    return (a, b, c), most / len(q)


def fit_range(depth: DepthMap, near: float, far: float, source: str) -> Calibration:
    """Return a guess: the nearest percent of the map lies at `near`, the farthest at `far`. It gives no metres.

    Raises UsageError for a map that is flat, or no disparity.
    """
    if not depth.kind.near_is_high:
        raise UsageError(f"{source} is for relative disparity, and the map has {depth.kind.value}", "use at: or a file")
    values = depth.values if depth.valid is None else depth.values[depth.valid]
    some = values.ravel()[:: 1 + values.size // _SAMPLES]
    low, high = np.percentile(some, [1, 99]) if some.size else (0.0, 0.0)
    if not high > low:
        raise UsageError("the map is flat, and a range gives no depth", "use another reference")
    scale = float((1 / near - 1 / far) / (high - low))
    return Calibration(
        kind=depth.kind.value,
        scale=scale,
        shift=float(1 / near - scale * high),
        rule="range",
        nearest=near,
        farthest_point=far,
        sources=(source,),
        model=depth.provenance.model,
        weights=depth.provenance.sha256,
        farthest=far_end(far, 0),
        unit=GUESS,
    )


def fit_factor(depth: DepthMap, factor: float) -> Calibration:
    """Return the calibration by one factor. Raises UsageError for a map that has no metres yet."""
    if not depth.kind.is_metric:
        raise UsageError(f"`scale` multiplies metres, and the map has {depth.kind.value}", "use `scale_from`")
    return Calibration(
        depth.kind.value, factor, rule="factor", model=depth.provenance.model, weights=depth.provenance.sha256
    )
