"""Which masks become objects."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.choices.objects import ObjectsChoice
from depthcli.errors import UsageError
from depthcli.io.masks.found import ObjectMask
from depthcli.objects.select import overlap, select


def mask(left: int, right: int) -> np.ndarray:
    out = np.zeros((10, 40), bool)
    out[:, left:right] = True
    return out


def names(masks: list[ObjectMask], **choice: object) -> str:
    return "".join(item.label for item in select(masks, ObjectsChoice(**choice)))


def test_one_mask_under_two_labels_is_one_object_with_the_better_one():
    masks = [
        ObjectMask(mask(0, 20), "a", 1, 0.6),
        ObjectMask(mask(0, 20), "b", 2, 0.7),
        ObjectMask(mask(0, 30), "c", 3, 0.9),
    ]
    assert names(masks) == "bc" and overlap(mask(0, 20), mask(0, 30)) == pytest.approx(2 / 3)
    assert names(masks, overlap=0.6) == "c"


def test_annotations_of_one_place_are_meant():
    assert names([ObjectMask(mask(0, 20), "a"), ObjectMask(mask(0, 20), "b")]) == "ab"


def test_scores_below_the_threshold_go_and_annotations_stay():
    masks = [ObjectMask(mask(0, 9), "a", 1, 0.49), ObjectMask(mask(10, 19), "b", 1, 0.5), ObjectMask(mask(20, 29), "c")]
    assert names(masks) == "bc" and names(masks, threshold=0.3) == "abc"


def test_classes_are_names_in_any_case_or_numbers():
    masks = [
        ObjectMask(mask(0, 9), "stop sign", 13),
        ObjectMask(mask(10, 19), "person", 1),
        ObjectMask(mask(20, 29), "", 7),
    ]
    assert [item.class_id for item in select(masks, ObjectsChoice(classes=("Stop Sign", "7")))] == [13, 7]


def test_the_surest_are_kept_in_their_order():
    masks = [
        ObjectMask(mask(0, 9), "a", 1, 0.6),
        ObjectMask(mask(10, 19), "b", 1, 0.8),
        ObjectMask(mask(20, 29), "c", 1, 0.7),
    ]
    assert names(masks, max_objects=2) == "bc"


def test_masks_without_pixels_go():
    assert names([ObjectMask(mask(3, 3), "a"), ObjectMask(mask(0, 1), "b")]) == "b"


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.1},
        {"overlap": -0.1},
        {"max_objects": 0},
        {"trim_px": -1},
        {"trim_px": float("nan")},
        {"sort": "x"},
    ],
)
def test_choices_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ObjectsChoice(**wrong)
