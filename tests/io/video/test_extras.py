"""What goes along with the pictures: kept as it is where the film can hold it, and named where it cannot."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from depthcli.errors import DiskFullError, OutputError
from depthcli.host import atomic
from depthcli.io.codecs.formats import CLIPS, Holds
from depthcli.io.video.clip import Selection
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.extras import Along, Extras, timecode_at
from depthcli.io.video.pipe import PipeWriter
from depthcli.io.video.reader import open_clip
from depthcli.io.video.writers import video_writer
from tests.io.video.clips import RATE, SIZE, X264, make_clip, scene, write_sound, yuv444
from tests.io.video.test_writers import FACTS, FILES, MAKE, TIMING, film_of, gray, packets, sidecar, write

NTSC = Fraction(30000, 1001)
CHAPTERS = hasattr(av.container.OutputContainer, "set_chapters")  # not before PyAV 15
SUBTITLES = "1\n00:00:00,100 --> 00:00:00,400\nfirst\n\n2\n00:00:00,500 --> 00:00:00,900\nsecond\n"
_DEFAULT = 1


def rich_clip(
    path: Path, timecode: str = "01:00:00:00", rate: Fraction = Fraction(24), subtitles: bool = False
) -> Path:
    """A second with a title, two chapters, a timecode, and two sounds of which the second is the default."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options=X264)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv444p"
        stream.time_base = stream.codec_context.time_base = 1 / rate
        out.metadata.update({"title": "Holiday", "artist": "Somebody", "comment": "mine"})
        if timecode:
            stream.metadata["timecode"] = timecode
        sounds = [out.add_stream("aac", rate=48000) for _ in range(2)]
        sounds[0].disposition, sounds[1].disposition = 0, _DEFAULT
        sounds[0].metadata["language"] = "fra"
        sounds[1].metadata.update({"title": "Commentary", "language": "eng"})
        if CHAPTERS:
            out.set_chapters([chapter(0, 0, 500, "one"), chapter(1, 500, 1000, "two")])
        text = av.open(io.BytesIO(SUBTITLES.encode()), format="srt") if subtitles else None
        track = out.add_stream_from_template(text.streams[0]) if text else None
        for index in range(round(rate)):
            frame = yuv444(scene(index % 60))
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for sound in sounds:
            write_sound(out, sound, 1.0)
        for packet in text.demux() if text else ():
            if packet.dts is not None:
                packet.stream = track
                out.mux(packet)
        if text:
            text.close()
    return path


def chapter(number: int, start: int, end: int, title: str) -> dict:
    return {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}


def timecode_of(path: Path) -> str:
    with av.open(str(path)) as container:
        found = [
            value for stream in container.streams for key, value in stream.metadata.items() if key.lower() == "timecode"
        ]
    return found[0] if found else ""


def chapters_of(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        chapters = container.chapters()
    return [
        (round(float(c["start"] * Fraction(c["time_base"])), 2), round(float(c["end"] * Fraction(c["time_base"])), 2),
         c["metadata"]["title"]) for c in chapters
    ]  # fmt: skip


def disposition(stream: object) -> int:
    value = stream.disposition
    return int(getattr(value, "value", value))


# --- Kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("ending", ["mov", "mp4", "mkv"])
def test_titles_languages_default_track_and_timecode_are_kept(tmp_path: Path, ending: str, name: str) -> None:
    film, _ = film_of(rich_clip(tmp_path / f"a.{ending}"), name, tmp_path)
    assert timecode_of(film) == "01:00:00:00"
    with av.open(str(film)) as container:
        inside = {key.lower(): value for key, value in container.metadata.items()}
        sounds = container.streams.audio
        assert (inside["title"], inside["artist"]) == ("Holiday", "Somebody")
        assert '"model": "vits"' in inside["comment"]
        assert [disposition(sound) & _DEFAULT for sound in sounds] == [0, _DEFAULT]
        assert [sound.language for sound in sounds] == ["fra", "eng"]
        if CHAPTERS:  # older FFmpeg does not read the titles of tracks in MP4
            assert "Commentary" in sounds[1].metadata.values()
    assert sidecar(film)["video"]["notes"] == []
    if CHAPTERS:
        assert chapters_of(film) == [(0, 0.5, "one"), (0.5, 1, "two")]


def test_a_film_without_any_of_these_has_none(tmp_path: Path) -> None:
    film, _ = film_of(make_clip(tmp_path / "a.mp4", 4), "prores", tmp_path)
    with av.open(str(film)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert "title" not in container.metadata
    assert sidecar(film)["video"]["notes"] == []


def test_subtitles_go_where_they_fit_and_are_named_where_not(tmp_path: Path) -> None:
    source = rich_clip(tmp_path / "a.mkv", subtitles=True)
    film, _ = film_of(source, "ffv1", tmp_path)
    assert texts_of(film) == texts_of(source) == [(0.1, b"first"), (0.5, b"second")]
    assert sidecar(film)["video"]["notes"] == []
    for name in ("mp4", "hevc10", "prores"):
        film, _ = film_of(source, name, tmp_path)
        container = "mov" if name == "prores" else "mp4"
        note = f"{container} cannot hold subrip subtitles, which were left out"
        assert sidecar(film)["video"]["notes"] == [note]


def texts_of(path: Path) -> list[tuple[float, bytes]]:
    """When subtitles come after the first frame, and what they are."""
    with open_clip(path) as clip:
        origin = clip.info.origin
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(subtitles=0) if packet.size]
        return [(round(float(p.pts * Fraction(p.time_base) - origin), 2), bytes(p)) for p in found]


def test_a_cover_and_attachments_are_named(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    data = make_clip(tmp_path / "live.mkv", 4, muxer={"live": "1"}).read_bytes()  # without any length or table
    picture = io.BytesIO()
    with av.open(picture, "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    # Attachments (RFC 9559, 5.1.6): a font, and the picture that players take for a cover.
    files = ((b"a.ttf", b"font/ttf", b"x"), (b"cover.jpg", b"image/jpeg", picture.getvalue()))
    attached = _element("1941A469", b"".join(_attachment(*file) for file in files))
    cluster = data.index(b"\x1f\x43\xb6\x75")
    source.write_bytes(data[:cluster] + attached + data[cluster:])
    film, _ = film_of(source, "ffv1", tmp_path)
    notes = sidecar(film)["video"]["notes"]
    assert notes == ["the attachment a.ttf was left out", "the cover picture was left out"]


def _element(number: str, content: bytes) -> bytes:
    return bytes.fromhex(number) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def _attachment(name: bytes, kind: bytes, data: bytes) -> bytes:
    inside = _element("466E", name) + _element("4660", kind) + _element("465C", data) + _element("46AE", b"\x01")
    return _element("61A7", inside)


# --- Parts of a clip --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_of_a_part_the_timecode_and_the_chapters_are_those_of_the_part(tmp_path: Path, name: str) -> None:
    source = rich_clip(tmp_path / "a.mov")
    film, _ = film_of(source, name, tmp_path, Selection(start=Fraction(1, 4), end=Fraction(3, 4)))
    assert timecode_of(film) == "01:00:00:06"
    with av.open(str(film)) as container:
        assert container.metadata["title"] == "Holiday"
        assert not container.streams.audio
    if CHAPTERS:
        assert chapters_of(film) == [(0, 0.25, "one"), (0.25, 0.5, "two")]
    assert sidecar(film)["video"]["notes"] == ["the sound was left out, as only a part of the clip was chosen"]


def test_a_chapter_outside_of_the_part_is_not_there(tmp_path: Path) -> None:
    film, _ = film_of(rich_clip(tmp_path / "a.mp4"), "ffv1", tmp_path, Selection(start=Fraction(1, 2)))
    assert not CHAPTERS or chapters_of(film) == [(0, 0.5, "two")]


def test_a_part_names_all_that_it_lacks(tmp_path: Path) -> None:
    film, _ = film_of(rich_clip(tmp_path / "a.mkv", subtitles=True), "ffv1", tmp_path, Selection(max_frames=3))
    note = "the sound and the subtitles were left out, as only a part of the clip was chosen"
    assert sidecar(film)["video"]["notes"] == [note]


@pytest.mark.parametrize(
    ("timecode", "rate", "seconds", "film_rate", "expected"),
    [
        ("01:00:00:00", Fraction(24), 0, Fraction(24), "01:00:00:00"),
        ("01:00:00:00", RATE, Fraction(1001, 1000), RATE, "01:00:01:00"),
        ("10:59:59:24", Fraction(25), Fraction(1, 25), Fraction(25), "11:00:00:00"),
        ("23:59:59:23", Fraction(24), Fraction(1, 24), Fraction(24), "00:00:00:00"),
        # Drop-frame: 00 and 01 are left out at each minute but every tenth (SMPTE ST 12-1).
        ("00:00:59;29", NTSC, 1 / NTSC, NTSC, "00:01:00;02"),
        ("00:09:59;29", NTSC, 1 / NTSC, NTSC, "00:10:00;00"),
        ("00:00:00;00", NTSC, 17982 / NTSC, NTSC, "00:10:00;00"),
        ("00:00:00;00", NTSC, 107892 / NTSC, NTSC, "01:00:00;00"),
        ("23:59:59;29", NTSC, 1 / NTSC, NTSC, "00:00:00;00"),
        ("00:00:59;59", 2 * NTSC, 1 / (2 * NTSC), 2 * NTSC, "00:01:00;04"),
        ("00:00:59:29", NTSC, 1 / NTSC, NTSC, "00:01:00:00"),  # the same rate counted without
        # A film of another rate keeps the second, and counts its own frames in it.
        ("01:00:00:12", Fraction(24), 0, Fraction(12), "01:00:00:06"),
        ("01:00:00:12", Fraction(24), 0, Fraction(30), "01:00:00:15"),
        ("00:01:00;02", NTSC, 0, NTSC / 2, "00:01:00:01"),
        ("01:00:00:5", Fraction(10), Fraction(1, 10), Fraction(10), "01:00:00:06"),
        ("01:00:00:119", Fraction(120), Fraction(1, 120), Fraction(120), "01:00:01:00"),
        ("01:00:00:12", Fraction(24), 0, Fraction(1, 4), None),
        ("nonsense", Fraction(24), 0, Fraction(24), None),
    ],
)
def test_a_timecode_is_counted_on(
    timecode: str, rate: Fraction, seconds: Fraction, film_rate: Fraction, expected: str | None
) -> None:
    assert timecode_at(timecode, rate, Fraction(seconds), film_rate) == expected


def test_every_frame_of_an_hour_has_another_timecode() -> None:
    codes = [timecode_at("00:58:00;02", NTSC, Fraction(k) / NTSC, NTSC) for k in range(5400)]
    assert len(set(codes)) == 5400
    assert not any(code[3:] in ("59:00;00", "59:00;01") for code in codes)


@pytest.mark.parametrize("rate", [Fraction(10), RATE, NTSC, Fraction(50), 2 * NTSC, Fraction(120), Fraction(240)])
@pytest.mark.parametrize("name", ["mp4", "prores", "ffv1"])
def test_every_rate_can_have_a_timecode(tmp_path: Path, name: str, rate: Fraction) -> None:
    wanted = "02:03:04;05" if rate.denominator == 1001 and round(rate) % 30 == 0 else "02:03:04:05"
    film, _ = film_of(rich_clip(tmp_path / "a.mkv", wanted, rate), name, tmp_path)
    frame = timecode_of(film)[9:]  # which FFmpeg writes with as many digits as the rate has
    assert (timecode_of(film)[:9], int(frame)) == (wanted[:9], 5)


def test_a_timecode_that_the_rate_cannot_count_is_named(tmp_path: Path) -> None:
    film, _ = film_of(rich_clip(tmp_path / "a.mkv"), "mp4", tmp_path, Selection(fps=Fraction(1, 4)))
    note = "the timecode 01:00:00:00 was left out: it does not fit the rate of the frames"
    assert sidecar(film)["video"]["notes"] == [note]
    assert timecode_of(film) == ""


# --- Damage -----------------------------------------------------------------------------------------------------------


def noisy(source: Path, packets_of: str, count: int) -> Path:
    """Put noise in place of a few packets of an MPEG transport stream: those of the pictures, or those of the sound."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        identifier = getattr(container.streams, packets_of)[0].id
    places = [at for at in range(0, len(data), 188) if (data[at + 1] & 31) << 8 | data[at + 2] == identifier]
    noise = np.random.default_rng(5).integers(0, 256, 188 * count, np.uint8).tobytes()
    for number, at in enumerate(places[len(places) // 2 :][:count]):
        data[at : at + 188] = noise[188 * number :][:188]
    source.write_bytes(bytes(data))
    return source


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", ["video", "audio"])
def test_a_few_broken_packets_do_not_cost_the_sound(tmp_path: Path, name: str, where: str) -> None:
    options = {"container": "mpegts", "sound": "aac", "rate": Fraction(24)}
    source = make_clip(tmp_path / "a.ts", 48, **options)
    whole = len(packets(source))
    with open_clip(noisy(source, where, 3)) as clip:
        timing = Timing.of(clip.info, Selection())
    film = write(name, tmp_path, 48, timing=timing, source=source)
    kept = packets(film)
    assert whole - 8 <= len(kept) <= whole
    assert max(time for time, _ in kept) == pytest.approx(2, abs=0.1)
    notes = sidecar(film)["video"]["notes"]
    assert all("damaged packet" in note and "part" not in note for note in notes)
    assert not notes or where == "audio"


def test_noise_between_the_parts_of_a_matroska_file_does_not_end_the_sound(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "a.mkv", 60, rate=Fraction(6), sound="libmp3lame", muxer={"cluster_time_limit": "500"}
    )
    before = packets(source)
    data = bytearray(source.read_bytes())
    clusters = [at for at in range(len(data) - 4) if data[at : at + 4] == b"\x1f\x43\xb6\x75"]
    middle = clusters[len(clusters) // 2]
    data[middle : middle + 60] = bytes(range(7, 67))
    source.write_bytes(bytes(data))
    film = write("ffv1", tmp_path, 60, timing=Timing(Fraction(6), Fraction(1, 1000)), source=source)
    assert max(time for time, _ in packets(film)) == pytest.approx(before[-1][0], abs=0.1)


def test_a_clock_that_starts_again_goes_on(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.ts", 24, container="mpegts", sound="aac", rate=Fraction(12)).read_bytes()
    (tmp_path / "a.ts").write_bytes(part + part)  # as where recordings were joined
    film = write("mp4", tmp_path, 48, timing=Timing(Fraction(12), Fraction(1, 90000)), source=tmp_path / "a.ts")
    times = [time for time, _ in packets(film)]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(4, abs=0.15)
    assert len(times) >= 2 * 2 * 48000 / 1024 - 4


def test_a_source_that_cannot_be_read_again_is_named_and_closed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("nothing")
    film = write("mp4", tmp_path, source=tmp_path / "a.txt")
    (note,) = sidecar(film)["video"]["notes"]
    assert note.startswith("sound, subtitles and timecode were left out, as the clip cannot be read again")
    film = write("mp4", tmp_path, source=tmp_path / "gone.mp4")
    assert "gone.mp4" not in sidecar(film)["video"]["notes"][0]
    assert "No such file" in sidecar(film)["video"]["notes"][0]


def test_a_packet_that_a_container_refuses_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "a.mkv", 24, sound="libmp3lame")
    notes: list[str] = []
    with av.open(io.BytesIO(), "w", format="matroska") as target:
        video = target.add_stream("ffv1", rate=24)
        extras = Extras(av, Along(source, True, Fraction(0), Fraction(24)), target, notes)
        extras.begin(video, Fraction(0))
        real, refused = Extras._read, []

        def read(self: Extras, streams: list) -> object:
            for number, packet in enumerate(real(self, streams)):
                if number % 10 == 5:  # in front of the one before, which no container takes
                    packet.dts = packet.pts = packet.dts - 500
                    refused.append(packet)
                yield packet

        extras._packets = read(extras, list(extras._source.streams.audio))
        extras.finish(Fraction(1))
        extras.close()
    assert len(refused) > 1
    assert notes == [f"{len(refused)} damaged packets of the sound or the subtitles could not be kept"]


# --- Disks and places -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_names_the_film_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = rich_clip(tmp_path / "a.mov")

    def full(folder: Path) -> Path:
        place = folder / ".depthcli-0-0.part"
        place.symlink_to("/dev/full")
        return place

    monkeypatch.setattr(atomic, "temporary_path", full)
    film = tmp_path / f"clip{CLIPS[name].clip}"
    with (
        pytest.raises(DiskFullError) as caught,
        video_writer(ClipOutput(name, film, SIZE, TIMING, FACTS, source)) as writer,
    ):
        for index in range(30):
            writer.write(MAKE[CLIPS[name].holds](index), index / RATE)
    assert str(caught.value) == f"cannot write {film}: No space left on device"
    assert os.listdir(tmp_path) == ["a.mov"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(OutputError, match="a pipe, a device or a folder"):
        with video_writer(ClipOutput("mp4", tmp_path / "a.mp4", SIZE, TIMING, FACTS)):
            raise AssertionError("opened")
    assert not (tmp_path / "a.mp4").is_file()
    assert os.listdir(tmp_path) == ["a.mp4"]


# --- The shape of pixels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_pixels_that_are_not_square_stay_so_or_are_named(tmp_path: Path, name: str) -> None:
    film = write(name, tmp_path, pixel_aspect=Fraction(4, 3))
    said = sidecar(film)["video"]
    assert said["pixel_aspect"] == "4/3"
    with open_clip(film) as clip:
        kept = clip.info.pixel_aspect == Fraction(4, 3)
    assert kept == (said["notes"] == [])
    assert kept or name == "ffv1"
    assert "pixel_aspect" not in sidecar(write(name, tmp_path))["video"]


@pytest.mark.parametrize("holds", [Holds.COLOR, Holds.SHADES])
def test_y4m_has_the_shape_of_pixels(holds: Holds) -> None:
    pipe = io.BytesIO()
    PipeWriter(pipe, holds, SIZE, TIMING, True, Fraction(64, 45)).write(MAKE[holds](0), Fraction(0))
    assert b" A64:45 " in pipe.getvalue().split(b"\n")[0]
    pipe.seek(0)
    with av.open(pipe, format="yuv4mpegpipe") as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(64, 45)
    assert gray(0).shape == SIZE[::-1]
