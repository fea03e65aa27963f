"""Clips from Python: the maps are those of `depth video`, in order, and everything is closed at the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import depthcli
from depthcli import BackendChoice, ClipChoice, ModelChoice, estimate_clip
from depthcli.camera import Camera
from depthcli.errors import ClipError, PictureError, UsageError
from depthcli.io.codecs.files import read_depth
from depthcli.io.video.clip import Frame, Selection
from depthcli.pixels.preprocess import InputPlan
from depthcli.predict import clip as module
from depthcli.predict import model, picture
from depthcli.predict.clip import FrameLoop
from depthcli.predict.clip_predictors import AtOnce
from depthcli.predict.picture import DepthEstimator
from tests.conftest import TINY
from tests.io.video.clips import SIZE, make_clip, scene

MODEL = ModelChoice(encoder="tiny", offline=True)
SMALL = ClipChoice(input_size=56)


def make_folder(count: int) -> Path:
    Path("shot").mkdir()
    for index in range(count):
        Image.fromarray(scene(index)).save(f"shot/{index:02}.png")
    return Path("shot")


def npz_frames(depth, source: Path, *options: str) -> list[depthcli.DepthMap]:
    assert depth("video", source, "-o", "out", "-f", "npz", "--offline", *TINY, *options).code == 0
    return [read_depth(path) for path in sorted(Path("out").glob("*_npz/*.npz"))]


def same(found: list[depthcli.DepthMap], wanted: list[depthcli.DepthMap]) -> bool:
    return len(found) == len(wanted) and all(np.array_equal(a.values, b.values) for a, b in zip(found, wanted))


@pytest.mark.parametrize("steady", ["on", "off"])
def test_the_maps_are_the_frames_of_depth_video(depth, steady):
    make_clip(Path("a.mp4"), frames=5)
    wanted = npz_frames(depth, Path("a.mp4"), "--steady", steady)
    found = list(estimate_clip("a.mp4", MODEL, ClipChoice(steady=steady, input_size=56)))
    assert same(found, wanted) and found[0].size == SIZE
    assert [item.provenance for item in found] == [item.provenance for item in wanted]
    assert found[0].kind is depthcli.DepthKind.RELATIVE_DISPARITY


def test_a_folder_and_its_frames_give_the_same_maps(depth):
    folder = make_folder(4)
    wanted = npz_frames(depth, folder)
    assert same(list(estimate_clip(folder, MODEL, SMALL)), wanted)
    assert same(list(estimate_clip((scene(index) for index in range(4)), MODEL, SMALL)), wanted)
    chosen = estimate_clip(str(folder), MODEL, ClipChoice(input_size=56, steady="off"), selection=Selection(stride=2))
    assert len(list(chosen)) == 2


def test_flipped_frames_are_taken_as_they_look(tiny_weights):
    frames = [scene(index) for index in range(3)]
    flipped = [frame[:, ::-1] for frame in frames]  # views with a negative stride
    found = list(estimate_clip(flipped, MODEL, SMALL))
    assert same(found, list(estimate_clip([frame.copy() for frame in flipped], MODEL, SMALL)))
    assert not same(found, list(estimate_clip(frames, MODEL, SMALL)))


def test_no_frames_give_no_maps_and_load_no_model():
    assert list(estimate_clip(iter([]), "tiny")) == []


def test_frames_of_two_sizes_or_another_type_are_refused(tiny_weights):
    with pytest.raises(ClipError, match="frame 1 is"):
        list(estimate_clip([scene(0), scene(0)[:24]], MODEL, SMALL))
    with pytest.raises(PictureError, match="float64"):
        list(estimate_clip([scene(0) / 255], MODEL, SMALL))


def test_a_damaged_clip_gives_all_that_could_be_read_and_then_raises(tiny_weights):
    make_clip(Path("whole.mkv"), frames=40, options={"crf": "4", "preset": "ultrafast", "g": "4"})
    whole = Path("whole.mkv").read_bytes()
    Path("a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    found = []
    with pytest.raises(ClipError, match="truncated"):
        for item in estimate_clip("a.mkv", MODEL, SMALL):
            found.append(item)
    assert 0 < len(found) < 40


def test_closed_early_it_frees_the_model_and_its_threads(tiny_weights, monkeypatch):
    closed = []
    close = DepthEstimator.close
    monkeypatch.setattr(DepthEstimator, "close", lambda self: (closed.append(self), close(self)))
    make_clip(Path("a.mp4"), frames=30)
    before = threading.active_count()
    maps = estimate_clip("a.mp4", MODEL, SMALL)
    next(maps)
    assert not closed
    maps.close()
    assert len(closed) == 1 and threading.active_count() == before
    Path("a.mp4").unlink()
    with pytest.raises(ClipError, match="does not exist"):
        next(estimate_clip("a.mp4", MODEL, SMALL))


def test_a_clip_resolves_opens_and_plans_its_model_once(depth, monkeypatch):
    calls: dict[str, int] = {}

    def counted(home, name: str) -> None:
        wanted = getattr(home, name)

        def call(*arguments, **options):
            calls[name] = calls.get(name, 0) + 1
            return wanted(*arguments, **options)

        monkeypatch.setattr(home, name, call)

    counted(module, "resolve_clip_model")
    counted(model, "obtain")
    counted(picture, "open_backend")
    counted(picture, "plan_input")
    make_clip(Path("a.mp4"), frames=5)
    assert depth("video", "a.mp4", "-o", "a.npz/", "-f", "npz,mp4", "--offline", *TINY).code == 0
    assert calls == {"resolve_clip_model": 1, "obtain": 1, "open_backend": 1, "plan_input": 1}
    assert len(list(estimate_clip("a.mp4", MODEL, SMALL))) == 5
    assert calls == {"resolve_clip_model": 2, "obtain": 2, "open_backend": 2, "plan_input": 2}


def test_memory_that_runs_short_within_a_clip_is_an_error(monkeypatch):
    from depthcli.backends import torch_eager

    make_clip(Path("a.mp4"), frames=8)
    maps = estimate_clip("a.mp4", MODEL, ClipChoice("off", input_size=56, backend=BackendChoice("torch", "cpu")))
    next(maps)
    monkeypatch.setattr(torch_eager, "free_memory", lambda: 1)
    with pytest.raises(PictureError, match="GB"):
        list(maps)


# --- The loop ---------------------------------------------------------------------------------------------------------


class Sums(AtOnce):
    """A predictor whose map is the sum of all frames until then, given `late` frames late. cuts: where shots began."""

    map_size = (1, 1)
    warnings = ()

    def __init__(self, late: int = 0) -> None:
        self._late = late
        self.cuts: list[int] = []

    def begin(self, size: tuple[int, int], camera: Camera | None = None, frames: int | None = None) -> InputPlan:
        self._waiting: list[int] = []
        self._sum = self._fed = 0
        return InputPlan(size, size)

    def prepare(self, rgb: np.ndarray) -> int:
        return int(rgb[0, 0, 0])

    def feed(self, prepared: int, cut: bool) -> list[int]:
        self.cuts += [self._fed] if cut else []
        self._fed += 1
        self._waiting.append(prepared)
        due, self._waiting = self._waiting[: -self._late or None], self._waiting[-self._late :] if self._late else []
        return due

    def finish(self) -> list[int]:
        return self._waiting

    def postprocess(self, answer: int) -> np.ndarray:
        if answer == 255:
            raise ValueError("an answer that cannot be used")
        self._sum += answer
        return np.full((1, 1), self._sum, np.float32)

    def state(self):
        waiting = np.array(self._waiting, np.int64)
        return lambda: {"waiting": waiting, "sum": np.array(self._sum)}

    def restore(self, state) -> None:
        self._waiting, self._sum = state["waiting"].tolist(), int(state["sum"])


def frames(values: list[int], first: int = 0) -> Iterator[Frame]:
    for index, value in enumerate(values[first:], first):
        yield Frame(index, Fraction(index, 24), Fraction(1, 24), np.full((36, 64, 3), value, np.uint8))


def numbers(maps) -> list[tuple[int, float]]:
    return [(item.index, float(item.values[0, 0])) for item in maps]


VALUES = list(range(1, 20))
WANTED = list(enumerate(np.cumsum(VALUES).astype(float).tolist()))


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("late", [0, 1, 5, 99])
def test_frames_meet_their_maps_in_order_however_late_they_come(late, threads):
    loop = FrameLoop(Sums(late), (64, 36), threads=threads)
    assert numbers(chain.from_iterable(loop.run(frames(VALUES)))) == WANTED
    assert loop.fed == len(VALUES)


@pytest.mark.parametrize("late", [0, 3])
def test_work_resumes_from_the_state_after_any_frame(late):
    for stop in range(1, len(VALUES)):
        loop, recorded = FrameLoop(Sums(late), (64, 36)), []
        steps = loop.run(frames(VALUES), recorded.extend)
        with closing(steps):
            for _ in range(stop):
                next(steps)
        state = loop.state()  # of all that was fed until it was closed
        assert loop.fed == stop and len(recorded) == max(0, stop - late)
        other = FrameLoop(Sums(late), (64, 36))
        other.restore(state)
        rest = chain.from_iterable(other.run(frames(VALUES, other.fed)))
        assert numbers([*recorded, *rest]) == WANTED


@pytest.mark.parametrize("threads", [False, True])
def test_nothing_follows_a_frame_whose_map_is_missing(threads):
    recorded: list = []
    loop = FrameLoop(Sums(), (64, 36), threads=threads)
    with pytest.raises(ValueError, match="cannot be used"):
        list(loop.run(frames([1, 2, 255, 3, 4, 5, 6, 7]), recorded.extend))
    assert numbers(recorded) == [(0, 1.0), (1, 3.0)] and loop.state() is None


def test_an_error_of_the_frames_comes_after_the_maps_of_those_before():
    def broken() -> Iterator[Frame]:
        yield from frames(VALUES[:2])
        raise UsageError("no more")

    recorded: list = []
    with pytest.raises(UsageError):
        list(FrameLoop(Sums(), (64, 36)).run(broken(), recorded.extend))
    assert numbers(recorded) == WANTED[:2]


def test_cuts_are_found_only_if_they_are_asked_for():
    pictures = [np.random.default_rng(index // 4).integers(0, 255, (36, 64, 3), np.uint8) for index in range(8)]
    for wanted, cuts in ((True, [4]), (False, [])):
        predictor = Sums()
        loop = FrameLoop(predictor, (64, 36), find_cuts=wanted)
        moments = (Frame(index, Fraction(index), Fraction(1), rgb) for index, rgb in enumerate(pictures))
        maps = list(chain.from_iterable(loop.run(moments)))
        assert predictor.cuts == [item.index for item in maps if item.cut] == cuts
