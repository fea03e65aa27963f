from __future__ import annotations

import io

import numpy as np
import pytest

from depthcli.errors import OutputError
from depthcli.io.scenes.splats import Splats, kept_splats, write_splats


def splats(count: int) -> Splats:
    generator = np.random.default_rng(0)
    three = generator.uniform(0.1, 1, (count, 3)).astype(np.float32)
    opacities = np.linspace(0, 1, count, dtype=np.float32)
    return Splats(three, three, generator.normal(size=(count, 4)).astype(np.float32), opacities, three)


def test_borders_and_the_farthest_are_left_out() -> None:
    depth = np.ones((2, 40, 64), np.float32)
    depth[1, 20, :50] = 100
    kept = kept_splats(depth)
    assert kept[0].sum() == (40 - 2) * (64 - 4)
    assert kept[1].sum() == (40 - 2) * (64 - 4) - 48
    assert kept_splats(np.ones((1, 20, 20), np.float32)).all()  # no border of such a small view


def test_numbers_are_stored_as_viewers_read_them() -> None:
    some, stream, kept = splats(6), io.BytesIO(), np.array([[True, True, False], [True, True, True]])
    write_splats(some, stream, kept)
    header, _, body = stream.getvalue().partition(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(-1, 17)
    assert b"element vertex 5\n" in header and header.count(b"property float ") == 17
    chosen = kept.ravel()
    assert (rows[:, :3] == some.means[chosen]).all() and not rows[:, 3:6].any()
    assert np.isfinite(rows).all()  # opacities of 0 and 1 too
    assert np.allclose(1 / (1 + np.exp(-rows[:, 9])), some.opacities[chosen], atol=2e-6)
    assert np.allclose(np.exp(rows[:, 10:13]), some.scales[chosen])
    assert (rows[:, 13:] == some.rotations[chosen]).all()


def test_nothing_to_write_is_an_error() -> None:
    with pytest.raises(OutputError, match="no Gaussian is left"):
        write_splats(splats(3), io.BytesIO(), np.zeros(3, bool))
