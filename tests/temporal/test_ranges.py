from __future__ import annotations

import numpy as np
import pytest

from depthcli.temporal.ranges import SHARES, StreamRange, ValueRange, frame_range


def maps(count: int, seed: int = 0) -> list[np.ndarray]:
    """Maps whose level and spread wander, so that later ones lie far beyond the first."""
    random = np.random.default_rng(seed)
    level = np.cumsum(random.normal(0, 4, count))
    spread = np.exp(np.cumsum(random.normal(0, 0.3, count)))
    return [(a + b * random.gamma(2, size=(40, 60))).astype(np.float32) for a, b in zip(level, spread)]


@pytest.mark.parametrize("seed", range(6))
def test_the_range_of_a_clip_is_that_of_all_its_values_to_one_bin(seed: int) -> None:
    clip = maps(40, seed)
    found = ValueRange()
    for depth in clip:
        found.add(depth)
    values = np.stack(clip)
    assert found.bin_width <= np.ptp(values) / 15_000
    for end, share in zip(found.range(), SHARES):
        # Between two values any number is a quantile.
        around = np.quantile(values, share, method="lower"), np.quantile(values, share, method="higher")
        assert around[0] - found.bin_width <= end <= around[1] + found.bin_width


@pytest.mark.parametrize("level", [0.0, -3.0, 1e6])
def test_flat_maps_have_a_range_around_their_value(level: float) -> None:
    found = ValueRange()
    for _ in range(3):
        found.add(np.full((4, 5), level, np.float32))
    low, high = found.range()
    assert abs(low - level) <= found.bin_width and abs(high - level) <= found.bin_width


def test_a_flat_first_map_does_not_spoil_what_follows() -> None:
    found = ValueRange()
    found.add(np.zeros((40, 60), np.float32))
    for depth in maps(20):
        found.add(depth)
    values = np.concatenate([np.zeros(2400, np.float32), np.stack(maps(20)).ravel()])
    assert np.allclose(found.range(), np.quantile(values, SHARES), atol=2 * found.bin_width + 1e-3)
    assert found.bin_width <= np.ptp(values) / 15_000


def test_one_value_far_away_moves_no_end_by_more_than_a_bin() -> None:
    found = ValueRange()
    clip = maps(10)
    clip[4][0, 0] = 5000
    for depth in clip:
        found.add(depth)
    assert np.allclose(found.range(), np.quantile(np.stack(clip), SHARES), atol=found.bin_width + 0.05)


def test_no_map_has_no_range() -> None:
    with pytest.raises(ValueError, match="no map"):
        ValueRange().range()


def test_a_restored_range_goes_on_as_the_first_would() -> None:
    clip = maps(20)
    first, second = ValueRange(), ValueRange()
    for depth in clip[:9]:
        first.add(depth)
    second.restore(first.state())
    for depth in clip[9:]:
        first.add(depth)
        second.add(depth)
    assert first.range() == second.range() and first.bin_width == second.bin_width


def streamed(stream: StreamRange, clip: list[np.ndarray], cuts: tuple[int, ...] = ()) -> list[tuple[float, float]]:
    return [one for t, depth in enumerate(clip) for one in stream.add(depth, t in cuts)] + stream.finish()


@pytest.mark.parametrize(("ahead", "keep"), [(0, 0.0), (0, 0.9), (7, 0.5), (100, 0.9)])
def test_every_frame_gets_one_range_of_the_frames_ahead_averaged(ahead: int, keep: float) -> None:
    clip, cut = maps(30), 17
    own = [frame_range(depth) for depth in clip]
    wanted, last = [], (0.0, 0.0)
    for t in range(30):
        end = min(t + ahead + 1, cut if t < cut else 30)
        low, high = min(o[0] for o in own[t:end]), max(o[1] for o in own[t:end])
        share = 0.0 if t in (0, cut) else keep
        last = (share * last[0] + (1 - share) * low, share * last[1] + (1 - share) * high)
        wanted.append(last)
    assert np.allclose(streamed(StreamRange(ahead, keep), clip, (cut,)), wanted, rtol=1e-12)


def test_answers_come_as_late_as_said_and_at_once_at_a_cut() -> None:
    stream, clip = StreamRange(3, 0.5), maps(8)
    assert [len(stream.add(depth, t == 5)) for t, depth in enumerate(clip)] == [0, 0, 0, 1, 1, 3, 0, 0]
    assert len(stream.finish()) == 3 and stream.finish() == []


def test_the_range_of_a_clip_that_trembles_trembles_less() -> None:
    random = np.random.default_rng(1)
    still = random.random((40, 60)).astype(np.float32)
    clip = [still * np.float32(random.uniform(0.9, 1.1)) for _ in range(100)]
    highs = [high for _, high in streamed(StreamRange(), clip)]
    assert np.abs(np.diff(highs)).mean() < np.abs(np.diff([frame_range(depth)[1] for depth in clip])).mean() / 10


def test_a_restored_stream_goes_on_as_the_first_would() -> None:
    clip = maps(20)
    whole = streamed(StreamRange(4, 0.8), clip, (13,))
    first, second = StreamRange(4, 0.8), StreamRange(4, 0.8)
    begun = [one for depth in clip[:11] for one in first.add(depth)]
    second.restore(first.state())
    rest = [one for t, depth in enumerate(clip[11:], 11) for one in second.add(depth, t == 13)]
    assert begun + rest + second.finish() == whole


@pytest.mark.parametrize(("ahead", "keep"), [(-1, 0.5), (3, 1.0), (3, -0.1)])
def test_what_makes_no_sense_is_refused(ahead: int, keep: float) -> None:
    with pytest.raises(ValueError, match="ahead"):
        StreamRange(ahead, keep)
