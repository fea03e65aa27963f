"""Every engine for models that see a window of frames gives what the network gives."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from depthcli.backends import CLIP_BACKENDS, Backend, open_backend, torch_eager
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError, EngineError, PictureError, UsageError
from depthcli.host import graph_cache
from depthcli.host.memory import predict_clip_bytes
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import build_network
from depthcli.pixels.preprocess import plan_input
from depthcli.temporal.windows import Windows
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import Bound, InputPolicy, find_row
from depthcli.zoo.verify import digest
from tests.nets.test_video_depth_anything import ROW, SMALL, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> WeightsFile:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(small_network().state_dict(), str(path))
    return WeightsFile(path, digest(path), "test")


@pytest.fixture
def images() -> np.ndarray:
    # On smaller ones the norms of the motion modules, over few places, blow rounding up.
    return np.random.RandomState(0).standard_normal((32, 3, 70, 98)).astype(np.float32)


def opened(checkpoint: WeightsFile, *choice: str) -> Backend:
    return open_backend(ROW, checkpoint, BackendChoice(*choice))


def answer(backend: Backend, images: np.ndarray) -> np.ndarray:
    pairs = (backend.run({"image": images[start : start + 2]}, "encode") for start in range(0, 32, 2))
    return backend.run({"features": [frame for pair in pairs for frame in pair["features"]]}, "decode")["depth"]


ENGINES = [name for name in CLIP_BACKENDS if name == "torch" or find_spec(name)]


@pytest.mark.parametrize("name", ["auto", *ENGINES])
def test_the_answer_is_that_of_the_network(checkpoint, images, name) -> None:
    backend = opened(checkpoint, name, "cpu", "fp32")
    found = answer(backend, images)
    with torch.inference_mode():
        wanted = small_network()(torch.from_numpy(images)).numpy()
    assert found.shape == (32, 70, 98) and found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 2e-5 * wanted.max()
    assert "cpu fp32" in backend.traits.description
    backend.close()
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        backend.run({"image": images[:1]}, "encode")


def test_a_shot_goes_on_with_the_same_bits(checkpoint) -> None:
    backend = opened(checkpoint)
    images = np.random.RandomState(1).standard_normal((40, 3, 28, 28)).astype(np.float32)
    windows, later = Windows(backend, metric=False), Windows(backend, metric=False)
    for image in images[:32]:
        windows.feed(image)
    later.restore(windows.state())
    for image in images[32:]:
        assert windows.feed(image) == later.feed(image) == []
    assert np.array_equal(windows.finish(), later.finish())


@pytest.mark.skipif(not HAS_FUSED, reason="needs torch 2.0")
def test_bf16_is_close_and_ends_in_float32(checkpoint, images) -> None:
    found = answer(opened(checkpoint, "torch", "cpu", "bf16"), images)
    wanted = answer(opened(checkpoint, "torch", "cpu", "fp32"), images)
    assert 0 < np.abs(found - wanted).mean() <= 0.02 * wanted.std()
    # bf16 has eight bits; the last convolutions, and so the answer, have more.
    assert len(np.unique(found)) > 0.5 * found.size


def test_every_batch_has_one_size() -> None:
    for batch in (*torch_eager._FRAMES.values(), torch_eager._FRAMES_ON_DEVICES):
        assert all(frames % batch == 0 for frames in (10, 22, 32))


def test_what_does_not_fit_is_said_before_it_is_tried(checkpoint, monkeypatch) -> None:
    backend = opened(checkpoint, "torch", "cpu")
    plan = plan_input(1920, 1080, InputPolicy(518, Bound.SHORTER_SIDE_16_9))
    backend.check(plan, backend.traits.best_batch)
    monkeypatch.setattr("depthcli.backends.torch_eager.free_memory", lambda: 10**9)
    with pytest.raises(
        PictureError, match=r"32 frames of 924x518 .* GB are free .*`input_size` \d+ would fit"
    ) as error:
        backend.check(plan, backend.traits.best_batch)
    size = int(error.value.hint.split()[1])
    assert predict_clip_bytes(SMALL, plan_input(1920, 1080, InputPolicy(size, Bound.SHORTER_SIDE_16_9))) <= 10**9
    monkeypatch.setattr("depthcli.backends.torch_eager.free_memory", lambda: 10**3)
    with pytest.raises(PictureError, match="a machine with more memory"):
        backend.check(plan, backend.traits.best_batch)


def test_what_cannot_be_is_refused(checkpoint, tmp_path) -> None:
    with pytest.raises(UsageError, match="onnx does not run video models"):
        opened(checkpoint, "onnx")
    with pytest.raises(EngineError, match="int8"):
        opened(checkpoint, "torch", "cpu", "int8")
    path = tmp_path / "picture.safetensors"
    save_file(build_network(SMALL).state_dict(), str(path))
    with pytest.raises(CheckpointError, match="is not a checkpoint of Video-Depth-Anything Small"):
        open_backend(ROW, WeightsFile(path, digest(path), "test"))
    with pytest.raises(CheckpointError, match="a video model"):
        open_backend(dataclasses.replace(find_row("vits"), network=SMALL), checkpoint)


@pytest.mark.skipif(not find_spec("openvino"), reason="needs openvino")
def test_what_openvino_compiled_is_kept_and_found_again(checkpoint, images, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "graphs"))
    first = opened(checkpoint, "openvino")
    wanted = answer(first, images)
    first.close()
    (entry,) = graph_cache.entries()
    assert entry.name.startswith("vda-vits-")
    monkeypatch.setattr("depthcli.backends.converted._trace", None)  # nothing is converted again
    again = opened(checkpoint, "openvino")
    assert np.array_equal(answer(again, images), wanted)
    again.close()
