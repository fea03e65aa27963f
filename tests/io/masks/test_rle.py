"""Run lengths of masks: the texts and masks of COCO's own library, and texts that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.io.masks import rle
from depthcli.io.masks.polygons import draw

SIZE = (37, 53)  # rows and columns


def masks() -> dict[str, np.ndarray]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    blank = np.zeros(SIZE, bool)
    first, last, column = blank.copy(), blank.copy(), blank.copy()
    first[0, 0] = last[-1, -1] = True
    column[:, 7] = True
    return {
        "empty": blank,
        "full": ~blank,
        "first": first,
        "last": last,
        "column": column,
        "disc": (x - 30) ** 2 + (y - 15) ** 2 <= 81,
    }


# What pycocotools 2.0 encodes these masks as.
TEXTS = {"empty": "Ym1", "full": "0Ym1", "first": "01Xm1", "last": "Xm11", "column": "S8U1Qd1"}


@pytest.mark.parametrize("name", TEXTS)
def test_a_mask_has_the_text_that_coco_gives_it(name):
    assert rle.encode(masks()[name]) == {"size": list(SIZE), "counts": TEXTS[name]}


@pytest.mark.parametrize("name", masks())
def test_compressed_and_plain_counts_give_the_mask_back(name):
    mask = masks()[name]
    assert (rle.decode(rle.encode(mask)) == mask).all()
    assert (rle.decode({"size": list(SIZE), "counts": rle.counts_of(mask)}) == mask).all()


def test_noise_of_any_run_length_survives():
    rng = np.random.default_rng(0)
    for share in (0.01, 0.3, 0.9):
        mask = rng.random((211, 97)) < share
        assert (rle.decode(rle.encode(mask)) == mask).all()


def test_counts_begin_with_zeros_and_go_down_the_columns():
    mask = np.array([[0, 1], [1, 1]], bool)
    assert rle.counts_of(mask) == [1, 3]
    assert rle.counts_of(~mask) == [0, 1, 3]


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {"size": [2, 2]},
        {"size": [0, 2], "counts": []},
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [1.0, 3.0]},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "\x01"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": "ooooooooo0"},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
    ],
)
def test_what_is_no_mask_is_refused(wrong):
    with pytest.raises(ValueError):
        rle.decode(wrong)


@pytest.mark.skipif(
    "DEPTHCLI_PARITY" not in os.environ, reason="DEPTHCLI_PARITY names the folder of COCO's own answers"
)
def test_run_lengths_and_polygons_are_those_of_coco_s_library():
    folder = Path(os.environ["DEPTHCLI_PARITY"])
    rows, arrays = json.loads((folder / "coco_masks.json").read_text()), np.load(folder / "coco_masks.npz")
    for row in rows["rle"]:
        mask = rle.decode(row)
        assert mask.sum() == row["area"] and rle.encode(mask)["counts"] == row["counts"], row["name"]
        if "uncompressed" in row:
            assert rle.counts_of(mask) == row["uncompressed"], row["name"]
    for row in rows["polygons"]:
        height, width = row["size"]
        theirs = np.unpackbits(arrays[f"polygon_{row['name']}"], axis=1)[:, :width].astype(bool)
        mine = draw(row["polygon"], (width, height))
        assert (mine & theirs).sum() > 0.9 * (mine | theirs).sum(), row["name"]
