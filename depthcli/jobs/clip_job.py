"""What is to be done with one clip, and how far it is."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import ModelChoice, shaping_settings
from depthcli.choices.settings import noted
from depthcli.choices.shapes import ShapeChoice
from depthcli.choices.stereo import StereoChoice
from depthcli.errors import DepthError, UsageError, first_line
from depthcli.host.atomic import temporary_path
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.encode import Look
from depthcli.io.codecs.formats import CLIP_ROWS, CRAFTER_FILES, Holds
from depthcli.io.names import STDIN
from depthcli.io.video.clip import Number, Selection
from depthcli.jobs.clip_results import spool_of
from depthcli.jobs.manifest import FAILED, Result
from depthcli.predict.clip_metres import ClipMetres
from depthcli.zoo.rows import DEPTHCRAFTER

MAKING, WRITING = "depth", "write"
_COARSE = (Holds.COLOR, Holds.GRAY8, Holds.GRAY16, Holds.SHADES)


@dataclass(frozen=True)
class Progress:
    """How far a clip is.

    stage: MAKING or WRITING. frames: done of about `total`, None if unknown. doing: a part of the stage, in words.
    """

    clip: str
    stage: str
    frames: int
    total: Optional[int]
    doing: str = ""


@dataclass(frozen=True)
class NotedAs:
    """What the results of a clip note for somebody else, who sent it and will get them.

    settings: the options, as one line. place: see ClipFiles.made_of. name: of the clip, in messages.
    """

    settings: str
    place: str
    name: str


Events = Generator[Union[Progress, Result], None, None]


@dataclass(frozen=True)
class ClipJob:
    """One clip to be done. Raises UsageError for outputs that cannot be written, and for an empty range.

    source: a video file, a folder of frames, or "-" for stdin. outputs: (format, path) of each file or folder to write.
    look: colours and range; without a range, that of the whole clip. rate: frames per second of a folder or of raw
    video. size: (width, height) of raw video. if_exists: skip, overwrite or error if all outputs are there.
    stereo: the outputs show two eyes, one for each file of the layout; None for depth. cameras: what the user gave as
    the camera of the clip, None for what the clip itself tells. metres: what makes metres of the maps, or None.
    solid: how frames become points and meshes. noted: what results note in place of what is known here.
    """

    source: Union[Path, str]
    outputs: Sequence[tuple[str, Path]]
    model: ModelChoice = field(default_factory=ModelChoice)
    clip: ClipChoice = field(default_factory=ClipChoice)
    look: Look = field(default_factory=Look)
    selection: Selection = field(default_factory=Selection)
    rate: Optional[Number] = None
    size: Optional[tuple[int, int]] = None
    if_exists: str = "skip"
    stereo: Optional[StereoChoice] = None
    cameras: Optional[GivenCameras] = None
    metres: Optional[ClipMetres] = None
    solid: ShapeChoice = field(default_factory=ShapeChoice)
    noted: Optional[NotedAs] = None

    def __post_init__(self) -> None:
        if self.look.range is not None and not -np.inf < self.look.range[0] < self.look.range[1] < np.inf:
            low, high = self.look.range
            raise UsageError(f"`value_range` must be two numbers, the smaller first, got {low:g} and {high:g}")
        if self.source == STDIN and self.needs_source:
            raise UsageError("what shows the clip reads it twice, and stdin can be read once", "save it to a file")
        source = os.path.realpath(self.source)
        for _, path in self.outputs:
            if os.path.realpath(path) == source:
                raise UsageError(f"the result would replace the clip {path}", "choose another `output`")
            place = next((str(place) for place in (path, *path.parents) if os.path.exists(place)), "")
            if place and not (os.path.isfile(place) or os.path.isdir(place)):
                raise UsageError(f"{place} is not a file or folder", "`output` - sends a stream to stdout")

    @property
    def name(self) -> str:
        """The name of the clip in messages and results."""
        return "stdin" if self.source == STDIN else str(self.source)

    @property
    def shape(self) -> dict[str, Any]:
        """The settings that shape the maps and are not part of the model, its backend or its input."""
        policy = self.clip.backend.shape_policy
        every = {"steady": self.clip.steady, "exact": self.clip.exact or None, "shape-policy": policy}
        shaping = {name: value for name, value in every.items() if value not in (None, "strict")}
        return {**shaping, **self._diffusion}

    @property
    def _diffusion(self) -> dict[str, Any]:
        """The settings of a diffusion model, which is taken only if it is named."""
        return self.clip.diffusion.settings if self.model.model == DEPTHCRAFTER else {}

    @property
    def settings_text(self) -> str:
        """All settings that shape the outputs, as one line."""
        if self.noted is not None:
            return self.noted.settings
        clip = self.clip
        every = {
            "steady": clip.steady,
            "exact": clip.exact or None,
            **shaping_settings(self.model, clip.backend, clip.input_size, clip.panorama),
            **self._diffusion,
            **_described(self.selection),
            "rate": self.rate,
            "size": self.size,
            "colormap": None if self.stereo else self.look.colormap,
            "range": self.look.range,
            **(self.stereo.settings if self.stereo else {}),
            **(self.cameras.settings if self.cameras else {}),
            **(self.metres.settings if self.metres else {}),
            **(self.solid.settings if self.shapes else {}),
            "scenes": None if clip.scenes else "off",
        }
        return noted(every)

    def worded(self, text: str) -> str:
        """Return a message with the name of the clip that results note."""
        return text if self.noted is None else text.replace(str(self.source), self.noted.name)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and folders to write."""
        return tuple(path for _, path in self.outputs)

    @property
    def exact(self) -> bool:
        """Whether a format holds the numbers of the maps, or places in space, for which 16 bits are too few."""
        return any(CLIP_ROWS[name].holds not in _COARSE for name, _ in self.outputs)

    @property
    def needs_source(self) -> bool:
        """Whether a format shows the frames of the clip, which is then read twice."""
        return any(CLIP_ROWS[name].beside or CLIP_ROWS[name].shape for name, _ in self.outputs)

    @property
    def as_crafter(self) -> bool:
        """Whether the outputs are the files of DepthCrafter's own script."""
        return any(CLIP_ROWS[name] in CRAFTER_FILES for name, _ in self.outputs)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The formats of points and meshes."""
        return tuple(name for name, _ in self.outputs if CLIP_ROWS[name].shape)

    @cached_property
    def spool_folder(self) -> Path:
        """The folder of the spool, beside the outputs, common to all formats; unique for a stream."""
        name, path = self.outputs[0]
        if self.source == STDIN:
            return temporary_path(path.parent)
        ending = CLIP_ROWS[name].clip
        stem = path.name.removesuffix(ending) if path.name.endswith(ending) else path.stem
        return spool_of(path.with_name(stem))


def _described(selection: Selection) -> dict[str, Any]:
    """Return the settings of a selection, under the names of the options."""
    facts = {field.name.replace("_", "-"): getattr(selection, field.name) for field in fields(selection)}
    return {**facts, "stride": None if selection.stride == 1 else selection.stride}


def milliseconds_since(started: float) -> float:
    """Return the milliseconds since a time of time.perf_counter."""
    return round(1000 * (time.perf_counter() - started), 1)


def failed_clip(job: ClipJob, error: Exception, started: float) -> Result:
    """Return the result of a clip that an error ended. started: see `milliseconds_since`."""
    code = error.exit_code if isinstance(error, DepthError) else 1
    words = str(error)
    if isinstance(error, MemoryError):
        words = "the machine ran out of memory"
    elif not isinstance(error, DepthError):
        words = f"{job.name} failed: {first_line(error)} ({type(error).__name__})"
    return Result(job.name, texts_of(job), FAILED, milliseconds_since(started), error=words, code=code)


def texts_of(job: ClipJob) -> tuple[str, ...]:
    """Return the files and folders of a clip, as results name them."""
    return tuple(map(str, job.paths))
