from __future__ import annotations

import numpy as np

from depthcli.geometry.reference_views import REFERENCES


def test_the_first_and_the_middle_view_need_no_tokens() -> None:
    tokens = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    assert REFERENCES["first"](tokens) == 0 and REFERENCES["middle"](tokens) == 2


def test_the_reference_is_the_view_with_the_widest_similarities() -> None:
    tokens = np.array([[1, 0, 0], [0.9, 0.1, 0], [-1, 0.2, 0], [0, 0, 1]], np.float32)
    assert REFERENCES["saddle_sim_range"](tokens) == 0  # it has both the twin and the opposite


def test_of_two_views_that_are_most_alike_the_first_is_the_reference() -> None:
    angles = np.array([1.2, 0.5, 0.1, 0.45], np.float32)
    tokens = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert REFERENCES["saddle_sim_range"](tokens) == 1  # 1 and 3
    assert REFERENCES["saddle_sim_range"](tokens[[3, 0, 2, 1]]) == 0


def test_the_reference_is_the_view_in_the_middle() -> None:
    """Lengths decide where directions are alike: 2 lies between 1 and 3."""
    tokens = np.array([[1], [3], [2]], np.float32) * np.array([[0.5, -0.5, 0.1]], np.float32)
    assert REFERENCES["saddle_balanced"](tokens) == 2
