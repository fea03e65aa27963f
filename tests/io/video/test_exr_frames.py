"""OpenEXR frames become 8-bit RGB by one rule, whatever their compression, and what cannot be read says why."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.errors import ClipError, PictureError
from depthcli.io.codecs.exr import write_exr
from depthcli.io.video import exr_frames
from depthcli.io.video.exr_frames import exr_size, read_exr_frame
from depthcli.io.video.reader import frames_of_folder, open_clip

WIDTH, HEIGHT = 33, 20


def light() -> np.ndarray:
    """Return (H, W, 3) float32: a ramp from below black to above white, other in each channel."""
    ramp = np.linspace(-0.1, 1.4, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    return np.stack([ramp, ramp[::-1], ramp[:, ::-1] / 2], axis=2)


def by_the_rule(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values.astype(np.float64), 0, 1)
    curve = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.round(255 * curve).astype(np.uint8)


def encode(path: Path, compression: str, kind: str = "float") -> Path:
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as out:
        stream = out.add_stream("exr", rate=24, options={"compression": compression, "format": kind})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gbrpf32le"
        frame = av.VideoFrame(WIDTH, HEIGHT, "gbrpf32le")
        for plane, channel in zip(frame.planes, (1, 2, 0)):
            rows = np.zeros((HEIGHT, plane.line_size // 4), np.float32)
            rows[:, :WIDTH] = light()[:, :, channel]
            plane.update(rows.tobytes())
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return path


def header(channels: dict[str, int], window: tuple, display: tuple, compression: int = 3, flags: int = 0) -> bytes:
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<i4B2i", kind, 0, 0, 0, 0, 1, 1) for name, kind in channels.items()
    )
    attributes = (
        (b"channels", b"chlist", listed + b"\0"),
        (b"compression", b"compression", bytes([compression])),
        (b"dataWindow", b"box2i", struct.pack("<4i", *window)),
        (b"displayWindow", b"box2i", struct.pack("<4i", *display)),
    )
    packed = (b"%s\0%s\0%s%s" % (name, kind, struct.pack("<i", len(v)), v) for name, kind, v in attributes)
    return struct.pack("<2i", 20000630, 2 | flags) + b"".join(packed) + b"\0"


def write(path: Path, channels: dict[str, np.ndarray], window: tuple, display: tuple) -> Path:
    """Write float32 channels without compression, a block for each row."""
    head = header({name: 2 for name in sorted(channels)}, window, display, compression=0)
    blocks = []
    for row in range(window[3] - window[1] + 1):
        data = b"".join(channels[name][row].astype("<f4").tobytes() for name in sorted(channels))
        blocks.append(struct.pack("<2i", window[1] + row, len(data)) + data)
    offsets = len(head) + 8 * len(blocks) + np.cumsum([0, *map(len, blocks[:-1])])
    path.write_bytes(head + offsets.astype("<u8").tobytes() + b"".join(blocks))
    return path


def rgb(values: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + name: values[:, :, place] for place, name in enumerate("RGB")}


def whole(values: np.ndarray) -> tuple[int, int, int, int]:
    return (0, 0, values.shape[1] - 1, values.shape[0] - 1)


@pytest.mark.parametrize("compression", ["none", "rle", "zip1", "zip16"])
@pytest.mark.parametrize(("kind", "tolerance"), [("float", 0), ("half", 1)])
def test_rows_of_every_packing_follow_the_rule(tmp_path: Path, compression: str, kind: str, tolerance: int) -> None:
    path = encode(tmp_path / "a.exr", compression, kind)
    assert exr_size(path) == (WIDTH, HEIGHT)
    assert np.abs(read_exr_frame(path).astype(int) - by_the_rule(light())).max() <= tolerance


def test_other_kinds_come_through_pyav_with_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.exr", "zip16")
    monkeypatch.setattr(exr_frames, "_ROWS", {})
    assert np.array_equal(read_exr_frame(path), by_the_rule(light()))
    monkeypatch.setattr(exr_frames, "has_av", lambda: False)
    with pytest.raises(PictureError, match="pip install av"):
        read_exr_frame(path)


def test_the_whole_render_is_shown_and_not_one_of_its_passes(tmp_path: Path) -> None:
    values = light()
    passes = {**rgb(0 * values, "View.Albedo."), **rgb(values, "View.Combined."), "View.Combined.A": values[:, :, 0]}
    path = write(tmp_path / "a.exr", passes, whole(values), whole(values))
    assert np.array_equal(read_exr_frame(path), by_the_rule(values))
    path = write(tmp_path / "b.exr", {**passes, **rgb(values[::-1])}, whole(values), whole(values))
    assert np.array_equal(read_exr_frame(path), by_the_rule(values[::-1]))


def test_gray_is_gray_and_depth_alone_is_no_frame(tmp_path: Path) -> None:
    gray = light()[:, :, 0]
    path = write(tmp_path / "a.exr", {"Y": gray}, whole(gray), whole(gray))
    assert np.array_equal(read_exr_frame(path), by_the_rule(np.dstack([gray] * 3)))
    path = write(tmp_path / "b.exr", {"Z": gray}, whole(gray), whole(gray))
    with pytest.raises(PictureError, match="no colours, but the channels Z"):
        read_exr_frame(path)


def test_a_render_of_a_part_lies_where_it_belongs(tmp_path: Path) -> None:
    values = light()
    path = write(tmp_path / "a.exr", rgb(values), (5, -3, 4 + WIDTH, HEIGHT - 4), (0, 0, 29, 29))
    shown = read_exr_frame(path)
    assert shown.shape == (30, 30, 3)
    assert np.array_equal(shown[: HEIGHT - 3, 5:], by_the_rule(values[3:, :25]))
    assert not shown[HEIGHT - 3 :].any()


def test_not_a_number_is_black_and_infinity_white(tmp_path: Path) -> None:
    values = np.full((1, 3, 3), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    shown = read_exr_frame(write(tmp_path / "a.exr", rgb(values), whole(values), whole(values)))
    assert shown[0, :, 0].tolist() == [0, 255, 188]


@pytest.mark.parametrize("length", [3, 60, 300, 900])
def test_what_is_not_whole_is_one_line(tmp_path: Path, length: int) -> None:
    path = encode(tmp_path / "a.exr", "zip16")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PictureError) as caught:
        read_exr_frame(path)
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)


def test_bytes_turned_over_give_a_frame_or_one_line(tmp_path: Path) -> None:
    data = encode(tmp_path / "a.exr", "zip16").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 3):
            broken[place] ^= 1 << random.integers(8)
        (tmp_path / "b.exr").write_bytes(bytes(broken))
        try:
            read_exr_frame(tmp_path / "b.exr", max_pixels=1_000_000)
        except PictureError as error:
            assert "\n" not in str(error)


def test_frames_of_renders_are_a_clip_and_our_maps_are_none_of_them(tmp_path: Path) -> None:
    for index in (7, 8):
        encode(tmp_path / f"f{index:04d}.exr", "zip1")
        with (tmp_path / f"f{index:04d}_depth.exr").open("wb") as file:
            write_exr(light()[:, :, 0], file, {})
    for source in (tmp_path, tmp_path / "f####.exr"):
        with open_clip(source) as clip:
            frames = list(clip.frames())
        assert clip.info.numbers == (7, 8)
        assert any("sRGB" in note for note in clip.info.notes)
        assert np.array_equal(frames[1].rgb, by_the_rule(light()))


def test_pictures_come_before_renders_of_the_same_frames(tmp_path: Path) -> None:
    encode(tmp_path / "f1.exr", "zip1")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "f1.png")
    assert [path.name for path in frames_of_folder(tmp_path)] == ["f1.png"]


def test_one_render_is_no_clip(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.exr", "zip1")
    with pytest.raises(ClipError, match="is a single frame"), open_clip(path):
        pass


def test_a_render_that_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(header({"B": 1, "G": 1, "R": 1}, (0, 0, 99999, 99999), (0, 0, 99999, 99999)) + zlib.compress(b""))
    with pytest.raises(PictureError, match="too large: 100000x100000"):
        read_exr_frame(path)
