"""PLY files of 3D Gaussians, as viewers of Gaussian splats read them: the constant band of colour only.

Properties are those of the reference implementation of 3D Gaussian Splatting: x y z, nx ny nz (0), f_dc_0..2, opacity
(before the sigmoid), scale_0..2 (logarithms), rot_0..3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Optional

import numpy as np

from depthcli.errors import EmptyShapeError

_BORDER = 8 / 256  # of a side, cut from each edge of a view
_FAR = 0.9  # quantile of a view's depth, beyond which Gaussians are left out
_LEAST = 1e-6  # of an opacity, and of its distance from 1
_NAMES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass(frozen=True, eq=False)
class Splats:
    """Gaussians, (N, ...) float32 each.

    means: (N, 3) in the world. scales: (N, 3), standard deviations. rotations: (N, 4), in the order that the file has.
    opacities: (N,) 0 to 1. colors: (N, 3), of the constant band of spherical harmonics.
    """

    means: np.ndarray
    scales: np.ndarray
    rotations: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray


def kept_splats(depth: np.ndarray) -> np.ndarray:
    """Return the (N, H, W) mask of the pixels whose Gaussians are worth a file: not at a border, not farthest.

    depth: (N, H, W). Unlike in Depth Anything 3, a side below 32 pixels has no border, instead of nothing but border.
    """
    rows, columns = (int(_BORDER * side) for side in depth.shape[1:])
    kept = np.zeros(depth.shape, bool)
    kept[:, rows : depth.shape[1] - rows, columns : depth.shape[2] - columns] = True
    far = np.quantile(depth.reshape(len(depth), -1).astype(np.float64), _FAR, axis=1)
    return np.asarray(kept & (depth <= far.astype(np.float32)[:, None, None]))


def write_splats(splats: Splats, target: IO[bytes], kept: Optional[np.ndarray] = None) -> None:
    """Write Gaussians. kept: mask of as many, in any shape; None for all. Raises OutputError if none is left."""
    mask = np.ones(len(splats.means), bool) if kept is None else kept.ravel()
    if not mask.any():
        raise EmptyShapeError("no Gaussian is left to write")
    opacity = np.clip(splats.opacities[mask].astype(np.float64), _LEAST, 1 - _LEAST)
    parts = (
        splats.means[mask],
        np.zeros((int(mask.sum()), 3)),
        splats.colors[mask],
        np.log(opacity / (1 - opacity))[:, None],
        np.log(splats.scales[mask]),
        splats.rotations[mask],
    )
    rows = np.concatenate(parts, axis=1).astype("<f4")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"property float {name}" for name in _NAMES]
    target.write("\n".join([*lines, "end_header", ""]).encode("ascii") + rows.tobytes())
