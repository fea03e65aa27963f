"""Which views of a long series go through a network together, and which pairs of views close a loop.

Rules of DA3-Streaming: chunks of one size that overlap, pairs of views that look alike, and windows around both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOP, LEAST_LIKENESS, GAP = 5, 0.85, 10
APART = 25  # views around both ends of a kept pair in which no other pair begins or ends
WINDOW = 20
_BLOCK = 512  # rows of the table of likenesses that are held at once


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


def alike(
    descriptors: np.ndarray, top: int = TOP, least: float = LEAST_LIKENESS, gap: int = GAP
) -> list[tuple[int, int, float]]:
    """Return pairs (earlier, later, likeness) of views that look alike, each once, in order of the views.

    descriptors: (N, C), one per view; likeness is the cosine between them. top: so many of each view's likest ones.
    least: likeness. gap: views between the two, at least.
    """
    unit = np.asarray(descriptors, np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found: dict[tuple[int, int], float] = {}
    for start in range(0, len(unit), _BLOCK):
        table = unit[start : start + _BLOCK] @ unit.T
        rows = np.arange(len(table))
        table[np.abs(rows[:, None] + start - np.arange(len(unit))) <= gap] = -2  # itself and its neighbours
        best = np.argsort(-table, axis=1, kind="stable")[:, :top]
        for row, columns in zip(rows, best):
            for column in columns[table[row, columns] > least]:
                first, second = sorted((start + int(row), int(column)))
                found[first, second] = float(table[row, column])
    return [(first, second, likeness) for (first, second), likeness in sorted(found.items())]


def thinned(pairs: Sequence[tuple[int, int, float]], apart: int = APART) -> list[tuple[int, int, float]]:
    """Return the likest pairs (later, earlier, likeness), none of which begins or ends near another.

    A pair goes if either of its views is within `apart` of either view of a likelier pair that stays.
    """
    kept: list[tuple[int, int, float]] = []
    taken: list[tuple[int, int]] = []
    for one, other, likeness in sorted(pairs, key=lambda pair: -pair[2]):
        if any(low <= view <= high for view in (one, other) for low, high in taken):
            continue
        first, second = sorted((int(one), int(other)))
        kept.append((second, first, float(likeness)))
        taken.append((first - apart, min(first + apart, second - 1)))
        taken.append((max(second - apart, first + 1), second + apart))
    return kept


def plan_loops(pairs: Sequence[tuple[int, int, float]], chunks: Sequence[Chunk], window: int = WINDOW) -> list[Loop]:
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
