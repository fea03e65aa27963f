"""Depth maps inside of JPEG photos: GDepth, and Dynamic Depth 1.0 behind the picture. Read only.

developers.google.com/depthmap-metadata and developer.android.com (Dynamic Depth). Near is black in both: with n from 0
to 1, RangeLinear is near + n (far - near), and RangeInverse near far / (far - n (far - near)).
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.errors import DepthError, PictureError
from depthcli.io.codecs.arrays import read_bytes
from depthcli.io.codecs.numbers import png_numbers
from depthcli.io.pictures.images import picture_header, read_picture
from depthcli.io.pictures.samples import upright

SUFFIXES = (".jpg", ".jpeg")
_JPEG, _APP1, _SCAN = b"\xff\xd8\xff", 0xE1, 0xDA
_XMP, _MORE_XMP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_MORE_HEAD = 32 + 4 + 4  # digest of the whole, its length, and where this part belongs
_METRES = {"m": 1.0, "mm": 0.001, "Meters": 1.0}
_RAY = "OpticRay"


@dataclass(frozen=True, eq=False)
class EmbeddedDepth:
    """A depth map, upright as its photo is shown.

    values: (H, W) float32, larger is farther. metric: in metres; only if the file names their unit, as cameras write
    numbers without one too. ray: distances from the camera, not along its axis. camera: by the EXIF of the photo.
    """

    values: np.ndarray
    metric: bool
    ray: bool
    camera: Optional[Camera]


@dataclass(frozen=True)
class _Found:
    """What XMP says of a map. image: its file. inverse: by RangeInverse."""

    image: bytes
    inverse: bool
    near: float
    far: float
    unit: str
    ray: bool


def read_embedded(path: Path) -> EmbeddedDepth:
    """Return the depth map inside of a photo. Raises PictureError if it has none, or a damaged one."""
    try:
        found = _find(read_bytes(path))
        if found is None:
            raise PictureError(f"{path} holds no depth", "of photos, JPEG with GDepth or Dynamic Depth is read")
        shades, header = _shades(found.image), picture_header(path)
    except DepthError:
        raise
    except FileNotFoundError as error:
        raise PictureError(f"{path} does not exist", "check the path") from error
    except (OSError, ValueError, LookupError, SyntaxError) as error:  # the last of Pillow, for a broken PNG
        raise PictureError(f"cannot read the depth in {path}: {error}", "copy or download it again") from error
    near, far = found.near, found.far
    values = near * far / (far - shades * (far - near)) if found.inverse else near + shades * (far - near)
    values = upright((values * _METRES.get(found.unit, 1)).astype(np.float32), header.exif.orientation)
    camera = header.exif.camera(header.stored)
    if camera is not None:
        camera = camera.resized(header.size, (values.shape[1], values.shape[0]))
    return EmbeddedDepth(values, found.unit in _METRES, found.ray, camera)


def _find(data: bytes) -> Optional[_Found]:
    """Return the map of a JPEG's bytes, None if it has none. Raises ValueError for one that makes no sense."""
    if not data.startswith(_JPEG):
        raise ValueError("it is no JPEG")
    text = _xmp(data).decode("utf-8", "replace")
    for prefix in ("GDepth", "DepthMap"):
        facts = _properties(text, prefix)
        image = _encoded(facts) if prefix == "GDepth" else _appended(data, text, facts)
        if image is None:
            continue
        near, far = float(facts["Near"]), float(facts["Far"])
        inverse = facts.get("Format", "RangeInverse") == "RangeInverse"
        if not (near < far < np.inf) or near < 0 or (inverse and not near):
            raise ValueError(f"it reaches from {near:g} to {far:g}, which no {facts.get('Format', 'depth')} does")
        unit = facts.get("Units", "")
        return _Found(image, inverse, near, far, unit, facts.get("MeasureType", "") == _RAY)
    return None


def _xmp(data: bytes) -> bytes:
    """Return all XMP of a JPEG: the packet, and the parts of the extended one put in their order."""
    packet, parts = b"", {}
    for body in _segments(data):
        if body.startswith(_XMP):
            packet += body[len(_XMP) :]
        elif body.startswith(_MORE_XMP):
            part = body[len(_MORE_XMP) :]
            parts[part[:32], int.from_bytes(part[36:40], "big")] = part[_MORE_HEAD:]
    return packet + b"".join(parts[key] for key in sorted(parts))


def _segments(data: bytes) -> Iterator[bytes]:
    """Yield the bodies of the segments APP1 that stand before the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == _APP1:
            yield data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)


def _properties(text: str, prefix: str) -> dict[str, str]:
    """Return the properties of a name space, which XMP holds as attributes or as elements. The first of a name counts.

    No XML is parsed: documents may be cut, and one of Google's own examples has the same attribute twice.
    """
    found: dict[str, str] = {}
    for pattern in (rf'\b{prefix}:(\w+)\s*=\s*["\']([^"\']*)["\']', rf"<{prefix}:(\w+)>([^<]*)</"):
        for name, value in re.findall(pattern, text):
            found.setdefault(name, html.unescape(value).strip())
    return found


def _encoded(facts: dict[str, str]) -> Optional[bytes]:
    if "Data" not in facts:
        return None
    try:
        return base64.b64decode("".join(facts["Data"].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its map is no base64 ({error})") from error


def _appended(data: bytes, text: str, facts: dict[str, str]) -> Optional[bytes]:
    """Return the map behind the picture: files stand there in the order of the directory, up to the end."""
    if "DepthURI" not in facts:
        return None
    items = [_properties(tag, "Item") for tag in re.findall(r"<[^<>]*\bItem:[^<>]*>", text)]
    place = next((n for n, item in enumerate(items) if item.get("DataURI") == facts["DepthURI"]), None)
    if place is None:
        raise ValueError(f"its directory has no {facts['DepthURI']}")
    lengths = [int(item.get("Length", 0)) for item in items[place:]]
    start = len(data) - sum(lengths)
    if min(lengths) < 0 or start < 0 or not lengths[0]:
        raise ValueError("its directory does not fit its length")
    return data[start : start + lengths[0]]


def _shades(image: bytes) -> np.ndarray:
    """Return (H, W) float64 from 0 to 1."""
    if image.startswith(b"\x89PNG") and tuple(image[24:26]) == (16, 0):
        return png_numbers(image) / 65535.0
    return read_picture(image, "the depth in it").rgb[..., 0] / 255.0
