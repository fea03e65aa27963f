"""The error picture of one entry: photo, prediction, truth and error side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.eval.truth import Truth
from depthcli.host.atomic import atomic_path
from depthcli.pixels.colormap import to_color

ERROR_COLORMAP = "plasma"  # its low end is blue, not the black of unknown elements
ERROR_TOP = 0.5  # the relative error shown in the last colour


def error_panels(photo: np.ndarray, aligned: np.ndarray, truth: Truth) -> np.ndarray:
    """Return (H, 4 W, 3) uint8: photo, prediction, truth and error. Unknown pixels are black.

    photo: (H, W, 3) uint8; aligned: (H, W) depth in the truth's unit. Prediction and truth are shown as disparity in
    the truth's range, red near; the error is |p - t| / t of depth, from 0 (blue) to ERROR_TOP (yellow).
    """
    known = truth.known
    disparity = truth.disparity
    span = (float(disparity[known].min()), float(disparity[known].max()))
    error = np.abs(aligned - truth.depth) / truth.depth
    panels = [
        coloured(1 / aligned, DEFAULT_COLORMAP, span),
        coloured(disparity, DEFAULT_COLORMAP, span) * known[..., None],
        coloured(error, ERROR_COLORMAP, (0.0, ERROR_TOP)) * known[..., None],
    ]
    return np.hstack([photo, *panels])


def write_panels(panels: np.ndarray, path: Path) -> None:
    """Write an 8-bit RGB PNG, whole or not at all; folders are made. Raises OutputError."""
    with atomic_path(path) as partial, partial.open("wb") as stream:
        Image.fromarray(panels).save(stream, format="PNG")


def resized_photo(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB at (width, height), to be looked at."""
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def coloured(values: np.ndarray, colormap: str, span: tuple[float, float]) -> np.ndarray:
    """Return (H, W, 3) uint8 for disparity (H, W) of any unit, the ends of `span` in the last colours."""
    finite = np.nan_to_num(np.clip(values, *span), nan=span[0])
    return to_color(DepthMap(finite, DepthKind.RELATIVE_DISPARITY), colormap, span)
