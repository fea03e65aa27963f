"""Picture files as they come -> upright 8-bit RGB, or one PictureError that says what is wrong with the file.

The promise: a picture that is returned is whole, and on ordinary files equal to the reference's (cv2.imread). Colour
profiles are ignored, as the reference ignores them: the networks were trained on pixels read that way.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Union

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthcli.errors import PictureError

# A picture takes 4 bytes per pixel in Pillow and 3 in numpy: 3.5 GB at the limit.
MAX_PIXELS = 500_000_000
_BAND_PIXELS = 1 << 20

PICTURE_SUFFIXES = frozenset(
    ".apng .avif .bmp .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo"
    " .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)

Source = Union[Path, str, bytes]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, ready for `preprocess`.

    rgb: (H, W, 3) uint8, upright, C-contiguous, read-only. name: the file's name as given, for messages.
    notes: what was done to it that a user should know ("first of 12 frames").
    """

    rgb: np.ndarray
    name: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def is_picture(path: Path) -> bool:
    """Return whether a file in a folder is meant to be a picture: by its suffix, and not hidden.

    The content is not looked at, on purpose: a `.jpg` that is broken, or is a web page, has to be named as failed when
    it is read, not passed over. Hidden files are passed over, and with them the `._x.jpg` that macOS leaves on foreign
    disks.
    """
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def read_picture(source: Source, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return the picture in a file, or in the bytes of one.

    The EXIF orientation is applied. Of an animation or a document the first frame or page is taken. 16 bits per channel
    become the upper 8, as in cv2.imread; 32-bit integers and floats have no agreed range and are scaled from their
    least to their greatest finite value. Alpha is composited on black. CMYK is converted without a profile.

    name: what to call the picture in messages; the path as given, where None.
    max_pixels: a picture that claims more is refused from its header, before anything is decoded.

    Raises PictureError, and nothing else whatever the bytes, where the file is missing, unreadable, truncated, damaged,
    too large, or no picture.
    """
    if isinstance(source, bytes):
        return _read(BytesIO(source), printable(name or "the picture"), max_pixels)
    shown = printable(name or str(source))
    with _open_file(source, shown) as file:
        return _read(file, shown, max_pixels)


def picture_size(source: Source) -> tuple[int, int] | None:
    """Return the (width, height) of a picture by its header, upright as `read_picture` has it; None where it says none.

    Nothing is decoded and nothing raised: what is wrong with the file is for `read_picture` to say.
    """
    try:
        with BytesIO(source) if isinstance(source, bytes) else _open_file(source, str(source)) as file, _no_warnings():
            reader = _reader(file.read(64), "")
            file.seek(0)
            image = reader(file)
            width, height = image.size
            return (height, width) if _turn(image) in _SIDEWAYS else (width, height)
    except Exception:  # decoders raise whatever their bytes lead them to
        return None


# --- Files ------------------------------------------------------------------------------------------------------------


def _open_file(path: Path | str, name: str) -> BinaryIO:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) and not may_be_listed(path):
            raise PictureError(f"{name} is a folder that may not be read: permission denied", "leave it out")
        if stat.S_ISDIR(mode):
            raise PictureError(f"{name} is a folder, not a picture", "depth dir takes folders")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise PictureError(f"{name} is not a file", "save it to a file first")
        return open(path, "rb")
    except FileNotFoundError as error:
        raise PictureError(f"{name} does not exist", "check the path") from error
    except PermissionError as error:
        raise PictureError(f"{name} may not be read: permission denied", "check the file's permissions") from error
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise PictureError(f"{name} cannot be opened: {reason}", "check the path") from error
    except ValueError as error:  # a null byte in the name
        raise PictureError(f"{name} is not a file name", "check the path") from error


def may_be_listed(folder: Path | str) -> bool:
    """Return whether the names in a folder can be read."""
    try:
        with os.scandir(folder):
            return True
    except OSError:
        return False


def printable(name: str) -> str:
    """Return a name for one line on a terminal: line breaks, escape sequences and undecodable bytes are spelled out."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)


# --- What the first bytes say -----------------------------------------------------------------------------------------


def _avif(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile
    except ImportError:  # Pillow before 11.3
        SUPPORTED = False  # noqa: N806
    if not SUPPORTED:
        raise _UnsupportedError("is AVIF, which this Pillow cannot read", 'pip install --upgrade "pillow>=11.3"')
    return AvifImageFile(file)


def _heif(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise _UnsupportedError("is HEIC, and what reads it is not installed", 'pip install "depthcli[heif]"') from None
    image: ImageFile.ImageFile = HeifImageFile(file)
    return image


# An explicit list, as some of Pillow's formats start other programs (EPS) or match any bytes (TGA). The readers are
# called directly, as Image.open has a limit of its own, at 179 megapixels, that moves only for the whole process. The
# plain JPEG reader takes the first picture of an MPO, which is the one to see.
_READERS: tuple[tuple[bytes, Callable[[BinaryIO], ImageFile.ImageFile]], ...] = (
    (rb"\xff\xd8\xff", JpegImageFile),
    (rb"\x89PNG\r\n\x1a\n", PngImageFile),
    (rb"RIFF....WEBPVP8", WebPImageFile),
    (rb"II[*+]\0|MM\0[*+]", TiffImageFile),
    (rb"GIF8[79]a", GifImageFile),
    (rb"BM", BmpImageFile),
    (rb"P[1-6]\s", PpmImageFile),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", Jpeg2KImageFile),
    # The major brand may be one that AVIF and HEIC share; then the list of brands after it decides.
    (rb"....ftyp(avi[fs]|(mif1|msf1|miaf)(....)*?avi[fs])", _avif),
    (rb"....ftyp(hei[cmsx]|hev[cmsx]|mif[12]|msf1|miaf)", _heif),
)

_STRANGERS = (
    (rb"version https://git-lfs", "a Git LFS pointer", "git lfs pull fetches the file itself"),
    (rb"\s*<(!doctype|html|head)", "a web page", "download the picture itself"),
    (rb"\s*<(\?xml|svg)", "an SVG drawing or XML", "save it as PNG first"),
    (rb"%PDF", "a PDF document", "save its pages as PNG first"),
    (rb"8BPS", "a Photoshop document", "save it as PNG first"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", "save it as PNG first"),
    (rb"v/1\x01|#\?RADIANCE", "an HDR picture", "save it as PNG first"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "unpack it first"),
    (rb"....(ftyp|moov)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS", "a video", ""),
)
_FORMATS = "AVIF, BMP, GIF, HEIC, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP can be read"


class _UnsupportedError(Exception):
    """A picture of a kind that cannot be read here: what it is, and the way out."""


def _reader(head: bytes, name: str) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    if not head:
        raise PictureError(f"{name} is empty", "copy or download it again")
    if not head.strip(b"\0"):
        raise PictureError(f"{name} holds zeros instead of a picture", "copy or download it again")
    for pattern, reader in _READERS:
        if re.match(pattern, head, re.DOTALL):
            return reader
    for pattern, what, way_out in _STRANGERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise PictureError(f"{name} is not a picture but {what}", way_out or _FORMATS)
    raise PictureError(f"{name} is not a picture", _FORMATS)


# --- Decoding ---------------------------------------------------------------------------------------------------------


def _read(file: BinaryIO, name: str, max_pixels: int) -> Picture:
    try:
        reader = _reader(file.read(64), name)
        file.seek(0)
        with _no_warnings():
            image = reader(file)  # the header only
            _check_size(image, name, max_pixels)
            _check_content(image, file)
            notes = ["16 bits per channel reduced to 8"] if _is_16_bit(image) else []
            image.load()
            rgb = _upright(_to_rgb(image, notes), image)
            pixels = _to_array(rgb)
            _note_frames(image, notes)
    except PictureError:
        raise
    except _UnsupportedError as error:
        reason, way_out = error.args
        raise PictureError(f"{name} {reason}", way_out) from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name} has too many pixels for its format", "save it as PNG or JPEG") from error
    except MemoryError as error:
        raise PictureError(f"{name} does not fit into memory", "make it smaller first") from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
        raise _failure(error, name) from error
    return Picture(pixels, name, tuple(notes))


def _check_size(image: ImageFile.ImageFile, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        megapixels = f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        raise PictureError(f"{name} is too large: {width}x{height} pixels ({megapixels})", "make it smaller first")


def _check_content(image: ImageFile.ImageFile, file: BinaryIO) -> None:
    """Refuse what Pillow would decode to a wrong picture."""
    if isinstance(image, PngImageFile):
        position = file.tell()
        _check_png_sums(file)
        file.seek(position)
    elif isinstance(image, TiffImageFile):
        tags = image.tag_v2
        if int(tags.get(254, 0)) & 1 or 50706 in tags:  # NewSubfileType: reduced resolution; DNGVersion
            raise _UnsupportedError("holds a preview and no picture, as camera raw files do", "develop it first")


def _check_png_sums(file: BinaryIO) -> None:
    """Check the sums of a PNG's pixel data, which Pillow leaves out, unlike libpng; what is missing it sees itself."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind != b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        data, total = file.read(length), file.read(4)
        if len(total) == 4 and zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(total, "big"):
            raise ValueError("the check sum of its pixels is wrong")


# How the decoders say that they ran out of bytes; "missing dimensions" is a TIFF whose table of contents is gone.
_CUT_SHORT = "truncated|end of file|incomplete|but only got|requires a buffer|missing dimensions"


def _failure(error: Exception, name: str) -> PictureError:
    reason = str(error) if isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError)) else repr(error)
    if isinstance(error, EOFError) or re.search(_CUT_SHORT, reason, re.IGNORECASE):
        return PictureError(f"{name} is truncated: the file ends before the picture does", "copy or download it again")
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return PictureError(f"{name} cannot be read from its disk", "check the disk")
    reason = printable(reason.strip())[:100] or type(error).__name__
    return PictureError(f"{name} cannot be decoded: {reason}", "copy or download it again, or save it anew in a viewer")


# --- Pixels -----------------------------------------------------------------------------------------------------------

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = tuple(_TURNS[value] for value in (5, 6, 7, 8))


def _upright(rgb: Image.Image, image: ImageFile.ImageFile) -> Image.Image:
    """Return `rgb` turned as the EXIF of the loaded file says; TIFF files Pillow has turned, and unmarked, by then."""
    turn = _turn(image)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """Return what makes a picture upright, None where nothing has to be done."""
    try:
        # PNG's own getexif decodes the pixels first, gigabytes where a header claims them.
        exif = Image.Image.getexif(image) if isinstance(image, PngImageFile) else image.getexif()
        return _TURNS.get(int(exif.get(0x0112, 1)))
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return None


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return a loaded picture of any mode as RGB, and add to `notes` what was lost."""
    if image.mode.startswith("I;16"):
        return _gray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits, in 32
        return _gray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _gray(_stretched(np.asarray(image), notes))
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_black(image.convert("RGBA"), notes)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_array(rgb: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8, read-only; in bands, as np.asarray(rgb) holds a large picture twice more meanwhile."""
    width, height = rgb.size
    pixels = np.empty((height, width, 3), np.uint8)
    band = max(1, _BAND_PIXELS // width)
    for top in range(0, height, band):
        rows = pixels[top : top + band]
        part = rgb.crop((0, top, width, top + len(rows)))
        rows[:] = np.frombuffer(part.tobytes(), np.uint8).reshape(rows.shape)
    pixels.flags.writeable = False
    return pixels


def _gray(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def _stretched(values: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return (H, W) uint8: the finite values from least to greatest as 0 to 255, NaN as 0; one value alone is black."""
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("it holds no finite value")
    lo, hi = (float(extreme(values[finite])) for extreme in (np.min, np.max))
    scaled = (np.clip(np.nan_to_num(values.astype(np.float64), nan=lo), lo, hi) - lo) * (255 / ((hi - lo) or 1))
    notes.append(f"values from {lo:g} to {hi:g} scaled to 0..255")
    return np.round(scaled).astype(np.uint8)


def _on_black(rgba: Image.Image, notes: list[str]) -> Image.Image:
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    notes.append("alpha composited on black")
    black = Image.new("RGB", rgba.size)
    black.paste(rgba, mask=alpha)
    return black


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image


def _is_16_bit(image: ImageFile.ImageFile) -> bool:
    """Return whether a file just opened has 16 bits per channel: Pillow shows it in the mode or in what it unpacks."""
    unpacking: Any = image.tile[:1]
    if image.format in ("PNG", "TIFF") and ";16" in str(unpacking):
        return True
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _note_frames(image: ImageFile.ImageFile, notes: list[str]) -> None:
    """Add a note where the file holds more than the picture taken. Called last: counting may leave another loaded."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except Exception:  # the first is whole, those that follow are not
        notes.append("the first frame")
        return
    if count > 1 and image.format == "HEIF":
        notes.append(f"the main one of {count} pictures")
    elif count > 1:
        notes.append(f"first of {count} {'pages' if image.format == 'TIFF' else 'frames'}")


# --- Quiet ------------------------------------------------------------------------------------------------------------

_lock = threading.Lock()
_readers = 0
_filters = warnings.catch_warnings()


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep Pillow's warnings about odd files off the terminal; what matters in them is an error or a note here.

    The filters belong to the whole process and several threads read at once: the first to come in saves them and the
    last to go out restores them, as nested saves that end in another order would leave a filter behind for good.
    """
    global _readers, _filters
    with _lock:
        if not _readers:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                _filters.__exit__(None, None, None)
