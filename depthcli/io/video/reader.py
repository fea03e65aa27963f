"""Read clips: a video file, a folder of frames, or a pipe. One frame is in memory at a time.

with open_clip("holiday.mp4") as clip:
    for frame in clip.frames(Selection(start=10, fps=12)):
        ...  # frame.rgb, frame.time
"""

from __future__ import annotations

import glob
import os
import re
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np

from depthcli.camera import Camera
from depthcli.errors import ClipError, DepthError, PictureError, first_line
from depthcli.io.codecs.files import may_be_ours, read_facts
from depthcli.io.names import STDIN
from depthcli.io.pictures.images import MAX_PIXELS, is_picture, may_be_listed, picture_size, printable, read_picture
from depthcli.io.video.animations import WEBP, WebPSource, animation_in
from depthcli.io.video.clip import ClipInfo, Frame, FrameSource, Number, Selection, Shown, exact_rate, frames_of
from depthcli.io.video.exr_frames import exr_size, is_exr, is_our_exr, read_exr_frame
from depthcli.io.video.ffmpeg_program import find_program
from depthcli.io.video.ffmpeg_reader import ProgramSource
from depthcli.io.video.libav import LibavSource, Readable, has_av

__all__ = ["Clip", "ClipInfo", "Frame", "Selection", "open_clip"]

_PATIENCE = 0.2  # seconds between two calls of `stop` while a pipe is silent
FOLDER_RATE = Fraction(24)  # of a folder of frames by default: that of film


class Clip:
    """An open clip: its facts, and its frames, once."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._begun = False

    @property
    def info(self) -> ClipInfo:
        """What is known of the clip."""
        return self._source.info

    def frames(self, selection: Selection = Selection(), skip: int = 0) -> Iterator[Frame]:  # noqa: B008
        """Yield one Frame for every selected frame that can be decoded, in order; times increase. Call it once.

        skip: the first so many selected frames are decoded and not yielded; the others do not change.

        Raises ClipError, after the frames that could be decoded, if the clip is truncated or damaged: it names the
        reason and how many frames were read.
        """
        if self._begun:
            raise ValueError("the frames of a clip can be read once; open it again")
        self._begun = True
        return self._guarded(frames_of(self._source, selection, skip))

    def _guarded(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Turn whatever a library raises for one clip into an error of that clip."""
        count = 0
        try:
            for frame in frames:
                yield frame
                count += 1
        except DepthError:
            raise
        except Exception as error:
            raise _foreign(error, self.info.name, count) from error


@contextmanager
def open_clip(
    source: Union[Path, str],
    rate: Optional[Number] = None,
    size: Optional[tuple[int, int]] = None,
    stdin: Any = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Clip]:
    """Open a video file, a folder or pattern of frames, or "-" for stdin; closed at the end of the block.

    rate: frames per second of a folder (None: 24) and of raw video. size: (width, height) of raw video, 8-bit RGB; None
    for streams with a header, such as y4m. stdin: read instead of sys.stdin. max_pixels: limit per frame, checked in
    the header before decoding.

    Raises ClipError if the clip is missing, is not video, has sound only, or has no frame that can be decoded.
    """
    try:
        opened = _open(source, rate, size, stdin, max_pixels)
    except DepthError:
        raise
    except Exception as error:
        raise _foreign(error, printable(str(source)), 0) from error
    try:
        yield Clip(opened)
    finally:
        opened.close()


def _foreign(error: Exception, name: str, frames: int) -> ClipError:
    if isinstance(error, MemoryError):
        return ClipError(f"{name} does not fit into memory", "make it smaller first", frames)
    reason = printable(f"{type(error).__name__}: {first_line(error)}")[:100]
    return ClipError(f"{name} cannot be read: {reason}", "convert it to H.264 in MP4, or leave it out", frames)


def _open(
    source: Union[Path, str], rate: Optional[Number], size: Optional[tuple[int, int]], stdin: Any, max_pixels: int
) -> FrameSource:
    name = printable(str(source))
    if str(source) == STDIN:
        pipe = stdin or sys.stdin.buffer
        return RawSource(pipe, size, rate, max_pixels) if size else _decoded(_Pipe(pipe), "stdin", None, max_pixels)
    path = Path(source)
    frame_rate = exact_rate(rate) if rate else None
    try:
        if frames := frames_of_pattern(str(source)):
            return FolderSource(frames, name, frame_rate, max_pixels)
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return FolderSource(frames_of_folder(path), name, frame_rate, max_pixels)
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise ClipError(f"{name} is not a file", "save it to a file, or send it to stdin and give - as its name")
        if not path.stat().st_size:
            raise ClipError(f"{name} is empty", "copy or download it again")
        animation = animation_in(path)
        if animation == WEBP:
            return WebPSource(path, name, max_pixels)
        if is_picture(path) and not animation and path.suffix.lower() != ".apng":
            raise ClipError(f"{name} is a picture", "depth image takes pictures")
        if is_exr(path):
            raise ClipError(f"{name} is a single frame", "give their folder, or a pattern such as f####.exr")
        return _decoded(path.open("rb"), name, path, max_pixels)
    except FileNotFoundError as error:
        raise ClipError(f"{name} does not exist", "check the path") from error
    except PermissionError as error:
        raise ClipError(f"{name} may not be read: permission denied", "check the file's permissions") from error
    except OSError as error:
        raise ClipError(f"{name} cannot be opened: {str(error.strerror or error).lower()}", "check the path") from error


def _decoded(file: Readable, name: str, path: Optional[Path], max_pixels: int) -> FrameSource:
    if has_av() or not find_program():  # without both, the error of the better one
        return LibavSource(file, name, path, max_pixels)
    return ProgramSource(file, name, path, max_pixels)


class PatientPipe:
    """stdin that ends early if `stop` returns True while no data comes. Raises ClipError if there is no stdin."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        if sys.stdin is None:
            raise ClipError("there is no stdin: the process was started with it closed", "send the clip to it")
        self._stream, self._stop = sys.stdin.buffer, stop
        try:
            self._descriptor: Optional[int] = self._stream.fileno()
        except (OSError, ValueError):  # not a file, as in a notebook
            self._descriptor = None

    def read(self, count: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        if self._descriptor is None or os.name == "nt":  # which can only wait for sockets
            return self._stream.read(count)
        pieces, left = [], count
        while left:
            if not select.select([self._descriptor], [], [], _PATIENCE)[0]:
                if self._stop():
                    break
                continue
            piece = os.read(self._descriptor, min(left, 1 << 20))
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


class _Pipe:
    """A stream that can only be read on: libav would try to seek in anything that has the method."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, count: int) -> bytes:
        return self._stream.read(count)

    def close(self) -> None:
        """Leave it open: it is not ours."""


# --- Frames in files --------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"%0?(\d*)d|#+")  # f%04d.png of FFmpeg, f####.png of compositors


def frames_of_folder(folder: Path) -> list[Path]:
    """Return the frames in a folder in the order of their numbers; see `_without_others` for what is left out."""
    if not may_be_listed(folder):
        raise ClipError(f"{printable(str(folder))} may not be read: permission denied", "check its permissions")
    return _without_others(folder.iterdir())


def frames_of_pattern(argument: str) -> Optional[list[Path]]:
    """Return the frames of a pattern such as f%04d.png, f####.exr or f*.png, in order.

    None if it is not a pattern, names an existing file, or matches no picture.
    """
    path = Path(argument)
    if os.path.lexists(path):
        return None
    if _NUMBER.search(path.name):
        pieces, end = [], 0
        for found in _NUMBER.finditer(path.name):
            digits = found[1] or "1" if found[0][0] == "%" else str(len(found[0]))
            pieces += [re.escape(path.name[end : found.start()]), f"[0-9]{{{digits},}}"]
            end = found.end()
        name = re.compile("".join(pieces) + re.escape(path.name[end:]))
        beside = path.parent.iterdir() if path.parent.is_dir() and may_be_listed(path.parent) else iter(())
        matches: Iterable[Path] = (item for item in beside if name.fullmatch(item.name))
    elif glob.has_magic(argument):
        matches = map(Path, glob.iglob(argument, recursive=True))
    else:
        return None
    return _without_others(matches) or None


def _without_others(paths: Iterable[Path]) -> list[Path]:
    """Return the frames of a clip among these paths, in order.

    Depth maps of depthcli are left out, by their facts. EXR files count only without other pictures, which are previews
    of the same frames.
    """
    files = [path for path in paths if (is_picture(path) or is_exr(path)) and path.is_file()]
    pictures = [path for path in files if not is_exr(path) and not (may_be_ours(path) and read_facts(path))]
    renders = [] if pictures else [path for path in files if is_exr(path) and not is_our_exr(path)]
    return sorted(pictures or renders, key=natural_order)


class FolderSource:
    """Frames in files, in the given order, at a constant rate.

    An unreadable picture leaves a gap, and is named at the end. Raises ClipError if there are none, or if sizes differ.
    """

    def __init__(self, paths: list[Path], name: str, rate: Optional[Fraction], max_pixels: int) -> None:
        self._paths, self._max_pixels = paths, max_pixels
        size = _common_size(self._paths, name)
        notes = [f"{len(self._paths)} pictures"]
        if rate is None:
            notes.append(f"{float(FOLDER_RATE):g} frames per second, as nothing says another rate")
        if any(map(is_exr, paths)):
            notes.append("EXR taken for linear light: 1.0 is white, with the curve of sRGB")
        rate = rate or FOLDER_RATE
        count = len(self._paths)
        camera, orientation = _camera_of_frame(self._paths[0], max_pixels)
        self.info = ClipInfo(
            name,
            size,
            rate,
            1 / rate,
            frames=count,
            duration=float(count / rate),
            codec="pictures",
            numbers=_numbers(self._paths),
            paths=tuple(self._paths),
            camera=camera,
            orientation=orientation,
            notes=tuple(notes),
        )

    def shown(self) -> Iterator[Shown]:
        """Yield the pictures that can be read; then raise ClipError if one could not."""
        failures: list[PictureError] = []
        period = 1 / self.info.rate
        for index, path in enumerate(self._paths):
            try:
                if is_exr(path):
                    rgb = read_exr_frame(path, self._max_pixels)
                else:
                    rgb = read_picture(path, max_pixels=self._max_pixels).rgb
            except PictureError as error:
                failures.append(error)
                continue
            yield Shown(index * period, period, lambda rgb=rgb: rgb)  # type: ignore[misc]
        if failures:
            read = len(self._paths) - len(failures)
            more = f" and {len(failures) - 1} more" if len(failures) > 1 else ""
            message = f"{failures[0].message}{more}; {read} of {len(self._paths)} frames could be read"
            raise ClipError(message, failures[0].hint, read)

    def close(self) -> None:
        """Nothing is open between two pictures."""


def _camera_of_frame(path: Path, max_pixels: int) -> tuple[Optional[Camera], int]:
    """Return the camera that the EXIF of a frame tells, None without one, and its orientation."""
    if is_exr(path):
        return None, 1
    try:
        picture = read_picture(path, max_pixels=max_pixels)
    except PictureError:  # told when it is its turn
        return None, 1
    return picture.camera, picture.orientation


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Return what to sort paths by so that frame2 comes before frame10."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    return [(0, int(piece), piece) if piece.isdigit() else (1, 0, piece) for piece in pieces]


def _numbers(paths: list[Path]) -> tuple[int, ...]:
    """Return the number at the end of each name, as in shot.1001.png; empty if one is missing or they do not rise."""
    found = [re.search(r"([0-9]+)$", path.stem) for path in paths]
    numbers = tuple(int(match[1]) for match in found if match)
    rising = all(before < after for before, after in zip(numbers, numbers[1:]))
    return numbers if len(numbers) == len(paths) and rising else ()


def _common_size(paths: list[Path], name: str) -> tuple[int, int]:
    sizes = {path: size for path in paths if (size := exr_size(path) if is_exr(path) else picture_size(path))}
    if not sizes:
        reason = "holds no picture" if not paths else "holds no picture that can be read"
        raise ClipError(f"{name} {reason}", "give a video file, or a folder of frames")
    counts = list(sizes.values())
    common = max(counts, key=counts.count) if len(set(counts)) > 1 else counts[0]
    for path, size in sizes.items():
        if size != common:
            raise ClipError(
                "{} has {}x{} pixels, the other frames {}x{}".format(printable(str(path)), *size, *common),
                "frames of a clip have one size: leave it out, or use depth dir",
            )
    return common


# --- Raw video --------------------------------------------------------------------------------------------------------


class RawSource:
    """8-bit RGB without a header from a pipe. Raises ClipError if the rate is missing or a frame is cut short."""

    def __init__(
        self, stream: Any, size: tuple[int, int], rate: Optional[Number], max_pixels: int = MAX_PIXELS
    ) -> None:
        width, height = size
        if not rate:
            raise ClipError("raw video does not say its rate", "give its frames per second")
        if min(size) < 1 or width * height > max_pixels:
            raise ClipError(f"raw video of {width}x{height} pixels cannot be", "check its size")
        self._stream, self._shape = stream, (height, width, 3)
        frames_per_second = exact_rate(rate)
        self.info = ClipInfo("stdin", size, frames_per_second, 1 / frames_per_second, codec="raw RGB")

    def shown(self) -> Iterator[Shown]:
        """Yield the frames; then raise ClipError if the last is not whole."""
        period, length = 1 / self.info.rate, int(np.prod(self._shape))
        index = 0
        while len(data := self._stream.read(length)) == length:
            rgb = np.frombuffer(data, np.uint8).reshape(self._shape)
            yield Shown(index * period, period, lambda rgb=rgb: rgb)  # type: ignore[misc]
            index += 1
        if data or not index:
            reason = f"ends within frame {index}; {index} could be read" if data else "is empty"
            raise ClipError(f"stdin {reason}", "check the size and the sender", index)

    def close(self) -> None:
        """Leave stdin open: it is not ours."""
