"""Without PyAV the program ffmpeg does the same: the meaning tests of both, and what is special to a second process."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import ClipError, DepthError, DiskFullError, OutputError
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.video import ffmpeg_program, ffmpeg_reader, film_ffmpeg, libav
from depthcli.io.video.clip import ClipInfo, Selection
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.encodings import ENCODINGS
from depthcli.io.video.ffmpeg_program import Program, describe_file, find_program
from depthcli.io.video.ffmpeg_reader import ProgramSource
from depthcli.io.video.libav import LibavSource
from depthcli.io.video.reader import open_clip
from depthcli.io.video.writers import video_writer
from tests.conftest import environment
from tests.io.video import test_writers as writing
from tests.io.video.clips import MATRICES, RATE, SIZE, make_clip, number, scene, turn_header
from tests.io.video.test_extras import (  # noqa: F401
    CHAPTERS,
    noisy,
    rich_clip,
    test_a_cover_and_attachments_are_named,
    test_a_film_without_any_of_these_has_none,
    test_a_full_disk_names_the_film_and_nothing_else,
    test_a_pipe_stays_a_pipe,
    test_a_timecode_that_the_rate_cannot_count_is_named,
    test_noise_between_the_parts_of_a_matroska_file_does_not_end_the_sound,
    test_pixels_that_are_not_square_stay_so_or_are_named,
    test_subtitles_go_where_they_fit_and_are_named_where_not,
    test_titles_languages_default_track_and_timecode_are_kept,
    texts_of,
    timecode_of,
)

# What must be true of clips, whoever reads and writes them; collected here a second time, with av hidden.
from tests.io.video.test_reader import (  # noqa: F401
    broken_off,
    difference,
    failure,
    read,
    test_12_bits_and_hevc,
    test_a_clip_that_changes_its_size_ends_there,
    test_a_cover_is_never_the_clip,
    test_a_frame_is_rgb_bytes_that_nobody_can_change,
    test_a_list_of_files_is_not_followed,
    test_a_protected_clip_is_said_to_be_protected,
    test_a_song_with_a_cover_holds_no_video,
    test_a_truncated_mp4_without_its_table_cannot_be_opened,
    test_a_variable_rate_keeps_its_times,
    test_after_a_skip_the_frames_are_the_same_bytes,
    test_an_animated_picture_is_a_clip,
    test_any_file_name_will_do,
    test_avi_begins_with_its_sound,
    test_bytes_turned_over_give_frames_or_one_line,
    test_damage_behind_the_wanted_frames_does_not_matter,
    test_damage_in_the_middle_costs_those_frames_and_is_named_in_the_end,
    test_every_frame_comes_once_in_order_at_the_exact_rate,
    test_every_matrix_and_range_gives_its_colours,
    test_extreme_shapes,
    test_frames_out_of_order_keep_even_times,
    test_frames_that_a_decoder_passes_over_without_a_word_are_missed,
    test_hdr_is_tone_mapped_and_that_is_said,
    test_libav_is_quiet_about_damage,
    test_no_more_than_a_frame_or_two_is_held,
    test_nothing_on_stdin,
    test_odd_sizes,
    test_of_a_truncated_clip_comes_what_is_there_and_then_its_name,
    test_of_several_streams_the_best_is_taken_and_that_is_said,
    test_sound_is_seen,
    test_the_default_stream_comes_before_a_larger_one,
    test_the_file_is_closed,
    test_times_begin_with_the_first_frame_that_is_shown,
    test_what_an_edit_list_leaves_out_is_neither_shown_nor_missed,
    test_what_cannot_be_opened_says_why,
    test_what_names_no_matrix_is_bt601_when_small_and_bt709_when_hd,
    test_y4m_says_its_size_and_rate_itself,
)
from tests.io.video.test_writers import (  # noqa: F401
    FACTS,
    FILES,
    MAKE,
    TIMING,
    film_of,
    gray,
    packets,
    sidecar,
    test_a_clip_of_hardly_any_frames,
    test_a_file_appears_when_it_is_whole_and_with_its_sidecar,
    test_a_full_disk_is_an_error_in_one_line_and_leaves_nothing,
    test_a_part_of_a_clip_begins_at_zero,
    test_a_rate_stays_exactly_what_it_is,
    test_a_selection_has_an_even_rate_to_its_end,
    test_a_source_without_sound_is_no_problem,
    test_colour_comes_back_with_its_number_and_its_colours,
    test_colour_is_tagged_and_starts_at_once,
    test_gray_comes_back_as_exactly_as_the_format_allows,
    test_hevc_is_called_what_quicktime_plays_and_has_full_range,
    test_odd_sizes_are_filled_up_at_the_edge_and_that_is_recorded,
    test_sound_is_copied_as_it_is_and_in_time,
    test_sound_of_a_broadcast_is_put_into_the_form_that_files_have,
    test_sound_that_a_container_cannot_hold_is_left_out_and_that_is_said,
    test_the_file_and_its_sidecar_say_what_the_numbers_are,
    test_the_last_frame_lasts_as_long_as_it_is_told,
    test_the_offset_of_sound_against_frames_is_kept,
    test_times_that_a_source_rounded_are_made_exact_again,
    write,
)
from tests.io.video.test_writers import test_a_variable_rate_keeps_its_times as test_a_variable_rate_is_written  # noqa: F401

LOAD = libav.load_av  # before the fixture below hides it

pytestmark = pytest.mark.skipif(find_program() is None, reason="no imageio-ffmpeg here")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen]:
    """No av for depthcli, though the tests make their clips with it; all programs that were started."""
    processes: list[subprocess.Popen] = []
    begin = Program.__init__

    def missing() -> None:
        raise DepthError("no av")

    def recorded(self: Program, *arguments: object, **options: object) -> None:
        begin(self, *arguments, **options)
        processes.append(self.process)

    monkeypatch.setattr(libav, "load_av", missing)
    monkeypatch.setattr(Program, "__init__", recorded)
    return processes


# --- Which of the two -------------------------------------------------------------------------------------------------


def test_where_av_cannot_be_imported_the_program_reads_and_writes(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 4, sound="aac")
    code = (
        "import sys; sys.modules['av'] = None; from fractions import Fraction; from pathlib import Path\n"
        "from depthcli.io.video.clip import ClipInfo, Selection\n"
        "from depthcli.io.video.reader import open_clip; from depthcli.io.video.writers import video_writer\n"
        "from depthcli.io.video.clip_output import ClipOutput, Timing\n"
        "with open_clip('a.mp4') as clip, video_writer(ClipOutput('mp4', Path('b.mp4'), clip.info.size, "
        "Timing.of(clip.info, Selection()), {}, Path('a.mp4'))) as writer:\n"
        "    for frame in clip.frames(): writer.write(frame.rgb, frame.time)\n"
        "with open_clip('b.mp4') as clip: print(clip.info.audio, clip.info.rate, len(list(clip.frames())))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True,
                          env=environment(), check=False)  # fmt: skip
    assert (done.stdout, done.stderr) == ("True 24000/1001 4\n", "")


def test_with_av_no_program_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(Program, "__init__", lambda *_, **__: pytest.fail("started"))
    assert number(read(write("mp4", tmp_path))[1][3].rgb) == 3
    assert started == []


def test_without_both_one_line_names_both(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    code = (
        "import sys; sys.modules['av'] = sys.modules['imageio_ffmpeg'] = None; from pathlib import Path\n"
        "from depthcli.errors import DepthError; from depthcli.io.video.reader import open_clip\n"
        "from depthcli.io.video.clip_output import ClipOutput, Timing\n"
        "from depthcli.io.video.writers import video_writer\n"
        "output = ClipOutput('mp4', Path('b.mp4'), (8, 8), Timing(25, 1), {})\n"
        "for opened in (open_clip('a.mp4'), video_writer(output)):\n"
        "    try:\n"
        "        with opened: pass\n"
        "    except DepthError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True,
                          env=environment(), check=True)  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("needs PyAV or imageio-ffmpeg" in line and "pip install av" in line for line in lines)


# --- Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pixel_format": "yuv420p"},
        {"pixel_format": "yuv422p10le", "full": True},
        {"size": (640, 602), "matrix": (2, 0.2126, 0.0722), "transfer": 2},
        {"times": [Fraction(t, 1000) for t in (0, 40, 90, 500, 540, 2000)], "time_base": Fraction(1, 1000)},
        {"codec": "ffv1", "pixel_format": "gray16le", "options": {}, "full": True},
        {"sound": "aac", "videos": 2},
    ],
    ids=str,
)
def test_frames_times_and_facts_are_those_of_the_other_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    path = make_clip(tmp_path / ("a.mkv" if options.get("codec") else "a.mp4"), 6, **options)
    with closing(ProgramSource(path.open("rb"), "a", path)) as here:
        monkeypatch.undo()
        with closing(LibavSource(path.open("rb"), "a", path)) as there:
            for ours, theirs in zip(here.shown(), there.shown()):
                assert ours.time == theirs.time
                assert difference(ours.pixels(), theirs.pixels()) <= 1
    for field in fields(ClipInfo):
        if field.name not in ("rate", "frames", "duration"):
            assert getattr(here.info, field.name) == getattr(there.info, field.name), field.name
    assert here.info.rate == there.info.rate or here.info.variable
    assert float(here.info.rate) == pytest.approx(float(there.info.rate), abs=0.01)
    assert here.info.duration == pytest.approx(there.info.duration, abs=0.1)


@pytest.mark.parametrize("turn", [90, 180, 270, "mirror"])
def test_what_a_camera_turned_comes_out_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int | str
) -> None:
    info, frames = read(turn_header(make_clip(tmp_path / "a.mp4", 2, (64, 40)), MATRICES[turn]))
    assert info.rotation == (180 if turn == "mirror" else turn)
    assert "as its header says" in info.notes[0]
    monkeypatch.undo()
    theirs, expected = read(tmp_path / "a.mp4")
    assert info.size == theirs.size == frames[0].rgb.shape[1::-1]
    assert difference(frames[1].rgb, expected[1].rgb) <= 1


def test_what_is_held_a_little_askew_is_not_turned_by_that(tmp_path: Path) -> None:
    askew = turn_header(make_clip(tmp_path / "a.mp4", 1), MATRICES[90])
    data = bytearray(askew.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 4] = (8000).to_bytes(4, "big")  # 90 degrees and a few more
    askew.write_bytes(bytes(data))
    info, frames = read(askew)
    assert (info.rotation, info.size) == (90, SIZE[::-1])
    assert difference(frames[0].rgb, np.rot90(scene(0), -1)) <= 3


@pytest.mark.parametrize(
    "name", ["-y.mp4", "concat:a.mp4|b.mp4", "http:a.mp4", "pipe:0", "file:-.mp4", "é [info] \t.mp4"]
)
def test_a_name_is_never_an_option_or_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "whole.mp4", 2, sound="aac").rename(name)
    assert len(read(name)[1]) == 2
    with video_writer(ClipOutput("mp4", Path("-out.mp4"), SIZE, TIMING, FACTS, Path(name))) as writer:
        writer.write(scene(0), Fraction(0))
    assert read("-out.mp4")[0].audio


def test_what_a_file_says_of_itself_is_not_taken_for_the_word_of_the_program(tmp_path: Path) -> None:
    path = write("mp4", tmp_path, 2)
    frame = "[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts:      7 pts_time:7 duration: 1 fmt:gray sar:1/1 s:8x8 i:P"
    lie = f"\n[info]   Stream #0:7: Video: h264, gray, 9000x9000, 25 fps\n[a @ 0] [error] Decoding error: no\n{frame}"
    with video_writer(ClipOutput("mp4", path, SIZE, TIMING, {"note": lie})) as writer:
        writer.write(scene(0), Fraction(0))
    subprocess.run([find_program(), "-v", "error", "-y", "-i", path, "-metadata", f"title={lie}", "-metadata",
                    f"comment={lie}", "-c", "copy", tmp_path / "b.mkv"], check=True)  # fmt: skip
    assert [stream.width for stream in describe_file(tmp_path / "b.mkv").streams] == [64]
    assert [frame.time for frame in read(tmp_path / "b.mkv")[1]] == [0]
    name = tmp_path / "a\n[info]   Stream #0:7: Video: h264, gray, 9000x9000, 25 fps.mkv"
    assert "line break" in failure((tmp_path / "b.mkv").rename(name)).message


def test_a_clip_that_claims_too_much_is_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_clip(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(ProgramSource, "_begin", lambda self: pytest.fail("decoded"))
    assert failure(path, max_pixels=64 * 48 - 1).message.startswith(f"{path} is too large: 64x48 pixels")


def test_a_stream_that_cannot_seek_and_does_not_fit_into_what_is_looked_at(tmp_path: Path) -> None:
    planes = {"codec": "ffv1", "pixel_format": "yuv444p", "options": {}, "size": (640, 480)}
    data = make_clip(tmp_path / "a.mkv", 6, **planes).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ffmpeg_reader, "_HEAD_BYTES", len(data) // 3)
        info, frames = read("-", stdin=io.BytesIO(data))
    assert (info.name, info.size, info.rate) == ("stdin", (640, 480), RATE)
    assert [number(frame.rgb) for frame in frames] == list(range(6))


def test_the_program_ends_with_the_clip_however_that_ends(tmp_path: Path, started: list[subprocess.Popen]) -> None:
    path = make_clip(tmp_path / "a.mp4", 60, (320, 240))
    with open_clip(path) as clip:
        next(clip.frames())
        assert started[-1].poll() is None  # it waits for somebody to take the next frame
    with pytest.raises(ZeroDivisionError), open_clip(path) as clip:
        next(clip.frames())
        raise ZeroDivisionError
    assert len(read(path)[1]) == 60
    assert started
    assert all(process.returncode is not None for process in started)


def test_a_program_that_is_killed_is_an_error_and_not_the_end_of_the_clip(
    tmp_path: Path, started: list[subprocess.Popen]
) -> None:
    path = make_clip(tmp_path / "a.mp4", 60, (320, 240))
    frames = []
    with open_clip(path) as clip, pytest.raises(ClipError, match=r"is damaged: ffmpeg ended with -9; .* could be read"):
        for frame in clip.frames():
            frames.append(frame)
            started[-1].kill()
    assert 1 <= len(frames) < 60


def test_nothing_is_left_when_the_reader_itself_is_killed(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", 60, (320, 240))
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from depthcli.io.video.reader import open_clip\n"
        "with open_clip('a.mp4') as clip:\n"
        "    next(clip.frames()); print(clip._source._program.process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=environment()) as reader:  # fmt: skip
        pid = int(reader.stdout.readline())
        reader.kill()
    for _ in range(100):
        if not _runs(pid):
            break
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether a process is there and is more than what is left until somebody asks how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- Writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_the_same_frames_give_the_same_bytes_on_one_core_as_on_all(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / "sound.mp4", 24, sound="aac")
    digests = set()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    for folder in (tmp_path / "1", tmp_path / "2"):
        try:
            if cores and folder.name == "1":
                os.sched_setaffinity(0, {min(cores)})
            digests.add(hashlib.sha256(write(name, folder, 24, (320, 180), source=source).read_bytes()).hexdigest())
        finally:
            if cores:
                os.sched_setaffinity(0, cores)
    assert len(digests) == 1


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_what_the_other_writer_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    times = [Fraction(t, 1000) for t in (0, 40, 81, 119, 700, 741)]
    timing = Timing(Fraction(50, 7), Fraction(1, 1000))
    ours = write(name, tmp_path / "ours", timing=timing, times=times, pixel_aspect=Fraction(4, 3))
    monkeypatch.undo()
    theirs = write(name, tmp_path / "theirs", timing=timing, times=times, pixel_aspect=Fraction(4, 3))
    here, there = sidecar(ours), sidecar(theirs)
    assert not here["video"].pop("notes")
    assert bool(there["video"].pop("notes")) == (name == "ffv1")  # whose pixel aspect PyAV cannot write
    assert here == there
    (info, frames), (other, others) = read(ours), read(theirs)
    for fact in ("codec", "pixel_format", "bits", "rate", "time_base", "variable", "duration"):
        assert getattr(info, fact) == getattr(other, fact), fact
    assert info.pixel_aspect == Fraction(4, 3)
    assert [(frame.time, frame.duration) for frame in frames] == [(frame.time, frame.duration) for frame in others]
    assert all(np.abs(a.rgb.astype(int) - b.rgb).max() <= 3 for a, b in zip(frames, others))


@pytest.mark.parametrize("rate", [Fraction(1, 2), Fraction(1), Fraction(60000, 1001), Fraction(240)])
def test_a_rate_of_any_kind_stays_what_it_is(tmp_path: Path, rate: Fraction) -> None:
    info, frames = read(write("mp4", tmp_path, 5, timing=Timing(rate, 1 / rate)))
    assert info.rate == rate
    assert [frame.time for frame in frames] == [index / rate for index in range(5)]


@pytest.mark.parametrize(
    ("name", "sound", "kind"),
    [
        ("mp4", "aac", "variable with B-frames"),
        ("mp4", "", "late by an edit list"),
        ("prores", "aac", "variable"),
        ("hevc10", "aac", "broadcast"),
        ("ffv1", "aac", "late"),
        ("ffv1", "", "variable"),
    ],
)
def test_every_frame_is_shown_when_that_of_the_source_is(tmp_path: Path, name: str, sound: str, kind: str) -> None:
    writing.test_every_frame_is_shown_when_that_of_the_source_is(tmp_path, name, sound, kind)


def test_a_part_has_its_timecode_and_names_what_it_lacks(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "a.mkv", subtitles=True)
    film, _ = film_of(source, "ffv1", tmp_path, Selection(start=Fraction(1, 4)))
    assert timecode_of(film) == "01:00:00:06"
    notes = sidecar(film)["video"]["notes"]
    assert notes[-1] == "the sound and the subtitles were left out, as only a part of the clip was chosen"
    assert notes[:-1] == (["the chapters of a part of a clip were left out, as PyAV is not there"] if CHAPTERS else [])


def test_subtitles_of_mp4_go_along_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rich_clip(tmp_path / "a.mkv", subtitles=True)
    source = tmp_path / "a.mov"
    tracks = [part for kind in "vsa" for part in ("-map", f"0:{kind}")]
    subprocess.run([find_program(), "-v", "error", "-i", tmp_path / "a.mkv", *tracks, "-c", "copy", "-c:s", "mov_text",
                    "-timecode", "01:00:00:00", source], check=True)  # fmt: skip
    for name in ("mp4", "prores", "ffv1"):
        here, _ = film_of(source, name, tmp_path / "here")
        with monkeypatch.context() as patch:
            patch.setattr(libav, "load_av", LOAD)
            there, _ = film_of(source, name, tmp_path / "there")
        for film in (here, there):
            assert timecode_of(film) == "01:00:00:00"
            note = ["matroska cannot hold mov_text subtitles, which were left out"]
            assert sidecar(film)["video"]["notes"] == (note if name == "ffv1" else [])
            assert name == "ffv1" or [text[2:] for _, text in texts_of(film) if len(text) > 2] == [b"first", b"second"]


@pytest.mark.parametrize("where", ["video", "audio"])
@pytest.mark.parametrize("name", ["mp4", "ffv1"])
def test_a_few_broken_packets_never_cost_the_film(tmp_path: Path, name: str, where: str) -> None:
    source = noisy(make_clip(tmp_path / "a.ts", 48, container="mpegts", sound="aac", rate=Fraction(24)), where, 3)
    film = write(name, tmp_path, 48, timing=Timing(Fraction(24), Fraction(1, 90000)), source=source)
    notes = sidecar(film)["video"]["notes"]
    assert len(read(film)[1]) == 48
    if where == "video" or not notes:  # versions differ in what they take for a damaged packet
        assert max(time for time, _ in packets(film)) == pytest.approx(2, abs=0.2)
    else:
        assert notes == ["a track of damaged aac audio was left out, as PyAV is not there"]


def test_a_track_that_stands_under_another_is_found() -> None:
    said = """[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'a.mov':
[info]   Metadata:
[info]     title           : Stream group #0:0
[info]     Stream #0:9: Video: h264, gray, 9000x9000, 25 fps
[info]   Duration: 00:00:01.00, start: 0.000000, bitrate: 234 kb/s
[info]   Stream group #0:0[0x6]: Track Reference:
[info]     Stream #0:0[0x1]: Video: h264 (High) (avc1 / 0x31637661), yuv420p(progressive), 160x120, 24 fps (default)
[info]       Metadata:
[info]         timecode        : 01:00:00:00
[info]     Stream #0:2[0x6](eng): Data: none (tmcd / 0x64636D74), 0 kb/s
[info]   Stream #0:1[0x2](fra): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, mono, fltp, 70 kb/s"""
    facts = ffmpeg_program._file_facts(iter(said.splitlines()))
    assert [(stream.index, stream.kind) for stream in facts.streams] == [(0, "Video"), (1, "Audio"), (2, "Data")]
    assert (facts.videos[0].width, facts.videos[0].metadata) == (160, {"timecode": "01:00:00:00"})
    assert facts.metadata == {"title": "Stream group #0:0"}


def test_sixteen_bits_come_back_exactly_in_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("ffv1", tmp_path, 3, (65, 49))
    monkeypatch.undo()
    with libav.load_av().open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            assert np.array_equal(frame.to_ndarray(), gray(index, (65, 49)))
    assert index == 2


def test_a_writer_that_is_left_half_way_leaves_nothing(tmp_path: Path, started: list[subprocess.Popen]) -> None:
    output = ClipOutput("mp4", tmp_path / "a.mp4", SIZE, TIMING, FACTS)
    with pytest.raises(ZeroDivisionError), video_writer(output) as writer:
        writer.write(scene(0), Fraction(0))
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    assert all(process.returncode is not None for process in started)


def test_a_program_that_dies_is_one_line_and_no_file(tmp_path: Path, started: list[subprocess.Popen]) -> None:
    with (
        pytest.raises(OutputError, match="cannot write") as caught,
        video_writer(ClipOutput("ffv1", tmp_path / "a.mkv", SIZE, TIMING, FACTS)) as writer,
    ):
        for index in range(100):
            writer.write(gray(index), index / RATE)
            started[-1].kill()
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_known_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_ffmpeg, "file_url", lambda path: "file:/dev/full")
    output = ClipOutput("mp4", tmp_path / "a.mp4", SIZE, TIMING, FACTS)
    with pytest.raises(DiskFullError), video_writer(output) as writer:
        for index in range(10):
            writer.write(scene(index), index / RATE)


def test_a_sound_that_is_none_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing")
    path = write("mp4", tmp_path, source=tmp_path / "a.txt")
    assert sidecar(path)["video"]["notes"] == [
        "sound, subtitles and timecode were left out, as the clip cannot be read again"
    ]


def test_the_comment_holds_whatever_the_facts_are(tmp_path: Path) -> None:
    facts = {"input": '-i ‘Höhe’; a=b\n"深度".mp4', "long": "x" * 20000}
    path = tmp_path / "a.mkv"
    with video_writer(ClipOutput("ffv1", path, SIZE, TIMING, facts)) as writer:
        writer.write(gray(0), Fraction(0))
    assert sidecar(path)["input"] == facts["input"]
    assert json.dumps(facts["input"], ensure_ascii=False).encode() in path.read_bytes()


def test_every_layout_of_an_encoding_has_its_name_in_the_pipe() -> None:
    assert {film_ffmpeg._layout(encoding) for encoding in ENCODINGS.values()} == set(film_ffmpeg._FOURCC)
    assert {name for name, row in CLIPS.items() if not row.folder and not row.page} == set(FILES)


def test_a_selection_is_the_same_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_clip(tmp_path / "a.mp4", 30)
    selection = Selection(start=0.2, fps=40, stride=3)
    ours = read(path, selection)[1]
    monkeypatch.undo()
    theirs = read(path, selection)[1]
    assert [(frame.time, number(frame.rgb)) for frame in ours] == [(f.time, number(f.rgb)) for f in theirs]


def test_what_a_stream_is_for_is_read() -> None:
    said = [
        "[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'a.mov':",
        "[info]   Stream #0:0[0x1](und): Video: h264 (High), yuv420p(progressive), 160x120 (default) (original)",
        "[info]   Stream #0:1[0x2]: Video: mjpeg (Baseline), yuvj420p(pc), 480x360, 90k tbn (attached pic)",
        "[info]   Stream #0:2[0x3]: Video: none (drmi / 0x696D7264), 64x48, 24 fps",
    ]
    facts = ffmpeg_program._file_facts(iter(said))
    assert facts
    purposes = [sorted(stream.purposes) for stream in facts.videos]
    assert purposes == [["default", "original"], ["attached_pic"], []]
    assert facts.videos[2].codec == "none"
