"""Depth films give their numbers back: by their sidecar or their comment, in any order, whole or with an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance, describe
from depthcli.errors import PictureError
from depthcli.io.codecs.encode import Look, beside, encode, encoding_of
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.names import sidecar_of
from depthcli.io.video import depth_film
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.depth_film import DepthFilm, has_numbers
from depthcli.io.video.writers import video_writer

# Odd, which two of the formats have to pad; x265 of 2024 aborts the process for frames much smaller than its blocks.
SIZE, RANGE = (71, 49), (1.0, 5.0)
DISPARITY, METRIC = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH


def values(number: int) -> np.ndarray:
    """A slope that lies otherwise in each frame."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return 1.2 + 0.3 * number + x / width + y / height


@pytest.fixture
def opened() -> Iterator[Callable[[Path], DepthFilm]]:
    """Opens films that are closed when the test ends."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(closing(DepthFilm(path)))


def film(name: str = "ffv1", kind: DepthKind = DISPARITY, frames: int = 6) -> Path:
    path = Path(f"clip{CLIPS[name].clip}")
    rate = Fraction(24)
    facts = describe(DepthMap(values(0), kind, Provenance("tiny", source="a.mp4")))
    facts = {"schema": SCHEMA, **facts, "encoding": encoding_of(CLIPS[name].holds, kind, RANGE, "turbo")}
    with video_writer(ClipOutput(name, path, CLIPS[name].frame_size(SIZE), Timing(rate, 1 / rate), facts)) as writer:
        for number in range(frames):
            depth = DepthMap(values(number), kind)
            pixels = encode(depth, CLIPS[name].holds, Look("turbo", RANGE))
            if CLIPS[name].beside:
                pixels = beside(np.zeros((*SIZE[::-1], 3), np.uint8), pixels)
            writer.write(pixels, number / rate)
    return path


@pytest.mark.parametrize("kind", [DISPARITY, METRIC])
@pytest.mark.parametrize(("name", "most"), [("ffv1", 5e-4), ("hevc10", 0.03), ("prores", 0.01)])
def test_maps_come_back_in_their_kind_to_the_steps_of_the_format(name: str, most: float, kind: DepthKind, opened):
    clip = opened(film(name, kind))
    assert clip.count == 6
    for number in range(6):
        depth = clip.map(number)
        assert (depth.kind, depth.size, depth.provenance.source) == (kind, SIZE, "a.mp4")
        error = np.abs(depth.values - values(number))
        assert error.mean() <= most and error.max() <= 8 * most  # x265 does not always give the same bytes


@pytest.mark.parametrize("by_program", [False, True])
def test_maps_are_given_in_any_order(by_program: bool, monkeypatch: pytest.MonkeyPatch, opened):
    if by_program:
        monkeypatch.setattr(depth_film, "has_av", lambda: False)
        if not depth_film.find_program():
            pytest.skip("there is no program ffmpeg here")
    clip = opened(film())
    for number in (4, 0, 1, 3, 2, 5, 5):
        assert np.abs(clip.map(number).values - values(number)).max() < 1e-4
    with pytest.raises(PictureError, match="ends before its frame 7"):
        clip.map(6)


def test_a_film_without_its_sidecar_says_the_same(opened):
    path = film()
    whole = opened(path).map(3)
    sidecar_of(path).unlink()
    alone = opened(path)
    assert alone.count == 6 and np.array_equal(alone.map(3).values, whole.values)


@pytest.mark.parametrize("by_program", [False, True])
def test_a_damaged_frame_is_an_error_and_no_other_picture(by_program: bool, monkeypatch: pytest.MonkeyPatch, opened):
    path = film()
    data = bytearray(path.read_bytes())
    for at in range(len(data) * 2 // 3, len(data) * 2 // 3 + 40):
        data[at] ^= 0x5A
    path.write_bytes(data)
    if by_program:
        monkeypatch.setattr(depth_film, "has_av", lambda: False)
        if not depth_film.find_program():
            pytest.skip("there is no program ffmpeg here")
    clip, failed = opened(path), 0
    for number in range(6):
        try:
            assert np.abs(clip.map(number).values - values(number)).max() < 1e-4
        except PictureError as error:
            assert "damaged" in str(error) or "ends before" in str(error)
            failed += 1
    assert failed


def test_films_without_numbers_are_refused():
    for name in ("mp4", "side"):
        path = film(name)
        assert not has_numbers(path)
        with pytest.raises(PictureError, match="holds colours, and no numbers"):
            DepthFilm(path)
    Path("a.mkv").write_bytes(b"no")
    with pytest.raises(PictureError, match=r"a\.mkv holds no depth of depthcli"):
        DepthFilm(Path("a.mkv"))
    with pytest.raises(PictureError, match=r"b\.mkv does not exist"):
        DepthFilm(Path("b.mkv"))


class TestConvert:
    def test_a_film_becomes_numbered_files_and_goes_on_where_it_was(self, depth):
        path = film()
        command = ["convert", str(path), "-f", "exr", "-o", "out"]
        ran = depth(*command)
        assert ran.code == 0 and ran.lines == [f"out/clip_depth_000{number}.exr" for number in range(6)]
        Path("out/clip_depth_0003.exr").unlink()
        again = depth(*command)
        assert again.lines == ["out/clip_depth_0003.exr"] and "1 done, 5 skipped" in again.err
        back = read_depth(Path("out/clip_depth_0003.exr"))
        assert np.abs(back.values - values(3)).max() < 1e-4 and back.provenance.source == "a.mp4"

    def test_a_folder_gives_films_with_numbers_and_names_the_others(self, depth):
        Path("in").mkdir()
        for name in ("ffv1", "mp4"):
            path = film(name)
            sidecar_of(path).rename(f"in/{path.name}.json")
            path.rename(f"in/{path.name}")
        ran = depth("convert", "in", "--preset", "nuke", "-o", "out")
        assert ran.code == 0 and ran.lines[0] == "out/clip_depth.0000.exr" and len(ran.lines) == 6
        assert ".mp4" in ran.err

    def test_a_film_that_ends_early_gives_what_it_has(self, depth):
        path = film()
        sidecar = sidecar_of(path)
        facts = json.loads(sidecar.read_text())
        facts["video"]["frames"] = 8
        sidecar.write_text(json.dumps(facts))
        ran = depth("convert", str(path), "-f", "npy", "-o", "out")
        assert ran.code == 3 and len(ran.lines) == 6 and "ends before its frame 7" in ran.err

    def test_a_film_into_one_file_is_refused(self, depth):
        ran = depth("convert", str(film()), "-o", "a.exr")
        assert ran.code == 2 and "cannot hold 6 maps" in ran.err
