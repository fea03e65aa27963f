"""Convert depth to the pixels of files, and back: for pictures, frames, films and pipes.

Pixels are colours, codes of nearness, millimetres or the numbers themselves. Files carry the way back as `encoding`:
near is t = (code + offset) / scale, and t runs from lo to hi. Invalid pixels are NaN among numbers, 0 among codes
(valid ones then begin at 1), and transparent among colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from depthcli.choices.settings import DEFAULT_COLORMAP
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.io.codecs.formats import Holds
from depthcli.pixels import colormap as colors

_MILLIMETRES = 1000.0
_FARTHEST = 65535  # millimetres
_ROTATED_BITS = 3
# (scale, offset) of codes; of a masked map, whose code 0 is taken, the second
_SCALES = {
    Holds.COLOR: ((255, 0.5), (255, 0.5)),
    Holds.GRAY8: ((255, 0.5), (254, -0.5)),
    Holds.GRAY16: ((65535, 0.0), (65534, -1.0)),
    Holds.SHADES: ((65535, 0.0), (65534, -1.0)),
}
_LAYOUTS: dict[Holds, tuple[type, tuple[int, ...]]] = {
    Holds.COLOR: (np.uint8, (3,)),
    Holds.GRAY8: (np.uint8, ()),
    Holds.GRAY16: (np.uint16, ()),
    Holds.SHADES: (np.uint16, ()),
    Holds.METRES: (np.uint16, ()),
    Holds.VALUES: (np.float32, ()),
    Holds.NORMALS: (np.uint8, (3,)),
}


@dataclass(frozen=True)
class Look:
    """How depth is shown. range: (lo, hi) from end to end of the codes, in the map's numbers; None: each map's own."""

    colormap: str = DEFAULT_COLORMAP
    range: Optional[tuple[float, float]] = None


def in_millimetres(holds: Holds, kind: DepthKind) -> bool:
    """Return whether pixels are millimetres."""
    return holds is Holds.GRAY16 and kind is DepthKind.METRIC_DEPTH


def encode(depth: DepthMap, holds: Holds, look: Look = Look()) -> np.ndarray:
    """Return the pixels that hold a map; see Holds for shape and dtype."""
    valid = depth.valid
    if holds is Holds.VALUES:
        return depth.values if valid is None else np.where(valid, depth.values, np.float32(np.nan))
    if holds is Holds.COLOR:
        rgb = colors.to_color(depth, look.colormap, look.range)
        return rgb if valid is None else np.where(valid[..., None], opaque(rgb), np.uint8(0))
    if in_millimetres(holds, depth.kind):
        codes = np.clip(_rounded_millimetres(depth.values), 0, _FARTHEST).astype(np.uint16)
        return codes if valid is None else _masked(np.maximum(codes, 1), valid, np.uint16)
    if valid is None:
        return (colors.to_gray8 if holds is Holds.GRAY8 else colors.to_gray16)(depth, look.range)
    near = colors.nearness(depth, look.range)
    if holds is Holds.GRAY8:
        return _masked(1 + near * np.float32(254), valid, np.uint8)
    return _masked(1 + np.round(near.astype(np.float64) * 65534), valid, np.uint16)


def encoding_of(
    holds: Holds, kind: DepthKind, shown: tuple[float, float], colormap: str, masked: bool = False
) -> dict[str, Any]:
    """Return how pixels become numbers again, ready for JSON; empty for numbers. shown: the range of the codes."""
    if holds is Holds.VALUES:
        return {}
    if in_millimetres(holds, kind):
        return {"code": "millimetres", "scale": _MILLIMETRES}
    scale, offset = _SCALES[holds][masked]
    table = colormap if holds is Holds.COLOR else None
    return {"code": "nearness", "scale": scale, "offset": offset, "lo": shown[0], "hi": shown[1], "colormap": table}


def decode(pixels: np.ndarray, facts: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W) float32 numbers and the (H, W) bool mask that `encoding` in a file's facts describes.

    Raises KeyError and ValueError for facts and colours that depthcli does not write.
    """
    encoding = facts["encoding"]
    if encoding["code"] == "normals":
        raise ValueError("it holds directions of surfaces, and no depth")
    if encoding["code"] in ("millimetres", "metres"):
        codes = unrotated(pixels) if encoding.get("rotated") else pixels
        return codes.astype(np.float32) / np.float32(encoding["scale"]), codes > 0
    if encoding.get("black"):
        pixels = _FARTHEST - pixels
    valid = pixels > 0
    if encoding["colormap"]:
        pixels = pixels[:, encoding.get("left", 0) :]
        valid = pixels[..., 3] > 0 if pixels.shape[2] == 4 else np.ones(pixels.shape[:2], bool)
        table = colors.color_table(encoding["colormap"])
        pixels = colors.codes_of_color(np.where(valid[..., None], pixels[..., :3], table[0]), encoding["colormap"])
    t = np.clip((pixels.astype(np.float64) + encoding["offset"]) / encoding["scale"], 0, 1)
    inverse = bool(encoding.get("inverse"))
    if facts["near_is"] == "low" and not inverse:
        t = 1 - t
    lo, hi = encoding["lo"], encoding["hi"]
    values = lo + t * (hi - lo)
    if inverse:  # the farthest code of a scene may stand for infinity: half a code is kept
        values = 1 / np.maximum(values, (hi - lo) / encoding["scale"] / 2)
    return values.astype(np.float32), valid


def rotated(codes: np.ndarray) -> np.ndarray:
    """Return (H, W) uint16 codes with their bits rotated by three places to the left, as SUN RGB-D has them."""
    return (codes << _ROTATED_BITS) | (codes >> (16 - _ROTATED_BITS))


def unrotated(codes: np.ndarray) -> np.ndarray:
    """Return (H, W) uint16 codes whose bits were rotated by three places to the left."""
    codes = codes.astype(np.uint16)
    return (codes >> _ROTATED_BITS) | (codes << (16 - _ROTATED_BITS))


def beside(rgb: np.ndarray, colored: np.ndarray, gap: int = 0) -> np.ndarray:
    """Return a picture, `gap` white columns and its coloured depth side by side; with alpha if the depth has it."""
    left = np.hstack([rgb, np.full((len(rgb), gap, 3), 255, np.uint8)]) if gap else rgb
    return np.hstack([opaque(left) if colored.shape[2] == 4 else left, colored])


def encode_normals(depth: DepthMap) -> np.ndarray:
    """Return (H, W, 3) uint8 normals as (n + 1) / 2 in OpenGL's axes: red is right, green up, blue toward the camera.

    With alpha if some are invalid. Raises OutputError if all are.
    """
    from depthcli.geometry.normals import normals_in_rows
    from depthcli.geometry.space import space_of

    space = space_of(depth, np.inf)
    codes = np.empty((*depth.values.shape, 3), np.uint8)
    for rows, vectors in normals_in_rows(space, "opengl"):
        codes[rows] = np.round((vectors + np.float32(1)) * np.float32(127.5))
    return codes if space.valid.all() else np.where(space.valid[..., None], opaque(codes), np.uint8(0))


def opaque(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W, 4) uint8 of (H, W, 3), without transparency."""
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def check_pixels(pixels: np.ndarray, holds: Holds, size: tuple[int, int], alpha: bool = False) -> None:
    """Raise ValueError for pixels of another layout or (width, height). alpha: colours may have it."""
    dtype, channels = _LAYOUTS[holds]
    if alpha and channels and pixels.shape[2:] == (4,):
        channels = (4,)
    if pixels.dtype != dtype or pixels.shape != (*size[::-1], *channels):
        raise ValueError(f"{pixels.dtype} of {pixels.shape} for a clip of {holds.value} of {size[0]}x{size[1]} pixels")


def clamped_pixels(depth: DepthMap) -> int:
    """Return how many valid pixels of a metric map are too far for 16-bit millimetres."""
    if depth.kind is not DepthKind.METRIC_DEPTH or not is_clamped(depth.range[1]):
        return 0
    values = depth.values if depth.valid is None else depth.values[depth.valid]
    return int((_rounded_millimetres(values) > _FARTHEST).sum())


def is_clamped(metres: float) -> bool:
    """Return whether a depth is too far for 16-bit millimetres."""
    return bool(np.round(metres * _MILLIMETRES) > _FARTHEST)


def _rounded_millimetres(metres: np.ndarray) -> np.ndarray:
    return np.round(metres.astype(np.float64) * _MILLIMETRES)


def _masked(codes: np.ndarray, valid: np.ndarray, kind: type[np.unsignedinteger[Any]]) -> np.ndarray:
    return np.where(valid, codes, 0).astype(kind)
