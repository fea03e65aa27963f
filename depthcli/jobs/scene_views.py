"""The views of a scene one by one: pictures by their paths, or chosen frames of a clip."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from depthcli.choices.clips import FramesChoice
from depthcli.errors import UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.cameras.stored import StoredCamera
from depthcli.io.video.clip import Frame
from depthcli.io.video.reader import open_clip
from depthcli.jobs.scene_inputs import SceneInput
from depthcli.temporal.cuts import CutDetector
from depthcli.temporal.selection import evenly, every, moved, sharpest, sharpness, shift, taker_at_rate

IMAGES = "images"  # folder for the frames of a clip, and the name of that format


class ViewSource(NamedTuple):
    """Where a view comes from; a tuple, as there may be tens of thousands.

    path: of a picture, or None for a frame. frame: its number. camera: known, or None. shot: of a clip, from 0.
    """

    name: str
    path: Optional[Path] = None
    frame: int = 0
    camera: Optional[StoredCamera] = None
    shot: int = 0


def picture_views(found: SceneInput) -> list[ViewSource]:
    """Return the pictures."""
    cameras = found.cameras or [None] * len(found.paths)
    return [ViewSource(name, path, 0, camera) for name, path, camera in zip(found.names, found.paths, cameras)]


def clip_views(path: Path, choice: FramesChoice, max_views: Optional[int], find_cuts: bool = False) -> list[ViewSource]:
    """Return the frames that a rule chooses, at most `max_views` of them, evenly; the clip is read once for that.

    They are called by their number in the clip, as 000024.png. find_cuts: look for cuts between all frames of the clip;
    otherwise it is one shot. Raises ClipError if no frame can be read, and UsageError
    if fewer than two are chosen, or than one if cuts are looked for.
    """
    cuts: list[int] = []
    with open_clip(path) as clip:
        frames = _watched(clip.frames(), cuts) if find_cuts else clip.frames()
        indices = _chosen(frames, choice)
    if len(indices) < (1 if find_cuts else 2):
        raise UsageError(
            f"{choice.words} gives {len(indices)} view{'s' * (len(indices) != 1)} of {path}",
            "`fps` or `frames` takes more",
        )
    sources = [ViewSource(f"{index:06d}.png", None, index, shot=bisect_right(cuts, index)) for index in indices]
    return at_most(sources, max_views)


def _watched(frames: Iterator[Frame], cuts: list[int]) -> Iterator[Frame]:
    """Yield the frames; the numbers of those that begin a shot are appended to `cuts`."""
    detector = CutDetector()
    for frame in frames:
        if detector.is_cut(frame.rgb):
            cuts.append(frame.index)
        yield frame


def clip_frames(
    path: Path, sources: Sequence[ViewSource], folder: Optional[Path]
) -> Iterator[tuple[ViewSource, np.ndarray]]:
    """Yield each chosen frame, (H, W, 3) uint8. folder: where each is also written as PNG, or None."""
    left = {source.frame: source for source in sources}
    last = max(left)
    with open_clip(path) as clip:
        for frame in clip.frames():
            source = left.get(frame.index)
            if source is not None:
                if folder is not None:
                    _write_png(frame.rgb, folder / source.name)
                yield source, frame.rgb
            if frame.index == last:
                return


def _chosen(frames: Iterator[Frame], choice: FramesChoice) -> list[int]:
    if choice.motion is not None or (choice.frames is not None and choice.sharp):
        return _by_pixels(frames, choice)
    if choice.frames is not None:
        return evenly(sum(1 for _ in frames), choice.frames)
    if choice.stride is not None:
        return every(sum(1 for _ in frames), choice.stride)
    takes = taker_at_rate(choice.fps or 1.0)
    return [frame.index for frame in frames if takes(float(frame.time))]


def _by_pixels(frames: Iterator[Frame], choice: FramesChoice) -> list[int]:
    sharp: list[float] = []
    shifts: list[float] = []
    before: Optional[np.ndarray] = None
    for frame in frames:
        if choice.sharp:
            sharp.append(sharpness(frame.rgb))
        if choice.motion is not None:
            shifts.append(0.0 if before is None else shift(before, frame.rgb))
            before = frame.rgb
    if choice.motion is not None:
        return moved(shifts, choice.motion, sharp)
    assert choice.frames is not None
    return sharpest(sharp, choice.frames)


def at_most(sources: list[ViewSource], max_views: Optional[int]) -> list[ViewSource]:
    """Return at most so many views, evenly."""
    if max_views is None or len(sources) <= max_views:
        return sources
    return [sources[place] for place in evenly(len(sources), max_views)]


def _write_png(rgb: np.ndarray, path: Path) -> None:
    from PIL import Image

    with atomic_path(path) as partial:
        Image.fromarray(rgb).save(partial, "PNG")
