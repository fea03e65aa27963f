"""Files of numbers that claim more than a map can be are refused in one line, before memory is taken for them."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import DepthError
from depthcli.host import memory
from depthcli.io.codecs.exr import read_exr, write_exr
from depthcli.io.codecs.files import read_depth, write_depth
from depthcli.io.codecs.numbers import read_numbers

HUGE = (60_000, 60_000)  # 14 GB of float32
FEW_BYTES = 60_000_000


def npy(shape: tuple[int, ...], dtype: str = "<f4", body: int = 1 << 20, pad: int = 0, version: int = 1) -> bytes:
    """An NPY file that claims a shape, whatever follows."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode() + b" " * pad + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + bytes(body)


def npz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def text_array(text: str) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(text))
    return stream.getvalue()


def png(width: int, height: int, texts: bytes = b"") -> bytes:
    """A PNG of 16-bit gray that claims a size and holds a megabyte of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">2I5B", width, height, 16, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + texts + pixels + chunk(b"IEND", b"")


def our_png(width: int, height: int) -> bytes:
    body = b'depthcli\0\0\0\0\0{"schema": "depthcli/1", "encoding": {}}'
    text = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    return png(width, height, text)


META = text_array('{"schema": "depthcli/1", "kind": "relative_disparity"}')
CASES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "npy claims gigabytes": ("a.npy", lambda: npy(HUGE), "claims 60000x60000"),
    "npy claims exabytes": ("a.npy", lambda: npy((1 << 40, 1 << 40)), "claims"),
    "npy of negative size": ("a.npy", lambda: npy((-4, -4)), "claims -4x-4"),
    "npy of many dimensions": ("a.npy", lambda: npy((2,) * 20), "not .H, W. numbers"),
    "npy of objects": ("a.npy", lambda: npy((4, 4), "|O"), "not .H, W. numbers"),
    "npy of long texts": ("a.npy", lambda: npy((4, 4), "<U100000000"), "not .H, W. numbers"),
    "npy of bytes of a gigabyte": ("a.npy", lambda: npy((4, 4), "|V1000000000"), "not .H, W. numbers"),
    "npy with a long header": ("a.npy", lambda: npy((4, 4), pad=1 << 20, version=2), "header has"),
    "npy with a nested header": ("a.npy", lambda: npy((4, 4), "<f4' + " + "(" * 5000 + "'"), "cannot read"),
    "npy of another version": ("a.npy", lambda: npy((4, 4), version=3), "version"),
    "npy cut short": ("a.npy", lambda: npy((400, 400), body=50), "cannot read"),
    "npz packed a thousandfold": ("a.npz", lambda: npz({"depth.npy": npy((22_400, 22_400), body=1 << 26)}), "claims"),
    "npz of claims": ("a.npz", lambda: npz({"depth.npy": npy(HUGE)}), "claims"),
    "npz of another kind": ("a.npz", lambda: npz({"depth.npy": b"hello"}), "cannot read"),
    "npz without arrays": ("a.npz", lambda: npz({"depth.txt": b"hello"}), "nothing"),
    "pfm of claims": ("a.pfm", lambda: b"Pf\n60000 60000\n-1\n" + bytes(100), "60000x60000"),
    "pfm of long numbers": ("a.pfm", lambda: b"Pf\n" + b"9" * 1_000_000 + b" 1\n-1\n", "not a gray PFM"),
    "png of claims": ("a.png", lambda: png(*HUGE), "claims 60000x60000"),
    "png of a line": ("a.png", lambda: png(2_000_000_000, 1), "claims"),
}
OURS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "npz of claims": ("a.npz", lambda: npz({"depth.npy": npy(HUGE), "meta.npy": META}), "claims 60000x60000"),
    "npz of objects": ("a.npz", lambda: npz({"depth.npy": npy((4, 4), "|O"), "meta.npy": META}), "not .H, W. numbers"),
    "npz of complex numbers": ("a.npz", lambda: npz({"depth.npy": npy((4, 4), "<c8"), "meta.npy": META}), "numbers"),
    "meta of gigabytes": (
        "a.npz",
        lambda: npz({"depth.npy": npy((4, 4)), "meta.npy": npy((), "<U100000000")}),
        "meta is not a text, or too long",
    ),
    "meta of many texts": (
        "a.npz",
        lambda: npz({"depth.npy": npy((4, 4)), "meta.npy": npy(HUGE, "<U9")}),
        "meta is not",
    ),
    "meta nested": ("a.npz", lambda: npz({"depth.npy": npy((4, 4)), "meta.npy": text_array("[" * 99_999)}), "cannot"),
    "meta of nothing": ("a.npz", lambda: npz({"depth.npy": npy((4, 4)), "meta.npy": text_array("5")}), "cannot read"),
    "png of claims": ("a.png", lambda: our_png(*HUGE), "claims 60000x60000"),
}


@contextmanager
def few_bytes() -> Iterator[None]:
    """Within this context no more than FEW_BYTES of memory are taken at once."""
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < FEW_BYTES


def refused(read: Callable[[Path], object], path: Path, says: str) -> None:
    with pytest.raises(DepthError, match=says) as caught:
        read(path)
    line = str(caught.value)
    assert path.name in line or "picture of" in line
    assert "\n" not in line and len(line) < 500


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_others(case, tmp_path) -> None:
    name, content, says = CASES[case]
    path = tmp_path / name
    path.write_bytes(content())
    with few_bytes():
        refused(read_numbers, path, says)


@pytest.mark.parametrize("case", OURS)
def test_maps_of_ours(case, tmp_path) -> None:
    name, content, says = OURS[case]
    path = tmp_path / name
    path.write_bytes(content())
    with few_bytes():
        refused(read_depth, path, says)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.png", "a.pfm"])
def test_what_does_not_fit_into_the_memory(name, tmp_path, monkeypatch) -> None:
    values = np.ones((500, 500), np.float32)
    path = tmp_path / name
    {
        "a.npz": lambda: np.savez(path, depth=values),
        "a.npy": lambda: np.save(path, values),
        "a.png": lambda: path.write_bytes(png(500, 500)),
        "a.pfm": lambda: path.write_bytes(b"Pf\n500 500\n-1\n" + values.tobytes()),
    }[name]()
    assert read_numbers(path).shape == (500, 500)
    for module in ("depthcli.io.codecs.arrays", "depthcli.host.memory"):
        monkeypatch.setattr(f"{module}.free_memory", lambda: 500_000)
    refused(read_numbers, path, "500x500 needs about|more than fit into the memory")
    assert memory.free_memory() == 500_000


def test_a_sparse_file_is_refused_by_its_size(tmp_path) -> None:
    for name in ("a.npy", "a.pfm", "a.png", "a.npz"):
        with open(tmp_path / name, "wb") as stream:
            stream.truncate(1 << 40)
        with few_bytes():
            refused(read_numbers, tmp_path / name, "it has 1099.5 GB")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pipes with names")
def test_a_pipe_is_no_file(tmp_path) -> None:
    for name in ("a.npz", "a.png"):
        os.mkfifo(tmp_path / name)
        for read in (read_numbers, read_depth):
            refused(read, tmp_path / name, "is not a file")


@pytest.mark.parametrize("name", ["a.npz", "a.png"])
def test_a_flipped_bit_is_one_error_or_the_same_map(name, tmp_path) -> None:
    path, seeded = tmp_path / name, random.Random(0)
    write_depth(DepthMap(seeded_map(), DepthKind.RELATIVE_DISPARITY), path)
    whole, wanted = path.read_bytes(), read_depth(path).values
    for place in (*range(60), *(seeded.randrange(len(whole)) for _ in range(150))):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << seeded.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_depth(path).values
        except DepthError as error:
            assert "\n" not in str(error)
        else:
            assert np.array_equal(found, wanted), place


def seeded_map() -> np.ndarray:
    return np.random.default_rng(0).random((20, 30), np.float32)


class TestExr:
    """The reader of our EXR goes by what is there, not by what is claimed."""

    @pytest.fixture
    def whole(self, tmp_path) -> bytearray:
        with open(tmp_path / "a.exr", "wb") as stream:
            write_exr(seeded_map(), stream, {"a": 1})
        assert np.array_equal(read_exr(tmp_path / "a.exr")[0], seeded_map())
        return bytearray((tmp_path / "a.exr").read_bytes())

    @pytest.mark.parametrize(
        "window, says",
        [
            ((0, 0, 60_000, 60_000), "claims"),
            ((0, 0, -5, 3), "claims"),
            ((0, 0, 2**31 - 1, 2**31 - 1), "claims"),
            ((0, 0, 3, 60_000), "table of blocks"),
        ],
    )
    def test_a_window_that_lies(self, whole, window, says, tmp_path) -> None:
        place = whole.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
        whole[place : place + 16] = struct.pack("<4i", *window)
        (tmp_path / "b.exr").write_bytes(whole)
        with few_bytes():
            refused(read_exr, tmp_path / "b.exr", says)

    def test_an_attribute_of_negative_length_ends(self, whole, tmp_path) -> None:
        place = whole.index(b"channels\0chlist\0") + len(b"channels\0chlist\0")
        for length in (-1, -20, -(2**31)):
            whole[place : place + 4] = struct.pack("<i", length)
            (tmp_path / "b.exr").write_bytes(whole)
            refused(read_exr, tmp_path / "b.exr", "negative length")

    def test_flipped_bits(self, whole, tmp_path) -> None:
        seeded = random.Random(0)
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[seeded.randrange(len(whole))] ^= 1 << seeded.randrange(8)
            (tmp_path / "b.exr").write_bytes(damaged)
            try:
                values, *_ = read_exr(tmp_path / "b.exr")
            except DepthError as error:
                assert "\n" not in str(error)
            else:
                assert values.shape == (20, 30)

    def test_a_block_that_unpacks_to_gigabytes(self, whole, tmp_path) -> None:
        packer = zlib.compressobj()
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(500)) + packer.flush()
        # The table of two blocks: the first lies right behind it.
        table = next(at for at in range(len(whole)) if whole[at : at + 8] == struct.pack("<Q", at + 16))
        whole[table : table + 8] = struct.pack("<Q", len(whole))
        (tmp_path / "b.exr").write_bytes(whole + struct.pack("<2i", 0, len(bomb)) + bomb)
        with few_bytes():
            refused(read_exr, tmp_path / "b.exr", "not as long as its rows")


def test_a_list_that_is_too_long_is_refused(tmp_path, monkeypatch) -> None:
    from depthcli.eval import lists

    path = tmp_path / "list.json"
    path.write_text(
        json.dumps([{"picture": f"{number}.png", "truth": "a.png", "format": "nyu"} for number in range(100)])
    )
    assert len(lists.read_list(path)) == 100
    monkeypatch.setattr(lists, "_MOST_BYTES", 1000)
    refused(lists.read_list, path, "more than 0 MB")
