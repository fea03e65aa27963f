"""Films say how they show two eyes, and stay the same films."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from depthcli.io.video import writers
from depthcli.io.video.boxes import tag_film
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.ffmpeg_program import find_program
from depthcli.io.video.film_ffmpeg import ProgramFilm
from depthcli.io.video.writers import video_writer
from tests.io.video.clips import make_clip, number, side_data

TIMING = Timing(Fraction(24), Fraction(1, 24))
READ_BACK = {1: 2, 2: 1, 4: None}  # our packings as FFmpeg's AV_STEREO3D_*; it does not know right-left


def packets(path: Path) -> list[tuple[str, int | None, bytes]]:
    """Every packet of a file: its stream, time stamp and bytes."""
    with av.open(str(path)) as container:
        return [(packet.stream.type, packet.pts, bytes(packet)) for packet in container.demux() if packet.size]


def first_side_data(path: Path) -> dict[str, bytes]:
    with av.open(str(path)) as container:
        return side_data(next(container.decode(video=0)))


def kinds(data: bytes) -> list[bytes]:
    """The boxes at the top of a file."""
    found, place = [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        found.append(data[place + 4 : place + 8])
        place += length
    assert place == len(data)  # every length is right
    return found


@pytest.mark.parametrize("layout", [{}, {"movflags": "+faststart"}], ids=["header last", "header first"])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
@pytest.mark.parametrize("packing", READ_BACK)
def test_every_packet_is_found_again_and_the_packing_is_read_back(tmp_path, name, layout, packing) -> None:
    path = make_clip(tmp_path / name, frames=6, sound="aac", muxer=layout)
    before, boxes = packets(path), kinds(path.read_bytes())
    assert tag_film(path, packing, half_sphere=False) == ""
    assert packets(path) == before and kinds(path.read_bytes()) == boxes
    assert boxes.index(b"moov") < boxes.index(b"mdat") if layout else boxes.index(b"moov") > boxes.index(b"mdat")
    found = first_side_data(path)
    read = struct.unpack("<i", found["STEREO3D"][:4])[0] if "STEREO3D" in found else None
    assert read == READ_BACK[packing]
    assert path.read_bytes().count(b"st3d\0\0\0\0" + bytes([packing])) == 1
    assert "SPHERICAL" not in found
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_half_a_sphere_is_read_back(tmp_path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=3)
    assert tag_film(path, 2, half_sphere=True) == ""
    mapping, yaw, pitch, roll, left, top, right, bottom = struct.unpack(
        "<4i4I", first_side_data(path)["SPHERICAL"][:32]
    )
    assert (yaw, pitch, roll, top, bottom) == (0, 0, 0, 0, 0)
    assert (left, right) == (0x40000000, 0x40000000)
    assert mapping in (1, 2)  # equirectangular, or a tile of it


def test_a_film_in_fragments_is_left_as_it_is(tmp_path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=3, muxer={"movflags": "frag_keyframe+empty_moov"})
    before = path.read_bytes()
    assert "fragments" in tag_film(path, 2, half_sphere=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["no header", "cut", "no track"])
def test_what_is_not_as_expected_is_left_as_it_is(tmp_path, damage) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=3)
    data = path.read_bytes()
    if damage == "no header":
        data = data.replace(b"moov", b"free")
    elif damage == "cut":
        data = data[: data.index(b"stsd") + 20]
    else:
        data = data.replace(b"vide", b"meta")
    path.write_bytes(data)
    assert "not as expected" in tag_film(path, 2, half_sphere=False)
    assert path.read_bytes() == data


def test_offsets_that_would_not_fit_leave_the_film_as_it_is(tmp_path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=3, muxer={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    place = data.index(b"stco") + 12
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert tag_film(path, 2, half_sphere=False)
    assert path.read_bytes() == data


def write_film(path: Path, format: str, **options: object) -> list[str]:
    output = ClipOutput(format, path, (64, 48), TIMING, {"schema": "x"}, **options)
    with video_writer(output) as writer:
        for index in range(4):
            writer.write(np.full((48, 64, 3), 10 + 4 * index, np.uint8), Fraction(index, 24))
    return writer.notes


@pytest.mark.parametrize("program", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_writers_of_films_tag_them(tmp_path, monkeypatch, suffix, program) -> None:
    if program:
        if not find_program():
            pytest.skip("there is no program ffmpeg")
        monkeypatch.setattr(writers, "LibavFilm", ProgramFilm)
    path = tmp_path / f"a.{suffix}"
    assert write_film(path, f"stereo-{suffix}", packing=2) == []
    if suffix == "mkv":
        with av.open(str(path)) as container:
            assert container.streams.video[0].metadata["stereo_mode"] == "left_right"
    else:
        assert first_side_data(path)["STEREO3D"][:4] == struct.pack("<i", 1)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [number(frame) for frame in frames] == [0, 1, 2, 3]


def test_a_film_without_a_packing_says_nothing(tmp_path) -> None:
    write_film(tmp_path / "a.mp4", "stereo-mp4")
    assert "STEREO3D" not in first_side_data(tmp_path / "a.mp4")


def test_matroska_is_not_told_of_half_a_sphere_and_a_note_says_so(tmp_path) -> None:
    (note,) = write_film(tmp_path / "a.mkv", "stereo-mkv", packing=2, half_sphere=True)
    assert "half a sphere" in note


def test_colours_of_an_anaglyph_are_kept_pixel_by_pixel(tmp_path) -> None:
    write_film(tmp_path / "a.mp4", "stereo-mp4-444")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv444p"
