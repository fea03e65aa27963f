"""One picture through Depth Anything 3: relative depth, sky, and metres where a focal length is known."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from depthcli import DepthEstimator, DepthKind
from depthcli.backends import Backend, converts_scenes, open_backend
from depthcli.choices.camera import CameraChoice
from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import EngineError, UsageError
from depthcli.predict.clip import estimate_clip
from depthcli.predict.model import Model, resolve_model
from depthcli.predict.picture import NO_FOCAL, open_picture
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from depthcli.zoo.verify import digest
from tests.nets import da3
from tests.reference import filled_weights, reference_image

pytestmark = pytest.mark.usefixtures("one_thread")
BACKENDS = [name for name in ("torch", "openvino", "onnx") if find_spec({"onnx": "onnxruntime"}.get(name, name))]
PICTURE = reference_image(90, 120)
MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
OFFICIAL = sorted(MORE.glob("da3_pipeline_mono_n1_*.npz")) if MORE else []


def model(name: str) -> Model:
    """A small network in the place of a row's own, in a file like the official ones."""
    path = Path(f"{name}/model.safetensors")
    path.parent.mkdir(exist_ok=True)
    save_file({f"model.{key}": value for key, value in da3.network("mono").state_dict().items()}, str(path))
    return Model(replace(find_row(name), network=da3.SKY), WeightsFile(path, digest(path), "test"))


def estimator(name: str, backend: str = "torch", **options: object) -> DepthEstimator:
    return DepthEstimator(model(name), BackendChoice(backend), input_size=56, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_is_relative_larger_is_farther_and_sky_is_kept(backend: str) -> None:
    with estimator("da3-mono", backend) as mono:
        depth = mono.estimate(PICTURE)
    assert depth.kind is DepthKind.RELATIVE_DEPTH and not depth.kind.near_is_high
    assert depth.size == (120, 90) and depth.range[0] > 0
    assert depth.provenance.input_size == (56, 42)
    assert depth.sky is not None and 0 < depth.sky.mean() < 1
    # Far from its border, the sky has one depth.
    inside = np.lib.stride_tricks.sliding_window_view(np.pad(depth.sky, 4), (9, 9)).all(axis=(2, 3))
    assert np.ptp(depth.values[inside]) <= 1e-5 * depth.range[1]


def test_metres_need_a_camera_and_follow_its_focal_length() -> None:
    with estimator("da3-metric") as plain, estimator("da3-metric", camera=CameraChoice(focal=100)) as near:
        relative, metres = plain.estimate(PICTURE), near.estimate(PICTURE)
        note = plain.prepare(open_picture(PICTURE)).picture.warnings
    assert relative.kind is DepthKind.RELATIVE_DEPTH
    assert metres.kind is DepthKind.METRIC_DEPTH and metres.camera is not None
    # 100 pixels in a picture of 120x90 are 100 * (56 / 120 + 42 / 90) / 2 in an input of 56x42.
    assert np.allclose(metres.values, relative.values * (100 * 56 / 120 / 300), rtol=1e-5)
    assert note == (NO_FOCAL,)


def test_a_panorama_has_no_metres() -> None:
    with estimator("da3-metric", panorama=True) as wide:
        depth = wide.estimate(reference_image(60, 120))
    assert depth.kind is DepthKind.RELATIVE_DEPTH and depth.sky is not None and depth.sky.shape == (60, 120)


@pytest.mark.parametrize("detail", ["edges", "tiles", "nearest"])
def test_finer_maps_keep_the_sky(detail: str) -> None:
    with estimator("da3-mono", detail=detail) as fine:
        depth = fine.estimate(reference_image(150, 200))
    assert depth.size == (200, 150) and depth.sky is not None and depth.sky.any()


def test_a_clip_is_relative_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = model("da3-metric")
    monkeypatch.setattr("depthcli.predict.clip.resolve_clip_model", lambda *_: found)
    lines: list[str] = []
    frames = [reference_image(60, 80, view=0)] * 3
    clip = ClipChoice(backend=BackendChoice("torch"), input_size=56)
    maps = list(estimate_clip(iter(frames), "da3-metric", clip, log=lines.append))
    assert [depth.kind for depth in maps] == [DepthKind.RELATIVE_DEPTH] * 3
    assert len(lines) == 1 and lines[0].startswith("frames: da3-metric: no focal length is known, so depth is relative")


def test_a_network_for_scenes_takes_no_single_picture() -> None:
    with pytest.raises(UsageError, match="da3-base is a model for the views of a scene"):
        resolve_model(ModelChoice(model="da3-base"))


def test_numbers_that_are_none_are_refused() -> None:
    found = model("da3-mono")
    state = {f"model.{key}": value for key, value in da3.network("mono").state_dict().items()}
    state["model.head.scratch.output_conv2.2.bias"] = torch.tensor([1000.0])  # exp of it is infinite
    save_file(state, str(found.weights.path))
    found = replace(found, weights=WeightsFile(found.weights.path, digest(found.weights.path), "test"))
    with DepthEstimator(found, "torch", input_size=56) as broken, pytest.raises(EngineError, match="NaN or infinity"):
        broken.estimate(PICTURE)


@pytest.mark.skipif(not OFFICIAL, reason="set DEPTHCLI_PARITY to a folder of reference outputs")
@pytest.mark.parametrize("path", OFFICIAL, ids=[path.stem for path in OFFICIAL])
def test_official_runs_are_reproduced(path: Path, full_weights: Path) -> None:
    """Runs of one picture alone: the official code takes the sky's depth of all pictures of a call."""
    data = np.load(path)
    height, width = data["input_shapes"][0].tolist()
    choice = ModelChoice(model="da3-mono", checkpoint=full_weights)
    with DepthEstimator(choice, BackendChoice("torch"), input_size=int(data["process_res"])) as mono:
        (answer,) = mono.run([mono.prepare(open_picture(reference_image(height, width)))])
    assert np.abs(answer.depth - data["depth"][0]).max() <= 6e-6 * data["depth"].max()
    assert answer.sky is not None and ((answer.sky >= 0.5) != data["sky"][0]).mean() < 1e-3


@pytest.fixture(scope="module")
def full_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_weights(tmp_path_factory.mktemp("weights"), "da3-mono")


class TestViews:
    """The backend's side of a scene: views in, named arrays out."""

    def open(self, backend: str = "auto") -> Backend:
        path = Path("da3-small.safetensors")
        save_file({f"model.{key}": value for key, value in da3.network("views").state_dict().items()}, str(path))
        row = replace(find_row("da3-small"), network=da3.VIEWS)
        return open_backend(row, WeightsFile(path, digest(path), "test"), BackendChoice(backend))

    def test_the_views_of_a_scene_run_together(self) -> None:
        backend = self.open("torch")
        assert backend.traits.graphs == ("views",)
        found = backend.run({"image": da3.views(3).numpy(), "rays": True}, "views")
        with torch.inference_mode():
            wanted = da3.network("views")(da3.views(3), rays=True)
        assert set(found) == set(wanted) and int(found["reference"]) == wanted["reference"]
        for name in ("depth", "confidence", "rays", "extrinsics", "intrinsics"):
            assert found[name].dtype == np.float32
            assert np.allclose(found[name], wanted[name], rtol=1e-4, atol=1e-4), name

    def test_features_come_if_asked_for(self) -> None:
        found = self.open("torch").run({"image": da3.views(3).numpy(), "features": (1, 5)}, "views")
        assert {name for name in found if name.startswith("features")} == {"features_1", "features_5"}
        assert found["features_5"].shape == (3, 2, 3, 128) and found["features_5"].dtype == np.float32

    def test_known_cameras_and_the_way_to_choose_a_reference_are_passed_on(self) -> None:
        backend, views = self.open(), da3.views(3).numpy()
        cameras = {name: value.numpy().astype(np.float64) for name, value in da3.cameras(3).items()}
        assert not np.allclose(*(backend.run({"image": views, **more}, "views")["depth"] for more in ({}, cameras)))
        assert int(backend.run({"image": views, "reference": "middle"}, "views")["reference"]) == 1

    def test_other_backends_are_refused(self) -> None:
        with pytest.raises(UsageError, match="onnx does not run da3-small"):
            self.open("onnx")

    def test_features_are_refused_by_a_converted_network(self) -> None:
        pytest.importorskip("openvino")
        if not converts_scenes():
            pytest.skip("this OpenVINO does not convert networks for scenes")
        with pytest.raises(EngineError, match="features of blocks are given by torch alone"):
            self.open("openvino").run({"image": da3.views(2).numpy(), "features": (1,)}, "views")
