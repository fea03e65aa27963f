"""One shot through a network that sees 32 frames at once, in overlapping windows, in constant memory.

This is the offline inference of Video-Depth-Anything, frame by frame. A window begins every 22 frames; its last 22
frames are new. The ten before come from the previous window: two anchors of the scale, and eight that overlap. The
first anchor is always frame 0. A line fitted over the anchors brings each window to the scale of the first one, and the
maps of the overlap are cross-faded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np

from depthcli.backends import Backend
from depthcli.pixels.alignment import fit_line
from depthcli.temporal.state import State
from depthcli.zoo.rows import WINDOW

OVERLAP = 10
STEP = WINDOW - OVERLAP
BLEND = 8  # maps at the end of a window, cross-faded with those of the next
ANCHORS = OVERLAP - BLEND
# The slots of a window that the next one begins with: two anchors and the last eight.
KEYFRAMES = (0, 12, *range(WINDOW - BLEND, WINDOW))


@dataclass
class _Frame:
    """A frame in a window.

    image: (3, H, W), None if no longer needed. passed_on: part of the next window, whose `state` holds the image.
    encoded: its features, None until the network has run.
    """

    image: Optional[np.ndarray]
    passed_on: bool
    encoded: Any = None


class Windows:
    """One shot: `feed` takes frames and returns maps, one per frame and in order.

    metric: the network answers in metres, so nothing is aligned. exact: fit with float32 sums as the official code,
    which lose digits at low contrast; otherwise with centred sums in float64. resize: applied to each (H, W) map before
    alignment; the official code resizes to the size of the video.
    """

    def __init__(
        self,
        network: Backend,
        *,
        metric: bool,
        exact: bool = False,
        resize: Optional[Callable[[np.ndarray], np.ndarray]] = None,
    ) -> None:
        self._network = network
        self._fit = _fit_nothing if metric else _fit_float32 if exact else _fit_float64
        self._resize = resize
        self._frames: list[_Frame] = []  # of the current window
        self._waiting: list[_Frame] = []  # those that are not encoded yet
        self._anchors: list[np.ndarray] = []
        self._tail: list[np.ndarray] = []  # maps to be cross-faded with the next window
        self._windows = self._fed = self._given = 0

    def feed(self, image: np.ndarray) -> list[np.ndarray]:
        """Take the next frame (3, H, W) float32; return the maps (H, W) float32 that are final now.

        The first 31 frames return none, the 32nd returns 24 maps, then every 22nd returns 22.
        """
        frame = _Frame(image, passed_on=len(self._frames) in KEYFRAMES)
        self._frames.append(frame)
        self._waiting.append(frame)
        self._fed += 1
        if len(self._waiting) >= self._network.traits.best_batch:
            self._encode()
        return self._given_out(self._run()) if len(self._frames) == WINDOW else []

    def finish(self) -> list[np.ndarray]:
        """Return the remaining maps after the last frame of the shot."""
        maps: list[np.ndarray] = []
        while self._windows * STEP < self._fed:
            # The first of these windows has new frames; a second is needed if only its overlap reaches the last one.
            self._frames += [self._frames[-1]] * (WINDOW - len(self._frames))
            maps += self._run()
        self._frames = []
        return self._given_out((maps + self._tail)[: self._fed - self._given])

    def state(self) -> State:
        """Return the state to restore from. Raises ValueError unless `feed` has just returned maps."""
        if not self._windows or len(self._frames) != OVERLAP:
            raise ValueError("a shot has a state only between two windows, when feed has just returned maps")
        return {
            "counts": np.array([self._windows, self._fed, self._given], np.int64),
            "images": _images(self._frames),
            "anchors": np.stack(self._anchors),
            "tail": np.stack(self._tail),
        }

    def restore(self, state: State) -> None:
        """Continue from a `state`, with the same bits."""
        self._windows, self._fed, self._given = (int(count) for count in state["counts"])
        self._frames = [_Frame(image, passed_on=True) for image in state["images"]]
        self._waiting = list(self._frames)
        self._anchors, self._tail = list(state["anchors"]), list(state["tail"])
        self._encode()

    def _encode(self) -> None:
        """Encode the waiting frames, in batches of the network's size."""
        batch = self._network.traits.best_batch
        for start in range(0, len(self._waiting), batch):
            part = self._waiting[start : start + batch]
            for frame, encoded in zip(part, self._network.run({"image": _images(part)}, "encode")["features"]):
                frame.encoded = encoded
                frame.image = frame.image if frame.passed_on else None
        self._waiting = []

    def _run(self) -> list[np.ndarray]:
        """Run the full window, return its final maps, and begin the next one."""
        self._encode()
        answers = self._network.run({"features": [frame.encoded for frame in self._frames]}, "decode")["depth"]
        maps = [answer if self._resize is None else self._resize(answer) for answer in answers]
        if self._windows == 0:
            self._anchors = [maps[slot].copy() for slot in KEYFRAMES[:ANCHORS]]
        else:
            scale, shift = self._fit(np.stack(maps[:ANCHORS]), np.stack(self._anchors))
            maps = [np.maximum(values * scale + shift, np.float32(0)) for values in maps]
            self._anchors[1:] = [maps[slot].copy() for slot in KEYFRAMES[1:ANCHORS]]
            maps = [*_cross_fade(self._tail, maps[ANCHORS:OVERLAP]), *maps[OVERLAP:]]
        maps, self._tail = maps[:-BLEND], [values.copy() for values in maps[-BLEND:]]
        self._frames = [self._frames[slot] for slot in KEYFRAMES]
        self._windows += 1
        return maps

    def _given_out(self, maps: list[np.ndarray]) -> list[np.ndarray]:
        self._given += len(maps)
        return maps


def _images(frames: Sequence[_Frame]) -> np.ndarray:
    images = [frame.image for frame in frames if frame.image is not None]
    assert len(images) == len(frames)
    return np.stack(images)


def _cross_fade(old: Sequence[np.ndarray], new: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the maps faded from the old to the new ones."""
    weights = [number / (len(old) - 1) for number in range(len(old))]
    return [before * (1 - weight) + after * weight for before, after, weight in zip(old, new, weights)]


def _fit_nothing(found: np.ndarray, wanted: np.ndarray) -> tuple[np.float32, np.float32]:
    return np.float32(1), np.float32(0)


def _fit_float32(found: np.ndarray, wanted: np.ndarray) -> tuple[np.float32, np.float32]:
    """Return the least-squares (scale, shift) from `found` to `wanted`: normal equations in float32."""
    count = np.float32(found.size)
    xx, x = np.sum(found * found), np.sum(found)
    xy, y = np.sum(found * wanted), np.sum(wanted)
    determinant = xx * count - x * x
    if determinant == 0:
        return np.float32(1), np.float32(0)
    return (count * xy - x * y) / determinant, (xx * y - x * xy) / determinant


def _fit_float64(found: np.ndarray, wanted: np.ndarray) -> tuple[np.float32, np.float32]:
    """Return the same from float64 sums, which keep their digits at low contrast."""
    scale, shift = fit_line(found, wanted) or (1, 0)
    return np.float32(scale), np.float32(shift)
