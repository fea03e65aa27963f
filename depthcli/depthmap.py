"""One view of depth, what its numbers mean, and where it came from.

Numpy only. Arrays inside a DepthMap are read-only: a value does not change after it is made.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.calibration import Calibration, calibration_of, describe_calibration
from depthcli.camera import Camera, camera_of, describe_camera
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import UsageError
from depthcli.kinds import DepthKind as DepthKind

if TYPE_CHECKING:
    from depthcli.geometry.solids import Mesh, PointCloud

_BAND_PIXELS = 1 << 17  # that are calibrated at a time, in float64
_CONVERTED = ("source", "source_sha256")
_PANORAMA_SLACK = 0.1  # full panoramas are 2:1, but for a few rows or columns that a program cut off


@dataclass(frozen=True)
class Provenance:
    """Where a depth map came from: enough to make it again.

    model: the zoo row's name ("vits"); model_title: its full name; sha256: of the weights file, empty if unknown.
    licence: of the weights. backend: name, version, device and precision. input_size: (width, height) the network saw.
    source: name of the picture, never an absolute path. source_sha256: of the picture's file, empty if unknown.
    converted: name and sha256 of the depth file that this one was converted from, if it was.
    panorama: its left and right edges were joined. detail: how it was made finer than the network's output: off, edges
    or tiles.
    """

    model: str = ""
    model_title: str = ""
    sha256: str = ""
    licence: str = ""
    backend: str = ""
    input_size: tuple[int, int] = (0, 0)
    source: str = ""
    source_sha256: str = ""
    panorama: bool = False
    detail: str = "off"
    converted: Optional[tuple[str, str]] = None

    def warnings(self, size: tuple[int, int]) -> tuple[str, ...]:
        """Return a warning if edges were joined that need not belong together. size: (width, height) of the picture."""
        ratio = size[0] / size[1]
        if not self.panorama or abs(ratio - 2) <= _PANORAMA_SLACK:
            return ()
        return (f"`panorama` joins the left and right edges, but the sides are {ratio:.3g}:1 and not 2:1",)


@dataclass(frozen=True, eq=False)
class DepthMap:
    """One view of depth.

    values: (H, W) float32 at the size of the upright picture; `kind` says what they mean. All are finite: other numbers
    become 0 at invalid pixels and are refused elsewhere.
    max_depth: largest depth in metres that a metric network can give; None otherwise.
    valid: (H, W) bool, False where there is no depth, as at transparent pixels; None if all pixels have one.
    confidence: (H, W) float32, larger is surer, or None. sky: (H, W) bool, or None. camera: of this view, or None.
    calibration: what made metres of the model's numbers, or None.
    range: (smallest, largest) of the valid values; of all values if none is valid.

    Raises ValueError for values that are not (H, W), not finite at valid pixels, and for masks of another shape.
    """

    values: np.ndarray
    kind: DepthKind
    provenance: Provenance = field(default_factory=Provenance)
    max_depth: Optional[float] = None
    valid: Optional[np.ndarray] = None
    confidence: Optional[np.ndarray] = None
    sky: Optional[np.ndarray] = None
    camera: Optional[Camera] = None
    calibration: Optional[Calibration] = None
    range: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # numbers too large for float32 are refused below
            values = np.asarray(self.values, dtype=np.float32)
        if values.ndim != 2 or not values.size:
            raise ValueError(f"a depth map is (H, W) with at least one pixel, not {values.shape}")
        valid = _layer("valid", self.valid, bool, values.shape)
        lo, hi = float(values.min()), float(values.max())  # NaN if there is one
        finite = math.isfinite(lo) and math.isfinite(hi)
        if not finite and (valid is None or not np.isfinite(values[valid]).all()):
            raise ValueError("a depth map must not hold NaN or infinity at valid pixels")
        if not finite:
            values = np.where(np.isfinite(values), values, np.float32(0))
            lo, hi = float(values.min()), float(values.max())
        given = self.values
        if isinstance(given, np.ndarray) and given.flags.writeable and np.may_share_memory(values, given):
            values = values.copy()  # the caller may go on writing into its own array
        values.flags.writeable = False
        if valid is not None and valid.all():
            valid = None
        elif valid is not None and valid.any():
            lo, hi = float(values[valid].min()), float(values[valid].max())
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "kind", DepthKind(self.kind))
        object.__setattr__(self, "valid", valid)
        object.__setattr__(self, "confidence", _layer("confidence", self.confidence, np.float32, values.shape))
        object.__setattr__(self, "sky", _layer("sky", self.sky, bool, values.shape))
        object.__setattr__(self, "range", (lo, hi))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.values.shape[1], self.values.shape[0]

    def points(self, rgb: Optional[np.ndarray] = None, choice: ShapeChoice = ShapeChoice()) -> PointCloud:
        """Return the points of the map, see `depthcli.points`. rgb: (H, W, 3) uint8, the picture, or None."""
        from depthcli.geometry.shapes import points

        return points(self, rgb, choice)

    def mesh(self, rgb: np.ndarray, choice: ShapeChoice = ShapeChoice()) -> Mesh:
        """Return the surface of the map with the picture on it, see `depthcli.mesh`. rgb: (H, W, 3) uint8."""
        from depthcli.geometry.shapes import mesh

        return mesh(self, rgb, choice)

    def with_provenance(self, provenance: Provenance) -> DepthMap:
        """Return the same map with another provenance; its values are shared and not looked at again."""
        other = copy.copy(self)
        object.__setattr__(other, "provenance", provenance)
        return other

    def calibrated(self, calibration: Calibration) -> DepthMap:
        """Return this map in metres, or in depth without a unit if the calibration is a guess; see `Calibration.apply`.

        Raises UsageError for a calibration of another kind or another model, and for a map that has one already.
        """
        if self.calibration is not None:
            raise UsageError("the map is calibrated already", "calibrate the map of the model")
        ours = self.provenance
        for what, mine, wanted in (
            ("numbers", self.kind.value, calibration.kind),
            ("model", ours.model, calibration.model),
            ("weights", ours.sha256[:12], calibration.weights[:12]),
        ):
            if mine and wanted and mine != wanted:
                raise UsageError(f"the calibration is for the {what} {wanted}, and this map has {mine}", "make another")
        values, valid = np.empty_like(self.values), np.ones(self.values.shape, bool)
        band = max(1, _BAND_PIXELS // self.size[0])
        for top in range(0, len(values), band):
            rows = slice(top, top + band)
            values[rows], valid[rows] = calibration.metres(self.values[rows])
        lost = valid.size - int(valid.sum())
        if self.valid is not None:
            valid &= self.valid
            lost = int(self.valid.sum()) - int(valid.sum())
        values[~valid] = 0
        values.flags.writeable = False  # so that it is not copied
        return replace(
            self,
            values=values,
            kind=DepthKind.METRIC_DEPTH if calibration.is_metric else DepthKind.RELATIVE_DEPTH,
            max_depth=calibration.scale * self.max_depth if self.max_depth else None,
            valid=valid,
            calibration=replace(calibration, invalid=lost),
        )


def _layer(name: str, given: Optional[np.ndarray], dtype: type, shape: tuple[int, ...]) -> Optional[np.ndarray]:
    """Return a read-only copy of a layer of a depth map. Raises ValueError if its shape is not the map's."""
    if given is None:
        return None
    layer: np.ndarray = np.array(given, dtype=dtype)
    if layer.shape != shape:
        raise ValueError(f"{name} is {layer.shape}, the depth map {shape}")
    layer.flags.writeable = False
    return layer


def describe(depth: DepthMap) -> dict[str, Any]:
    """Return the facts about a depth map that every file carries, as a JSON-ready dictionary."""
    invalid = 0 if depth.valid is None else int(depth.valid.size - depth.valid.sum())
    facts = describe_values(depth.kind, depth.range, depth.size, depth.provenance, depth.max_depth, invalid)
    if depth.camera is not None:
        facts["camera"] = describe_camera(depth.camera, depth.size)
    if depth.calibration is not None:
        facts["calibration"] = describe_calibration(depth.calibration)
    return facts


def describe_values(
    kind: DepthKind,
    value_range: tuple[float, float],
    size: tuple[int, int],
    provenance: Provenance,
    max_depth: Optional[float],
    invalid: int = 0,
) -> dict[str, Any]:
    """Return the facts about a map, or about all maps of a clip. invalid: how many pixels have no depth."""
    return {
        "kind": kind.value,
        "meaning": kind.meaning,
        "near_is": "high" if kind.near_is_high else "low",
        "units": kind.unit,
        "min": value_range[0],
        "max": value_range[1],
        "max_depth": max_depth,
        "size": list(size),
        **({"invalid_pixels": invalid} if invalid else {}),
        "model": provenance.model,
        "model_title": provenance.model_title,
        "weights_sha256": provenance.sha256,
        "weights_licence": provenance.licence,
        "engine": provenance.backend,  # the key of files written so far
        "model_size": list(provenance.input_size),
        "source": provenance.source,
        "source_sha256": provenance.source_sha256,
        "panorama": provenance.panorama,
        **({"detail": provenance.detail} if provenance.detail != "off" else {}),
        **({"converted": dict(zip(_CONVERTED, provenance.converted))} if provenance.converted else {}),
    }


def from_description(
    values: np.ndarray,
    facts: Mapping[str, Any],
    valid: np.ndarray | None = None,
    confidence: np.ndarray | None = None,
    sky: np.ndarray | None = None,
) -> DepthMap:
    """Return the depth map that `describe` described, with `values` as its numbers, and these layers."""
    width, height = facts.get("model_size") or (0, 0)
    camera, calibration = facts.get("camera"), facts.get("calibration")
    converted = facts.get("converted")
    return DepthMap(
        values=values,
        kind=DepthKind(facts["kind"]),
        max_depth=facts.get("max_depth"),
        valid=valid,
        confidence=confidence,
        sky=sky,
        camera=camera and camera_of(camera),
        calibration=calibration and calibration_of(calibration),
        provenance=Provenance(
            model=facts.get("model", ""),
            model_title=facts.get("model_title", ""),
            sha256=facts.get("weights_sha256", ""),
            licence=facts.get("weights_licence", ""),
            backend=facts.get("engine", ""),
            input_size=(int(width), int(height)),
            source=facts.get("source", ""),
            source_sha256=facts.get("source_sha256", ""),
            panorama=bool(facts.get("panorama")),
            detail=facts.get("detail", "off"),
            converted=(str(converted["source"]), str(converted["source_sha256"])) if converted else None,
        ),
    )
