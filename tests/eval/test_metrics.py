"""Every figure against its definition written another way, and against cases worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from depthcli.eval import metrics

RANDOM = np.random.default_rng(3)
T = RANDOM.uniform(0.5, 20, 200)
P = T * np.exp(RANDOM.normal(0.1, 0.4, 200))


def by_loop(p, t):
    """The depth errors element by element, from the sums of the papers."""
    n = len(p)
    g = [math.log(a) - math.log(b) for a, b in zip(p, t)]
    within = [max(a / b, b / a) for a, b in zip(p, t)]
    return {
        "abs_rel": sum(abs(a - b) / b for a, b in zip(p, t)) / n,
        "sq_rel": sum((a - b) * (a - b) / b for a, b in zip(p, t)) / n,
        "rmse": math.sqrt(sum((a - b) ** 2 for a, b in zip(p, t)) / n),
        "rmse_log": math.sqrt(sum(x * x for x in g) / n),
        "log10": sum(abs(x) for x in g) / n / math.log(10),
        # Eigen's form: half the mean of all squared differences of pairs.
        "silog": 100 * math.sqrt(sum((x - y) ** 2 for x, y in itertools.product(g, g)) / (2 * n * n)),
        "delta1": sum(x < 1.25 for x in within) / n,
        "delta2": sum(x < 1.5625 for x in within) / n,
        "delta3": sum(x < 1.953125 for x in within) / n,
    }


def test_depth_errors_are_what_the_papers_say():
    assert metrics.errors(P, T, metres=True) == pytest.approx(by_loop(P, T), rel=1e-9)


def test_a_perfect_prediction():
    perfect = metrics.errors(T, T, metres=True)
    assert [perfect.pop(f"delta{power}") for power in (1, 2, 3)] == [1, 1, 1]
    assert set(perfect.values()) == {0}


def test_twice_too_far_by_hand():
    t = np.array([1.0, 2.0, 4.0])
    found = metrics.errors(2 * t, t, metres=True)
    assert found["abs_rel"] == 1 and found["sq_rel"] == pytest.approx(7 / 3) and found["rmse"] == pytest.approx(7**0.5)
    assert found["rmse_log"] == pytest.approx(math.log(2)) and found["log10"] == pytest.approx(math.log10(2))
    assert found["silog"] == pytest.approx(0, abs=1e-12)  # one factor for all
    assert found["delta3"] == 0


def test_the_limit_of_delta_itself_is_outside():
    assert metrics.delta(np.array([1.25, 1.2499, 0.8, 1.0]), np.ones(4), 1) == 0.5


def test_errors_with_a_unit_are_given_in_metres_alone():
    without = metrics.errors(P, T, metres=False)
    assert metrics.errors(P, T, metres=True).keys() - without.keys() == {"rmse", "sq_rel"}
    assert metrics.errors(7 * P, 7 * T, metres=False) == pytest.approx(without)


class TestSpearman:
    def test_without_ties_it_is_the_textbook_formula(self):
        a, b = RANDOM.permutation(50), RANDOM.permutation(50)
        expected = 1 - 6 * int(((a - b) ** 2).sum()) / (50 * (50**2 - 1))
        assert metrics.spearman(a, b) == pytest.approx(expected, abs=1e-12)

    def test_with_ties_by_hand(self):
        # Ranks 1.5 1.5 3 against 1 2 3: covariance 1.5, variances 1.5 and 2.
        assert metrics.spearman(np.array([5, 5, 9]), np.array([1, 2, 3])) == pytest.approx(1.5 / math.sqrt(1.5 * 2))

    def test_only_order_counts(self):
        assert metrics.spearman(np.exp(T), np.sqrt(T)) == pytest.approx(1)
        assert metrics.spearman(-T, T) == pytest.approx(-1)
        assert abs(metrics.spearman(RANDOM.permutation(T), T)) < 0.3

    def test_a_constant_prediction_orders_nothing_and_a_constant_truth_has_nothing_to_order(self):
        assert metrics.spearman(np.ones(5), np.arange(5)) == 0
        assert metrics.spearman(np.arange(5), np.ones(5)) is None


def test_pairs_count_the_first_element_nearer_and_a_tie_as_wrong():
    nearness = np.array([[3.0, 1.0], [2.0, 2.0]])
    right, wrong, tie = ((0, 0), (0, 1)), ((0, 1), (1, 0)), ((1, 0), (1, 1))
    assert metrics.pair_accuracy(nearness, [right]) == 1
    assert metrics.pair_accuracy(nearness, [wrong]) == metrics.pair_accuracy(nearness, [tie]) == 0
    assert metrics.pair_accuracy(nearness, [right, right, wrong, tie]) == 0.5
    # Row before column.
    assert metrics.pair_accuracy(np.array([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]), [((0, 2), (1, 0))]) == 1


def step(column: int, far: float = 2.0) -> np.ndarray:
    """A wall at 1 m left of a column, at `far` right of it; 6 x 8."""
    depth = np.ones((6, 8))
    depth[:, column:] = far
    return depth


def boundary_by_loop(p, t):
    """The same definition, neighbour by neighbour in both directions."""
    height, width = t.shape
    total = weight = 0.0
    for number in range(10):
        factor = 1.05 + 0.2 * number / 9
        right = predicted = true = 0
        for row, column in itertools.product(range(height), range(width)):
            for up, across in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                r, c = row + up, column + across
                if 0 <= r < height and 0 <= c < width and not (math.isnan(t[r, c]) or math.isnan(t[row, column])):
                    in_p, in_t = p[r, c] / p[row, column] > factor, t[r, c] / t[row, column] > factor
                    right, predicted, true = right + (in_p and in_t), predicted + in_p, true + in_t
        if predicted + true:
            total += factor * 2 * right / (predicted + true)
            weight += factor
    return total / weight


class TestBoundaryF1:
    def test_it_is_the_definition_neighbour_by_neighbour(self):
        t = RANDOM.uniform(1, 1.5, (9, 11))
        p = t * RANDOM.uniform(0.95, 1.05, t.shape)
        assert metrics.boundary_f1(p, t) == pytest.approx(boundary_by_loop(p, t), rel=1e-9)
        t[2:4, 3:6] = np.nan
        assert metrics.boundary_f1(p, t) == pytest.approx(boundary_by_loop(p, t), rel=1e-9)

    def test_a_step_where_it_is_and_one_element_beside_it(self):
        assert metrics.boundary_f1(step(4), step(4)) == 1
        assert metrics.boundary_f1(step(3), step(4)) == 0

    def test_scale_cancels_out_and_which_side_is_near_does_not(self):
        assert metrics.boundary_f1(100 * step(4), step(4)) == 1
        assert metrics.boundary_f1(3 - step(4), step(4)) == 0

    def test_a_blurred_or_flat_prediction_has_no_boundary(self):
        blurred = np.repeat(np.linspace(1, 2, 80)[None], 6, axis=0)[:, ::10][:, :8] ** 0.01
        assert metrics.boundary_f1(blurred, step(4)) == 0
        assert metrics.boundary_f1(np.ones((6, 8)), step(4)) == 0

    def test_a_false_boundary_costs_half_the_precision(self):
        p = step(4)
        p[:, 6:] = 4.0  # as long as the true one
        assert metrics.boundary_f1(p, step(4)) == pytest.approx(2 / 3)

    def test_a_low_step_counts_at_the_low_thresholds_alone(self):
        # 1.15 passes the thresholds up to 1.139; at the others only the prediction has a boundary.
        low = np.linspace(1.05, 1.25, 10) < 1.15
        expected = np.linspace(1.05, 1.25, 10)[low].sum() / np.linspace(1.05, 1.25, 10).sum()
        assert metrics.boundary_f1(step(4, 2.0), step(4, 1.15)) == pytest.approx(expected)
        assert metrics.boundary_f1(step(4, 1.15), step(4, 1.15)) == 1  # what neither has is left out

    def test_sparse_or_boundless_truths_have_no_figure(self):
        assert metrics.boundary_f1(step(4), np.ones((6, 8))) is None
        assert metrics.boundary_f1(np.ones((1, 1)), np.ones((1, 1))) is None
        sparse = np.full((6, 8), np.nan)
        sparse[::2, ::2] = 1  # no two neighbours
        assert metrics.boundary_f1(step(4), sparse) is None
        half = step(4)
        half[:, 5:] = np.nan
        assert metrics.boundary_f1(step(4), half) == 1  # 49 of 82 pairs
        half[3:] = np.nan  # 22 of 82, one boundary among them
        assert metrics.boundary_f1(step(4), half) is None
