from __future__ import annotations

import json

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance, describe, from_description

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_map_knows_its_size_range_and_direction() -> None:
    depth = DepthMap(VALUES, DepthKind.RELATIVE_DISPARITY)
    assert depth.size == (3, 2)
    assert depth.range == (0.0, 5.0)
    assert depth.kind.near_is_high
    assert not DepthKind.METRIC_DEPTH.near_is_high and not DepthKind.RELATIVE_DEPTH.near_is_high


def test_a_map_cannot_be_changed() -> None:
    values = VALUES.copy()
    depth = DepthMap(values, DepthKind.METRIC_DEPTH)
    with pytest.raises(ValueError, match="read-only"):
        depth.values[0, 0] = 7
    values[0, 0] = 9  # the caller's own array stays writable
    with pytest.raises(AttributeError):
        depth.kind = DepthKind.RELATIVE_DEPTH  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), (0, 4)])
def test_only_one_view_is_a_map(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        DepthMap(np.zeros(shape, np.float32), DepthKind.METRIC_DEPTH)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_numbers_are_no_map(broken: float) -> None:
    values = VALUES.copy()
    values[1, 1] = broken
    with pytest.raises(ValueError, match="must not hold NaN or infinity"):
        DepthMap(values, DepthKind.METRIC_DEPTH)


def test_description_survives_json() -> None:
    origin = Provenance("vits", "Depth Anything V2 Small", "ab12", "Apache-2.0", "torch", (686, 518), "a.jpg")
    depth = DepthMap(VALUES, DepthKind.METRIC_DEPTH, origin, max_depth=20.0)
    facts = json.loads(json.dumps(describe(depth)))
    assert facts["units"] == "m" and facts["near_is"] == "low" and facts["size"] == [3, 2]
    back = from_description(VALUES, facts)
    assert (back.provenance, back.kind, back.max_depth) == (depth.provenance, depth.kind, depth.max_depth)


def test_a_mask_is_a_copy_that_cannot_be_changed_and_bounds_the_range() -> None:
    valid = np.array([[True, True, True], [True, False, False]])
    depth = DepthMap(VALUES, DepthKind.METRIC_DEPTH, valid=valid)
    valid[:] = False
    assert depth.valid is not None and depth.valid.tolist() == [[True, True, True], [True, False, False]]
    assert depth.range == (0.0, 3.0)
    assert describe(depth)["invalid_pixels"] == 2
    with pytest.raises(ValueError, match="read-only"):
        depth.valid[0, 0] = False
    with pytest.raises(ValueError, match="valid"):
        DepthMap(VALUES, DepthKind.METRIC_DEPTH, valid=np.ones((3, 2), bool))


def test_a_mask_that_hides_nothing_is_none() -> None:
    depth = DepthMap(VALUES, DepthKind.METRIC_DEPTH, valid=np.ones((2, 3), bool))
    assert depth.valid is None and "invalid_pixels" not in describe(depth)
    hidden = DepthMap(VALUES, DepthKind.METRIC_DEPTH, valid=np.zeros((2, 3), bool))
    assert hidden.range == (0.0, 5.0)
