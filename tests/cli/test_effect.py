"""`depth effect`: pictures changed by their depth, from the command line."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from PIL import Image

from depthcli.io.codecs.files import read_facts
from tests.conftest import TINY, broken, files, photo


@pytest.mark.parametrize(
    ("arguments", "name", "mode"),
    [
        (("blur", "--focus", "far"), "a_blur.png", "RGB"),
        (("fog",), "a_fog.png", "RGB"),
        (("cut", "--keep-nearest", "30%"), "a_cut.png", "RGBA"),
    ],
)
def test_a_picture_gets_its_effect_beside_it(depth, arguments, name, mode):
    photo("a.jpg")
    effect, *options = arguments
    ran = depth("effect", effect, "a.jpg", *options, *TINY)
    assert (ran.code, ran.lines, ran.err) == (0, [name], "")
    with Image.open(name) as found:
        assert (found.size, found.mode) == ((80, 60), mode)
    assert read_facts(Path(name))["effect"]["name"] == effect


@pytest.mark.parametrize("name", ["x.mp4", "x.webp", "x.gif"])
def test_parallax_is_a_film_that_loops(depth, name):
    photo("a.jpg")
    ran = depth("effect", "parallax", "a.jpg", "-o", name, "--seconds", "0.5", *TINY)
    assert (ran.code, ran.lines) == (0, [name])
    if name.endswith("mp4"):
        with av.open(name) as film:
            assert len(list(film.decode(video=0))) == 12 and film.streams.video[0].average_rate == 24
        return
    with Image.open(name) as film:
        # Frames that are the same become one that lasts longer.
        assert 6 <= film.n_frames <= 12 and film.info.get("loop") == 0 and film.size == (80, 60)


def test_several_pictures_go_into_a_folder(depth):
    photo("a.jpg")
    photo("b.png")
    ran = depth("effect", "fog", "a.jpg", "b.png", "-o", "out/", *TINY)
    assert ran.lines == ["out/a_fog.png", "out/b_fog.png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("blur", "--focus", "middle"), "give --focus as near"),
        (("blur", "--strength", "40"), "--strength must be"),
        (("blur", "--focus", "3m"), "--focus 3m is in metres"),
        (("fog", "--visibility", "40"), "use range:0.7, or a metric model"),
        (("cut",), "a cut-out needs --farther-than or --keep-nearest"),
        (("cut", "--keep-nearest", "most"), "--keep-nearest must be a number, got 'most'"),
        (("cut", "--farther-than", "nanm"), "--farther-than must be above 0 metres"),
        (("cut", "--keep-nearest", "30", "-o", "x.jpg"), "written as .png, not .jpg"),
        (("parallax", "--seconds", "0"), "--seconds must be"),
        (("parallax", "-o", "x.png"), "written as .mp4 or .webp or .gif, not .png"),
        (("fog", "-o", "-"), "is a stream"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_leaves_nothing(depth, arguments, words):
    photo("a.jpg")
    effect, *options = arguments
    ran = depth("effect", effect, "a.jpg", *options, *TINY)
    assert ran.code == 2 and words in ran.error and files() == ["a.jpg"]


def test_a_broken_picture_is_named(depth):
    broken("a.jpg")
    ran = depth("effect", "fog", "a.jpg", *TINY)
    assert ran.code == 1 and "a.jpg is truncated" in ran.error and files() == ["a.jpg"]
