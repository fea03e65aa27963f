"""Depth files of other programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from depthcli.choices.settings import require

KINDS = ("relative_disparity", "relative_depth", "metric_depth")
DEPTH_IS = ("z", "ray")


@dataclass(frozen=True)
class SourceChoice:
    """What depth files of other programs hold. Files of depthcli say it themselves.

    source_format: one of SOURCES in io.codecs.foreign. kind: one of KINDS, for files that leave it open.
    depth_is: z, depth along the optical axis, or ray, distance from the camera.
    """

    source_format: Optional[str] = None
    kind: Optional[str] = None
    depth_is: str = "z"

    def __post_init__(self) -> None:
        if self.kind is not None:
            require("kind", self.kind, KINDS)
        require("depth_is", self.depth_is, DEPTH_IS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note."""
        depth_is = None if self.depth_is == "z" else self.depth_is
        return {"from": self.source_format, "kind": self.kind, "depth-is": depth_is}
