"""Truth files written byte by byte, and the metres or disparity that are in them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import DepthError, OutputError, PictureError
from depthcli.eval.truth import FORMAT_NAMES, Truth, read_truth
from depthcli.io.codecs.files import write_depth
from depthcli.io.codecs.numbers import read_numbers

METRES, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
NAN = float("nan")


def png(rows: list[list[int]], bits: int = 16, colour: int = 0, name: str = "t.png") -> Path:
    """Write a PNG by hand: rows of numbers, big-endian as the format wants them."""
    code = {8: "B", 16: "H"}[bits]
    raw = b"".join(b"\0" + struct.pack(f">{len(row)}{code}", *row) for row in rows)
    width = len(rows[0]) // (3 if colour == 2 else 1)
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path = Path(name)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def same(found: np.ndarray, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("format", "stored", "metres"),
    [
        ("nyu", [[0, 1000], [2500, 65535]], [[NAN, 1], [2.5, 65.535]]),
        ("scannet", [[0, 1000]], [[NAN, 1]]),
        ("open3d", [[0, 1]], [[NAN, 0.001]]),
        ("kitti", [[0, 256, 21733]], [[NAN, 1, 84.89453125]]),
        ("tum", [[5000, 0, 46655]], [[1, NAN, 9.331]]),
        # 3005 mm is 0000101110111101: turned three places to the left 0101110111101000.
        ("sun", [[0b0101110111101000, 0, 0b0000000000000101]], [[3.005, NAN, 40.96]]),
        ("depth", [[3, 0]], [[3, NAN]]),
    ],
)
def test_formats_of_16_bit_png(format, stored, metres):
    found = read_truth(png(stored), format)
    same(found.values, metres)
    assert found.kind is METRES and found.metres and found.values.dtype == np.float64
    assert found.size == (len(stored[0]), len(stored))
    same(found.disparity, [[1 / value for value in row] for row in metres])


@pytest.mark.parametrize("bits", [8, 16])
def test_disparity_png(bits):
    found = read_truth(png([[0, 50, 200]], bits), "disparity", scale=4)
    same(found.values, [[NAN, 12.5, 50]])
    assert found.kind is DISPARITY and not found.metres
    same(found.depth, [[NAN, 0.08, 0.02]])


def test_the_list_may_name_another_scale_and_other_invalid_numbers():
    path = png([[0, 100, 200, 65535]])
    same(read_truth(path, "nyu", scale=100).values, [[NAN, 1, 2, 655.35]])
    same(read_truth(path, "nyu", invalid=(65535, 100)).values, [[NAN, NAN, 0.2, NAN]])


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_nan_infinity_zero_and_negative_numbers_are_unknown(form):
    stored = np.array([[np.nan, np.inf, -np.inf], [0, -3, 8]], np.float32)
    path = Path(f"d.{form}")
    np.save(path, stored) if form == "npy" else np.savez(path, stored)
    for format, kind in (("disparity", DISPARITY), ("depth", METRES)):
        found = read_truth(path, format, scale=2)
        same(found.values, [[NAN, NAN, NAN], [NAN, NAN, 4]])
        assert found.kind is kind and found.known.sum() == 1


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_an_invalid_number_is_compared_in_the_type_of_the_file(dtype):
    np.save("d.npy", np.array([[99.9, 2, 4]], dtype))
    same(read_truth(Path("d.npy"), "depth", invalid=(99.9, 1e300, 4)).values, [[NAN, 2, NAN]])


def test_a_fraction_is_no_whole_number():
    same(read_truth(png([[1000, 65535]]), "nyu", invalid=(1000.5, -1)).values, [[1, 65.535]])


def test_for_sun_an_invalid_number_is_the_stored_one():
    # 40.96 m is stored as 5; 8 is stored for 1 mm.
    same(read_truth(png([[5, 8]]), "sun", invalid=(5,)).values, [[NAN, 0.001]])
    same(read_truth(png([[5, 8]]), "sun", invalid=(1,)).values, [[40.96, 0.001]])


@pytest.mark.parametrize(("number", "scale"), [(1e-320, 1), (1e300, 1), (5.0, 1e-320), (5.0, 1e308), (1e-30, 1e30)])
@pytest.mark.parametrize("format", ["depth", "disparity"])
def test_what_no_float_can_hold_is_no_depth(number, scale, format, recwarn):
    np.save("d.npy", np.array([[number, 1]]))
    with pytest.raises(PictureError, match=r"d\.npy holds .* \(check scale, invalid and format\)"):
        read_truth(Path("d.npy"), format, scale=scale)
    with pytest.raises(PictureError, match="the truth holds"):
        Truth(np.array([[1e-40]]), METRES)
    assert not recwarn.list


def test_unless_it_means_unknown():
    np.save("d.npy", np.array([[1e300, 8]]))
    same(read_truth(Path("d.npy"), "depth", scale=2, invalid=(1e300,)).values, [[NAN, 4]])


def test_too_little_memory_is_no_damage(monkeypatch):
    def short(*_):
        raise MemoryError

    np.save("d.npy", np.ones((1, 1)))
    monkeypatch.setattr(Path, "read_bytes", short)
    with pytest.raises(MemoryError):
        read_numbers(Path("d.npy"))


def test_of_several_arrays_the_one_named_like_the_format():
    np.savez("d.npz", depth=[[1.0]], disparity=[[2.0]], mask=[[3.0]])
    assert read_truth(Path("d.npz"), "depth").values == 1
    assert read_truth(Path("d.npz"), "disparity").values == 2
    np.savez("e.npz", left=[[1.0]], right=[[2.0]])
    with pytest.raises(PictureError, match="left, right"):
        read_truth(Path("e.npz"), "disparity")


@pytest.mark.parametrize(("scale", "order"), [(b"-1.0", "<"), (b"1", ">"), (b"-0.003922", "<")])
def test_pfm_has_its_last_row_first_and_its_byte_order_in_the_sign(scale, order):
    rows = [[1.5, 2.0, np.inf], [4.0, 5.0, 0.0]]
    body = b"".join(struct.pack(f"{order}3f", *row) for row in reversed(rows))
    Path("d.pfm").write_bytes(b"Pf\n3 2\n" + scale + b"\n" + body)
    same(read_truth(Path("d.pfm"), "depth").values, [[1.5, 2, NAN], [4, 5, NAN]])


class TestOurOwn:
    def test_metres(self):
        write_depth(DepthMap(np.array([[1.5, 0.0]], np.float32), METRES, max_depth=20), "d.npz")
        found = read_truth(Path("d.npz"), "depthcli")
        same(found.values, [[1.5, NAN]])
        assert found.kind is METRES

    def test_an_invalid_number_is_compared_as_float32(self):
        write_depth(DepthMap(np.array([[99.9, 2]]), METRES), "d.npz")
        same(read_truth(Path("d.npz"), "depthcli", invalid=(99.9,)).values, [[NAN, 2]])

    def test_disparity_also_from_png(self):
        write_depth(DepthMap(np.array([[0.0, 1, 4]]), DISPARITY), "d.png")
        found = read_truth(Path("d.png"), "depthcli", invalid=(4,))
        assert np.allclose(found.values, [[NAN, 1, NAN]], rtol=1e-4, equal_nan=True)
        assert found.kind is DISPARITY

    def test_depth_without_a_unit_is_disparity_without_one(self):
        write_depth(DepthMap(np.array([[0.0, 2, 4]]), DepthKind.RELATIVE_DEPTH), "d.npz")
        found = read_truth(Path("d.npz"), "depthcli")
        same(found.values, [[NAN, 0.5, 0.25]])
        assert found.kind is DISPARITY

    def test_a_stranger_is_named(self):
        with pytest.raises(OutputError, match="does not say what its numbers mean"):
            read_truth(png([[1]]), "depthcli")


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


def bent(path: Path) -> Path:
    """Change a byte of the pixels, and leave the check sum."""
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 1
    path.write_bytes(data)
    return path


def text(name: str, content: bytes) -> Path:
    Path(name).write_bytes(content)
    return Path(name)


def saved(name: str, array: np.ndarray) -> Path:
    stream = io.BytesIO()
    np.save(stream, array)
    return text(name, stream.getvalue())


@pytest.mark.parametrize(
    ("make", "format", "message"),
    [
        (lambda: Path("no.png"), "nyu", "no.png does not exist"),
        (lambda: Path("no.npz"), "nyu", "no.npz is not 16-bit PNG"),
        (lambda: Path("no.jpg"), "depth", "no.jpg is not PNG, NPZ, NPY, PFM"),
        (lambda: png([[1, 2]], 8), "kitti", "t.png: it has 8 bits"),
        (lambda: png([[1, 2, 3]], 8, colour=2), "disparity", "t.png: it is not gray"),
        (lambda: cut(png([[1] * 40] * 40)), "nyu", "t.png"),
        (lambda: bent(png([[7 * i for i in range(40)]] * 40)), "nyu", "t.png"),
        (lambda: text("e.png", b""), "nyu", "e.png"),
        (lambda: text("e.npz", b"PK\x03\x04 half"), "disparity", "e.npz"),
        (lambda: text("e.npy", b"\x93NUMPY"), "disparity", "e.npy"),
        (lambda: text("e.pfm", b"PF\n1 1\n-1\n" + bytes(12)), "depth", "e.pfm: it is not a gray PFM"),
        (lambda: text("e.pfm", b"Pf\n2 2\n-1\n" + bytes(12)), "depth", "12 bytes for 2x2 numbers"),
        (lambda: saved("e.npy", np.zeros((2, 2, 3))), "depth", r"float64 \(2, 2, 3\), not \(H, W\)"),
        (lambda: saved("e.npy", np.zeros((0, 3))), "depth", "not"),
        (lambda: saved("e.npy", np.array([["a"]])), "depth", "not"),
        (lambda: saved("e.npy", np.array([[True]])), "depth", "not"),
        (lambda: Path("."), "depth", "is not PNG"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(make, format, message):
    with pytest.raises(PictureError, match=message) as caught:
        read_truth(make(), format)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_opened():
    class Bomb:
        def __reduce__(self):
            return (open, ("hit", "w"))

    np.save("e.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(DepthError):
        read_numbers(Path("e.npy"))
    assert not Path("hit").exists()


def test_a_crop_is_half_open():
    found = Truth(np.arange(1, 13).reshape(3, 4), METRES).crop(1, 0, 3, 2)
    same(found.values, [[5, 6], [9, 10]])


def test_values_do_not_change_after_they_are_made():
    given = np.ones((2, 2))
    found = Truth(given, METRES)
    given[:] = 7
    assert (found.values == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0] = 2


def test_a_saved_picture_of_pillow_reads_alike():
    values = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(values).save("p.png")
    assert np.array_equal(read_numbers(Path("p.png")), values)


def test_the_names_are_those_that_are_promised():
    assert FORMAT_NAMES == ("nyu", "scannet", "open3d", "kitti", "tum", "sun", "depth", "disparity", "depthcli")


def test_a_thread_that_takes_subnormal_numbers_for_zero_changes_nothing():
    import torch

    np.save("d.npy", np.array([[1e-320, 1]]))
    if not torch.set_flush_denormal(True):
        return  # this CPU cannot
    try:
        with pytest.raises(PictureError, match="which is no depth"):
            read_truth(Path("d.npy"), "depth")
    finally:
        torch.set_flush_denormal(False)
