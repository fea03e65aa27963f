"""Every layout of a TIFF gives the samples that were put in, whatever Pillow makes of it."""

from __future__ import annotations

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from depthcli.errors import PictureError
from depthcli.io.pictures import tiff
from depthcli.io.pictures.images import picture_size, read_picture
from tests.io.pictures import tiffs

Y, X = np.mgrid[:19, :23]
RGB8 = np.dstack([X * 11, Y * 13, X * 5 + Y * 7]).astype(np.uint8)
GRAY8 = ((X * 11 + Y * 5) % 256).astype(np.uint8)
RGB16 = np.dstack([X * 2900, Y * 3500, X * 1500 + Y * 1700]).astype(np.uint16)

LAYOUTS = {"one strip": {}, "strips": {"rows": 5}, "tiles": {"tile": (16, 16)}}
PACKINGS = {
    "not packed": {},
    "LZW": {"packing": tiffs.LZW},
    "LZW and differences": {"packing": tiffs.LZW, "predictor": 2},
    "Deflate": {"packing": tiffs.DEFLATE},
    "Deflate and differences": {"packing": tiffs.DEFLATE, "predictor": 2},
    "PackBits": {"packing": tiffs.PACKBITS},
}


def samples_of(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    return tiff.read_samples(file, tiff.read_page(file))


def three(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i2", "f2", "f4", "f8"])
def test_samples_of_every_layout_come_back_bit_for_bit(kind: str, layout: str, packing: str) -> None:
    dtype, options = np.dtype(kind), {**LAYOUTS[layout], **PACKINGS[packing]}
    if dtype.kind == "f" and options.get("predictor") == 2:
        options["predictor"] = 3  # that of floats
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (19, 23, 4 * dtype.itemsize), np.uint8).view(dtype)
    noise = draw.random((19, 23, 4)).astype(dtype) if dtype.kind == "f" else noise
    for channels, planar, order, big in itertools.product((1, 3, 4), (False, True), "<>", (False, True)):
        values = noise[..., :channels]
        tags = {338: [2]} if channels == 4 else {}
        data = tiffs.write(values, 2 if channels > 1 else 1, planar=planar, order=order, big=big, tags=tags, **options)
        assert np.array_equal(samples_of(data), values), (channels, planar, order, big)


def test_planes_of_16_bits_are_the_picture_and_as_opencv_reads_them_in_8() -> None:
    for options in ({}, {"order": ">"}, {"rows": 4}, {"packing": tiffs.DEFLATE, "predictor": 2}):
        data = tiffs.write(RGB16, 2, planar=True, **options)
        assert np.array_equal(read_picture(data).rgb, RGB16 >> 8)
        reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]  # by libtiff, rounded
        assert np.abs(read_picture(data).rgb - reference.astype(int)).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("options", [{}, {"fill": 2}, {"rows": 3, "packing": tiffs.LZW}, {"tile": (16, 16)}])
def test_gray_of_any_bits_with_black_or_white_as_zero(bits: int, options: dict) -> None:
    values = (GRAY8.astype(int) * ((1 << bits) - 1) // 255).astype(np.uint8 if bits <= 8 else np.uint16)
    full = np.round(values * (255 / ((1 << bits) - 1))) if bits <= 8 else values.astype(int) << (16 - bits) >> 8
    for photometric, expected in ((1, full), (0, 255 - full)):
        data = tiffs.write(values[..., None], photometric, bits=bits, **options)
        assert np.array_equal(read_picture(data).rgb, three(expected))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_may_be_of_16_or_of_8_bits(bits: int) -> None:
    palette = np.random.default_rng(1).integers(0, 256, (1 << bits, 3))
    indices = (GRAY8 % (1 << bits if bits < 8 else 251)).astype(np.uint8)
    for scale in (257, 1):
        tags = {320: [int(value) * scale for value in palette.T.ravel()]}
        data = tiffs.write(indices[..., None], 3, bits=bits, tags=tags)
        assert np.array_equal(read_picture(data).rgb, palette[indices])


@pytest.mark.parametrize("options", [{}, {"planar": True}, {"order": ">", "big": True}, {"packing": tiffs.LZW}])
def test_cmyk_of_8_and_16_bits(options: dict) -> None:
    cmyk = np.dstack([RGB8, GRAY8 // 3])
    expected = np.asarray(Image.frombytes("CMYK", (23, 19), cmyk.tobytes()).convert("RGB")).astype(int)
    for samples in (cmyk, cmyk.astype(np.uint16) * 257):
        assert np.abs(read_picture(tiffs.write(samples, 5, **options)).rgb - expected).max() <= 1


@pytest.mark.parametrize("share", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("packing", [tiffs.NONE, tiffs.LZW])
def test_ycbcr_whose_pixels_share_colours_is_as_opencv_reads_it(share: tuple[int, int], packing: int) -> None:
    ycc = np.asarray(Image.fromarray(RGB8).convert("YCbCr"))
    for rows in (8, 19):
        data = tiffs.shared_colours(ycc, *share, rows=rows, packing=packing)
        reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        assert np.abs(read_picture(data).rgb - reference).max() <= 1


def test_channels_beyond_the_colours_are_left_out_and_alpha_is_not() -> None:
    five = np.dstack([RGB8, np.full_like(GRAY8, 128), GRAY8])
    for planar in (False, True):
        plain = read_picture(tiffs.write(five, 2, planar=planar, tags={338: [0, 0]}))
        assert np.array_equal(plain.rgb, RGB8) and plain.notes == ()
        half = read_picture(tiffs.write(five, 2, planar=planar, tags={338: [2, 0]}))
        assert np.abs(half.rgb - RGB8 * (128 / 255)).max() <= 1
        multiplied = read_picture(tiffs.write(five, 2, planar=planar, tags={338: [1, 0]}))
        assert np.array_equal(multiplied.rgb, RGB8) and multiplied.notes == ("alpha composited on black",)


def test_a_stated_maximum_is_the_white_of_16_bits() -> None:
    data = tiffs.write(RGB8.astype(np.uint16) * 16, 2, tags={281: [4080] * 3})
    assert np.array_equal(read_picture(data).rgb, RGB8)


def test_colours_of_floats_are_linear_light() -> None:
    light = (RGB8 / np.float32(255)) ** 2.2 * 3
    for options in ({}, {"planar": True, "order": ">"}, {"packing": tiffs.DEFLATE, "predictor": 3}):
        picture = read_picture(tiffs.write(light.astype(np.float32), 2, **options))
        white = np.sort(light.max(axis=2)[light.max(axis=2) > 0])[int(0.99 * (light.max(axis=2) > 0).sum())]
        share = np.clip(light / white, 0, 1)
        curve = np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055)
        assert np.abs(picture.rgb - 255 * curve).max() <= 0.51
        assert picture.notes == (f"taken for linear light: {white:g} is white, with the curve of sRGB",)


def test_light_that_is_no_number_is_black_and_infinite_light_white() -> None:
    light = np.full((10, 20, 3), 0.5, np.float32)
    light[0, 0], light[0, 1], light[0, 2] = np.nan, np.inf, -1
    assert read_picture(tiffs.write(light, 2)).rgb[0, :4, 0].tolist() == [0, 255, 0, 255]
    with pytest.raises(PictureError, match="holds no light"):
        read_picture(tiffs.write(light * np.nan, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_size_and_picture_are_turned_once(orientation: int, kind: str) -> None:
    samples = RGB8 if kind == "u1" else RGB16
    data = tiffs.write(samples, 2, tags={274: [orientation]})
    upright = (23, 19) if orientation < 5 else (19, 23)
    assert picture_size(data) == upright and read_picture(data).size == upright


def test_pictures_within_a_tiff_are_left_to_pillow_without_what_it_complains_about() -> None:
    for packing, mode in (("jpeg", "RGB"), ("group3", "1"), ("group4", "1"), ("tiff_lzw", "RGB")):
        for big in (False, True):
            buffer = io.BytesIO()
            image = Image.fromarray(RGB8).convert(mode)
            image.save(buffer, "TIFF", compression=packing, big_tiff=big, tiffinfo={65000: "unknown"})
            reference = cv2.imdecode(np.frombuffer(buffer.getvalue(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            assert np.array_equal(read_picture(buffer.getvalue()).rgb, reference), (packing, big)


def test_pages_are_counted_and_a_chain_that_bites_its_tail_ends() -> None:
    data = bytearray(tiffs.write(RGB8, 2))
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * entries, directory)
    assert tiff.read_page(io.BytesIO(data)).pages == 1
    assert read_picture(bytes(data)).notes == ()


@pytest.mark.parametrize("packing", [tiffs.NONE, tiffs.LZW, tiffs.DEFLATE, tiffs.PACKBITS])
@pytest.mark.parametrize("planar", [False, True])
def test_what_is_cut_short_is_refused(packing: int, planar: bool) -> None:
    """The directory stands before the samples here, so that it is whole in every part."""
    whole = tiffs.write(RGB16, 2, packing=packing, planar=planar, rows=4)
    (directory,) = struct.unpack_from("<I", whole, 4)
    for cut in range(16, directory, 211):  # zeros instead of samples, as broken downloads have
        damaged = whole[:cut] + whole[directory:]
        moved = struct.pack("<4sI", whole[:4], cut) + damaged[8:]
        with pytest.raises(PictureError):
            read_picture(moved)


@pytest.mark.parametrize("tag", [256, 257, 277])
def test_a_claim_that_its_bytes_cannot_hold_is_refused_before_memory_is_taken(
    tag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "empty", lambda *_: pytest.fail("memory was taken"))
    for packing in (tiffs.NONE, tiffs.DEFLATE, tiffs.PACKBITS):
        data = tiffs.write(RGB8, 2, packing=packing, tags={tag: [60000]})
        with pytest.raises(PictureError, match="truncated"):
            read_picture(data)


def test_tags_of_any_length_are_never_longer_than_the_file() -> None:
    data = bytearray(tiffs.write(RGB8, 2, rows=2))
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        damaged = data.copy()
        struct.pack_into("<I", damaged, directory + 2 + 12 * entry + 4, 0xFFFFFFFF)
        with pytest.raises(PictureError, match="truncated"):
            read_picture(bytes(damaged))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({258: [5, 6, 5]}, "different numbers of bits"),
        ({262: [32803]}, "photometric interpretation 32803"),
        ({317: [9]}, "predictor 9"),
        ({339: [6, 6, 6]}, "format 6"),
        ({259: [34892]}, "compression 34892"),
        ({254: [1]}, "camera raw"),
    ],
)
def test_what_is_not_supported_is_named(tags: dict, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        read_picture(tiffs.write(RGB8, 2, tags=tags))
