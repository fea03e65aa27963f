import json
from dataclasses import replace
from pathlib import Path

import pytest

from depthcli.errors import CheckpointError
from depthcli.zoo import identify
from depthcli.zoo.download import obtain
from depthcli.zoo.identify import check_identity, row_for_checkpoint
from depthcli.zoo.locate import FOLDER, NAMED, WeightsFile
from depthcli.zoo.rows import find_row
from tests.zoo.hub import CONTENT, ROW, VITS, file_of, put


class TestIdentity:
    @pytest.mark.parametrize(
        ("model", "path", "message"),
        [
            ("vits", "depth_anything_vits14.pth", "Depth Anything V1"),
            ("vitl", "depth_anything_vitl14.safetensors", "Depth Anything V1"),
            ("vits", "LiheYoung/depth-anything-small-hf/model.safetensors", "Depth Anything V1"),
            ("vitb", "hub/models--LiheYoung--depth_anything_vitb14/snapshots/1/model.safetensors", "Depth Anything V1"),
            ("metric-indoor-vitl", "depth_anything_metric_depth_indoor.pt", "Depth Anything V1"),
            ("vits", "hub/models--depth-anything--DA3-SMALL/snapshots/1/model.safetensors", "Depth Anything 3"),
            ("vits", "DA3-BASE/model.safetensors", "Depth Anything 3"),
            ("da3-mono", "DA3METRIC-LARGE/model.safetensors", "holds da3-metric, but da3-mono"),
            ("da3-metric", "da3-mono.safetensors", "holds da3-mono, but da3-metric"),
            ("da3-small", "hub/models--depth-anything--DA3-BASE/snapshots/1/model.safetensors", "holds da3-base"),
            ("da3-mono", "depth_anything_v2_vitl.pth", "holds vitl, but da3-mono was asked for"),
            ("vits", "video_depth_anything_vits.pth", "Video-Depth-Anything"),
            ("vits", "metric_video_depth_anything_vits.pth", "Video-Depth-Anything"),
            ("vits", "depth_anything_v2_metric_hypersim_vits.pth", "holds metric-indoor-vits"),
            ("vits", "depth_anything_v2_metric_vkitti_vitl.pth", "holds metric-outdoor-vitl"),
            ("vits", "Depth-Anything-V2-Metric-Indoor-Small-hf/model.safetensors", "holds metric-indoor-vits"),
            ("metric-outdoor-vits", "depth_anything_v2_metric_hypersim_vits.pth", "holds metric-indoor-vits"),
            ("vda-vits", "depth_anything_v2_vits.pth", "is of Depth Anything V2, not of Video-Depth-Anything"),
            ("vda-vits", "DA3-SMALL/model.safetensors", "Depth Anything 3, not of Video-Depth-Anything"),
            ("vda-vits", "video_depth_anything_vitl.pth", "holds vda-vitl, but vda-vits"),
            ("vda-vits", "metric_video_depth_anything_vits.pth", "holds vda-metric-vits, but vda-vits"),
            ("vda-metric-vits", "video_depth_anything_vits.safetensors", "holds vda-vits, but vda-metric-vits"),
            ("vda-vits", "metric_video_depth_anything.pth", r"metric model \(metric\), but relative"),
            ("metric-indoor-vits", "depth_anything_v2_vits.pth", "holds vits"),
            ("vits", "depth_anything_v2_vitb.pth", "holds vitb"),
            ("vits", "vits_metric_hypersim_tuned.pth", "holds metric-indoor-vits"),
            ("vits", "metric_hypersim.pth", r"metric model \(indoor\), but relative"),
        ],
    )
    def test_names_that_say_another_model(self, model, path, message):
        with pytest.raises(CheckpointError, match=message) as caught:
            check_identity(find_row(model), file_of(path))
        assert caught.value.hint and "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("vits", "depth_anything_v2_vits.pth"),
            ("vits", "depth_anything_v2_vits_fp16.safetensors"),
            ("vitl", "Depth-Anything-V2-Large-hf/model.safetensors"),
            ("metric-outdoor-vits", "depth_anything_v2_metric_vkitti_vits.pth"),
            ("vits", "my_garden.pth"),
            ("metric-indoor-vits", "Depth-Anything-V2/latest.pth"),
            ("metric-indoor-vits", "depth_anything_v2_vits_kitchen.pth"),
            ("vits", "Depth-Anything/checkpoints/mine.pth"),
            ("vda-vits", "video_depth_anything_vits.pth"),
            ("vda-metric-vitl", "metric_video_depth_anything_vitl.pth"),
            ("vda-metric-vits", "video_depth_anything_kitchen.pth"),
            ("vda-vits", "mine.pth"),
        ],
    )
    def test_names_that_fit_or_say_nothing(self, model, path):
        check_identity(find_row(model), file_of(path))

    def test_content_is_believed_before_the_name(self):
        file = WeightsFile(put("depth_anything_v2_vits.pth"), find_row("metric-outdoor-vitb").weights.sha256, NAMED)
        with pytest.raises(CheckpointError, match="holds metric-outdoor-vitb, but vits was asked") as caught:
            check_identity(VITS, file)
        assert caught.value.hint == "set `encoder` to vitb and `metric` to outdoor"
        check_identity(VITS, WeightsFile(Path("depth_anything_vits14.pth"), VITS.weights.sha256, NAMED))

    def test_bits_that_rotted(self):
        row = replace(ROW, files=(replace(ROW.weights, bytes=len(CONTENT), sha256="0" * 64),))
        with pytest.raises(CheckpointError, match="is damaged"):
            check_identity(row, file_of("some_model.pth", CONTENT))

    @pytest.mark.parametrize(
        ("model", "config", "message"),
        [
            ("vits", {}, None),
            ("vits", {"taps": [9, 10, 11, 12]}, "Depth Anything V1"),
            ("vitb", {}, "holds vits"),
            ("vits", {"depth_estimation_type": "metric", "max_depth": 20}, "holds metric-indoor-vits"),
            ("vits", {"depth_estimation_type": "metric", "max_depth": 10}, r"metric model \(metric\)"),
            ("metric-indoor-vits", {"depth_estimation_type": "metric", "max_depth": 10}, None),
            ("metric-indoor-vits", {"depth_estimation_type": "metric", "max_depth": 80}, "holds metric-outdoor-vits"),
            ("metric-indoor-vits", {}, "holds vits"),
            ("vits", {"taps": []}, None),
            ("vits", {"depth_estimation_type": "metric", "max_depth": []}, None),
        ],
    )
    def test_the_config_of_transformers(self, model, config, message):
        taps = config.pop("taps", [3, 6, 9, 12])
        file = file_of("some/model.safetensors")
        config = {
            "model_type": "depth_anything",
            "backbone_config": {"hidden_size": 384, "out_indices": taps},
            **config,
        }
        put("some/config.json", json.dumps(config).encode())
        if message is None:
            check_identity(find_row(model), file)
        else:
            with pytest.raises(CheckpointError, match=message):
                check_identity(find_row(model), file)

    @pytest.mark.parametrize(("named", "message"), [("da3mono-large", None), ("da3-base", "holds da3-base"), (7, None)])
    def test_the_config_of_depth_anything_3(self, named, message):
        file = file_of("some/model.safetensors")
        put("some/config.json", json.dumps({"model_name": named, "config": {}}).encode())
        if message is None:
            check_identity(find_row("da3-mono"), file)
        else:
            with pytest.raises(CheckpointError, match=message):
                check_identity(find_row("da3-mono"), file)
            assert row_for_checkpoint(file.path).name == named

    def test_a_file_of_the_inventory_is_hashed_first(self):
        check_identity(ROW, WeightsFile(put("some_model.pth"), "", FOLDER))

    def test_obtain_looks_at_the_identity(self):
        with pytest.raises(CheckpointError, match="Depth Anything V1"):
            obtain(VITS, checkpoint=put("depth_anything_vits14.pth"), log=print)

    def test_row_for_checkpoint(self, monkeypatch):
        assert row_for_checkpoint(put("depth_anything_v2_metric_vkitti_vitb.pth")).name == "metric-outdoor-vitb"
        assert row_for_checkpoint(put("Depth-Anything-V2-Base-hf/model.safetensors")).name == "vitb"
        assert row_for_checkpoint(put("mine.pth")) is None
        assert row_for_checkpoint(put("depth_anything_vits14.pth")) is None
        assert row_for_checkpoint(put("video_depth_anything_vits.pth")).name == "vda-vits"
        assert row_for_checkpoint(put("metric_video_depth_anything_vitb.pth")).name == "vda-metric-vitb"
        hub = "hub/models--depth-anything--Video-Depth-Anything-Large/snapshots/1"
        assert row_for_checkpoint(put(f"{hub}/weights.pth")).name == "vda-vitl"
        monkeypatch.setattr(identify, "ROWS", (ROW,))
        assert row_for_checkpoint("mine.pth") == ROW
        with pytest.raises(CheckpointError):
            row_for_checkpoint("nowhere.pth")
