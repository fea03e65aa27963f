"""The figures of clips are right where they can be known: of engines whose maps and whose time are given."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from dataclasses import fields
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcli.backends import BACKENDS, open_backend
from depthcli.bench import clips, one_clip, synthetic_clips
from depthcli.bench.clips import VideoBenchJob, run_video_benchmark
from depthcli.bench.contenders import MeasuredModel
from depthcli.bench.one_clip import Stopwatch, by_stages, mapped
from depthcli.bench.own_process import Ended
from depthcli.bench.rows import Load, Machine, Video
from depthcli.camera import Camera
from depthcli.choices.model import COMPILED_BACKENDS, BackendChoice, ModelChoice
from depthcli.errors import ClipError, EngineError, UsageError
from depthcli.jobs.clip_job import ClipJob
from depthcli.nets.random_weights import random_weights
from depthcli.pixels.preprocess import InputPlan
from depthcli.predict.clip import FrameLoop
from depthcli.predict.clip_predictors import AtOnce
from depthcli.temporal.cuts import CutDetector
from depthcli.temporal.flow import dense_flow
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelTask, find_row
from tests.conftest import photo
from tests.nets.test_video_depth_anything import ROW

TINY = ModelChoice(encoder="tiny")
SIZE = (64, 48)
FIGURES = ("opw", "flow_flicker", "range_jitter", "flicker", "contrast_kept", "cut_bleeding")
# From 1 to 2, evenly.
SLOPE = np.broadcast_to(np.linspace(1, 2, SIZE[0], dtype=np.float32), SIZE[::-1])


class Fake(AtOnce):
    """An predictor that gives the maps it is told, one after the other, `late` frames later, and takes its time."""

    exact = False
    warnings = ()
    map_size = SIZE

    def __init__(self, *maps: np.ndarray, late: int = 0, network: float = 0.0, settle: float = 0.0) -> None:
        self.row = find_row("tiny")
        self.weights = WeightsFile(Path("fake.safetensors"), "0" * 64, "test")
        self.description = "fake 1.0 cpu fp32"
        self.cuts: list[int] = []
        self._maps, self._late, self._seconds = maps, late, (network, settle)

    def begin(self, size: tuple[int, int], camera: Camera | None = None, frames: int | None = None) -> InputPlan:
        self._next, self._waiting, self._fed = cycle(self._maps), deque(), 0
        self.cuts = []
        return InputPlan(size, SIZE)

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        return rgb

    def feed(self, prepared: np.ndarray, cut: bool) -> list[np.ndarray]:
        time.sleep(self._seconds[0])
        self._waiting.append(next(self._next))
        self.cuts += [self._fed] if cut else []
        self._fed += 1
        return [self._waiting.popleft()] if len(self._waiting) > self._late else []

    def finish(self) -> list[np.ndarray]:
        return list(self._waiting)

    def postprocess(self, answer: np.ndarray) -> np.ndarray:
        time.sleep(self._seconds[1])
        return answer

    def state(self) -> None:
        return None

    def restore(self, state: dict) -> None:
        raise AssertionError("a benchmark resumes nothing")

    def close(self) -> None:
        self.closed = True


class Broken(Fake):
    """One that fails when it runs, in a way that nobody has thought of."""

    def feed(self, prepared: np.ndarray, cut: bool) -> list[np.ndarray]:
        raise KeyError("no such thing")


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The commands that would have been started; each takes 4 seconds and 300 MB."""
    started: list[list[str]] = []

    def run_alone(arguments):
        started.append(list(arguments))
        return Ended(4.0, 300_000_000)

    monkeypatch.setattr(clips, "run_alone", run_alone)
    return started


@pytest.fixture
def engines(monkeypatch):
    """Let these predictors, each named by what makes its clips steady, stand for the real ones."""

    def use(**made: Fake) -> None:
        def opened(choice, clip, talk):
            return made["vda" if find_row(choice.model).task is ModelTask.CLIP else clip.steady]

        monkeypatch.setattr(clips, "open_clip_predictor", opened)

    return use


@pytest.fixture
def untrained(monkeypatch):
    """No weights but random ones are here, and those need not be made."""

    def measured_model(choice, folder, log, clips):
        weights = WeightsFile(Path("random.safetensors"), "0" * 64, "")
        return MeasuredModel(find_row(choice.model or choice.encoder), weights, random=True)

    monkeypatch.setattr(clips, "measured_model", measured_model)


@pytest.fixture
def frames() -> Path:
    """A folder of six small frames."""
    for number in range(6):
        photo(f"frames/{number}.png", SIZE)
    return Path("frames")


def measured(**options) -> dict[type, list]:
    """The rows of a small benchmark, by kind."""
    rows: dict[type, list] = {}
    for row in run_video_benchmark(VideoBenchJob(**{"model": TINY, "frames": 8, "runs": 1, "warmup": 0, **options})):
        rows.setdefault(type(row), []).append(row)
    return rows


class TestJob:
    @pytest.mark.parametrize(
        "options",
        [
            {"backends": ("nonsense",)},
            {"backends": ("torchscript",)},
            {"precision": "fp99"},
            {"device": "abacus"},
            {"runs": 0},
            {"warmup": -1},
            {"frames": 7},
            {"input_size": 3},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused_before_anything_is_loaded(self, options):
        with pytest.raises(UsageError):
            VideoBenchJob(**options)

    def test_all_are_those_that_run_clips(self):
        names = [choice.backend for choice in VideoBenchJob(backends=("torch", "all")).choices()]
        assert sorted(names) == sorted(set(BACKENDS) - set(COMPILED_BACKENDS)) and names[0] == "torch"

    def test_a_clip_that_is_not_there(self):
        with pytest.raises(ClipError, match=r"none\.mp4"):
            measured(clip=Path("none.mp4"))


class TestClips:
    def test_they_are_always_the_same_and_as_long_as_they_should_be(self):
        for make in (synthetic_clips.still, synthetic_clips.panning, synthetic_clips.cutting):
            one, other = (list(make(9, (96, 54))) for _ in range(2))
            assert [frame.index for frame in one] == list(range(9))
            assert one[8].time == 9 / synthetic_clips.RATE - 1 / synthetic_clips.RATE
            assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(one, other))
            assert one[0].rgb.shape == (54, 96, 3) and not np.array_equal(one[0].rgb, one[1].rgb)

    def test_still_is_still_but_for_noise_and_exposure(self):
        one, other = (frame.rgb.astype(float) for frame in synthetic_clips.still(2))
        assert 0.01 < abs(one.mean() / other.mean() - 1) < 0.1
        assert np.std(one / one.mean() * other.mean() - other) == pytest.approx(3 * 2**0.5, rel=0.1)

    def test_panning_moves_by_its_step(self):
        first, second = (cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY) for frame in synthetic_clips.panning(2))
        flow = dense_flow(first, second)  # what is shown moves the other way
        assert np.median(flow, axis=(0, 1)) == pytest.approx([-step for step in synthetic_clips._STEP], abs=0.15)

    def test_the_detector_finds_the_one_cut(self):
        for make, wanted in (
            (synthetic_clips.still, []),
            (synthetic_clips.panning, []),
            (synthetic_clips.cutting, [6]),
        ):
            cuts = CutDetector()
            assert [frame.index for frame in make(12) if cuts.is_cut(frame.rgb)] == wanted


class TestSteps:
    def test_frames_meet_their_maps_however_late_they_come(self):
        maps = [SLOPE + number for number in range(12)]
        for late in (0, 1, 5, 99):
            found = list(mapped(Fake(*maps, late=late), synthetic_clips.cutting(12, (96, 54))))
            assert [item.frame.index for item in found] == list(range(12))
            assert [float(item.values[0, 0]) for item in found] == list(range(1, 13))
            assert [item.frame.index for item in found if item.cut] == [6]

    def test_time_is_where_it_was_spent(self):
        watch = Stopwatch()
        fake = Fake(SLOPE, network=0.02, settle=0.005)
        list(FrameLoop(fake, SIZE, threads=False, timed=watch.of).run(synthetic_clips.still(4, SIZE)))
        assert watch.seconds["network"] >= 0.08 > watch.seconds["prepare"]
        assert 0.02 <= watch.seconds["settle"] < watch.seconds["network"]

    def test_step_by_step_and_all_at_once_write_the_same(self, frames):
        from depthcli.io.video.reader import open_clip

        shown = []
        for number, work in enumerate((by_stages, one_clip.all_at_once)):
            path = Path(f"{number}.mp4")
            work(ClipJob(frames, [("mp4", path)]), Fake(SLOPE, SLOPE**2, late=2))
            with open_clip(path) as clip:
                shown.append([frame.rgb for frame in clip.frames()])
        assert np.array_equal(*shown) and len(shown[0]) == 6
        assert sorted(path.name for path in Path().glob(".*")) == []  # no spool is left

    def test_the_stages_are_all_there(self, frames):
        seconds, count = by_stages(ClipJob(frames, [("mp4", Path("a.mp4"))]), Fake(SLOPE))
        assert tuple(seconds) == one_clip.STAGES and count == 6
        assert min(seconds.values()) > 0


class TestFigures:
    def test_maps_that_never_change_are_perfectly_steady(self):
        found = one_clip.steadiness(Fake(SLOPE), synthetic_clips.panning(8, SIZE), 8)
        steady = {"range_jitter": 0.0, "flicker": 0.0, "contrast_kept": 1.0, "cut_bleeding": 0.0}
        assert {name: found[name] for name in steady} == pytest.approx(steady, abs=1e-6)
        # The picture moves beneath them, and they do not.
        assert found["opw"] > 0.1 and found["flow_flicker"] > 0.001

    def test_a_scale_that_jumps_has_the_flicker_it_should(self):
        found = one_clip.steadiness(Fake(SLOPE, 1.1 * SLOPE), synthetic_clips.still(8, SIZE), 8)
        # A mean value of 1.5 changes by a tenth, over a contrast of 0.96 or a tenth more; and so do its ends.
        assert found["flicker"] == pytest.approx(0.15 / 0.96 * np.mean([1 / 1.1] * 4 + [1] * 3), rel=0.03)
        assert found["range_jitter"] == pytest.approx(0.05 * 1.5 / (1.05 * 0.96), rel=0.03)
        assert found["contrast_kept"] == pytest.approx(1, rel=1e-5)
        # Frames alone are at the first scale; behind the cut, frames 4 and 5, and before it, 2 and 3, one of two is.
        assert found["cut_bleeding"] == pytest.approx(1)

    def test_what_shows_through_a_cut_is_seen(self):
        other = SLOPE[:, ::-1]
        little = SLOPE + np.float32(0.01)
        maps = [SLOPE, SLOPE, little, little, (SLOPE + other) / 2, (SLOPE + other) / 2, SLOPE, SLOPE]
        found = one_clip._bleeding(Fake(*maps), 8)
        assert found == pytest.approx(np.abs(SLOPE - other).mean() / 2 / 0.01, rel=0.01)
        assert one_clip._bleeding(Fake(*maps[:2], *maps[:2], *maps[4:]), 8) == 1000


class TestRows:
    def test_a_share_is_the_median_of_the_turns(self, commands, engines, untrained, monkeypatch):
        engines(off=Fake(SLOPE), on=Fake(SLOPE))
        network, whole = iter((1.0, 2.0, 3.0, 6.0, 1.0, 2.0)), iter((2.0, 4.0, 4.0, 8.0, 4.0, 8.0))
        stages = dict.fromkeys(one_clip.STAGES, 0.4)
        monkeypatch.setattr(clips, "by_stages", lambda job, predictor: ({**stages, "network": next(network)}, 8))
        monkeypatch.setattr(clips, "all_at_once", lambda job, predictor: next(whole))
        off, on = measured(runs=10)[Video]  # 3 turns of both, as they are long
        assert (off.share, on.share) == (0.5, 0.5)  # of 1/2, 3/4, 1/4 and 2/4, 6/8, 2/8
        assert (off.network_fps, on.network_fps) == (8, 4) and (off.clip_fps, on.clip_fps) == (2, 1)
        assert (off.faster, on.faster, on.reference) == (1, 0.5, "off, fake fp32")
        assert (off.network_ms, off.read_ms, off.frames) == (125, pytest.approx(50), 8)
        assert (off.process_s, off.process_fps, off.peak_mb) == (4, 2, 300)
        assert len(commands) == 6

    def test_a_network_that_takes_its_time_leaves_the_rest_beside_it(self, commands, engines, untrained, frames):
        engines(off=Fake(SLOPE, network=0.03), on=Fake(SLOPE))
        off, _ = measured(clip=frames)[Video]
        assert off.frames == 6 and off.clip == "frames" and off.clip_size == SIZE
        assert 30 <= off.network_ms == pytest.approx(1000 / off.network_fps)
        assert off.clip_fps < 1 / 0.03 and off.share == pytest.approx(off.clip_fps / off.network_fps)

    def test_the_commands_are_told_what_was_asked(self, commands, engines, untrained):
        engines(off=Fake(SLOPE), on=Fake(SLOPE), vda=Fake(SLOPE))
        model = ModelChoice(encoder="vits", trust=True)
        measured(model=model, precision="fp32", device="cpu", backends=("torch",), input_size=56)
        said = [" ".join(command) for command in commands]
        for words, name, steady in zip(said, ("vits", "vits", "vda-vits"), (" --steady off", " --steady on", "")):
            assert words.startswith("video ") and "--max-frames 8 " in words and words.endswith(steady)
            assert f"--model {name} --checkpoint random.safetensors --offline" in words
            assert "--backend torch --device cpu --precision fp32 --input-size 56 --trust-checkpoint" in words
        assert len(said) == 3 and "--steady" not in said[2]

    def test_random_weights_are_named_and_have_no_steadiness(self, commands, engines, untrained):
        engines(off=Fake(SLOPE), on=Fake(SLOPE), vda=Fake(SLOPE))
        rows = measured(model=ModelChoice(encoder="vits"))
        assert rows[Machine][0].random_weights
        assert [row.steady for row in rows[Video]] == ["off", "on", "vda"]
        for row in rows[Video]:
            assert row.random_weights and row.network_fps > 0 and row.error == ""
            assert [getattr(row, name) for name in FIGURES] == 6 * [None]

    @pytest.mark.parametrize(
        ("choice", "models"),
        [
            (TINY, ["tiny", "tiny"]),
            (ModelChoice(encoder="vitb"), ["vitb", "vitb", "vda-vitb"]),
            (ModelChoice(model="metric-indoor-vits"), ["metric-indoor-vits", "metric-indoor-vits", "vda-metric-vits"]),
            (ModelChoice(encoder="vitg"), ["vitg", "vitg"]),
            (ModelChoice(model="vda-vits"), ["vda-vits"]),
        ],
        ids=str,
    )
    def test_a_model_for_video_is_there_for_those_that_have_one(self, commands, engines, untrained, choice, models):
        engines(off=Fake(SLOPE), on=Fake(SLOPE), vda=Fake(SLOPE))
        rows = measured(model=choice)
        assert [row.model for row in rows[Video]] == models
        assert (rows[Machine][0].gflop is None) == (models == ["vda-vits"])

    def test_every_row_is_one_line_of_json_with_all_its_fields(self, commands, engines, monkeypatch):
        monkeypatch.setenv("DEPTHCLI_CACHE", "mine")
        engines(off=Fake(SLOPE), on=Fake(SLOPE))
        rows = measured()
        assert list(rows) == [Machine, Video, Load]
        for kind, items in rows.items():
            for row in items:
                line = row.to_json()
                facts = json.loads(line)
                assert "\n" not in line and facts.pop("row") == kind.__name__.lower()
                assert set(facts) == {item.name for item in fields(kind)}
        assert rows[Machine][0].picture_size == synthetic_clips.SIZE and rows[Machine][0].pictures == 8
        assert rows[Video][0].clip == "synthetic" and rows[Video][0].flicker == 0
        assert os.environ["DEPTHCLI_CACHE"] == "mine"


class TestEnginesThatFail:
    def test_one_becomes_a_row_that_says_why(self, commands, engines, untrained):
        engines(off=Broken(SLOPE), on=Fake(SLOPE))
        off, on = measured()[Video]
        assert (off.error, off.network_fps) == ("KeyError: 'no such thing'", None)
        assert (on.error, on.faster, on.reference) == ("", 1, "on, fake fp32")
        assert len(commands) == 1

    def test_nothing_is_measured_without_any(self, commands, engines):
        broken = Broken(SLOPE)
        engines(off=broken, on=broken)
        with pytest.raises(EngineError, match="no such thing"):
            measured()
        assert broken.closed and not commands

    def test_a_command_that_fails_says_its_last_word(self, engines, untrained, frames, monkeypatch):
        engines(off=Fake(SLOPE), on=Fake(SLOPE))
        monkeypatch.setattr(
            clips,
            "run_alone",
            lambda arguments: Ended(0.0, None, "the disk is full") if "off" in arguments else Ended(4.0, None),
        )
        off, on = measured(clip=frames)[Video]
        assert (off.error, on.error, on.peak_mb) == ("the disk is full", "", None)


def test_random_weights_of_a_model_for_video_give_maps_that_can_be_painted(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, other = (random_weights(ROW, folder) for folder in folders)
    assert one.sha256 == other.sha256
    engine = open_backend(ROW, one, BackendChoice("torch", "cpu"))
    images = np.random.default_rng(0).normal(size=(2, 3, 70, 98)).astype(np.float32)
    encoded = [frame for image in images for frame in engine.run({"image": image[None]}, "encode")["features"]]
    maps = engine.run({"features": [*encoded, *(30 * encoded[1:])]}, "decode")["depth"]
    assert maps.shape == (32, 70, 98) and 0.05 < np.ptp(maps[0]) < 5
    assert np.abs(np.diff(maps[0])).mean() < 0.05 * np.ptp(maps[0])
