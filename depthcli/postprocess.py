"""Network output -> DepthMap: the resize back to the picture's size, the unit, and the refusal of broken numbers."""

from __future__ import annotations

import numpy as np

from depthcli.depthmap import DepthMap, Origin
from depthcli.errors import EngineError
from depthcli.preprocess import InputPlan
from depthcli.zoo import ModelRow

_BAND_PIXELS = 1 << 17  # of a map, made at a time: half a megabyte, which stays in the processor's cache


def to_depth_map(output: np.ndarray, plan: InputPlan, row: ModelRow, origin: Origin | None = None) -> DepthMap:
    """Return the depth map of one picture from the network's (H, W) output.

    Raises EngineError as `network_values` does.
    """
    values = resize_bilinear(network_values(output, plan, row), plan.picture_size)
    values.flags.writeable = False  # ours alone: a DepthMap need not copy it
    return DepthMap(values, row.kind, origin or Origin(), row.max_depth)


def network_values(output: np.ndarray, plan: InputPlan, row: ModelRow) -> np.ndarray:
    """Return the network's (H, W) output in the row's own kind and unit, float32, at the network's size.

    Relative models answer disparity; metric ones a fraction of max_depth, which becomes metres here, or metres.
    Raises EngineError where the output holds NaN or infinity, as half precision can.
    """
    width, height = plan.input_size
    if output.shape != (height, width):
        raise EngineError(f"the engine gave {output.shape} for an input of {(height, width)}")
    output = output.astype(np.float32, copy=False)
    if not np.isfinite(output).all():
        raise EngineError(f"the answer of {row.name} holds NaN or infinity", "use --precision fp32, or other weights")
    return output if row.max_depth is None else output * np.float32(row.max_depth)


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) float32 values at (width, height), bilinear with the corners of both grids aligned.

    The same positions and weights as torch's `interpolate(..., align_corners=True)`, which the reference uses.
    """
    width, height = size
    if values.shape == (height, width):
        return values.copy()
    left, right, x = _neighbours(values.shape[1], width)
    wide = values[:, left] * (1 - x) + values[:, right] * x
    top, bottom, y = _neighbours(values.shape[0], height)
    y = y[:, None]
    out = np.empty((height, width), np.float32)
    band = max(1, _BAND_PIXELS // width)
    for start in range(0, height, band):
        rows = slice(start, start + band)
        np.multiply(wide[top[rows]], 1 - y[rows], out=out[rows])
        out[rows] += wide[bottom[rows]] * y[rows]
    return out


def _neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each target index the two source indices around it, and the float32 weight of the second."""
    step = np.float32(source - 1) / np.float32(target - 1) if target > 1 else np.float32(0)
    position = step * np.arange(target, dtype=np.float32)
    first = np.minimum(position.astype(np.int64), source - 1)
    second = np.minimum(first + 1, source - 1)
    return first, second, position - first.astype(np.float32)
