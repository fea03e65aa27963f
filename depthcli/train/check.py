"""Look at the data before a training: units, known pixels, ranges, and a sheet of pictures for the eye."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.errors import DepthError, UsageError
from depthcli.eval import panels
from depthcli.eval.evaluate import known_truth
from depthcli.eval.lists import Entry
from depthcli.eval.truth import Truth
from depthcli.io.pictures.images import read_picture
from depthcli.train.samples import LEAST_KNOWN, MIN_DEPTH
from depthcli.zoo.rows import ModelRow

_FARTHEST, _NEAREST = 300.0, 0.02  # metres: a median beyond these is in another unit
_FAILED = 5  # failures that are named
_SHOWN, _ACROSS, _WIDE = 20, 4, 240  # pictures of the sheet, of a row, and pixels of a picture's width
_READERS = 4


@dataclass(frozen=True)
class PictureFacts:
    """Facts of one entry. size: (width, height) of the picture. known: share of the truth's elements inside the crop.

    usable: known elements in the model's range. low, middle, high: percentiles 1, 50 and 99 of the known depth.
    beyond: share of the known depth beyond the model's range. constant: all of it is one number. metres: its unit.
    """

    size: tuple[int, int]
    known: float
    usable: int
    low: float
    middle: float
    high: float
    beyond: float = 0.0
    constant: bool = False
    metres: bool = True


@dataclass(frozen=True)
class DataFacts:
    """Facts of all pictures. unit: "m", or "" if a truth is disparity. known: mean share of known elements.

    low, middle, high: medians over pictures of the percentiles 1, 50 and 99 of the depth. sizes: of the pictures.
    warnings: what looks wrong, and may be right.
    """

    pictures: int
    unit: str
    known: float
    low: float
    middle: float
    high: float
    sizes: tuple[tuple[int, int], ...]
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line for the user."""
        depth = f"{self.low:.3g} to {self.high:.3g} m, median {self.middle:.3g} m" if self.unit else "without one unit"
        return f"{self.pictures} pictures, {self.known:.0%} of the depth known, {depth}"


def check_data(entries: Sequence[Entry], row: ModelRow, tick: Callable[[], None] = lambda: None) -> DataFacts:
    """Return the facts of all entries.

    tick: called after each picture. Raises UsageError, with a line for each of the first pictures, for data that no
    training can use: files that cannot be read, no known pixels, depth in another unit, disparity for a metric model,
    depth beyond the model's range.
    """
    facts, failed = [], []
    with ThreadPoolExecutor(_READERS) as pool:
        for entry, waiting in [(entry, pool.submit(_look, entry, row)) for entry in entries]:
            try:
                facts.append(waiting.result())
            except DepthError as error:
                failed.append(f"{entry.place}: {error.message}")
            tick()
    if failed:
        more = f"; and {len(failed) - _FAILED} more" if len(failed) > _FAILED else ""
        raise UsageError(
            f"{len(failed)} of {len(entries)} pictures cannot be used: {'; '.join(failed[:_FAILED])}{more}",
            "mend or remove them",
        )
    return _judge(facts, entries, row)


def _look(entry: Entry, row: ModelRow) -> PictureFacts:
    picture = read_picture(entry.picture)
    truth = known_truth(entry, picture.size)
    assert truth is not None
    if row.kind.is_metric and not truth.metres:
        raise UsageError("its truth is disparity without a unit, and a metric model needs metres")
    known = truth.known
    top, left, bottom, right = entry.crop or (0, 0, truth.size[1], truth.size[0])
    elements = (bottom - top) * (right - left)
    if not known.any():
        return PictureFacts(picture.size, 0.0, 0, np.nan, np.nan, np.nan, metres=truth.metres)
    depth = truth.depth[known]
    low, middle, high = (float(value) for value in np.percentile(depth, (1, 50, 99)))
    limit = row.max_depth or np.inf
    inside = (
        (depth >= MIN_DEPTH) & (depth <= limit) if truth.metres and row.kind.is_metric else np.ones(len(depth), bool)
    )
    return PictureFacts(
        picture.size,
        float(known.sum()) / elements,
        int(inside.sum()),
        low,
        middle,
        high,
        float((depth > limit).mean()),
        bool(depth.min() == depth.max()),
        truth.metres,
    )


def _judge(facts: Sequence[PictureFacts], entries: Sequence[Entry], row: ModelRow) -> DataFacts:
    unit = "m" if all(fact.metres for fact in facts) else ""
    empty = [entry.place for entry, fact in zip(entries, facts) if fact.usable < LEAST_KNOWN]
    some = [fact for fact in facts if fact.known]
    if not some:
        raise UsageError("no picture has a known depth", "check format and invalid")
    low, middle, high = (float(np.median([getattr(fact, name) for fact in some])) for name in ("low", "middle", "high"))
    if unit and not _NEAREST <= middle <= _FARTHEST:
        guess = "millimetres read as metres" if middle > _FARTHEST else "metres read as millimetres"
        raise UsageError(f"the median depth is {middle:.4g} m, which looks like {guess}", "check format and scale")
    beyond = float(np.mean([fact.beyond for fact in some]))
    if beyond > 0.5:
        raise UsageError(
            f"{beyond:.0%} of the depth lies beyond {row.max_depth:g} m, the largest of {row.name}",
            f"set `max_depth` to {_round_up(high):g}, or check format and scale",
        )
    if len(empty) == len(entries):
        raise UsageError(f"no picture has {LEAST_KNOWN} known elements in the range of {row.name}", "check the truths")
    constant = [entry.place for entry, fact in zip(entries, facts) if fact.constant]
    if len(constant) == len(facts):
        raise UsageError("the depth of every picture is one number", "check the truths: are these masks?")
    warnings = []
    if empty:
        warnings.append(f"pictures with fewer than {LEAST_KNOWN} known elements, which do not count: {_some(empty)}")
    if constant:
        warnings.append(f"pictures whose depth is one number: {_some(constant)}")
    if beyond > 0.01:
        warnings.append(f"{beyond:.0%} of the depth lies beyond {row.max_depth:g} m and does not count")
    if row.max_depth and high < row.max_depth / 5:
        warnings.append(f"the depth ends at {high:.3g} m, far below `max_depth` {row.max_depth:g} of the model")
    known = float(np.mean([fact.known for fact in facts]))
    sizes = tuple(dict.fromkeys(fact.size for fact in facts))
    return DataFacts(len(facts), unit, known, low, middle, high, sizes, tuple(warnings))


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:_FAILED]) + (f" and {len(places) - _FAILED} more" if len(places) > _FAILED else "")


def _round_up(metres: float) -> float:
    return next((round_number for round_number in (5, 10, 20, 40, 80, 120, 200) if metres <= round_number), metres)


def write_contact_sheet(entries: Sequence[Entry], path: Path) -> None:
    """Write up to twenty pictures, spread over all, each above its depth: red is near, black is unknown."""
    count = min(_SHOWN, len(entries))
    cells = [_cell(entries[index * len(entries) // count]) for index in range(count)]
    rows = []
    for start in range(0, count, _ACROSS):
        row = cells[start : start + _ACROSS]
        height = max(cell.shape[0] for cell in row)
        row += [np.zeros((height, _WIDE, 3), np.uint8)] * (_ACROSS - len(row))
        rows.append(np.hstack([np.pad(cell, ((0, height - cell.shape[0]), (0, 0), (0, 0))) for cell in row]))
    panels.write_panels(np.vstack(rows), path)


def _cell(entry: Entry) -> np.ndarray:
    picture = read_picture(entry.picture)
    truth = known_truth(entry, picture.size)
    assert truth is not None
    size = _WIDE, max(1, round(_WIDE * picture.size[1] / picture.size[0]))
    return np.vstack([panels.resized_photo(picture.rgb, size), _coloured(truth, size)])


def _coloured(truth: Truth, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8 at (width, height); the points of a sparse truth are made as large as a pixel of it."""
    known = truth.known
    if not known.any():
        return np.zeros((size[1], size[0], 3), np.uint8)
    nearness = np.where(known, truth.disparity, 0)
    height, width = nearness.shape
    if width < size[0] or height < size[1]:
        largest = np.asarray(cv2.resize(nearness, size, interpolation=cv2.INTER_NEAREST))
    else:
        largest = np.zeros((size[1], size[0]))
        y, x = np.nonzero(known)
        np.maximum.at(largest, (y * size[1] // height, x * size[0] // width), nearness[known])
    span = tuple(float(value) for value in np.percentile(nearness[known], (2, 98)))
    return panels.coloured(largest, DEFAULT_COLORMAP, (span[0], span[1])) * (largest > 0)[..., None]
