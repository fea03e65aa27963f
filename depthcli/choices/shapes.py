"""Points and meshes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from depthcli.choices.settings import require
from depthcli.errors import UsageError

AXES = ("opencv", "opengl", "zup")
MOST_MESH_SIZE = 1 << 14  # vertices along a side: 268 million of them take 8 GB


@dataclass(frozen=True)
class ShapeChoice:
    """How a depth map becomes points or a mesh.

    axes: one of AXES; None for those that a format's readers expect. edges: pixels between surfaces are left out if
    depth varies by more than this part of itself within 3x3 pixels; None keeps all. points: most points, chosen on a
    regular grid; None for all. mesh_size: most vertices along the longer side.
    farthest: leave out what is farther, in the unit of the shape; None for no limit, and 20 for a relative map.
    """

    axes: Optional[str] = None
    edges: Optional[float] = 0.04
    points: Optional[int] = 1_000_000
    mesh_size: int = 512
    farthest: Optional[float] = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            require("axes", self.axes, AXES)
        if self.edges is not None and not 0 < self.edges < 1:
            raise UsageError(f"`edges` must lie between 0 and 1, got {self.edges:g}", "0.04 is usual, off keeps all")
        if self.points is not None and self.points < 1:
            raise UsageError(f"`points` must be at least 1, got {self.points}", "or all")
        if not 2 <= self.mesh_size <= MOST_MESH_SIZE:
            raise UsageError(f"`mesh_size` must be 2 to {MOST_MESH_SIZE}, got {self.mesh_size}")
        if self.farthest is not None and not 0 < self.farthest < float("inf"):
            raise UsageError(f"`farthest` must be positive, got {self.farthest:g}")

    @property
    def settings(self) -> dict[str, Any]:
        """All of the choice by the names that results note, as defaults may change."""
        return {
            "axes": self.axes or "auto",
            "edges": self.edges or "off",
            "points": self.points or "all",
            "mesh-size": self.mesh_size,
            "farthest": self.farthest or "auto",
        }
