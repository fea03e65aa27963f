"""Scenes: how views go through a network, alone or in chunks, and what is written of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from depthcli.choices.settings import check_input_size, require
from depthcli.choices.shapes import ShapeChoice
from depthcli.errors import UsageError

REFERENCES = ("saddle_balanced", "saddle_sim_range", "first", "middle")
RESIZES = ("upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop")
MIXED = ("pad", "cut")


@dataclass(frozen=True)
class ViewsChoice:
    """How the views of a scene go through the network.

    input_size: length in pixels of the side of the network's input that `resize` bounds, None for the model's own.
    resize: one of RESIZES, named as in Depth Anything 3. mixed: what becomes of pictures of several sizes: "pad" all to
    the largest input, or "cut" all to the smallest, as Depth Anything 3 does. reference: how the reference view is
    chosen, one of REFERENCES. ray_pose: find cameras from the network's rays, more accurate and slower
    than its own answer. seed: of the samples that `ray_pose` draws. metres: depth and places in metres, by a second
    network, da3-metric. align_to_input_scale: whether a scene with given cameras has their scale and world, or the
    network's; None for theirs, unless `metres` makes the scale.
    """

    input_size: Optional[int] = None
    resize: str = "upper_bound_resize"
    mixed: str = "pad"
    reference: str = "saddle_balanced"
    ray_pose: bool = False
    seed: int = 0
    metres: bool = False
    align_to_input_scale: Optional[bool] = None

    def __post_init__(self) -> None:
        check_input_size(self.input_size)
        require("resize", self.resize, RESIZES)
        require("mixed", self.mixed, MIXED)
        require("reference", self.reference, REFERENCES)
        if self.seed < 0:
            raise UsageError(f"`seed` must be 0 or more, got {self.seed}")
        if self.metres and self.align_to_input_scale:
            raise UsageError("`metres` and `align_to_input_scale` both give the scale", "leave out one of them")

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape a scene, by the names that results note; None for the usual ones."""
        usual = ViewsChoice()
        return {
            name.replace("_", "-"): None if value == getattr(usual, name) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class ChunksChoice:
    """How more views than fit at once go through the network.

    chunk: so many at a time; None for all at once. overlap: views that a chunk shares with the one before, None for
    half of them. loops: find places that are seen again, and close the path there.
    """

    chunk: Optional[int] = None
    overlap: Optional[int] = None
    loops: bool = True

    def __post_init__(self) -> None:
        if self.chunk is None:
            if self.overlap is not None or not self.loops:
                raise UsageError("`overlap` and `loops` are for views in chunks", "add `chunk`, as 60")
            return
        if self.chunk < 2:
            raise UsageError(f"`chunk` must be at least 2, got {self.chunk}")
        if self.overlap is not None and not 0 < self.overlap < self.chunk:
            raise UsageError(f"`overlap` must be 1 to {self.chunk - 1}, got {self.overlap}")

    @property
    def shared(self) -> int:
        """Views that two chunks share; 0 without chunks."""
        if self.chunk is None:
            return 0
        return self.overlap if self.overlap is not None else self.chunk // 2

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape a scene, by the names that results note; None for the usual ones."""
        return {"chunk": self.chunk, "overlap": self.overlap, "loops": None if self.loops else False}


@dataclass(frozen=True)
class SceneChoice:
    """How the views of a scene become one cloud or meshes.

    confidence: percent of the least sure pixels that are left out; 0 keeps all. edges, points, mesh_size: as of
    ShapeChoice, with points for all views together. sparse_points: the same for a COLMAP model, in which each point
    also has a place in every view that sees it. cameras: show where the views were taken.
    """

    confidence: float = 40.0
    edges: Optional[float] = 0.04
    points: Optional[int] = 1_000_000
    sparse_points: Optional[int] = 100_000
    mesh_size: int = 256
    cameras: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 100:
            raise UsageError(f"`confidence` must be 0 to 99 percent, got {self.confidence:g}")
        for points in (self.points, self.sparse_points):
            ShapeChoice(edges=self.edges, points=points, mesh_size=self.mesh_size)  # which checks the same numbers

    @property
    def settings(self) -> dict[str, Any]:
        """All of it by the names that results note, as defaults may change."""
        return {
            "confidence": self.confidence,
            "edges": self.edges or "off",
            "points": self.points or "all",
            "sparse-points": self.sparse_points or "all",
            "mesh-size": self.mesh_size,
            "show-cameras": self.cameras,
        }
