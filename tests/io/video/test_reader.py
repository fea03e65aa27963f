"""Every frame of every kind of clip comes out once, upright, in its colours and at its time; damage is named."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import weakref
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import ClipError, DepthError, UsageError
from depthcli.io.codecs.exr import write_exr
from depthcli.io.codecs.files import write_depth
from depthcli.io.video import animations, exr_frames, libav, tonemap
from depthcli.io.video.clip import Selection, Shown, exact_rate
from depthcli.io.video.clock import Clock
from depthcli.io.video.containers import is_protected, missing_bytes
from depthcli.io.video.libav import LibavSource
from depthcli.io.video.reader import ClipInfo, Frame, frames_of_pattern, natural_order, open_clip
from depthcli.io.video.tracks import VideoTrack, choose_track
from tests.conftest import environment
from tests.io.video.clips import (
    BT601,
    BT709,
    BT2020,
    CORNERS,
    MATRICES,
    RATE,
    SIZE,
    make_clip,
    number,
    scene,
    turn_header,
    write_sound,
    yuv_planes,
)


def read(source: Path | str, selection: Selection = Selection(), **options: object) -> tuple[ClipInfo, list[Frame]]:  # noqa: B008
    with open_clip(source, **options) as clip:
        return clip.info, list(clip.frames(selection))


def broken_off(source: Path | str, **options: object) -> tuple[list[Frame], ClipError]:
    """The frames that came, and the error after them."""
    frames: list[Frame] = []
    with open_clip(source, **options) as clip, pytest.raises(ClipError) as caught:
        frames.extend(clip.frames())
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return frames, caught.value


def failure(source: Path | str, **options: object) -> ClipError:
    with pytest.raises(ClipError) as caught, open_clip(source, **options):
        pass
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two pictures, away from the edges between their colours."""
    assert a.shape == b.shape
    return float(np.percentile(np.abs(a.astype(int) - b), 75))


# --- Frames and times -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_every_frame_comes_once_in_order_at_the_exact_rate(tmp_path: Path, suffix: str) -> None:
    info, frames = read(make_clip(tmp_path / f"a{suffix}", frames=12))
    assert [number(frame.rgb) for frame in frames] == list(range(12))
    assert [frame.index for frame in frames] == list(range(12))
    assert info.rate == RATE
    assert not info.variable
    assert info.size == SIZE
    assert info.frames in (12, None)
    assert info.duration == pytest.approx(12 / RATE, abs=0.1)
    unit = max(info.time_base, Fraction(1, 1000)) if suffix == ".mkv" else 0
    for index, frame in enumerate(frames):
        assert abs(frame.time - index / RATE) <= unit
    assert frames[0].time == 0


def test_a_frame_is_rgb_bytes_that_nobody_can_change(tmp_path: Path) -> None:
    info, frames = read(make_clip(tmp_path / "a.mp4", frames=1))
    (frame,) = frames
    assert frame.rgb.shape == (48, 64, 3)
    assert frame.rgb.dtype == np.uint8
    assert frame.rgb.flags.c_contiguous
    assert not frame.rgb.flags.writeable
    assert (info.name, info.codec, info.pixel_format, info.bits) == (str(tmp_path / "a.mp4"), "h264", "yuv444p", 8)
    assert info.notes == ()
    assert (info.transfer, info.rotation, info.audio, info.pixel_aspect) == ("sdr", 0, False, 1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_keeps_its_times(tmp_path: Path, suffix: str) -> None:
    times = [Fraction(t, 1000) for t in (0, 40, 80, 120, 160, 200, 700, 740, 1900, 1940)]
    path = make_clip(tmp_path / f"a{suffix}", len(times), rate=Fraction(25), times=times, time_base=Fraction(1, 1000))
    info, frames = read(path)
    assert [frame.time for frame in frames] == times
    assert [number(frame.rgb) for frame in frames] == list(range(10))
    assert info.variable or suffix == ".mkv"  # Matroska has no table that would say it


def test_times_begin_with_the_first_frame_that_is_shown(tmp_path: Path) -> None:
    times = [5 + index / Fraction(25) for index in range(4)]
    path = make_clip(tmp_path / "a.mkv", 4, rate=Fraction(25), times=times, time_base=Fraction(1, 25))
    info, frames = read(path)
    assert [frame.time for frame in frames] == [index / Fraction(25) for index in range(4)]
    assert info.origin == 5


def placed(*stamps: int | None) -> list[float]:
    clock = Clock(Fraction(25), Fraction(1, 100))
    return [float(clock.place(stamp)) for stamp in stamps]


def test_time_stamps_that_are_missing_or_out_of_order_are_mended() -> None:
    assert placed(100, 104, 108) == [0, 0.04, 0.08]
    assert placed(None, None, None) == [0, 0.04, 0.08]
    assert placed(0, None, 8) == [0, 0.04, 0.08]
    assert placed(0, 4, 4, 8) == [0, 0.04, 0.05, 0.08]
    assert placed(0, 4, 3, 8) == [0, 0.04, 0.05, 0.08]
    assert placed(1000, 1004, 0, 4) == [0, 0.04, 0.08, 0.12]


TIMES = [
    Fraction(milliseconds, 1000) for milliseconds in (0, 40, 60, 300, 340, 380, 2000, 2020, 2100, 2140, 2180, 2300)
]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv", "a.avi"])
def test_frames_out_of_order_keep_even_times(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / name, 24, options={"bf": "2", "g": "12"}, pixel_format="yuv420p")
    info, frames = read(path)
    assert len(frames) == 24
    assert info.rate == RATE
    for index, frame in enumerate(frames):
        assert float(frame.time) == pytest.approx(float(index / RATE), abs=0.001)
        assert float(frame.duration) == pytest.approx(float(1 / RATE), abs=0.0011)


def test_avi_begins_with_its_sound(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.avi", 6, options={"bf": "2"}, pixel_format="yuv420p", sound="mp3")
    assert read(path)[0].origin == 0  # not when the first frame leaves the decoder


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("between", ["0", "2"])
def test_a_frame_lasts_until_the_next_one(tmp_path: Path, name: str, between: str) -> None:
    path = make_clip(
        tmp_path / name, 12, times=TIMES, time_base=Fraction(1, 1000), options={"bf": between}, pixel_format="yuv420p"
    )
    frames = read(path)[1]
    assert [frame.time for frame in frames] == TIMES
    assert [frame.time + frame.duration for frame in frames[:-1]] == TIMES[1:]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        end = stream.duration * stream.time_base if name != "a.mkv" else container.duration / Fraction(1_000_000)
    assert frames[-1].duration > 0
    if end > TIMES[-1]:  # some encoders give durations in the order of decoding
        assert float(frames[-1].time + frames[-1].duration) == pytest.approx(float(end), abs=0.001)


@pytest.mark.parametrize("between", ["0", "2"])
def test_what_an_edit_list_leaves_out_is_neither_shown_nor_missed(tmp_path: Path, between: str) -> None:
    path = make_clip(
        tmp_path / "a.mp4", 24, options={"bf": between, "g": "6"}, pixel_format="yuv420p", rate=Fraction(25)
    )
    whole = read(path)[1]
    data = bytearray(path.read_bytes())
    scale = int.from_bytes(data[(at := data.index(b"mvhd")) + 16 : at + 20], "big")
    unit = int.from_bytes(data[(at := data.index(b"mdhd")) + 16 : at + 20], "big")
    at = data.index(b"elst") + 12  # seconds in the movie's unit, then where they begin in the track's
    begin = int.from_bytes(data[at + 4 : at + 8], "big") + 7 * unit // 25
    data[at : at + 8] = struct.pack(">2I", 10 * scale // 25, begin)
    path.write_bytes(bytes(data))
    _, frames = read(path)
    assert all(np.array_equal(frame.rgb, meant.rgb) for frame, meant in zip(frames, whole[7:17]))
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(10)]
    assert float(frames[-1].duration) == pytest.approx(1 / 25, abs=0.001)


def test_durations_in_the_order_of_decoding_end_where_their_sum_does() -> None:
    clock = Clock(Fraction(2), Fraction(1, 100), ordered=True)
    for pts, dts, duration in ((0, -10, 10), (30, 0, 10), (10, 10, 200), (20, 20, 10)):  # 2.3 s in all
        clock.packet(pts, dts, duration)
    assert [float(clock.place(pts)) for pts in (0, 10, 20, 30)] == [0, 0.1, 0.2, 0.3]
    assert clock.rest() == 2


def test_a_header_that_counts_what_is_missing_does_not_lengthen_the_last_frame() -> None:
    clock = Clock(Fraction(25), Fraction(1, 100), ordered=True, length=360000)
    for pts in (0, 4):
        clock.packet(pts, pts, 4)
        clock.place(pts)
    assert clock.rest() == Fraction(1, 25)


def test_times_in_the_order_of_decoding_are_seen_through() -> None:
    clock = Clock(Fraction(25), Fraction(1, 100))
    stamps = [(0, 0), (8, 4), (4, 8), (16, 12), (12, 16), (24, 20), (20, 24)]  # (pts, dts) of frames as they come out
    times = [float(clock.place(*stamp)) for stamp in stamps]
    assert times[3:] == [0.12, 0.16, 0.2, 0.24]  # the third frame showed what the stamps are worth


def test_frames_can_be_read_once(tmp_path: Path) -> None:
    with open_clip(make_clip(tmp_path / "a.mp4", 2)) as clip:
        assert len(list(clip.frames())) == 2
        with pytest.raises(ValueError, match="once"):
            clip.frames()


def test_no_more_than_a_frame_or_two_is_held(tmp_path: Path) -> None:
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0
    with open_clip(make_clip(tmp_path / "a.mp4", 40)) as clip:
        for frame in clip.frames(Selection(fps=60)):
            alive.add(frame)
            most = max(most, len(alive))
    assert most <= 2


# --- Which frames -----------------------------------------------------------------------------------------------------


def shown(times: list[float], last: float = 0.04) -> Iterator[Shown]:
    for time, following in zip(times, [*times[1:], times[-1] + last]):
        start = Fraction(str(time))
        yield Shown(start, Fraction(str(round(following - time, 6))), lambda start=start: start)


def chosen(selection: Selection, times: list[float], slack: float = 0) -> list[tuple[float, float]]:
    """(when it is shown, when it was in the clip) of the selected frames."""
    return [
        (round(float(item.time), 4), float(item.pixels()))
        for item in selection.choose(shown(times), Fraction(str(slack)))
    ]


TENTHS = [index / 10 for index in range(10)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), TENTHS),
        (Selection(start=0.3), TENTHS[3:]),
        (Selection(end=0.3), TENTHS[:3]),
        (Selection(start=0.25, end=0.55), [0.3, 0.4, 0.5]),
        (Selection(stride=3), [0, 0.3, 0.6, 0.9]),
        (Selection(start=0.1, stride=4, max_frames=2), [0.1, 0.5]),
        (Selection(max_frames=1), [0]),
        (Selection(start=5), []),
    ],
)
def test_frames_are_chosen_by_time_and_number(selection: Selection, expected: list[float]) -> None:
    assert chosen(selection, TENTHS) == [(time, time) for time in expected]


def test_a_rate_takes_at_each_tick_the_frame_that_is_shown() -> None:
    slower = chosen(Selection(fps=4), TENTHS)
    assert slower == [(0, 0), (0.25, 0.2), (0.5, 0.5), (0.75, 0.7)]
    faster = chosen(Selection(fps=20, end=0.2), TENTHS)
    assert faster == [(0, 0), (0.05, 0), (0.1, 0.1), (0.15, 0.1)]
    uneven = chosen(Selection(fps=10), [0, 0.1, 0.35, 0.4])
    assert uneven == [(0, 0), (0.1, 0.1), (0.2, 0.1), (0.3, 0.1), (0.4, 0.4)]
    later = chosen(Selection(fps=5, start=0.3, max_frames=2), TENTHS)
    assert later == [(0.3, 0.3), (0.5, 0.5)]
    thinned = chosen(Selection(fps=5, stride=2), TENTHS)
    assert thinned == [(0, 0), (0.4, 0.4), (0.8, 0.8)]


def test_a_rate_sees_through_time_stamps_that_a_file_rounds() -> None:
    rounded = [round(index / 24, 3) for index in range(48)]
    assert [was for _, was in chosen(Selection(fps=24), rounded, slack=0.001)] == rounded


def test_the_rate_that_results_is_the_one_that_is_told() -> None:
    assert Selection().rate(RATE) == RATE
    assert Selection(stride=3).rate(RATE) == Fraction(8000, 1001)
    assert Selection(fps=15).rate(RATE) == 15
    assert Selection(fps=15, stride=2).rate(RATE) == Fraction(15, 2)
    assert Selection(fps=23.976).rate(Fraction(25)) == RATE
    assert exact_rate(29.97) == Fraction(30000, 1001)
    assert exact_rate(12.5) == Fraction(25, 2)
    assert [exact_rate(whole) for whole in (24, 30, 60, 120)] == [24, 30, 60, 120]


def test_how_many_frames_will_come() -> None:
    info = ClipInfo("a", (1, 1), Fraction(25), Fraction(1, 25), frames=100, duration=4.0)
    assert Selection().count(info) == 100
    assert Selection(start=1, end=3).count(info) == 50
    assert Selection(stride=4).count(info) == 25
    assert Selection(fps=5).count(info) == 20
    assert Selection(max_frames=7).count(info) == 7
    unknown = ClipInfo("a", (1, 1), Fraction(25), Fraction(1, 25))
    assert Selection().count(unknown) is None
    assert Selection(end=2).count(unknown) == 50


def test_the_sound_goes_only_with_a_whole_clip() -> None:
    assert Selection().whole
    assert Selection(fps=12, stride=2).whole
    assert not any(s.whole for s in (Selection(start=1), Selection(end=1), Selection(max_frames=1)))


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"fps": 0}, {"fps": -1}, {"max_frames": 0}, {"start": 2, "end": 2}])
def test_a_choice_of_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        Selection(**wrong)


@pytest.mark.parametrize("selection", [Selection(), Selection(fps=40), Selection(stride=2, start=0.1)])
def test_after_a_skip_the_frames_are_the_same_bytes(
    tmp_path: Path, selection: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "a.mp4", 12, pixel_format="yuv420p")
    _, whole = read(path, selection)
    converted = []
    convert = LibavSource._to_rgb
    monkeypatch.setattr(LibavSource, "_to_rgb", lambda self, frame: converted.append(1) or convert(self, frame))
    with open_clip(path) as clip:
        rest = list(clip.frames(selection, skip=3))
    assert [(frame.index, frame.time) for frame in rest] == [(frame.index, frame.time) for frame in whole[3:]]
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(rest, whole[3:]))
    assert len(converted) <= len({frame.rgb.ctypes.data for frame in rest}) <= len(rest)


# --- Upright, and every size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "upright"),
    [
        (90, lambda a: np.rot90(a, -1)),
        (180, lambda a: a[::-1, ::-1]),
        (270, lambda a: np.rot90(a)),
        ("mirror", lambda a: a[:, ::-1]),
    ],
)
def test_what_a_camera_turned_comes_out_upright(tmp_path: Path, turn: int | str, upright) -> None:
    path = turn_header(make_clip(tmp_path / "a.mp4", 2), MATRICES[turn])
    info, frames = read(path)
    expected = upright(scene(1))
    assert info.size == frames[1].rgb.shape[1::-1] == expected.shape[1::-1]
    assert difference(frames[1].rgb, expected) <= 3
    assert frames[1].rgb.flags.c_contiguous
    assert info.rotation == (0 if turn == "mirror" else turn)
    assert info.notes == (("mirrored" if turn == "mirror" else f"turned by {turn}°") + " as its header says",)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "suffix"),
    [("libx264", "yuv444p", ".mp4"), ("libvpx-vp9", "yuv420p", ".webm"), ("ffv1", "yuv420p", ".mkv")],
)
def test_odd_sizes(tmp_path: Path, codec: str, pixel_format: str, suffix: str) -> None:
    path = make_clip(tmp_path / f"a{suffix}", 2, (65, 49), codec=codec, pixel_format=pixel_format, options={})
    info, frames = read(path)
    assert info.size == (65, 49)
    assert difference(frames[0].rgb, scene(0, (65, 49))) <= 6


def test_a_clip_that_changes_its_size_ends_there(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{i}.ts", 3, size, container="mpegts") for i, size in enumerate([SIZE, (32, 32)])]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, error = broken_off(path)
    assert [number(frame.rgb) for frame in frames] == [0, 1, 2]
    assert "changes its size: 32x32 instead of 64x48 pixels" in error.message
    assert error.frames == 3


def test_of_several_streams_the_best_is_taken_and_that_is_said(tmp_path: Path) -> None:
    info, frames = read(make_clip(tmp_path / "a.ts", 3, videos=2))
    assert info.size == SIZE
    assert [number(frame.rgb) for frame in frames] == [0, 1, 2]
    assert info.notes == ("stream 1 (64x48) is the clip; left out: stream 0 (16x16)",)


def test_the_default_stream_comes_before_a_larger_one(tmp_path: Path) -> None:
    info, _ = read(make_clip(tmp_path / "a.mp4", 3, videos=2))  # whose writer marks the first one
    assert info.size == (16, 16)
    assert info.notes == ("stream 0 (16x16), the default one, is the clip; left out: stream 1 (64x48)",)


def add_cover(path: Path, size: tuple[int, int] = (640, 480)) -> Path:
    """Attach a picture, larger than the clip, in the tags of an MP4 file (moov/udta/meta/ilst/covr)."""
    picture = io.BytesIO()
    Image.new("RGB", size).save(picture, "JPEG")

    def box(kind: bytes, *inside: bytes) -> bytes:
        data = b"".join(inside)
        return (8 + len(data)).to_bytes(4, "big") + kind + data

    handler = box(b"hdlr", bytes(8), b"mdirappl", bytes(9))
    cover = box(b"covr", box(b"data", bytes([0, 0, 0, 13, 0, 0, 0, 0]), picture.getvalue()))
    tags = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", cover)))
    data = bytearray(path.read_bytes())
    at = data.index(b"moov") - 4  # the last box, so nothing moves
    length = int.from_bytes(data[at : at + 4], "big")
    assert at + length == len(data)
    data[at : at + 4] = (length + len(tags)).to_bytes(4, "big")
    path.write_bytes(bytes(data) + tags)
    return path


def test_a_cover_is_never_the_clip(tmp_path: Path) -> None:
    plain = make_clip(tmp_path / "a.mp4", 3)
    plain.write_bytes(re.sub(b"udta", b"skip", plain.read_bytes()))
    info, frames = read(add_cover(plain))
    assert info.size == SIZE
    assert len(frames) == 3
    assert info.notes == ()


def test_a_song_with_a_cover_holds_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        write_sound(out, out.add_stream("aac", rate=48000), 0.2)
    path.write_bytes(re.sub(b"udta", b"skip", path.read_bytes()))
    assert failure(add_cover(path)).message.endswith("holds sound and no video")


def taken(*tracks: VideoTrack) -> int:
    return choose_track("a", tracks, False)[0]


def test_what_a_stream_is_for_comes_before_its_size() -> None:
    def track(index: int, width: int, *purposes: str, **more: int) -> VideoTrack:
        return VideoTrack(index, width, width, frozenset(purposes), **more)

    assert taken(track(0, 16), track(1, 64), track(2, 64)) == 1
    assert taken(track(0, 16, "default"), track(1, 64)) == 0
    assert taken(track(0, 16), track(1, 64, "dependent")) == 0
    assert taken(track(0, 16), track(1, 64, "attached_pic", "timed_thumbnails")) == 0
    assert taken(track(0, 16), track(1, 64, "default", "still_image")) == 0
    assert taken(track(0, 16, frames=90), track(1, 64, "default", frames=1)) == 0
    assert taken(track(0, 16), track(1, 64, "default", "visual_impaired")) == 0
    assert taken(track(0, 16, "still_image")) == 0
    assert taken(track(0, 16), track(1, 64, decodable=False)) == 0
    with pytest.raises(ClipError, match="cannot be decoded"):
        taken(track(0, 64, decodable=False))
    with pytest.raises(ClipError, match="a cover picture and no video"):
        taken(track(0, 64, "attached_pic"))


def test_sound_is_seen(tmp_path: Path) -> None:
    assert read(make_clip(tmp_path / "a.mp4", 3, sound="aac"))[0].audio
    assert not read(make_clip(tmp_path / "b.mp4", 3))[0].audio


# --- Colours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p10le"])
def test_every_matrix_and_range_gives_its_colours(tmp_path: Path, matrix: tuple, full: bool, pixel_format: str) -> None:
    info, frames = read(make_clip(tmp_path / "a.mp4", 1, pixel_format=pixel_format, matrix=matrix, full=full))
    assert difference(frames[0].rgb, scene(0)) <= 3
    assert info.bits == (10 if "10" in pixel_format else 8)


@pytest.mark.parametrize(("size", "matrix"), [((640, 480), BT601), ((1280, 720), BT709)])
def test_what_names_no_matrix_is_bt601_when_small_and_bt709_when_hd(tmp_path: Path, size: tuple, matrix: tuple) -> None:
    unspecified = (2, *matrix[1:])
    _, frames = read(make_clip(tmp_path / "a.mp4", 1, size, matrix=unspecified, transfer=2))
    assert difference(frames[0].rgb, scene(0, size)) <= 3


def test_12_bits_and_hevc(tmp_path: Path) -> None:
    quiet = {"x265-params": "log-level=none:bframes=0", "crf": "4", "preset": "ultrafast"}
    path = make_clip(tmp_path / "a.mp4", 2, codec="libx265", pixel_format="yuv444p12le", options=quiet)
    info, frames = read(path)
    assert (info.codec, info.bits) == ("hevc", 12)
    assert difference(frames[1].rgb, scene(1)) <= 3


@pytest.mark.parametrize(("transfer", "number_of_it"), [("pq", 16), ("hlg", 18)])
def test_hdr_is_tone_mapped_and_that_is_said(tmp_path: Path, transfer: str, number_of_it: int) -> None:
    path = make_clip(tmp_path / "a.mp4", 1, pixel_format="yuv444p10le", matrix=BT2020, transfer=number_of_it)
    info, frames = read(path)
    assert info.transfer == transfer
    assert info.notes == (f"HDR ({transfer.upper()}) tone-mapped to BT.709",)
    expected = tonemap.to_sdr(scene(0).astype(np.uint16) * 257, transfer)
    assert difference(frames[0].rgb, expected) <= 8


def test_the_curves_of_hdr_have_the_values_that_the_standards_print() -> None:
    # BT.2408, table 1: reference white is 203 nits, 58 % of PQ and 75 % of HLG.
    assert tonemap.pq_light(np.array(0.58)) == pytest.approx(203, rel=0.01)
    scene_light = tonemap.hlg_scene_light(np.array(0.75))
    assert 1000 * scene_light**1.2 == pytest.approx(203, rel=0.01)
    assert tonemap.pq_light(np.array([0.0, 1.0])) == pytest.approx([0, 10000])
    assert tonemap.hlg_scene_light(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)
    codes = np.linspace(0, 1, 50)
    assert tonemap.pq_code(tonemap.pq_light(codes)) == pytest.approx(codes, abs=1e-6)


def test_light_is_compressed_without_a_step_and_never_turned_round() -> None:
    nits = np.linspace(0.01, 1000, 20000)
    mapped = tonemap.compressed(nits)
    assert mapped[:100] == pytest.approx(nits[:100])  # what is dark stays
    assert mapped[-1] == pytest.approx(203)
    assert (np.diff(mapped) > -1e-9).all()
    assert np.diff(mapped).max() < 1.01 * (nits[1] - nits[0])


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_tone_mapped_gray_is_gray_from_black_to_white(transfer: str) -> None:
    ramp = np.linspace(0, 65535, 512).astype(np.uint16)
    rgb = tonemap.to_sdr(np.dstack([ramp[None]] * 3), transfer)[0].astype(int)
    assert np.ptp(rgb, axis=1).max() <= 1
    assert rgb[0].tolist() == [0, 0, 0]
    assert rgb[-1].tolist() == [255, 255, 255]
    assert (np.diff(rgb[:, 0]) >= 0).all()


# --- Damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "muxer"), [(".mkv", {}), (".avi", {}), (".mp4", {"movflags": "faststart"}), (".webm", {})]
)
def test_of_a_truncated_clip_comes_what_is_there_and_then_its_name(tmp_path: Path, suffix: str, muxer: dict) -> None:
    if suffix == ".webm":
        kind = {"codec": "libvpx", "pixel_format": "yuv420p", "options": {"b:v": "4M", "crf": "4"}}
    else:
        kind = {"options": {"crf": "0", "preset": "ultrafast"}}
    path = make_clip(tmp_path / f"a{suffix}", 40, muxer=muxer, **kind)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    frames, error = broken_off(path)
    assert 5 <= len(frames) < 40
    assert [number(frame.rgb) for frame in frames] == list(range(len(frames)))
    assert error.frames == len(frames)
    missing = len(data) - len(data) * 6 // 10
    expected = f"{path} is truncated: its last {missing} bytes are missing; {len(frames)} frames could be read"
    assert error.message == expected


def test_a_truncated_mp4_without_its_table_cannot_be_opened(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert failure(path).message == f"{path} is truncated: it ends before the table of its frames does"


def test_damage_in_the_middle_costs_those_frames_and_is_named_in_the_end(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 20, codec="ffv1", pixel_format="yuv444p", options={"slicecrc": "1", "g": "1"})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(bytes(data))
    with open_clip(path) as clip:
        frames: list[Frame] = []
        try:
            frames.extend(clip.frames())
        except ClipError as error:
            assert f"{len(frames)} frames could be read" in error.message
    assert len(frames) >= 18
    assert number(frames[-1].rgb) == 19


def test_frames_that_a_decoder_passes_over_without_a_word_are_missed(tmp_path: Path) -> None:
    quiet = {"x265-params": "log-level=none:bframes=0", "preset": "ultrafast"}
    path = make_clip(tmp_path / "a.mp4", 10, codec="libx265", pixel_format="yuv420p", options=quiet)
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place in places[4:]:
        data[place + 4] = 63 << 1  # behind its length the kind of the unit, which is now one that nobody knows
    path.write_bytes(bytes(data))
    frames, error = broken_off(path)
    assert len(frames) == 4
    assert error.message == f"{path} is damaged: most of its 10 packets could not be decoded; 4 frames could be read"


def test_the_frames_before_the_damage_also_come_at_another_rate(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 40, rate=Fraction(20), options={"crf": "0", "preset": "ultrafast"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    plain, _ = broken_off(path)
    frames: list[Frame] = []
    with open_clip(path) as clip, pytest.raises(ClipError):
        frames.extend(clip.frames(Selection(fps=10)))
    assert [number(frame.rgb) for frame in frames] == [number(frame.rgb) for frame in plain][::2]


def test_damage_behind_the_wanted_frames_does_not_matter(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 40, options={"crf": "0", "preset": "ultrafast"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    assert len(read(path, Selection(max_frames=3))[1]) == 3
    assert len(read(path, Selection(end=0.2))[1]) == 5


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".webm"])
def test_whole_files_lack_nothing(tmp_path: Path, suffix: str) -> None:
    path = make_clip(tmp_path / f"a{suffix}", 2, codec="libvpx" if suffix == ".webm" else "libx264", options={},
                     pixel_format="yuv420p")  # fmt: skip
    data = path.read_bytes()
    assert missing_bytes(path) == 0
    path.write_bytes(data[:-7])
    assert missing_bytes(path) == 7
    for length in (0, 1, 5, 11, 20, 40):  # and none of these is an error
        path.write_bytes(data[:length])
        missing_bytes(path)


def test_libav_is_quiet_about_damage(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    path = make_clip(tmp_path / "a.mp4", 20, muxer={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data), 50):
        data[place] ^= 0xFF
    path.write_bytes(bytes(data))
    try:
        read(path)
    except ClipError:
        pass
    captured = capfd.readouterr()
    assert captured.err == captured.out == ""


def test_bytes_turned_over_give_frames_or_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = {suffix: make_clip(tmp_path / f"a{suffix}", 4).read_bytes() for suffix in (".mp4", ".mkv")}
    for trial in range(60):
        suffix = (".mp4", ".mkv")[trial % 2]
        data = bytearray(whole[suffix])
        for place in rng.integers(0, len(data), rng.integers(1, 30)):
            data[place] = rng.integers(256)
        path = tmp_path / f"b{suffix}"
        path.write_bytes(bytes(data))
        try:
            _, frames = read(path, Selection(max_frames=20), max_pixels=1_000_000)
        except ClipError as error:
            assert "\n" not in str(error)
        else:
            assert frames


# --- What is no clip --------------------------------------------------------------------------------------------------


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    sound = tmp_path / "a.m4a"
    with av.open(str(sound), "w") as out:
        write_sound(out, out.add_stream("aac", rate=48000), 0.5)
    assert failure(sound).message == f"{sound} holds sound and no video"
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 100)
    assert failure(text).message == f"{text} is no video, or none that can be read"
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    assert failure(empty).message == f"{empty} is empty"
    assert failure(tmp_path / "none.mp4").message == f"{tmp_path / 'none.mp4'} does not exist"
    picture = tmp_path / "a.png"
    Image.fromarray(scene(0)).save(picture)
    assert failure(picture).message == f"{picture} is a picture"
    picture.rename(tmp_path / "a.mp4")
    assert "is no video" in failure(tmp_path / "a.mp4").message


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert failure(tmp_path / "pipe").message == f"{tmp_path / 'pipe'} is not a file"


@pytest.mark.parametrize("name", ["a.m3u8", "a.mp4", "a.ffconcat"])
def test_a_list_of_files_is_not_followed(tmp_path: Path, name: str) -> None:
    make_clip(tmp_path / "secret.ts", 3, container="mpegts")
    lists = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile secret.ts\n",
    }
    for content in lists.values():
        (tmp_path / name).write_text(content)
        assert "is no video" in failure(tmp_path / name).message


@pytest.mark.parametrize("name", ["with space.mp4", "Höhe – 深度.mp4", "file:a.mp4", "a%04d.mp4", "b.jpg.mp4"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    make_clip(tmp_path / "a.mp4", 2).rename(tmp_path / name)
    assert len(read(name)[1]) == 2


def test_tags_that_are_not_utf8_do_not_fail_a_clip(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mkv", 3)
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9\xe9\xe9\xe9"))  # in the tag ENCODER
    assert len(read(path)[1]) == 3


def test_a_clip_that_claims_too_much_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(LibavSource, "_decode", lambda self: pytest.fail("decoded"))
    assert failure(path, max_pixels=64 * 48 - 1).message.startswith(f"{path} is too large: 64x48 pixels")


def test_without_pyav_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("depthcli.io.video.reader.find_program", lambda: None)
    with pytest.raises(DepthError, match="video needs PyAV or imageio-ffmpeg") as caught, open_clip(path):
        pass
    assert "pip install av" in caught.value.hint


def test_the_file_is_closed(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 5)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        with open_clip(path) as clip:
            next(clip.frames())
        (tmp_path / "b.mp4").write_bytes(b"nothing")
        failure(tmp_path / "b.mp4")
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


# --- Folders ----------------------------------------------------------------------------------------------------------


def folder(path: Path, *names: str, size: tuple[int, int] = SIZE) -> Path:
    path.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(scene(index, size)).save(path / name)
    return path


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    frames_folder = folder(tmp_path / "in", "frame1.png", "Frame2.png", "frame10.png", "frame11.jpg")
    (frames_folder / "notes.txt").write_text("no frame")
    (frames_folder / ".hidden.png").write_bytes(b"no frame")
    info, frames = read(frames_folder)
    assert [number(frame.rgb) for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == [Fraction(index, 24) for index in range(4)]
    assert (info.rate, info.frames, info.size, info.audio) == (24, 4, SIZE, False)
    assert info.notes == ("4 pictures", "24 frames per second, as nothing says another rate")


def test_the_rate_of_a_folder_can_be_told(tmp_path: Path) -> None:
    info, frames = read(folder(tmp_path / "in", "a.png", "b.png"), rate=29.97)
    assert info.rate == Fraction(30000, 1001)
    assert frames[1].time == Fraction(1001, 30000)
    assert info.notes == ("2 pictures",)


def test_natural_order() -> None:
    names = ["a10b2", "a2", "a2b", "a10b1", "10", "9", "a02", "A1"]
    in_order = [path.name for path in sorted(map(Path, names), key=natural_order)]
    assert in_order == ["9", "10", "A1", "a02", "a2", "a2b", "a10b1", "a10b2"]


def test_a_frame_of_another_size_is_named(tmp_path: Path) -> None:
    frames_folder = folder(tmp_path / "in", "a1.png", "a2.png", "a3.png")
    Image.fromarray(scene(0, (32, 32))).save(frames_folder / "a1.png")
    error = failure(frames_folder)
    assert error.message == f"{frames_folder / 'a1.png'} has 32x32 pixels, the other frames 64x48"


def test_a_broken_frame_leaves_a_gap_and_is_named_in_the_end(tmp_path: Path) -> None:
    frames_folder = folder(tmp_path / "in", "a1.png", "a2.png", "a3.png", "a4.png")
    broken = frames_folder / "a2.png"
    broken.write_bytes(broken.read_bytes()[:-100])
    frames, error = broken_off(frames_folder)
    assert [number(frame.rgb) for frame in frames] == [0, 2, 3]
    assert [frame.time for frame in frames] == [0, Fraction(2, 24), Fraction(3, 24)]
    assert error.frames == 3
    assert re.match(rf"{re.escape(str(broken))} .*; 3 of 4 frames could be read", error.message)


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    assert failure(tmp_path).message == f"{tmp_path} holds no picture"


# --- Pipes ------------------------------------------------------------------------------------------------------------


def y4m(frames: int) -> bytes:
    header = f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F24000:1001 Ip A1:1 C444\n".encode()
    planes = [np.round(yuv_planes(scene(index), BT601)).astype(np.uint8).tobytes() for index in range(frames)]
    return header + b"".join(b"FRAME\n" + plane for plane in planes)


# --- Frames in files: which are, and animations -----------------------------------------------------------------------


def test_our_maps_among_frames_are_no_frames(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(scene(index)).save(tmp_path / f"f{index}.png")
        depth = DepthMap(np.ones((48, 64), np.float32), DepthKind.RELATIVE_DISPARITY)
        write_depth(depth, tmp_path / f"f{index}_depth.png", "color")
        write_depth(depth, tmp_path / f"f{index}_depth_gray16.png", "gray")
    info, frames = read(tmp_path)
    assert [number(frame.rgb) for frame in frames] == [0, 1, 2]
    assert info.numbers == (0, 1, 2)


PATTERNS = [("f%04d.png", [8, 9, 10]), ("f%d.png", [8, 9, 10]), ("f####.png", [8, 9, 10]), ("f*.png", [8, 9, 10])]


@pytest.mark.parametrize(("pattern", "numbers"), [*PATTERNS, ("f000[89].png", [8, 9]), ("f%05d.png", [])])
def test_a_pattern_stands_for_its_frames(tmp_path: Path, pattern: str, numbers: list[int]) -> None:
    for index in (10, 8, 9):
        Image.fromarray(scene(index)).save(tmp_path / f"f{index:04d}.png")
        Image.fromarray(scene(index)).save(tmp_path / f"other{index:04d}.png")
    source = tmp_path / pattern
    paths = frames_of_pattern(str(source))
    if not numbers:
        assert paths is None
        assert failure(source).message.endswith("does not exist")
        return
    assert [path.name for path in paths or []] == [f"f{index:04d}.png" for index in numbers]
    info, frames = read(source, rate=12)
    assert info.numbers == tuple(numbers)
    assert info.rate == 12
    assert [number(frame.rgb) for frame in frames] == numbers


def test_what_is_no_pattern_is_none(tmp_path: Path) -> None:
    (tmp_path / "f%04d.png").write_bytes(b"")
    (tmp_path / "a.mp4").write_bytes(b"")
    for name in ("f%04d.png", "*.mp4", "a.mp4", "none/f%04d.png"):
        assert frames_of_pattern(str(tmp_path / name)) is None


PAUSES = [40, 400, 40, 1000, 100]


@pytest.mark.parametrize("name", ["a.webp", "a.gif", "a.png", "a.apng", "a.avif"])
def test_an_animated_picture_is_a_clip(tmp_path: Path, name: str) -> None:
    pictures = [Image.fromarray(scene(index)) for index in range(5)]
    exact = {"a.webp": {"lossless": True}, "a.avif": {"quality": 95}}.get(name, {})
    kind = {"format": "PNG"} if name == "a.apng" else {}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=PAUSES, **exact, **kind)
    info, frames = read(tmp_path / name)
    assert info.size == SIZE
    assert info.variable
    assert [number(frame.rgb) for frame in frames] == list(range(5))
    assert [round(1000 * frame.duration) for frame in frames] == PAUSES
    assert [round(1000 * frame.time) for frame in frames] == [sum(PAUSES[:index]) for index in range(5)]


def test_a_still_webp_is_a_picture(tmp_path: Path) -> None:
    Image.fromarray(scene(0)).save(tmp_path / "a.webp")
    assert failure(tmp_path / "a.webp").message.endswith("is a picture")


def test_a_damaged_animation_gives_the_frames_before(tmp_path: Path) -> None:
    pictures = [
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8)) for index in range(5)
    ]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=PAUSES, lossless=True)
    data = bytearray(path.read_bytes())
    at = [found.start() for found in re.finditer(b"ANMF", bytes(data))][3]
    data[at + 40 : at + 200] = bytes(160)
    path.write_bytes(bytes(data))
    frames, error = broken_off(path)
    assert len(frames) == error.frames == 3
    assert "frame 4 of 5 cannot be decoded" in error.message


def test_no_pause_at_all_is_a_tenth_of_a_second(tmp_path: Path) -> None:
    pictures = [Image.fromarray(scene(index)) for index in range(2)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=0, lossless=True)
    assert [frame.duration for frame in read(tmp_path / "a.webp")[1]] == [Fraction(1, 10)] * 2


# --- What a library raises, and what a clip keeps to itself -----------------------------------------------------------


@pytest.mark.parametrize("foreign", [KeyError("x"), TypeError("y"), RuntimeError("z\nmore"), MemoryError()])
def test_what_a_library_raises_is_an_error_of_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: Exception
) -> None:
    path = make_clip(tmp_path / "a.mp4", 3)

    def fail(*_: object) -> np.ndarray:
        raise foreign

    monkeypatch.setattr(LibavSource, "_to_rgb", fail)
    frames, error = broken_off(path)
    assert frames == []
    assert str(path) in error.message
    monkeypatch.setattr(LibavSource, "_describe", fail)
    assert str(path) in failure(path).message


class Unnamed:
    """A frame whose side data PyAV before 19 cannot name, as in spatial clips."""

    def __init__(self, rotation: int) -> None:
        self.rotation = rotation

    @property
    def side_data(self) -> dict:
        raise ValueError("39 is not a valid Type")


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_side_data_of_an_unknown_kind_does_not_fail_a_clip(tmp_path: Path, turn: int) -> None:
    path = turn_header(make_clip(tmp_path / "a.mp4", 1), MATRICES[turn])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    known, fallback = libav._turn(frame), libav._turn(Unnamed(frame.rotation))
    assert vars(fallback) == vars(known)
    assert fallback.degrees == turn


def test_a_protected_clip_is_said_to_be_protected(tmp_path: Path) -> None:
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    path = make_clip(tmp_path / "a.mp4", 3, muxer=key)
    assert failure(path).message == f"{path} is protected (DRM) and can be played only by its own player"
    path.write_bytes(path.read_bytes().replace(b"encv", b"drmi"))
    assert "protected" in failure(path).message
    path.write_bytes(b"\x47\x40\x00\x90".ljust(188, b"\xff") * 40)
    assert is_protected(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi", ".ts", ".webm"])
def test_an_open_clip_is_not_taken_for_a_protected_one(tmp_path: Path, suffix: str) -> None:
    codec = {"codec": "libvpx-vp9", "options": {}} if suffix == ".webm" else {}
    assert not is_protected(make_clip(tmp_path / f"a{suffix}", 2, **codec))


def test_encryption_of_a_matroska_track_is_seen(tmp_path: Path) -> None:
    def element(kind: str, *inside: bytes) -> bytes:
        data = b"".join(inside)
        return bytes.fromhex(kind) + (0x4000 | len(data)).to_bytes(2, "big") + data

    def clip(kind: bytes, *encodings: bytes) -> Path:
        track = element("ae", element("83", kind), *encodings)
        path = tmp_path / "a.webm"
        path.write_bytes(element("1a45dfa3") + element("18538067", element("1654ae6b", track)))
        return path

    encrypted = element("6d80", element("6240", element("5035")))
    assert is_protected(clip(b"\1", encrypted))
    assert not is_protected(clip(b"\2", encrypted))  # sound
    assert not is_protected(clip(b"\1", element("6d80", element("6240", element("5034")))))  # compressed


@pytest.mark.parametrize("size", [(2, 1000), (1000, 2), (1, 1), (16, 4096)])
def test_extreme_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = make_clip(tmp_path / "a.mkv", 2, size, codec="ffv1", options={})
    info, frames = read(path)
    assert info.size == size
    assert frames[1].rgb.shape == (size[1], size[0], 3)


def test_y4m_says_its_size_and_rate_itself() -> None:
    info, frames = read("-", stdin=io.BytesIO(y4m(5)))
    assert (info.name, info.size, info.rate) == ("stdin", SIZE, RATE)
    assert [number(frame.rgb) for frame in frames] == list(range(5))
    assert [frame.time for frame in frames] == [index / RATE for index in range(5)]
    assert difference(frames[0].rgb, scene(0)) <= 3


def test_raw_frames_are_taken_as_they_are() -> None:
    data = b"".join(scene(index).tobytes() for index in range(3))
    info, frames = read("-", stdin=io.BytesIO(data), size=SIZE, rate=25)
    assert all(np.array_equal(frame.rgb, scene(index)) for index, frame in enumerate(frames))
    assert [frame.time for frame in frames] == [0, Fraction(1, 25), Fraction(2, 25)]
    assert info.frames is None
    cut, error = broken_off("-", stdin=io.BytesIO(data[:-1]), size=SIZE, rate=25)
    assert len(cut) == error.frames == 2
    assert error.message == "stdin ends within frame 2; 2 could be read"
    assert "rate" in failure("-", stdin=io.BytesIO(data), size=SIZE).message


def test_a_stream_that_cannot_seek(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "a.mkv", 6).read_bytes()
    code = (
        "from depthcli.io.video.reader import open_clip\n"
        "with open_clip('-') as clip: print(clip.info.size, sum(1 for _ in clip.frames()))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, env=environment(), check=True)
    assert done.stdout.decode().split("\n")[0] == "(64, 48) 6"


def test_nothing_on_stdin() -> None:
    assert "stdin is no video" in failure("-", stdin=io.BytesIO(b"")).message
    frames, error = broken_off("-", stdin=io.BytesIO(b""), size=SIZE, rate=25)
    assert (frames, error.message) == ([], "stdin is empty")


def test_the_corners_are_what_the_scene_says() -> None:
    """Of the test's own scene, as everything above hangs on it."""
    rgb = scene(3)
    assert np.array_equal(rgb[[0, 0, -1, -1], [0, -1, 0, -1]], CORNERS.reshape(4, 3))
    assert number(rgb) == 3


@pytest.mark.parametrize("ending", ["mp4", "webp", "exr"])
def test_a_lack_of_memory_is_no_damage_of_the_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    def nothing_left(*_: object, **__: object) -> None:
        raise MemoryError

    pictures = [Image.fromarray(np.full((8, 8, 3), shade, np.uint8)) for shade in (0, 255)]
    if ending == "mp4":
        source = make_clip(tmp_path / "a.mp4", frames=2)
        monkeypatch.setattr(LibavSource, "_to_rgb", nothing_left)
    elif ending == "webp":
        source = tmp_path / "a.webp"
        pictures[0].save(source, save_all=True, append_images=pictures[1:], lossless=True)
        monkeypatch.setattr(animations, "on_black", nothing_left)
    else:
        source = tmp_path
        for name in ("1.exr", "2.exr"):
            with (source / name).open("wb") as stream:
                write_exr(np.ones((8, 8), np.float32), stream, {})
        monkeypatch.setattr("depthcli.io.video.reader.is_our_exr", lambda path: False)
        monkeypatch.setattr(exr_frames, "srgb", nothing_left)
    with open_clip(source) as clip, pytest.raises(ClipError, match="does not fit into memory"):
        [frame.rgb for frame in clip.frames()]


def test_an_error_spells_the_name_of_a_clip_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "Holiday.MP4"
    path.symlink_to(path)
    assert f"{path} cannot be opened: " in failure(path).message


def test_a_disposition_that_pyav_does_not_know_is_none() -> None:
    class Stream:
        @property
        def disposition(self) -> int:
            raise ValueError("1 << 30 is not a valid Disposition")

    assert libav.disposition_of(Stream()) == 0
