"""What is written plays everywhere it should, at the right time, with its sound, and gives the numbers back."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.depthmap import DepthKind, DepthMap, Provenance, describe
from depthcli.errors import ClipError, OutputError, UsageError
from depthcli.io.codecs.encode import beside
from depthcli.io.codecs.exr import read_exr, write_exr
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.formats import CLIPS, Holds
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.video.clip import Selection
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.pipe import PipeWriter
from depthcli.io.video.reader import open_clip
from depthcli.io.video.writers import video_writer
from tests.conftest import environment
from tests.io.video.clips import RATE, SIZE, make_clip, number, scene

TIMING = Timing(RATE, 1 / RATE)
FACTS = {"kind": "relative_disparity", "model": "vits"}
FILES = [name for name, row in CLIPS.items() if not row.folder and not row.page]  # pages: test_clip_page.py
# The others hold the same pixels and are written by the same codecs; tests/jobs/test_clip_formats.py reads them all.
FOLDERS = ["color", "png16", "gray8", "npz", "exr", "tiff"]


def gray(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A ramp over all 16 bits, that moves."""
    ramp = np.linspace(0, 65535, size[0]).astype(np.uint16)[None].repeat(size[1], 0)
    return np.roll(ramp, index, axis=1)


def values(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(index).normal(size=size[::-1]).astype(np.float32)


MAKE = {
    Holds.COLOR: scene,
    Holds.GRAY8: lambda index, size=SIZE: (gray(index, size) >> 8).astype(np.uint8),
    Holds.GRAY16: gray,
    Holds.SHADES: gray,
    Holds.VALUES: values,
}


def write(
    name: str,
    folder: Path,
    frames: int = 6,
    size: tuple[int, int] = SIZE,
    timing: Timing = TIMING,
    times: list[Fraction] | None = None,
    **options: object,
) -> Path:
    path = folder / f"clip{CLIPS[name].clip}"
    with video_writer(ClipOutput(name, path, size, timing, FACTS, **options)) as writer:
        for index in range(frames):
            writer.write(MAKE[CLIPS[name].holds](index, size), times[index] if times else index / timing.rate)
    return path


def sidecar(path: Path) -> dict:
    return json.loads(path.with_name(path.name + ".json").read_text(encoding="utf-8"))


def gray_of(path: Path, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """The 16-bit numbers of a gray clip, by the codes of its luma and what its sidecar says of them."""
    said = sidecar(path)["video"]["gray"]
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            codes = np.frombuffer(plane, "<u2").reshape(plane.height, -1)[: size[1], : size[0]].astype(float)
            frames.append((codes - said["offset"]) / said["scale"] * 65535)
    return frames


def content(path: Path) -> bytes:
    """The bytes of a file, or of all files of a folder, by name."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return b"".join(file.name.encode() + file.read_bytes() for file in files)


# --- What is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mean", "most"), [("ffv1", 0, 0), ("hevc10", 64, 400), ("prores", 40, 200)])
def test_gray_comes_back_as_exactly_as_the_format_allows(tmp_path: Path, name: str, mean: float, most: float) -> None:
    frames = gray_of(write(name, tmp_path))
    assert len(frames) == 6
    errors = [np.abs(frame - gray(index)) for index, frame in enumerate(frames)]
    # The jump of the ramp from white to black rings in what is lossy.
    edges = [[(index + at) % SIZE[0] for at in range(-4, 4)] for index in range(6)]
    smooth = [np.delete(error, edge, axis=1) for error, edge in zip(errors, edges)]
    assert np.mean(smooth) <= mean
    assert np.max(smooth) <= most


@pytest.mark.parametrize("name", ["mp4", "side"])
def test_colour_comes_back_with_its_number_and_its_colours(tmp_path: Path, name: str) -> None:
    with open_clip(write(name, tmp_path)) as clip:
        frames = [frame.rgb for frame in clip.frames()]
        assert (clip.info.codec, clip.info.pixel_format) == ("h264", "yuv420p")
    assert [number(frame) for frame in frames] == list(range(6))
    assert np.percentile(np.abs(frames[2].astype(int) - scene(2)), 75) <= 4


def test_colour_is_tagged_and_starts_at_once(tmp_path: Path) -> None:
    path = write("mp4", tmp_path)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        next(container.decode(video=0))
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a player need not fetch the end first


def test_hevc_is_called_what_quicktime_plays_and_has_full_range(tmp_path: Path) -> None:
    path = write("hevc10", tmp_path)
    assert b"hvc1" in path.read_bytes()
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.format.name, frame.color_range) == ("yuv420p10le", 2)


@pytest.mark.parametrize("name", FILES)
def test_odd_sizes_are_filled_up_at_the_edge_and_that_is_recorded(tmp_path: Path, name: str) -> None:
    path = write(name, tmp_path, 2, (65, 49))
    said = sidecar(path)["video"]
    with open_clip(path) as clip:
        (frame,) = clip.frames(Selection(max_frames=1))
    assert list(frame.rgb.shape[1::-1]) == said["stored_size"]
    assert said["size"] == [65, 49]
    assert said["stored_size"] == {"ffv1": [65, 49], "prores": [66, 49]}.get(name, [66, 50])
    inner, outer = frame.rgb[:49, 64].astype(int), frame.rgb[:49, -1].astype(int)
    assert np.percentile(np.abs(inner - outer), 75) <= 4


def test_beside() -> None:
    both = beside(scene(1), scene(2))
    assert both.shape == (48, 128, 3)
    assert (number(both[:, :64]), number(both[:, 64:])) == (1, 2)


# --- When it is shown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_rate_stays_exactly_what_it_is(tmp_path: Path, name: str) -> None:
    with open_clip(write(name, tmp_path, 12)) as clip:
        assert clip.info.rate == RATE
        assert not clip.info.variable
        assert clip.info.duration == pytest.approx(12 / RATE, abs=0.001)
        unit = 0 if name != "ffv1" else Fraction(1, 1000)  # Matroska counts milliseconds
        assert all(abs(frame.time - frame.index / RATE) <= unit for frame in clip.frames())


B_FRAMES = {"crf": "4", "preset": "ultrafast", "x264-params": "bframes=3:b-adapt=0"}
THOUSANDTH, BROADCAST = Fraction(1, 1000), Fraction(1, 90000)
# Of a source: its container, and what make_clip is told. Times are in ticks of the time base.
KINDS: dict[str, tuple[str, dict]] = {
    "film": ("mp4", {"options": B_FRAMES}),
    "rounded": ("mkv", {"rate": Fraction(25)}),
    "broadcast": ("ts", {"rate": Fraction(30000, 1001), "container": "mpegts", "options": B_FRAMES}),
    "film in avi": ("avi", {"codec": "ffv1", "pixel_format": "yuv444p", "options": {}}),
    "variable": (
        "mp4",
        {"rate": Fraction(24), "ticks": [0, 3003, 6006, 99990, 103000, 110500], "time_base": BROADCAST},
    ),
    "variable with B-frames": (
        "mp4",
        {"ticks": [0, 40, 81, 119, 700, 741, 1500, 1520], "time_base": THOUSANDTH, "options": B_FRAMES},
    ),
    "coarse": ("mkv", {"ticks": [0, 70, 170, 240, 340, 410], "time_base": THOUSANDTH}),
    "late": ("mkv", {"ticks": [500, 540, 580, 660, 700, 800], "time_base": THOUSANDTH}),
    "late by an edit list": ("mp4", {"ticks": [500, 540, 580, 660, 700, 800], "time_base": THOUSANDTH}),
    "slow": ("mp4", {"rate": Fraction(1, 2), "frames": 4}),
}


def make_kind(folder: Path, kind: str, sound: str) -> Path:
    ending, options = KINDS[kind]
    options = {"rate": RATE, **options}
    ticks = options.pop("ticks", [])
    times = [tick * options["time_base"] for tick in ticks] or None
    return make_clip(
        folder / f"source.{ending}", **{"frames": len(ticks) or 12, "times": times, "sound": sound, **options}
    )


def film_of(source: Path, name: str, folder: Path, selection: Selection = Selection()) -> tuple[Path, list[Fraction]]:  # noqa: B008
    """Write a clip as a job does. Return the film, and when each frame is shown and the last one ends, from 0 on."""
    path, row = folder / f"film{CLIPS[name].clip}", CLIPS[name]
    with open_clip(source) as clip:
        timing = Timing.of(clip.info, selection)
        with video_writer(ClipOutput(name, path, SIZE, timing, FACTS, source, whole=selection.whole)) as writer:
            times = []
            for frame in clip.frames(selection):
                writer.write(MAKE[row.holds](frame.index % 60), frame.time, frame.duration)
                times.append(frame.time)
    return path, [time - times[0] for time in [*times, times[-1] + frame.duration]]


def length_of(path: Path) -> float:
    """How long the pictures of a film are shown, in seconds, as the film tells."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.duration is not None:
            return float(stream.duration * Fraction(stream.time_base))
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")  # of Matroska, from the file's beginning on
        start = float(stream.start_time * Fraction(stream.time_base))
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sound", ["", "aac"])
@pytest.mark.parametrize("name", FILES)
def test_every_frame_is_shown_when_that_of_the_source_is(tmp_path: Path, name: str, sound: str, kind: str) -> None:
    source = make_kind(tmp_path, kind, sound if kind != "film in avi" else sound and "libmp3lame")
    film, times = film_of(source, name, tmp_path)
    with open_clip(film) as clip:
        shown = [frame.time for frame in clip.frames()]
        origin = clip.info.origin
    assert len(shown) == len(times) - 1
    assert max(abs(ours - theirs) for ours, theirs in zip(shown, times)) <= Fraction(1, 1000)
    assert length_of(film) == pytest.approx(float(times[-1]), abs=0.0011)
    assert sidecar(film)["video"]["duration"] == pytest.approx(float(times[-1]), abs=0.0011)
    if sound:
        with open_clip(source) as clip:
            first = clip.info.origin
        gaps = [packets(path)[0][0] - float(zero) for path, zero in ((film, origin), (source, first))]
        assert gaps[0] == pytest.approx(gaps[1], abs=0.0015)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_the_sidecar_of_a_folder_has_the_times_of_the_source(tmp_path: Path, name: str, kind: str) -> None:
    folder, times = film_of(make_kind(tmp_path, kind, ""), name, tmp_path)
    said = sidecar(folder)["video"]
    assert said["times"] == pytest.approx([float(time) for time in times[:-1]], abs=1e-9)
    assert said["duration"] == pytest.approx(float(times[-1]), abs=1e-9)


@pytest.mark.parametrize("name", FILES)
def test_the_last_frame_lasts_as_long_as_it_is_told(tmp_path: Path, name: str) -> None:
    times = [Fraction(t, 1000) for t in (0, 40, 81, 119, 700, 741)]
    for last in (Fraction(1, 100), Fraction(3)):
        path = tmp_path / f"clip{CLIPS[name].clip}"
        with video_writer(ClipOutput(name, path, SIZE, Timing(Fraction(50, 7), Fraction(1, 1000)), FACTS)) as writer:
            for index, time in enumerate(times):
                # What a source tells of the others may be wrong, as that of decoding order is: it does not matter.
                writer.write(MAKE[CLIPS[name].holds](index), time, last if index == 5 else Fraction(7))
        assert length_of(path) == pytest.approx(0.741 + float(last), abs=0.0011)


@pytest.mark.parametrize(
    "selection",
    [Selection(stride=2), Selection(stride=5), Selection(fps=10), Selection(fps=50, stride=3), Selection(start=0.2)],
    ids=str,
)
def test_a_selection_has_an_even_rate_to_its_end(tmp_path: Path, selection: Selection) -> None:
    film, times = film_of(make_clip(tmp_path / "a.mp4", 24, rate=Fraction(24)), "mp4", tmp_path, selection)
    with av.open(str(film)) as container:
        assert container.streams.video[0].average_rate == selection.rate(Fraction(24))
    assert length_of(film) == pytest.approx(float(times[-1]), abs=0.001)


@pytest.mark.parametrize("rate", [Fraction(24), RATE, Fraction(30), Fraction(48)])
def test_a_source_that_rounds_its_times_keeps_its_rate_to_the_last_frame(tmp_path: Path, rate: Fraction) -> None:
    source = make_clip(tmp_path / "a.mkv", 12, rate=rate)
    for name in ("mp4", "prores"):
        with av.open(str(film_of(source, name, tmp_path)[0])) as container:
            assert container.streams.video[0].average_rate == rate


def test_a_coarse_clock_is_not_put_on_a_grid_that_it_does_not_have(tmp_path: Path) -> None:
    hundredths = [Fraction(t, 100) for t in (0, 7, 17, 24, 34, 41)]
    path = write("mp4", tmp_path, timing=Timing(Fraction(12), Fraction(1, 100)), times=hundredths)
    with open_clip(path) as clip:
        assert [frame.time for frame in clip.frames()] == hundredths


def test_times_that_a_source_rounded_are_made_exact_again(tmp_path: Path) -> None:
    rounded = [Fraction(round(1000 * index / RATE), 1000) for index in range(50)]
    with open_clip(write("mp4", tmp_path, 50, timing=Timing(RATE, Fraction(1, 1000)), times=rounded)) as clip:
        assert clip.info.rate == RATE
        assert [frame.time for frame in clip.frames()] == [index / RATE for index in range(50)]


@pytest.mark.parametrize("name", FILES)
def test_a_variable_rate_keeps_its_times(tmp_path: Path, name: str) -> None:
    times = [Fraction(t, 1000) for t in (0, 40, 81, 119, 700, 741)]
    path = write(name, tmp_path, timing=Timing(Fraction(50, 7), Fraction(1, 1000)), times=times)
    with open_clip(path) as clip:
        assert [frame.time for frame in clip.frames()] == times


def test_a_part_of_a_clip_begins_at_zero(tmp_path: Path) -> None:
    with open_clip(write("mp4", tmp_path, times=[10 + index / RATE for index in range(6)])) as clip:
        assert clip.info.origin == 0
        assert [frame.time for frame in clip.frames()] == [index / RATE for index in range(6)]


def test_the_timing_of_a_selection(tmp_path: Path) -> None:
    with open_clip(make_clip(tmp_path / "a.mkv", 4)) as clip:
        assert Timing.of(clip.info, Selection()) == Timing(RATE, Fraction(1, 1000))
        assert Timing.of(clip.info, Selection(fps=10, stride=2)) == Timing(Fraction(5), Fraction(1, 5))


# --- Sound ------------------------------------------------------------------------------------------------------------


def packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        sound = [packet for packet in container.demux(audio=0) if packet.size]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in sound]


@pytest.mark.parametrize("name", FILES)
def test_sound_is_copied_as_it_is_and_in_time(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / "a.mp4", 24, sound="aac")
    path = write(name, tmp_path, 24, source=source)
    before, after = packets(source), packets(path)
    assert [data for _, data in after] == [data for _, data in before]
    with open_clip(path) as clip:
        shift = float(clip.info.origin)  # Matroska begins with the sound, which comes a little before the first frame
    assert max(abs(a - shift - b) for (a, _), (b, _) in zip(after, before)) < 0.0011


def test_sound_of_a_broadcast_is_put_into_the_form_that_files_have(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.ts", 24, sound="aac", container="mpegts")
    with av.open(str(write("mp4", tmp_path, 24, source=source))) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 24 / RATE * 48000


def test_the_offset_of_sound_against_frames_is_kept(tmp_path: Path) -> None:
    late = [Fraction(1, 2) + index / Fraction(25) for index in range(10)]
    source = make_clip(
        tmp_path / "a.mkv", 10, rate=Fraction(25), times=late, time_base=Fraction(1, 1000), sound="libmp3lame"
    )
    with open_clip(source) as clip:
        timing = Timing.of(clip.info, Selection())
    path = write("mp4", tmp_path, 10, timing=timing, source=source)
    with open_clip(source) as before, open_clip(path) as after:
        gap = float(before.info.origin) - packets(source)[0][0]
        assert gap == pytest.approx(0.5, abs=0.06)
        assert float(after.info.origin) - packets(path)[0][0] == pytest.approx(gap, abs=0.002)


@pytest.mark.parametrize("name", FILES)
def test_a_source_without_sound_is_no_problem(tmp_path: Path, name: str) -> None:
    path = write(name, tmp_path, source=make_clip(tmp_path / "a.mp4", 6))
    with open_clip(path) as clip:
        assert not clip.info.audio
    assert sidecar(path)["video"]["notes"] == []


def test_sound_that_a_container_cannot_hold_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", 6, sound="libopus")
    path = write("prores", tmp_path, source=source)
    assert sidecar(path)["video"]["notes"] == ["mov cannot hold opus sound, which was left out"]
    with open_clip(path) as clip:
        assert not clip.info.audio
        assert len(list(clip.frames())) == 6


# --- Whole or not at all, and always the same -------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_appears_when_it_is_whole_and_with_its_sidecar(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"clip{CLIPS[name].clip}"
    frame = MAKE[CLIPS[name].holds](0)
    with pytest.raises(ZeroDivisionError), video_writer(ClipOutput(name, path, SIZE, TIMING, FACTS)) as writer:
        writer.write(frame, Fraction(0))
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with video_writer(ClipOutput(name, path, SIZE, TIMING, FACTS)) as writer:
        writer.write(frame, Fraction(0))
        assert not path.exists()
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + ".json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_clip_of_hardly_any_frames(tmp_path: Path, name: str, frames: int) -> None:
    with open_clip(write(name, tmp_path, frames)) as clip:
        assert len(list(clip.frames())) == frames


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_a_clip_without_a_frame_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="no frame came"):
        write(name, tmp_path, 0)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_what_is_no_frame_of_this_clip_is_refused(tmp_path: Path, name: str) -> None:
    good = MAKE[CLIPS[name].holds](0)
    with (
        pytest.raises(ValueError, match="for a clip of"),
        video_writer(ClipOutput(name, tmp_path / "clip", SIZE, TIMING, FACTS)) as writer,
    ):
        writer.write(good[:-1], Fraction(0))
    with (
        pytest.raises(ValueError, match="for a clip of"),
        video_writer(ClipOutput(name, tmp_path / "clip", SIZE, TIMING, FACTS)) as writer,
    ):
        writer.write(good.astype(np.int8), Fraction(0))


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="no video format is called 'avi'"),
        video_writer(ClipOutput("avi", tmp_path / "a", SIZE, TIMING, FACTS)),
    ):
        pass


def digests(folder: Path) -> dict[str, str]:
    source = make_clip(folder / "sound.mp4", 24, sound="aac")
    return {
        name: hashlib.sha256(content(write(name, folder, 24, (320, 180), source=source))).hexdigest()
        for name in (*FILES, *FOLDERS)
    }


def test_the_same_frames_give_the_same_bytes_on_one_core_as_on_all(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    code = (
        "import json, os; from pathlib import Path; from tests.io.video.test_writers import digests\n"
        "if hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        f"print(json.dumps(digests(Path({str(there)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")  # nor does an encoder talk
    assert json.loads(done.stdout) == digests(here)


def test_a_full_disk_is_an_error_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rng = np.random.default_rng(0)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OutputError, match="cannot write") as caught:
            with video_writer(ClipOutput("ffv1", tmp_path / "a.mkv", SIZE, TIMING, FACTS)) as writer:
                for index in range(60):
                    writer.write(rng.integers(0, 65536, (48, 64)).astype(np.uint16), index / RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


# --- What it says of itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_file_and_its_sidecar_say_what_the_numbers_are(tmp_path: Path, name: str) -> None:
    path = write(name, tmp_path)
    said = sidecar(path)
    assert {key: said[key] for key in FACTS} == FACTS
    assert (said["video"]["format"], said["video"]["frames"], said["video"]["rate"]) == (name, 6, "24000/1001")
    with av.open(str(path)) as container:
        inside = {key.lower(): value for key, value in container.metadata.items()}
    within = json.loads(inside["comment"])
    assert {key: within[key] for key in FACTS} == FACTS
    assert within["video"].items() <= said["video"].items()


# --- Folders ----------------------------------------------------------------------------------------------------------


def depth_map() -> DepthMap:
    origin = Provenance("vits", "Depth Anything V2 Small", "ab" * 32, "Apache-2.0", "torch", (28, 14), "a.mp4")
    return DepthMap(np.abs(values(0)), DepthKind.RELATIVE_DISPARITY, origin)


def test_a_folder_of_npz_is_read_back_like_any(tmp_path: Path) -> None:
    depth = depth_map()
    facts = {"schema": SCHEMA, **describe(depth)}
    with video_writer(ClipOutput("npz", tmp_path / "out", SIZE, TIMING, facts)) as writer:
        writer.write(depth.values, Fraction(0))
    back = read_depth(tmp_path / "out" / "frame_000000.npz")
    assert np.array_equal(back.values, depth.values)
    assert (back.kind, back.provenance) == (depth.kind, depth.provenance)


def test_a_sequence_of_png_is_depth_and_no_clip(tmp_path: Path) -> None:
    depth = depth_map()
    lo, hi = depth.range
    encoding = {"code": "nearness", "scale": 65535, "offset": 0.0, "lo": lo, "hi": hi, "colormap": None}
    facts = {"schema": SCHEMA, **describe(depth), "encoding": encoding}
    codes = np.round((depth.values - lo) / (hi - lo) * 65535).astype(np.uint16)
    with video_writer(ClipOutput("png16", tmp_path / "out", SIZE, TIMING, facts)) as writer:
        writer.write(codes, Fraction(0))
    back = read_depth(tmp_path / "out" / "frame_000000.png")
    assert np.abs(back.values - depth.values).max() <= (hi - lo) / 65535
    with Image.open(tmp_path / "out" / "frame_000000.png") as picture:
        assert np.array_equal(np.asarray(picture), codes)
    with pytest.raises(ClipError, match="holds no picture"), open_clip(tmp_path / "out"):
        pass


@pytest.mark.parametrize("name", FOLDERS)
def test_each_frame_is_a_file_that_knows_its_place(tmp_path: Path, name: str) -> None:
    path = write(name, tmp_path, 3, timing=Timing(Fraction(25), Fraction(1, 25)))
    names = [f"frame_{index:06d}{CLIPS[name].suffix}" for index in range(3)]
    assert sorted(os.listdir(path)) == names
    assert sidecar(path)["video"]["times"] == [0, 0.04, 0.08]
    if name == "exr":
        back, facts, *_ = read_exr(path / names[2])
        assert np.array_equal(back, values(2))
        assert facts == {**FACTS, "frame": {"index": 2, "time": 0.08}}


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (64, 48), (5, 16)])
def test_exr_is_bit_exact_also_for_what_is_no_number(tmp_path: Path, size: tuple[int, int]) -> None:
    plane = values(3, size)
    plane.flat[0] = np.inf
    plane.flat[-1] = np.nan
    with (tmp_path / "a.exr").open("wb") as stream:
        write_exr(plane, stream, {"unit": "metres"})
    back, facts, *_ = read_exr(tmp_path / "a.exr")
    assert plane.tobytes() == back.tobytes()
    assert facts == {"unit": "metres"}


def test_exr_is_what_others_read_as_such(tmp_path: Path) -> None:
    plane = np.sort(values(0, (70, 40)), axis=1)
    with (tmp_path / "a.exr").open("wb") as stream:
        write_exr(plane, stream, {})
    with av.open(str(tmp_path / "a.exr")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "gbrpf32le"
    for channel in frame.planes:
        stored = np.frombuffer(channel, np.float32).reshape(40, -1)[:, :70]
        assert np.array_equal(stored, plane)


def test_what_is_no_exr_of_ours_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    with pytest.raises(OutputError, match="does not exist"):
        read_exr(path)
    with path.open("wb") as stream:
        write_exr(values(0), stream, {})
    whole = path.read_bytes()
    for cut in (0, 3, 50, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(OutputError, match="cannot read depth from"):
            read_exr(path)


# --- Pipes ------------------------------------------------------------------------------------------------------------


def test_y4m_can_be_read_again_with_its_rate_and_colours() -> None:
    pipe = io.BytesIO()
    writer = PipeWriter(pipe, Holds.COLOR, SIZE, TIMING, y4m=True)
    for index in range(4):
        writer.write(scene(index), index / RATE)
    pipe.seek(0)
    with av.open(pipe, format="yuv4mpegpipe") as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.average_rate == RATE
    rgb = frames[2].reformat(format="rgb24", src_colorspace=1, src_color_range=1, dst_color_range=2).to_ndarray()
    assert len(frames) == 4
    assert number(rgb) == 2
    assert np.percentile(np.abs(rgb.astype(int) - scene(2)), 75) <= 3


def test_16_bit_gray_through_y4m_is_exact() -> None:
    pipe = io.BytesIO()
    PipeWriter(pipe, Holds.SHADES, SIZE, TIMING, y4m=True).write(gray(0), Fraction(0))
    pipe.seek(0)
    with av.open(pipe, format="yuv4mpegpipe") as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "gray16le"
    assert np.array_equal(frame.to_ndarray(), gray(0))


def test_raw_is_the_bytes_themselves() -> None:
    pipe = io.BytesIO()
    writer = PipeWriter(pipe, Holds.SHADES, SIZE, TIMING)
    writer.write(gray(0), Fraction(0))
    writer.write(gray(1), Fraction(5))
    assert pipe.getvalue() == gray(0).tobytes() + gray(1).tobytes()


def test_y4m_refuses_times_that_it_cannot_hold() -> None:
    writer = PipeWriter(io.BytesIO(), "color", SIZE, TIMING, y4m=True)
    writer.write(scene(0), Fraction(3))
    writer.write(scene(1), 3 + 1 / RATE)
    with pytest.raises(UsageError, match="y4m has one rate"):
        writer.write(scene(2), Fraction(4))


@pytest.mark.parametrize("size", [(38, 22), (200, 46)])
def test_frames_that_x265_does_not_survive_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    output = ClipOutput("hevc10", tmp_path / "a.mp4", size, TIMING, FACTS)
    with pytest.raises(OutputError, match=r"cannot hold frames of .*: hevc10 takes 48x48 or more .use `formats` ffv1"):
        with video_writer(output):
            pass
    assert not list(tmp_path.iterdir())
