"""A picture as an eye beside the camera sees it: pixels move along their row by a shift, and nearer ones hide others.

The rows are exact: a pixel is seen if none to its right lands at or before it, so what is seen stays in order, and the
source of every target column is found by counting. Looking up the shift at the target instead, as many programs do,
melts edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from depthcli.errors import PictureError

# Networks blur depth across edges, by about this many pixels of a map as fine as the picture.
_SNAP_RADIUS, _WIDEN_RADIUS = 3, 2
_SNAP_PER_PIXEL, _WIDEN_PER_PIXEL = 1.4, 0.55  # of a coarser map, in its own pixels
_WIDEN_PER_COLUMN = 1 / 500  # large pictures are blurred over more pixels themselves
_EDGE = 1.0  # pixels: a larger range of shifts within the radius is an edge
_HOLE = 1.5  # pixels between two neighbours that are seen: a wider gap is a hole
_TELEA_RADIUS = 3
_BAND_PIXELS = 1 << 17  # of an eye, made at a time: its arrays stay in the processor's cache
_MOST_WIDTH = 32766  # columns; of cv2.remap


@dataclass(frozen=True)
class Window:
    """The part of the picture that an eye shows, enlarged to the picture's size. margin: share cut off at each side."""

    margin: float = 0.0

    def grid(self, length: int) -> tuple[float, float]:
        """Return where the first target pixel lies, and the step to the next, in pixels of the source."""
        step = 1 - 2 * self.margin
        return self.margin * length + (step - 1) / 2, step


def right_view(
    rgb: np.ndarray,
    shift: np.ndarray,
    fill: str = "stretch",
    window: Window = Window(),
    coarseness: float = 1.0,
) -> np.ndarray:
    """Return (H, W, C) uint8, the picture as an eye to the right of the camera sees it.

    rgb: (H, W, C) uint8, of 3 channels for `fill` telea. shift: (H, W) float32, how far each pixel moves to the left,
    in pixels; nearer ones move farther, and may be negative. fill: one of choices.FILLS. coarseness: pixels of the
    picture per pixel of the map that the shift was made of; its edges are as soft. Raises PictureError for a picture
    that is too wide.
    """
    height, width = shift.shape
    if max(width, height) > _MOST_WIDTH:
        raise PictureError(
            f"a view has at most {_MOST_WIDTH} columns and rows, not {width}x{height}", "make it smaller"
        )
    (left, across), (top, down) = window.grid(width), window.grid(height)
    view = np.empty_like(rgb)
    holes = np.zeros((height, width), np.uint8) if fill == "telea" else None
    band = max(1, _BAND_PIXELS // width)
    for start in range(0, height, band):
        rows = np.arange(start, min(start + band, height))
        y = (top + down * rows).astype(np.float32)
        columns, gaps, far = source_columns(sharpened(shift, np.rint(y).astype(np.intp), coarseness), left, across)
        if fill == "edge":
            columns = np.where(gaps, far, columns)
        if holes is not None:
            holes[rows] = gaps
        places = np.repeat(y[:, None], width, axis=1)
        view[rows] = cv2.remap(rgb, columns, places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return view if holes is None else cv2.inpaint(view, holes, _TELEA_RADIUS, cv2.INPAINT_TELEA)


def sharpened(shift: np.ndarray, rows: np.ndarray, coarseness: float = 1.0) -> np.ndarray:
    """Return (n, W) rows of a shift whose soft edges are steps again, and lie just outside the nearer thing.

    rows: (n,) rising. Without it the pixels of a ramp are smeared between the edge and the background.
    """
    radius = max(_SNAP_RADIUS, round(_SNAP_PER_PIXEL * coarseness))
    first, last = max(0, int(rows[0]) - radius), int(rows[-1]) + radius + 1
    steps = snapped(shift[first:last], radius, _EDGE)[rows - first]
    reach = max(_WIDEN_RADIUS, round(_WIDEN_PER_PIXEL * coarseness), round(_WIDEN_PER_COLUMN * shift.shape[1]))
    return cv2.dilate(steps, np.ones((1, 2 * reach + 1), np.uint8))


def snapped(values: np.ndarray, radius: int, edge: float) -> np.ndarray:
    """Return (H, W) float32 values whose soft edges are steps.

    Where the values within `radius` pixels differ by more than `edge`, a pixel takes the largest or the smallest of
    them, whichever is nearer to its own.
    """
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    high, low = cv2.dilate(values, square), cv2.erode(values, square)
    closer = np.where(high - values < values - low, high, low)
    return np.where(high - low > edge, closer, values)


def source_columns(shift: np.ndarray, start: float = 0.0, step: float = 1.0) -> tuple[np.ndarray, ...]:
    """Return where each pixel of a view comes from.

    shift: (n, W) float32 as for `right_view`. start, step: of the target pixels, in columns of the source.
    Returns (n, W) float32 columns, interpolated between the neighbours that are seen; (n, W) bool holes, gaps that no
    pixel fills; and (n, W) float32 columns that repeat the farther neighbour, to use in holes.
    """
    count, width = shift.shape
    columns = np.arange(width, dtype=np.float32)
    place = columns - shift  # where pixels land, in target columns
    place -= np.float32(start)
    place /= np.float32(step)
    seen = np.ones(place.shape, bool)
    least_right = np.minimum.accumulate(place[:, :0:-1], axis=1)[:, ::-1]
    np.less(place[:, :-1], least_right, out=seen[:, :-1])
    # Of those that are seen the last one at or before target j: their places rise, so it is enough to count them.
    index = np.flatnonzero(seen)
    landed, row = place.ravel()[index], index // width
    bins = np.clip(np.ceil(landed), 0, width).astype(np.intp)
    bins += row * (width + 1)
    arrived = np.bincount(bins, minlength=count * (width + 1)).reshape(count, width + 1)[:, :width]
    per_row = np.count_nonzero(seen, axis=1)
    last = np.cumsum(per_row)[:, None] - 1
    first = last - per_row[:, None] + 1
    before = np.cumsum(arrived, axis=1)
    before += first - 1
    after = np.minimum(before + 1, last)
    np.maximum(before, first, out=before)
    source = (index - row * width).astype(np.float32)
    from_left, from_right, at, to = source[before], source[after], landed[before], landed[after]
    gap = to - at
    share = np.clip((columns - at) / np.where(gap > 0, gap, 1), 0, 1)
    found = from_left + share * (from_right - from_left)
    # The farther of two neighbours moved less.
    gap *= np.float32(step)
    far = np.where(gap > from_right - from_left, from_right, from_left)
    return found, gap > _HOLE, far
