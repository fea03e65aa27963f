"""From the maps of a clip to what its writers take: the clip's size, the codes of each format, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.depthmap import DepthMap, Provenance
from depthcli.io.codecs.depth_files import IN_MILLIMETRES, facts_of, in_nearness, to_millimetres
from depthcli.io.video.writers import COLOR, VALUES, VIDEO_FORMATS, side_by_side
from depthcli.pixels.colormap import to_color, to_gray16
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.zoo.rows import ModelRow

# Formats whose 16 bits hold the millimetres of a metric model, as those of a picture do; those of 10 bits cannot.
MILLIMETRE_FORMATS = ("ffv1", "png16")


@dataclass(frozen=True)
class Show:
    """From maps to what the writers take.

    clip_size: (width, height). shown: the range of the codes. extremes: the clip's smallest and largest value.
    settings: the options that shaped it, as one line. damage: why the clip could be read only in part, or empty.
    """

    clip_size: tuple[int, int]
    row: ModelRow
    provenance: Provenance
    shown: tuple[float, float]
    colormap: str
    extremes: tuple[float, float] = (0.0, 0.0)
    settings: str = ""
    damage: str = ""

    def size(self, name: str) -> tuple[int, int]:
        """Return (width, height) of the frames of a format."""
        width, height = self.clip_size
        return (2 * width, height) if name == "side" else (width, height)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a file of a format says of itself."""
        width, height = self.clip_size
        # All that is said of a map is said of the clip, its smallest and largest value too.
        ends = np.array([self.extremes], np.float32)
        whole = facts_of(DepthMap(ends, self.row.kind, self.provenance, self.row.max_depth))
        facts = {**whole, "size": [width, height], "settings": self.settings, "damage": self.damage}
        takes = VIDEO_FORMATS[name].takes
        if takes == VALUES:
            return facts
        return {**facts, "encoding": self._encoding(name, takes)}

    def _encoding(self, name: str, takes: str) -> dict[str, Any]:
        if takes == COLOR:
            return in_nearness(self.shown, self.colormap)
        return dict(IN_MILLIMETRES) if self._in_millimetres(name) else in_nearness(self.shown, None, 65535, 0.0)

    def _in_millimetres(self, name: str) -> bool:
        return self.row.kind.is_metric and name in MILLIMETRE_FORMATS

    def pictures(self, names: Sequence[str], values: np.ndarray, source: Optional[np.ndarray]) -> list[np.ndarray]:
        """Return for each format what its writer takes of one map. source: the clip's frame, for `side`."""
        depth = self.depth_map(values)
        takes = {VIDEO_FORMATS[name].takes for name in names}
        color = to_color(depth, self.colormap, self.shown) if COLOR in takes else None
        return [self._picture(name, depth, color, source) for name in names]

    def _picture(
        self, name: str, depth: DepthMap, color: Optional[np.ndarray], source: Optional[np.ndarray]
    ) -> np.ndarray:
        if name == "side":
            assert source is not None and color is not None
            return side_by_side(source, color)
        if color is not None and VIDEO_FORMATS[name].takes == COLOR:
            return color
        if VIDEO_FORMATS[name].takes == VALUES:
            return depth.values
        return to_millimetres(depth) if self._in_millimetres(name) else to_gray16(depth, self.shown)

    def depth_map(self, values: np.ndarray) -> DepthMap:
        """Return a map of the network's size as a DepthMap of the clip's."""
        return DepthMap(resize_bilinear(values, self.clip_size), self.row.kind, self.provenance, self.row.max_depth)

    def color(self, depth: DepthMap) -> np.ndarray:
        """Return (H, W, 3) uint8."""
        return to_color(depth, self.colormap, self.shown)
