from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from depthcli.errors import CheckpointError
from depthcli.nets.build import build_network, infer_encoder, load_network, read_network
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import NETWORKS, LiteConfig, NetworkConfig, find_row

SMALL = NetworkConfig(32, 4, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), position_grid=4)
ROW = replace(find_row("vits"), encoder="small", network=SMALL)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(build_network(SMALL).state_dict())


def test_a_loaded_network_answers_as_the_one_that_was_saved() -> None:
    torch.manual_seed(0)
    source = build_network(SMALL).eval()
    picture = torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        assert torch.equal(load_network(ROW, source.state_dict())(picture), source(picture))


def test_loading_takes_the_tensors_over_without_a_copy() -> None:
    weights = state()
    network = load_network(ROW, weights)
    for name, parameter in network.named_parameters():
        assert parameter.data_ptr() == weights[name].data_ptr(), name
        assert parameter.requires_grad  # it can be trained
    assert not network.training


def test_a_network_that_is_read_to_run_is_frozen(tmp_path) -> None:
    save_file(state(), str(tmp_path / "own.safetensors"))
    network = read_network(ROW, WeightsFile(tmp_path / "own.safetensors", "", "test"))
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_half_precision_weights_run_in_float32() -> None:
    network = load_network(ROW, {name: tensor.half() for name, tensor in state().items()})
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_missing_tensor_is_named() -> None:
    weights = state()
    del weights["pretrained.norm.weight"]
    with pytest.raises(
        CheckpointError, match=r"my\.pth .*lacks pretrained\.norm\.weight \(1 missing, 0 unexpected\)"
    ) as e:
        load_network(ROW, weights, "my.pth")
    assert e.value.exit_code == 4


def test_a_tensor_too_many_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"also holds extra"):
        load_network(ROW, {**state(), "extra": torch.zeros(1)})


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    weights = {**state(), "pretrained.norm.bias": torch.zeros(33)}
    with pytest.raises(CheckpointError, match=r"pretrained\.norm\.bias is \(33,\), not \(32,\)"):
        load_network(ROW, weights)


def test_the_encoder_of_a_checkpoint_is_recognised() -> None:
    def skeleton(encoder: str) -> dict[str, torch.Tensor]:
        config = NETWORKS[encoder]
        if isinstance(config, LiteConfig):
            return {"encoder.stem.weight": torch.zeros(1)}
        blocks = {f"pretrained.blocks.{i}.norm1.weight": torch.zeros(1) for i in range(config.depth)}
        return {"pretrained.cls_token": torch.zeros(1, 1, config.embed_dim), **blocks}

    for encoder in NETWORKS:
        assert infer_encoder(skeleton(encoder)) == encoder
    assert infer_encoder({"something": torch.zeros(1)}) is None
    with pytest.raises(CheckpointError, match=r"holds a vitl, not a vits \(use `encoder` vitl\)"):
        load_network(find_row("vits"), skeleton("vitl"), "x.pth")
