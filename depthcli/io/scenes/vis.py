"""Pictures of a scene's views beside their depth, as Depth Anything 3 shows them: near is red, far is blue."""

from __future__ import annotations

import io

import numpy as np

from depthcli.pixels.colormap import color_table
from depthcli.scene import View

_PERCENT = (2, 98)  # of inverse depth: the range of colours
_QUALITY = 95
_TABLE = "Spectral"


def depth_colors(depth: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of (H, W) depth; where it is 0 or less, the colour of the farthest."""
    there = depth > 0
    inverse = np.divide(1, depth, out=np.zeros(depth.shape, np.float32), where=there)
    if not there.any():
        return np.ascontiguousarray(np.broadcast_to(color_table(_TABLE)[255], (*depth.shape, 3)))
    low, high = np.percentile(inverse[there], _PERCENT)
    if high == low:
        low, high = low - 1e-6, high + 1e-6
    nearness = np.clip((inverse - low) / (high - low), 0, 1)
    return color_table(_TABLE)[np.minimum(((1 - nearness) * 256).astype(int), 255)]


def beside_picture(view: View) -> np.ndarray:
    """Return (H, 2 W, 3) uint8: the picture of a view and its depth; the depth alone without a picture."""
    depth = view.depth
    colors = depth_colors(depth.values if depth.valid is None else np.where(depth.valid, depth.values, 0))
    return colors if view.picture is None else np.concatenate([view.picture, colors], axis=1)


def jpeg(rgb: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8 RGB as a JPEG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
