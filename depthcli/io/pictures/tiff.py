"""Read the samples of the first page of TIFF files of any layout.

Pillow reads some layouts wrongly (planes of 16 bits) or not at all (colour in floats). So directory and samples are
read here: strips and tiles, samples together or in planes, 1 to 64 bits, both byte orders, BigTIFF, predictors. Only
unpacking is left to Pillow's libtiff, which gets the packed bytes as a plain 8-bit gray picture.
"""

from __future__ import annotations

import enum
import itertools
import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import IO, Any, Literal

import numpy as np
from PIL.TiffImagePlugin import COMPRESSION_INFO, TiffImageFile

from depthcli.io.pictures.levels import bands


class Tag(enum.IntEnum):
    """The tags that matter here, by their numbers in TIFF 6.0."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_COUNTS = 279
    MAX_SAMPLE = 281
    PLANAR = 284
    T4 = 292
    T6 = 293
    PREDICTOR = 317
    COLORMAP = 320
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_COUNTS = 325
    EXTRA = 338
    FORMAT = 339
    JPEG_TABLES = 347
    YCC_WEIGHTS = 529
    YCC_SUBSAMPLING = 530
    YCC_RANGE = 532
    EXIF = 34665
    DNG = 50706


DESCRIPTION = 270  # a text
_WANTED = frozenset(Tag)
# Type -> format of struct; two letters are a fraction.
_TYPES = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I"}
_TYPES |= {16: "Q", 17: "q", 18: "Q"}  # of BigTIFF

NONE, LZW, OLD_JPEG, JPEG, PACKBITS = 1, 5, 6, 7, 32773
_BYTE_PACKINGS = (NONE, LZW, 8, 32946, PACKBITS, 34925, 50000)  # also Deflate twice, LZMA and Zstandard
_CCITT = (2, 3, 4)
_CARRIED = (Tag.WIDTH, Tag.HEIGHT, Tag.BITS, Tag.SAMPLES, Tag.COMPRESSION, Tag.FILL_ORDER, Tag.PLANAR, Tag.T4, Tag.T6)
_CARRIED_TOO = (Tag.ROWS_PER_STRIP, Tag.TILE_WIDTH, Tag.TILE_HEIGHT, Tag.EXTRA, Tag.JPEG_TABLES, Tag.YCC_SUBSAMPLING)
# Upper bounds of the unpacked bytes per packed byte: a page that claims more is truncated.
_MOST_UNPACKED = {NONE: 1, PACKBITS: 64, LZW: 4096, 8: 1040, 32946: 1040}
_GROUP_BYTES = 1 << 25  # of samples, unpacked in one call

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIELAB: 3, ICCLAB: 3}
CUT = "the file is truncated"


@dataclass(frozen=True)
class Page:
    """The directory of a TIFF's first page.

    tags: the relevant tags, number to values. order: of bytes, "<" or ">". pages: number of pages in the file.
    """

    tags: dict[int, tuple[Any, ...]]
    order: Literal["<", ">"]
    pages: int

    def one(self, tag: int, default: int) -> int:
        """Return the first value of a tag."""
        return int(self.tags.get(tag, (default,))[0])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) as stored."""
        return self.one(Tag.WIDTH, 0), self.one(Tag.HEIGHT, 0)

    @property
    def orientation(self) -> int:
        """1 to 8 as in EXIF."""
        return self.one(Tag.ORIENTATION, 1)

    @property
    def is_preview(self) -> bool:
        """Whether the page is a preview, as the first page of camera raw files is."""
        return bool(self.one(Tag.SUBFILE, 0) & 1) or Tag.DNG in self.tags

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        return self.one(Tag.SAMPLES, max(1, len(self.tags.get(Tag.BITS, ()))))

    @property
    def bits(self) -> int:
        """Bits per sample."""
        return self.one(Tag.BITS, 1)

    @property
    def photometric(self) -> int:
        """What the samples mean; guessed by their number as libtiff does if the file leaves it out."""
        guess = WHITE_IS_ZERO if self.packing in _CCITT else BLACK_IS_ZERO if self.samples < 3 else RGB
        return self.one(Tag.PHOTOMETRIC, guess)

    @property
    def packing(self) -> int:
        """The number of the compression."""
        return self.one(Tag.COMPRESSION, NONE)

    @property
    def is_planar(self) -> bool:
        """Whether each channel has separate strips or tiles."""
        return self.one(Tag.PLANAR, 1) == 2 and self.samples > 1

    @property
    def colours(self) -> int:
        """How many of the samples are colour; 0 for a photometric interpretation that is not known here."""
        return _COLOURS.get(self.photometric, 0)

    @property
    def alpha(self) -> int:
        """0 for no alpha behind the colours, 1 for colours multiplied by it, 2 for colours that are not."""
        extra = self.tags.get(Tag.EXTRA, ())
        if self.samples <= self.colours:
            return 0
        if not extra:  # left out by writers of RGBA
            return 2 if self.photometric == RGB and self.samples == 4 else 0
        return 2 if extra[0] == 999 else int(extra[0]) if extra[0] in (1, 2) else 0  # 999: Corel Draw

    @property
    def max_sample(self) -> int:
        """The largest sample there can be by the file's own tag, else 0."""
        return int(max(self.tags.get(Tag.MAX_SAMPLE, (0,))))

    @property
    def subsampling(self) -> tuple[int, int]:
        """Pixels that share a colour, across and down; (1, 1) but for YCbCr."""
        if self.photometric != YCBCR:
            return 1, 1
        across, down = (*self.tags.get(Tag.YCC_SUBSAMPLING, (2, 2)), 2)[:2]
        return int(across), int(down)

    @property
    def colormap(self) -> np.ndarray:
        """(n, 3) uint8 colours of a palette."""
        values = np.array(self.tags[Tag.COLORMAP]).reshape(3, -1).T
        return (values if values.max() < 256 else values >> 8).astype(np.uint8)  # some writers take bytes

    @property
    def is_float(self) -> bool:
        """Whether the samples are floats."""
        return self.one(Tag.FORMAT, 1) == 3

    def dtype(self) -> np.dtype[Any]:
        """Return the type of the samples as `read_samples` has them. Raises ValueError for one that numpy lacks."""
        form, bits = self.one(Tag.FORMAT, 1), self.bits
        if len(set(self.tags.get(Tag.BITS, (1,)))) > 1:
            raise ValueError("its channels have different numbers of bits")
        kind = {1: "u", 2: "i", 3: "f", 4: "u"}.get(form)
        if kind == "u" and bits not in (8, 16, 32, 64) and 1 <= bits < 16:
            return np.dtype(np.uint8 if bits < 8 else np.uint16)
        if kind is None or bits not in ((16, 32, 64) if kind == "f" else (8, 16, 32, 64)):
            raise ValueError(f"its samples of {bits} bits in format {form} are not supported")
        return np.dtype(f"{kind}{bits // 8}")


def read_page(file: IO[bytes]) -> Page:
    """Return the first page of a TIFF file. Raises ValueError if its directory is damaged."""
    return _Directory(file).page()


def read_exif_numbers(file: IO[bytes], page: Page, wanted: Collection[int]) -> dict[int, float]:
    """Return the first number of each wanted tag in a page's EXIF. Raises ValueError if that is damaged."""
    place = page.one(Tag.EXIF, 0)
    tags = _Directory(file).tags(place, wanted) if place else {}
    return {tag: numbers[0] for tag, numbers in tags.items()}


def read_description(file: IO[bytes]) -> str:
    """Return the ImageDescription of a TIFF's first page, empty without one. Raises ValueError if it is damaged."""
    directory = _Directory(file)
    return bytes(map(int, directory.tags(directory.first, {DESCRIPTION}).get(DESCRIPTION, ()))).rstrip(b"\0").decode()


class _Directory:
    """Reads the directories of a file; no value is longer than the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        mark = self._bytes(0, 8)
        self._order: Literal["<", ">"] = "<" if mark[:2] == b"II" else ">"
        self._big = self._one(mark[2:4], "H") == 43
        self._word = "Q" if self._big else "I"
        self.first = self._one(self._bytes(8, 8) if self._big else mark[4:], self._word)

    def page(self) -> Page:
        tags = self.tags(self.first, _WANTED)
        seen, following = {self.first}, self._next(self.first)
        while following and following not in seen:
            seen.add(following)
            try:
                following = self._next(following)
            except ValueError:  # the first page is whole, what follows is not
                break
        return Page(tags, self._order, len(seen))

    def tags(self, directory: int, wanted: Collection[int]) -> dict[int, tuple[Any, ...]]:
        """Return the values of the wanted tags, as numbers."""
        start, length, step = self._entries(directory)
        table = self._bytes(start, length)
        inline = 8 if self._big else 4
        tags: dict[int, tuple[Any, ...]] = {}
        for at in range(0, length, step):
            tag, kind = self._one(table[at : at + 2], "H"), self._one(table[at + 2 : at + 4], "H")
            if tag not in wanted or tag in tags or kind not in _TYPES:
                continue
            count, value = self._one(table[at + 4 : at + 4 + inline], self._word), table[at + step - inline : at + step]
            form, parts = _TYPES[kind][0], len(_TYPES[kind])
            size = count * parts * struct.calcsize(f"={form}")
            if size > inline:
                value = self._bytes(self._one(value, self._word), size)
            numbers = struct.unpack(f"{self._order}{count * parts}{form}", value[:size])
            if parts == 2:  # fractions
                numbers = tuple(top / (bottom or 1) for top, bottom in zip(numbers[::2], numbers[1::2]))
            if numbers:
                tags[tag] = numbers
        return tags

    def _entries(self, directory: int) -> tuple[int, int, int]:
        """Return where a directory's entries begin, how many bytes they take, and how many each."""
        form, step = ("Q", 20) if self._big else ("H", 12)
        length = struct.calcsize(f"={form}")
        return directory + length, self._one(self._bytes(directory, length), form) * step, step

    def _next(self, directory: int) -> int:
        start, length, _ = self._entries(directory)
        return self._one(self._bytes(start + length, struct.calcsize(f"={self._word}")), self._word)

    def _one(self, data: bytes, form: str) -> int:
        return int(struct.unpack(self._order + form, data)[0])

    def _bytes(self, position: int, length: int) -> bytes:
        if position + length > self._length:
            raise ValueError(CUT)
        self._file.seek(position)
        return self._file.read(length)


# --- Samples ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chunks:
    """The strips or tiles of a page.

    offsets, counts: of packed bytes in the file. rows, columns: pixels of a chunk. down, across: number of chunks.
    row_bytes: of one row of an unpacked chunk. packed_rows: such rows in a chunk, fewer than `rows` if rows share their
    colours. last_rows: the same for the last chunk of a column.
    """

    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    rows: int
    columns: int
    down: int
    across: int
    row_bytes: int
    packed_rows: int
    last_rows: int
    tiled: bool

    def packed_rows_of(self, index: int) -> int:
        """Return how many rows of bytes a chunk has."""
        is_last = index % (self.down * self.across) // self.across == self.down - 1
        return self.last_rows if is_last else self.packed_rows


def is_log_luv(page: Page) -> bool:
    """Return whether a page is packed as LogLuv, floats of light that OpenCV can decode."""
    return page.packing in (34676, 34677)


def is_for_pillow(page: Page) -> bool:
    """Return whether a page is packed by a codec of pictures such as JPEG, and not by one of bytes."""
    return page.packing not in _BYTE_PACKINGS


def read_samples(file: IO[bytes], page: Page) -> np.ndarray:
    """Return the (H, W, C) samples of a page, of the type `Page.dtype`. C: colours, and alpha if there is one.

    YCbCr is not subsampled any more; a palette gives indices. Raises ValueError or OSError for a damaged page or an
    unknown layout.
    """
    (width, height), dtype = page.size, page.dtype()
    if not page.colours or page.samples < page.colours:
        raise ValueError(f"its photometric interpretation {page.photometric} is not supported")
    together = 1 if page.is_planar else page.samples
    chunks = _chunks(file, page, together)
    kept = page.colours + bool(page.alpha)
    samples = np.empty((height, width, kept), dtype)
    per_plane = chunks.down * chunks.across
    for index, data in _unpacked(file, page, chunks, per_plane * (kept if page.is_planar else 1)):
        plane, place = divmod(index, per_plane)
        top, left = place // chunks.across * chunks.rows, place % chunks.across * chunks.columns
        target = samples[top : top + chunks.rows, left : left + chunks.columns]
        values = _values(data, page, chunks.columns, together)
        values = values[: target.shape[0], : target.shape[1], :kept]
        target[..., plane : plane + values.shape[2]] = values
    return samples


def pillow_page(file: IO[bytes], page: Page) -> TiffImageFile:
    """Return a page that is packed by a codec of pictures, for Pillow to decode. Only the tags that matter go along."""
    if page.packing == OLD_JPEG:  # its parts lie anywhere in the file
        file.seek(0)
        image = TiffImageFile(file)
        image.getexif()[Tag.ORIENTATION] = 1  # or Pillow turns it
        return image
    if page.packing not in COMPRESSION_INFO:
        raise ValueError(f"its compression {page.packing} is not supported")
    chunks = _chunks(file, page, 1 if page.is_planar else page.samples)
    carried: dict[int, Sequence[Any]] = {tag: page.tags[tag] for tag in _CARRIED + _CARRIED_TOO if tag in page.tags}
    carried[Tag.PHOTOMETRIC] = (page.photometric,)
    return TiffImageFile(_small_tiff(carried, [_read(file, *place) for place in zip(chunks.offsets, chunks.counts)]))


def _chunks(file: IO[bytes], page: Page, together: int) -> _Chunks:
    """Return where the samples lie. together: samples of a pixel in one chunk. Raises ValueError for a short file."""
    width, height = page.size
    tiled = Tag.TILE_OFFSETS in page.tags
    rows = page.one(Tag.TILE_HEIGHT if tiled else Tag.ROWS_PER_STRIP, height) or height
    columns = page.one(Tag.TILE_WIDTH, width) if tiled else width
    if min(width, height, rows, columns) < 1:
        raise ValueError("it has no size")
    rows = rows if tiled else min(rows, height)
    down, across = -(-height // rows), -(-width // columns)
    number = down * across * (page.samples // together)
    offsets = page.tags.get(Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS, ())
    if len(offsets) < number:
        raise ValueError(CUT)
    wide, high = page.subsampling if together > 1 else (1, 1)
    blocks = -(-columns // wide)
    values = blocks * (wide * high + 2) if wide * high > 1 else columns * together
    row_bytes = -(-values * page.bits // 8)
    last = rows if tiled else height - (down - 1) * rows
    chunks = _Chunks(
        offsets[:number],
        page.tags.get(Tag.TILE_COUNTS if tiled else Tag.STRIP_COUNTS, ()),
        *(rows, columns, down, across),
        *(row_bytes, -(-rows // high), -(-last // high), tiled),
    )
    if page.packing == NONE:  # the lengths are known, and some writers leave them out or get them wrong
        counts = tuple(chunks.packed_rows_of(index) * row_bytes for index in range(number))
    else:
        counts = chunks.counts[:number]
    if len(counts) < number:
        raise ValueError(CUT)
    end = file.seek(0, os.SEEK_END)
    if any(offset + count > end for offset, count in zip(offsets, counts)):
        raise ValueError(CUT)
    claimed = number // down * row_bytes * ((down - 1) * chunks.packed_rows + chunks.last_rows)
    if page.packing in _MOST_UNPACKED and claimed > sum(counts) * _MOST_UNPACKED[page.packing]:
        raise ValueError(CUT)
    return replace(chunks, counts=counts)


def _unpacked(file: IO[bytes], page: Page, chunks: _Chunks, number: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index and the (rows, row_bytes) uint8 of the first `number` chunks, unpacked."""
    at_once = max(1, _GROUP_BYTES // max(1, chunks.packed_rows * chunks.row_bytes))
    first = 0
    while first < number:
        last = min(first + at_once, number)
        # libtiff needs a shorter strip to be the last one of its picture.
        last = next((i + 1 for i in range(first, last) if chunks.packed_rows_of(i) != chunks.packed_rows), last)
        heights = [chunks.packed_rows_of(index) for index in range(first, last)]
        packed = [_read(file, chunks.offsets[index], chunks.counts[index]) for index in range(first, last)]
        if page.packing == NONE:
            rows = np.frombuffer(b"".join(packed), np.uint8).reshape(-1, chunks.row_bytes)
            rows = _MIRRORED[rows] if page.one(Tag.FILL_ORDER, 1) == 2 else rows
        else:
            tags = {Tag.WIDTH: chunks.row_bytes, Tag.HEIGHT: sum(heights), Tag.ROWS_PER_STRIP: heights[0]}
            tags |= {Tag.BITS: 8, Tag.SAMPLES: 1, Tag.PHOTOMETRIC: BLACK_IS_ZERO}
            tags |= {Tag.COMPRESSION: page.packing, Tag.FILL_ORDER: page.one(Tag.FILL_ORDER, 1)}
            rows = np.asarray(TiffImageFile(_small_tiff({tag: (value,) for tag, value in tags.items()}, packed)))
        yield from zip(range(first, last), np.split(rows, np.cumsum(heights)[:-1]))
        first = last


_MIRRORED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def _values(data: np.ndarray, page: Page, columns: int, together: int) -> np.ndarray:
    """Return (rows, columns, together) samples, and for shared colours a few more, of a chunk's (rows, bytes)."""
    bits, dtype, predictor = page.bits, page.dtype(), page.one(Tag.PREDICTOR, 1)
    (wide, high), rows = page.subsampling, len(data)
    if together > 1 and wide * high > 1:
        if bits != 8 or together != 3 or predictor != 1:
            raise ValueError("its colours are shared by pixels in a way that is not supported")
        blocks = data.reshape(rows, -1, wide * high + 2)
        luma = blocks[..., :-2].reshape(rows, -1, high, wide).swapaxes(1, 2).reshape(rows * high, -1)
        chroma = blocks[..., -2:].repeat(high, axis=0).repeat(wide, axis=1)
        return np.dstack([luma, chroma])
    if bits % 8:  # packed bits; each row begins at a byte
        values = np.zeros((rows, columns * together), dtype)
        for band in bands(values):
            ones = np.unpackbits(data[band], axis=1)
            for bit in range(bits):
                values[band] = values[band] << 1 | ones[:, bit : values.shape[1] * bits : bits]
        return values.reshape(rows, columns, together)
    if predictor == 3:  # bytes in planes, the highest first, each less the one before it
        apart = data.reshape(rows, -1, together).cumsum(axis=1, dtype=np.uint8).reshape(rows, bits // 8, -1)
        whole = np.ascontiguousarray(apart.swapaxes(1, 2))
        return whole.view(dtype.newbyteorder(">")).reshape(rows, columns, together)
    values = np.ascontiguousarray(data).view(dtype.newbyteorder(page.order)).reshape(rows, columns, together)
    if predictor == 2:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        plain = np.ascontiguousarray(values.astype(dtype, copy=False)).view(unsigned)
        return plain.cumsum(axis=1, dtype=unsigned).view(dtype)
    if predictor != 1:
        raise ValueError(f"its predictor {predictor} is not supported")
    return values


def _read(file: IO[bytes], offset: int, count: int) -> bytes:
    file.seek(offset)
    data = file.read(count)
    if len(data) < count:
        raise ValueError(CUT)
    return data


def _small_tiff(tags: Mapping[int, Sequence[Any]], chunks: Sequence[bytes]) -> BytesIO:
    """Return a TIFF of one page from its tags and its strips or tiles."""
    tiled = Tag.TILE_WIDTH in tags
    lengths = [len(chunk) for chunk in chunks]
    starts = [8 + before for before in itertools.accumulate([0, *lengths[:-1]])]
    tags = {
        **tags,
        (Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS): starts,
        (Tag.TILE_COUNTS if tiled else Tag.STRIP_COUNTS): lengths,
    }
    end = 8 + sum(lengths)
    directory, behind = struct.pack("<H", len(tags)), b""
    place = end + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        form, kind = ("B", 7) if tag == Tag.JPEG_TABLES else ("I", 4)
        value = struct.pack(f"<{len(tags[tag])}{form}", *tags[tag])
        directory += struct.pack("<2HI", tag, kind, len(tags[tag]))
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack("<I", place + len(behind))
            behind += value + bytes(len(value) % 2)
    return BytesIO(b"".join([b"II*\0", struct.pack("<I", end), *chunks, directory, bytes(4), behind]))
