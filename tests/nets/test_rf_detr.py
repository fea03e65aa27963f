"""RF-DETR with masks through transformers: official answers, files of both layouts, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from depthcli.backends.detector import open_detector
from depthcli.choices.model import BackendChoice
from depthcli.errors import CheckpointError, ModelError
from depthcli.nets.rf_detr import RfDetr
from depthcli.objects.detect import best_pairs, mask_at, pixel_box, to_input
from depthcli.zoo.detectors import CONFIG_FILE, find_detector
from tests.reference import reference_image

PARITY = os.environ.get("DEPTHCLI_PARITY")


def small(classes: int = 4, windows: int = 1) -> dict:
    """Settings of a network like the official ones, but narrow and shallow: 1 MB instead of 130."""
    return {
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 1,
            "image_size": 48,
            "patch_size": 12,
            "num_windows": windows,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
            "mlp_ratio": 4,
            "qkv_bias": True,
            "use_swiglu_ffn": False,
        },
        "d_model": 64,
        "num_queries": 6,
        "decoder_layers": 2,
        "decoder_self_attention_heads": 2,
        "decoder_cross_attention_heads": 4,
        "decoder_n_points": 2,
        "num_labels": classes + 1,
    }


def save_detector(folder: Path | str, **settings: object) -> Path:
    """Write a random detector in the layout of transformers, always the same."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", reason="the extra `objects` is not installed")
    config = transformers.RfDetrConfig(**{**small(), **settings})
    torch.manual_seed(0)
    network = transformers.RfDetrForInstanceSegmentation(config)
    with torch.no_grad():  # as they begin, all queries answer alike
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    network.save_pretrained(folder)
    return Path(folder)


def save_checkpoint(path: Path | str, folder: Path, **arguments: object) -> Path:
    """Write the same as the rfdetr package does: official names, which transformers writes too."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    state = {**load_file(folder / "model.safetensors"), "_kp_active_mask": torch.zeros(0, 0, dtype=torch.bool)}
    torch.save({"model": state, "args": argparse.Namespace(**arguments), "epoch": 3}, path)
    return Path(path)


def answers(place: Path, size: tuple[int, int] = (90, 60)) -> tuple[np.ndarray, ...]:
    detector = RfDetr(find_detector(str(place)))
    return detector.run(to_input(reference_image(size[1], size[0]), detector.side))


class TestFiles:
    def test_a_folder_and_a_checkpoint_answer_alike(self, one_thread):
        folder = save_detector("hub")
        official = save_checkpoint("best.pth", folder, class_names=["cat", "dog", "cow", "pig"], num_windows=1)
        for mine, theirs in zip(answers(folder), answers(official)):
            assert np.abs(mine - theirs).max() < 1e-6
        assert [each.shape for each in answers(folder)] == [(6, 5), (6, 4), (6, 12, 12)]

    def test_sizes_follow_from_shapes_and_windows_from_the_arguments(self, one_thread):
        settings = small(classes=7, windows=2)
        folder = save_detector("hub", **settings)
        official = save_checkpoint("best.pth", folder, class_names=list("abcdefg"), num_windows=2)
        detector = RfDetr(find_detector(str(official)))
        assert (detector.side, detector.classes) == (48, dict(enumerate("abcdefg")))
        wrong = save_checkpoint("wrong.pth", folder, class_names=list("abcdefg"), num_windows=1)
        assert np.abs(answers(official)[0] - answers(wrong)[0]).max() > 1e-3
        assert np.abs(answers(official)[0] - answers(folder)[0]).max() < 1e-6

    def test_names_of_a_folder_are_those_of_its_configuration_without_gaps(self, one_thread):
        names = {0: "N/A", 1: "person", 2: "background", 3: "bicycle", 4: "LABEL_4"}
        folder = save_detector("hub", id2label=names, label2id={name: n for n, name in names.items()})
        assert RfDetr(find_detector(str(folder))).classes == {1: "person", 3: "bicycle"}

    def test_nothing_is_printed(self, one_thread, capfd):
        answers(save_detector("hub"))
        capfd.readouterr()
        answers(Path("hub"))
        assert capfd.readouterr() == ("", "")


class TestRefusals:
    def test_a_detector_without_masks_and_a_network_of_another_kind(self, tiny_file):
        folder = save_detector("hub")
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        save_file({key: value for key, value in state.items() if "segm" not in key}, "boxes.safetensors")
        for path in ("boxes.safetensors", str(tiny_file)):
            with pytest.raises(CheckpointError, match="no RF-DETR with masks"):
                RfDetr(find_detector(path))

    def test_tensors_that_are_missing_or_of_other_shapes(self):
        folder = save_detector("hub")
        path = folder / CONFIG_FILE
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "decoder_layers": 3}))
        with pytest.raises(ModelError, match="hub"):
            RfDetr(find_detector("hub"))
        path.write_text("{")
        with pytest.raises(ModelError, match=r"config\.json"):
            RfDetr(find_detector("hub"))

    def test_a_pickle_that_would_run_code(self):
        torch = pytest.importorskip("torch")
        pytest.importorskip("transformers", reason="the extra `objects` is not installed")
        torch.save({"model": {}, "args": pytest.approx(1)}, "evil.pth")
        with pytest.raises(CheckpointError, match="could run code"):
            RfDetr(find_detector("evil.pth"))

    def test_without_the_package_the_way_to_it_is_told(self, monkeypatch):
        Path("any.pth").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ModelError, match=r"pip install 'depthcli\[objects\]'"):
            RfDetr(find_detector("any.pth"))


@pytest.mark.skipif(not PARITY, reason="DEPTHCLI_PARITY names the folder of the official package's outputs")
@pytest.mark.parametrize("engine", ["torch", "openvino", "onnx"])
@pytest.mark.parametrize(("name", "size"), [("w1", (160, 120)), ("w2", (211, 97))])
def test_the_official_package_answers_the_same(name, size, engine, monkeypatch, one_thread):
    """Weights by rule, made for this; the encoder is the published one."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers", reason="the extra `objects` is not installed")
    monkeypatch.syspath_prepend(PARITY)
    rule = pytest.importorskip("reference_objects")
    wanted = np.load(Path(PARITY) / f"rfdetr_seg_{name}_{size[1]}x{size[0]}.npz")
    shapes = json.loads((Path(PARITY) / "rfdetr_state_dict_shapes.json").read_text())[name]
    state = {key: torch.from_numpy(rule.rfdetr_tensor(key, tuple(shape))) for key, shape in shapes.items()}
    official = rule.OFFICIAL[name]
    names = [f"thing {number}" for number in range(official["num_classes"])]
    arguments = argparse.Namespace(num_windows=official["num_windows"], class_names=names)
    torch.save({"model": state, "args": arguments}, "official.pth")

    detector = open_detector("official.pth", BackendChoice(engine))
    image = to_input(reference_image(size[1], size[0]), detector.side)
    logits, boxes, masks = detector.run(image)
    assert np.abs(image[:, ::8, ::8] - wanted["input_sample"]).max() < 1e-5
    assert np.abs(logits - wanted["logits"]).max() < 1e-4
    assert np.abs(boxes - wanted["boxes"]).max() < 1e-5
    assert np.abs(masks - wanted["mask_logits"]).max() < 1e-4 * np.abs(wanted["mask_logits"]).max()
    scores, labels, queries = best_pairs(logits)
    assert np.abs(scores - wanted["scores"]).max() < 1e-5 and (labels == wanted["labels"]).all()
    theirs = np.unpackbits(wanted["masks"], axis=2)[..., : size[0]].astype(bool)
    for query, box, mask in zip(queries, wanted["pixel_boxes"], theirs):
        mine = mask_at(masks[query], size)
        assert np.abs(np.array(pixel_box(boxes[query], size)) - box).max() < 1e-3
        assert (mine & mask).sum() > 0.999 * (mine | mask).sum()
