"""Two eyes: which way things move, what stays, and what is cut off."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.choices.stereo import StereoChoice
from depthcli.errors import UsageError
from depthcli.views.eyes import both_eyes
from tests.reference import reference_image

HEIGHT, WIDTH = 60, 200


def near_square() -> tuple[np.ndarray, np.ndarray]:
    """A white square in the middle, near, on a dark and far ground."""
    rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    near = np.zeros((HEIGHT, WIDTH), np.float32)
    rgb[20:40, 80:120], near[20:40, 80:120] = 255, 1
    return rgb, near


def middle(rgb: np.ndarray) -> float:
    """The column of the middle of what is white."""
    return float(np.flatnonzero(rgb[30, :, 0] > 150).mean())


def mirrored(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, ::-1])


@pytest.mark.parametrize("border", ["crop", "stretch"])
@pytest.mark.parametrize("fill", ["stretch", "edge", "telea"])
def test_the_left_eye_is_the_mirror_of_the_right_eye_of_the_mirrored_picture(fill, border) -> None:
    rgb, near = reference_image(45, 83), np.random.default_rng(0).random((45, 83), np.float32)
    choice = StereoChoice(strength=8, fill=fill, border=border, screen=0.3)
    eyes, others = both_eyes(rgb, near, choice), both_eyes(mirrored(rgb), mirrored(near), choice)
    assert (eyes.left == mirrored(others.right)).all() and (eyes.right == mirrored(others.left)).all()


def test_a_near_thing_moves_right_in_the_left_eye_and_left_in_the_right_one() -> None:
    rgb, near = near_square()
    eyes = both_eyes(rgb, near, StereoChoice(strength=6, screen=0, border="stretch"))
    assert middle(eyes.left) - middle(rgb) == pytest.approx(6, abs=0.6)  # half of 6 percent of 200 pixels
    assert middle(rgb) - middle(eyes.right) == pytest.approx(6, abs=0.6)


def test_what_is_in_the_plane_of_the_screen_stays_and_what_is_behind_it_goes_the_other_way() -> None:
    rgb, near = near_square()
    at_screen = both_eyes(rgb, near, StereoChoice(strength=6, screen=1, border="stretch"))
    assert middle(at_screen.left) == pytest.approx(middle(rgb), abs=0.6)
    behind = both_eyes(rgb, 0 * near, StereoChoice(strength=6, screen=1, border="stretch"))
    assert middle(behind.left) == pytest.approx(middle(rgb) - 6, abs=0.6)


@pytest.mark.parametrize("border", ["crop", "stretch"])
def test_no_strength_gives_the_picture_back(border) -> None:
    rgb, near = reference_image(45, 83), np.random.default_rng(0).random((45, 83), np.float32)
    eyes = both_eyes(rgb, near, StereoChoice(strength=0, border=border))
    assert (eyes.left == rgb).all() and (eyes.right == rgb).all()


@pytest.mark.parametrize(("view", "own"), [("left", "right"), ("right", "left")])
def test_one_eye_takes_all_the_parallax_beside_the_picture_itself(view, own) -> None:
    rgb, near = near_square()
    choice = StereoChoice(strength=6, screen=0, view=view, border="stretch")
    eyes = both_eyes(rgb, near, choice)
    assert (getattr(eyes, own) == rgb).all()
    assert abs(middle(getattr(eyes, view)) - middle(rgb)) == pytest.approx(12, abs=0.6)


@pytest.mark.parametrize("view", ["both", "left", "right"])
@pytest.mark.parametrize("screen", [0.0, 0.5, 1.0])
def test_cropped_sides_hold_only_what_was_seen(view, screen) -> None:
    """Columns rise towards both sides: nothing is repeated there."""
    rgb = np.zeros((20, WIDTH, 3), np.uint8)
    rgb[..., 0] = np.arange(WIDTH)
    for level in (0.0, 1.0):  # all far, all near
        choice = StereoChoice(strength=6, screen=screen, view=view)
        for eye in both_eyes(rgb, np.full((20, WIDTH), level, np.float32), choice):
            row = eye[10, :, 0].astype(int)
            assert row[4] - row[0] >= 3 and row[-1] - row[-5] >= 3


def test_stretched_sides_keep_the_sides_of_the_picture() -> None:
    rgb, near = reference_image(45, 120), np.full((45, 120), 1, np.float32)
    for eye in both_eyes(rgb, near, StereoChoice(strength=6, screen=0, border="stretch")):
        assert np.abs(eye[:, 0].astype(int) - rgb[:, 0]).max() <= 40
        assert np.abs(eye[:, -1].astype(int) - rgb[:, -1]).max() <= 40


@pytest.mark.parametrize(
    "wrong",
    [{"strength": -1}, {"strength": 21}, {"strength": float("nan")}, {"screen": 1.5}, {"screen": -0.1}]
    + [{name: "x"} for name in ("layout", "view", "fill", "border")],
)
def test_a_choice_that_makes_no_sense_is_refused_by_name(wrong) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(wrong))}`"):
        StereoChoice(**wrong)


def test_more_than_is_comfortable_is_warned_of() -> None:
    assert StereoChoice(strength=4).warnings == ()
    (line,) = StereoChoice(strength=4.5).warnings
    assert "4.5" in line and "`strength`" in line
