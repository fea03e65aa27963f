"""Animated pictures as clips. FFmpeg reads WebP only since version 9, so WebP is read through Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from depthcli.errors import ClipError
from depthcli.io.pictures.images import MAX_PIXELS, check_size
from depthcli.io.pictures.samples import on_black
from depthcli.io.video.clip import ClipInfo, Shown

VIDEO, WEBP = "video", "webp"
_MILLISECOND = Fraction(1, 1000)
# Browsers and FFmpeg show a frame with almost no pause for a tenth of a second.
_SHORTEST, _USUAL = 11, 100
_AGAIN = "copy or download it again"


def animation_in(path: Path) -> str:
    """Return the reader of an animated picture: "video", "webp", or empty for a still picture. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"GIF8":
            return VIDEO
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return VIDEO if _has_png_frames(file) else ""
        if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
            return WEBP if head[20] & 2 else ""
        if head[4:8] == b"ftyp":
            return VIDEO if b"avis" in head[8 : int.from_bytes(head[:4], "big")] else ""
    return ""


def _has_png_frames(file: BinaryIO) -> bool:
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return False


class WebPSource:
    """The frames of an animated WebP. Raises ClipError for a file that is none, or too large."""

    def __init__(self, path: Path, name: str, max_pixels: int = MAX_PIXELS) -> None:
        from PIL.WebPImagePlugin import WebPImageFile

        self._name = name
        self._pauses = [_MILLISECOND * (pause if pause >= _SHORTEST else _USUAL) for pause in _pauses(path)]
        self._file = path.open("rb")
        try:
            self._image = WebPImageFile(self._file)
            check_size(self._image.size, name, max_pixels, ClipError)
            if not self._pauses:
                raise ClipError(f"{name} holds no frame", _AGAIN)
        except (ClipError, MemoryError):
            self.close()
            raise
        except Exception as error:  # whatever broken bytes lead to
            self.close()
            raise ClipError(f"{name} is damaged: its header cannot be read", _AGAIN) from error
        count, duration = len(self._pauses), sum(self._pauses)
        self.info = ClipInfo(
            name,
            self._image.size,
            Fraction(count) / duration,
            _MILLISECOND,
            frames=count,
            duration=float(duration),
            variable=len(set(self._pauses)) > 1,
            codec="webp",
            notes=("transparent parts are black",) if self._image.mode == "RGBA" else (),
        )

    def shown(self) -> Iterator[Shown]:
        """Yield the frames; then raise ClipError if one could not be decoded."""
        time = Fraction(0)
        for index, pause in enumerate(self._pauses):
            try:
                self._image.seek(index)
                rgba = np.asarray(self._image.convert("RGBA"))
                rgb = on_black(rgba[..., :3], rgba[..., 3])
            except MemoryError:  # no fault of the file
                raise
            except Exception as error:  # as above
                message = f"{self._name} is damaged: frame {index + 1} of {len(self._pauses)} cannot be decoded"
                raise ClipError(f"{message}; {index} could be read", _AGAIN, index) from error
            yield Shown(time, pause, lambda rgb=rgb: rgb)  # type: ignore[misc]
            time += pause

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _pauses(path: Path) -> list[int]:
    """Return the milliseconds of each frame: 3 bytes in the header of its chunk."""
    found = []
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            inside = file.read(16) if head[:4] == b"ANMF" and length >= 16 else b""
            if inside:
                found.append(int.from_bytes(inside[12:15], "little"))
            file.seek(length + length % 2 - len(inside), 1)
    return found
