"""What is asked for of a scene: as parameters of a request, and as a value that is kept with its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Optional

from pydantic import BaseModel, ConfigDict, Field

from depthcli.choices.clips import FramesChoice
from depthcli.choices.scenes import ChunksChoice, SceneChoice, ViewsChoice
from depthcli.jobs.parsing import parse_list
from depthcli.jobs.scene import check_formats
from depthcli.serve.queries import number_of

DEFAULT_FORMATS, FORMATS_OF_CHUNKS = ("npz", "glb", "depth_vis"), ("poses", "glb", "ply")  # as of `depth scene`


@dataclass(frozen=True)
class SceneWish:
    """The options of a scene as texts and numbers, ready for JSON. Raises UsageError for what makes no sense."""

    model: str
    formats: tuple[str, ...]
    max_views: Optional[int] = None
    chunk: Optional[int] = None
    overlap: Optional[int] = None
    loops: bool = True
    input_size: Optional[int] = None
    resize: str = "upper_bound_resize"
    mixed: str = "pad"
    reference: str = "saddle_balanced"
    ray_pose: bool = False
    seed: int = 0
    metres: bool = False
    fps: Optional[float] = None
    stride: Optional[int] = None
    frames: Optional[int] = None
    motion: Optional[float] = None
    sharp: bool = False
    confidence: float = 40.0
    edges: Optional[float] = 0.04
    points: Optional[int] = 1_000_000
    sparse_points: Optional[int] = 100_000
    mesh_size: int = 256
    show_cameras: bool = True

    def __post_init__(self) -> None:
        check_formats(self.formats)
        _ = self.views, self.choice, self.chunks, self.show  # which check their values

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> SceneWish:
        """Return the wish that was kept as JSON."""
        return cls(**{**facts, "formats": tuple(facts["formats"])})

    @property
    def views(self) -> ViewsChoice:
        """How the views go through the network."""
        names = set(ViewsChoice.__dataclass_fields__) - {"align_to_input_scale"}
        return ViewsChoice(**{name: getattr(self, name) for name in names})

    @property
    def choice(self) -> FramesChoice:
        """Which frames of a clip are views."""
        return FramesChoice(self.fps, self.stride, self.frames, self.motion, self.sharp)

    @property
    def chunks(self) -> ChunksChoice:
        """How more views than fit at once are made."""
        return ChunksChoice(self.chunk, self.overlap, self.loops)

    @property
    def show(self) -> SceneChoice:
        """How the views become points and meshes."""
        return SceneChoice(
            self.confidence, self.edges, self.points, self.sparse_points, self.mesh_size, self.show_cameras
        )


class SceneQuery(BaseModel):
    """How a scene is made, and what is written."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str, Field(description="Of the scene; with the suffix of a clip the body is one.", max_length=1024)
    ] = ""
    format: Annotated[
        list[str], Field(default_factory=list, description="Formats of `depth scene`. Default: npz,glb,depth_vis.")
    ]
    model: Annotated[Optional[str], Field(description="Default: the first for scenes.")] = None
    max_views: Annotated[Optional[int], Field(description="Take at most N views, evenly.", le=1_000_000)] = None
    chunk: Annotated[Optional[int], Field(description="More views than fit: N at a time.", le=1_000_000)] = None
    overlap: Annotated[Optional[int], Field(description="Views that two chunks share.", le=1_000_000)] = None
    loops: Annotated[bool, Field(description="With `chunk`: close the path where a place is seen again.")] = True
    input_size: Annotated[Optional[int], Field(description="Longer side of the network input.", le=2072)] = None
    resize: Annotated[str, Field(description="As process_res_method of Depth Anything 3.")] = "upper_bound_resize"
    mixed: Annotated[str, Field(description="Pictures of several sizes: pad or cut.")] = "pad"
    reference: Annotated[str, Field(description="How the reference view is chosen.")] = "saddle_balanced"
    ray_pose: Annotated[bool, Field(description="Cameras from the network's rays.")] = False
    seed: Annotated[int, Field(description="Of the samples of `ray_pose`.", le=2**32 - 1)] = 0
    metres: Annotated[bool, Field(description="Depth and places in metres, by da3-metric.")] = False
    fps: Annotated[Optional[float], Field(description="Of a clip: frames of each second that become views.")] = None
    stride: Annotated[Optional[int], Field(description="Of a clip: every Nth frame.", le=1_000_000_000)] = None
    frames: Annotated[Optional[int], Field(description="Of a clip: N frames, evenly.", le=1_000_000)] = None
    motion: Annotated[Optional[float], Field(description="Of a clip: a frame whenever the picture has moved.")] = None
    sharp: Annotated[bool, Field(description="The sharpest frames near by.")] = False
    confidence: Annotated[float, Field(description="Leave out the least sure pixels, in percent.")] = 40.0
    edges: Annotated[str, Field(description="Cut where depth jumps by this part of itself; off: never.")] = "0.04"
    points: Annotated[str, Field(description="Most points in glb and ply, or all.")] = "1000000"
    sparse_points: Annotated[str, Field(description="Most points in a COLMAP model, or all.")] = "100000"
    mesh_size: Annotated[int, Field(description="Most vertices along the longer side of a mesh.")] = 256
    show_cameras: Annotated[bool, Field(description="Show in glb where the views were taken.")] = True
    key: Annotated[
        str, Field(description="Returned with the job, by which its sender knows it again.", pattern="^[0-9a-f]{0,64}$")
    ] = ""

    def wish(self, model: str) -> SceneWish:
        """Return what is asked for. Raises UsageError."""
        facts = self.model_dump(exclude={"name", "format", "model", "key", "edges", "points", "sparse_points"})
        usual = DEFAULT_FORMATS if self.chunk is None else FORMATS_OF_CHUNKS
        return SceneWish(
            model=model,
            formats=parse_list(self.format) or usual,
            edges=None if self.edges == "off" else number_of("edges", self.edges),
            points=_points("points", self.points),
            sparse_points=_points("sparse_points", self.sparse_points),
            **facts,
        )


def _points(setting: str, text: str) -> Optional[int]:
    return None if text == "all" else int(number_of(setting, text))
