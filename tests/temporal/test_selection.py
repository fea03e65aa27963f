from __future__ import annotations

import cv2
import numpy as np
import pytest

from depthcli.errors import UsageError
from depthcli.temporal.selection import at_rate, evenly, every, moved, sharpest, sharpness, shift
from tests.reference import reference_image


def test_by_stride_and_count() -> None:
    assert every(7, 3) == [0, 3, 6]
    assert evenly(101, 5) == [0, 25, 50, 75, 100]
    assert evenly(9, 1) == [4] and evenly(3, 10) == [0, 1, 2]
    assert len(set(evenly(30, 29))) == 29


@pytest.mark.parametrize("rate", [1.0, 2.5, 29.97])
def test_by_rate_for_odd_clocks(rate: float) -> None:
    """29.97 frames a second, as 1001/30000: after a minute there are as many frames as seconds times the rate."""
    times = [n * 1001 / 30000 for n in range(1800)]
    found = at_rate(times, rate)
    assert abs(len(found) - times[-1] * rate) <= 1
    gaps = np.diff([times[index] for index in found])
    assert (gaps > 1 / rate - 1001 / 30000).all() and (gaps < 1 / rate + 1001 / 30000).all()


def test_by_rate_for_clips_with_pauses() -> None:
    assert at_rate([0, 0.1, 0.2, 5.0, 5.1, 5.9, 6.05], 1) == [0, 3, 6]
    assert at_rate([10.0, 10.5, 11.0], 1) == [0, 2]  # times need not begin at 0
    assert at_rate([0.0, 1.0, 2.0], 30) == [0, 1, 2]  # no more than there are


def test_the_sharpest_of_each_stretch() -> None:
    assert sharpest([0, 5, 1, 1, 0, 9, 2, 2, 3], 3) == [1, 5, 8]
    assert sharpest([1.0], 3) == [0]


def test_by_motion() -> None:
    assert moved([0, 0.1, 0.1, 0.1, 0, 0, 0.3], 0.2) == [0, 2, 6]
    assert moved([0.0] * 5, 0.2) == [0]  # a camera that stands still has one view
    assert moved([], 0.2) == []
    assert moved([0, 0.2, 0.05, 0.2], 0.2, sharpness=[0, 1, 3, 9]) == [0, 2, 3]  # the second is due, the third sharper


def test_blur_is_less_sharp_and_exposure_does_not_count() -> None:
    picture = reference_image(200, 300)
    assert sharpness(cv2.GaussianBlur(picture, (0, 0), 2)) < 0.5 * sharpness(picture)
    assert sharpness(picture // 2) == pytest.approx(sharpness(picture), rel=0.1)
    assert sharpness(np.zeros((50, 60, 3), np.uint8)) == 0


def test_a_pan_shifts_by_its_part_of_the_diagonal() -> None:
    picture = cv2.GaussianBlur(reference_image(240, 400), (0, 0), 2)
    assert shift(picture[:, :300], picture[:, 12:312]) == pytest.approx(12 / np.hypot(240, 300), rel=0.1)
    assert shift(picture, picture) < 1e-4


@pytest.mark.parametrize(
    "call", [lambda: every(5, 0), lambda: evenly(5, 0), lambda: at_rate([0], 0), lambda: moved([0], 0)]
)
def test_nonsense_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        call()
