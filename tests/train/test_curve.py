"""The picture of a training shows what its tables hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.train.curve import _COLOURS, Line, _ticks, write_curve


def picture() -> np.ndarray:
    with Image.open("curve.png") as image:
        return np.asarray(image).astype(int)


def drawn(colour: tuple[int, int, int], left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of a colour, of a part of the picture below the legend."""
    return np.nonzero((np.abs(picture()[44:, left:right] - colour) < 8).all(-1))


def test_a_loss_that_falls_is_a_line_that_falls():
    write_curve(Line("loss", range(1, 101), [2 / n for n in range(1, 101)]), [], Path("curve.png"))
    y, x = drawn(_COLOURS[0], 0, 640)
    assert x.min() < 80 and x.max() > 600
    assert y[x < 90].mean() < 100 < 300 < y[x > 500].mean()
    assert picture().shape == (400, 640, 3)


def test_scores_stand_beside_it_and_unknown_numbers_are_gaps():
    loss = Line("loss", [1, 2, 3], [1.0, float("nan"), 0.5])
    scores = [Line("AbsRel", [0, 3], [0.4, 0.1]), Line("delta1", [0, 3], [0.2, 0.9])]
    write_curve(loss, scores, Path("curve.png"))
    assert picture().shape == (400, 1280, 3)
    for colour, rises in zip(_COLOURS, (False, True)):
        y, x = drawn(colour, 640, 1280)
        assert (y[x < x.min() + 9].mean() > y[x > x.max() - 9].mean()) == rises


def test_nothing_to_show_is_an_empty_frame():
    write_curve(Line("loss", [1], [float("nan")]), [], Path("curve.png"))
    assert picture().shape == (400, 640, 3)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 2.7, [0, 1, 2, 3]),
        (0, 0, [0, 0.2]),
        (1, 1, [1, 1.2]),
        (0, 2500, [0, 500, 1000, 1500, 2000, 2500]),
    ],
)
def test_ticks_are_round_and_enclose_the_numbers(low, high, ticks):
    assert _ticks(low, high) == pytest.approx(ticks)
