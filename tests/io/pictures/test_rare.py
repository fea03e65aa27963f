"""Kinds of pictures that OpenCV reads and Pillow does not, each by bytes that are made here."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from depthcli.errors import PictureError
from depthcli.io.pictures.images import picture_size, read_picture

Y, X = np.mgrid[:19, :22]
RGB = np.dstack([X * 11, Y * 13, X * 5 + Y * 7]).astype(np.uint8)
GRAY = ((X * 11 + Y * 5) % 256).astype(np.uint8)
LIGHT = ((RGB / np.float32(255)) ** 2.2 * 3).astype(np.float32)


def three(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def by_opencv(suffix: str, rgb: np.ndarray) -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]) if rgb.ndim == 3 else rgb)[1].tobytes()


def pam(depth: int, top: int, pixels: bytes) -> bytes:
    return b"P7\n# made by hand\nWIDTH 22\nHEIGHT 19\nDEPTH %d\nMAXVAL %d\nENDHDR\n" % (depth, top) + pixels


def sun(bits: int, palette: bytes, pixels: bytes) -> bytes:
    head = struct.pack(">8I", 0x59A66A95, 22, 19, bits, len(pixels), 1, bool(palette), len(palette))
    return head + palette + pixels


def pfm(mark: bytes, order: str, values: np.ndarray) -> bytes:
    return mark + b"\n22 19\n" + (b"-1.0\n" if order == "<" else b"1.0\n") + values[::-1].astype(f"{order}f4").tobytes()


EXACT = {
    "PGM": (b"P5 22 19 255\n" + GRAY.tobytes(), three(GRAY)),
    "PGM of 16 bits": (b"P5\n#c\n22 19\n65535\n" + (GRAY.astype(np.uint16) * 257).astype(">u2").tobytes(), three(GRAY)),
    "PGM of 12 bits": (b"P5\n22 19\n4080\n" + (GRAY.astype(np.uint16) * 16).astype(">u2").tobytes(), three(GRAY)),
    "PPM of 16 bits": (b"P6\n22 19\n65535\n" + (RGB.astype(np.uint16) * 256 + 255).astype(">u2").tobytes(), RGB),
    "PAM": (pam(3, 255, RGB.tobytes()), RGB),
    "PAM of 16 bits": (pam(1, 65535, (GRAY.astype(np.uint16) * 257).astype(">u2").tobytes()), three(GRAY)),
    "PAM with alpha": (pam(4, 255, np.dstack([RGB, np.full_like(GRAY, 255)]).tobytes()), RGB),
    "Sun raster": (sun(24, b"", RGB[..., ::-1].tobytes()), RGB),
    "Sun raster, gray": (sun(8, b"", GRAY.tobytes()), three(GRAY)),
    "Sun raster, palette": (
        sun(8, bytes(range(256)) + bytes(range(255, -1, -1)) + bytes(range(256)), GRAY.tobytes()),
        np.dstack([GRAY, 255 - GRAY, GRAY]),
    ),
}


@pytest.mark.parametrize("kind", EXACT)
def test_whole_numbers_come_back_exactly(kind: str) -> None:
    data, expected = EXACT[kind]
    assert np.array_equal(read_picture(data).rgb, expected)
    assert picture_size(data) == (22, 19)


@pytest.mark.parametrize("kind", EXACT)
def test_a_file_that_is_cut_short_is_refused(kind: str) -> None:
    data, _ = EXACT[kind]
    for length in (30, len(data) // 2, len(data) - 1):
        with pytest.raises(PictureError):
            read_picture(data[:length])


@pytest.mark.parametrize("order", "<>")
def test_pfm_is_gray_without_a_range_or_light(order: str) -> None:
    gray = read_picture(pfm(b"Pf", order, LIGHT[..., 0]))
    assert np.array_equal(gray.rgb, three(np.round(LIGHT[..., 0].astype(float) * (255 / LIGHT[..., 0].max()))))
    colour = read_picture(pfm(b"PF", order, LIGHT))
    assert "linear light" in colour.notes[0] and colour.rgb.max() == 255
    assert np.array_equal(np.argsort(colour.rgb[0, :12, 0]), np.arange(12))


def test_hdr_is_light() -> None:
    picture, same = read_picture(by_opencv(".hdr", LIGHT)), read_picture(pfm(b"PF", "<", LIGHT))
    assert "linear light" in picture.notes[0]
    assert np.abs(picture.rgb.astype(int) - same.rgb).mean() < 2  # its colours share an exponent
    for length in (50, 200, 700):
        with pytest.raises(PictureError):
            read_picture(by_opencv(".hdr", LIGHT)[:length])


def bmp(bits: int, masks: tuple[int, ...], pixels: np.ndarray, height: int = 19) -> bytes:
    rows = pixels.reshape(19, -1)[:: 1 if height < 0 else -1]
    data = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows)
    fields = struct.pack(f"<{len(masks)}I", *masks)
    length = 40 if len(masks) == 3 else 56
    head = struct.pack("<IiiHHIIiiII", length, 22, height, 1, bits, 3, len(data), 0, 0, 0, 0) + fields
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(data), 0, 0, 14 + len(head)) + head + data


@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF)])
def test_bmp_with_fields_of_16_bits(masks: tuple[int, ...]) -> None:
    pixels, expected = np.zeros((19, 22), "<u2"), np.zeros((19, 22, 3))
    for channel, mask in enumerate(masks):
        shift = (mask & -mask).bit_length() - 1
        value = RGB[..., channel].astype(int) * (mask >> shift) // 255
        pixels |= (value << shift).astype("<u2")
        expected[..., channel] = np.round(value * (255 / (mask >> shift)))
    for height in (19, -19):
        assert np.array_equal(read_picture(bmp(16, masks, pixels, height)).rgb, expected)


@pytest.mark.parametrize("shifts", [(0, 8, 16), (24, 16, 8), (20, 10, 0)])
def test_bmp_with_fields_of_32_bits(shifts: tuple[int, ...]) -> None:
    wide = 2 if shifts[0] == 20 else 0  # fields of 10 bits
    pixels = sum(RGB[..., channel].astype("<u4") << (shift + wide) for channel, shift in enumerate(shifts))
    masks = tuple((255 << wide | 3 * bool(wide)) << shift for shift in shifts)
    data = bmp(32, masks, np.asarray(pixels, "<u4"))
    assert np.array_equal(read_picture(data).rgb, RGB)
    with pytest.raises(PictureError, match="truncated"):
        read_picture(data[:-1])


def test_bmp_whose_alpha_nobody_filled_in_is_opaque() -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    pixels = (RGB[..., 0].astype("<u4") << 16) | (RGB[..., 1].astype("<u4") << 8) | RGB[..., 2]
    assert np.array_equal(read_picture(bmp(32, masks, pixels)).rgb, RGB)
    half = read_picture(bmp(32, masks, pixels | np.uint32(128 << 24)))
    assert np.abs(half.rgb - RGB * (128 / 255)).max() <= 1


@pytest.mark.parametrize(
    "head",
    [
        b"P5 60000 60000 255\n",
        b"P7\nWIDTH 9\nHEIGHT 9\nDEPTH 9\nMAXVAL 255\nENDHDR\n",
        b"P7\nWIDTH 9\n",
        b"P6 9 9 70000\n",
        b"PF 20000 20000 -1\n",
        b"#?RADIANCE\n\n-Y 20000 +X 20000\n",
        b"#?RADIANCE\n\n+X 20 -Y 20\n",
        struct.pack(">8I", 0x59A66A95, 20000, 20000, 24, 0, 1, 0, 0),
        struct.pack(">8I", 0x59A66A95, 20000, 20000, 24, 0, 2, 0, 0),
    ],
)
def test_headers_that_claim_too_much_or_nothing_are_refused_before_decoding(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PictureError):
        read_picture(head + bytes(100))
