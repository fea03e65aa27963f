"""What each output of a clip shows: its size, its facts, and its pixels for every frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional, Protocol, cast

import numpy as np

from depthcli.calibration import GUESS, Calibration
from depthcli.choices.stereo import StereoChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import OutputError
from depthcli.geometry.space import FARTHEST, is_fixed
from depthcli.io.codecs.encode import beside, encoding_of
from depthcli.io.codecs.files import Content, content_of
from depthcli.io.codecs.formats import CLIP_ROWS, Format
from depthcli.io.codecs.stereo import stereo_facts
from depthcli.io.codecs.stills import encoding_of_clip
from depthcli.io.video.clip import Frame
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.clip_page import frame_mesh_size
from depthcli.io.video.encodings import padded
from depthcli.io.video.spool import SpooledFrame
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.clip_shots import ShownClip
from depthcli.pixels.colormap import color_table
from depthcli.pixels.preprocess import resize_pixels
from depthcli.views.layouts import LAYOUTS, show
from depthcli.views.nearness import nearness

_LEAST = 1e-6  # metres, and relative depth: nothing is nearer
_EVEN = (2, 2)  # pixels of an eye in a film, so that no two eyes share a sample of colour


class ClipFrames(Protocol):
    """Makes what the outputs of a clip show; `pixels` is called from several threads.

    notes: what could not be shown, complete after the last frame.
    """

    notes: dict[str, None]

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """Return one output: `common`, with its format, path, size and facts."""

    def pixels(self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]) -> Mapping[Path, Any]:
        """Return what the writers of these outputs take for a frame; nothing for one that has nothing to show.

        source: the clip's frame, if the job needs it.
        """


def clip_frames(job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> ClipFrames:
    """Return what makes the frames of a job. shown: the range of the clip. about: facts about all of its maps."""
    kind = CrafterFrames if job.as_crafter else DepthFrames if job.stereo is None else StereoFrames
    return kind(job, clip, shown, about)


class DepthFrames:
    """Shows depth."""

    def __init__(self, job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> None:
        self._clip, self._shown, self._about = clip, shown, about
        self._colormap, self._choice = job.look.colormap, job.solid
        # Two halves of a film touch: there is no gap between them as in a still.
        self._rows = {path: replace(CLIP_ROWS[name], gap=0) for name, path in job.outputs}
        self.notes: dict[str, None] = {}

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """See ClipFrames."""
        row = self._rows[path]
        encoding = encoding_of_clip(row, self._clip.kind, self._ends(row), self._colormap, bool(self._clip.shots))
        facts = {**self._about, **({"encoding": encoding} if encoding else {})}
        size, frames = row.frame_size(self._clip.info.size), self._clip.frames
        return replace(common, format=name, path=path, size=size, facts=facts, frames=frames)

    def pixels(self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]) -> Mapping[Path, Any]:
        """See ClipFrames."""
        depth, rgb = self._clip.depth_map(frame), source.rgb if source else None
        made: dict[Format, Content] = {}  # formats that differ in their files alone share their pixels
        shown: dict[Path, Any] = {}
        for path in paths:
            row = self._rows[path]
            plain = row if row.shape else replace(row, name="", what="", still="", clip="", old_name="", beside=False)
            try:
                if plain not in made:
                    made[plain] = self._content(row if row.shape else replace(row, beside=False), depth, rgb)
            except OutputError as error:  # of a shape that has no point
                self.notes[f"{row.name} lacks frames, such as {frame.index}: {error.message}"] = None
                continue
            shown[path] = self._in_file(row, made[plain], depth, rgb)
        return shown

    def _content(self, row: Format, depth: DepthMap, rgb: Optional[np.ndarray]) -> Content:
        if row.shape and not is_fixed(depth):  # each frame would have a scale of its own
            depth = depth.calibrated(self._one_scale(depth))
        choice = self._choice
        if row.page:
            choice = replace(choice, mesh_size=frame_mesh_size(depth.size, self._clip.frames, choice.mesh_size))
        return content_of(row, depth, self._colormap, rgb, choice, ends=self._ends(row))

    def _in_file(self, row: Format, content: Content, depth: DepthMap, rgb: Optional[np.ndarray]) -> Any:
        """Return what a writer takes: a film, pixels without holes; a folder, a file with the facts of its frame."""
        if row.shape:
            return content
        pixels, facts = cast(np.ndarray, content.body), content.facts
        if row.beside:
            assert rgb is not None
            pixels = beside(rgb, pixels)
        if not row.folder:
            return _without_holes(pixels, row.colormap or self._colormap)
        own = {name: facts[name] for name in ("invalid_pixels", "calibration", "encoding") if name in facts}
        if row.beside:
            own["encoding"] = {**own["encoding"], "left": depth.size[0]}
        return Content(pixels, own)

    def _ends(self, row: Format) -> tuple[float, float]:
        """Return the numbers at the ends of a format's codes, the same for all frames."""
        (lo, hi), near_is_high = self._shown, self._clip.kind.near_is_high
        if row.whole:
            return self._clip.extremes if near_is_high else (0.0, 1 / max(self._clip.extremes[0], _LEAST))
        return (1 / max(hi, _LEAST), 1 / max(lo, _LEAST)) if row.inverse and not near_is_high else (lo, hi)

    def _one_scale(self, depth: DepthMap) -> Calibration:
        """Return what puts the nearest half percent of a relative clip at 1, as a guess and not as metres."""
        lo, hi = self._clip.range
        return Calibration(
            depth.kind.value,
            1 / max(hi if depth.kind.near_is_high else lo, _LEAST),
            unit=GUESS,
            farthest=FARTHEST if self._choice.farthest is None else None,
            notes=("the nearest half percent of the clip lies at 1",),
        )


def _without_holes(pixels: np.ndarray, colormap: str) -> np.ndarray:
    """Return the colours of a film, which has no transparency: what has no depth is shown as the farthest."""
    if pixels.ndim < 3 or pixels.shape[2] == 3:
        return pixels
    return np.where(pixels[..., 3:] > 0, pixels[..., :3], color_table(colormap)[0])


class CrafterFrames:
    """Shows depth as DepthCrafter's own script: at the network's size, from 0 to 1 over the whole clip."""

    def __init__(self, job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> None:
        low, high = map(np.float32, clip.extremes)
        self._low, self._distance = low, high - low
        self._clip, self._about = clip, {**about, "min": 0.0, "max": float(high > low)}
        self._rows = {path: CLIP_ROWS[name] for name, path in job.outputs}
        self.notes: dict[str, None] = {}

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """See ClipFrames."""
        row, size = self._rows[path], self._clip.provenance.input_size
        about = {**self._about, "size": list(size)}
        if row.colormap:
            about["encoding"] = encoding_of(row.holds, self._clip.kind, (0.0, 1.0), row.colormap)
        return replace(common, format=name, path=path, size=size, facts=about)

    def pixels(self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]) -> Mapping[Path, Any]:
        """See ClipFrames."""
        values = frame.values - self._low
        if self._distance > 0:
            values /= self._distance
        codes = (values * np.float32(255)).astype(np.uint8)
        shown: dict[Path, np.ndarray] = {}
        for path in paths:
            row = self._rows[path]
            if row.beside:
                assert source is not None
                shown[path] = resize_pixels(source.rgb, self._clip.provenance.input_size)
            else:
                shown[path] = color_table(row.colormap)[codes] if row.colormap else values
        return shown


class StereoFrames:
    """Shows two eyes, in one film or in two. The range is that of the clip, so the screen stays where it is."""

    def __init__(self, job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> None:
        assert job.stereo is not None
        self._clip, self._shown = clip, shown
        self._choice: StereoChoice = job.stereo
        self._layout = LAYOUTS[self._choice.layout]
        self._facts = stereo_facts(dict(about), self._choice)
        self._paths = job.paths
        self.notes: dict[str, None] = {}

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """See ClipFrames."""
        width, height = (-(-length // even) * even for length, even in zip(self._clip.info.size, _EVEN))
        return replace(
            common,
            format=name,
            path=path,
            size=self._layout.size((width, height)),
            facts=self._facts,
            pixel_aspect=Fraction(1) if self._layout.spherical else common.pixel_aspect,
            packing=self._layout.tag(self._choice),
            half_sphere=self._layout.spherical,
        )

    def pixels(
        self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]
    ) -> Mapping[Path, np.ndarray]:
        """See ClipFrames."""
        assert source is not None
        depth = self._clip.depth_map(frame)
        near = nearness(depth, self._shown)
        width, height = self._clip.info.size
        shape = height + height % 2, width + width % 2
        coarseness = max(1.0, width / frame.values.shape[1])
        pictures = show(padded(source.rgb, shape), padded(near, shape), self._choice, coarseness)
        return {path: picture for path, picture in zip(self._paths, pictures) if path in paths}
