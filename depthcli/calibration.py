"""How the numbers of a depth map become metres: a scale and a shift, and what they rest on.

Disparity p: 1 / z = scale p + shift. Depth p, relative or in metres: z = scale p. z is metres along the optical axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Optional, Protocol, TypeVar

import numpy as np

DISPARITY = "relative_disparity"
KINDS = (DISPARITY, "relative_depth", "metric_depth")
RULES = ("scale", "line", "isotonic", "ground", "range", "factor")
METRES, COLMAP, GUESS = "m", "colmap", "guess"  # units of z
_WORDS = {METRES: "metres", COLMAP: "depth in the unit of COLMAP, no metres", GUESS: "a guess, no metres"}
_COUNTS = ("points", "inliers", "invalid")


class _Map(Protocol):
    def calibrated(self: Any, calibration: Calibration) -> Any:
        """Return the map in metres."""


Map = TypeVar("Map", bound=_Map)


@dataclass(frozen=True)
class Calibration:
    """From the numbers of one kind of map to metres.

    kind: of the numbers that it takes. scale, shift: see above. rule: how they were found, one of RULES.
    points, inliers: references, and those that lie within 10 % of disparity. nearest, farthest_point: of the inliers,
    in `unit`, None if unknown: beyond them all is extrapolation. error: median of |dz| / z of references that were left
    out of the fit, None for fewer than 10. sources: of the references, as the user gave them. camera: where the camera
    came from that they needed, empty if they needed none. model, weights: whose numbers it is for, the name and the
    sha256, empty if unknown. farthest: what is farther gets no depth, as nothing near it was measured and 1 / z is all
    rounding there; None for no limit. unit: of z and of all lengths here: m, colmap (that of the model) or guess.
    invalid: pixels of the map that got no depth by this. notes: what a user should know. knots: pairs (p, 1 / z) of a
    monotone curve that replaces the line, p rising, 1 / z never falling; mostly none.

    Raises ValueError for a scale that is not positive, and numbers that are not finite.
    """

    kind: str
    scale: float
    shift: float = 0.0
    rule: str = "scale"
    points: int = 0
    inliers: int = 0
    nearest: Optional[float] = None
    farthest_point: Optional[float] = None
    error: Optional[float] = None
    sources: tuple[str, ...] = ()
    camera: str = ""
    model: str = ""
    weights: str = ""
    farthest: Optional[float] = None
    unit: str = METRES
    invalid: int = 0
    notes: tuple[str, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.rule not in RULES or self.unit not in _WORDS:
            raise ValueError(f"a calibration of {self.kind!r} by {self.rule!r} in {self.unit!r} is unknown")
        if not (0 < self.scale < math.inf and math.isfinite(self.shift)):
            raise ValueError(f"scale must be positive and shift finite, got {self.scale:g} and {self.shift:g}")
        if self.kind != DISPARITY and (self.shift or self.knots):
            raise ValueError("depth takes one factor, without a shift")
        knots = np.array(self.knots, dtype=np.float64).reshape(-1, 2)
        if not np.isfinite(knots).all() or (np.diff(knots[:, 0]) <= 0).any() or (np.diff(knots[:, 1]) < 0).any():
            raise ValueError("the knots of a monotone curve must rise")

    @property
    def is_metric(self) -> bool:
        """Whether the result is metres; a guess and COLMAP's unit give only relative depth."""
        return self.unit == METRES

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful, one line each."""
        if self.camera != "assumed":
            return ()
        return (
            "no focal length is known, and the metres rest on an assumed view of 60 degrees"
            " (give `intrinsics`, `focal`, `fov` or `f35`)",
        )

    def metres(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float64 depth of numbers of any shape, and a bool mask of those that have one; others get 0."""
        p = np.asarray(values, np.float64)
        with np.errstate(all="ignore"):  # what overflows has no depth
            return self._metres(p)

    def _metres(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.kind != DISPARITY:
            z = self.scale * p
            valid = np.isfinite(z) & (z > 0)
        else:
            disparity = self._disparity(p)
            valid = np.isfinite(disparity) & (disparity > 0)
            z = np.divide(1, disparity, out=np.zeros_like(p), where=valid)
            valid &= np.isfinite(z)
        if self.farthest is not None:
            valid &= z <= self.farthest
        return np.where(valid, z, 0.0), valid

    def apply(self, depth: Map) -> Map:
        """Return a depth map in metres (relative depth if the calibration is a guess), which carries this calibration.

        Pixels beyond the far end, at which scale p + shift is 0 or less, become invalid and are counted. Raises
        UsageError for a map of another kind or another model.
        """
        return depth.calibrated(self)

    def line(self) -> str:
        """Return one line for people."""
        if self.rule == "factor":
            return f"metres: z = {self.scale:.6g} x value"
        unit = " m" if self.is_metric else ""
        formula = f"1/z = {self.scale:.6g} p {'-' if self.shift < 0 else '+'} {abs(self.shift):.6g}"
        parts = [formula if self.kind == DISPARITY else f"z = {self.scale:.6g} p"]
        parts[0] += f" ({self.rule})"
        if self.points:
            parts.append(f"{self.inliers} of {self.points} points within 10 %")
        if self.nearest is not None and self.farthest_point is not None:
            ends = dict.fromkeys(f"{end:.3g}" for end in (self.nearest, self.farthest_point))
            parts.append(f"{'from' if self.unit == GUESS else 'measured at'} {' to '.join(ends)}{unit}")
            parts[-1] += "" if self.unit == GUESS else ", beyond it is extrapolation"
        if self.error is not None:
            parts.append(f"left-out error {100 * self.error:.1f} %")
        if self.invalid:
            limit = f" or beyond {self.farthest:.4g}{unit}" if self.farthest else ""
            parts.append(f"{self.invalid} pixels infinitely far{limit} have no depth")
        return ", ".join((f"{_WORDS[self.unit]}: {parts[0]}", *parts[1:], *self.notes))

    def _disparity(self, p: np.ndarray) -> np.ndarray:
        line = self.scale * p + self.shift
        if not self.knots:
            return line
        at, level = np.array(self.knots).T
        curve = np.interp(p, at, level)
        # Beyond its ends the curve goes on as steep as the line.
        return curve + self.scale * (np.minimum(p - at[0], 0) + np.maximum(p - at[-1], 0))


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """Return the facts about a calibration that files carry, JSON-ready."""
    known = {name: value for name, value in asdict(calibration).items() if value not in (None, "", ())}
    return {name: value for name, value in known.items() if value or name not in _COUNTS}


def calibration_of(facts: Mapping[str, Any]) -> Calibration:
    """Return what `describe_calibration` described. Raises KeyError, TypeError and ValueError for other facts."""
    names = {item.name for item in fields(Calibration)}
    known = {name: value for name, value in facts.items() if name in names}
    for name in ("sources", "notes"):
        known[name] = tuple(map(str, known.get(name, ())))
    known["knots"] = tuple((float(p), float(level)) for p, level in known.get("knots", ()))
    for name in ("scale", "shift"):
        known[name] = float(known.get(name, 0))
    return Calibration(**known)
