"""Every kind of picture a folder may hold comes out as upright 8-bit RGB, or as one line that says what is wrong."""

from __future__ import annotations

import builtins
import io
import os
import random
import struct
import sys
import threading
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from depthcli.errors import PictureError
from depthcli.io.pictures import images, samples
from depthcli.io.pictures.exif import Exif
from depthcli.io.pictures.files import PICTURE_SUFFIXES, is_picture
from depthcli.io.pictures.images import picture_size, read_picture

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def quarters(width: int = 64, height: int = 32) -> np.ndarray:
    """A scene with no symmetry: red and green above, blue and white below."""
    rgb = np.zeros((height, width, 3), np.uint8)
    half_height, half_width = height // 2, width // 2
    rgb[:half_height, :half_width], rgb[:half_height, half_width:] = RED, GREEN
    rgb[half_height:, :half_width], rgb[half_height:, half_width:] = BLUE, WHITE
    return rgb


def busy(width: int = 64, height: int = 48) -> Image.Image:
    """A scene with detail everywhere, so that a missing piece shows."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 64, (height, width))
    return Image.fromarray(np.dstack([x * 3, y * 4, noise]).astype(np.uint8))


def encode(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def failure(source: Path | str | bytes, **options: object) -> PictureError:
    """The error that reading raises: one line, and a way out."""
    with pytest.raises(PictureError) as caught:
        read_picture(source, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


LOSSLESS = [
    ("PNG", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", {"lossless": True}),
    ("JPEG2000", {}),
]
LOSSY = [
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
    ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
]

# --- Formats ----------------------------------------------------------------------------------------------------------


def test_a_picture_is_rgb_bytes_in_one_piece_that_nobody_can_change(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(quarters(), "PNG"))
    picture = read_picture(path)
    assert picture.rgb.shape == (32, 64, 3)
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.flags.c_contiguous
    assert not picture.rgb.flags.writeable
    assert picture.size == (64, 32)
    assert picture.name == str(path)
    assert picture.notes == ()


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_lossless_formats_come_back_bit_for_bit(kind: str, options: dict) -> None:
    picture = read_picture(encode(quarters(), kind, **options))
    assert np.array_equal(picture.rgb, quarters())
    assert picture.notes == ()


@pytest.mark.parametrize(("kind", "options"), LOSSY)
def test_lossy_formats_come_back_nearly(kind: str, options: dict) -> None:
    assert difference(read_picture(encode(quarters(), kind, **options)).rgb, quarters()) <= 4


def test_a_jpeg_gives_what_the_reference_reads() -> None:
    cv2 = pytest.importorskip("cv2")
    for options in ({}, {"quality": 60}, {"progressive": True}, {"subsampling": 0}):
        data = encode(busy(101, 67), "JPEG", **options)
        reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert difference(read_picture(data).rgb, reference) == 0


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(quarters(), "PNG"))
    assert np.array_equal(read_picture(path).rgb, quarters())


@pytest.mark.parametrize("name", ["with space.png", "Höhe – 深度.png", "a'b\"c;d.png", "#%41.png"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encode(quarters(), "PNG"))
    assert np.array_equal(read_picture(str(path)).rgb, quarters())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2000, 40), (40, 2000), (3, 5)])
def test_any_shape_will_do(size: tuple[int, int]) -> None:
    assert np.array_equal(read_picture(encode(quarters(*size), "PNG")).rgb, quarters(*size))


def test_large_pictures_are_copied_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_BAND_PIXELS", 64 * 5)
    assert np.array_equal(read_picture(encode(quarters(), "PNG")).rgb, quarters())


def test_the_name_can_be_given() -> None:
    assert read_picture(encode(quarters(), "PNG"), name="inbox/a.png").name == "inbox/a.png"
    assert failure(b"", name="inbox/a.png").message.startswith("inbox/a.png ")


# --- Orientation ------------------------------------------------------------------------------------------------------

# What a camera stores for the scene under each value of the EXIF orientation.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", LOSSY[0][1])])
def test_every_exif_orientation_comes_out_upright(kind: str, options: dict, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](quarters()))
    picture = read_picture(encode(stored, kind, exif=exif(orientation), **options))
    assert difference(picture.rgb, quarters()) <= 4
    assert picture.rgb.flags.c_contiguous


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_every_tiff_orientation_comes_out_upright(compression: str | None, orientation: int) -> None:
    stored = np.ascontiguousarray(STORED[orientation](quarters()))
    data = encode(stored, "TIFF", compression=compression, tiffinfo={274: orientation})
    assert np.array_equal(read_picture(data).rgb, quarters())


def test_an_avif_turns_once() -> None:
    data = encode(np.ascontiguousarray(np.rot90(quarters())), "AVIF", exif=exif(6), quality=95, subsampling="4:4:4")
    assert difference(read_picture(data).rgb, quarters()) <= 4


@pytest.mark.parametrize("block", [exif(0), exif(9), b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12", b"nonsense"])
def test_an_exif_block_that_makes_no_sense_is_ignored(block: bytes) -> None:
    assert difference(read_picture(encode(quarters(), "JPEG", exif=block, **LOSSY[0][1])).rgb, quarters()) <= 4


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_size_by_the_header_is_that_of_the_picture(kind: str, orientation: int) -> None:
    data = encode(quarters(), kind, exif=exif(orientation))
    assert picture_size(data) == read_picture(data).size


def test_the_size_of_a_png_costs_no_decoding_wherever_its_exif_is(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(quarters(), "PNG")
    turned = data[:-12] + chunk(b"eXIf", exif(6)[6:] if exif(6).startswith(b"Exif") else exif(6)) + data[-12:]
    assert read_picture(turned).size == (32, 64)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert picture_size(data) == (64, 32)
    assert picture_size(turned) == (32, 64)


# --- Modes ------------------------------------------------------------------------------------------------------------


def row(image: Image.Image, kind: str = "PNG", **options: object) -> list[tuple[int, ...]]:
    """The pixels of the picture's first row, after writing and reading it."""
    return [tuple(int(v) for v in pixel) for pixel in read_picture(encode(image, kind, **options)).rgb[0]]


def gray(*levels: int) -> list[tuple[int, int, int]]:
    return [(level, level, level) for level in levels]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    assert row(Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1"), kind) == gray(0, 255, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_gray_is_repeated(kind: str) -> None:
    assert row(Image.fromarray(np.array([[0, 7, 255]], np.uint8)), kind) == gray(0, 7, 255)


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([2, 0, 1])
    for kind in ("PNG", "GIF", "TIFF", "BMP"):
        assert row(image, kind) == [BLUE, RED, GREEN]


def test_alpha_is_composited_on_black() -> None:
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 128], [200, 100, 50, 0]]], np.uint8)
    for kind, options in [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})]:
        picture = read_picture(encode(rgba, kind, **options))
        assert difference(picture.rgb[0], np.array([[200, 100, 50], [100, 50, 25], [0, 0, 0]])) <= 1
        assert picture.notes == ("alpha composited on black",)


def test_alpha_that_hides_nothing_changes_nothing() -> None:
    picture = read_picture(encode(Image.fromarray(quarters()).convert("RGBA"), "PNG"))
    assert np.array_equal(picture.rgb, quarters())
    assert picture.notes == ()


@pytest.mark.parametrize("orientation", STORED)
def test_transparent_pixels_are_not_valid_where_that_is_asked_for(orientation: int) -> None:
    rgba = np.dstack([quarters(), np.full((32, 64), 255, np.uint8)])
    rgba[:8, :20, 3], rgba[20:, 50:, 3] = 0, 128
    expected = np.ones((32, 64), bool)
    expected[:8, :20] = False
    data = encode(np.ascontiguousarray(STORED[orientation](rgba)), "PNG", exif=exif(orientation))
    picture = read_picture(data, keep_alpha=True)
    assert picture.valid is not None and picture.valid.dtype == bool
    assert np.array_equal(picture.valid, expected) and not picture.valid.flags.writeable
    assert read_picture(data).valid is None
    assert np.array_equal(read_picture(data).rgb, picture.rgb)


def test_all_is_valid_without_alpha() -> None:
    for image in (Image.fromarray(quarters()), Image.fromarray(quarters()).convert("RGBA")):
        assert read_picture(encode(image, "PNG"), keep_alpha=True).valid is None
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    valid = read_picture(encode(palette, "GIF", transparency=1), keep_alpha=True).valid
    assert valid is not None and valid.tolist() == [[True, False]]


def test_gray_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (1, 1), 200), Image.new("L", (1, 1), 51)])
    assert row(image) == gray(40)


def test_one_transparent_colour_becomes_black() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putdata([0, 1])
    assert row(palette, "PNG", transparency=0) == [BLACK, GREEN]
    assert row(palette, "PNG", transparency=b"\xff\x00") == [RED, BLACK]
    assert row(palette, "GIF", transparency=1) == [RED, BLACK]
    assert row(Image.fromarray(np.array([[RED, GREEN]], np.uint8)), "PNG", transparency=RED) == [BLACK, GREEN]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_gray_keeps_the_upper_8_as_the_reference_does(kind: str) -> None:
    values = np.array([[0, 255, 256, 32767, 32768, 65535]], np.uint16)
    picture = read_picture(encode(values, kind))
    assert picture.rgb[0, :, 0].tolist() == [0, 0, 1, 127, 128, 255]
    assert picture.notes == ("16 bits per channel reduced to 8",)


def test_16_bit_gray_of_the_other_byte_order() -> None:
    image = Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 0x1234, 0xFFFF))
    assert row(image, "TIFF") == gray(0x12, 255)


def chunk(kind: bytes, data: bytes, total: int | None = None) -> bytes:
    """A chunk of a PNG; total: a wrong check sum."""
    total = zlib.crc32(kind + data) if total is None else total
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", total)


def png(samples: np.ndarray, colour: int, *before: bytes, end: bytes = chunk(b"IEND", b"")) -> bytes:
    """A PNG of (H, W, C) uint8 or uint16 samples, and chunks before its pixels."""
    rows = b"".join(b"\0" + row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 8 * samples.itemsize, colour, 0, 0, 0)
    packed = zlib.compress(rows)
    data = chunk(b"IDAT", packed[:50]) + chunk(b"IDAT", packed[50:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(before) + data + end


def test_16_bit_colour_keeps_the_upper_8() -> None:
    picture = read_picture(png(np.array([[[0x12FF, 0x3400, 0xFFFF]]], np.uint16), 2))
    assert picture.rgb.tolist() == [[[0x12, 0x34, 0xFF]]]
    assert picture.notes == ("16 bits per channel reduced to 8",)


def ramp(lowest: int, highest: int) -> np.ndarray:
    """16 bits from lowest to highest, not in the order of the picture."""
    values = np.linspace(lowest, highest, 64 * 48).round().astype(np.uint16)
    return np.random.default_rng(0).permutation(values).reshape(48, 64)


@pytest.mark.parametrize(("lowest", "highest"), [(29108, 30248), (0, 4095), (100, 1000), (60000, 65000), (0, 8000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bits_that_hold_little_are_spread_and_that_is_a_warning(kind: str, lowest: int, highest: int) -> None:
    values = ramp(lowest, highest)
    picture = read_picture(encode(values, kind))
    expected = (values - lowest) * (255 / (highest - lowest))
    assert np.abs(picture.rgb[..., 1] - expected).max() <= 1.5
    (warning,) = picture.warnings
    assert warning.startswith("nearly all of its 16-bit values lie from ") and "spread" in warning


def test_dead_pixels_and_masked_ones_do_not_hide_that_16_bits_hold_little() -> None:
    values = ramp(29108, 30248)
    values[:, :16], values[5, 20] = 0, 65535
    picture = read_picture(encode(values, "PNG"))
    assert picture.warnings and picture.rgb[:, 16:, 0].std() > 60
    assert (picture.rgb[:, :16] == 0).all() and (picture.rgb[5, 20] == 255).all()


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_that_hold_little_are_spread_together(alpha: bool) -> None:
    values = np.dstack([ramp(20000, 21000), ramp(20500, 22000), ramp(20000, 20500)])
    data = png(np.dstack([values, np.full_like(values[..., 0], 65535)]), 6) if alpha else png(values, 2)
    for whole in (data, data[:-12]):
        picture = read_picture(whole)
        assert np.abs(picture.rgb - (values - 20000.0) * (255 / 2000)).max() <= 1.5
        assert len(picture.warnings) == 1


def test_ordinary_16_bits_are_the_upper_8_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[:48, :64]
    dark = np.dstack([x * 140, y * 180, x * 90 + y * 60]).astype(np.uint16)  # a seventh of the range
    full = np.dstack([x * 1000, y * 1300, x * 500 + y * 600]).astype(np.uint16)
    flat = np.full((48, 64, 3), 12345, np.uint16)
    for values in (dark, full, flat, np.where(full > 30000, np.uint16(65535), np.uint16(0))):
        for suffix in (".png", ".tiff", ".ppm", ".jp2"):
            data = cv2.imencode(suffix, values[..., ::-1])[1].tobytes()
            picture = read_picture(data)
            assert np.array_equal(picture.rgb, values >> 8), suffix
            assert picture.warnings == ()
            assert picture.notes == ("16 bits per channel reduced to 8",)


def test_integers_of_32_bit_are_scaled_from_least_to_greatest() -> None:
    picture = read_picture(encode(np.array([[-1000, 0, 1000]], np.int32), "TIFF"))
    assert picture.rgb[0, :, 0].tolist() == [0, 128, 255]
    assert picture.notes == ("values from -1000 to 1000 scaled to 0..255",)


def test_floats_are_scaled_over_what_is_finite() -> None:
    picture = read_picture(encode(np.array([[0, 0.5, 1, np.nan, np.inf, -np.inf]], np.float32), "TIFF"))
    assert picture.rgb[0, :, 0].tolist() == [0, 128, 255, 0, 255, 0]
    assert picture.notes == ("values from 0 to 1 scaled to 0..255",)


def test_floats_at_the_ends_of_their_range() -> None:
    huge = np.finfo(np.float32).max
    assert row(Image.fromarray(np.array([[-huge, huge]], np.float32)), "TIFF") == gray(0, 255)
    assert row(Image.fromarray(np.array([[3, 3]], np.float32)), "TIFF") == gray(0, 0)
    assert "no finite value" in failure(encode(np.array([[np.nan]], np.float32), "TIFF")).message


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("TIFF", {})])
def test_cmyk_has_its_colours_and_not_their_negative(kind: str, options: dict) -> None:
    data = encode(Image.fromarray(quarters()).convert("CMYK"), kind, **options)
    assert difference(read_picture(data).rgb, quarters()) <= 6


def test_ycbcr_and_lab_are_converted() -> None:
    scene = Image.fromarray(quarters())
    assert difference(read_picture(encode(scene.convert("YCbCr"), "TIFF", compression="tiff_lzw")).rgb, quarters()) <= 2
    mild = Image.new("RGB", (4, 4), (180, 120, 90))
    lab = ImageCms.profileToProfile(
        mild, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert difference(read_picture(encode(lab, "TIFF")).rgb, np.asarray(mild)) <= 3


def test_a_colour_profile_is_ignored_as_by_the_reference() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    for data in (encode(quarters(), "PNG", icc_profile=profile), encode(quarters(), "PNG", icc_profile=b"broken")):
        assert np.array_equal(read_picture(data).rgb, quarters())


# --- More than one picture in a file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_of_several_is_taken_and_that_is_said(kind: str) -> None:
    others = [Image.new("RGB", (64, 32), colour) for colour in (BLACK, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "AVIF" else {}
    data = encode(quarters(), kind, save_all=True, append_images=others, **options)
    picture = read_picture(data)
    assert difference(picture.rgb[4:12, 4:28], quarters()[4:12, 4:28]) <= 4
    assert picture.notes == (f"first of 3 {'pages' if kind == 'TIFF' else 'frames'}",)


def test_a_whole_first_frame_is_enough() -> None:
    data = encode(quarters(), "GIF", save_all=True, append_images=[busy(64, 32)])
    assert np.array_equal(read_picture(data[: len(data) * 2 // 3]).rgb, quarters())
    pages = encode(quarters(), "TIFF", save_all=True, append_images=[busy(64, 32), busy(64, 32)])
    for cut in range(len(pages) // 3 + 200, len(pages), 97):
        assert np.array_equal(read_picture(pages[:cut]).rgb, quarters())


def test_of_two_pictures_in_one_jpeg_the_first_is_taken() -> None:
    data = encode(quarters(), "MPO", save_all=True, append_images=[busy(64, 32)], quality=95, subsampling=0)
    assert difference(read_picture(data).rgb, quarters()) <= 4


# --- What a picture does without --------------------------------------------------------------------------------------

LONG = zlib.compress(bytes(3_000_000))
BESIDE = {
    "packed text": chunk(b"zTXt", b"workflow\0\0" + LONG),
    "packed international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
    "text": chunk(b"tEXt", b"workflow\0" + b"a" * 3_000_000),
    "many texts": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(900_000))) * 90,
    "profile": chunk(b"iCCP", b"icc\0\0" + LONG),
    "broken profile": chunk(b"iCCP", b"icc\0\0broken"),
    "sum of a text": chunk(b"tEXt", b"a\0b", total=5),
    "sum of transparency": chunk(b"tRNS", bytes(6), total=5),
    "unknown": chunk(b"vpAg", b"123456789"),
    "short": chunk(b"gAMA", b"1"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_a_png_is_read_whatever_stands_beside_its_pixels(kind: str) -> None:
    picture = read_picture(png(quarters(), 2, BESIDE[kind]))
    assert np.array_equal(picture.rgb, quarters())
    assert picture.notes == ()


def test_a_png_needs_no_end_but_all_of_its_pixels() -> None:
    assert np.array_equal(read_picture(png(quarters(), 2, end=b"")).rgb, quarters())
    assert np.array_equal(read_picture(png(quarters(), 2, end=b"trailing bytes")).rgb, quarters())
    data = png(np.asarray(busy()), 2, end=b"")
    for cut in (len(data) - 1, len(data) - 5, len(data) - 40, data.index(b"IDAT") + 4 + 50 + 4):
        for end in (b"", chunk(b"IEND", b"")):
            failure(data[:cut] + end)


def test_a_png_that_claims_more_than_its_bytes_can_hold_is_refused_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", LONG) + chunk(b"IEND", b"")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "truncated" in failure(data).message


def test_frames_that_a_png_has_for_other_readers_are_not_counted_with_its_picture() -> None:
    others = [Image.new("RGB", (64, 32), colour) for colour in (BLACK, GREEN)]
    data = encode(quarters(), "PNG", save_all=True, append_images=others, default_image=True)
    picture = read_picture(data)
    assert np.array_equal(picture.rgb, quarters())
    assert picture.notes == ("first of 3 frames",)


def test_a_jpeg_without_its_end_mark_is_read_where_its_pixels_are_whole() -> None:
    for image in (busy(), busy(101, 67), Image.fromarray(quarters()), busy().convert("L")):
        data = encode(image, "JPEG", quality=90)
        for whole in (data[:-2], data[:-1]):
            picture = read_picture(whole)
            assert np.array_equal(picture.rgb, read_picture(data).rgb)
            assert picture.notes == ("its end mark is missing, its pixels are whole",)
        assert np.array_equal(read_picture(data[:-2] + b"\0\0").rgb, read_picture(data).rgb)
        for cut in (8, 20, 60, 200):
            assert "truncated" in failure(data[:-cut]).message
    with_thumbnail = encode(busy(), "JPEG", exif=exif(1) + encode(busy(), "JPEG"))
    assert np.array_equal(read_picture(with_thumbnail[:-2]).rgb, read_picture(with_thumbnail).rgb)
    failure(encode(busy(), "JPEG", progressive=True)[:-2])  # more scans may be missing


# --- Files that are no pictures ---------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    error = failure(tmp_path / "none.jpg")
    assert error.message == f"{tmp_path / 'none.jpg'} does not exist"


def test_a_folder(tmp_path: Path) -> None:
    assert failure(tmp_path).message == f"{tmp_path} is a folder, not a picture"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "is not a file" in failure(tmp_path / "pipe.jpg").message


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    monkeypatch.setattr(builtins, "open", refuse)
    assert "permission denied" in failure(path).message


def test_a_disk_that_fails() -> None:
    class Failing(io.BytesIO):
        def read(self, *args: object) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(PictureError, match=r"a\.jpg cannot be read from its disk"):
        images._read(Failing(), "a.jpg", 100)


@pytest.mark.parametrize("name", ["a\0b.png", "a" * 300 + ".png", "a\nb.png", "a\x1b[31mb.png", "\udcff.png"])
def test_names_that_no_file_has(name: str) -> None:
    message = failure(name).message
    assert message.isprintable()
    message.encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (bytes(1000), "holds zeros"),
        (b"hello", "is not a picture"),
        (b"\x89PNG", "is not a picture"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\n <HTML><body>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "a video"),
        (b"\0\0\0\x14ftypqt  ", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "a video"),
        (b"PK\x03\x04", "an archive"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, said: str) -> None:
    error = failure(data, name="a.jpg")
    assert error.message.startswith("a.jpg ")
    assert said in error.message


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}])
def test_the_preview_in_a_camera_raw_file_is_not_the_picture(tags: dict) -> None:
    assert "camera raw" in failure(encode(quarters(), "TIFF", tiffinfo=tags)).message


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"hevc\0\0\0\0msf1hevc"])
def test_heic_without_the_extra_names_the_extra(brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    error = failure(b"\0\0\0\x18ftyp" + brands, name="a.heic")
    assert error.message.startswith("a.heic is HEIC")
    assert error.hint == 'pip install "depthcli[heif]"'


def test_heic_with_the_extra_is_read_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class HeifImageFile(ImageFile.ImageFile):
        format = "HEIF"
        n_frames = 2

        def _open(self) -> None:
            self._size, self._mode = (64, 32), "RGB"

        def load(self) -> None:
            self.im = Image.fromarray(quarters()).im

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(HeifImageFile=HeifImageFile))
    picture = read_picture(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert np.array_equal(picture.rgb, quarters())
    assert picture.notes == ("main one of 2 pictures",)


# --- Truncated, damaged, hostile --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [*LOSSLESS, *LOSSY, ("GIF", {})])
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_an_error_and_never_half_a_picture(kind: str, options: dict, part: float) -> None:
    data = encode(busy(), kind, **options)
    failure(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "PPM", "TIFF", "GIF"])
def test_a_truncated_file_is_called_so(kind: str) -> None:
    data = encode(busy(), kind)
    assert (
        failure(data[: len(data) * 2 // 3], name="a").message == "a is truncated: the file ends before the picture does"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_a_tail_of_zeros_as_broken_downloads_leave_it_is_an_error(kind: str) -> None:
    data = encode(busy(640, 480), kind)
    for part in (0.3, 0.6, 0.9):
        whole = int(len(data) * part)
        failure(data[:whole] + bytes(len(data) - whole))


def test_a_flipped_bit_in_a_png_is_an_error() -> None:
    data = encode(busy(), "PNG")
    for position in range(20, len(data) - 12, 37):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        failure(bytes(damaged))


def test_no_bytes_lead_to_any_other_error() -> None:
    draw = random.Random(0)
    options = {
        "GIF": {"save_all": True, "append_images": [busy()]},
        "PNG": {"exif": exif(6)},
        "JPEG": {"exif": exif(6)},
    }
    for kind in ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000", "TIFF"):
        data = encode(busy(), kind, **options.get(kind, {}))
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(draw.randint(1, 6)):
                damaged[draw.randrange(min(len(data), 400))] = draw.randrange(256)
            try:
                picture = read_picture(bytes(damaged), max_pixels=1_000_000)
            except PictureError as error:
                assert "\n" not in str(error)
            else:
                assert picture.rgb.dtype == np.uint8


def test_a_bomb_is_refused_from_its_header() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    error = failure(data + struct.pack(">I", 100) + b"IDAT", name="bomb.png")
    assert error.message == "bomb.png is too large: 60000x60000 pixels (3600 megapixels, the limit is 500)"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000", "TIFF"])
def test_the_limit_holds_for_every_format_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(quarters(), kind)
    assert read_picture(data, max_pixels=64 * 32).size == (64, 32)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "too large: 64x32 pixels" in failure(data, max_pixels=64 * 32 - 1).message


def test_too_little_memory_is_an_error_of_this_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    assert "does not fit into memory" in failure(encode(quarters(), "PNG")).message


# --- Manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "JPEG2000"])
def test_pillows_own_limit_does_not_count_here(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(quarters(), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 16 - 1)
    monkeypatch.setattr(samples, "_BAND_PIXELS", 64)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert read_picture(data).size == (64, 32)
    assert Image.MAX_IMAGE_PIXELS == 64 * 16 - 1


def test_warnings_are_notes_of_their_picture_and_their_filters_left_as_they_were() -> None:
    data = encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0\x12")
    with pytest.warns(UserWarning, match="EXIF"):
        Image.open(io.BytesIO(data)).getexif().get(0x0112)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [read_picture(data) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failure(data[:300])
        assert picture_size(data) == (64, 32)
        assert warnings.filters == before
        assert heard == []
    assert any("EXIF" in note for note in read_picture(data).notes)


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    for data in (encode(quarters(), "PNG"), encode(busy(), "PNG")[:500]):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            try:
                read_picture(path)
            except PictureError:
                pass
        path.unlink()


# --- What a folder job takes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", "a.b.jpeg", "a.png", "a.HEIC", "a.tiff", "a.webp", "a.avif", "a.gif"]
)
def test_a_picture_is_known_by_its_suffix(name: str) -> None:
    assert is_picture(Path("folder", name))


@pytest.mark.parametrize(
    "name", ["a.txt", "a.mp4", "a", ".jpg", "._a.jpg", ".hidden.png", "a.jpg.part", "a.npy", "a.pdf"]
)
def test_everything_else_is_passed_over(name: str) -> None:
    assert not is_picture(Path("folder", name))


def test_a_broken_picture_is_not_passed_over_but_named_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"<html>not found</html>")
    assert is_picture(path)
    assert failure(path).message == f"{path} is not a picture but a web page"


def test_suffixes_are_lower_case_with_their_dot() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in PICTURE_SUFFIXES)


# --- The camera -------------------------------------------------------------------------------------------------------


def taken_with(size: tuple[int, int], orientation: int = 1, **tags: object) -> bytes:
    """A JPEG with facts about its camera, by the names of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769).update({getattr(ExifTags.Base, name).value: value for name, value in tags.items()})
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_the_camera_is_that_of_exif_in_pixels_of_the_upright_picture() -> None:
    camera = read_picture(taken_with((360, 240), 6, FocalLengthIn35mmFilm=50)).camera
    assert camera and camera.source == "exif"
    assert np.allclose(camera.intrinsics, [[500, 0, 119.5], [0, 500, 179.5], [0, 0, 1]])


def test_the_focal_length_follows_from_the_sensor_if_its_equivalent_is_missing() -> None:
    # 100 and 120 pixels a millimetre of the sensor, of a picture that was made half as large since
    sensor = dict(FocalLength=IFDRational(20), FocalPlaneXResolution=IFDRational(1000), ExifImageWidth=720)
    sensor |= dict(FocalPlaneYResolution=IFDRational(1200), FocalPlaneResolutionUnit=3, ExifImageHeight=480)
    camera = read_picture(taken_with((360, 240), **sensor)).camera
    assert camera and np.allclose(np.diag(camera.intrinsics), [1000, 1200, 1])


@pytest.mark.parametrize("tags", [{}, {"FocalLengthIn35mmFilm": 0}, {"FocalLength": IFDRational(20)}])
def test_a_picture_that_does_not_say_its_camera_has_none(tags: dict[str, object]) -> None:
    assert read_picture(taken_with((36, 24), **tags)).camera is None


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_26_millimetres_at_12_megapixels_are_3029_pixels(orientation: int) -> None:
    tags = Exif(orientation, {0xA405: 26, 0xA002: 4032, 0xA003: 3024})
    camera = tags.camera((4032, 3024))
    assert camera and camera.source == "exif" and camera.focal == pytest.approx((3028.7, 3028.7), abs=0.5)
    assert camera.center == ((2015.5, 1511.5) if orientation < 5 else (1511.5, 2015.5))


def test_the_focal_length_of_a_picture_made_4_times_smaller_is_a_quarter() -> None:
    tags: dict[int, object] = {0x920A: 5.7, 0xA20E: 7100, 0xA210: 3, 0xA002: 4000, 0xA003: 3000}
    whole, small = Exif(1, tags).camera((4000, 3000)), Exif(1, tags).camera((1000, 750))
    assert whole and small and whole.focal == pytest.approx((4047, 4047)) and small.focal[0] == whole.focal[0] / 4
    del tags[0xA003]
    assert Exif(1, tags).camera((1000, 750)).focal == small.focal  # type: ignore[union-attr]


@pytest.mark.parametrize("unit,per_mm", [(2, 25.4), (3, 10), (4, 1), (5, 0.001)])
def test_the_unit_of_the_sensor_is_inch_cm_mm_or_um(unit: int, per_mm: float) -> None:
    camera = Exif(1, {0x920A: 20, 0xA20E: 100 * per_mm, 0xA210: unit}).camera((360, 240))
    assert camera and camera.focal == pytest.approx((2000, 2000))


@pytest.mark.parametrize("taken", [(360, 240), (240, 360), (720, 480)])
def test_turned_or_smaller_pictures_are_not_cropped_ones(taken: tuple[int, int]) -> None:
    camera = Exif(1, {0xA405: 50, 0xA002: taken[0], 0xA003: taken[1]}).camera((360, 240))
    assert camera and camera.source == "exif" and camera.focal == pytest.approx((500, 500))


def test_a_cropped_picture_has_the_focal_length_of_the_whole_one_and_says_so() -> None:
    picture = read_picture(taken_with((240, 240), FocalLengthIn35mmFilm=50, ExifImageWidth=360, ExifImageHeight=240))
    assert picture.camera and picture.camera.source == "exif-cropped"
    assert picture.camera.focal == pytest.approx((500, 500)) and picture.camera.center == (119.5, 119.5)
    sensor = {0x920A: 20, 0xA20E: 1000, 0xA210: 3, 0xA002: 720, 0xA003: 480}
    camera = Exif(1, sensor).camera((240, 240))
    assert camera and camera.source == "exif-cropped" and camera.focal == (2000, 2000)


def test_a_negative_equivalent_counts_as_none() -> None:
    camera = Exif(1, {0xA405: -13, 0x920A: 20, 0xA20E: 1000, 0xA210: 3}).camera((360, 240))
    assert camera and camera.focal == (2000, 2000)


def test_a_tiff_has_the_camera_of_its_exif_too() -> None:
    tags = ImageFileDirectory_v2()
    tags[0x0112], tags[0x8769] = 6, {0xA405: 50}
    stream = io.BytesIO()
    Image.new("RGB", (360, 240)).save(stream, "TIFF", tiffinfo=tags)
    picture = read_picture(stream.getvalue())
    assert picture.size == (240, 360) and picture.orientation == 6
    assert picture.camera and picture.camera.focal == pytest.approx((500, 500))


def test_a_broken_block_of_the_camera_is_no_note_of_the_picture() -> None:
    data = taken_with((36, 24), FocalLength=IFDRational(20))
    value = data.index(struct.pack(">HHI", ExifTags.Base.FocalLength.value, 5, 1)) + 8
    data = data[:value] + struct.pack(">I", 9999) + data[value + 4 :]  # where the number is not
    with pytest.warns(UserWarning, match="Truncated"):
        Image.open(io.BytesIO(data)).getexif().get_ifd(0x8769)
    picture = read_picture(data)
    assert picture.camera is None and picture.notes == picture.warnings == ()
