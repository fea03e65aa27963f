"""Small clips made on the fly: every frame says which one it is, and every corner which one that is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

SIZE = (64, 48)
RATE = Fraction(24000, 1001)
X264 = {"crf": "4", "preset": "ultrafast"}
# Of ITU-T H.273, for the matrices of the tests: number, Kr, Kb.
BT601, BT709, BT2020 = (6, 0.299, 0.114), (1, 0.2126, 0.0722), (9, 0.2627, 0.0593)
# Red, green, blue and gray: left above, right above, left below, right below.
CORNERS = np.array([[[200, 40, 40], [40, 180, 60]], [[50, 60, 210], [128, 128, 128]]], np.uint8)


def scene(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) uint8: the four corners, and a gray band in the middle as bright as the frame's number says."""
    width, height = size
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    rgb = CORNERS[rows][:, columns].copy()
    rgb[height // 3 : -(height // 3)] = 10 + 4 * index
    return rgb


def number(rgb: np.ndarray) -> int:
    """Which frame a decoded one is."""
    return round((float(rgb[len(rgb) // 2].mean()) - 10) / 4)


def yuv_planes(rgb: np.ndarray, matrix: tuple[int, float, float] = BT709, full: bool = False) -> np.ndarray:
    """(3, H, W) float: codes of 0 to 255 for Y', Cb and Cr, by the formulas of BT.601, BT.709 and BT.2020."""
    _, kr, kb = matrix
    r, g, b = np.moveaxis(rgb.astype(np.float64), 2, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    luma, chroma, black = (1.0, 1.0, 0) if full else (219 / 255, 224 / 255, 16)
    return np.stack([y * luma + black, cb * chroma + 128, cr * chroma + 128])


def yuv444(
    rgb: np.ndarray, pixel_format: str = "yuv444p", matrix: tuple[int, float, float] = BT709, full: bool = False
) -> av.VideoFrame:
    """A frame of three planes as large as the picture, converted here and not by the library under test."""
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, pixel_format)
    bits = frame.format.components[0].bits
    codes = np.round(yuv_planes(rgb, matrix, full) * 2 ** (bits - 8))
    for plane, values in zip(frame.planes, codes):
        stored = values.astype("<u2" if bits > 8 else np.uint8)
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height]
        rows[:, : width * stored.itemsize] = stored.view(np.uint8)
    return frame


def make_clip(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = SIZE,
    rate: Fraction = RATE,
    codec: str = "libx264",
    pixel_format: str = "yuv444p",
    matrix: tuple[int, float, float] = BT709,
    full: bool = False,
    transfer: int = 1,
    times: Sequence[Fraction] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    sound: str = "",
    videos: int = 1,
    container: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a clip; times (seconds) make its rate vary, sound names a codec, videos > 1 adds smaller ones before it."""
    with av.open(str(path), "w", options=muxer or {}, format=container) as out:
        out.metadata.update(metadata or {})
        for _ in range(videos - 1):
            small = out.add_stream("libx264", rate=rate, options=X264)
            small.width, small.height, small.pix_fmt = 16, 16, "yuv444p"
        stream = out.add_stream(codec, rate=rate, options=X264 if options is None else options)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc = matrix[0], 2 if full else 1, transfer
        unit = time_base or 1 / rate
        context.time_base = stream.time_base = unit
        audio = out.add_stream(sound, rate=48000) if sound else None
        for index in range(frames):
            for small in out.streams.video[: videos - 1]:
                frame = yuv444(scene(index, (16, 16)))
                frame.pts = index
                out.mux(small.encode(frame))
            frame = yuv444(scene(index, size), "yuv444p" if "444" not in pixel_format else pixel_format, matrix, full)
            if frame.format.name != pixel_format:
                frame = frame.reformat(format=pixel_format)
            frame.colorspace, frame.color_range = matrix[0], 2 if full else 1
            frame.pts = index if times is None else round(times[index] / unit)
            frame.time_base = unit
            out.mux(stream.encode(frame))
        for video in out.streams.video:
            out.mux(video.encode(None))
        if audio:
            write_sound(out, audio, float(frames / rate))
    return path


def write_sound(out: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    wave = np.sin(np.arange(round(48000 * seconds)) / 20).astype(np.float32)
    samples = av.AudioFrame.from_ndarray(wave[None].repeat(2, 0), format="fltp", layout="stereo")
    samples.sample_rate, samples.pts, samples.time_base = 48000, 0, Fraction(1, 48000)
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, stream.frame_size or None)
    for piece in [*resampler.resample(samples), None]:
        out.mux(stream.encode(piece))


# The display matrix (a, b, c, d) of what a camera stores when it is held so: x' = a x + c y, y' = b x + d y.
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0), "mirror": (-1, 0, 0, 1)}


def turn_header(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the track header of an MP4 file (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def side_data(frame: Any) -> dict[str, bytes]:
    """Return what FFmpeg tells beside the pixels of a frame, by the names of its types."""
    found = frame.side_data  # which PyAV 18 walks by its entries, and PyAV 19 by their types
    entries = [item if hasattr(item, "type") else found[item] for item in found]
    return {entry.type.name: bytes(entry) for entry in entries}
