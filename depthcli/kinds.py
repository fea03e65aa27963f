"""What numbers of depth mean. Imports no NumPy: whoever only plans work needs no more."""

from __future__ import annotations

import enum


class DepthKind(str, enum.Enum):
    """What the numbers of a depth map mean.

    RELATIVE_DISPARITY: inverse depth up to an unknown scale and shift; large is near, 0 is the farthest (sky).
    RELATIVE_DEPTH: depth up to an unknown scale; large is far.
    METRIC_DEPTH: metres along the optical axis; large is far.
    """

    RELATIVE_DISPARITY = "relative_disparity"
    RELATIVE_DEPTH = "relative_depth"
    METRIC_DEPTH = "metric_depth"

    @property
    def near_is_high(self) -> bool:
        """Whether a larger number is nearer to the camera."""
        return self is DepthKind.RELATIVE_DISPARITY

    @property
    def is_metric(self) -> bool:
        """Whether the numbers are metres."""
        return self is DepthKind.METRIC_DEPTH

    @property
    def unit(self) -> str | None:
        """The unit of the numbers: "m" for metric depth, else None."""
        return "m" if self is DepthKind.METRIC_DEPTH else None

    @property
    def meaning(self) -> str:
        """One sentence for people who open the file in a year."""
        return {
            DepthKind.RELATIVE_DISPARITY: "inverse depth up to scale and shift, larger is nearer",
            DepthKind.RELATIVE_DEPTH: "depth up to scale, larger is farther",
            DepthKind.METRIC_DEPTH: "depth in metres, larger is farther",
        }[self]
