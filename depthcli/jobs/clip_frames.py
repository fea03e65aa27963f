"""What each output of a clip shows: its size, its facts, and its pixels for every frame."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from depthcli.camera import Camera
from depthcli.choices import StereoChoice
from depthcli.depthmap import DepthMap, Provenance
from depthcli.io.codecs.encode import Look, encode_frame, encoding_of
from depthcli.io.codecs.formats import CLIP_ROWS
from depthcli.io.codecs.stereo import stereo_facts
from depthcli.io.video.clip import ClipInfo, Frame
from depthcli.io.video.clip_output import ClipOutput
from depthcli.io.video.encodings import padded
from depthcli.io.video.spool import SpooledFrame
from depthcli.jobs.clip_job import ClipJob
from depthcli.pixels.postprocess import at_size
from depthcli.views.layouts import LAYOUTS, show
from depthcli.views.nearness import nearness
from depthcli.zoo.rows import ModelRow

_EVEN = (2, 2)  # pixels of an eye in a film, so that no two eyes share a sample of colour


@dataclass(frozen=True, eq=False)
class ShownClip:
    """A clip whose maps are made. row: of the model, with the kind of the maps. camera: of the clip, or None."""

    info: ClipInfo
    row: ModelRow
    provenance: Provenance
    camera: Optional[Camera] = None

    def depth_map(self, frame: SpooledFrame) -> DepthMap:
        """Return the map of a frame at the size of the clip, in the numbers of the model."""
        return at_size(frame.values, self.info.size, self.row, self.provenance, self.camera)


class ClipFrames(Protocol):
    """Makes what the outputs of a clip show; `pixels` is called from several threads."""

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """Return one output: `common`, with its format, path, size and facts."""

    def pixels(
        self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]
    ) -> Mapping[Path, np.ndarray]:
        """Return the pixels of a frame for these outputs. source: the clip's frame, if the job needs it."""


def clip_frames(job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> ClipFrames:
    """Return what makes the frames of a job. shown: the range of the clip. about: facts about all of its maps."""
    kind = DepthFrames if job.stereo is None else StereoFrames
    return kind(job, clip, shown, about)


class DepthFrames:
    """Shows depth."""

    def __init__(self, job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> None:
        self._clip = clip
        self._look, self._about = Look(job.look.colormap, shown), about
        self._names = {path: name for name, path in job.outputs}
        self._shown = shown

    def output(self, common: ClipOutput, name: str, path: Path) -> ClipOutput:
        """See ClipFrames."""
        encoding = encoding_of(CLIP_ROWS[name].holds, self._clip.row.kind, self._shown, self._look.colormap)
        facts = {**self._about, **({"encoding": encoding} if encoding else {})}
        return replace(
            common, format=name, path=path, size=CLIP_ROWS[name].frame_size(self._clip.info.size), facts=facts
        )

    def pixels(
        self, paths: Collection[Path], frame: SpooledFrame, source: Optional[Frame]
    ) -> Mapping[Path, np.ndarray]:
        """See ClipFrames."""
        depth = self._clip.depth_map(frame)
        names = [self._names[path] for path in paths]
        made = encode_frame(names, depth, self._look, source.rgb if source else None)
        return {path: made[self._names[path]] for path in paths}


class StereoFrames:
    """Shows two eyes, in one film or in two. The range is that of the clip, so the screen stays where it is."""

    def __init__(self, job: ClipJob, clip: ShownClip, shown: tuple[float, float], about: Mapping[str, Any]) -> None:
        assert job.stereo is not None
        self._clip, self._shown = clip, shown
        self._choice: StereoChoice = job.stereo
        self._layout = LAYOUTS[self._choice.layout]
        self._facts = stereo_facts(dict(about), self._choice)
        self._paths = job.paths

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
