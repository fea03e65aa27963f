"""Clips by a diffusion model: ended anywhere, also inside a window, they come to the same bytes."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import tracemalloc
from collections import deque
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.choices.clips import ClipChoice, DiffusionChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import PictureError
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.formats import CLIP_ROWS, CRAFTER_FILES
from depthcli.io.video.clip import Frame
from depthcli.io.video.reader import open_clip
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob, Progress
from depthcli.jobs.manifest import DONE, FAILED, Result
from depthcli.pixels.colormap import color_table
from depthcli.pixels.preprocess import resize_pixels
from depthcli.predict.clip import FrameLoop
from depthcli.predict.denoised import WindowsOfNoise
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from tests.conftest import ROOT, environment, tree
from tests.denoiser import StandIn

CHOICE = DiffusionChoice(steps=3, window=6, overlap=2)
WEIGHTS = WeightsFile(Path("fake.safetensors"), "0" * 64, "here")


def predictor(choice: DiffusionChoice = CHOICE, network: StandIn | None = None) -> WindowsOfNoise:
    return WindowsOfNoise(find_row("depthcrafter"), WEIGHTS, network or StandIn(), choice)


def shots(folder: str, *lengths: int) -> None:
    """Frames of several shots, numbered on."""
    Path(folder).mkdir()
    index = 0
    for shot, length in enumerate(lengths):
        shown = np.random.default_rng(shot).integers(0, 255, (8, 12, 3), np.uint8)
        for step in range(length):
            frame = Image.fromarray(np.roll(shown, step // 4, axis=1)).resize((128, 64), Image.Resampling.NEAREST)
            frame.save(f"{folder}/{index:04}.png")
            index += 1


def job(source: str = "shot", folder: str = "out", **facts) -> ClipJob:
    outputs = [("npz", Path(folder) / "a_depth_npz"), ("mp4", Path(folder) / "a_depth.mp4")]
    return ClipJob(source, outputs, model=ModelChoice("depthcrafter"), clip=ClipChoice(diffusion=CHOICE), **facts)


def run(clip_job: ClipJob, stop=lambda: False, seen: list | None = None, **predicting) -> Result | None:
    result = None
    for event in run_clip(clip_job, lambda: predictor(**predicting), stop):
        if isinstance(event, Progress):
            (seen if seen is not None else []).append(event)
        else:
            result = event
    return result


def after(calls: int):
    left = iter(range(calls))
    return lambda: next(left, None) is None


def maps(folder: str) -> list[np.ndarray]:
    return [read_depth(path).values for path in sorted(Path(folder).iterdir())]


def crafter_job(folder: str, *names: str) -> ClipJob:
    outputs = [(name, Path(folder) / f"shot{CLIP_ROWS[name].clip}") for name in names]
    clip = ClipChoice(exact=True, scenes=False, diffusion=CHOICE)
    return ClipJob("shot", outputs, model=ModelChoice("depthcrafter"), clip=clip)


def test_official_files_have_the_network_size_and_one_range_also_after_stops():
    shots("shot", 9, 7)
    for path in Path("shot").iterdir():
        with Image.open(path) as picture:
            picture.resize((150, 70)).save(path)
    names = [row.name for row in CRAFTER_FILES]
    assert run(crafter_job("whole", *names)).status == DONE
    with np.load("whole/shot.npz") as file:
        depth = file["depth"]
    assert depth.shape == (16, 64, 128) and depth.min() == 0 and depth.max() == 1
    for name, colormap in (("depth", "gray"), ("vis", "inferno"), ("input", "")):
        with open_clip(Path(f"whole/shot_{name}.mp4")) as film:
            frames = [frame.rgb for frame in film.frames()]
        assert len(frames) == 16 and frames[0].shape == (64, 128, 3)
        if colormap:
            wanted = color_table(colormap)[(depth[3] * 255).astype(np.uint8)]
        else:
            wanted = resize_pixels(np.asarray(Image.open("shot/0003.png")), (128, 64))
        assert np.abs(frames[3].astype(float) - wanted).mean() < 12  # 4:2:0 of blocks
    for calls in (3, 5, 7, 4, 6, 9, 12, 15):  # films begin anew, so the last run is not stopped
        assert run(crafter_job("out", *names), after(calls)) is None
    assert run(crafter_job("out", *names)).status == DONE
    assert tree("out") == tree("whole")


def test_constant_depth_is_0_in_official_files():
    class Flat(StandIn):
        def decode(self, latents):
            return np.full_like(super().decode(latents), 0.3)

    shots("shot", 3)
    assert run(crafter_job("out", "crafter-npz"), network=Flat()).status == DONE
    with np.load("out/shot.npz") as file:
        assert not file["depth"].any()


def test_a_cut_begins_anew():
    shots("both", 9, 7)
    shots("first", 9)
    assert run(job("both", "a")).status == DONE
    assert run(job("first", "b")).status == DONE
    both, first = maps("a/a_depth_npz"), maps("b/a_depth_npz")
    assert len(both) == 16 and all(map(np.array_equal, both[:9], first))
    Path("second").mkdir()
    for index in range(9, 16):
        Path(f"both/{index:04}.png").rename(f"second/{index - 9:04}.png")
    assert run(job("second", "c")).status == DONE
    assert all(map(np.array_equal, both[9:], maps("c/a_depth_npz")))


def test_stopped_after_any_piece_it_goes_on_from_there():
    shots("shot", 9, 7)
    assert run(job(folder="whole")).status == DONE
    network, seed, runs = StandIn(), random.Random(5), 10
    for _ in range(runs):  # too short to write a film, so none of them ends
        assert run(job(), after(seed.randint(3, 9)), network=network) is None
    assert run(job(), network=network).status == DONE
    assert tree("out") == tree("whole")
    once = StandIn()
    assert run(job(folder="again"), network=once).status == DONE
    # What was stopped had done its piece; nothing of it was done twice.
    for name in ("encode", "denoise"):
        assert sum(call[0] == name for call in network.calls) <= sum(call[0] == name for call in once.calls) + runs


KILLED = """
import os, sys
sys.path.insert(0, {root!r})
from tests.denoiser import StandIn
from tests.jobs import test_clip_denoised as module

left = [int(sys.argv[1])]

class Dying(StandIn):
    def _count(self):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)

    def encode(self, *arguments):
        self._count()
        return super().encode(*arguments)

    def denoise(self, *arguments):
        self._count()
        return super().denoise(*arguments)

    def decode(self, *arguments):
        self._count()
        return super().decode(*arguments)

print(module.run(module.job(), network=Dying()).status)
"""


@pytest.mark.slow  # a dozen processes
def test_killed_at_random_it_ends_with_the_same_bytes():
    shots("shot", 9, 7)
    assert run(job(folder="whole")).status == DONE
    seed, ends = random.Random(11), []
    while not ends or ends[-1] != 0:
        command = [sys.executable, "-c", KILLED.format(root=str(ROOT)), str(seed.randint(9, 14))]
        ends.append(subprocess.run(command, env=environment(), timeout=120).returncode)
        assert len(ends) < 30
    assert ends.count(9) >= 3 and tree("out") == tree("whole")


def test_progress_names_window_and_step_and_counts_what_was_worked():
    shots("shot", 9, 7)
    seen: list[Progress] = []
    assert run(job(), seen=seen).status == DONE
    made = [event for event in seen if event.stage == "depth"]
    assert {"window 1, step 1 of 3", "window 2, step 2 of 3"} <= {event.doing for event in made}
    frames = [event.frames for event in made]
    assert frames == sorted(frames) and frames[-1] == 16 and made[-1].total == 16


def test_options_that_shape_depth_are_noted_and_change_it():
    shots("shot", 9)
    assert run(job()).status == DONE
    noted = job().settings_text
    assert "steps=3 window=6 overlap=2 guidance=1.0 seed=42 max-res=1024" in noted
    other = replace(CHOICE, seed=43)
    clip_job = replace(job(folder="other"), clip=ClipChoice(diffusion=other))
    assert run(clip_job, choice=other).status == DONE
    assert not np.array_equal(maps("out/a_depth_npz")[0], maps("other/a_depth_npz")[0])


def test_a_window_too_large_for_the_memory_is_refused_with_one_that_fits():
    class Small(StandIn):
        on_gpu, width = True, 320

        def free_memory(self):
            return int(21e9)

    choice = DiffusionChoice()
    with pytest.raises(PictureError, match=r"`window` (\d+) or `max_res` (\d+) would fit") as refused:
        predictor(choice, Small()).begin((1920, 1080), frames=3000)
    window, size = (int(word) for word in refused.value.hint.split() if word.isdigit())
    fitting = predictor(replace(choice, window=window), Small())
    assert fitting.begin((1920, 1080), frames=3000).input_size == (1024, 576)
    with pytest.raises(PictureError):
        predictor(replace(choice, window=window + 1), Small()).begin((1920, 1080), frames=3000)
    row = find_row("depthcrafter").with_input_size(size)
    assert WindowsOfNoise(row, WEIGHTS, Small(), choice).begin((1920, 1080), frames=3000).input_size[0] == size
    assert predictor(choice, Small()).begin((1920, 1080), frames=window)  # a short clip is one short window


def test_a_broken_answer_fails_the_clip():
    class Broken(StandIn):
        def decode(self, latents):
            return super().decode(latents) * np.float32(np.nan)

    shots("shot", 9)
    result = run(job(), network=Broken())
    assert result.status == FAILED and "NaN" in result.error


@pytest.mark.slow  # every allocation is traced
def test_what_is_allocated_does_not_grow_with_the_clip():
    rgb, peaks = np.zeros((64, 64, 3), np.uint8), []
    for count in (30, 60, 300):  # the first loads what is loaded once
        gc.collect()
        network = StandIn()
        network.calls = deque(maxlen=1)
        loop = FrameLoop(predictor(network=network), (64, 64), threads=False)
        tracemalloc.start()
        made = sum(len(maps) for maps in loop.run(Frame(i, Fraction(i), Fraction(1), rgb) for i in range(count)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert made == count
    # A frame has 12 KB, and its map 16 KB. What waits for the collector of cycles may be some KB more or less.
    assert peaks[2] < 1.05 * peaks[1] + 64 * 1024
