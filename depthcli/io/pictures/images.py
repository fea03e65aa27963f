"""Read picture files as upright 8-bit RGB.

A returned picture is complete, and equal to cv2.imread on ordinary files. Colour profiles are ignored, as the networks
were trained on pixels read that way.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Optional, Union

import numpy as np
from PIL import Image

from depthcli.camera import Camera
from depthcli.errors import DepthError, PictureError
from depthcli.host.quiet import noise_of
from depthcli.io.names import printable
from depthcli.io.pictures.decoders import CUT_SHORT, Header, UnsupportedError, read_header
from depthcli.io.pictures.files import open_picture_file
from depthcli.io.pictures.samples import Remarks, composited, upright, valid_mask

# A picture takes 4 bytes per pixel in Pillow and 3 in numpy: 3.5 GB at the limit.
MAX_PIXELS = 500_000_000
_BAND_PIXELS = 1 << 20

PictureSource = Union[Path, str, bytes, BinaryIO]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, ready for `preprocess`.

    rgb: (H, W, 3) uint8, upright, C-contiguous, read-only. name: the file's name, for messages.
    notes: how it was read ("first of 12 frames"). warnings: what changes its looks.
    valid: (H, W) bool, False at transparent pixels; None if all count. camera: from its EXIF, or None.
    orientation: the EXIF orientation that was applied, 1 to 8.
    """

    rgb: np.ndarray
    name: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    valid: Optional[np.ndarray] = None
    camera: Optional[Camera] = None
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def read_picture(
    source: PictureSource, name: str | None = None, max_pixels: int = MAX_PIXELS, keep_alpha: bool = False
) -> Picture:
    """Return the picture in a file, an open file, or the bytes of one.

    The EXIF orientation is applied. Animations and documents give their first frame or page. 16 bits per channel become
    the upper 8, as in cv2.imread, unless these are nearly empty; floats and 32-bit integers are converted as in
    `levels`. Alpha is composited on black. CMYK is converted without a profile.

    name: the name in messages; None for the path as given. max_pixels: limit, checked in the header before decoding.
    keep_alpha: set `valid` too, for a picture with pixels that are less than half opaque.

    Raises only PictureError: the file is missing, unreadable, truncated, damaged, too large, or not a picture.
    """
    shown = printable(name or (str(source) if isinstance(source, (str, Path)) else "the picture"))
    with _opened(source, shown) as file:
        return _read(file, shown, max_pixels, keep_alpha)


def picture_size(source: PictureSource) -> tuple[int, int] | None:
    """Return the upright (width, height) in a picture's header, or None. Decodes and raises nothing."""
    try:
        with _opened(source, "") as file, noise_of():
            return read_header(file, "").size
    except Exception:  # decoders raise whatever their bytes lead them to
        return None


def picture_header(path: Path) -> Header:
    """Return the header of a picture's file: sizes, orientation and camera. Raises PictureError if it is no picture."""
    shown = printable(str(path))
    noise: list[str] = []
    with open_picture_file(path, shown) as file:
        try:
            with noise_of() as noise:
                return read_header(file, shown)
        except PictureError:
            raise
        except UnsupportedError as error:
            reason, way_out = error.args
            raise PictureError(f"{shown} {reason}", way_out) from error
        except Exception as error:  # decoders raise whatever their bytes lead them to
            raise _failure(error, shown, noise) from error


# --- Files ------------------------------------------------------------------------------------------------------------


def _opened(source: PictureSource, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Return the file of a picture at its first byte; one that was open stays open."""
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, (str, Path)):
        return open_picture_file(source, name)
    source.seek(0)
    return contextlib.nullcontext(source)


def _read(file: BinaryIO, name: str, max_pixels: int, keep_alpha: bool = False) -> Picture:
    remarks = Remarks()
    noise: list[str] = []
    try:
        with noise_of() as noise:
            header = read_header(file, name)
            check_size(header.size, name, max_pixels)
            decoded = header.decode(remarks)
            rgb = upright(composited(decoded, remarks), header.exif.orientation)
            valid = valid_mask(decoded, header.exif.orientation) if keep_alpha else None
    except PictureError:
        raise
    except UnsupportedError as error:
        reason, way_out = error.args
        raise PictureError(f"{name} {reason}", way_out) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels for its format", "save it as PNG or JPEG") from error
    except MemoryError as error:
        raise PictureError(f"{name} does not fit into memory", "make it smaller first") from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
        raise _failure(error, name, noise) from error
    rgb.flags.writeable = False
    notes, exif = (*remarks.notes, *map(printable, noise)), header.exif
    camera = exif.camera(header.stored)
    return Picture(rgb, name, notes, tuple(remarks.warnings), valid, camera, exif.orientation)


def check_size(size: tuple[int, int], name: str, max_pixels: int, kind: type[DepthError] = PictureError) -> None:
    """Raise an error of a kind if a header claims more pixels than max_pixels. size: (width, height)."""
    width, height = size
    if width * height > max_pixels:
        megapixels = f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        raise kind(f"{name} is too large: {width}x{height} pixels ({megapixels})", "make it smaller first")


def _failure(error: Exception, name: str, noise: Sequence[str]) -> PictureError:
    reason = str(error) if isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError)) else repr(error)
    if isinstance(error, EOFError) or re.search(CUT_SHORT, reason, re.IGNORECASE):
        return PictureError(f"{name} is truncated: the file ends before the picture does", "copy or download it again")
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return PictureError(f"{name} cannot be read from its disk", "check the disk")
    reason = ": ".join([reason.strip() or type(error).__name__, *noise[:1]])  # the library's own words say it best
    reason = printable(reason)[:160]
    return PictureError(f"{name} cannot be decoded: {reason}", "copy or download it again, or save it anew in a viewer")
