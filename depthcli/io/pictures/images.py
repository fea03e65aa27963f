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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Optional, Union

import cv2
import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthcli.errors import DepthError, PictureError
from depthcli.host.quiet import noise_of
from depthcli.io.pictures import levels, png, rare, tiff

# A picture takes 4 bytes per pixel in Pillow and 3 in numpy: 3.5 GB at the limit.
MAX_PIXELS = 500_000_000
_BAND_PIXELS = 1 << 20

PICTURE_SUFFIXES = frozenset(
    ".apng .avif .bmp .dib .gif .heic .heif .hif .j2k .jfif .jp2 .jpe .jpeg .jpg .mpo"
    " .pam .pbm .pgm .png .pnm .ppm .ras .sr .tif .tiff .webp".split()
)

Source = Union[Path, str, bytes, BinaryIO]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, ready for `preprocess`.

    rgb: (H, W, 3) uint8, upright, C-contiguous, read-only. name: the file's name as given, for messages.
    notes: what was done to it that a user may want to know ("first of 12 frames"). warnings: what was done that changes
    what it looks like. valid: (H, W) bool, False at transparent pixels; None where all count.
    """

    rgb: np.ndarray
    name: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    valid: Optional[np.ndarray] = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def is_picture(path: Path) -> bool:
    """Return whether a file in a folder is meant to be a picture: by its suffix, and not hidden.

    The content is not looked at, on purpose: a `.jpg` that is broken, or is a web page, has to be named as failed when
    it is read, not passed over. PFM and HDR are read, but not taken up: .pfm is mostly measured depth beside pictures,
    and .hdr may be the text that describes a raw file. Hidden files are passed over, and with them the `._x.jpg` that
    macOS leaves on foreign disks.
    """
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def read_picture(
    source: Source, name: str | None = None, max_pixels: int = MAX_PIXELS, keep_alpha: bool = False
) -> Picture:
    """Return the picture in a file, an open file, or the bytes of one.

    The EXIF orientation is applied. Of an animation or a document the first frame or page is taken. 16 bits per channel
    become the upper 8, as in cv2.imread, but where they hold next to nothing in these 8; floats and 32-bit integers are
    brought to 8 bits by the rules in `levels`. Alpha is composited on black. CMYK is converted without a profile.

    name: what to call the picture in messages; the path as given, where None.
    max_pixels: a picture that claims more is refused from its header, before anything is decoded.
    keep_alpha: give `valid` too, for a picture with pixels that are less than half opaque.

    Raises PictureError, and nothing else whatever the bytes, where the file is missing, unreadable, truncated, damaged,
    too large, or no picture.
    """
    shown = printable(name or (str(source) if isinstance(source, (str, Path)) else "the picture"))
    with _opened(source, shown) as file:
        return _read(file, shown, max_pixels, keep_alpha)


def picture_size(source: Source) -> tuple[int, int] | None:
    """Return the (width, height) of a picture by its header, upright as `read_picture` has it; None where it says none.

    Nothing is decoded and nothing raised: what is wrong with the file is for `read_picture` to say.
    """
    try:
        with _opened(source, "") as file, noise_of():
            return _header(file, "").size
    except Exception:  # decoders raise whatever their bytes lead them to
        return None


# --- Files ------------------------------------------------------------------------------------------------------------


def _opened(source: Source, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
    """Return the file of a picture at its first byte; one that was open stays open."""
    if isinstance(source, bytes):
        return BytesIO(source)
    if isinstance(source, (str, Path)):
        return open_picture_file(source, name)
    source.seek(0)
    return contextlib.nullcontext(source)


def open_picture_file(path: Path | str, name: str) -> BinaryIO:
    """Open a file for reading. Raises PictureError for what is not a regular file or may not be read."""
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


_STRANGERS = (
    (rb"version https://git-lfs", "a Git LFS pointer", "git lfs pull fetches the file itself"),
    (rb"\s*<(!doctype|html|head)", "a web page", "download the picture itself"),
    (rb"\s*<(\?xml|svg)", "an SVG drawing or XML", "save it as PNG first"),
    (rb"%PDF", "a PDF document", "save its pages as PNG first"),
    (rb"8BPS", "a Photoshop document", "save it as PNG first"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", "save it as PNG first"),
    (rb"v/1\x01", "an OpenEXR picture", "save it as PNG or TIFF first"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!", "an archive", "unpack it first"),
    (rb"....(ftyp|moov)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS", "a video", ""),
)
_FORMATS = "AVIF, BMP, GIF, HDR, HEIC, JPEG, JPEG 2000, PFM, PNG, PPM, Sun raster, TIFF and WebP can be read"


class _UnsupportedError(Exception):
    """A picture of a kind that cannot be read here: what it is, and the way out."""


@dataclass(frozen=True)
class _Decoded:
    """A picture as stored: rgb (H, W, 3) uint8, and alpha (H, W) uint8 or None. on_black: rgb has been composited."""

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    on_black: bool = False


class _Said:
    """What is to be told of a picture: see Picture."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []


@dataclass(frozen=True)
class _Header:
    """A picture by its header: the only place that reads sizes and orientations.

    stored: (width, height) before it is turned. orientation: 1 to 8 as in EXIF. decode: gives the pixels as stored.
    """

    stored: tuple[int, int]
    decode: Callable[[_Said], _Decoded]
    orientation: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return self.stored[::-1] if self.orientation in (5, 6, 7, 8) else self.stored


def _header(file: BinaryIO, name: str) -> _Header:
    head = file.read(64)
    if not head:
        raise PictureError(f"{name} is empty", "copy or download it again")
    if not head.strip(b"\0"):
        raise PictureError(f"{name} holds zeros instead of a picture", "copy or download it again")
    file.seek(0)
    for pattern, opener in _OPENERS:
        if re.match(pattern, head, re.DOTALL):
            return opener(file)
    for pattern, what, way_out in _STRANGERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            raise PictureError(f"{name} is not a picture but {what}", way_out or _FORMATS)
    raise PictureError(f"{name} is not a picture", _FORMATS)


def _by_pillow(reader: Callable[[BinaryIO], ImageFile.ImageFile]) -> Callable[[BinaryIO], _Header]:
    """Return what opens a file with one of Pillow's readers.

    They are called directly, as Image.open has a limit of its own, at 179 megapixels, that moves only for the whole
    process.
    """

    def opened(file: BinaryIO) -> _Header:
        image = reader(file)

        def decode(said: _Said) -> _Decoded:
            deep = _is_16_bit(image, file)
            image.load()
            decoded = _from_pillow(image, said)
            if deep:
                decoded = _of_16_bits(decoded, file, said)
                said.notes.append(_REDUCED)
            _note_frames(image, said)
            return decoded

        return _Header(image.size, decode, _orientation(image))

    return opened


def _png(file: BinaryIO) -> _Header:
    chunks = png.read_chunks(file)

    def decode(said: _Said) -> _Decoded:
        pixels = png.only_pixels(file, chunks)
        image = PngImageFile(pixels)
        image.load()
        decoded = _from_pillow(image, said)
        if chunks.bits == 16 and _REDUCED not in said.notes:
            few = int(np.ptp(decoded.rgb)) <= 2 * (levels.NARROW >> 8)
            decoded = _of_16_bits(decoded, pixels, said) if few else decoded
            said.notes.append(_REDUCED)
        if chunks.frames > 1:
            said.notes.append(f"first of {chunks.frames} frames")
        return decoded

    exif = Image.Exif()
    if chunks.exif:
        with contextlib.suppress(Exception):  # a broken block is no reason to refuse the picture
            exif.load(chunks.exif)
    return _Header(chunks.size, decode, _valid_orientation(exif))


def _jpeg(file: BinaryIO) -> _Header:
    header = _by_pillow(JpegImageFile)(file)

    def decode(said: _Said) -> _Decoded:
        try:
            return header.decode(said)
        except OSError as error:
            if not re.search(_CUT_SHORT, str(error), re.IGNORECASE):
                raise
            file.seek(0)
            image = _without_end(file.read())
            if image is None:
                raise
            said.notes.append("its end mark is missing, its pixels are whole")
            return _from_pillow(image, said)

    return replace(header, decode=decode)


def _without_end(data: bytes) -> Image.Image | None:
    """Return the picture of a JPEG whose end mark alone is missing, or None.

    A decoder that runs out of pixels goes on with the bits it is given. So a picture that comes out the same whatever
    is put behind the data had all of its own. Only JPEGs of one scan can be told so; more scans may be missing.
    """
    start = 2
    while data[start : start + 1] == b"\xff" and data[start + 1 : start + 2] != b"\xda":
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if data.count(b"\xff\xda", start) != 1:  # those before it are of a thumbnail
        return None
    data = data.rstrip(b"\xff")  # half an end mark
    results = []
    for bits in (b"", b"\x55" * 64, b"\xaa" * 64, b"\x33" * 64):
        results.append(JpegImageFile(BytesIO(data + bits + b"\xff\xd9")))
        try:
            results[-1].load()
        except OSError:
            return None
        if results[-1].tobytes() != results[0].tobytes():
            return None
    return results[0]


def _tiff(file: BinaryIO) -> _Header:
    page = tiff.read_page(file)
    if page.is_preview:
        raise _UnsupportedError("holds a preview and no picture, as camera raw files do", "develop it first")

    def decode(said: _Said) -> _Decoded:
        if tiff.is_log_luv(page):
            decoded = _from_rare(rare.open_by_opencv(file, page.size), said)
        elif tiff.is_for_pillow(page):
            image = tiff.pillow_page(file, page)
            image.load()
            decoded = _from_pillow(image, said)
        else:
            decoded = _from_tiff(tiff.read_samples(file, page), page, said)
        if page.pages > 1:
            said.notes.append(f"first of {page.pages} pages")
        return decoded

    return _Header(page.size, decode, page.orientation)


def _rare(opener: Callable[[BinaryIO], rare.Rare]) -> Callable[[BinaryIO], _Header]:
    """Return what opens a file of a rare kind."""

    def opened(file: BinaryIO) -> _Header:
        found = opener(file)
        return _Header(found.size, lambda said: _from_rare(found, said))

    return opened


def _bmp(file: BinaryIO) -> _Header:
    found = rare.open_bit_fields(file)
    if found is not None:
        return _Header(found.size, lambda said: _from_rare(found, said))
    file.seek(0)
    return _by_pillow(BmpImageFile)(file)


# An explicit list, as some of Pillow's formats start other programs (EPS) or match any bytes (TGA). The plain JPEG
# reader takes the first picture of an MPO, which is the one to see.
_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], _Header]], ...] = (
    (rb"\xff\xd8\xff", _jpeg),
    (rb"\x89PNG\r\n\x1a\n", _png),
    (rb"RIFF....WEBPVP8", _by_pillow(WebPImageFile)),
    (rb"II[*+]\0|MM\0[*+]", _tiff),
    (rb"GIF8[79]a", _by_pillow(GifImageFile)),
    (rb"BM", _bmp),
    (rb"P[567]\s", _rare(rare.open_netpbm)),
    (rb"P[1-4]\s", _by_pillow(PpmImageFile)),
    (rb"P[Ff]\s", _rare(rare.open_pfm)),
    (rb"#\?(RADIANCE|RGBE)", _rare(rare.open_hdr)),
    (rb"\x59\xa6\x6a\x95", _rare(rare.open_sun)),
    (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n", _by_pillow(Jpeg2KImageFile)),
    # The major brand may be one that AVIF and HEIC share; then the list of brands after it decides.
    (rb"....ftyp(avi[fs]|(mif1|msf1|miaf)(....)*?avi[fs])", _by_pillow(_avif)),
    (rb"....ftyp(hei[cmsx]|hev[cmsx]|mif[12]|msf1|miaf)", _by_pillow(_heif)),
)

# --- Decoding ---------------------------------------------------------------------------------------------------------


def _read(file: BinaryIO, name: str, max_pixels: int, keep_alpha: bool = False) -> Picture:
    said = _Said()
    noise: list[str] = []
    try:
        with noise_of() as noise:
            header = _header(file, name)
            check_size(header.size, name, max_pixels)
            decoded = header.decode(said)
            rgb = _upright(_on_black(decoded, said), header.orientation)
            valid = _valid(decoded, header.orientation) if keep_alpha else None
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
        raise _failure(error, name, noise) from error
    rgb.flags.writeable = False
    return Picture(rgb, name, (*said.notes, *map(printable, noise)), tuple(said.warnings), valid)


def check_size(size: tuple[int, int], name: str, max_pixels: int, kind: type[DepthError] = PictureError) -> None:
    """Raise an error of a kind if a header claims more pixels than max_pixels. size: (width, height)."""
    width, height = size
    if width * height > max_pixels:
        megapixels = f"{width * height / 1e6:.0f} megapixels, the limit is {max_pixels / 1e6:.0f}"
        raise kind(f"{name} is too large: {width}x{height} pixels ({megapixels})", "make it smaller first")


# How the decoders say that they ran out of bytes; "missing dimensions" is a TIFF whose table of contents is gone.
_CUT_SHORT = "truncated|end of file|incomplete|but only got|requires a buffer|missing dimensions"


def _failure(error: Exception, name: str, noise: Sequence[str]) -> PictureError:
    reason = str(error) if isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError)) else repr(error)
    if isinstance(error, EOFError) or re.search(_CUT_SHORT, reason, re.IGNORECASE):
        return PictureError(f"{name} is truncated: the file ends before the picture does", "copy or download it again")
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return PictureError(f"{name} cannot be read from its disk", "check the disk")
    reason = ": ".join([reason.strip() or type(error).__name__, *noise[:1]])  # the library's own words say it best
    reason = printable(reason)[:160]
    return PictureError(f"{name} cannot be decoded: {reason}", "copy or download it again, or save it anew in a viewer")


# --- Pixels -----------------------------------------------------------------------------------------------------------


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        return _valid_orientation(image.getexif())
    except Exception:  # a broken EXIF block is no reason to refuse the picture
        return 1


def _valid_orientation(exif: Image.Exif) -> int:
    try:
        return int(exif.get(0x0112, 1))
    except Exception:  # the same
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return pixels as stored turned as EXIF says: C-contiguous; the array itself where nothing has to be done."""
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


def _on_black(decoded: _Decoded, said: _Said) -> np.ndarray:
    """Return (H, W, 3) uint8 composited on black."""
    rgb, alpha = decoded.rgb, decoded.alpha
    if alpha is None or alpha.min() == 255:
        return rgb
    said.notes.append("alpha composited on black")
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


def _valid(decoded: _Decoded, orientation: int) -> np.ndarray | None:
    """Return (H, W) bool, False where the picture is less than half opaque; None where it is so nowhere."""
    if decoded.alpha is None or decoded.alpha.min() > 127:
        return None
    valid = _upright((decoded.alpha > 127).astype(np.uint8), orientation).astype(bool)
    valid.flags.writeable = False
    return valid


def _from_pillow(image: Image.Image, said: _Said) -> _Decoded:
    """Return the pixels of a loaded picture of any mode."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).clip(0, 65535).astype(np.uint16)
        said.notes.append(_REDUCED)
        return _Decoded(_three(levels.from_16_bits(values, said.warnings)[..., None]))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return _Decoded(_to_array(rgba.convert("RGB")), np.asarray(rgba.getchannel("A")))
    return _Decoded(_to_array(image if image.mode == "RGB" else image.convert("RGB")))


_REDUCED = "16 bits per channel reduced to 8"


def _of_16_bits(decoded: _Decoded, file: BinaryIO, said: _Said) -> _Decoded:
    """Return a colour picture of 16 bits per channel, of which Pillow gives 8: decoded once more, by OpenCV."""
    file.seek(0)
    deep = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != decoded.rgb.shape[:2]:
        return decoded
    colours = deep[..., None] if deep.ndim == 2 else deep[..., 2::-1] if deep.shape[2] > 2 else deep[..., :1]
    return replace(decoded, rgb=_three(levels.from_16_bits(np.ascontiguousarray(colours), said.warnings)))


def _from_rare(found: rare.Rare, said: _Said) -> _Decoded:
    samples = found.samples()
    colours = samples[..., : samples.shape[2] - found.alpha]
    alpha = _alpha_bytes(samples[..., -1]) if found.alpha else None
    return _Decoded(_three(_to_bytes(colours, found.light, said)), alpha)


def _from_tiff(samples: np.ndarray, page: tiff.Page, said: _Said) -> _Decoded:
    """Return the pixels of a TIFF's samples by what they mean."""
    colours = samples[..., : page.colours]
    alpha = _alpha_bytes(samples[..., page.colours]) if page.alpha else None
    if page.photometric == tiff.PALETTE:
        table = np.zeros((1 << page.bits, 3), np.uint8)
        table[: len(page.colormap)] = page.colormap[: len(table)]
        return _Decoded(table[colours[..., 0]], alpha)
    if page.bits < 8:
        colours = np.round(np.arange(1 << page.bits) * (255 / ((1 << page.bits) - 1))).astype(np.uint8)[colours]
    elif 8 < page.bits < 16:
        colours = colours << (16 - page.bits)
    elif colours.dtype == np.uint16 and 255 < page.max_sample < 65535:
        colours = np.minimum(np.arange(1 << 16) * (65535 / page.max_sample), 65535).astype(np.uint16)[colours]
    if page.photometric in (tiff.CIELAB, tiff.ICCLAB):
        return _Decoded(_from_lab(colours, page), alpha)
    if page.photometric in (tiff.CMYK, tiff.YCBCR) and colours.dtype == np.uint16:
        said.notes.append(_REDUCED)
        colours = (colours >> 8).astype(np.uint8)
    colours = _to_bytes(colours, page.is_float and page.colours == 3, said)
    if page.photometric == tiff.WHITE_IS_ZERO:
        colours = 255 - colours
    elif page.photometric == tiff.CMYK:
        key = 255 - colours[..., 3:].astype(np.uint16)
        colours = ((255 - colours[..., :3]) * key // 255).astype(np.uint8)
    elif page.photometric == tiff.YCBCR:
        colours = _from_ycc(colours, page)
    return _Decoded(_three(colours), alpha, page.alpha == 1)


def _to_bytes(values: np.ndarray, light: bool, said: _Said) -> np.ndarray:
    """Return (H, W, C) uint8 for values of any type by the rules in `levels`."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        said.notes.append(_REDUCED)
        return levels.from_16_bits(values, said.warnings)
    return levels.from_light(values, said.notes) if light else levels.stretched(values, said.notes)


def _alpha_bytes(alpha: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8 for alpha of any type: floats are shares, signed integers are taken without a sign."""
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
    """Return (H, W, 3) uint8; in bands, as np.asarray(rgb) holds a large picture twice more meanwhile."""
    width, height = rgb.size
    pixels = np.empty((height, width, 3), np.uint8)
    band = max(1, _BAND_PIXELS // width)
    for top in range(0, height, band):
        rows = pixels[top : top + band]
        part = rgb.crop((0, top, width, top + len(rows)))
        rows[:] = np.frombuffer(part.tobytes(), np.uint8).reshape(rows.shape)
    return pixels


def _three(values: np.ndarray) -> np.ndarray:
    """Return (H, W, 3), C-contiguous, for (H, W, 1) or (H, W, 3)."""
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else np.ascontiguousarray(values)


def _is_16_bit(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Return whether a file just opened is JPEG 2000 in colours of 16 bits, which Pillow does not show."""
    if not isinstance(image, Jpeg2KImageFile) or image.mode.startswith("I"):
        return False
    position = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(position)
    start = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, and the marker of its size
    return start >= 0 and head[start + 42 : start + 43] == b"\x0f"


def _note_frames(image: ImageFile.ImageFile, said: _Said) -> None:
    """Add a note where the file holds more than the picture taken. Called last: counting may leave another loaded."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except Exception:  # the first is whole, those that follow are not
        said.notes.append("the first frame")
        return
    if count > 1:
        said.notes.append(f"the main one of {count} pictures" if image.format == "HEIF" else f"first of {count} frames")
