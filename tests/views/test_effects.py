"""Effects: what is in focus stays, what is far fades, what is near is kept, and a loop closes."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.views.effects import Blur, Cut, Fog, Parallax
from tests.reference import reference_image

HEIGHT, WIDTH = 60, 120
RGB = reference_image(HEIGHT, WIDTH)
# The left half is near, the right half far.
HALVES = np.repeat([[1.0, 0.0]], WIDTH // 2, axis=1).astype(np.float32) * np.ones((HEIGHT, 1), np.float32)
NEAR = DepthMap(HALVES, DepthKind.RELATIVE_DISPARITY)
METRES = DepthMap(2 + 8 * (1 - HALVES), DepthKind.METRIC_DEPTH)  # 2 and 10
LEFT, RIGHT = np.s_[5:-5, 5:50], np.s_[5:-5, 70:-5]


def detail(rgb: np.ndarray) -> float:
    return float(np.abs(np.diff(rgb[..., 0].astype(float), axis=1)).mean())


class TestBlur:
    @pytest.mark.parametrize(
        ("focus", "sharp", "soft"),
        [
            ("near", LEFT, RIGHT),
            ("far", RIGHT, LEFT),
            ("10,30", LEFT, RIGHT),
            ("110,30", RIGHT, LEFT),
            ("2", LEFT, RIGHT),
            ("9m", RIGHT, LEFT),
        ],
    )
    def test_what_is_in_focus_stays_and_the_rest_is_blurred(self, focus, sharp, soft) -> None:
        found = Blur(focus, 4).apply(RGB, METRES)
        assert np.abs(found[sharp].astype(int) - RGB[sharp]).max() <= 1
        assert detail(found[soft]) < 0.6 * detail(RGB[soft])

    def test_no_strength_leaves_the_picture(self) -> None:
        assert (Blur(strength=0).apply(RGB, NEAR) == RGB).all()

    def test_one_colour_stays_one_colour_whatever_the_depth(self) -> None:
        plain = np.full((HEIGHT, WIDTH, 3), (90, 160, 30), np.uint8)
        depth = DepthMap(np.random.default_rng(0).random((HEIGHT, WIDTH)), DepthKind.RELATIVE_DISPARITY)
        assert np.abs(Blur("10,10", 5).apply(plain, depth).astype(int) - plain).max() <= 1

    def test_light_is_averaged_as_light(self) -> None:
        """Half of black and half of white is brighter than code 128."""
        stripes = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        stripes[:, ::2] = 255
        found = Blur("far", 4).apply(stripes, NEAR)
        assert 170 < found[LEFT].mean() < 200

    @pytest.mark.parametrize("focus", ["", "middle", "1,2,3", "-3", "nan", "1,x"])
    def test_what_is_no_focus_is_refused(self, focus) -> None:
        with pytest.raises(UsageError, match="focus"):
            Blur(focus)

    @pytest.mark.parametrize(("focus", "depth"), [("500,10", NEAR), ("-1,10", NEAR), ("3m", NEAR)])
    def test_a_focus_that_the_picture_lacks_is_refused(self, focus, depth) -> None:
        with pytest.raises(UsageError, match="`focus`"):
            Blur(focus).apply(RGB, depth)


class TestFog:
    def test_at_the_visibility_two_percent_of_the_light_are_left(self) -> None:
        white = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        found = Fog("10", color=(0, 0, 0)).apply(white, METRES)
        light = (found / 255.0) ** 2.2
        assert light[RIGHT].mean() == pytest.approx(0.02, abs=0.002)  # at 10 m
        assert light[LEFT].mean() == pytest.approx(0.02 ** (2 / 10), abs=0.01)

    def test_a_share_of_the_scene_needs_no_metres(self) -> None:
        found = Fog("range:0.5").apply(RGB, NEAR)
        assert np.abs(found[LEFT].astype(int) - RGB[LEFT]).max() <= 1
        assert np.abs(found[RIGHT].astype(int) - (200, 206, 212)).max() <= 2

    def test_metres_of_relative_depth_are_refused(self) -> None:
        with pytest.raises(UsageError, match="metres"):
            Fog("30").apply(RGB, NEAR)

    @pytest.mark.parametrize("visibility", ["", "0", "-3", "thick", "range:", "range:0", "inf"])
    def test_what_is_no_visibility_is_refused(self, visibility) -> None:
        with pytest.raises(UsageError, match="visibility"):
            Fog(visibility)


class TestCut:
    @pytest.mark.parametrize(
        ("cut", "depth"), [(Cut(farther_than=5), METRES), (Cut(keep_nearest=50), NEAR), (Cut(keep_nearest=50), METRES)]
    )
    def test_what_is_near_is_kept_as_it_is_and_the_rest_is_clear(self, cut, depth) -> None:
        found = cut.apply(RGB, depth)
        assert found.shape == (HEIGHT, WIDTH, 4) and (found[..., :3] == RGB).all()
        assert (found[LEFT][..., 3] == 255).all() and (found[RIGHT][..., 3] == 0).all()
        edge = found[30, :, 3]
        assert 1 <= ((edge > 0) & (edge < 255)).sum() <= 4

    def test_metres_of_relative_depth_are_refused(self) -> None:
        with pytest.raises(UsageError, match="`farther_than`"):
            Cut(farther_than=3).apply(RGB, NEAR)

    @pytest.mark.parametrize("wrong", [{}, {"farther_than": 1, "keep_nearest": 2}, {"farther_than": 0}])
    def test_one_limit_is_needed(self, wrong) -> None:
        with pytest.raises(UsageError, match="`farther_than`"):
            Cut(**wrong)

    @pytest.mark.parametrize("percent", [0, 100, -5, float("nan")])
    def test_a_share_of_none_or_all_is_refused(self, percent) -> None:
        with pytest.raises(UsageError, match="`keep_nearest`"):
            Cut(keep_nearest=percent)


class TestParallax:
    def test_the_loop_goes_around_and_closes(self) -> None:
        frames = list(Parallax(strength=8, seconds=1, rate=12).frames(RGB, NEAR))
        assert len(frames) == 12 and {frame.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
        steps = [float(np.abs(one.astype(float) - other).mean()) for one, other in zip(frames, frames[1:] + frames[:1])]
        assert max(steps) < 3 * np.median(steps) and steps[-1] < 2 * np.median(steps)

    def test_near_and_far_move_against_each_other(self) -> None:
        rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        rgb[:, 28:32], rgb[:, 88:92] = 255, 255  # a line in each half
        first, *_, half = list(Parallax(strength=10, seconds=2, rate=2).frames(rgb, NEAR))[:3]
        places = [
            [float(np.flatnonzero(frame[30, part, 0] > 120).mean()) for part in (slice(0, 60), slice(60, None))]
            for frame in (first, half)
        ]
        (near, far), (near_later, far_later) = places
        assert near_later - near > 4 and far - far_later > 4

    @pytest.mark.parametrize("wrong", [{"strength": 11}, {"strength": -1}, {"seconds": 0}, {"seconds": 1e9}])
    def test_what_makes_no_sense_is_refused(self, wrong) -> None:
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Parallax(**wrong)
