"""What is to be done with one clip, and how far it is."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from depthcli.errors import UsageError
from depthcli.host.atomic import temporary_path
from depthcli.io.codecs.formats import CLIPS, Holds
from depthcli.io.video.clip import Number, Selection
from depthcli.io.video.reader import STDIN
from depthcli.jobs.clip_results import spool_of
from depthcli.jobs.manifest import Result
from depthcli.pixels.colormap import DEFAULT_COLORMAP

MAKING, WRITING = "depth", "write"


@dataclass(frozen=True)
class Progress:
    """How far a clip is. stage: MAKING or WRITING. frames: done of about `total`, None if unknown."""

    clip: str
    stage: str
    frames: int
    total: Optional[int]


Events = Generator[Union[Progress, Result], None, None]


@dataclass(frozen=True)
class ClipJob:
    """What is to be done with one clip.

    source: a video file, a folder of frames, or "-" for stdin. outputs: (format, path) of each file or folder to write.
    rate, size: of raw video on stdin; rate also of a folder. value_range: (lo, hi) that is shown, in the numbers of the
    model; None for that of the whole clip. scenes: begin anew at cuts. if_exists: skip, overwrite or error where all
    outputs are there. settings: the options that shape the maps, ready for JSON.
    """

    source: Union[Path, str]
    outputs: Sequence[tuple[str, Path]]
    selection: Selection = field(default_factory=Selection)
    rate: Optional[Number] = None
    size: Optional[tuple[int, int]] = None
    colormap: str = DEFAULT_COLORMAP
    value_range: Optional[tuple[float, float]] = None
    scenes: bool = True
    if_exists: str = "skip"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(self.value_range)
        if self.source == STDIN and self.needs_source:
            raise UsageError("what comes on stdin cannot be read twice, as side wants", "save it to a file first")
        source = os.path.realpath(self.source)
        for _, path in self.outputs:
            if os.path.realpath(path) == source:
                raise UsageError(f"the result would replace the clip {path}", "use another -o")
            place = next((str(place) for place in (path, *path.parents) if os.path.exists(place)), "")
            if place and not (os.path.isfile(place) or os.path.isdir(place)):
                raise UsageError(f"{place} is a pipe or a device, no file or folder", "-o - sends a stream to stdout")

    @property
    def name(self) -> str:
        """What to call the clip."""
        return "stdin" if self.source == STDIN else str(self.source)

    @property
    def settings_text(self) -> str:
        """The options that shape the result, as one line."""
        every = {
            **self.settings,
            **_described(self.selection),
            "rate": self.rate,
            "size": self.size,
            "colormap": self.colormap,
            "range": self.value_range,
            "scenes": None if self.scenes else "off",
        }
        return " ".join(f"{name}={value}" for name, value in every.items() if value is not None)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and folders to write."""
        return tuple(path for _, path in self.outputs)

    @property
    def exact(self) -> bool:
        """Whether a format holds the numbers of the maps, for which 16 bits are too few."""
        return any(CLIPS[name].holds is Holds.VALUES for name, _ in self.outputs)

    @property
    def needs_source(self) -> bool:
        """Whether a format shows the frames of the clip, which is then read twice."""
        return any(CLIPS[name].beside for name, _ in self.outputs)

    @cached_property
    def spool_folder(self) -> Path:
        """Where the depth is kept while it is made: beside the results, of a name that other formats share.

        That of a stream has a unique name: the same stream cannot be sent again to go on from.
        """
        name, path = self.outputs[0]
        if self.source == STDIN:
            return temporary_path(path.parent)
        ending = CLIPS[name].clip
        stem = path.name[: -len(ending)] if path.name.endswith(ending) else path.stem
        return spool_of(path.with_name(stem))


def _described(selection: Selection) -> dict[str, Any]:
    """Return the settings of a selection, under the names of the options."""
    facts = {field.name.replace("_", "-"): getattr(selection, field.name) for field in fields(selection)}
    return {**facts, "stride": None if selection.stride == 1 else selection.stride}


def check_range(value_range: Optional[tuple[float, float]]) -> None:
    """Raise UsageError unless a range is two finite numbers, the smaller first."""
    if value_range is not None and not -np.inf < value_range[0] < value_range[1] < np.inf:
        raise UsageError(f"a range from {value_range[0]:g} to {value_range[1]:g} is none", "give --range as 0,80")
