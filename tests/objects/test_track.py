"""Objects keep their numbers through a clip."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.io.masks.found import ObjectMask
from depthcli.objects.track import Tracker


def at(left: int, label: str = "person") -> ObjectMask:
    mask = np.zeros((20, 80), bool)
    mask[5:15, left : left + 10] = True
    return ObjectMask(mask, label)


def test_a_moving_object_keeps_its_number_and_a_new_one_has_another():
    tracker = Tracker()
    assert tracker.follow([at(0), at(40)]) == [0, 1]
    assert tracker.follow([at(43), at(3), at(65)]) == [1, 0, 2]


def test_another_class_at_one_place_is_another_object():
    tracker = Tracker()
    tracker.follow([at(0)])
    assert tracker.follow([at(0, "dog")]) == [1]


def test_the_better_overlap_wins_and_each_track_has_one_object():
    tracker = Tracker()
    tracker.follow([at(10)])
    assert tracker.follow([at(13), at(11)]) == [1, 0]


def test_a_track_waits_ten_frames_and_its_number_is_never_used_again():
    tracker = Tracker()
    tracker.follow([at(0)])
    for _ in range(10):
        tracker.follow([])
    assert tracker.follow([at(0)]) == [0]
    for _ in range(11):
        tracker.follow([])
    assert tracker.follow([at(0)]) == [1]


def test_a_jump_is_not_followed():
    tracker = Tracker()
    tracker.follow([at(0)])
    assert tracker.follow([at(6)]) == [1]  # a quarter of both


def test_distances_are_the_median_of_the_last_five():
    tracker = Tracker()
    seen = []
    for distance in (2.0, 2.1, 9.0, None, 2.2, 2.3, 2.4):
        tracker.follow([at(0)])
        seen.append(tracker.smooth(0, distance))
    assert seen == pytest.approx([2.0, 2.05, 2.1, 2.1, 2.15, 2.2, 2.3])
