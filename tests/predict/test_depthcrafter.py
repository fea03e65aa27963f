"""DepthCrafter against its official code, whole and left in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.choices.clips import ClipChoice, DiffusionChoice
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError, EngineError, UsageError
from depthcli.io.codecs.files import read_depth
from depthcli.io.video.exr_frames import exr_channels
from depthcli.predict import denoised
from depthcli.predict.denoised import WindowsOfNoise, open_denoised
from depthcli.zoo.locate import WeightsFile, find
from depthcli.zoo.rows import find_row
from tests.reference import reference_clip
from tests.reference_diffusion import CASES, Case, write_weights

pytest.importorskip("diffusers", reason="the extra `diffusion` is optional")
pytest.importorskip("accelerate", reason="the extra `diffusion` is optional")
ROW = find_row("depthcrafter")
CPU = BackendChoice(device="cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> WeightsFile:
    found = find(ROW, write_weights(tmp_path_factory.mktemp("hub")))
    assert found is not None and len(found.parts) == len(ROW.files)
    return found


@pytest.fixture(scope="module")
def network(weights):
    from depthcli.backends.diffusion import Diffusion

    return Diffusion(weights, CPU)


def predictor_of(case: Case, network, weights: WeightsFile) -> WindowsOfNoise:
    predictor = WindowsOfNoise(ROW, weights, network, case.choice, case.noise)
    assert predictor.begin((case.width, case.height)).input_size == (case.width, case.height)
    return predictor


def drained(predictor: WindowsOfNoise) -> list[np.ndarray]:
    maps: list[np.ndarray] = []
    while (answers := predictor.advance()) is not None:
        maps.extend(map(predictor.postprocess, answers))
    return maps


def maps_of(case: Case, predictor: WindowsOfNoise) -> np.ndarray:
    maps = []
    for frame in reference_clip(case.frames, case.height, case.width):
        predictor.feed(predictor.prepare(frame), cut=False)
        maps += drained(predictor)
    predictor.finish()
    return np.stack(maps + drained(predictor))


def check_maps(maps: np.ndarray, case: Case) -> None:
    """The maps are the official ones within 2e-4 of their range, as the official code's `depth` is in 0..1."""
    found = case.found()
    low, high = found["ends"]
    assert len(maps) == case.frames
    assert np.abs(maps[:, ::4, ::4] - found["decoded"]).max() < 2e-4 * (high - low)
    assert np.allclose([maps.min(), maps.max()], [low, high], atol=2e-4 * (high - low))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_maps_are_the_official_ones(case, network, weights):
    check_maps(maps_of(case, predictor_of(case, network, weights)), case)


@pytest.mark.parametrize("case", CASES[:4], ids=lambda case: case.name)
def test_a_frame_is_encoded_as_officially(case, network):
    found = case.found()
    for index, rgb in enumerate(reference_clip(case.frames, case.height, case.width)):
        frame = 2 * (rgb.transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)) - 1
        embedding, latents = network.encode(frame, case.noise(0, index, frame.shape))
        assert np.abs(embedding - found["embeddings"][index]).max() < 1e-5 * np.abs(found["embeddings"]).max()
        wanted = found["video_latents"]
        assert np.abs(latents[:, ::2, ::2] - wanted[index]).max() < 1e-5 * np.abs(wanted).max()


def test_left_and_restored_after_every_step_it_ends_with_the_same_bits(network, weights):
    case = CASES[3]
    whole = maps_of(case, predictor_of(case, network, weights))
    predictor, maps = predictor_of(case, network, weights), []

    def left() -> WindowsOfNoise:
        state = predictor.state()()
        other = predictor_of(case, network, weights)
        other.restore({name: array.copy() for name, array in state.items()})
        return other

    for frame in [*reference_clip(case.frames, case.height, case.width), None]:
        if frame is None:
            predictor.finish()
        else:
            predictor.feed(predictor.prepare(frame), cut=False)
        predictor = left()
        while (answers := predictor.advance()) is not None:
            maps.extend(map(predictor.postprocess, answers))
            predictor = left()
    assert np.array_equal(np.stack(maps), whole)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_what_is_brought_to_the_device_when_it_runs_computes_the_same_bits(offload, network, weights):
    case = CASES[2]
    moved = open_denoised(ROW, weights, ClipChoice(backend=CPU, diffusion=DiffusionChoice(cpu_offload=offload)))
    moved._choice, moved._noise = case.choice, case.noise
    moved.begin((case.width, case.height))
    assert np.array_equal(maps_of(case, moved), maps_of(case, predictor_of(case, network, weights)))


def test_offloading_needs_another_device(weights):
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a device to load from")
    with pytest.raises(UsageError, match="`cpu_offload` is for a GPU"):
        open_denoised(ROW, weights, ClipChoice(diffusion=DiffusionChoice(cpu_offload="model")))


def test_networks_that_do_not_fit_are_refused_before_they_are_read(weights, monkeypatch):
    from depthcli.backends.diffusion import Diffusion

    monkeypatch.setattr("depthcli.host.diffusion_memory.free_memory", lambda: 1_000_000)
    monkeypatch.setattr("depthcli.backends.diffusion.read_networks", None)
    with pytest.raises(EngineError, match=r"the networks take 0\.\d GB, and 0\.0 GB are free \(`precision` bf16"):
        Diffusion(weights, CPU)


def test_files_of_other_networks_are_refused(tmp_path, weights):
    from depthcli.backends.diffusion import Diffusion

    other = WeightsFile(weights.path, "", "", (weights.parts[2], *weights.parts[1:]))
    with pytest.raises(CheckpointError, match="does not fit"):
        Diffusion(other, CPU)


def ran_on(case: Case, weights: WeightsFile, monkeypatch, depth, *options: str) -> None:
    """Run the command on the frames of a case, in a folder, with the noise of the case."""
    monkeypatch.setattr(denoised, "counted_noise", lambda seed: case.noise)
    Path("shot").mkdir()
    for index, frame in enumerate(reference_clip(case.frames, case.height, case.width)):
        Image.fromarray(frame).save(f"shot/{index:03}.png")
    choice = case.choice
    how = [
        "--steps",
        choice.steps,
        "--window",
        choice.window,
        "--overlap",
        choice.overlap,
        "--guidance",
        choice.guidance,
    ]
    which = ["-m", "depthcrafter", "--checkpoint", weights.path.parents[1], "--accept-licence", "-d", "cpu"]
    ran = depth("video", "shot", *which, *how, *options, "-o", "out/")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_command_writes_the_official_maps(case, weights, monkeypatch, depth):
    ran_on(case, weights, monkeypatch, depth, "-f", "npz", "--scene", "off")
    maps = [read_depth(path) for path in sorted(Path("out/shot_depth_npz").iterdir())]
    check_maps(np.stack([found.values for found in maps]), case)
    assert maps[0].provenance.licence == "research and education only"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_exact_writes_the_official_files(case, weights, monkeypatch, depth):
    ran_on(case, weights, monkeypatch, depth, "-f", "mp4,npz,exr", "--exact")
    names = {"shot", "shot.npz", "shot_depth.mp4", "shot_vis.mp4", "shot_input.mp4"}
    assert {path.name for path in Path("out").iterdir()} == names | {f"{name}.json" for name in names}
    with np.load("out/shot.npz") as file:
        found = file["depth"]
    assert found.dtype == np.float32 and found.shape == (case.frames, case.height, case.width)
    assert found.min() == 0 and found.max() == 1
    wanted = case.found()
    low, high = wanted["ends"]
    assert np.abs(found[:, ::4, ::4] - (wanted["decoded"] - low) / (high - low)).max() < 2e-4
    frames = [Path(f"out/shot/frame_{index:04}.exr") for index in range(case.frames)]
    assert sorted(Path("out/shot").iterdir()) == frames
    assert all(exr_channels(path) == ((case.width, case.height), ["Z"]) for path in frames)
    assert np.array_equal(np.stack([read_depth(path).values for path in frames]), found)
