"""int8 in a model of OpenVINO: which layers can take it, the ranges of their inputs, and the nodes that ask for it.

A layer computes in int8 if a FakeQuantize node stands before each of its inputs. Activations get one range for the
whole array and 256 steps with zero among them, as padding is zero; weights get a symmetric range per output channel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Grouped convolutions do little work, and transposed ones lose more than they save.
_KINDS = ("MatMul", "Convolution")
_STEPS = 256
_WEIGHT_STEPS = 255  # -127 to 127
EXACT: Mapping[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}  # settings of the compiler


@dataclass(frozen=True)
class Layer:
    """A layer with constant weights. name: of its node. low, high: smallest and largest input. flops: of one run."""

    name: str
    low: float
    high: float
    flops: int


def int8_candidates(model: Any) -> list[str]:
    """Return the names of the linear layers and convolutions of a model with constant weights, in order."""
    return [node.get_friendly_name() for node in model.get_ordered_ops() if _takes_int8(node)]


def measure_layers(core: Any, model: Any, runs: Sequence[Sequence[np.ndarray]]) -> list[Layer]:
    """Return the layers of a model that could run in int8, with the ranges of their inputs over several runs.

    runs: the inputs of each run. The model computes in float32.
    """
    import openvino as ov
    from openvino import opset13 as op

    model = model.clone()
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    names = int8_candidates(model)
    for node in (nodes[name] for name in names):
        x = node.input_value(0)
        axes = np.arange(len(x.get_partial_shape()), dtype=np.int64)
        for made in (op.reduce_min(x, axes), op.reduce_max(x, axes), op.shape_of(node.output(0))):
            model.add_results([op.result(made)])
    compiled = core.compile_model(ov.Model(model.get_results(), model.get_parameters()), "CPU", EXACT)
    count = len(model.get_results()) - 3 * len(names)
    found = []
    for inputs in runs:
        results = compiled(list(inputs))
        found.append([np.array(results[port]) for port in range(count, count + 3 * len(names))])
    layers = []
    for index, name in enumerate(names):
        weight = _weights(nodes[name])
        lows, highs, shapes = ([run[3 * index + part] for run in found] for part in range(3))
        pixels = [math.prod(shape) / len(weight) for shape in shapes]
        layers.append(Layer(name, float(min(lows)), float(max(highs)), int(2 * weight.size * np.mean(pixels))))
    return layers


def with_int8(model: Any, layers: Collection[Layer]) -> Any:
    """Return a copy of a model in which these layers run in int8."""
    from openvino import opset13 as op

    model = model.clone()
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    for layer in layers:
        node = nodes[layer.name]
        low, high = _range_with_zero(layer.low, layer.high)
        activation = op.fake_quantize(node.input_value(0), *map(np.float32, (low, high, low, high)), _STEPS)
        weights = _weights(node)
        rows = tuple(range(1, weights.ndim))
        top = np.maximum(np.abs(weights).max(axis=rows, keepdims=True), np.finfo(np.float32).tiny)
        constant = node.input_value(1)
        narrow = op.fake_quantize(constant, -top, top, -top, top, _WEIGHT_STEPS)
        node.input(0).replace_source_output(activation.output(0))
        node.input(1).replace_source_output(narrow.output(0))
    model.validate_nodes_and_infer_types()
    return model


def _range_with_zero(low: float, high: float) -> tuple[float, float]:
    """Return the range of 256 steps that covers low to high and has 0 as one of them."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / (_STEPS - 1) or 1.0
    below = round(-low / step)
    return -below * step, (_STEPS - 1 - below) * step


def _takes_int8(node: Any) -> bool:
    """Return whether a node is a product with constant weights, the output channels first."""
    if node.get_type_name() not in _KINDS or node.input_value(1).get_node().get_type_name() != "Constant":
        return False
    return node.get_type_name() == "Convolution" or bool(node.get_attributes()["transpose_b"])


def _weights(node: Any) -> np.ndarray:
    return np.array(node.input_value(1).get_node().data, np.float32)
