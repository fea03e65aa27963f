"""Positions resized by numpy are those that torch resizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthcli.graphs.positions import resize_positions
from depthcli.nets.vit import interpolate_positions


@pytest.mark.parametrize("grid", [(37, 37), (37, 49), (57, 37), (3, 5), (12, 80), (1, 1)])
def test_they_are_those_of_the_readable_network(grid: tuple[int, int]) -> None:
    trained = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1 + 37 * 37, 8)).astype(np.float32))
    wanted = interpolate_positions(trained, *grid)[0, 1:].T.reshape(1, 8, *grid).numpy()
    found = resize_positions(trained[0, 1:].T.reshape(8, 37, 37).numpy(), *grid)
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 2e-5


def test_a_constant_stays_constant_and_a_flip_flips() -> None:
    assert np.allclose(resize_positions(np.full((1, 5, 5), 3, np.float32), 4, 9), 3, atol=1e-6)
    trained = np.random.default_rng(1).standard_normal((2, 6, 6)).astype(np.float32)
    turned = resize_positions(trained.transpose(0, 2, 1), 4, 9)
    assert np.allclose(turned.transpose(0, 1, 3, 2), resize_positions(trained, 9, 4), atol=1e-6)
