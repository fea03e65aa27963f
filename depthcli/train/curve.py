"""The curve of a training as a picture: the loss of each step, and the errors of each validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depthcli.eval import panels

_SIZE = 640, 400  # width, height of a plot
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 44, 44  # pixels around its frame
_INK, _GRID, _FAINT = (60, 60, 60), (226, 226, 226), (190, 205, 230)
_COLOURS = ((31, 90, 170), (200, 80, 30))
_TICKS = 5
_SMOOTH = 0.05  # of the steps: the window of the running mean


@dataclass(frozen=True)
class Line:
    """One curve. name: in the legend. x, y: of its points; points without a finite y are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def write_curve(losses: Line, scores: Sequence[Line], path: Path) -> None:
    """Write the loss over steps, with a running mean, beside the scores over steps if there are any. Whole or not."""
    each = _known(losses)
    width = max(1, int(_SMOOTH * len(each.y)))
    if width == 1:
        loss = _plot("loss of a step", [each], _COLOURS)
    else:
        loss = _plot("loss of a step", [each, _running_mean(each, width)], (_FAINT, _COLOURS[0]))
    shown = [_known(line) for line in scores]
    right = [_plot("validation", shown, _COLOURS)] if any(line.x for line in shown) else []
    panels.write_panels(np.hstack([loss, *right]), path)


def _known(line: Line) -> Line:
    pairs = [(x, y) for x, y in zip(line.x, line.y) if math.isfinite(y)]
    return Line(line.name, [x for x, _ in pairs], [y for _, y in pairs])


def _running_mean(line: Line, width: int) -> Line:
    sums = np.concatenate([[0.0], np.cumsum(line.y, dtype=np.float64)])
    ends = np.arange(1, len(line.y) + 1)
    starts = np.maximum(ends - width, 0)
    return Line(f"mean of {width}", line.x, [float(value) for value in (sums[ends] - sums[starts]) / (ends - starts)])


def _plot(title: str, lines: Sequence[Line], colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Return (H, W, 3) uint8: curves in a frame with numbers on both axes."""
    width, height = _SIZE
    image = np.full((height, width, 3), 255, np.uint8)
    xs = [x for line in lines for x in line.x] or [0.0]
    ys = [y for line in lines for y in line.y] or [0.0]
    across, up = _ticks(min(xs), max(xs)), _ticks(min(0.0, *ys), max(ys))
    inner = width - _LEFT - _RIGHT, height - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[int, int]:
        share_x = (x - across[0]) / (across[-1] - across[0])
        share_y = (y - up[0]) / (up[-1] - up[0])
        return round(_LEFT + share_x * inner[0]), round(_TOP + (1 - share_y) * inner[1])

    for y in up:
        at = place(across[0], y)
        cv2.line(image, at, (width - _RIGHT, at[1]), _GRID, 1)
        _write(image, f"{y:g}", (at[0] - 8, at[1] + 5), right=True)
    for x in across:
        at = place(x, up[0])
        cv2.line(image, at, (at[0], _TOP), _GRID, 1)
        _write(image, f"{x:g}", (at[0], at[1] + 20), middle=True)
    _write(image, "step", (width // 2, height - 8), middle=True)
    _write(image, title, (_LEFT, 26))
    for line, colour in zip(lines, colours):
        points = np.array([place(x, y) for x, y in zip(line.x, line.y)], np.int32)
        if len(points) > 1:
            cv2.polylines(image, [points], False, colour, 1 if colour == _FAINT else 2, cv2.LINE_AA)
        for point in points if len(points) < 30 and colour != _FAINT else ():
            cv2.circle(image, tuple(map(int, point)), 3, colour, -1, cv2.LINE_AA)
    end = width - _RIGHT
    for line, colour in reversed(list(zip(lines, colours))):
        end = _write(image, line.name, (end, 26), right=True, colour=colour) - 16
    return image


def _ticks(low: float, high: float) -> list[float]:
    """Return about _TICKS round numbers that enclose a range."""
    span = high - low or abs(high) or 1.0
    rough = span / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), max(math.ceil(high / step - 1e-9), math.floor(low / step + 1e-9) + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _write(
    image: np.ndarray,
    text: str,
    at: tuple[int, int],
    *,
    right: bool = False,
    middle: bool = False,
    colour: tuple[int, int, int] = _INK,
) -> int:
    """Write a text whose baseline begins, ends or is centred at a place; return where it begins."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    x = at[0] - (width if right else width // 2 if middle else 0)
    cv2.putText(image, text, (x, at[1]), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return x
