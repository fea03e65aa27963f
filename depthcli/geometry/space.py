"""A DepthMap as depth along the axis of a camera.

Relative maps have no scale. Disparity is known up to scale and shift as well: the shift is taken as 0, so that z is the
inverse of the value, which leaves straight what is flat only as far as that is true. Both are scaled so that the
nearest percent lies at 1, what is farther than 20 is left out, and the unit is "arbitrary". Depth that was calibrated
without metres, by a guess or in COLMAP's unit, stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import numpy as np

from depthcli.camera import Camera, CameraSource, assumed_camera
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import EmptyShapeError, UsageError
from depthcli.geometry.solids import ARBITRARY, METRES

FARTHEST = 20.0  # of relative maps, whose nearest percent lies at 1; beyond, values near 0 are mostly sky
_NEAREST_PERCENT = 1
_SHARPER = 3  # edges with `detail`; by eye
_AS_THE_NETWORK = ("off", "nearest")  # of `detail`: edges are as coarse as the network's
_SAMPLES = 1 << 20  # pixels that a percentile is taken of
RULES = {
    DepthKind.RELATIVE_DISPARITY: "z = 1 / value, its shift taken as 0; the nearest percent lies at 1",
    DepthKind.RELATIVE_DEPTH: "z = value, scaled so that the nearest percent lies at 1",
    DepthKind.METRIC_DEPTH: "z = value, in metres",
}
CALIBRATED = "z = value, as calibrated"


@dataclass(frozen=True, eq=False)
class Space:
    """Depth along the axis of a camera.

    z: (H, W) float32, positive where `valid`. valid: (H, W) bool. camera: of the map. unit: "m" or "arbitrary".
    cell: pixels of the map across which an edge is soft, see `find_edges`.
    """

    z: np.ndarray
    valid: np.ndarray
    camera: Camera
    unit: str
    cell: int = 1


def space_of(depth: DepthMap, farthest: Optional[float] = None) -> Space:
    """Return the depth of a map along its camera's axis, or an assumed camera's.

    farthest: what is farther is invalid; None: FARTHEST for relative maps. Invalid, too, are sky and, in a relative
    disparity, 0, which is infinitely far. The unit is metres if the depth is metric and the camera is not assumed.
    Raises UsageError for a panorama, OutputError if no pixel is left.
    """
    if depth.provenance.panorama:
        raise UsageError("the rays of a `panorama` are not those of a pinhole camera", "leave out `panorama`")
    camera = depth.camera or assumed_camera(depth.size)
    values, valid = depth.values, depth.values > 0
    for mask in (depth.valid, None if depth.sky is None else ~depth.sky):
        if mask is not None:
            valid &= mask
    if not valid.any():
        raise EmptyShapeError("no pixel has a depth", "all of them are invalid, sky, or infinitely far")
    near_is_high, fixed = depth.kind.near_is_high, is_fixed(depth)
    z = np.divide(1, values, out=np.zeros_like(values), where=valid) if near_is_high else np.where(valid, values, 0)
    if not fixed:
        found = z[valid]
        z /= np.float32(np.percentile(found[:: 1 + found.size // _SAMPLES], _NEAREST_PERCENT))
        farthest = FARTHEST if farthest is None else farthest
    if farthest is not None:
        valid &= z <= farthest
        if not valid.any():
            raise EmptyShapeError(f"no pixel is nearer than {farthest:g}", "raise `farthest`")
    z[~valid] = 0
    known = depth.kind.is_metric and camera.source is not CameraSource.ASSUMED
    return Space(z, valid, camera, METRES if known else ARBITRARY, _cell(depth))


def is_fixed(depth: DepthMap) -> bool:
    """Return whether the scale of a map is known, in metres or by a calibration without them."""
    return depth.kind.is_metric or depth.calibration is not None


def _cell(depth: DepthMap) -> int:
    """Return across how many pixels of the map its edges are soft: those that one of the network's became.

    With detail from the photo it is a third of them: edges drawn to the photo's are sharper, but not sharp. 1 if
    unknown.
    """
    width, height = depth.provenance.input_size
    if not (width and height):
        return 1
    enlarged = math.sqrt(depth.size[0] / width * depth.size[1] / height)
    return max(1, round(enlarged if depth.provenance.detail in _AS_THE_NETWORK else enlarged / _SHARPER))
