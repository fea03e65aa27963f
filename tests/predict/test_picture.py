"""The API: a picture in, a DepthMap out, whatever the picture comes as."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import depthcli
from depthcli import DepthEstimator, DepthKind, ModelChoice
from depthcli.backends import torch_eager
from depthcli.backends.torch_eager import pick_device
from depthcli.choices.camera import CameraChoice
from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError, EngineError, ModelError, PictureError, UsageError
from depthcli.io.codecs.files import read_depth
from depthcli.io.video.clip import Frame
from depthcli.jobs.compile import CompileJob, compile_model
from depthcli.predict.clip import FrameLoop
from depthcli.predict.clip_predictors import ClipPredictor, FrameByFrame, WindowByWindow
from depthcli.predict.model import resolve_model
from depthcli.predict.picture import open_picture
from depthcli.zoo.locate import CHECKPOINTS, WeightsFile
from depthcli.zoo.rows import find_row
from tests.conftest import TINY, photo
from tests.fake_backend import FakeBackend, clip_backend
from tests.reference import reference_image

WEIGHTS = WeightsFile(Path("fake.safetensors"), "0" * 64, "test")

pytestmark = pytest.mark.usefixtures("tiny_weights")
ENGINES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime"}


def tiny(panorama: bool = False, camera: CameraChoice = CameraChoice(), **backend: str) -> DepthEstimator:
    chosen = BackendChoice(**backend)  # type: ignore[arg-type]
    return DepthEstimator("tiny", chosen, input_size=56, panorama=panorama, camera=camera)


def test_path_bytes_and_array_give_one_answer() -> None:
    path = photo("a.png")
    rgb = np.asarray(Image.open(path))
    with tiny() as estimator:
        depth = estimator.estimate(path)
        assert depth.kind is DepthKind.RELATIVE_DISPARITY
        assert depth.size == (80, 60) and depth.values.dtype == np.float32
        for other in (str(path), path.read_bytes(), rgb):
            assert np.array_equal(estimator.estimate(other).values, depth.values)


def test_gray_arrays_are_gray_pictures() -> None:
    gray = reference_image(40, 50)[..., 0]
    with tiny() as estimator:
        assert np.array_equal(estimator.estimate(gray).values, estimator.estimate(np.stack([gray] * 3, axis=-1)).values)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PictureError, match="uint8"):
        open_picture(array)


def test_map_takes_pictures_one_by_one() -> None:
    taken = []

    def pictures():  # type: ignore[no-untyped-def]
        for index in range(3):
            taken.append(index)
            yield reference_image(30, 40 + index)

    with tiny() as estimator:
        depths = estimator.map(pictures())
        assert next(depths).size == (40, 30) and taken == [0]
        assert [depth.size for depth in depths] == [(41, 30), (42, 30)]


def test_a_batch_gives_what_single_pictures_give() -> None:
    pictures = [open_picture(np.roll(reference_image(60, 80), shift, axis=1)) for shift in (0, 20, 40)]
    with tiny() as estimator:
        for picture, depth in zip(pictures, estimator.estimate_batch(pictures)):
            alone = estimator.estimate(picture).values
            assert np.abs(depth.values - alone).max() <= 1e-5 * np.abs(alone).max()
        with pytest.raises(ValueError, match="one input size"):
            estimator.estimate_batch([open_picture(reference_image(60, 80)), open_picture(reference_image(80, 60))])


def test_memory_that_is_gone_since_a_picture_was_prepared_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny(backend="torch") as estimator:
        prepared = estimator.prepare(open_picture(reference_image(60, 80)))
        monkeypatch.setattr(torch_eager, "free_memory", lambda: 1000)
        with pytest.raises(PictureError, match=r"needs about .* GB and 0\.0 GB are free"):
            estimator.run([prepared], recheck=True)


def test_threads_may_share_an_estimator() -> None:
    pictures = [open_picture(np.roll(reference_image(60, 80), shift, axis=1)) for shift in range(0, 80, 10)]
    with tiny() as estimator, ThreadPoolExecutor(8) as pool:
        wanted = [estimator.estimate(picture).values for picture in pictures]
        for _ in range(4):
            for depth, values in zip(pool.map(estimator.estimate, pictures), wanted):
                assert np.array_equal(depth.values, values)


def test_the_map_says_where_it_comes_from() -> None:
    path = photo("sub/fjörd.png")
    with tiny() as estimator:
        origin = estimator.estimate(path).provenance
    assert origin.model == "tiny" and origin.licence == "Apache-2.0" and len(origin.sha256) == 64
    assert origin.input_size == (70, 56) and origin.source == "fjörd.png"
    assert " cpu " in origin.backend
    with tiny(backend="torch") as estimator:
        assert estimator.description.startswith("torch ") and estimator.description.endswith("cpu fp32")


def test_the_map_has_the_camera_of_its_picture() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # the focal length on 35 mm film
    with tiny() as estimator:
        camera = estimator.estimate(photo("a.jpg", (36, 24), exif.tobytes())).camera
        assert camera and np.allclose(camera.intrinsics, [[50, 0, 17.5], [0, 50, 11.5], [0, 0, 1]])
        assert estimator.estimate(photo("b.jpg")).camera is None
    with tiny(camera=CameraChoice(focal=70)) as estimator:
        for name in ("a.jpg", "b.jpg"):
            assert estimator.estimate(name).camera.focal == (70, 70)
    depth = depthcli.estimate("a.jpg", "tiny", detail="edges", camera=CameraChoice(intrinsics="30,40,18,12"))
    assert depth.camera.focal == (30, 40) and depth.camera.center == (18, 12)


def test_a_panorama_has_no_pinhole_camera() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50
    with tiny(panorama=True) as estimator:
        assert estimator.estimate(photo("a.jpg", (80, 40), exif.tobytes())).camera is None
    with pytest.raises(UsageError, match="panorama"):
        tiny(panorama=True, camera=CameraChoice(focal=70))


def test_one_shot_and_estimator_agree() -> None:
    path = photo("a.png", (40, 30))
    with DepthEstimator("tiny") as estimator:
        assert np.array_equal(depthcli.estimate(path, "tiny").values, estimator.estimate(path).values)


def test_what_cannot_be_is_said_at_once() -> None:
    for options, error in (
        ({"device": "tpu"}, UsageError),
        ({"device": "cuda:x"}, UsageError),
        ({"backend": "magic"}, UsageError),
        ({"precision": "fp8"}, UsageError),
        ({"precision": "fp16", "device": "cpu"}, EngineError),
    ):
        with pytest.raises(error):
            tiny(**options)
    with pytest.raises(UsageError, match="`input_size`"):
        DepthEstimator("tiny", input_size=7)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without a GPU answers")
def test_a_missing_gpu_is_named() -> None:
    assert pick_device("auto").type in ("cpu", "mps")
    with pytest.raises(EngineError, match="no CUDA device") as error:
        tiny(device="cuda")
    assert error.value.exit_code == 5


def test_auto_falls_back_to_the_packaged_model_and_says_so() -> None:
    said: list[str] = []
    model = resolve_model(ModelChoice(offline=True), said.append)
    assert model.row.name == "tiny" and model.weights.path.name == "tiny.safetensors"
    (line,) = said
    assert "tiny" in line and "vits" in line


def test_an_explicit_encoder_never_falls_back() -> None:
    with pytest.raises(ModelError, match=r"depth_anything_v2_vits\.pth"):
        resolve_model(ModelChoice(encoder="vits", offline=True))


def test_metric_models_do_not_fall_back() -> None:
    with pytest.raises(ModelError, match="hypersim_vits"):
        resolve_model(ModelChoice(metric="indoor", offline=True))


def test_a_checkpoint_of_any_name_is_known_by_its_tensors() -> None:
    shutil.copy(CHECKPOINTS / "tiny.safetensors", "mine.safetensors")
    said: list[str] = []
    for choice in (ModelChoice(checkpoint=Path("mine.safetensors")), ModelChoice(model="mine.safetensors")):
        model = resolve_model(choice, said.append)
        assert model.row.name == "tiny" and model.weights.path == Path("mine.safetensors")
    assert "taken for a relative model" in said[0]


def test_a_checkpoint_of_something_else_is_refused() -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors is not a Depth Anything V2 checkpoint"):
        resolve_model(ModelChoice(model="other.safetensors"))


def test_choices_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="`model` names the whole model"):
        resolve_model(ModelChoice(model="vits", metric="indoor"))
    with pytest.raises(UsageError, match="relative model"):
        resolve_model(ModelChoice(model="tiny", max_depth=20))


def test_bytes_that_are_no_picture_are_named() -> None:
    with tiny() as estimator, pytest.raises(PictureError):
        estimator.estimate(io.BytesIO(b"hello").getvalue())


class TestFlatAnswers:
    """A flat map is right for a flat picture, and of a network that gives nothing else it is an error."""

    @pytest.fixture
    def answers(self, monkeypatch):
        """Let the network answer with this function of the input (3, H, W); returns the inputs it was given."""

        def use(function):  # type: ignore[no-untyped-def]
            estimator = tiny(backend="torch")
            given = []

            def run(inputs):  # type: ignore[no-untyped-def]
                given.extend(inputs["image"])
                return {"depth": np.stack([function(image) for image in inputs["image"]]).astype(np.float32)}

            monkeypatch.setattr(estimator._backend, "run", run)
            return estimator, given

        return use

    @pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
    def test_a_network_that_is_always_flat_is_named(self, answers, value) -> None:
        estimator, _ = answers(lambda image: np.full(image.shape[1:], value))
        for picture in (reference_image(40, 50), np.zeros((40, 50), np.uint8)):
            with pytest.raises(EngineError, match=r"tiny gives the same value .* on torch "):
                estimator.estimate(picture)

    def test_flat_pictures_may_be_flat(self, answers) -> None:
        estimator, given = answers(lambda image: image[0] - image[0].min())
        for picture in (np.zeros((40, 50), np.uint8), np.full((1, 1), 255, np.uint8), np.full((9, 300), 7, np.uint8)):
            assert np.ptp(estimator.estimate(picture).values) == 0
        assert len(given) == 4  # the first of them was followed by one that cannot be flat

    def test_nothing_more_is_run_after_a_map_with_depth(self, answers) -> None:
        estimator, given = answers(lambda image: image[0])
        assert np.ptp(estimator.estimate(reference_image(40, 50)).values) > 0
        estimator.estimate(np.zeros((40, 50), np.uint8))
        assert len(given) == 2

    def test_nan_is_named_too(self, answers) -> None:
        estimator, _ = answers(lambda image: np.full(image.shape[1:], np.nan))
        with pytest.raises(EngineError, match="the output of tiny holds NaN"):
            estimator.estimate(reference_image(40, 50))

    @pytest.mark.parametrize(
        "backend", [name for name, package in ENGINES.items() if importlib.util.find_spec(package) is not None]
    )
    def test_dead_weights_are_an_error_in_every_engine(self, backend, tmp_path) -> None:
        from safetensors.torch import load_file, save_file

        dead = tmp_path / "dead.safetensors"
        save_file(
            {key: torch.zeros_like(value) for key, value in load_file("checkpoints/tiny.safetensors").items()}, dead
        )
        with DepthEstimator(ModelChoice(model="tiny", checkpoint=dead), backend, input_size=56) as estimator:
            with pytest.raises(EngineError, match="gives the same value"):
                estimator.estimate(reference_image(40, 50))


# --- Strips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1000), (900, 2), (32, 1000)])
def test_a_strip_costs_what_a_picture_of_four_to_one_costs(size: tuple[int, int]) -> None:
    picture = open_picture(reference_image(*size[::-1]))
    with tiny() as estimator:
        prepared = estimator.prepare(picture)
        assert sorted(prepared.plan.input_size) == [56, 224]
        (note,) = prepared.picture.notes
        assert "network input bounded to" in note
        assert estimator.estimate_batch([picture])[0].size == size


def test_the_frames_of_a_strip_are_bounded_too() -> None:
    with tiny() as estimator:
        clip = FrameByFrame(estimator, steady=True)
        for values in clip_maps(clip, 2 * [reference_image(4, 400)]):
            assert values.shape == clip.map_size[::-1] == (56, 224)
    windows = WindowByWindow(find_row("vda-vits").with_input_size(56), WEIGHTS, drifting(), exact=False)
    assert windows.begin((400, 4)).input_size == (112, 28)


# --- Panoramas --------------------------------------------------------------------------------------------------------


def sphere(height: int = 112) -> np.ndarray:
    """A picture (height, 2 height, 3) without a seam: a half, and its mirror image."""
    half = reference_image(height, height)
    return np.roll(np.concatenate([half, half[:, ::-1]], axis=1), height // 2, axis=1)


def seam(values: np.ndarray) -> float:
    """How far the edges are apart, over how far neighbouring columns are on average: 1 if there is no seam."""
    return float(np.abs(values[:, 0] - values[:, -1]).mean() / np.abs(np.diff(values, axis=1)).mean())


def test_the_edges_of_a_panorama_agree() -> None:
    picture = sphere(256)
    packaged = str(Path(depthcli.__file__).parent / "assets/tiny.safetensors")
    with DepthEstimator(packaged) as plain, DepthEstimator(packaged, panorama=True) as joined:
        found, before = joined.estimate(picture), plain.estimate(picture)
    assert found.size == before.size == (512, 256)
    assert found.provenance.panorama and not before.provenance.panorama
    apart = np.abs(found.values[:, 0] - found.values[:, -1])
    assert apart.mean() < 0.005 * np.ptp(found.values)
    assert seam(found.values) < 2 < 10 < seam(before.values)


@pytest.mark.parametrize("columns", [1, 32, 50, 112, 200])
def test_a_panorama_that_is_turned_has_its_depth_turned(columns: int) -> None:
    picture = sphere()
    with tiny(panorama=True) as estimator, tiny() as plain:
        turned = np.ascontiguousarray(np.roll(picture, columns, axis=1))
        error = {}
        for name, engine in (("joined", estimator), ("plain", plain)):
            depth = engine.estimate(picture).values
            found = np.roll(engine.estimate(turned).values, -columns, axis=1)
            error[name] = float(np.abs(found - depth).mean() / np.ptp(depth))
    assert error["joined"] < 0.05 and error["joined"] < error["plain"]


def test_panoramas_share_a_batch() -> None:
    pictures = [open_picture(np.roll(sphere(), shift, axis=1)) for shift in (0, 20)]
    with tiny(panorama=True) as estimator:
        for picture, depth in zip(pictures, estimator.estimate_batch(pictures)):
            alone = estimator.estimate(picture).values
            assert np.abs(depth.values - alone).max() <= 1e-5 * np.abs(alone).max()


@pytest.mark.parametrize(("size", "warned"), [((200, 100), False), ((205, 100), False), ((80, 60), True)])
def test_a_picture_that_is_no_whole_panorama_is_named(size: tuple[int, int], warned: bool) -> None:
    with tiny(panorama=True) as estimator:
        origin = estimator.estimate(reference_image(*size[::-1])).provenance
    assert bool(origin.warnings(size)) == warned
    assert not replace(origin, panorama=False).warnings(size)
    assert all("2:1" in line for line in origin.warnings(size))


def test_a_compiled_network_of_the_wrapped_size_joins_edges_too() -> None:
    with tiny(panorama=True, backend="torch") as eager:
        wanted, plan = eager.estimate(sphere()), eager.plan((224, 112))
    width, height = plan.input_size
    job = CompileJob("torchscript", ModelChoice("tiny"), ((height, width),), output="nets/wide.pt")
    assert all(compiled.paths for compiled in compile_model(job, print))
    options = {"backend": "torchscript", "artifacts": Path("nets")}
    with tiny(panorama=True, **options) as estimator:
        found = estimator.estimate(sphere())
        assert np.abs(found.values - wanted.values).max() <= 1e-5 * np.abs(wanted.values).max()
    with tiny(**options) as estimator, pytest.raises(EngineError, match="`size` 56x112"):
        estimator.estimate(sphere())
    with tiny(panorama=True, shape_policy="stretch", **options) as estimator:
        taller = estimator.estimate(np.repeat(sphere(), 2, axis=1))
        assert seam(taller.values) < 2


def drifting() -> FakeBackend:
    """A backend for clips whose depth is the brightness and a drift from left to right."""
    return clip_backend(
        lambda images: list(images.mean(axis=1)),
        lambda frames: np.stack(frames) + 3 + np.linspace(0, 0.5, frames[0].shape[1], dtype=np.float32),
        best_batch=4,
    )


def clip_maps(predictor: ClipPredictor, frames: list[np.ndarray]) -> list[np.ndarray]:
    loop = FrameLoop(predictor, frames[0].shape[1::-1], find_cuts=False, threads=False)
    each = (Frame(index, Fraction(index), Fraction(1), rgb) for index, rgb in enumerate(frames))
    return [item.values for maps in loop.run(each) for item in maps]


@pytest.mark.parametrize("steady", [False, True])
def test_the_frames_of_a_panorama_have_no_seam(steady: bool) -> None:
    frames = [np.ascontiguousarray(np.roll(sphere(), 3 * index, axis=1)) for index in range(6)]
    with tiny() as plain, tiny(panorama=True) as joined:
        before = clip_maps(FrameByFrame(plain, steady), frames)
        clip = FrameByFrame(joined, steady, batch=2)
        found = clip_maps(clip, frames)
        assert len(found) == 6 and {values.shape for values in found} == {clip.map_size[::-1]}
        assert FrameLoop(clip, (224, 112)).provenance("a.mp4").panorama
    assert max(map(seam, found)) < 2 < min(map(seam, before))


def test_the_windows_of_a_panorama_have_no_seam() -> None:
    row = find_row("vda-vits").with_input_size(56)
    frames = [np.ascontiguousarray(np.roll(sphere(), 3 * index, axis=1)) for index in range(34)]
    maps = {}
    for panorama in (False, True):
        clip = WindowByWindow(row, WEIGHTS, drifting(), exact=False, panorama=panorama)
        assert clip.begin((224, 112)).wrapped == (28 if panorama else 0)
        maps[panorama] = clip_maps(clip, frames)
        assert len(maps[panorama]) == 34
        assert {values.shape for values in maps[panorama]} == {clip.map_size[::-1]}
    assert max(map(seam, maps[True])) < 2 < min(map(seam, maps[False]))


def test_exact_clips_are_no_panoramas() -> None:
    with pytest.raises(UsageError, match="`panorama`"):
        ClipChoice(exact=True, panorama=True)


def test_the_commands_join_edges_and_say_so(depth) -> None:
    Path("in").mkdir()
    Image.fromarray(sphere()).save("in/a.png")
    run = ("dir", "in", "-o", "out", "-f", "npz", *TINY)
    assert depth(*run).code == 0
    refused = depth(*run, "--panorama")
    assert refused.code == 2 and "was made without --panorama" in refused.error
    assert depth(*run, "--panorama", "--if-exists", "overwrite").code == 0
    assert "panorama=True" in Path("out/manifest.jsonl").read_text().splitlines()[-1]
    joined = read_depth(Path("out/a_depth.npz"))
    assert joined.provenance.panorama and seam(joined.values) < 2
    image = depth("image", photo("b.png"), "-o", "-", "-f", "npz", *TINY, "--panorama")
    assert image.code == 0 and "--panorama joins" in image.err


def test_depth_video_joins_the_edges_of_frames(depth) -> None:
    Path("clip").mkdir()
    for index in range(3):
        Image.fromarray(np.roll(sphere(), 3 * index, axis=1)).save(f"clip/{index}.png")
    run = ("video", "clip", "-o", "out", "-f", "npz", "--steady", "on", *TINY)
    assert depth(*run, "--panorama").code == 0
    maps = [read_depth(path) for path in sorted(Path("out/clip_depth_npz").iterdir())]
    assert len(maps) == 3 and all(item.provenance.panorama and seam(item.values) < 2 for item in maps)
    Path("strip").mkdir()
    Image.fromarray(reference_image(4, 400)).save("strip/0.png")
    ran = depth("video", "strip", "-o", "out", "--steady", "on", "--json", *TINY, "--panorama")
    result = json.loads(ran.lines[-2])
    assert any("network input bounded to 56x280" in note for note in result["notes"])
    assert any("--panorama joins" in line for line in result["warnings"])
    assert "--panorama" in depth("video", "clip", "-o", "x", "--exact", "--panorama").error


def test_the_fallback_to_tiny_is_a_warning_by_default(caplog) -> None:
    with DepthEstimator(input_size=56) as estimator:
        assert estimator.row.name == "tiny"
    assert any("using tiny" in record.getMessage() for record in caplog.records)
