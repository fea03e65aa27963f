"""From a detector's answers to masks: labels, background, doubles, colours and edges."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.objects.detect import DEVIATION, MEAN, best_pairs, mask_at, masks_of, pixel_box, to_input, trim_of
from depthcli.zoo.detectors import COCO_CLASSES, class_names

SIZE = (80, 60)
LOW = -9.0


def logits(*answers: tuple[int, int, float], queries: int = 4, rows: int = 91) -> np.ndarray:
    """Return logits of (query, row, value), low elsewhere."""
    out = np.full((queries, rows), LOW, np.float32)
    for query, row, value in answers:
        out[query, row] = value
    return out


def found(rows: np.ndarray, classes: dict[int, str] = COCO_CLASSES, threshold: float = 0.5) -> list:
    boxes = np.tile(np.array([0.5, 0.5, 0.5, 0.5], np.float32), (len(rows), 1))
    masks = np.full((len(rows), 12, 16), -1, np.float32)
    masks[:, 3:9, 4:12] = 1
    return masks_of(rows, boxes, masks, SIZE, classes, threshold)


def test_labels_are_the_sparse_numbers_of_coco():
    items = found(logits((0, 90, 3), (1, 13, 2), (2, 1, 1)))
    assert [(item.class_id, item.label) for item in items] == [(90, "toothbrush"), (13, "stop sign"), (1, "person")]


def test_background_and_gaps_are_no_objects():
    assert [item.label for item in found(logits((0, 0, 5), (1, 12, 5), (2, 45, 5), (3, 17, 2)))] == ["cat"]
    fine_tuned = class_names(["crack", "rust"], 3)
    assert fine_tuned == {0: "crack", 1: "rust"}
    assert [item.label for item in found(logits((0, 2, 5), (1, 0, 1), rows=3), fine_tuned)] == ["crack"]


def test_one_query_under_two_labels_keeps_the_better_one():
    (item,) = found(logits((1, 3, 2), (1, 8, 2.5)))
    assert item.label == "truck"


def test_as_many_pairs_count_as_there_are_queries_best_first():
    rows = logits(*((0, row, 4 - row / 10) for row in range(1, 6)), (1, 1, 1), queries=3)
    scores, labels, queries = best_pairs(rows)
    assert labels.tolist() == [1, 2, 3] and queries.tolist() == [0, 0, 0] and (np.diff(scores) < 0).all()
    assert [item.label for item in found(rows)] == ["person"]  # the other query is not among the best three pairs


def test_scores_below_the_threshold_and_no_detections_at_all():
    assert [item.label for item in found(logits((0, 1, 0.0)), threshold=0.5)] == ["person"]
    assert found(logits((0, 1, -0.01)), threshold=0.5) == [] and found(logits()) == []


def test_colours_are_rgb_and_normalised():
    rgb = np.zeros((7, 9, 3), np.uint8)
    rgb[..., 0] = 255
    image = to_input(rgb, 12)
    assert image.shape == (3, 12, 12) and image.dtype == np.float32
    for channel, value in enumerate((1, 0, 0)):
        assert image[channel] == pytest.approx((value - MEAN[channel]) / DEVIATION[channel])


def test_a_picture_is_stretched_to_the_square_without_antialiasing():
    rgb = np.zeros((8, 16, 3), np.uint8)
    rgb[:, ::4] = 255  # the columns between those that a fourth of the width samples
    image = to_input(rgb, 4) * np.array(DEVIATION)[:, None, None] + np.array(MEAN)[:, None, None]
    assert image == pytest.approx(0, abs=1e-6)


def test_masks_and_boxes_have_the_size_of_the_picture():
    (item,) = found(logits((0, 1, 3)))
    assert item.mask.shape == (60, 80) and item.box == (20, 15, 60, 45)
    assert item.mask[15:45, 20:60].mean() > 0.95 and item.mask.sum() == pytest.approx(30 * 40, rel=0.1)
    assert pixel_box(np.array([0, 0, 1, 1]), SIZE) == (0, 0, 40, 30)


def test_edges_lie_between_the_cells():
    values = np.array([[-1, 1], [-1, 1]], np.float32)
    assert mask_at(values, (40, 8)).sum(axis=1).tolist() == [20] * 8


def test_the_trim_grows_with_the_cells_of_a_mask():
    assert trim_of((384, 384), 384) == 3 and trim_of((1920, 1080), 384) == pytest.approx(6)


def test_coco_names_and_names_of_a_checkpoint():
    names = list(COCO_CLASSES.values())
    assert len(COCO_CLASSES) == 80 and class_names([], 91) == class_names(names, 91) == COCO_CLASSES
    assert class_names(names, 81)[1] == "bicycle"  # trained anew on them, numbered from 0
    assert class_names([], 3) == {0: "class 0", 1: "class 1"}
