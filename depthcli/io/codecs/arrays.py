"""NPZ and NPY files. Headers are read first, so that a too large array is refused before memory is allocated."""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from depthcli.camera import camera_of
from depthcli.depthmap import DepthMap
from depthcli.errors import OutputError
from depthcli.host.memory import check_picture, free_memory
from depthcli.io.codecs.quick_facts import parse_facts
from depthcli.io.pictures.images import MAX_PIXELS

# A map of MAX_PIXELS in float64, with room for the file's own description.
_MOST_BYTES = 8 * MAX_PIXELS + (1 << 24)
_MOST_HEADER = 1 << 16  # of an array; 128 bytes are usual
_MOST_TEXT = 1 << 20  # characters
_MOST_SMALL = 1 << 20  # numbers
_ARRAY = ".npy"
# Layers beside the numbers, by their names in files, which are those of Depth Anything 3, and in a DepthMap.
LAYERS = {"conf": "confidence", "sky": "sky"}


class Held(NamedTuple):
    """What a depth file holds.

    values: (H, W) numbers. facts: what they mean. valid: (H, W) bool, where there is a number. layers: (H, W) numbers
    of confidence, and the mask of the sky, by their names in LAYERS, as far as the file has them.
    """

    values: np.ndarray
    facts: dict[str, Any]
    valid: np.ndarray
    layers: Mapping[str, np.ndarray] = {}


def layers_of(depth: DepthMap) -> dict[str, np.ndarray]:
    """Return the layers of a map that files can hold beside its numbers, by their names there."""
    found = {name: getattr(depth, ours) for name, ours in LAYERS.items()}
    return {name: layer for name, layer in found.items() if layer is not None}


def write_npz(
    values: np.ndarray, target: IO[bytes], facts: Mapping[str, Any], layers: Mapping[str, np.ndarray] = {}
) -> None:
    """Write (H, W) float32, uncompressed, as `depth`, and the facts as `meta`, a JSON string.

    The intrinsics of a camera in the facts are also the array `intrinsics`, (3, 3) float64, as other programs have it.
    layers: further (H, W) arrays by name.
    """
    camera = facts.get("camera")
    arrays: dict[str, Any] = {"depth": values, "meta": np.array(json.dumps(facts)), **layers}
    if camera:
        arrays["intrinsics"] = camera_of(camera).intrinsics
    whole = io.BytesIO()  # a zip file that meets a full disk in its middle complains once more when it is collected
    np.savez(whole, **arrays)
    with whole.getbuffer() as content:  # released even if the disk is full
        target.write(content)


def read_npz(path: Path) -> Held:
    """Return what a file holds. Raises what broken bytes lead to."""
    with path.open("rb") as stream, open_npz(stream) as arrays:
        if not {"depth", "meta"} <= set(arrays.names):
            raise OutputError(f"{path} was not written by depthcli: it lacks 'depth' or 'meta'")
        values, facts = arrays.numbers("depth"), json.loads(arrays.text("meta"))
        layers = {name: arrays.numbers(name, "uifb") for name in LAYERS if name in arrays.names}
    return Held(values, facts, ~np.isnan(values), layers)


def read_npz_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises what broken bytes lead to."""
    with open_npz(stream) as arrays:
        return parse_facts(arrays.text("meta"))


def check_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raise ValueError for a size that no map has, PictureError for one that does not fit into the memory."""
    if min(width, height) < 1 or width * height > most:
        raise ValueError(f"it claims {width}x{height} numbers, and {most} are the most")
    check_picture((width, height), free_memory())


def read_bytes(path: Path) -> bytes:
    """Return the content of a file. Raises OSError, ValueError if it is too large or no file."""
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):  # opening a pipe would wait for ever
        raise ValueError("it is not a file")
    if facts.st_size > min(_MOST_BYTES, free_memory() or _MOST_BYTES):
        raise ValueError(f"it has {facts.st_size / 1e9:.1f} GB, more than fit into the memory or than any map has")
    return path.read_bytes()


def read_npy(stream: IO[bytes], kinds: str = "uif") -> np.ndarray:
    """Return the (H, W) numbers of an NPY file. Raises ValueError if it holds anything else, or others than `kinds`."""
    start = stream.tell()
    shape, dtype = _header(stream)
    if len(shape) != 2 or 0 in shape or dtype.kind not in kinds:
        raise ValueError(f"it holds {dtype} {shape}, not (H, W) numbers")
    check_pixels(shape[1], shape[0])
    stream.seek(start)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


@contextmanager
def open_npz(stream: IO[bytes]) -> Iterator[Npz]:
    """Give the arrays of an NPZ file, none of which is read yet. Raises what zipfile raises."""
    with zipfile.ZipFile(stream) as archive:
        yield Npz(archive)


class Npz:
    """The arrays of an NPZ file, read one at a time and by their headers first."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @property
    def names(self) -> list[str]:
        """The names of the arrays."""
        return [name[: -len(_ARRAY)] for name in self._archive.namelist() if name.endswith(_ARRAY)]

    def numbers(self, name: str, kinds: str = "uif") -> np.ndarray:
        """Return the (H, W) numbers of that name. Raises ValueError if it is anything else, KeyError if not there."""
        with self._archive.open(name + _ARRAY) as stream:
            return read_npy(stream, kinds)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the array of that name; its numbers are not read. Raises KeyError if it is not there."""
        with self._archive.open(name + _ARRAY) as stream:
            return _header(stream)[0]

    def plane(self, name: str, number: int) -> np.ndarray:
        """Return one (H, W) plane of the (N, H, W) numbers of that name; no other is held in memory.

        Raises ValueError if it is anything else, KeyError if it is not there.
        """
        with self._archive.open(name + _ARRAY) as stream:
            shape, dtype, by_columns = _whole_header(stream)
            if len(shape) != 3 or 0 in shape or dtype.kind not in "uif" or not 0 <= number < shape[0] or by_columns:
                raise ValueError(f"its {name} is {dtype} {shape}, without a plane {number}")
            check_pixels(shape[2], shape[1])
            size = shape[1] * shape[2] * dtype.itemsize
            stream.seek(stream.tell() + number * size)
            data = stream.read(size)
        if len(data) != size:
            raise ValueError("it is cut short")
        return np.frombuffer(data, dtype).reshape(shape[1:])

    def small(self, name: str) -> np.ndarray:
        """Return the numbers of that name, of any shape. Raises ValueError for too many, or anything else."""
        with self._archive.open(name + _ARRAY) as stream:
            shape, dtype = _header(stream)
            if dtype.kind not in "uif" or math.prod(shape) > _MOST_SMALL:
                raise ValueError(f"its {name} is {dtype} {shape}")
            stream.seek(0)
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    def text(self, name: str) -> str:
        """Return the text of that name. Raises ValueError if it holds anything else, KeyError if not there."""
        with self._archive.open(name + _ARRAY) as stream:
            shape, dtype = _header(stream)
            if shape != () or dtype.kind != "U" or dtype.itemsize > 4 * _MOST_TEXT:
                raise ValueError(f"its {name} is not a text, or too long")
            stream.seek(0)
            return str(np.lib.format.read_array(stream, allow_pickle=False))


@contextmanager
def memory_errors(path: Path) -> Iterator[None]:
    """Within this context a file that memory does not suffice for is an OutputError."""
    try:
        yield
    except MemoryError as error:
        raise OutputError(f"{path} needs more memory than there is", "use a smaller map") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of an array; no more than its header is read."""
    shape, dtype, _ = _whole_header(stream)
    return shape, dtype


def _whole_header(stream: IO[bytes]) -> tuple[tuple[int, ...], Any, bool]:
    """Return shape and dtype of an array, and whether its columns come first; no more than its header is read."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):  # the third has names of columns that are not ASCII
        raise ValueError(f"it is an array of version {version}")
    here = stream.tell()
    length = int.from_bytes(stream.read(2 if version == (1, 0) else 4), "little")
    if length > _MOST_HEADER:
        raise ValueError(f"its header has {length} bytes")
    stream.seek(here)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    return shape, dtype, by_columns
