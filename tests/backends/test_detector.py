"""Detectors without torch: converted and compiled networks give torch's answers, and nothing else is taken for them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from depthcli import DepthKind, DepthMap, write_depth
from depthcli.backends import detector as detectors
from depthcli.backends.detector import SUFFIXES, open_detector
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError
from depthcli.objects.detect import masks_of, to_input
from tests.conftest import environment, files, photo
from tests.nets.test_rf_detr import save_checkpoint, save_detector
from tests.reference import reference_image

ENGINES = [name for name, package in (("openvino", "openvino"), ("onnx", "onnxruntime")) if find_spec(package)]
SIZE = (90, 60)


def image(side: int) -> np.ndarray:
    return to_input(reference_image(SIZE[1], SIZE[0]), side)


def answers(name: str, engine: str) -> list[np.ndarray]:
    network = open_detector(name, BackendChoice(engine))
    found = list(network.run(image(network.side)))
    network.close()
    return found


def assert_alike(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for mine, theirs in zip(found, wanted):
        assert mine.shape == theirs.shape and mine.dtype == np.float32
        assert np.abs(mine - theirs).max() <= 1e-5 * np.abs(theirs).max()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("windows", [1, 2])
def test_a_converted_detector_answers_as_torch(engine, windows, one_thread):
    from tests.nets.test_rf_detr import small

    save_detector("hub", **small(windows=windows))
    found, wanted = answers("hub", engine), answers("hub", "torch")
    assert_alike(found, wanted)
    classes = {number: f"thing {number}" for number in range(4)}
    mine, theirs = (masks_of(*each, SIZE, classes, 0) for each in (found, wanted))
    assert [item.label for item in mine] == [item.label for item in theirs] and theirs
    assert all((one.mask ^ two.mask).sum() <= 0.001 * two.mask.sum() for one, two in zip(mine, theirs))


@pytest.mark.parametrize("engine", ENGINES)
class TestConversion:
    def test_it_is_done_once(self, engine, monkeypatch, one_thread):
        names = {0: "cat", 1: "n/a", 2: "dog", 3: "N/A", 4: "background"}
        save_detector("hub", id2label=names, label2id={name: number for number, name in names.items()})
        first = answers("hub", engine)
        monkeypatch.setattr("depthcli.nets.rf_detr.RfDetr", None)  # which a second conversion needs
        network = open_detector("hub", BackendChoice(engine))
        assert (network.side, network.classes, network.name) == (48, {0: "cat", 2: "dog"}, "hub")
        assert network.engine.endswith("cpu fp32")
        assert all(np.array_equal(*pair) for pair in zip(network.run(image(48)), first))
        network.close()
        network.close()

    def test_another_configuration_of_the_same_weights_is_another_network(self, engine, one_thread):
        save_detector("hub")
        assert set(open_detector("hub", BackendChoice(engine)).classes) == {0, 1, 2, 3}
        config = Path("hub/config.json")
        names = {str(number): name for number, name in enumerate(["a", "b", "c", "d", "e"])}
        config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": names}))
        assert open_detector("hub", BackendChoice(engine)).classes[4] == "e"


@pytest.mark.parametrize("engine", ENGINES)
class TestCompiled:
    def compiled(self, depth, engine: str, place: str, *more: str) -> Path:
        ran = depth("compile", "--target", engine, "--detector", place, *more)
        assert ran.code == 0 and "differs from torch by" in ran.err, ran.err
        return Path(ran.lines[0])

    def test_a_file_answers_as_torch_and_describes_itself(self, depth, engine, one_thread):
        save_checkpoint("best.pth", save_detector("hub"), class_names=["cat", "dog", "cow", "pig"], num_windows=1)
        path = self.compiled(depth, engine, "best.pth", "-o", "nets/")
        assert path == Path("nets/best_48x48").with_suffix(SUFFIXES[engine])
        assert_alike(answers(str(path), engine), answers("best.pth", "torch"))
        facts = json.loads(Path(f"{path}.json").read_text())
        network = open_detector(str(path))
        assert network.sha256 == facts["weights_sha256"] == open_detector("best.pth", BackendChoice("torch")).sha256
        assert list(network.classes.values()) == list(facts["classes"].values()) == ["cat", "dog", "cow", "pig"]
        assert [each["name"] for each in facts["outputs"]] == ["logits", "boxes", "mask_logits"]
        Path(f"{path}.json").unlink()  # the file tells all of it too
        assert_alike(answers(str(path), engine), answers("best.pth", "torch"))

    def test_it_serves_a_name_without_its_weights_torch_and_transformers(self, depth, engine, one_thread):
        save_detector("checkpoints/rf-detr-seg-nano")
        photo("a.png", size=SIZE)
        assert self.compiled(depth, engine, "seg-nano").parent == Path("checkpoints/compiled")
        shutil.rmtree("checkpoints/rf-detr-seg-nano")
        code = (
            "import sys; from depthcli.cli import app; sys.argv = sys.argv[1:]\n"
            "try: app.run()\nexcept SystemExit as end: assert not end.code, end.code\n"
            "print(*sorted({'torch', 'transformers'} & set(sys.modules)))"
        )
        write_depth(DepthMap(np.full(SIZE[::-1], 2, np.float32), DepthKind.METRIC_DEPTH), "a.npz")
        options = ("--detector", "seg-nano", "--depth", "a.npz", "--backend", engine, "--threshold", "0")
        ran = subprocess.run(
            [sys.executable, "-c", code, "depth", "objects", "a.png", *options, "-q"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stdout) == (0, "\n"), ran.stderr
        found = json.loads(Path("a_objects.json").read_bytes())
        assert found["masks"]["source"] == "seg-nano" and found["objects"]

    def test_one_of_other_weights_is_not_taken(self, depth, engine, monkeypatch, one_thread):
        save_detector("checkpoints/rf-detr-seg-nano")
        self.compiled(depth, engine, "seg-nano")
        opened: list[Path] = []
        real = detectors._from_file
        monkeypatch.setattr(detectors, "_from_file", lambda path: (opened.append(path), real(path))[1])
        open_detector("seg-nano", BackendChoice(engine)).close()
        assert len(opened) == 1
        save_detector("checkpoints/rf-detr-seg-nano", num_queries=7)
        assert len(answers("seg-nano", engine)[0]) == 7 and len(opened) == 1

    def test_damage_and_strangers_are_one_line(self, depth, engine, one_thread):
        photo("a.png", size=SIZE)
        path = self.compiled(depth, engine, str(save_detector("hub")), "-o", "nets/")
        heavy = max(Path("nets").iterdir(), key=lambda each: each.stat().st_size)
        content = bytearray(heavy.read_bytes())
        content[len(content) // 2] ^= 1
        heavy.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not what was compiled"):
            open_detector(str(path))
        assert depth("compile", "--target", engine, "--encoder", "tiny", "--size", "42x56", "-o", "nets/").code == 0
        other = str(Path("nets/tiny_42x56").with_suffix(SUFFIXES[engine]))
        ran = depth("objects", "a.png", "--detector", other, "--encoder", "tiny")
        assert ran.code == 4 and "is no detector of this version" in ran.error
        Path("x").with_suffix(SUFFIXES[engine]).write_bytes(b"nothing")
        ran = depth("objects", "a.png", "--detector", str(Path("x").with_suffix(SUFFIXES[engine])), "--encoder", "tiny")
        assert ran.code == 4 and "is damaged or no network" in ran.error
        assert not [name for name in files() if name.startswith("a_objects")]

    def test_other_answers_than_torch_s_are_not_kept(self, depth, engine, monkeypatch, one_thread):
        from depthcli.nets.rf_detr import RfDetr

        save_detector("hub")
        real = RfDetr.run
        monkeypatch.setattr(RfDetr, "run", lambda self, image: tuple(each + 0.01 for each in real(self, image)))
        ran = depth("compile", "--target", engine, "--detector", "hub", "-o", "nets/")
        assert ran.code == 5 and "and torch differ by" in ran.error and not list(Path().glob("nets/*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--target", "torchscript", "--detector", "seg-nano"), 2, "--detector is not compiled for torchscript"),
        (("--target", "openvino", "--detector", "seg-nano", "--size", "42x42"), 2, "one input size"),
        (("--target", "openvino", "--detector", "seg-nano", "--encoder", "tiny"), 2, "instead of a model"),
        (("--target", "openvino", "--detector", "seg-nano"), 4, "into checkpoints/rf-detr-seg-nano/"),
        (("--target", "openvino", "--detector", "seg-pico"), 2, "no detector is called 'seg-pico'"),
    ],
)
def test_refusals_are_one_line(depth, arguments, code, says):
    if "openvino" in arguments and "openvino" not in ENGINES and len(arguments) == 4:
        pytest.skip("OpenVINO is not installed, which is said first")
    ran = depth("compile", *arguments)
    assert ran.code == code and says in ran.error and not list(Path().glob("*.*"))
