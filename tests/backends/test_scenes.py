"""Every engine for networks that see the views of a scene gives what the network gives."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib.util import find_spec
from threading import Thread

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from depthcli.backends import SCENE_BACKENDS, Backend, converts_scenes, open_backend
from depthcli.choices.model import BackendChoice
from depthcli.errors import EngineError, PictureError, StoppedError, UsageError
from depthcli.host import graph_cache
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.dual_dpt import DualHead
from depthcli.nets.vit import Block
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from depthcli.zoo.verify import digest
from tests.conftest import environment
from tests.nets import da3

pytestmark = pytest.mark.usefixtures("one_thread")

ROW = dataclasses.replace(find_row("da3-small"), network=da3.VIEWS)
ENGINES = [name for name in SCENE_BACKENDS if name == "torch" or (find_spec(name) and converts_scenes())]
CONVERTED = [name for name in ENGINES if name != "torch"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> WeightsFile:
    path = tmp_path_factory.mktemp("weights") / "views.safetensors"
    save_file(da3.network("views").state_dict(), str(path))
    return WeightsFile(path, digest(path), "test")


def opened(checkpoint: WeightsFile, name: str, precision: str = "fp32") -> Backend:
    return open_backend(ROW, checkpoint, BackendChoice(name, "cpu", precision))


def check(found, wanted, bound: float = 1e-5) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        value = np.asarray(value)
        assert np.abs(found[name] - value).max() <= bound * np.abs(value).max(), name
        assert found[name].shape == value.shape


@pytest.mark.parametrize("name", ENGINES)
def test_the_answer_is_that_of_the_network_at_every_number_and_size_of_views(checkpoint, name) -> None:
    backend = opened(checkpoint, name)
    network, references = da3.network("views"), set()
    for count, height, width in ((1, 28, 42), (2, 42, 28), (5, 28, 42), (3, 70, 56)):
        views = da3.views(count, height, width)
        with torch.inference_mode():
            wanted = network(views)
        found = backend.run({"image": views.numpy()}, "views")
        check(found, wanted)
        references.add(int(found["reference"]))
    assert len(references) > 1  # so it was chosen
    assert backend.traits.graphs == ("views",) and "cpu fp32" in backend.traits.description
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        backend.run({"image": views.numpy()}, "views")


@pytest.mark.parametrize("name", ENGINES)
def test_cameras_strategies_and_rays_reach_the_network(checkpoint, name) -> None:
    backend, network, views = opened(checkpoint, name), da3.network("views"), da3.views(5)
    known = da3.cameras(5)
    with torch.inference_mode():
        posed, middle = network(views, **known, rays=True), network(views, reference="middle")
    arrays = {key: value.numpy() for key, value in known.items()}
    check(backend.run({"image": views.numpy(), **arrays, "rays": True}, "views"), posed)
    found = backend.run({"image": views.numpy(), "reference": "middle"}, "views")
    check(found, middle)
    assert found["reference"] == 2
    backend.close()


@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_network_is_kept_and_runs_without_torch(checkpoint, name, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path))
    views = da3.views(3).numpy()
    first = opened(checkpoint, name)
    wanted = first.run({"image": views}, "views")
    first.close()
    monkeypatch.setattr("depthcli.graphs.any_size.trace_any_size", None)
    again = opened(checkpoint, name)
    found = again.run({"image": views}, "views")
    again.close()
    assert all(np.array_equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.skipif("openvino" not in ENGINES or not HAS_FUSED, reason="bf16 needs OpenVINO")
def test_cameras_stay_in_float32(checkpoint) -> None:
    """The parts for cameras are as exact as in float32; what the encoder rounds reaches them."""
    views, known = da3.views(3).numpy(), {key: value.numpy() for key, value in da3.cameras(3).items()}
    try:
        backend = opened(checkpoint, "openvino", "bf16")
    except EngineError:
        pytest.skip("this CPU does not compute in bf16")
    exact = opened(checkpoint, "openvino").run({"image": views, **known}, "views")
    found = backend.run({"image": views, **known}, "views")
    backend.close()
    assert 1e-5 < np.abs(found["depth"] / exact["depth"] - 1).mean() < 0.02
    assert np.abs(found["extrinsics"] - exact["extrinsics"]).max() < 0.05


def test_what_a_backend_does_not_compute_is_said(checkpoint) -> None:
    for name in CONVERTED:
        backend = opened(checkpoint, name)
        with pytest.raises(EngineError, match="Gaussians"):
            backend.run({"image": da3.views(1).numpy(), "gaussians": True}, "views")
        backend.close()
        with pytest.raises(UsageError, match=f"{name} does not run da3-giant"):
            open_backend(find_row("da3-giant"), checkpoint, BackendChoice(name))
    with pytest.raises(UsageError, match="onnx does not run"):
        open_backend(ROW, checkpoint, BackendChoice("onnx"))


@pytest.mark.parametrize("name", ENGINES)
def test_more_views_than_fit_are_refused_with_the_number_that_does(checkpoint, name) -> None:
    backend = opened(checkpoint, name)
    with pytest.raises(
        PictureError, match=r"`chunk` [0-9]+ takes all, so many at a time; `max_views` [0-9]+ would fit"
    ):
        backend.check(InputPlan((504, 504), (504, 504)), 10**6)
    backend.check(InputPlan((42, 28), (42, 28)), 3)
    backend.close()


class Asked:
    """A function for "stop": True from its `end`-th call on."""

    def __init__(self, end: int) -> None:
        self.end, self.calls = end, 0

    def __call__(self) -> bool:
        self.calls += 1
        return self.calls >= self.end


@pytest.mark.parametrize("name", ENGINES)
def test_a_run_that_is_told_to_stop_ends_there_and_the_next_one_is_unharmed(checkpoint, name) -> None:
    backend, inputs = opened(checkpoint, name), {"image": da3.views(4).numpy(), "rays": True}
    wanted, never = backend.run(inputs, "views"), Asked(10**9)
    found = backend.run({**inputs, "stop": never}, "views")
    assert never.calls > 10 and all(np.array_equal(found[key], wanted[key]) for key in wanted)
    for end in (1, never.calls // 2, never.calls):
        stop = Asked(end)
        with pytest.raises(StoppedError):
            backend.run({**inputs, "stop": stop}, "views")
        assert stop.calls == end, "it is not asked once more"
        again = backend.run(inputs, "views")
        assert all(np.array_equal(again[key], wanted[key]) for key in wanted)
    backend.close()


def test_no_block_begins_after_the_one_in_which_it_was_told_to_stop(checkpoint, monkeypatch) -> None:
    backend, begun = opened(checkpoint, "torch"), []

    def forward(self: Block, *inputs: torch.Tensor) -> torch.Tensor:
        begun.append(self)
        return whole(self, *inputs)

    whole = Block.forward
    monkeypatch.setattr(Block, "forward", forward)
    for blocks in (1, 3):
        begun.clear()
        with pytest.raises(StoppedError):
            backend.run({"image": da3.views(2).numpy(), "stop": lambda most=blocks: len(begun) >= most}, "views")
        assert len(begun) == blocks
    backend.close()


def test_heads_stop_between_two_views(checkpoint, monkeypatch) -> None:
    backend, done = opened(checkpoint, "torch"), []
    whole = DualHead.depth
    monkeypatch.setattr(DualHead, "depth", lambda *inputs: (done.append(1), whole(*inputs))[1])
    with pytest.raises(StoppedError):
        backend.run({"image": da3.views(5).numpy(), "stop": lambda: len(done) == 2}, "views")
    backend.close()


def test_another_thread_runs_on_in_a_network_that_is_told_to_stop(checkpoint) -> None:
    backend, inputs = opened(checkpoint, "torch"), {"image": da3.views(3).numpy()}
    wanted, others = backend.run(inputs, "views"), []

    def stop() -> bool:
        thread = Thread(target=lambda: others.append(backend.run(inputs, "views")))
        thread.start()
        thread.join()
        return True

    with pytest.raises(StoppedError):
        backend.run({**inputs, "stop": stop}, "views")
    assert len(others) == 1 and all(np.array_equal(others[0][key], wanted[key]) for key in wanted)
    backend.close()


@pytest.mark.skipif("openvino" not in ENGINES, reason="it cuts a run of OpenVINO")
@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_openvino_is_cut_within_a_part(checkpoint, monkeypatch, error) -> None:
    """The encoder over all views is one part: it ends long before it is done, and its request runs again."""
    monkeypatch.setattr("depthcli.backends.openvino._LOOK_MS", 1)
    backend, inputs = opened(checkpoint, "openvino"), {"image": da3.views(6, 280, 280).numpy()}
    wanted, ended = backend.run(inputs, "views"), []

    class Request:
        """That of the encoder over all views, which notes how it ended."""

        def __init__(self, request) -> None:
            self._request = request

        def __getattr__(self, name: str):
            return getattr(self._request, name)

        def wait_for(self, milliseconds: int) -> bool:
            done = self._request.wait_for(milliseconds)
            assert not done, "it is done before anybody asks"
            raise error

        def wait(self) -> None:
            try:
                self._request.wait()
            except RuntimeError as cut:
                ended.append(str(cut))
                raise

    usual = backend._requests["relate"]
    backend._requests["relate"] = Request(usual)
    with pytest.raises(error):
        backend.run({**inputs, "stop": lambda: False}, "views")
    assert len(ended) == 1 and "cancel" in ended[0].lower()
    backend._requests["relate"] = usual
    again = backend.run(inputs, "views")
    assert all(np.array_equal(again[key], wanted[key]) for key in wanted)
    backend.close()


_PRESSED = """
import os, signal, sys, threading
from pathlib import Path
from depthcli.cli.report import stop_signals
from tests.backends.test_scenes import WeightsFile, da3, opened
backend = opened(WeightsFile(Path(sys.argv[1]), sys.argv[2], "test"), "openvino")
usual = backend._requests["relate"]
class Request:
    def start_async(self, *inputs, **options):
        usual.start_async(*inputs, **options)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    def __getattr__(self, name):
        return getattr(usual, name)
backend._requests["relate"] = Request()
with stop_signals(quiet=True) as stop:
    stop.at_once = True  # as `depth scene` does
    try:
        backend.run({"image": da3.views(24, 280, 280).numpy()}, "views")
    except KeyboardInterrupt:
        try:
            usual.wait()
        except RuntimeError as error:
            print(error)
"""


@pytest.mark.skipif("openvino" not in ENGINES, reason="it cuts a run of OpenVINO")
def test_ctrl_c_reaches_a_scene_while_openvino_computes(checkpoint) -> None:
    command = [sys.executable, "-c", _PRESSED, str(checkpoint.path), checkpoint.sha256]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert "cancel" in ran.stdout.lower(), ran.stdout + ran.stderr
