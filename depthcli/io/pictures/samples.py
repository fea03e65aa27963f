"""Convert stored samples to upright 8-bit RGB: bit depths, colour models, alpha and orientation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from depthcli.io.pictures import levels, rare, tiff

REDUCED = "16 bits per channel reduced to 8"
_BAND_PIXELS = 1 << 16  # of a picture, copied at a time: what stays in the processor's cache


@dataclass
class Remarks:
    """Notes and warnings on a picture; see Picture."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Decoded:
    """A picture as stored: rgb (H, W, 3) uint8, and alpha (H, W) uint8 or None. on_black: rgb has been composited."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    on_black: bool = False


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as stored turned as EXIF says: C-contiguous; the array itself if nothing has to be done."""
    if orientation == 2:
        return cv2.flip(pixels, 1)
    if orientation == 3:
        return cv2.rotate(pixels, cv2.ROTATE_180)
    if orientation == 4:
        return cv2.flip(pixels, 0)
    if orientation == 5:
        return cv2.transpose(pixels)
    if orientation == 6:
        return cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
    if orientation == 7:
        return cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180)
    if orientation == 8:
        return cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
    return pixels


def composited(decoded: Decoded, remarks: Remarks) -> np.ndarray:
    """Return (H, W, 3) uint8, composited on black if there is alpha."""
    rgb, alpha = decoded.rgb, decoded.alpha
    if alpha is None or alpha.min() == 255:
        return rgb
    remarks.notes.append("alpha composited on black")
    if decoded.on_black:
        return rgb
    return on_black(rgb, alpha)


def on_black(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 rgb, composited on black by (H, W) uint8 alpha."""
    result = np.empty_like(rgb)
    band = max(1, _BAND_PIXELS // rgb.shape[1])
    for top in range(0, len(rgb), band):
        rows = slice(top, top + band)
        product = rgb[rows].astype(np.uint16) * alpha[rows, :, None] + 128  # divided by 255 and rounded, as Pillow does
        result[rows] = (product + (product >> 8)) >> 8
    return result


def valid_mask(decoded: Decoded, orientation: int) -> np.ndarray | None:
    """Return (H, W) bool, False if a pixel is less than half opaque; None if none is."""
    if decoded.alpha is None or decoded.alpha.min() > 127:
        return None
    valid = upright((decoded.alpha > 127).astype(np.uint8), orientation).astype(bool)
    valid.flags.writeable = False
    return valid


def from_pillow(image: Image.Image, remarks: Remarks) -> Decoded:
    """Return the pixels of a loaded picture of any mode."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).clip(0, 65535).astype(np.uint16)
        remarks.notes.append(REDUCED)
        return Decoded(_three(levels.from_16_bits(values, remarks.warnings)[..., None]))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Decoded(_to_array(rgba.convert("RGB")), np.asarray(rgba.getchannel("A")))
    return Decoded(_to_array(image if image.mode == "RGB" else image.convert("RGB")))


def of_16_bits(decoded: Decoded, file: BinaryIO, remarks: Remarks) -> Decoded:
    """Return a colour picture of 16 bits per channel, of which Pillow gives 8: decoded once more, by OpenCV."""
    file.seek(0)
    deep = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != decoded.rgb.shape[:2]:
        return decoded
    colours = deep[..., None] if deep.ndim == 2 else deep[..., 2::-1] if deep.shape[2] > 2 else deep[..., :1]
    return replace(decoded, rgb=_three(levels.from_16_bits(np.ascontiguousarray(colours), remarks.warnings)))


def from_rare(found: rare.Rare, remarks: Remarks) -> Decoded:
    """Return the pixels of a file of a rare kind."""
    samples = found.samples()
    colours = samples[..., : samples.shape[2] - found.alpha]
    alpha = _alpha_bytes(samples[..., -1]) if found.alpha else None
    return Decoded(_three(_to_bytes(colours, found.light, remarks)), alpha)


def from_tiff(samples: np.ndarray, page: tiff.Page, remarks: Remarks) -> Decoded:
    """Return the pixels of a TIFF's samples by what they mean."""
    colours = samples[..., : page.colours]
    alpha = _alpha_bytes(samples[..., page.colours]) if page.alpha else None
    if page.photometric == tiff.PALETTE:
        table = np.zeros((1 << page.bits, 3), np.uint8)
        table[: len(page.colormap)] = page.colormap[: len(table)]
        return Decoded(table[colours[..., 0]], alpha)
    if page.bits < 8:
        colours = np.round(np.arange(1 << page.bits) * (255 / ((1 << page.bits) - 1))).astype(np.uint8)[colours]
    elif 8 < page.bits < 16:
        colours = colours << (16 - page.bits)
    elif colours.dtype == np.uint16 and 255 < page.max_sample < 65535:
        colours = np.minimum(np.arange(1 << 16) * (65535 / page.max_sample), 65535).astype(np.uint16)[colours]
    if page.photometric in (tiff.CIELAB, tiff.ICCLAB):
        return Decoded(_from_lab(colours, page), alpha)
    if page.photometric in (tiff.CMYK, tiff.YCBCR) and colours.dtype == np.uint16:
        remarks.notes.append(REDUCED)
        colours = (colours >> 8).astype(np.uint8)
    colours = _to_bytes(colours, page.is_float and page.colours == 3, remarks)
    if page.photometric == tiff.WHITE_IS_ZERO:
        colours = 255 - colours
    elif page.photometric == tiff.CMYK:
        key = 255 - colours[..., 3:].astype(np.uint16)
        colours = ((255 - colours[..., :3]) * key // 255).astype(np.uint8)
    elif page.photometric == tiff.YCBCR:
        colours = _from_ycc(colours, page)
    return Decoded(_three(colours), alpha, page.alpha == 1)


def _to_bytes(values: np.ndarray, light: bool, remarks: Remarks) -> np.ndarray:
    """Return (H, W, C) uint8 for values of any type by the rules in `levels`."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        remarks.notes.append(REDUCED)
        return levels.from_16_bits(values, remarks.warnings)
    return levels.from_light(values, remarks.notes) if light else levels.stretched(values, remarks.notes)


def _alpha_bytes(alpha: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8 for alpha of any type: floats are fractions, signed integers count as unsigned."""
    if alpha.dtype.kind == "f":
        return np.round(255 * np.clip(np.nan_to_num(alpha), 0, 1)).astype(np.uint8)
    return (alpha.view(f"u{alpha.itemsize}") >> 8 * (alpha.itemsize - 1)).astype(np.uint8)


def _from_ycc(colours: np.ndarray, page: tiff.Page) -> np.ndarray:
    red, green, blue = (float(weight) for weight in page.tags.get(tiff.Tag.YCC_WEIGHTS, (0.299, 0.587, 0.114)))
    low, high = (np.array(page.tags.get(tiff.Tag.YCC_RANGE, (0, 255, 128, 255, 128, 255))[at::2]) for at in (0, 1))
    rgb = np.empty_like(colours)
    for rows in levels.bands(colours):
        y, cb, cr = np.moveaxis((colours[rows] - low) * (np.array([255, 127, 127]) / (high - low)), 2, 0)
        r, b = y + (2 - 2 * red) * cr, y + (2 - 2 * blue) * cb
        rgb[rows] = np.clip(np.round(np.dstack([r, (y - red * r - blue * b) / green, b])), 0, 255)
    return rgb


def _from_lab(colours: np.ndarray, page: tiff.Page) -> np.ndarray:
    from PIL import ImageCms

    if colours.itemsize == 2:
        colours = (colours.view(np.uint16) >> 8).astype(np.uint8)
    if page.photometric == tiff.ICCLAB:  # a and b have an offset, and a sign in what Pillow takes
        colours = colours ^ np.array([0, 128, 128], np.uint8)
    image = Image.frombytes("LAB", colours.shape[1::-1], np.ascontiguousarray(colours).tobytes())
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return _to_array(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image)


def _to_array(rgb: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8, in bands: np.asarray(rgb) would need twice the memory of a large picture."""
    width, height = rgb.size
    pixels = np.empty((height, width, 3), np.uint8)
    band = max(1, _BAND_PIXELS // width)
    for top in range(0, height, band):
        rows = pixels[top : top + band]
        part = rgb.crop((0, top, width, top + len(rows)))
        rows[:] = np.frombuffer(part.tobytes(), np.uint8).reshape(rows.shape)
    return pixels


def _three(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else np.ascontiguousarray(values)
