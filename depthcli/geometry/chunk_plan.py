"""Which views of a long series go through a network together, and which pairs of views close a loop.

Rules of DA3-Streaming: chunks of one size that overlap, pairs of views that look alike, and windows around both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Union

import numpy as np

TOP, LEAST_LIKENESS, GAP = 5, 0.85, 10
APART = 25  # views around both ends of a kept pair in which no other pair begins or ends
WINDOW = 20
_BLOCK = 256  # rows of the table of likenesses, and columns, that are held at once


Pair = tuple[int, int, float]  # two views and how alike they are


class Rows(Protocol):
    """Rows of numbers, of which a few are taken at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """Return the rows."""


@dataclass(frozen=True)
class Chunk:
    """Views `start` to `stop` - 1 of a series."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Loop:
    """Two windows of views that see one place. later, earlier: numbers of their chunks."""

    later: int
    later_window: Chunk
    earlier: int
    earlier_window: Chunk


def plan_chunks(count: int, size: int, overlap: int) -> list[Chunk]:
    """Return the chunks of so many views: each begins `size - overlap` after the one before, the last may be shorter.

    Every chunk but the first has more than `overlap` views. Raises ValueError for sizes that cannot be: there must be a
    view, and 0 < overlap < size.
    """
    if count < 1 or not 0 < overlap < size:
        raise ValueError(f"{count} views in chunks of {size} that share {overlap}")
    step = size - overlap
    starts = range(0, max(1, count - overlap), step)
    return [Chunk(start, min(start + size, count)) for start in starts]


def alike(descriptors: Rows, top: int = TOP, least: float = LEAST_LIKENESS, gap: int = GAP) -> np.ndarray:
    """Return pairs of views that look alike, (M, 3) float64: earlier, later, likeness; each once.

    descriptors: (N, C), one per view, an array or what gives arrays for slices of rows, which are taken a few at a
    time; likeness is the cosine between them. top: so many of each view's likest ones. least: likeness. gap: views
    between the two, at least.
    """
    count = len(descriptors)
    blocks = [slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    found = [np.empty((0, 3))]
    for block in blocks:
        ours, rows = _unit(descriptors[block]), np.arange(block.start, block.stop)
        best: np.ndarray = np.empty((len(rows), 0))
        columns: np.ndarray = np.empty((len(rows), 0), np.intp)
        for other in blocks:
            table = ours @ _unit(descriptors[other]).T
            there = np.arange(other.start, other.stop)
            table[np.abs(rows[:, None] - there) <= gap] = -2  # itself and its neighbours
            best = np.concatenate([best, table], axis=1)
            columns = np.concatenate([columns, np.broadcast_to(there, table.shape)], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :top]
            best, columns = (np.take_along_axis(some, order, axis=1) for some in (best, columns))
        row, place = np.nonzero(best > least)
        pairs = np.sort(np.stack([rows[row], columns[row, place]], axis=1), axis=1)
        found.append(np.column_stack([pairs, best[row, place]]))
    every = np.concatenate(found)
    _, last = np.unique(every[::-1, :2], axis=0, return_index=True)
    return every[len(every) - 1 - last]


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def thinned(pairs: Union[np.ndarray, Sequence[tuple[int, int, float]]], apart: int = APART) -> list[Pair]:
    """Return the likest pairs (later, earlier, likeness), none of which begins or ends near another.

    A pair goes if either of its views is within `apart` of either view of a likelier pair that stays.
    """
    rows = np.reshape(np.asarray(pairs, np.float64), (-1, 3))
    ends = np.sort(rows[:, :2].astype(np.intp), axis=1)
    taken = np.zeros(int(ends.max(initial=-1)) + 1, bool)
    kept: list[Pair] = []
    for number in np.argsort(-rows[:, 2], kind="stable"):
        first, second = (int(end) for end in ends[number])
        if taken[first] or taken[second]:
            continue
        kept.append((second, first, float(rows[number, 2])))
        taken[max(0, first - apart) : min(first + apart, second - 1) + 1] = True
        taken[max(0, second - apart, first + 1) : second + apart + 1] = True
    return kept


def plan_loops(pairs: Sequence[Pair], chunks: Sequence[Chunk], window: int = WINDOW) -> list[Loop]:
    """Return the windows of (later, earlier, likeness) pairs: around each view, inside the last chunk that it is in.

    Pairs inside one chunk close no loop; of several pairs between two chunks the first is taken.
    """
    starts = np.array([chunk.start for chunk in chunks])
    found: dict[tuple[int, int], Loop] = {}
    for later, earlier, _ in pairs:
        numbers = [int(np.searchsorted(starts, view, side="right")) - 1 for view in (later, earlier)]
        if numbers[0] != numbers[1] and tuple(numbers) not in found:
            windows = [_window(view, chunks[number], window) for view, number in zip((later, earlier), numbers)]
            found[numbers[0], numbers[1]] = Loop(numbers[0], windows[0], numbers[1], windows[1])
    return list(found.values())


def _window(view: int, chunk: Chunk, length: int) -> Chunk:
    start = max(chunk.start, min(view - length // 2, chunk.stop - length))
    return Chunk(start, min(start + length, chunk.stop))
