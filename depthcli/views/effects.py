"""What depth does to a picture: blur out of focus, fog, a cut-out, and a camera that moves a little."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import cv2
import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.errors import UsageError
from depthcli.views.nearness import nearness
from depthcli.views.warp import right_view, snapped

_GAMMA = 2.2
_SLICES = 12
_LARGE_RADIUS = 4.0  # pixels; larger discs are made at half the size
_CONTRAST = 3.912  # -ln 0.02: what is left of the contrast at the visibility (Koschmieder)
_FEATHER = 0.6  # sigma in pixels of the edge of a cut-out
_MOST_FRAMES = 600


@dataclass(frozen=True)
class Blur:
    """Blur of a lens: the radius grows with the difference of disparity to the focus, as behind a thin lens.

    focus: "near", "far", "X,Y" in pixels of the picture, or metres for metric depth. strength: the radius of the
    farthest thing if the nearest is in focus, percent of the width.
    """

    focus: str = "near"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 10:
            raise UsageError(f"`strength` must be from 0 to 10 percent, got {self.strength:g}")
        _parse_focus(self.focus)

    def apply(self, rgb: np.ndarray, depth: DepthMap) -> np.ndarray:
        """Return (H, W, 3) uint8. Raises UsageError for metres of relative depth and a place outside the picture."""
        near = nearness(depth)
        radius = (near - np.float32(self._level(near, depth))) * np.float32(self.strength / 100 * rgb.shape[1])
        return _blurred(rgb, radius)

    def _level(self, near: np.ndarray, depth: DepthMap) -> float:
        """Return the nearness in focus."""
        kind, numbers = _parse_focus(self.focus)
        if kind == "place":
            x, y = (round(number) for number in numbers)
            height, width = near.shape
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(f"`focus` {self.focus} is outside the picture of {width}x{height}", "give X,Y in it")
            return float(near[y, x])
        if kind == "metres":
            _need_metres(depth, f"`focus` {self.focus}", "use near, far or X,Y")
            nearest = int(np.abs(1 / np.maximum(depth.values, 1e-6) - 1 / numbers[0]).argmin())
            return float(near.ravel()[nearest])
        return {"near": 1.0, "far": 0.0}[kind]


@dataclass(frozen=True)
class Fog:
    """Fog: contrast falls to 2 percent at the visibility.

    visibility: "30" metres for metric depth, or "range:V" as a share of the scene, whose farthest thing is at 1.
    color: (R, G, B) of the fog.
    """

    visibility: str = "range:2"
    color: tuple[int, int, int] = (200, 206, 212)

    def __post_init__(self) -> None:
        self._parse()

    def _parse(self) -> tuple[bool, float]:
        text = self.visibility[6:] if self.visibility.startswith("range:") else self.visibility.rstrip("m")
        number = _number(text)
        if number is None or number <= 0:
            raise UsageError(f"{self.visibility!r} is no visibility", "give `visibility` as 30 (metres) or range:0.7")
        return self.visibility.startswith("range:"), number

    def apply(self, rgb: np.ndarray, depth: DepthMap) -> np.ndarray:
        """Return (H, W, 3) uint8. Raises UsageError for metres of relative depth."""
        relative, visibility = self._parse()
        if relative:
            distance = 1 - nearness(depth)
        else:
            _need_metres(depth, f"`visibility` {self.visibility}", "use range:0.7, or a metric model")
            distance = depth.values if depth.valid is None else np.where(depth.valid, depth.values, depth.range[1])
        through = np.exp(distance * np.float32(-_CONTRAST / visibility))[..., None]
        fog = _to_light(np.array(self.color, np.uint8))
        return _to_codes(_to_light(rgb) * through + fog * (1 - through))


@dataclass(frozen=True)
class Cut:
    """A cut-out: what is farther becomes transparent.

    farther_than: metres, for metric depth. keep_nearest: percent of the pixels that stay. One of them is given.
    """

    farther_than: Optional[float] = None
    keep_nearest: Optional[float] = None

    def __post_init__(self) -> None:
        if (self.farther_than is None) == (self.keep_nearest is None):
            raise UsageError("a cut-out needs `farther_than` or `keep_nearest`", "give one of them")
        if self.farther_than is not None and not self.farther_than > 0:
            raise UsageError(f"`farther_than` must be above 0 metres, got {self.farther_than:g}")
        if self.keep_nearest is not None and not 0 < self.keep_nearest < 100:
            raise UsageError(f"`keep_nearest` must be between 0 and 100 percent, got {self.keep_nearest:g}")

    def apply(self, rgb: np.ndarray, depth: DepthMap) -> np.ndarray:
        """Return (H, W, 4) uint8 with alpha. Raises UsageError for metres of relative depth."""
        if self.farther_than is not None:
            _need_metres(depth, f"`farther_than` {self.farther_than:g}", "use `keep_nearest`, or a metric model")
            near, level = -depth.values, -self.farther_than
        else:
            assert self.keep_nearest is not None
            near = nearness(depth)
            level = float(np.quantile(near, 1 - self.keep_nearest / 100))
        span = float(np.ptp(near)) or 1.0
        kept = snapped(near, 3, 0.02 * span) >= level
        if depth.valid is not None:
            kept &= depth.valid
        alpha = cv2.GaussianBlur(kept.astype(np.float32) * 255, (0, 0), _FEATHER)
        return np.dstack([rgb, np.rint(alpha).astype(np.uint8)])


@dataclass(frozen=True)
class Parallax:
    """A camera that goes once around an ellipse and looks at the middle of the scene; the film loops.

    strength: how far near and far things move against each other, percent of the width. seconds: of one turn. rate:
    frames per second.
    """

    strength: float = 2.0
    seconds: float = 3.0
    rate: int = 24

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 10:
            raise UsageError(f"`strength` must be from 0 to 10 percent, got {self.strength:g}")
        if not 2 <= self.count <= _MOST_FRAMES:
            raise UsageError(f"`seconds` must be from 0.1 to {_MOST_FRAMES // self.rate}, got {self.seconds:g}")

    @property
    def count(self) -> int:
        """Number of frames."""
        return round(self.seconds * self.rate) if 0 <= self.seconds < 1e6 else 0

    def frames(self, rgb: np.ndarray, depth: DepthMap, coarseness: float = 1.0) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 for each frame; the one after the last would be the first."""
        near = nearness(depth)
        height, width = near.shape
        most = self.strength / 100 * width / 2
        whole = np.dstack([rgb, np.rint(near * np.float32(255)).astype(np.uint8)])
        cut = math.ceil(most / 2)
        inside = slice(min(cut, (height - 1) // 2), height - min(cut, (height - 1) // 2)), slice(cut, width - cut)
        for index in range(self.count):
            angle = 2 * math.pi * index / self.count
            across, down = most * math.cos(angle), most / 2 * math.sin(angle)
            moved = _moved(whole, across, coarseness)
            turned = np.ascontiguousarray(moved.transpose(1, 0, 2))
            shown = _moved(turned, down, coarseness).transpose(1, 0, 2)[..., :3]
            yield cv2.resize(np.ascontiguousarray(shown[inside]), (width, height), interpolation=cv2.INTER_LINEAR)


def _moved(whole: np.ndarray, shift: float, coarseness: float) -> np.ndarray:
    """Return a picture and its nearness, (H, W, 4) uint8, from where near and far things move by `shift` in all."""
    if shift < 0:  # the other side is the same in the mirror
        mirrored = _moved(np.ascontiguousarray(whole[:, ::-1]), -shift, coarseness)
        return np.ascontiguousarray(mirrored[:, ::-1])
    near = whole[..., 3].astype(np.float32) / 255
    return right_view(whole, (near - np.float32(0.5)) * np.float32(shift), coarseness=coarseness)


def _parse_focus(text: str) -> tuple[str, tuple[float, ...]]:
    """Return what a focus means: near, far, place or metres, and its numbers. Raises UsageError."""
    if text in ("near", "far"):
        return text, ()
    numbers = [_number(part) for part in text.rstrip("m").split(",")]
    found = tuple(number for number in numbers if number is not None)
    if len(found) == len(numbers) == 2:
        return "place", found
    if len(found) == len(numbers) == 1 and found[0] > 0:
        return "metres", found
    raise UsageError(f"{text!r} is no focus", "give `focus` as near, far, X,Y (pixels) or metres")


def _number(text: str) -> Optional[float]:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _need_metres(depth: DepthMap, what: str, hint: str) -> None:
    if not depth.kind.is_metric:
        raise UsageError(f"{what} is in metres, and this depth is {depth.kind.meaning}", hint)


# --- Light and discs --------------------------------------------------------------------------------------------------


def _to_light(codes: np.ndarray) -> np.ndarray:
    table = (np.arange(256, dtype=np.float32) / 255) ** np.float32(_GAMMA)
    return np.asarray(table[codes])


def _to_codes(light: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(light, 0, 1) ** np.float32(1 / _GAMMA)).astype(np.uint8)


def _blurred(rgb: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Return a picture whose pixels are discs: of the signed radius, the smaller ones farther behind.

    The picture is cut into slices of about one radius. From the farthest on, each is blurred with its own edge and laid
    over the others, in linear light.
    """
    lo, hi = float(radius.min()), float(radius.max())
    if max(abs(lo), abs(hi)) < 0.5:
        return rgb.copy()
    slices = max(1, min(_SLICES, math.ceil(hi - lo)))
    number = np.clip((radius - lo) / max(hi - lo, 1e-6) * slices, 0, slices - 1).astype(np.uint8)
    light = _to_light(rgb)
    laid = np.zeros((*radius.shape, 4), np.float32)
    for each in range(slices):
        inside = number == each
        if not inside.any():
            continue
        layer = np.dstack([light, np.ones(radius.shape, np.float32)]) * inside[..., None]
        layer = _disc(layer, abs(float(radius[inside].mean())))
        laid = layer + laid * (1 - np.minimum(layer[..., 3:], 1))
    return _to_codes(laid[..., :3] / np.maximum(laid[..., 3:], 1e-6))


def _disc(layer: np.ndarray, radius: float) -> np.ndarray:
    """Return (H, W, 4) float32 averaged over a disc."""
    if radius < 0.5:
        return layer
    if radius > _LARGE_RADIUS and min(layer.shape[:2]) > 1:
        height, width = layer.shape[:2]
        small = cv2.resize(layer, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
        return cv2.resize(_disc(small, radius / 2), (width, height), interpolation=cv2.INTER_LINEAR)
    reach = math.ceil(radius)
    away = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    kernel = np.clip(radius + 0.5 - away, 0, 1).astype(np.float32)
    return cv2.filter2D(layer, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
