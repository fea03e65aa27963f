"""Deterministic clips to measure steadiness, made from the benchmark's synthetic picture."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from depthcli.io.video.clip import Frame
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.writers import video_writer

SIZE = (640, 360)
RATE = Fraction(24)
_NOISE = 3.0  # standard deviation of a sensor's noise, grey levels
_EXPOSURE = (0.95, 1.05)
_STEP = (2.6, 0.8)  # pixels per frame, right and down; fractions, so that frames are resampled


def still(count: int, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    """Yield frames of (width, height) without motion, with noise and an exposure that varies by 5 %."""
    picture = _picture(*size, seed=0)
    for number in range(count):
        gain = np.random.default_rng([1, number]).uniform(*_EXPOSURE)
        yield _frame(number, picture * np.float32(gain))


def panning(count: int, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    """Yield frames of a pan over a large picture by fractions of pixels, without a cut."""
    return (_frame(number, view) for number, view in enumerate(_views(count, size, seed=0)))


def cutting(count: int, size: tuple[int, int] = SIZE) -> Iterator[Frame]:
    """Yield two such pans; the second begins with frame count // 2."""
    first = count // 2
    shots = chain(_views(first, size, seed=0), _views(count - first, size, seed=1))
    return (_frame(number, view) for number, view in enumerate(shots))


def write_clip(frames: Iterable[Frame], path: Path, size: tuple[int, int] = SIZE) -> None:
    """Write frames as an mp4."""
    with video_writer(ClipOutput("mp4", path, size, Timing(RATE, 1 / RATE), {})) as writer:
        for frame in frames:
            writer.write(frame.rgb, frame.time, frame.duration)


def _picture(width: int, height: int, seed: int) -> np.ndarray:
    """Return (height, width, 3) float32, 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(photograph(width, height, seed))), np.float32)


def _views(count: int, size: tuple[int, int], seed: int) -> Iterator[np.ndarray]:
    wide, high = (int(length + count * step) + 4 for length, step in zip(size, _STEP))
    picture = _picture(wide, high, seed)
    for number in range(count):
        x, y = (number * step for step in _STEP)
        matrix = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
        yield cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC)


def _frame(number: int, picture: np.ndarray) -> Frame:
    """Return a picture with a sensor's noise as a frame."""
    noise = np.random.default_rng([2, number]).standard_normal(picture.shape, np.float32)
    noise *= _NOISE
    noise += picture
    rgb = np.rint(np.clip(noise, 0, 255)).astype(np.uint8)
    return Frame(number, number / RATE, 1 / RATE, rgb)


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """Return the bytes of a JPEG with the spectrum of a photograph: smooth, with a little noise. seed: which one."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    picture += random.normal(0, 4, picture.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
