"""Follow objects through a clip: the same number for the same thing, and a distance that does not jump."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Optional

from depthcli.io.masks.found import ObjectMask
from depthcli.objects.select import overlap

_LEAST_OVERLAP = 0.3  # intersection over union of a mask with that of its track
_MOST_MISSING = 10  # frames that a track waits for its object
_SMOOTHED = 5  # frames whose median is the smooth distance


@dataclass
class _Track:
    """One object. missing: frames since it was seen. distances: metres of the last frames."""

    number: int
    item: ObjectMask
    missing: int = 0
    distances: deque[float] = field(default_factory=lambda: deque(maxlen=_SMOOTHED))


class Tracker:
    """The tracks of one clip. Numbers begin at 0 and are never used again."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next = 0

    def follow(self, masks: Sequence[ObjectMask]) -> list[int]:
        """Return the track of each mask of the next frame: the best overlap first, and only of one class."""
        pairs = [
            (overlap(item.mask, track.item.mask), place, row)
            for place, item in enumerate(masks)
            for row, track in enumerate(self._tracks)
            if item.name == track.item.name and item.mask.shape == track.item.mask.shape
        ]
        chosen: dict[int, _Track] = {}
        taken: set[int] = set()
        for shared, place, row in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if shared > _LEAST_OVERLAP and place not in chosen and row not in taken:
                chosen[place] = self._tracks[row]
                taken.add(row)
        for row, track in enumerate(self._tracks):
            track.missing = 0 if row in taken else track.missing + 1
        for place, item in enumerate(masks):
            if place not in chosen:
                chosen[place] = _Track(self._next, item)
                self._tracks.append(chosen[place])
                self._next += 1
            chosen[place].item = item
        self._tracks = [track for track in self._tracks if track.missing <= _MOST_MISSING]
        return [chosen[place].number for place in range(len(masks))]

    def smooth(self, number: int, distance: Optional[float]) -> Optional[float]:
        """Add the distance of a track in this frame; return the median of its last five, None without any."""
        track = next(track for track in self._tracks if track.number == number)
        if distance is not None:
            track.distances.append(distance)
        return median(track.distances) if track.distances else None
