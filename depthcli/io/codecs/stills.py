"""The pixels of a picture's file in each format, and the facts by which they become numbers again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional

import numpy as np

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.io.codecs.encode import (
    Look,
    beside,
    clamped_pixels,
    encode,
    encode_normals,
    encoding_of,
    in_millimetres,
    rotated,
)
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.formats import Format, Holds

MOST_CODE = 65535


def check_kind(format: Format, kind: DepthKind) -> None:
    """Raise UsageError for a format of metres, and a kind that has none."""
    if format.holds is Holds.METRES and not kind.is_metric:
        raise UsageError(
            f"{format.name} holds metres, and this depth is {kind.value}",
            "use a model with `metric`, `scale_from`, or a format for relative depth: npz, exr, tiff, pfm, npy, gray",
        )


def as_held(format: Format, depth: DepthMap) -> DepthMap:
    """Return the map as a format can hold it: what is too far has no depth, and neither has what lies at 0.

    Raises UsageError for a kind that the format cannot hold, and for holes that it cannot mark.
    """
    check_kind(format, depth.kind)
    if format.holds is Holds.METRES:
        depth = _without(depth, np.round(depth.values.astype(np.float64) * format.scale) > MOST_CODE)
    elif format.inverse and not depth.kind.near_is_high:
        depth = _without(depth, depth.values <= 0)
    if format.whole and depth.valid is not None:
        count = int(depth.valid.size - depth.valid.sum())
        if count:
            raise UsageError(
                f"{format.name} cannot mark pixels without depth, and {count} have none",
                "fill them from their neighbours with `fill`, or use a model's map",
            )
        depth = replace(depth, valid=None)
    return depth


def lost_pixels(format: Format, depth: DepthMap) -> int:
    """Return how many pixels with depth have none in a format of metres, as they are too far for its codes."""
    if format.holds is not Holds.METRES or np.round(depth.range[1] * format.scale) <= MOST_CODE:
        return 0
    values = depth.values if depth.valid is None else depth.values[depth.valid]
    return int((np.round(values.astype(np.float64) * format.scale) > MOST_CODE).sum())


def inverse_range(depth: DepthMap) -> tuple[float, float]:
    """Return the range that `3dgs` needs for a map: of disparity, its own; of depth, from 0 to 1 / the nearest."""
    if depth.kind.near_is_high:
        return depth.range
    positive = depth.values[depth.values > 0] if depth.valid is None else depth.values[depth.valid & (depth.values > 0)]
    return 0.0, float(1 / positive.min()) if positive.size else 0.0


def pixels_of_still(
    format: Format,
    depth: DepthMap,
    colormap: str,
    rgb: Optional[np.ndarray] = None,
    scene: Optional[tuple[float, float]] = None,
    ends: Optional[tuple[float, float]] = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the pixels of a picture's file and its facts.

    rgb: (H, W, 3) uint8 picture, for formats that show it. scene: (lo, hi) of inverse depth from end to end of the
    codes of an inverse format, the same for all pictures of a scene; None for the map's own. ends: the same for codes
    of any format, as of the frames of a clip; of an inverse format they are inverse.
    Raises UsageError for a map that the format cannot hold.
    """
    encoding: dict[str, Any]
    if format.holds is Holds.NORMALS:
        return encode_normals(depth), {**facts_of(depth), "encoding": _encoding(format, depth.kind, (0, 0), "")}
    depth = as_held(format, depth)
    if format.holds is Holds.METRES:
        codes = metres_to_codes(depth, format.scale)
        encoding = _encoding(format, depth.kind, (0, 0), "")
        return rotated(codes) if format.rotated else codes, {**facts_of(depth), "encoding": encoding}
    if format.holds is Holds.VALUES and format.inverse:
        depth = _to_infinity(_inverse(depth))
    pixels, encoding = _shaded(format, depth, colormap, ends or _ends(format, depth, scene))
    if in_millimetres(format.holds, depth.kind):
        encoding["clamped_pixels"] = clamped_pixels(depth)
    if format.beside:
        if rgb is None:
            raise UsageError(f"{format.name} shows the photo beside its depth", "name it with `photo`")
        pixels, encoding["left"] = beside(rgb, pixels, format.gap), rgb.shape[1] + format.gap
    facts = facts_of(depth)
    return pixels, {**facts, "encoding": encoding} if encoding else facts


def metres_to_codes(depth: DepthMap, scale: float) -> np.ndarray:
    """Return (H, W) uint16: metres times `scale`, at least 1; 0 if invalid. Depth beyond the codes must be invalid."""
    codes = np.round(depth.values.astype(np.float64) * scale)
    codes = np.clip(codes, 1, MOST_CODE).astype(np.uint16)
    if depth.valid is not None:
        codes[~depth.valid] = 0
    return codes


def encoding_of_clip(
    format: Format, kind: DepthKind, ends: tuple[float, float], colormap: str, masked: bool
) -> dict[str, Any]:
    """Return the encoding that all frames of a clip have in a format. masked: some pixels may have no depth."""
    return {} if format.shape else _encoding(format, kind, ends, colormap, masked and not format.whole)


def _encoding(
    format: Format, kind: DepthKind, ends: tuple[float, float], colormap: str, masked: bool = False
) -> dict[str, Any]:
    """Return how the pixels of a format become numbers again. ends: of the codes, see `pixels_of_still`."""
    if format.holds is Holds.NORMALS:
        return {"code": "normals", "axes": "opengl"}
    if format.holds is Holds.METRES and format.scale == 1000 and not format.rotated:
        return {"code": "millimetres", "scale": format.scale, "clamped_pixels": 0}
    if format.holds is Holds.METRES:
        return {"code": "metres", "scale": format.scale, "rotated": format.rotated}
    turned = format.inverse and not kind.near_is_high
    shown = DepthKind.RELATIVE_DISPARITY if turned else kind
    encoding = encoding_of(format.holds, shown, ends, format.colormap or colormap, masked)
    return {**encoding, **({"inverse": True} if turned else {}), **({"black": True} if format.black else {})}


def _ends(format: Format, depth: DepthMap, scene: Optional[tuple[float, float]]) -> tuple[float, float]:
    """Return the numbers at the ends of a picture's codes."""
    if format.whole:
        return scene or inverse_range(depth)
    shown = _inverse(depth) if format.inverse else depth
    if format.percentiles is not None:
        found = shown.values if shown.valid is None else shown.values[shown.valid]
        if found.size:
            lo, hi = np.percentile(found, format.percentiles)
            return float(lo), float(hi)
    return shown.range


def _shaded(
    format: Format, depth: DepthMap, colormap: str, ends: tuple[float, float]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the pixels of colours, shades or numbers, and their encoding."""
    shown = _inverse(depth) if format.inverse else depth
    pixels = encode(shown, format.holds, Look(format.colormap or colormap, ends))
    if format.black:
        pixels = MOST_CODE - pixels  # holes become white, which is far
    return pixels, _encoding(format, depth.kind, ends, colormap, shown.valid is not None)


def _inverse(depth: DepthMap) -> DepthMap:
    """Return inverse depth, large is near; a map of disparity is it already."""
    if depth.kind.near_is_high:
        return depth
    values = np.zeros_like(depth.values)
    np.divide(1, depth.values, out=values, where=depth.values > 0)
    return replace(depth, values=values, kind=DepthKind.RELATIVE_DISPARITY)


def _to_infinity(depth: DepthMap) -> DepthMap:
    """Return inverse depth whose pixels without depth are at infinity, at 0."""
    if depth.valid is None:
        return depth
    return replace(depth, values=np.where(depth.valid, depth.values, np.float32(0)), valid=None)


def _without(depth: DepthMap, lost: np.ndarray) -> DepthMap:
    """Return a map that has no depth at these pixels either."""
    if not lost.any():
        return depth
    return replace(depth, valid=~lost if depth.valid is None else depth.valid & ~lost)
