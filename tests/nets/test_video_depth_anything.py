"""Video-Depth-Anything gives what its official code gives, and without its motion modules what Depth Anything V2 gives.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold the network to those as well.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli.errors import CheckpointError
from depthcli.nets import motion, video_depth_anything
from depthcli.nets.build import _MetaDevice, build_network, load_network
from depthcli.nets.video_depth_anything import VideoDepthAnything
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.temporal.windows import Windows
from depthcli.zoo.rows import Bound, InputPolicy, NetworkConfig, find_row
from tests.fake_backend import FakeBackend, clip_backend
from tests.reference import reference_clip, reference_state

DATA = Path(__file__).parents[1] / "data"
NAME = re.compile(r"vda_(relative|metric)_(vit\w)_n(\d+)_(\d+)x(\d+)_s(\d+)")
MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
FILES = sorted(DATA.glob("vda_*.npz")) + (sorted(MORE.glob("vda_*.npz")) if MORE else [])
# 2.1e-6 was measured with torch 2.13, 2.0e-6 with 1.13; a wrong LayerNorm epsilon moves the answer by 4e-6 and more.
TOLERANCE = 3e-6

pytestmark = pytest.mark.usefixtures("one_thread")

# sha256 of the names and shapes in the official checkpoints, one a line, sorted.
OFFICIAL = {"vits": "420af04eee17cc07", "vitb": "878fd01c5e0b16d2", "vitl": "53aed06f971840d6"}

SMALL = NetworkConfig(64, 4, 4, 32, (32, 32, 32, 64), (0, 1, 2, 3), position_grid=4)
ROW = replace(find_row("vda-vits"), network=SMALL)


def small_network() -> VideoDepthAnything:
    """A network with weights that leave nothing out: the motion modules' last layers are not zero here."""
    network = build_network(SMALL, temporal=True)
    assert isinstance(network, VideoDepthAnything)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    weights = {name: torch.from_numpy(values) for name, values in reference_state(shapes).items()}
    codes = network.load_state_dict(weights, strict=False)
    assert not codes.unexpected_keys and all(key.endswith(".pe") for key in codes.missing_keys)
    return network.eval().requires_grad_(False)


@functools.lru_cache(maxsize=1)
def reference_network(name: str) -> VideoDepthAnything:
    row = find_row(name)
    built = build_network(row.network, temporal=True).state_dict()
    weights = reference_state({key: tuple(value.shape) for key, value in built.items()})
    state = {key: torch.from_numpy(weights[key]) if key in weights else value for key, value in built.items()}
    network = load_network(row, state)
    assert isinstance(network, VideoDepthAnything)
    return network


def backend_of(network: VideoDepthAnything, best_batch: int = 4) -> FakeBackend:
    inference = torch.inference_mode()
    encode = inference(lambda images: network.encode(torch.from_numpy(images)))
    return clip_backend(encode, inference(lambda frames: network.decode(frames).numpy()), best_batch)


@pytest.mark.parametrize("encoder", OFFICIAL)
def test_tensors_have_the_official_names_and_shapes(encoder: str) -> None:
    with _MetaDevice():
        state = build_network(find_row(f"vda-{encoder}").network, temporal=True).state_dict()
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(state.items()))
    assert hashlib.sha256(lines.encode()).hexdigest().startswith(OFFICIAL[encoder])


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
@pytest.mark.slow
def test_official_answer_is_reproduced(path: Path) -> None:
    match = NAME.fullmatch(path.stem)
    assert match
    kind, encoder = match.group(1, 2)
    frames, height, width, size = (int(number) for number in match.group(3, 4, 5, 6))
    golden = np.load(path)
    stride = int(golden.get("stride", 1))
    maximum = golden["maximum"] if "maximum" in golden else golden["depth"].max()

    # The two networks differ in nothing but their weights, which are random here.
    network = backend_of(reference_network(f"vda-{encoder}"))
    plan = plan_input(width, height, InputPolicy(size, Bound.SHORTER_SIDE_16_9))
    windows = Windows(
        network, metric=kind == "metric", exact=True, resize=lambda values: resize_bilinear(values, (width, height))
    )
    clip = reference_clip(frames, height, width)
    depth = [values for frame in clip for values in windows.feed(to_network_input(frame, plan))] + windows.finish()
    assert np.shape(depth) == (frames, height, width)
    error = np.abs(np.stack(depth)[:, ::stride, ::stride] - golden["depth"]).max() / maximum
    assert error <= TOLERANCE, f"off by {error:.1e} of the maximum"


def test_with_motion_modules_that_do_nothing_it_is_depth_anything_v2() -> None:
    network = small_network()
    for module in network.head.motion_modules:
        module.temporal_transformer.proj_out.weight.zero_()
        module.temporal_transformer.proj_out.bias.zero_()
    picture = build_network(SMALL).eval()
    picture.load_state_dict(
        {
            re.sub("^head", "depth_head", name): tensor
            for name, tensor in network.state_dict().items()
            if "motion_modules" not in name
        }
    )
    torch.manual_seed(0)
    frames = torch.randn(5, 3, 28, 42)
    with torch.no_grad():
        wanted = picture(frames)
        assert wanted.min() > 0
        assert (network(frames) - wanted).abs().max() <= 1e-6 * wanted.max()


def test_an_untrained_motion_module_changes_nothing() -> None:
    x = torch.randn(3, 32, 4, 5)
    assert torch.equal(motion.MotionModule(32)(x), x)


def test_a_frame_sees_the_others_and_their_order() -> None:
    network = small_network()
    torch.manual_seed(0)
    frames = torch.randn(4, 3, 28, 28)
    alone, together = network(frames[:1])[0], network(frames)
    assert (alone - together[0]).abs().max() > 0.01 * alone.max()
    turned = network(frames.flip(0)).flip(0)
    assert (turned - together).abs().max() > 0.001 * together.max()


def test_frames_encoded_one_by_one_are_the_same() -> None:
    network = small_network()
    frames = torch.randn(6, 3, 28, 42)
    one_by_one = [taps for frame in frames for taps in network.encode(frame[None])]
    for taps, others in zip(network.encode(frames), one_by_one):
        for tap, other in zip(taps, others):
            assert torch.allclose(tap, other, atol=1e-6)


def test_what_is_worked_on_at_once_does_not_count(monkeypatch) -> None:
    network = small_network()
    taps = network.encode(torch.randn(9, 3, 42, 28))
    wanted = network.decode(taps)
    monkeypatch.setattr(video_depth_anything, "FINE_FRAMES", 9)
    monkeypatch.setattr(motion, "_PLACES_AT_ONCE", {"cpu": 5})
    assert torch.allclose(network.decode(taps), wanted, atol=1e-6 * float(wanted.max()))


def test_codes_of_a_frames_place() -> None:
    codes = motion.frame_positions(6)[0]
    place = torch.arange(32.0)
    assert codes.shape == (32, 6) and torch.equal(codes[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    for pair in range(3):
        angle = place / 10000 ** (2 * pair / 6)
        assert torch.allclose(codes[:, 2 * pair], angle.sin(), atol=1e-5)
        assert torch.allclose(codes[:, 2 * pair + 1], angle.cos(), atol=1e-5)


def test_a_checkpoint_is_loaded_with_the_codes_it_holds() -> None:
    source = small_network()
    state = source.state_dict()
    state[next(key for key in state if key.endswith(".pe"))].add_(1)
    network = load_network(ROW, state).requires_grad_(False)
    assert {name for name, _ in network.named_buffers()} == {name for name, _ in source.named_buffers()}
    frames = torch.randn(2, 3, 28, 28)
    assert torch.equal(network(frames), source(frames))


def test_checkpoints_of_pictures_and_of_video_are_told_apart() -> None:
    video = small_network().state_dict()
    pictures = build_network(SMALL).state_dict()
    with pytest.raises(CheckpointError, match=r"my\.pth is of Video-Depth-Anything, a video model"):
        load_network(replace(find_row("vits"), network=SMALL), video, "my.pth")
    with pytest.raises(
        CheckpointError, match=r"my\.pth is not a checkpoint of Video-Depth-Anything Small: it lacks head"
    ):
        load_network(ROW, pictures, "my.pth")
