"""Layers of a model of OpenVINO in int8 compute nearly the same, and only these change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from depthcli.backends.int8_nodes import EXACT, Layer, int8_candidates, measure_layers, with_int8

ov = pytest.importorskip("openvino", reason="OpenVINO has no wheel for this Python")


@pytest.fixture
def model() -> Any:
    """A convolution with padding over positive numbers, a linear layer, and a product of two computed arrays."""
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    x = op.parameter([1, 3, -1, 8], np.float32, name="x")
    kernel = rng.standard_normal((5, 3, 3, 3)).astype(np.float32)
    kernel[2] *= 100  # channels of different sizes keep their digits
    y = op.convolution(x, kernel, [1, 1], [1, 1], [1, 1], [1, 1], name="conv")
    z = op.matmul(y, rng.standard_normal((4, 8)).astype(np.float32), False, True, name="linear")
    square = op.matmul(z, z, False, True, name="square")
    return ov.Model([op.result(z), op.result(square)], [x])


def inputs(rows: int, seed: int = 0) -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(0.5, 2, (1, 3, rows, 8)).astype(np.float32)]


def test_candidates_are_the_layers_with_constant_weights(model):
    assert int8_candidates(model) == ["conv", "linear"]


def test_layers_are_measured_over_all_runs(model):
    low, high = inputs(6), [4 * array for array in inputs(10)]
    conv, linear = measure_layers(ov.Core(), model, [low, high])
    assert conv.low == pytest.approx(low[0].min()) and conv.high == pytest.approx(high[0].max())
    assert linear.low < 0 < linear.high
    assert conv.flops == 2 * (5 * 8 * 8) * 27  # of a run with 8 rows, the mean
    assert linear.flops == 2 * (5 * 8 * 4) * 8


@pytest.mark.parametrize("names", [("conv",), ("linear",), ("conv", "linear")])
def test_int8_is_near_and_changes_only_its_layers(model, names):
    core = ov.Core()
    runs = [inputs(6, seed) for seed in range(4)]
    layers = [layer for layer in measure_layers(core, model, runs) if layer.name in names]
    rough = with_int8(model, layers)
    kinds = [node.get_type_name() for node in rough.get_ordered_ops()]
    assert kinds.count("FakeQuantize") == 2 * len(names)
    wanted, found = (core.compile_model(form, "CPU", EXACT)(runs[0])[0] for form in (model, rough))
    axes = (0, 2, 3) if names == ("conv",) else None  # a linear layer's input has one range for all channels
    apart = np.abs(wanted - found).max(axis=axes) / np.abs(wanted).max(axis=axes)
    assert 0 < apart.max() < 0.03
    assert not any(node.get_type_name() == "FakeQuantize" for node in model.get_ordered_ops())


def test_zero_stays_zero_as_padding_and_relu_need_it(model):
    layer = Layer("conv", 0.7, 1.9, 1)
    node = next(node for node in with_int8(model, [layer]).get_ordered_ops() if node.get_friendly_name() == "conv")
    quantize = node.input_value(0).get_node()
    low, high = (float(quantize.input_value(port).get_node().data) for port in (1, 2))
    assert low == 0 and high == pytest.approx(1.9)
    layer = Layer("conv", -0.3, 1.9, 1)
    node = next(node for node in with_int8(model, [layer]).get_ordered_ops() if node.get_friendly_name() == "conv")
    quantize = node.input_value(0).get_node()
    low, high = (float(quantize.input_value(port).get_node().data) for port in (1, 2))
    steps = -low / ((high - low) / 255)
    assert steps == pytest.approx(round(steps), abs=1e-3) and high - low >= 2.2 * 0.99
