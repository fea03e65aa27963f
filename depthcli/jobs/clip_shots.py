"""A clip whose maps are made, and its metres: one fit for each shot, from the maps in the spool."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Optional

import numpy as np

from depthcli.calibration import describe_calibration
from depthcli.camera import Camera
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import UsageError
from depthcli.io.video.clip import ClipInfo, Selection
from depthcli.io.video.spool import Spool, SpooledFrame
from depthcli.pixels.postprocess import at_size
from depthcli.predict.clip_metres import ClipMetres, Shot
from depthcli.temporal.ranges import ValueRange
from depthcli.zoo.rows import ModelRow


@dataclass(frozen=True, eq=False)
class ShownClip:
    """A clip whose maps are made.

    row: of the model, with the kind of its maps. camera: of the clip, or None. range, extremes: (lo, hi) that is shown
    of all maps, and their smallest and largest number. shots: all of them if metres are made, else none.
    lost: parts of the pixels of each shot that have no depth in metres. frames: how many maps there are.
    """

    info: ClipInfo
    row: ModelRow
    provenance: Provenance
    camera: Optional[Camera]
    range: tuple[float, float]
    extremes: tuple[float, float]
    shots: tuple[Shot, ...] = ()
    lost: tuple[float, ...] = ()
    frames: int = 1

    @property
    def kind(self) -> DepthKind:
        """The kind of the maps, after the fit."""
        if not self.shots:
            return self.row.kind
        metric = all(shot.calibration.is_metric for shot in self.shots)
        return DepthKind.METRIC_DEPTH if metric else DepthKind.RELATIVE_DEPTH

    @property
    def max_depth(self) -> Optional[float]:
        """The largest depth in metres that a metric network can give, None otherwise."""
        most = max((shot.calibration.scale for shot in self.shots), default=1.0)
        return most * self.row.max_depth if self.row.max_depth else None

    def depth_map(self, frame: SpooledFrame) -> DepthMap:
        """Return the map of a frame at the size of the clip, in metres if there are shots."""
        depth = at_size(frame.values, self.info.size, self.row, self.provenance, self.camera)
        return depth.calibrated(self._shot_of(frame).calibration) if self.shots else depth

    def _shot_of(self, frame: SpooledFrame) -> Shot:
        return self.shots[bisect_right([shot.frames.start for shot in self.shots], frame.index) - 1]

    @property
    def lines(self) -> tuple[str, ...]:
        """What the metres of each shot rest on, a line each."""
        lines = []
        for shot, lost in zip(self.shots, self.lost):
            frames = f"frames {shot.frames[0]} to {shot.frames[-1]}: " if len(self.shots) > 1 else ""
            rest = f", {100 * lost:.2g} % of the pixels have no depth" if lost else ""
            lines.append(f"{frames}{shot.calibration.line()}{rest}")
        return tuple(lines)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about the metres, a line each."""
        return tuple(dict.fromkeys(line for shot in self.shots for line in shot.calibration.warnings))

    @property
    def facts(self) -> dict[str, Any]:
        """The facts about the shots for files, ready for JSON; empty without metres."""
        if not self.shots:
            return {}
        found = [(shot.frames, describe_calibration(shot.calibration)) for shot in self.shots]
        shots = [{"frames": [frames[0], frames[-1]], "calibration": facts} for frames, facts in found]
        return {"calibration": found[0][1]} if len(found) == 1 else {"shots": shots}


def with_metres(clip: ShownClip, metres: ClipMetres, selection: Selection, spool: Spool) -> ShownClip:
    """Return the clip with the metres of each shot. Raises UsageError for references that do not fit."""
    times, cuts = spool.times()
    frames = [range(*ends) for ends in zip(cuts, [*cuts[1:], len(times)])]
    numbers = frame_numbers(clip.info, selection, times)

    def maps(wanted: Collection[int]) -> Iterator[tuple[int, DepthMap]]:
        for frame in spool.read():
            if frame.index in wanted:
                yield frame.index, clip.depth_map(frame)
            if frame.index >= max(wanted):
                return

    pictures = _pictures(clip.info, times, numbers)
    return _measured(replace(clip, shots=tuple(metres.shots(frames, numbers, pictures, maps))), spool)


def frame_numbers(info: ClipInfo, selection: Selection, times: Sequence[Fraction]) -> list[int]:
    """Return the numbers of frames as their files have them: from 0, or those in the names of a folder's frames."""
    if selection.fps is not None or not info.numbers:
        return list(range(len(times)))
    return [info.numbers[round(time * info.rate)] for time in times]


def _pictures(info: ClipInfo, times: Sequence[Fraction], numbers: Sequence[int]) -> list[str]:
    """Return the paths of a folder's frames, or the names that the frames of a film get."""
    if not info.paths:
        return [f"frame_{number:06d}" for number in numbers]
    last = len(info.paths) - 1
    return [str(info.paths[min(last, math.floor(time * info.rate))]) for time in times]


def _measured(clip: ShownClip, spool: Spool) -> ShownClip:
    """Return the clip with the range and the extremes of its metres."""
    found, low, high = ValueRange(), math.inf, -math.inf
    lost = dict.fromkeys((shot.frames.start for shot in clip.shots), 0.0)
    for frame in spool.read():
        shot = clip._shot_of(frame)
        z, valid = shot.calibration.metres(frame.values)
        lost[shot.frames.start] += float(1 - valid.mean()) / len(shot.frames)
        if valid.any():
            known = z[valid].astype(np.float32)
            found.add(known)
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if low > high:
        raise UsageError("no pixel of the clip has a depth by these references", "raise `max_depth`, or check them")
    return replace(clip, range=found.range(), extremes=(low, high), lost=tuple(lost.values()))
