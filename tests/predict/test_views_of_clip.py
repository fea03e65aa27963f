"""Clips by a model for scenes: one scale from chunk to chunk, resumed to the same bits, every number of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.scenes import ViewsChoice
from depthcli.depthmap import DepthKind
from depthcli.errors import UsageError
from depthcli.predict.clip import estimate_clip, open_clip_predictor
from depthcli.predict.model import resolve_clip_model
from depthcli.predict.scene import SceneEstimator
from depthcli.predict.views_of_clip import ViewsByChunk
from tests.jobs import walks


def frame(number: int) -> np.ndarray:
    pixels = np.full((walks.SIZE[1], walks.SIZE[0], 3), 128, np.uint8)
    pixels[0, 0] = number % 256, number // 256, 7
    return pixels


def predictor(chunk: int = 16) -> ViewsByChunk:
    found = ViewsByChunk(SceneEstimator(views=ViewsChoice(input_size=walks.SIZE[0])), chunk)
    found.begin(walks.SIZE)
    return found


def fed(some: ViewsByChunk, numbers: range, cuts: tuple[int, ...] = ()) -> Iterator[np.ndarray]:
    for number in numbers:
        yield from map(some.postprocess, some.feed(some.prepare(frame(number)), number in cuts))


def maps(some: ViewsByChunk, numbers: range, cuts: tuple[int, ...] = ()) -> list[np.ndarray]:
    return [*fed(some, numbers, cuts), *map(some.postprocess, some.finish())]


def scales(found: list[np.ndarray], walker: walks.Walker) -> np.ndarray:
    """Return the factor from the true depth to that of each frame."""
    return np.array([np.median(one / walks.traced(pose)) for one, pose in zip(found, walker.truth)])


def test_a_clip_has_one_scale_though_every_chunk_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 150, wrong=0.1)
    with_bias = scales(maps(predictor(), range(150)), walker)
    assert len(with_bias) == 150 and walker.runs == 13
    assert with_bias.max() / with_bias.min() < 1.05  # the stand-in's own bias, which differs by frame, has 2 %
    steps = np.abs(np.diff(np.log(with_bias)))
    assert steps.max() < 0.03
    walker = walks.use_walk(monkeypatch, 150, noise=0.0, bias=0.0)
    assert np.ptp(scales(maps(predictor(), range(150)), walker)) < 1e-5


@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 28, 29, 40])
def test_every_number_of_frames_has_its_maps(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    walker = walks.use_walk(monkeypatch, 64, noise=0.0, bias=0.0)
    found = maps(predictor(), range(count))
    assert len(found) == count and all(one.shape == walks.SIZE[::-1] for one in found)
    assert np.ptp(scales(found, walker)) < 1e-5
    assert walker.runs == max(1, -(-(count - 4) // 12))


def test_a_cut_begins_a_scale_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 60, noise=0.0, bias=0.0)
    found = scales(maps(predictor(), range(60), cuts=(20,)), walker)
    assert np.ptp(found[:20]) < 1e-5 and np.ptp(found[20:]) < 1e-5
    assert abs(np.log(found[0] / found[-1])) > 0.01


@pytest.mark.parametrize("left", [1, 15, 16, 17, 27, 28, 40])
def test_work_that_was_left_is_continued_to_the_same_bits(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    walks.use_walk(monkeypatch, 50)
    whole = maps(predictor(), range(50), cuts=(22,))
    first, second = predictor(), predictor()
    begun = list(fed(first, range(left), cuts=(22,)))
    make = first.state()
    assert make is not None
    second.restore({name: np.array(array) for name, array in make().items()})
    found = [*begun, *maps(second, range(left, 50), cuts=(22,))]
    assert len(found) == 50 and all(np.array_equal(one, other) for one, other in zip(found, whole))


def test_models_for_scenes_are_taken_for_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    walks.use_walk(monkeypatch, 20)
    monkeypatch.setattr(
        "depthcli.predict.clip.resolve_clip_model", lambda choice, *_: walks.stand_in(walks.Walker(None))[0](choice)
    )
    clip = ClipChoice(input_size=walks.SIZE[0], batch=8)
    found = list(estimate_clip(iter([frame(number) for number in range(20)]), "da3-small", clip))
    assert len(found) == 20 and {depth.kind for depth in found} == {DepthKind.RELATIVE_DEPTH}
    assert "8 views at once" in str(found[0].provenance.backend)
    with pytest.raises(UsageError, match="da3-small takes no panorama"):
        open_clip_predictor(ModelChoice(model="da3-small"), ClipChoice(panorama=True))


@pytest.mark.parametrize(("changed", "words"), [({"steady": "on"}, "steady without"), ({"exact": True}, "`exact`")])
def test_what_is_for_other_models_is_refused_before_a_download(changed: dict, words: str) -> None:
    clip = ClipChoice(backend=BackendChoice("torch"), **changed)
    with pytest.raises(UsageError, match=words):
        resolve_clip_model(ModelChoice(model="da3-small", checkpoint=Path("none.pth")), clip)
