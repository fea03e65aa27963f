"""Metres for clips: the references of a choice, fitted once for each shot."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Callable, Optional

import numpy as np

from depthcli.calibration import Calibration
from depthcli.camera import assumed_camera
from depthcli.choices.metres import MetresChoice, Reference
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.geometry.metres import MOST_POINTS, Measured, fit_measured, fit_range, measure, thinned
from depthcli.predict.metres import Metres

_MOST_FRAMES = 16  # of a shot, spread over it, in which references with many frames are measured
_MOST_NUMBERS = 1 << 20  # of these frames that a range is taken of
_Chosen = Mapping[int, tuple[Reference, ...]]  # frames of a shot, each with what was measured in it


@dataclass(frozen=True)
class Shot:
    """Frames of a clip from one cut to the next, and what makes metres of them. frames: indices, from 0."""

    frames: range
    calibration: Calibration


class ClipMetres(Metres):
    """The references of a choice for clips.

    What is typed, a depth file and a cloud belong to the frame behind their @, or to the first frame of the clip; a
    folder of depth files and a COLMAP model to the frames of their names; ground to the first frame of each shot, and
    range to all of it. Raises UsageError as Metres, and for an @ behind what has frames of its own.
    """

    def __init__(self, choice: MetresChoice) -> None:
        super().__init__(choice, clip=True)
        for item in self._references:
            if item.frame is not None and (item.name == "range" or self._is_per_frame(item)):
                reason = "is of a whole shot" if item.name == "range" else "has frames of its own"
                raise UsageError(f"{item.text} {reason}", "leave out the @ and its number")

    @property
    def kind(self) -> DepthKind:
        """The kind of the maps in metres, as far as it is known before a fit: a range gives none."""
        guess = any(item.name == "range" for item in self._references)
        return DepthKind.RELATIVE_DEPTH if guess else DepthKind.METRIC_DEPTH

    def shots(
        self,
        frames: Sequence[range],
        numbers: Sequence[int],
        pictures: Sequence[str],
        maps: Callable[[Collection[int]], Iterable[tuple[int, DepthMap]]],
    ) -> list[Shot]:
        """Return the shots of a clip with their calibrations. Raises UsageError for a shot without a reference.

        frames: of each shot. numbers: of all frames, as their files have them and references name them.
        pictures: paths by which references know the frames. maps: returns (index, map) of chosen frames, in order.
        """
        if not self._references:
            (_, depth), *_ = maps({0})
            return [Shot(shot, self.calibration(depth)) for shot in frames]
        for item in self._references:
            if item.frame is not None and item.frame not in numbers:
                raise UsageError(
                    f"{item.text} names a frame that is not there",
                    f"the clip has the frames {numbers[0]} to {numbers[-1]}",
                )
        chosen = [self._chosen(shot, numbers, pictures) for shot in frames]
        fits = []
        for shot, places in zip(frames, chosen):
            name = f"{numbers[shot[0]]} to {numbers[shot[-1]]}"
            if not places:
                raise UsageError(
                    f"the shot of the frames {name} has no reference",
                    f"name one of its frames, such as at:812,540=2.35@{numbers[shot[0]]}, or take it for no shot of its"
                    " own with `scenes` off",
                )
            fits.append(_Fit(self, places, name))
        for index, depth in maps({index for places in chosen for index in places}):
            for fit in fits:
                fit.add(index, depth, pictures[index])
        return [Shot(shot, fit.calibration()) for shot, fit in zip(frames, fits)]

    def _is_per_frame(self, item: Reference) -> bool:
        return item.text in self._files and self._files[item.text].is_per_picture

    def _chosen(self, shot: range, numbers: Sequence[int], pictures: Sequence[str]) -> _Chosen:
        """Return the frames of a shot in which references are measured, each with these."""
        chosen: dict[int, tuple[Reference, ...]] = {}
        for item in self._references:
            if self._is_per_frame(item):
                places = _some([index for index in shot if self._files[item.text].covers(pictures[index])])
            elif item.name == "range":
                places = _some(shot)
            elif item.name == "ground" and item.frame is None:
                places = shot[:1]
            else:
                wanted = numbers[0] if item.frame is None else item.frame
                places = [index for index in shot if numbers[index] == wanted]
            for index in places:
                chosen[index] = (*chosen.get(index, ()), item)
        return chosen

    # What a fit of a shot asks for.

    def measured(self, depth: DepthMap, items: Sequence[Reference], picture: str, most: int) -> list[Measured]:
        """Return what was measured in a frame. most: points of a reference."""
        camera = depth.camera or assumed_camera(depth.size)
        points = (self._points(item, picture, depth.size, camera) for item in items)
        return [measure(depth, thinned(each, most)) for each in points]

    def fitted(self, measured: Sequence[Measured], depth: DepthMap) -> Calibration:
        """Return the calibration by points of several frames. depth: one of them, for its kind and model."""
        return self._limited(self._in_unit(fit_measured(measured, depth, self._choice.fit)))

    def ranged(self, depth: DepthMap, item: Reference) -> Calibration:
        """Return the calibration by the ends of a shot's depth. depth: numbers of all of it."""
        near, far = item.rows[0]
        return self._limited(fit_range(depth, near, far, item.text))


class _Fit:
    """Gathers what the frames of a shot tell, holding no map of the clip's size, and fits."""

    def __init__(self, metres: ClipMetres, chosen: _Chosen, name: str) -> None:
        self._metres, self._chosen, self._name = metres, chosen, name
        self._measured: list[Measured] = []
        self._numbers: list[np.ndarray] = []
        self._sample: Optional[DepthMap] = None
        self._ground: Optional[Calibration] = None

    def add(self, index: int, depth: DepthMap, picture: str) -> None:
        """Take a frame, if references were measured in it."""
        items = self._chosen.get(index, ())
        if not items:
            return
        self._sample = replace(depth, values=depth.values[:1, :1])
        with self._named():
            if items[0].name == "ground":
                self._ground = self._metres.calibration(depth, picture)
            elif items[0].name == "range":
                step = math.ceil(math.sqrt(len(self._chosen) * depth.values.size / _MOST_NUMBERS))
                self._numbers.append(depth.values[::step, ::step].copy())
            else:
                most = MOST_POINTS // len(self._chosen)
                self._measured += self._metres.measured(depth, items, picture, most)

    def calibration(self) -> Calibration:
        """Return the calibration of the shot, when all its frames were added."""
        assert self._sample is not None
        if self._ground is not None:
            return self._ground
        with self._named():
            if self._numbers:
                (item,) = next(iter(self._chosen.values()))
                return self._metres.ranged(replace(self._sample, values=np.concatenate(self._numbers)), item)
            return self._metres.fitted(self._measured, self._sample)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except UsageError as error:
            error.message = f"frames {self._name}: {error.message}"
            raise


def _some(frames: Sequence[int]) -> Sequence[int]:
    """Return at most so many frames, spread evenly from the first to the last."""
    if len(frames) <= _MOST_FRAMES:
        return frames
    places = np.linspace(0, len(frames) - 1, _MOST_FRAMES).round().astype(int)
    return [frames[place] for place in places.tolist()]
