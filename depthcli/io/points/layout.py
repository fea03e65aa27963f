"""What the files of points share: the lines that tell people about them, and safe reading of their bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from depthcli.geometry.solids import PointCloud
from depthcli.io.codecs.quick_facts import TEXT_KEY, parse_facts

MOST_HEADER = 1 << 20  # bytes


def remarks(axes: Optional[str], unit: Optional[str], facts: Mapping[str, Any]) -> list[str]:
    """Return the comment lines of a text header: axes and unit, the camera's source, and the facts as JSON."""
    camera = facts.get("shape", {}).get("camera", {}).get("source")
    lines = [f"axes {axes}"] if axes else []
    lines += [f"unit {unit}"] if unit else []
    lines += [f"camera {camera}"] if camera else []
    return [*lines, f"{TEXT_KEY} {json.dumps(facts)}"] if facts else lines


def parse_remarks(lines: Iterable[str]) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Return the facts in comment lines, what `axes` and `unit` are, and the lines that are not ours."""
    facts: dict[str, Any] = {}
    said: dict[str, str] = {}
    others = []
    for line in lines:
        key, _, text = line.partition(" ")
        if key == TEXT_KEY:
            facts = parse_facts(text) or facts
        elif key in ("axes", "unit", "camera"):
            said[key] = text.strip()
        else:
            others.append(line)
    return facts, said, tuple(others)


# Properties that only the PLY files of 3D Gaussian Splatting have; their normals are 0.
GAUSSIANS = (
    *("f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_NORMAL = ("nx", "ny", "nz")
_CONSTANT = (
    0.28209479177387814  # the constant spherical harmonic, 1 / (2 sqrt(pi)): colours are 0.5 more than its share
)
_REMARK = "3D Gaussians: these are their centres, and their colours from all sides"


def cloud_of(columns: Mapping[str, np.ndarray], lines: Iterable[str]) -> PointCloud:
    """Return the points in named columns of numbers. Raises ValueError if x, y or z is missing."""
    facts, said, comments = parse_remarks(lines)
    gaussians = set(GAUSSIANS) <= set(columns)
    missing = [name for name in ("x", "y", "z") if name not in columns]
    if missing:
        raise ValueError(f"its points have no {' and no '.join(missing)}")
    return PointCloud(
        points=_stacked(columns, ("x", "y", "z"), np.float32),
        colors=_colors(columns),
        normals=_stacked(columns, _NORMAL, np.float32) if set(_NORMAL) <= set(columns) and not gaussians else None,
        axes=said.get("axes") if said.get("axes") in ("opencv", "opengl", "zup") else None,
        unit=said.get("unit") if said.get("unit") in ("m", "arbitrary") else None,
        facts=facts,
        comments=(_REMARK, *comments) if gaussians else comments,
    )


def _stacked(columns: Mapping[str, np.ndarray], names: Sequence[str], dtype: Any) -> np.ndarray:
    out = np.empty((len(columns[names[0]]), len(names)), dtype)
    for column, name in zip(out.T, names):
        column[:] = columns[name]
    return out


def _colors(columns: Mapping[str, np.ndarray]) -> Optional[np.ndarray]:
    """Return (N, 3) uint8 colours, None if there are none: 8 bits as they are, others from their full range."""
    if set(GAUSSIANS) <= set(columns):
        shades = np.stack([columns[name] for name in GAUSSIANS[:3]], axis=1).astype(np.float64)
        return np.round(255 * np.clip(np.nan_to_num(0.5 + _CONSTANT * shades), 0, 1)).astype(np.uint8)
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        if set(names) <= set(columns):
            return np.stack([_levels(columns[name]) for name in names], axis=1)
    return None


def _levels(column: np.ndarray) -> np.ndarray:
    if column.dtype == np.uint8:
        return column
    if column.dtype.kind == "f":
        return np.round(np.clip(np.nan_to_num(column), 0, 1) * 255).astype(np.uint8)
    full = 65535 if column.dtype.itemsize == 2 else 255
    return np.round(np.clip(column.astype(np.float64), 0, full) * (255 / full)).astype(np.uint8)
