"""The formats of pictures: decoders by the first bytes of a file, and the facts in headers."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from depthcli.errors import PictureError
from depthcli.io.pictures import levels, png, rare, tiff
from depthcli.io.pictures.exif import CAMERA_TAGS, Exif, read_exif
from depthcli.io.pictures.samples import REDUCED, Decoded, Remarks, from_pillow, from_rare, from_tiff, of_16_bits

# Messages of decoders for truncated files; "missing dimensions" is a TIFF without its directory.
CUT_SHORT = "truncated|end of file|incomplete|but only got|requires a buffer|missing dimensions"


def _avif(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        from PIL.AvifImagePlugin import SUPPORTED, AvifImageFile
    except ImportError:  # Pillow before 11.3
        SUPPORTED = False  # noqa: N806
    if not SUPPORTED:
        raise UnsupportedError("is AVIF, which this Pillow cannot read", 'pip install --upgrade "pillow>=11.3"')
    return AvifImageFile(file)


def _heif(file: BinaryIO) -> ImageFile.ImageFile:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise UnsupportedError("is HEIC, and what reads it is not installed", 'pip install "depthcli[heif]"') from None
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
    (
        rb"....(ftyp|moov)|RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xb3\xba]|FLV\x01|OggS",
        "a video",
        "depth video takes clips",
    ),
)
_FORMATS = "AVIF, BMP, GIF, HDR, HEIC, JPEG, JPEG 2000, PFM, PNG, PPM, Sun raster, TIFF and WebP can be read"


class UnsupportedError(Exception):
    """A picture of a kind that cannot be read here: what it is, and the way out."""


@dataclass(frozen=True)
class Header:
    """The header of a picture. stored: (width, height) before it is turned. decode: returns pixels, adds remarks."""

    stored: tuple[int, int]
    decode: Callable[[Remarks], Decoded]
    exif: Exif = field(default_factory=Exif)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return self.exif.upright_size(self.stored)


def read_header(file: BinaryIO, name: str) -> Header:
    """Return the header of a picture; the file stays in use for its `decode`. Raises PictureError if it is none."""
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


def _by_pillow(reader: Callable[[BinaryIO], ImageFile.ImageFile]) -> Callable[[BinaryIO], Header]:
    """Return an opener by one of Pillow's readers, called directly: Image.open has one size limit per process."""

    def opened(file: BinaryIO) -> Header:
        image = reader(file)

        def decode(remarks: Remarks) -> Decoded:
            deep = _is_16_bit(image, file)
            image.load()
            decoded = from_pillow(image, remarks)
            if deep:
                decoded = of_16_bits(decoded, file, remarks)
                remarks.notes.append(REDUCED)
            _note_frames(image, remarks)
            return decoded

        return Header(image.size, decode, read_exif(image.getexif))

    return opened


def _png(file: BinaryIO) -> Header:
    chunks = png.read_chunks(file)

    def decode(remarks: Remarks) -> Decoded:
        pixels = png.only_pixels(file, chunks)
        image = PngImageFile(pixels)
        image.load()
        decoded = from_pillow(image, remarks)
        if chunks.bits == 16 and REDUCED not in remarks.notes:
            few = int(np.ptp(decoded.rgb)) <= 2 * (levels.NARROW >> 8)
            decoded = of_16_bits(decoded, pixels, remarks) if few else decoded
            remarks.notes.append(REDUCED)
        if chunks.frames > 1:
            remarks.notes.append(f"first of {chunks.frames} frames")
        return decoded

    def load_exif() -> Image.Exif:
        exif = Image.Exif()
        if chunks.exif:
            exif.load(chunks.exif)
        return exif

    return Header(chunks.size, decode, read_exif(load_exif))


def _jpeg(file: BinaryIO) -> Header:
    header = _by_pillow(JpegImageFile)(file)

    def decode(remarks: Remarks) -> Decoded:
        try:
            return header.decode(remarks)
        except OSError as error:
            if not re.search(CUT_SHORT, str(error), re.IGNORECASE):
                raise
            file.seek(0)
            image = _without_end(file.read())
            if image is None:
                raise
            remarks.notes.append("its end mark is missing, its pixels are whole")
            return from_pillow(image, remarks)

    return replace(header, decode=decode)


def _without_end(data: bytes) -> Image.Image | None:
    """Return the picture of a JPEG that lacks only its end mark, or None.

    A decoder without data goes on with any bits. A picture that does not depend on the bits appended was complete.
    This works for JPEGs of one scan only; with more scans a whole scan may be missing.
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


def _tiff(file: BinaryIO) -> Header:
    page = tiff.read_page(file)
    if page.is_preview:
        raise UnsupportedError("holds a preview and no picture, as camera raw files do", "develop it first")

    def decode(remarks: Remarks) -> Decoded:
        if tiff.is_log_luv(page):
            decoded = from_rare(rare.open_by_opencv(file, page.size), remarks)
        elif tiff.is_for_pillow(page):
            image = tiff.pillow_page(file, page)
            image.load()
            decoded = from_pillow(image, remarks)
        else:
            decoded = from_tiff(tiff.read_samples(file, page), page, remarks)
        if page.pages > 1:
            remarks.notes.append(f"first of {page.pages} pages")
        return decoded

    tags: dict[int, Any] = {}
    with suppress(ValueError, struct.error):  # a broken block is no reason to refuse the picture
        tags = dict(tiff.read_exif_numbers(file, page, CAMERA_TAGS))
    return Header(page.size, decode, Exif(page.orientation, tags))


def _rare(opener: Callable[[BinaryIO], rare.Rare]) -> Callable[[BinaryIO], Header]:

    def opened(file: BinaryIO) -> Header:
        found = opener(file)
        return Header(found.size, lambda remarks: from_rare(found, remarks))

    return opened


def _bmp(file: BinaryIO) -> Header:
    found = rare.open_bit_fields(file)
    if found is not None:
        return Header(found.size, lambda remarks: from_rare(found, remarks))
    file.seek(0)
    return _by_pillow(BmpImageFile)(file)


# Some of Pillow's formats start other programs (EPS) or match any bytes (TGA). MPO: the first picture, as plain JPEG.
_OPENERS: tuple[tuple[bytes, Callable[[BinaryIO], Header]], ...] = (
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


def _is_16_bit(image: ImageFile.ImageFile, file: BinaryIO) -> bool:
    """Return whether an opened file is JPEG 2000 with colours of 16 bits, which Pillow does not report."""
    if not isinstance(image, Jpeg2KImageFile) or image.mode.startswith("I"):
        return False
    position = file.tell()
    file.seek(0)
    head = file.read(1 << 16)
    file.seek(position)
    start = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, and the marker of its size
    return start >= 0 and head[start + 42 : start + 43] == b"\x0f"


def _note_frames(image: ImageFile.ImageFile, remarks: Remarks) -> None:
    """Add a note if the file holds more pictures. Call it last: counting may load another one."""
    try:
        count = int(getattr(image, "n_frames", 1))
    except Exception:  # the first is whole, those that follow are not
        remarks.notes.append("the first frame")
        return
    if count > 1:
        remarks.notes.append(f"main one of {count} pictures" if image.format == "HEIF" else f"first of {count} frames")
