"""One output of a clip: what is to be written, the interface of all writers, and the sidecar that describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from depthcli.errors import UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.formats import CLIP_ROWS, CLIPS, Format
from depthcli.io.names import sidecar_of
from depthcli.io.video.clip import ClipInfo, Selection
from depthcli.io.video.extras import Along


@dataclass(frozen=True)
class Timing:
    """When frames are shown.

    rate: frames per second, exact; the average if it varies. time_base: unit of the given time stamps, in seconds.
    origin: time 0 on the clock of the clip, in seconds.
    """

    rate: Fraction
    time_base: Fraction
    origin: Fraction = Fraction(0)

    @classmethod
    def of(cls, info: ClipInfo, selection: Selection) -> Timing:
        """Return the timing of a selection of a clip."""
        rate = selection.rate(info.rate)
        return cls(rate, info.time_base if selection.fps is None else 1 / rate, info.origin)


@dataclass(frozen=True)
class ClipOutput:
    """One film, page, or folder of frames, to be written.

    format: a key of CLIPS. path: the film or the folder. size: (width, height) of the frames. facts: stored in each
    file. source: the clip whose sound, subtitles, chapters, timecode and title are copied as far as the container can
    hold them; the notes name the rest. whole: all of the clip is shown at its speed, so sound and subtitles can be
    copied. pixel_aspect: width of a pixel by its height. made_of: facts for the sidecar only, to tell whether it is up
    to date. number_of: number in the file name of the frame at a time; None counts from 0. keep: files in the folder
    are from an interrupted run that wrote the same, and are kept. frames: how many will be written, None if that is not
    known. packing, half_sphere: how a film says that it shows two eyes, see `boxes.tag_film`; None for a film that does
    not say so. Raises UsageError for an unknown format.
    """

    format: str
    path: Path
    size: tuple[int, int]
    timing: Timing
    facts: Mapping[str, Any]
    source: Optional[Path] = None
    whole: bool = True
    pixel_aspect: Fraction = Fraction(1)
    made_of: Mapping[str, Any] = field(default_factory=dict)
    number_of: Optional[Callable[[Fraction], int]] = None
    keep: bool = False
    frames: Optional[int] = None
    packing: Optional[int] = None
    half_sphere: bool = False

    def __post_init__(self) -> None:
        if self.format not in CLIP_ROWS:
            raise UsageError(f"no video format is called {self.format!r}", f"choose from: {', '.join(CLIPS)}")

    @property
    def row(self) -> Format:
        """The format's row of the table."""
        return CLIP_ROWS[self.format]

    @property
    def along(self) -> Optional[Along]:
        """The clip whose sound and texts the film takes along, or None."""
        if self.source is None or self.row.folder or self.row.page:
            return None
        return Along(self.source, self.whole, self.timing.origin, self.timing.rate)


class FrameWriter(Protocol):
    """Takes the frames of one clip. notes: what could not be kept, complete when the clip is."""

    notes: list[str]

    def write(self, content: Any, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Take the next frame and its time in seconds; the first frame is at 0 in the file.

        content: pixels as the format holds them, or, of a folder or page, a Content with facts of the frame.
        duration: of the last frame; None for one period.
        Raises OutputError, and DiskFullError if the disk is full.
        """

    def has(self, index: int, time: Fraction) -> bool:
        """Return whether this frame need not be made, as an earlier run has written it; then it goes to `skip`."""

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Count a frame that is there already."""


def write_sidecar(output: ClipOutput, count: int, described: Mapping[str, Any], notes: list[str]) -> None:
    """Write the sidecar of a complete output. described: what the file is and how long it lasts."""
    aspect = output.pixel_aspect
    video = {
        "format": output.format,
        "frames": count,
        "rate": str(output.timing.rate),
        "size": list(output.size),
        **({} if aspect == 1 else {"pixel_aspect": str(aspect)}),
        **described,
        "notes": notes,
    }
    sidecar = {**output.facts, "video": video, "made_of": dict(output.made_of)}
    with atomic_path(sidecar_of(output.path)) as partial:
        partial.write_text(json.dumps(sidecar, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
