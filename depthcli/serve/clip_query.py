"""What is asked for of a clip: as parameters of a request, and as a value that is kept with its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional

from pydantic import Field

from depthcli.choices.camera import CameraChoice
from depthcli.choices.clips import ClipChoice
from depthcli.choices.metres import MetresChoice
from depthcli.choices.model import BackendChoice
from depthcli.choices.settings import check_batch, check_input_size, require
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import CLIPS, parse_formats
from depthcli.io.video.clip import Selection
from depthcli.jobs.clip_job import NotedAs
from depthcli.jobs.parsing import parse_range, parse_rate, parse_seconds
from depthcli.pixels.colormap import color_table
from depthcli.predict.model import check_clip_row
from depthcli.serve.queries import ShapeQuery, SpaceQuery
from depthcli.zoo.rows import find_row

_SCENES = ("auto", "off")


@dataclass(frozen=True)
class ClipWish:
    """The options of a clip as texts and numbers, ready for JSON. Raises UsageError for what makes no sense."""

    model: str
    formats: tuple[str, ...]
    colormap: str = "Spectral_r"
    value_range: Optional[str] = None
    steady: str = "auto"
    start: Optional[str] = None
    end: Optional[str] = None
    fps: Optional[str] = None
    stride: int = 1
    max_frames: Optional[int] = None
    scenes: str = "auto"
    exact: bool = False
    panorama: bool = False
    input_size: Optional[int] = None
    batch: int = 1
    camera: CameraChoice = CameraChoice()
    metres: MetresChoice = MetresChoice()
    shape: ShapeChoice = ShapeChoice()
    noted: Optional[NotedAs] = None

    def __post_init__(self) -> None:
        color_table(self.colormap)
        require("scenes", self.scenes, _SCENES)
        check_batch(self.batch)
        check_input_size(self.input_size)
        check_clip_row(find_row(self.model), self.choice(BackendChoice()))
        self.selection()
        parse_range(self.value_range)
        spatial = [name for name in self.formats if name in CLIPS and CLIPS[name].spatial]
        if self.panorama and spatial:
            raise UsageError(f"{spatial[0]} cannot be made of a panorama", "leave out `panorama`")

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> ClipWish:
        """Return the wish that was kept as JSON."""
        noted, metres = facts.get("noted"), facts.get("metres", {})
        values = {
            "formats": tuple(facts["formats"]),
            "camera": CameraChoice(**facts.get("camera", {})),
            "metres": MetresChoice(**{**metres, "scale_from": tuple(metres.get("scale_from", ()))}),
            "shape": ShapeChoice(**facts.get("shape", {})),
            "noted": NotedAs(**noted) if noted else None,
        }
        return cls(**{**facts, **values})

    @property
    def limits(self) -> Optional[tuple[float, float]]:
        """The depth values at the ends of the colours, None for the whole clip's."""
        return parse_range(self.value_range)

    def choice(self, backend: BackendChoice) -> ClipChoice:
        """Return how the clip is processed."""
        return ClipChoice(
            self.steady, self.exact, self.input_size, backend, self.batch, self.panorama, self.scenes == "auto"
        )

    def selection(self) -> Selection:
        """Return which frames are taken."""
        return Selection(
            parse_seconds(self.start), parse_seconds(self.end), parse_rate(self.fps), self.stride, self.max_frames
        )


class ClipQuery(ShapeQuery, SpaceQuery):
    """How the depth of a clip is estimated, and what is written."""

    name: Annotated[str, Field(description="Name of the file; its suffix tells its kind.", max_length=1024)] = ""
    format: Annotated[
        list[str], Field(default_factory=lambda: ["mp4"], description="Formats of `depth video`, with commas.")
    ]
    model: Annotated[Optional[str], Field(description="Default: the first for clips, else the first.")] = None
    colormap: Annotated[str, Field(description="Such as inferno, turbo, gray; _r reverses.")] = "Spectral_r"
    value_range: Annotated[Optional[str], Field(description="LO,HI: numbers at the ends of the colours.")] = None
    steady: Annotated[str, Field(description="auto, on or off.")] = "auto"
    start: Annotated[Optional[str], Field(description="Seconds, or 1:02:03.5.")] = None
    end: Annotated[Optional[str], Field(description="Stop before this time.")] = None
    fps: Annotated[Optional[str], Field(description="Frames per second of the result.")] = None
    stride: Annotated[int, Field(description="Take every Nth frame.", le=1_000_000)] = 1
    max_frames: Annotated[Optional[int], Field(description="Take at most N frames.", le=1_000_000_000)] = None
    scenes: Annotated[str, Field(description="auto: start anew at cuts. off: one shot.")] = "auto"
    exact: Annotated[bool, Field(description="Video models: align as the official script.")] = False
    panorama: Annotated[bool, Field(description="A 360-degree panorama.")] = False
    input_size: Annotated[Optional[int], Field(description="Shorter side of the network input.", le=2072)] = None
    batch: Annotated[int, Field(description="Frames per run of a picture model.", le=64)] = 1
    settings: Annotated[
        Optional[str], Field(description="What the files note as the options, if the place is given.", max_length=4096)
    ] = None
    place: Annotated[
        Optional[str], Field(description="What the files note as the place of the clip.", pattern="^[0-9a-f]{16}$")
    ] = None
    called: Annotated[
        Optional[str], Field(description="The name of the clip in messages inside files.", max_length=4096)
    ] = None
    key: Annotated[
        str, Field(description="Returned with the job, by which its sender knows it again.", pattern="^[0-9a-f]{0,64}$")
    ] = ""

    def wish(self, model: str) -> ClipWish:
        """Return what is asked for. Raises UsageError."""
        others = {"name", "format", "model", "settings", "place", "called", "key"}
        facts = self.model_dump(exclude={*others, *ShapeQuery.model_fields, *SpaceQuery.model_fields})
        facts.update(camera=self.camera, metres=self.metres, shape=self.shape)
        noted = None if self.place is None else NotedAs(self.settings or "", self.place, self.called or self.name)
        return ClipWish(model=model, formats=parse_formats(self.format, CLIPS), noted=noted, **facts)
