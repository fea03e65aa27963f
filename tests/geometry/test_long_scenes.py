"""Chunks of a long scene: which there are, how they are fitted to each other, and how loops close.

tests/data/da3_long.npz holds outputs of the official DA3-Streaming. Set DEPTHCLI_PARITY to a folder of reference
outputs to hold a whole run of it to those as well.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.geometry.chunk_plan import Chunk, alike, plan_chunks, plan_loops, thinned
from depthcli.geometry.point_fit import chained, fit_overlap, fit_robust, fit_weighted, robust_ratio
from depthcli.geometry.pose_graph import Link, close_loops, exponential, logarithm, matrices, transforms
from depthcli.geometry.sim3 import Sim3
from tests.geometry.worlds import chunk_points, from_numbers, random_turn, to_numbers

OFFICIAL = dict(np.load(Path(__file__).parents[1] / "data" / "da3_long.npz"))
MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None


def chunk(prefix: str, arrays: dict) -> dict:
    return {name: arrays[f"{prefix}{name}"] for name in ("depth", "conf", "extrinsics", "intrinsics")}


# --- Fits of points ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["sim3", "se3"])
def test_fit_is_the_official_one(method: str) -> None:
    target, source = (chunk_points(chunk(f"align_{side}_", OFFICIAL)) for side in "ab")
    fit = fit_overlap(*source, *target, with_scale=method == "sim3")
    official = [OFFICIAL[f"align_{method}_numpy_{part}"] for part in ("s", "R", "t")]  # made in float32
    assert fit.scale == pytest.approx(float(official[0]), rel=1e-6)
    assert np.abs(fit.rotation - official[1]).max() < 1e-6
    assert np.abs(fit.translation - official[2]).max() < 1e-5


def cloud(count: int = 400) -> tuple[np.ndarray, np.ndarray, Sim3]:
    generator = np.random.default_rng(3)
    truth = Sim3(1.7, random_turn(generator, 2.0), np.array([3.0, -1.0, 0.5]))
    source = generator.normal(size=(count, 3)) * (3, 2, 1)
    return source, truth.points(source), truth


@pytest.mark.parametrize("limit", [0.1, None])
def test_a_fifth_of_wrong_points_moves_a_robust_fit_by_little(limit: float | None) -> None:
    source, target, truth = cloud()
    target[::5] += (4.0, -7.0, 2.0)
    found = fit_robust(source, target, np.ones(len(source)), limit=limit, rounds=20)
    plain = fit_weighted(source, target, np.ones(len(source)))
    errors = [np.linalg.norm(fit.points(source) - truth.points(source), axis=1).mean() for fit in (found, plain)]
    assert errors[0] < 0.12 < 1 < errors[1]


def test_points_without_weight_do_not_count_and_the_unit_does_not_matter() -> None:
    source, target, truth = cloud()
    weights = np.ones(len(source))
    weights[:100], target[:100] = 0, 1e6
    for unit in (1e-3, 1.0, 1e3):
        found = fit_robust(source * unit, target * unit, weights, limit=None)
        assert found.scale == pytest.approx(truth.scale)
        assert np.allclose(found.translation, truth.translation * unit)


@pytest.mark.parametrize("points", [np.zeros((5, 3)), np.arange(5)[:, None] * np.ones(3)])
def test_points_that_fix_no_turn_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="in one place or on one line"):
        fit_weighted(points, points, np.ones(5))
    with pytest.raises(ValueError, match="no point has weight"):
        fit_weighted(cloud()[0], cloud()[1], np.zeros(400))


def test_a_ratio_of_depths_is_found_among_noise_and_wrong_pixels() -> None:
    generator = np.random.default_rng(2)
    depth = generator.uniform(0.5, 30, 5000)
    other = 1.37 * depth * np.exp(0.02 * generator.normal(size=5000))
    wrong = np.where(generator.uniform(size=5000) < 0.2, generator.uniform(0.3, 3, 5000), 1)
    assert robust_ratio(depth, other * wrong, np.ones(5000), rounds=12) == pytest.approx(1.37, rel=0.005)
    assert robust_ratio(depth, 2 * depth, np.ones(5000)) == pytest.approx(2, rel=1e-12)
    missing = np.where(np.arange(5000) % 3 == 0, 0, other)  # 0 is no depth
    assert robust_ratio(depth, missing, np.ones(5000)) == pytest.approx(1.37, rel=0.002)
    for some in (np.zeros(5000), -other):
        with pytest.raises(ValueError, match="no pixel has two depths"):
            robust_ratio(depth, some, np.ones(5000))


def test_transforms_are_chained_as_the_official_ones() -> None:
    steps = [from_numbers(row) for row in OFFICIAL["align_chain_in"]]
    found = np.stack([to_numbers(one) for one in chained(steps)])
    assert np.abs(found - OFFICIAL["align_chain_cumulative"]).max() < 1e-14


# --- Chunks and loops -------------------------------------------------------------------------------------------------


def test_chunks_are_the_official_ones() -> None:
    rows = OFFICIAL["align_chunks"].tolist()
    for count, size, overlap in {tuple(row[:3]) for row in rows}:
        wanted = [Chunk(*row[4:]) for row in rows if tuple(row[:3]) == (count, size, overlap)]
        assert plan_chunks(count, size, overlap) == wanted


@pytest.mark.parametrize(("size", "overlap"), [(2, 1), (8, 4), (8, 7), (20, 5)])
def test_chunks_hold_every_view_and_share_enough(size: int, overlap: int) -> None:
    for count in (1, 2, size - 1, size, size + 1, 5 * size + 3):
        chunks = plan_chunks(count, size, overlap)
        assert chunks[0].start == 0 and chunks[-1].stop == count
        assert all(len(one) <= size for one in chunks) and all(len(one) > overlap for one in chunks[1:])
        assert all(before.stop - after.start == overlap for before, after in zip(chunks, chunks[1:]))


@pytest.mark.parametrize(("count", "size", "overlap"), [(0, 8, 4), (9, 8, 8), (9, 8, 0)])
def test_chunks_that_cannot_be_are_refused(count: int, size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"{count} views in chunks of {size}"):
        plan_chunks(count, size, overlap)


def test_pairs_and_windows_are_the_official_ones() -> None:
    found = thinned([(int(one), int(other), score) for one, other, score in OFFICIAL["align_nms_in"]])
    assert np.array_equal(np.array(found), OFFICIAL["align_nms_out"])
    chunks = [Chunk(*row) for row in OFFICIAL["align_loop_chunks"].tolist()]
    loops = plan_loops([(*row, 1.0) for row in OFFICIAL["align_loop_frames"].tolist()], chunks)
    rows = [
        (number, window.start, window.stop)
        for one in loops
        for number, window in ((one.later, one.later_window), (one.earlier, one.earlier_window))
    ]
    assert np.array_equal(np.reshape(rows, (-1, 6)), OFFICIAL["align_loop_windows"])


def test_views_of_one_place_are_alike_and_neighbours_do_not_count() -> None:
    angles = np.linspace(0, 2 * np.pi, 61)[:-1]  # once round, so that the last views see what the first ones saw
    found = alike(np.stack([np.cos(angles), np.sin(angles)], axis=1), least=0.99, gap=10)
    assert len(found) and all(later - earlier > 50 for earlier, later, _ in found)
    assert len(np.unique(found[:, :2], axis=0)) == len(found)
    assert all(
        score == pytest.approx(np.cos(angles[int(later)] - angles[int(earlier)]), abs=1e-6)
        for earlier, later, score in found
    )
    assert thinned(found)[0][2] == max(score for *_, score in found)


def test_pairs_of_one_chunk_and_second_pairs_close_no_loop() -> None:
    chunks = plan_chunks(100, 20, 10)
    found = plan_loops([(15, 11, 1.0), (95, 2, 0.95), (97, 4, 0.9)], chunks, window=6)
    assert [(one.later, one.earlier) for one in found] == [(8, 0)]
    assert found[0].earlier_window == Chunk(0, 6) and found[0].later_window == Chunk(92, 98)


# --- Loops ------------------------------------------------------------------------------------------------------------


def test_tangents_are_those_of_the_transforms() -> None:
    generator = np.random.default_rng(1)
    tangents = generator.normal(size=(200, 7)) * np.logspace(-9, 0, 200)[:, None]
    tangents[0] = 0
    assert np.abs(logarithm(exponential(tangents)) - tangents).max() < 1e-13
    both = exponential(np.concatenate([tangents, 2 * tangents]))  # steps along one tangent add up
    assert np.abs(both[:200] @ both[:200] - both[200:]).max() < 1e-12
    assert np.abs(matrices(transforms(both)) - both).max() < 1e-13


@pytest.mark.parametrize(("name", "apart"), [("one", 5e-4), ("two", 5e-3)])
def test_loops_close_no_worse_than_the_official_ones(name: str, apart: float) -> None:
    steps = [from_numbers(row) for row in OFFICIAL["loop_sequence"]]
    ends, found = OFFICIAL[f"loop_{name}_loops_ij"], OFFICIAL[f"loop_{name}_loops"]
    loops = [Link(*map(int, pair), from_numbers(row)) for pair, row in zip(ends, found)]
    solution = close_loops(steps, loops)
    # The official cost is the mean over 7 numbers for each link.
    means = np.array(solution.costs) / (7 * (len(steps) + len(loops)))
    assert means[0] == pytest.approx(OFFICIAL[f"loop_{name}_costs"][0, 0], rel=1e-5)  # made in float32
    assert means[-1] <= OFFICIAL[f"loop_{name}_costs"][:, :2].min()
    between = [one.inverse() @ other for one, other in zip(solution.worlds, solution.worlds[1:])]
    # Its float32 swings about the optimum, along which the cost is flat.
    assert np.abs(np.stack([to_numbers(one) for one in between]) - OFFICIAL[f"loop_{name}_result"]).max() < apart


@pytest.mark.parametrize("name", ["one", "two"])
def test_the_official_iteration_ends_where_ours_does_if_it_is_not_rounded(name: str) -> None:
    """What the official result is apart from ours is rounding: its cost there is on a slope that falls to ours.

    The official code adds steps to the tangents of all worlds, none of which is fixed, in float32. The same steps in
    float64 have its costs of the first rounds and go on to our solution.
    """
    steps = [from_numbers(row) for row in OFFICIAL["loop_sequence"]]
    found = zip(OFFICIAL[f"loop_{name}_loops_ij"], OFFICIAL[f"loop_{name}_loops"])
    loops = [Link(*map(int, pair), from_numbers(row)) for pair, row in found]
    links = [Link(k + 1, k, step) for k, step in enumerate(steps)] + loops
    ends = np.array([(link.source, link.target) for link in links])
    measured = matrices([link.transform for link in links])

    def residuals(tangents: np.ndarray) -> np.ndarray:
        back = exponential(tangents.reshape(-1, 7))
        return logarithm(measured @ back[ends[:, 0]] @ np.linalg.inv(back[ends[:, 1]])).ravel()

    def cost_of(tangents: np.ndarray) -> float:
        return float((residuals(tangents) ** 2).mean())

    chain = matrices([Sim3(1.0, np.eye(3), np.zeros(3)), *chained(steps)])
    tangents = logarithm(np.linalg.inv(chain)).ravel()
    costs, damping = [cost_of(tangents)], 1e-6
    for _ in range(30):
        rows = [
            (residuals(tangents + step) - residuals(tangents - step)) / 2e-6 for step in 1e-6 * np.eye(len(tangents))
        ]
        slopes, now = np.stack(rows, axis=1), residuals(tangents)
        squares = slopes.T @ slopes
        moved = tangents - np.linalg.solve(squares + damping * np.diag(np.diag(squares)), slopes.T @ now)
        better = cost_of(moved) < costs[-1]
        tangents, damping = (moved, damping / 2) if better else (tangents, damping * 2)
        costs.append(cost_of(tangents))
    official = OFFICIAL[f"loop_{name}_costs"][:, :2]
    assert costs[0] == pytest.approx(official[0, 0], rel=2e-6)
    assert np.allclose(costs[1:3], official[:2, 1], rtol=0.02)  # its derivatives are rounded too

    solution = close_loops(steps, loops)
    ours = matrices(solution.worlds)
    ends_there = np.linalg.inv(exponential(tangents.reshape(-1, 7)))
    ends_there = np.linalg.inv(ends_there[:1]) @ ends_there  # with the first world where ours is
    assert np.abs(ends_there - ours).max() < 1e-4
    assert costs[-1] == pytest.approx(solution.costs[-1] / (7 * len(links)), rel=1e-7)

    # On the way from ours to the official result the cost is a parabola whose lowest point is ours.
    theirs = matrices([Sim3(1.0, np.eye(3), np.zeros(3)), *chained(map(from_numbers, OFFICIAL[f"loop_{name}_result"]))])
    way = logarithm(np.linalg.inv(ours) @ theirs)
    rise = [
        cost_of(logarithm(np.linalg.inv(ours @ exponential(part * way)))) - solution.costs[-1] / (7 * len(links))
        for part in (-1.0, -0.5, 0.0, 0.5, 1.0)
    ]
    assert np.allclose(rise, [rise[-1], rise[-1] / 4, 0, rise[-1] / 4, rise[-1]], rtol=0.01, atol=1e-14)
    assert 0 < rise[-1] < 2e-5 * costs[-1]


def test_a_loop_spreads_the_drift_over_a_long_chain() -> None:
    generator = np.random.default_rng(5)
    truth = [Sim3(1.0, random_turn(generator, 0.2), generator.normal(size=3)) for _ in range(300)]
    drift = [Sim3(1.002, random_turn(generator, 0.002), generator.normal(size=3) * 0.01) @ step for step in truth]
    *_, end = chained(truth)
    solution = close_loops(drift, [Link(300, 0, end)])
    *_, drifted = chained(drift)
    assert drifted.scale == pytest.approx(1.002**300)
    assert solution.worlds[-1].scale == pytest.approx(1.0, abs=0.01)
    assert solution.costs[-1] < 1e-2 * solution.costs[0]


def test_loops_that_agree_change_nothing_and_none_are_needed() -> None:
    steps = [from_numbers(row) for row in OFFICIAL["loop_sequence"]]
    whole = list(chained(steps))
    for loops in ([], [Link(9, 0, whole[8]), Link(5, 2, whole[1].inverse() @ whole[4])]):
        solution = close_loops(steps, loops)
        assert np.allclose(matrices(solution.worlds[1:]), matrices(whole), atol=1e-9)
    assert close_loops([], []).worlds[0].scale == 1


@pytest.mark.skipif(MORE is None, reason="DEPTHCLI_PARITY is not set")
def test_a_whole_run_is_the_official_one() -> None:
    assert MORE is not None
    whole = dict(np.load(MORE / "da3_stream_full.npz"))
    chunks = [chunk(f"chunk{number}_", whole) for number in range(4)]
    for one in chunks:
        one["conf"] = one["conf"] - 1
    starts = whole["chunks"][:, 0]
    steps = [
        fit_overlap(*chunk_points(after, slice(4)), *chunk_points(before, slice(-4, None)))
        for before, after in zip(chunks, chunks[1:])
    ]
    worlds = [Sim3(1.0, np.eye(3), np.zeros(3)), *chained(steps)]
    for found, official in zip(worlds[1:], whole["cumulative_sim3"]):
        assert np.abs(to_numbers(found) - official).max() < 1e-5
    for frame in range(18):
        number = int(np.searchsorted(starts, frame, side="right")) - 1  # the last chunk that has it
        place = frame - int(starts[number])
        pose = np.eye(4)
        pose[:3] = worlds[number].extrinsics(chunks[number]["extrinsics"][place : place + 1])[0]
        assert np.abs(np.linalg.inv(pose) - whole["camera_poses"][frame]).max() < 1e-5
        depth = chunks[number]["depth"][place] * worlds[number].scale
        assert np.abs(depth / whole["frame_depth"][frame] - 1).max() < 1e-5
