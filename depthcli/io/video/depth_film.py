"""The maps of a depth film that depthcli wrote: gray of 16 or 10 bits, with its facts in its comment or beside it.

Films in colours hold no numbers: H.264 keeps a quarter of their colour, and two colours lie close to each other.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, Optional

import numpy as np

from depthcli.depthmap import DepthMap, from_description
from depthcli.errors import DepthError, PictureError
from depthcli.host.cores import usable_cores
from depthcli.io.codecs.arrays import check_pixels
from depthcli.io.codecs.encode import decode
from depthcli.io.codecs.quick_facts import parse_facts
from depthcli.io.names import sidecar_of
from depthcli.io.video.ffmpeg_program import Program, find_program, input_of
from depthcli.io.video.film_comment import film_facts
from depthcli.io.video.libav import has_av, load_av, open_container, reason_of

SUFFIXES = frozenset((".mkv", ".mp4", ".mov"))
_GRAY = 65535
_HALF = {"gray16le": (0, 0), "yuv420p10le": (2, 2), "yuv422p10le": (2, 1)}  # what chroma's sides are divided by
_AGAIN = "copy the film again, or make it again with depth video"
_FOOTER = 8  # bytes behind a slice of FFV1
_TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits the other way round
_MOST_SIDECAR = 1 << 28


class DepthFilm:
    """The maps of a film by their numbers, for threads that ask nearly in order: a film is decoded from its beginning.

    facts: of the film. Raises PictureError for a film without numbers, or of another program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            raise PictureError(f"{path} does not exist", "check the path")
        self.facts = facts_of_film(path)
        video: dict[str, Any] = self.facts.get("video") or {}
        gray = video.get("gray")
        if not isinstance(gray, dict) or video.get("pixel_format") not in _HALF:
            raise PictureError(
                f"{path} holds {'colours' if self.facts else 'no depth of depthcli'}, and no numbers",
                "films with numbers are ffv1, hevc10 and prores",
            )
        self._video, self._offset, self._scale = video, float(gray["offset"]), float(gray["scale"])
        self._lock, self._stack = Lock(), ExitStack()
        self._frames: Optional[Generator[np.ndarray, None, None]] = None
        self._next = -1  # number of the frame that comes next, -1 if the film is closed
        self._waiting: dict[int, np.ndarray] = {}
        self._most = 4 * usable_cores() + 1  # as many as may be asked for out of their order

    @property
    def count(self) -> int:
        """How many maps it has, by its sidecar or by its packets. Raises PictureError if it cannot be read."""
        said = self._video.get("frames")
        if isinstance(said, int) and said > 0:
            return said
        found = _count(self.path)
        if not found:
            raise PictureError(f"{self.path} has no frame", _AGAIN)
        return found

    def map(self, number: int) -> DepthMap:
        """Return a map, to the precision of its codes. Raises PictureError if the film is damaged or ends before it."""
        gray = self._gray(number)
        width, height = self.facts["size"]
        values, valid = decode(gray[:height, :width], self.facts)
        return from_description(values, self.facts, valid if "invalid_pixels" in self.facts else None)

    def close(self) -> None:
        """Close the file; it is opened again if a map is asked for."""
        with self._lock:
            self._close()

    def _gray(self, number: int) -> np.ndarray:
        with self._lock:
            try:
                while number not in self._waiting:
                    if self._next < 0 or number < self._next:
                        self._open()
                    assert self._frames is not None
                    self._waiting[self._next] = next(self._frames)
                    self._next += 1
                    for old in [n for n in self._waiting if n < self._next - self._most]:
                        del self._waiting[old]
            except StopIteration:
                self._close()
                raise PictureError(f"{self.path} ends before its frame {number + 1}", _AGAIN) from None
            except DepthError:
                self._close()
                raise
            except Exception as error:  # whatever FFmpeg makes of broken bytes
                self._close()
                raise PictureError(
                    f"{self.path} is damaged at frame {number + 1}: {reason_of(error)}", _AGAIN
                ) from error
            codes = self._waiting.pop(number)
            if self._next == self._video.get("frames") and not self._waiting:
                self._close()
        gray = np.round((codes.astype(np.float64) - self._offset) * (_GRAY / self._scale))
        return np.clip(gray, 0, _GRAY).astype(np.uint16)

    def _open(self) -> None:
        self._close()
        width, height = self._video["stored_size"]
        check_pixels(width, height)
        decoded = _by_av if has_av() or not find_program() else _by_program
        self._frames = decoded(self.path, (width, height), self._video["pixel_format"], self._stack)
        self._next = 0

    def _close(self) -> None:
        if self._frames is not None:
            self._frames.close()  # first: it holds frames of the container
        self._stack.close()
        self._frames, self._next, self._waiting = None, -1, {}


def has_numbers(path: Path) -> bool:
    """Return whether a file is a film whose maps can be read. Nothing is raised."""
    with suppress(Exception):  # whatever a stranger's file holds, it is not ours
        return path.suffix.lower() in SUFFIXES and bool(DepthFilm(path))
    return False


def facts_of_film(path: Path) -> dict[str, Any]:
    """Return the facts of a film; of its sidecar if that is there, which tells more than its comment. Empty if none."""
    sidecar = sidecar_of(path)
    if sidecar.is_file() and sidecar.stat().st_size <= _MOST_SIDECAR:
        with suppress(OSError, ValueError, RecursionError):
            facts = parse_facts(sidecar.read_text(encoding="utf-8"))
            if facts:
                return facts
    return film_facts(path)


def _by_av(path: Path, size: tuple[int, int], pixels: str, stack: ExitStack) -> Generator[np.ndarray, None, None]:
    """Yield (H, W) uint16 codes of luma."""
    container = stack.enter_context(open_container(load_av(), stack.enter_context(path.open("rb"))))
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"
    stream.codec_context.options = {"err_detect": "explode"}
    for packet in container.demux(stream):
        if stream.codec_context.name == "ffv1" and packet.size:
            _check_slices(bytes(packet))
        for frame in packet.decode():
            if (frame.width, frame.height, frame.format.name) != (*size, pixels):
                raise PictureError(f"{path} is another film than the one its facts describe", _AGAIN)
            plane = frame.planes[0]
            rows = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
            yield rows[: size[1], : size[0]].copy()


def _check_slices(frame: bytes) -> None:
    """Raise ValueError if a frame of FFV1 is damaged: FFmpeg would show parts of the one before it instead.

    RFC 9043, 4.9: behind each slice stand its length in 3 bytes, a state, and a check sum (CRC-32 from the highest bit
    on, over the whole slice), so the slices are found from the end.
    """
    end = len(frame)
    while end > _FOOTER:
        start = end - _FOOTER - int.from_bytes(frame[end - _FOOTER : end - _FOOTER + 3], "big")
        # zlib counts from the lowest bit on, and inverts what it is given and gives.
        if start < 0 or zlib.crc32(frame[start:end].translate(_TURNED), 0xFFFFFFFF) != 0xFFFFFFFF:
            break
        end = start
    if end:
        raise ValueError("its check sums do not fit")


def _by_program(path: Path, size: tuple[int, int], pixels: str, stack: ExitStack) -> Generator[np.ndarray, None, None]:
    """See `_by_av`. The messages about a frame come before that of the filter showinfo, and this before its pixels."""
    raw = ("-map", "0:v:0", "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", pixels)
    program = Program(["-err_detect", "explode", *input_of(path), *raw, "pipe:1"], stdout=True)
    stack.callback(program.close)
    lines: SimpleQueue[str] = SimpleQueue()
    program.beside(_listen, program, lines)
    width, height = size
    across, down = _HALF[pixels]
    length = 2 * (width * height + (2 * (width // across) * (height // down) if across else 0))
    for number in count():
        while not re.search(rf"showinfo.* n: *{number} ", line := lines.get()):
            if "[error]" in line:
                raise PictureError(f"{path} is damaged at frame {number + 1}", _AGAIN)
            if not line:
                return
        data = _read(program.stdout, length)
        if not data:
            raise PictureError(f"{path} is another film than the one its facts describe", _AGAIN)
        yield np.frombuffer(data, "<u2", width * height).reshape(height, width)


def _listen(program: Program, lines: SimpleQueue[str]) -> None:
    for line in program.lines():
        lines.put(line or " ")
    lines.put("")


def _read(stream: Any, length: int) -> bytes:
    """Return so many bytes, or none at the end."""
    pieces, left = [], length
    while left and (piece := stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"" if left else b"".join(pieces)


def _count(path: Path) -> int:
    """Return the number of packets that hold pixels, without decoding them."""
    if not has_av() and find_program():
        raise PictureError(f"{path} has no sidecar that counts its frames", "pip install av, which counts them")
    try:
        with path.open("rb") as file, open_container(load_av(), file) as container:
            return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))
    except Exception as error:
        raise PictureError(f"cannot read the film {path}: {reason_of(error)}", _AGAIN) from error
