"""The packaged model: it is there, it is whole, and it sees: near things are nearer, whichever side is up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli import DepthEstimator, ModelChoice
from depthcli.io.pictures.images import read_picture
from depthcli.zoo.locate import ASSETS, find
from depthcli.zoo.rows import find_row
from depthcli.zoo.verify import digest

TINY = find_row("tiny")
PHOTOGRAPHS = sorted((Path(__file__).parents[1] / "input_images").glob("*.jpg"))


@pytest.fixture(scope="module")
def tiny():
    with DepthEstimator(ModelChoice(model="tiny", checkpoint=ASSETS / TINY.weights.file)) as estimator:
        yield estimator


def corridor(width: int = 320, height: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of a corridor with a tiled floor, walls and ceiling, and its disparity (height, width)."""
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    disparity = np.maximum(np.maximum(np.abs(u), np.abs(v)), 1 / 6)
    z = 1 / disparity
    wall = np.abs(u) >= np.abs(v)
    tiles = (np.floor(4 * np.where(wall, v, u) * z) + np.floor(3 * z)) % 2
    face = np.where(disparity <= 1 / 6, 4, np.where(wall, (u < 0).astype(int), np.where(v > 0, 2, 3)))
    paint = np.array([[170, 150, 130], [150, 140, 150], [110, 90, 70], [220, 220, 215], [140, 160, 180]])[face]
    light = (0.55 + 0.45 * np.clip(1.2 * disparity, 0, 1)) * (1 - 0.25 * tiles)
    return np.clip(paint * light[..., None], 0, 255).astype(np.uint8), disparity


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [values.ravel().argsort(kind="stable").argsort(kind="stable") for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_package_holds_the_weights_that_the_zoo_names() -> None:
    path = ASSETS / TINY.weights.file
    assert path.stat().st_size <= 12_000_000
    assert digest(path) == TINY.weights.sha256
    found = find(TINY)
    assert found is not None and found.path == path


# What is near and what is far in the photographs of input_images/: top, left, bottom, right as shares of the sides.
NEAR_AND_FAR = {
    "astronaut": ("the helmet, the wall", (0.75, 0.6, 0.95, 0.9), (0.0, 0.58, 0.25, 0.7)),
    "camera": ("the coat, the sky", (0.8, 0.0, 1.0, 0.15), (0.1, 0.6, 0.35, 1.0)),
    "coffee": ("the cup, the far corner of the table", (0.1, 0.35, 0.4, 0.65), (0.0, 0.0, 0.2, 0.15)),
    "rocket": ("the rocket, the sky", (0.35, 0.485, 0.85, 0.51), (0.1, 0.2, 0.4, 0.4)),
}


@pytest.mark.parametrize("name", NEAR_AND_FAR)
def test_near_is_nearer(tiny: DepthEstimator, name: str) -> None:
    _, near, far = NEAR_AND_FAR[name]
    table = tiny.estimate(read_picture(next(p for p in PHOTOGRAPHS if p.stem == name))).values

    def disparity(box: tuple[float, ...]) -> np.ndarray:
        (top, left, bottom, right), (height, width) = box, table.shape
        return table[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]

    assert np.quantile(disparity(near), 0.1) > np.quantile(disparity(far), 0.9)


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_a_flipped_picture_gives_flipped_depth(tiny: DepthEstimator, path: Path) -> None:
    rgb = read_picture(path).rgb
    depth = tiny.estimate(rgb).values
    flipped = tiny.estimate(np.ascontiguousarray(rgb[:, ::-1])).values[:, ::-1]
    assert rank_correlation(depth, flipped) > 0.8


def test_the_far_end_of_a_corridor_is_far_whichever_side_is_up(tiny: DepthEstimator) -> None:
    """Where only the row of a pixel is known, the correlation is 0, as the corridor is as deep above as below."""
    rgb, disparity = corridor()
    found = []
    for turns in range(4):
        depth = tiny.estimate(np.ascontiguousarray(np.rot90(rgb, turns))).values
        found.append(rank_correlation(depth, np.rot90(disparity, turns)))
    assert min(found) > 0.8, found
