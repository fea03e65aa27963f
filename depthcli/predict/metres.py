"""Metres for the maps of relative models: references read once, fitted to each map."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import numpy as np

from depthcli.calibration import COLMAP, Calibration, calibration_of, describe_calibration
from depthcli.camera import Camera, assumed_camera
from depthcli.choices.metres import MetresChoice, Reference
from depthcli.depthmap import DepthMap
from depthcli.errors import DepthError, UsageError
from depthcli.geometry.metres import (
    Points,
    at_distances,
    at_size,
    far_end,
    fit_factor,
    fit_ground,
    fit_range,
    fit_references,
)
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.arrays import read_bytes
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.references import ReferenceFile
from depthcli.version import __version__

AnyMetres = TypeVar("AnyMetres", bound="Metres")
References = Union[str, np.ndarray, Sequence[str]]


class Metres:
    """The references of a choice, opened. Threads may share one. Raises UsageError for files that cannot be used.

    clip: they are of a clip, and may name frames.
    """

    def __init__(self, choice: MetresChoice, clip: bool = False) -> None:
        self._choice = choice
        self._references = choice.references
        for item in () if clip else self._references:
            if item.frame is not None:
                raise UsageError(f"{item.text} names a frame, and a picture has none", "leave out the @ and its number")
        self._files = {item.text: ReferenceFile(item, choice) for item in self._references if item.path is not None}
        self._ready = read_calibration(choice.calibration_from) if choice.calibration_from else None
        metric = [self._files[item.text].is_metric if item.path else True for item in self._references]
        if len(set(metric)) > 1:
            raise UsageError("COLMAP's unit and metres cannot be mixed", "give `unit_of_colmap`")

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note, with the content of files instead of their paths."""
        choice = self._choice
        texts = [
            self._files[item.text].fingerprint if item.text in self._files else re.sub(r"\s", "", item.text)
            for item in self._references
        ]
        if self._ready is not None:
            digest = hashlib.sha256(json.dumps(describe_calibration(self._ready), sort_keys=True).encode())
        return {
            "scale-from": "+".join(texts) or None,
            "fit": choice.fit if choice.fit != "auto" else None,
            "scale": choice.scale,
            "unit-of-colmap": choice.unit_of_colmap,
            "calibration-from": None if self._ready is None else digest.hexdigest()[:12],
        }

    def up_to(self: AnyMetres, farthest: float) -> AnyMetres:
        """Return the same with another depth in metres beyond which pixels become invalid."""
        other = copy.copy(self)
        other._choice = replace(self._choice, max_depth=farthest)
        return other

    def applied(self, depth: DepthMap, picture: str = "") -> DepthMap:
        """Return a map in metres. picture: its path, for references that have several. Raises UsageError."""
        return self.calibration(depth, picture).apply(depth)

    def calibration(self, depth: DepthMap, picture: str = "") -> Calibration:
        """Return the calibration of a map, fitted or from the file. Raises UsageError."""
        return self._limited(self._found(depth, picture))

    def _limited(self, found: Calibration) -> Calibration:
        return found if self._choice.max_depth is None else replace(found, farthest=self._choice.max_depth)

    def _found(self, depth: DepthMap, picture: str) -> Calibration:
        if self._ready is not None:
            return self._ready
        if self._choice.scale is not None:
            return fit_factor(depth, self._choice.scale)
        if depth.provenance.panorama:
            raise UsageError("a `panorama` has no optical axis to measure along", "leave out `scale_from`")
        camera = depth.camera or assumed_camera(depth.size)
        first = self._references[0]
        if first.name == "ground":
            height, pitch = first.rows[0]
            return fit_ground(depth, camera, height, pitch, first.text)
        if first.name == "range":
            near, far = first.rows[0]
            return fit_range(depth, near, far, first.text)
        points = [self._points(item, picture, depth.size, camera) for item in self._references]
        return self._in_unit(fit_references(depth, points, self._choice.fit))

    def _points(self, item: Reference, picture: str, size: tuple[int, int], camera: Camera) -> Points:
        if item.path:
            return self._files[item.text].points(picture, size, camera)
        return _typed(item, camera, size)

    def _in_unit(self, found: Calibration) -> Calibration:
        if any(not file.is_metric for file in self._files.values()):
            return replace(found, unit=COLMAP, farthest=far_end(found.farthest_point or 0, 0))
        return found


def calibrate(
    depth: DepthMap,
    references: References,
    fit: str = "auto",
    *,
    picture: str = "",
    unit_of_colmap: Optional[float] = None,
    cloud_to_camera: Optional[Union[str, Path]] = None,
) -> Calibration:
    """Return the scale and shift that make metres of a map; `Calibration.apply` makes them.

    references: one or several of `depth image --scale-from` (at:812,540=2.35, ground:1.65, lidar.png, ...), or an
    (N, 3) array of u, v and metres along the optical axis, pixels of the upright picture. fit: auto, scale, line or
    isotonic.
    picture: its path in a COLMAP model, by default the name that the map has. unit_of_colmap, cloud_to_camera: as in
    MetresChoice. Raises UsageError for references that make no sense or contradict each other.
    """
    if isinstance(references, np.ndarray):
        rows = np.asarray(references, np.float64)
        if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows):
            raise UsageError(f"references are (N, 3): u, v and metres, not {rows.shape}")
        return fit_references(depth, [Points(rows[:, :2], rows[:, 2], "array")], fit)
    texts = (references,) if isinstance(references, (str, Path)) else tuple(references)
    choice = MetresChoice(
        tuple(map(str, texts)),
        fit,
        unit_of_colmap=unit_of_colmap,
        cloud_to_camera=None if cloud_to_camera is None else Path(cloud_to_camera),
    )
    if not choice.is_given:
        raise UsageError("there is no reference", "give one, such as at:812,540=2.35")
    return Metres(choice).calibration(depth, picture or depth.provenance.source)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as JSON, whole or not at all."""
    facts = {"schema": SCHEMA, "calibration": describe_calibration(calibration), "depthcli": __version__}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Return the calibration in a file of `write_calibration`, or in a depth file of ours. Raises UsageError."""
    hint = "`calibration_from` takes a file of `depth calibrate`, or a depth file with a calibration"
    try:
        facts = read_facts(path) or json.loads(read_bytes(path))
        if not isinstance(facts, dict) or facts.get("schema") != SCHEMA or not facts.get("calibration"):
            raise ValueError("it holds none")
        return calibration_of(facts["calibration"])
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist", hint) from error
    except (OSError, DepthError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"{error}"
        raise UsageError(f"cannot read a calibration from {path}: {' '.join(reason.split())[:200]}", hint) from error


def _typed(reference: Reference, camera: Camera, size: tuple[int, int]) -> Points:
    """Return the points of a reference that was typed. Raises UsageError for a pixel outside of the picture."""
    rows = np.array(reference.rows)
    pixels = rows[:, :-1].reshape(-1, 2)  # of a size both ends
    outside = ((pixels < -0.5) | (pixels > np.array(size) - 0.5)).any(axis=1)
    if outside.any():
        u, v = pixels[outside][0]
        raise UsageError(
            f"{reference.text} names the pixel {u:g},{v:g}, outside of the {size[0]}x{size[1]} picture",
            "columns count from the left, rows from the top, from 0",
        )
    used = camera.source.value
    if reference.name == "z":
        return Points(pixels, rows[:, 2], reference.text)
    if reference.name == "at":
        return Points(pixels, at_distances(pixels, rows[:, 2], camera), reference.text, used)
    ends = rows[:, :4].reshape(-1, 2, 2)
    depths = [at_size(pair, size, camera) for pair, size in zip(ends, rows[:, 4])]
    return Points(ends.mean(axis=1), np.array(depths), reference.text, used)
