"""Two views from one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from depthcli.choices.settings import require
from depthcli.errors import UsageError

LAYOUTS = (
    "sbs",
    "half-sbs",
    "ou",
    "half-ou",
    "cross",
    "anaglyph",
    "anaglyph-gray",
    "anaglyph-color",
    "anaglyph-half-color",
    "vr180",
    "pair",
    "rgbd",
)
VIEWS = ("both", "left", "right")
FILLS = ("stretch", "edge", "telea")
BORDERS = ("crop", "stretch")
COMFORT = 4.0  # percent of the width: more parallax is hard to look at
MOST_STRENGTH = 20.0


@dataclass(frozen=True)
class StereoChoice:
    """How two eyes are made of a picture and its depth, and how a file shows them.

    layout: one of LAYOUTS. strength: the parallax between the nearest and the farthest point, percent of the width.
    screen: nearness, 0 (farthest) to 1 (nearest), of what stays in the plane of the screen; nearer things come out.
    view: which eyes are made: "both" by half of the parallax, or one by all of it beside the picture itself.
    swap: exchange the eyes, for a display that has them the wrong way round.
    fill: what is seen beside a near thing by one eye only: "stretch" the surroundings, repeat the "edge" of the
    background, or "telea" (A. Telea 2004), for pictures. border: "crop" what an eye lacks at the sides, or "stretch".
    tags: write into films what their layout is; None for the layouts that players expect it of.
    """

    layout: str = "sbs"
    strength: float = 2.0
    screen: float = 0.5
    view: str = "both"
    swap: bool = False
    fill: str = "stretch"
    border: str = "crop"
    tags: Optional[bool] = None

    def __post_init__(self) -> None:
        require("layout", self.layout, LAYOUTS)
        require("view", self.view, VIEWS)
        require("fill", self.fill, FILLS)
        require("border", self.border, BORDERS)
        if not 0 <= self.strength <= MOST_STRENGTH:
            raise UsageError(f"`strength` must be from 0 to {MOST_STRENGTH:g} percent, got {self.strength:g}")
        if not 0 <= self.screen <= 1:
            raise UsageError(f"`screen` must be from 0 (farthest) to 1 (nearest), got {self.screen:g}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the choice, one line each."""
        if self.strength <= COMFORT or self.layout == "rgbd":
            return ()
        return (f"`strength` {self.strength:g} is hard to look at: {COMFORT:g} is the most that is comfortable",)

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape results, by the names that results note; None for the usual ones."""
        usual = {"layout": None, "strength": None, "screen": None, "view": "both", "fill": "stretch", "border": "crop"}
        values = {name: getattr(self, name) for name in usual}
        shaping = {name: None if value == usual[name] else value for name, value in values.items()}
        return {**shaping, "swap": self.swap or None, "tags": self.tags}
