"""Network output to DepthMap: the unit, the check for broken numbers, and the resize to the picture's size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthMap, Provenance
from depthcli.errors import EngineError
from depthcli.pixels.preprocess import InputPlan
from depthcli.pixels.sampling import nearest_cells
from depthcli.pixels.sky import fill_sky, sky_mask
from depthcli.zoo.rows import ModelRow

_BAND_PIXELS = 1 << 17  # of a map, made at a time: half a megabyte stays in the processor's cache


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network answers for one picture. depth: (H, W) float32. sky: (H, W) float32, None if it finds none."""

    depth: np.ndarray
    sky: Optional[np.ndarray] = None


def answer_of(row: ModelRow, depth: np.ndarray, sky: Optional[np.ndarray] = None) -> Answer:
    """Return the outputs (H, W) of a network as an Answer, the depth of the sky replaced. EngineError for NaN."""
    if sky is None:
        return Answer(depth)
    for output in (depth, sky):
        check_finite(output, row)
    return Answer(fill_sky(depth, sky), sky)


def in_metres(answer: Answer, row: ModelRow, plan: InputPlan, camera: Camera | None) -> tuple[Answer, ModelRow]:
    """Return an answer in metres if the camera says how, and the row with the kind of its numbers.

    Networks with a canonical focal length see things of one size at one distance: metres = depth * focal / canonical,
    with the mean of both focal lengths, in pixels of the network input.
    """
    if row.canonical_focal is None:
        return answer, row
    if camera is None:
        return answer, row.without_focal()
    focal = sum(camera.resized(plan.picture_size, plan.input_size).focal) / 2
    return replace(answer, depth=answer.depth * np.float32(focal / row.canonical_focal)), row


def picture_sky(answer: Answer, plan: InputPlan) -> np.ndarray | None:
    """Return the sky (H, W) bool at the picture's size, or None."""
    if answer.sky is None:
        return None
    return sky_mask(resize_bilinear(unwrap(answer.sky, plan, plan.picture_size[0]), plan.picture_size))


def nearest_answer(answer: Answer, plan: InputPlan, row: ModelRow) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values and sky (H, W) of the picture, each pixel as the network has it where that pixel lies.

    Nothing is between two values of the network, also at the seam of a panorama. Raises as `network_values`.
    """
    width, height = plan.picture_size
    values = network_values(answer.depth, plan, row)
    rows = nearest_cells(values.shape[0], height)
    columns = nearest_cells(values.shape[1], width + 2 * plan.wrapped)[plan.wrapped : plan.wrapped + width]
    places = rows[:, None], columns
    return values[places], None if answer.sky is None else sky_mask(answer.sky[places])


def to_depth_map(
    output: np.ndarray,
    plan: InputPlan,
    row: ModelRow,
    provenance: Provenance | None = None,
    valid: np.ndarray | None = None,
    camera: Camera | None = None,
    sky: np.ndarray | None = None,
) -> DepthMap:
    """Return the depth map of one picture from the network's (H, W) output. Raises as `network_values`.

    valid, camera, sky: of the picture, or None.
    """
    values = unwrap(network_values(output, plan, row), plan, plan.picture_size[0])
    values = resize_bilinear(values, plan.picture_size)
    return depth_map(values, row, provenance or Provenance(), valid, camera, sky)


def depth_map(
    values: np.ndarray,
    row: ModelRow,
    provenance: Provenance,
    valid: np.ndarray | None,
    camera: Camera | None,
    sky: np.ndarray | None = None,
) -> DepthMap:
    """Return the depth map of values at the picture's size, which nobody else may write to."""
    values.flags.writeable = False  # so that DepthMap does not copy it
    return DepthMap(values, row.kind, provenance, row.max_depth, valid, camera=camera, sky=sky)


def at_size(
    values: np.ndarray, size: tuple[int, int], row: ModelRow, provenance: Provenance, camera: Camera | None = None
) -> DepthMap:
    """Return the depth map of a frame, (width, height) large, from `network_values` of any size."""
    return depth_map(resize_bilinear(values, size), row, provenance, None, camera)


def network_values(output: np.ndarray, plan: InputPlan, row: ModelRow) -> np.ndarray:
    """Return the network's (H, W) output in the row's kind and unit, float32, at the network's size.

    Raises EngineError if the output has another size, and as `in_unit`.
    """
    width, height = plan.input_size
    if output.shape != (height, width):
        raise EngineError(f"the backend returned {output.shape} for an input of {(height, width)}")
    return in_unit(output, row)


def in_unit(output: np.ndarray, row: ModelRow) -> np.ndarray:
    """Return a network's (H, W) output of any size in the row's kind and unit, float32.

    Relative models answer disparity or depth; metric ones metres or a fraction of max_depth, converted to metres.
    Raises EngineError if the output holds NaN or infinity, as in half precision.
    """
    output = output.astype(np.float32, copy=False)
    check_finite(output, row)
    return output if row.max_depth is None else output * np.float32(row.max_depth)


def check_finite(output: np.ndarray, row: ModelRow) -> None:
    """Raise EngineError if a network's output holds NaN or infinity, as in half precision."""
    if not np.isfinite(output).all():
        raise EngineError(f"the output of {row.name} holds NaN or infinity", "use `precision` fp32, or other weights")


def unwrap(values: np.ndarray, plan: InputPlan, width: int) -> np.ndarray:
    """Return (H, width) float32, periodic, for the (H, W) output of a panorama, without the wrapped columns.

    The output shows the surroundings of the seam twice, at the right edge and at the left one; they are cross-faded.
    """
    if not plan.wrapped:
        return values
    return _unwrap_at(values, plan, np.linspace(0, plan.picture_size[0] - 1, width))  # as the resize that follows


def _unwrap_at(values: np.ndarray, plan: InputPlan, x: np.ndarray) -> np.ndarray:
    """Return (H, N) values at the columns x of the picture."""
    picture = plan.picture_size[0]
    reach = min(plan.wrapped, picture / 2)
    out = _columns(values, plan, x)
    for other, distance in ((picture, x + 0.5), (-picture, picture - 0.5 - x)):  # from the seam
        at = distance < reach
        share = 0.5 + 0.5 * distance[at] / reach
        weight = (share * share * (3 - 2 * share)).astype(np.float32)
        out[:, at] = weight * out[:, at] + (1 - weight) * _columns(values, plan, x[at] + other)
    return out


def picture_map(output: np.ndarray, plan: InputPlan, row: ModelRow) -> np.ndarray:
    """Return (H, W) float32 values of the picture, without wrapped columns, for the network's (H, W) output.

    Pixel centres of map and picture are aligned, which `to_depth_map` does not do, as the reference does not.
    Raises as `network_values`.
    """
    values = network_values(output, plan, row)
    if not plan.wrapped:
        return values
    width = plan.map_size[0]
    return _unwrap_at(values, plan, (np.arange(width) + 0.5) * plan.picture_size[0] / width - 0.5)


def _columns(values: np.ndarray, plan: InputPlan, x: np.ndarray) -> np.ndarray:
    """Return (H, N) values at the columns x of the picture, which may be wrapped columns.

    Pixel centres are aligned as in the resize of the input; aligned corners would shift the sides of the seam.
    """
    step = values.shape[1] / (plan.picture_size[0] + 2 * plan.wrapped)
    position = np.clip((x + plan.wrapped + 0.5) * step - 0.5, 0, values.shape[1] - 1)
    first = position.astype(np.intp)
    second = np.minimum(first + 1, values.shape[1] - 1)
    weight = (position - first).astype(np.float32)
    return values[:, first] * (1 - weight) + values[:, second] * weight


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) float32 values at (width, height), bilinear with the corners of both grids aligned.

    Positions and weights are those of torch's `interpolate(..., align_corners=True)`, which the reference uses.
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
