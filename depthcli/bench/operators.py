"""The dearest operators of the network on each backend, for `depth bench --profile`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from depthcli.backends.executed import ExecutedNode
from depthcli.bench.contenders import Contender, reason
from depthcli.bench.rows import Operator
from depthcli.bench.sample import Sample
from depthcli.errors import EngineError
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.preprocess import to_network_input

DEAREST = 10
# One name for what OpenVINO, torch and ONNX Runtime call differently; other kinds keep their names.
_NAMES = {
    **dict.fromkeys(("FullyConnected", "linear", "Gemm"), "linear"),
    **dict.fromkeys(("MatMul", "FusedMatMul", "matmul", "mm", "bmm"), "product"),
    **dict.fromkeys(("Convolution", "Conv", "FusedConv", "NhwcFusedConv", "conv2d"), "convolution"),
    **dict.fromkeys(("Deconvolution", "ConvTranspose", "conv_transpose2d"), "transposed convolution"),
    **dict.fromkeys(("Interpolate", "Resize", "upsample_bilinear2d"), "resize"),
    **dict.fromkeys(("MVN", "LayerNormalization", "layer_norm", "native_layer_norm"), "layer norm"),
    **dict.fromkeys(("ScaledDotProductAttention", "scaled_dot_product_attention"), "attention"),
}


@dataclass(frozen=True)
class _Kind:
    """Nodes with equal kernels and shapes, which stand at the same place of equal blocks."""

    part: str
    what: str
    kernel: str
    shape: tuple[int, ...]


def measure_operators(sample: Sample, contenders: Sequence[Contender], runs: int) -> Iterator[Operator]:
    """Time every node of the network on each backend that runs; yield the dearest kinds, then the rest as one row."""
    picture = read_picture(sample.pictures[0])
    image = to_network_input(picture.rgb, sample.plan)[None]
    for item in contenders:
        if item.choice is None or item.error:
            continue
        sample.log(f"operators of {item.title}: {1 + runs} runs")
        try:
            nodes = _executed(sample, item, image, runs)
        except Exception as error:  # whatever is wrong with one backend, the others are measured
            yield Operator(item.name, item.precision, error=reason(error))
            continue
        yield from dearest(item.name, item.precision, nodes)


def dearest(name: str, precision: str, nodes: Sequence[ExecutedNode], count: int = DEAREST) -> Iterator[Operator]:
    """Yield the `count` kinds of nodes that take the most time, then all others as one row."""
    kinds: dict[_Kind, list[ExecutedNode]] = {}
    for node in nodes:
        kinds.setdefault(_kind(node), []).append(node)
    total = sum(node.milliseconds for node in nodes)
    ordered = sorted(kinds.items(), key=lambda item: -sum(node.milliseconds for node in item[1]))
    for kind, same in ordered[:count]:
        yield _row(name, precision, kind, same, total)
    others = [node for _, same in ordered[count:] for node in same]
    if others:
        yield _row(name, precision, _Kind("", "all others", "", ()), others, total)


def describe(node: ExecutedNode) -> str:
    """Return what a node computes, as `linear 384 to 1536, gelu` or `convolution 3x3, 64 to 64, relu`."""
    steps = [step.rpartition("::")[2].partition("/")[0] for step in node.operations]
    fused = ", ".join(dict.fromkeys(step.rstrip("_") for step in steps if step.rstrip("_") in _ACTIVATIONS))
    if node.kind == "Subgraph" and node.flops:  # OpenVINO's name for a fused attention
        return "attention"
    name = _NAMES.get(node.kind, node.kind.lower())
    if name in ("linear", "product") and node.flops:
        name += f" {node.inputs[0][-1]} to {node.outputs[0][-1]}"
    elif "convolution" in name and len(node.inputs) > 1 and len(node.inputs[1]) >= 4:
        weights = node.inputs[1]
        size = "x".join(map(str, weights[-2:]))
        grouped = len(weights) == 5 or weights[1] < node.inputs[0][1]
        name += f" {size}, " + (f"depthwise {weights[0]}" if grouped else f"{node.inputs[0][1]} to {weights[0]}")
    return f"{name}, {fused}" if fused else name


_ACTIVATIONS = ("gelu", "relu", "hardtanh", "silu", "sigmoid")


def _kind(node: ExecutedNode) -> _Kind:
    return _Kind(node.part, describe(node), node.kernel, node.outputs[0] if node.outputs else ())


def _row(name: str, precision: str, kind: _Kind, nodes: Sequence[ExecutedNode], total: float) -> Operator:
    milliseconds = sum(node.milliseconds for node in nodes)
    flops, moved = sum(node.flops for node in nodes), sum(node.bytes for node in nodes)
    seconds = milliseconds / 1000 or math.inf
    return Operator(
        name=name,
        precision=precision,
        operator=kind.what,
        kernel=kind.kernel,
        output="x".join(map(str, kind.shape)),
        count=len(nodes),
        ms=milliseconds,
        share=milliseconds / total if total else 0.0,
        gflop_s=flops / seconds / 1e9 if flops else None,
        megabytes=moved / 1e6,
        gigabytes_s=moved / seconds / 1e9,
    )


def _executed(sample: Sample, item: Contender, image: np.ndarray, runs: int) -> list[ExecutedNode]:
    """Return the nodes of one backend, which is opened once more if it has to be told to count."""
    model, choice, inputs = sample.model, item.choice, {"image": image}
    assert choice is not None
    if item.name == "openvino":
        from depthcli.backends.openvino import OpenVino
        from depthcli.backends.openvino import profile as profile_openvino

        counted = OpenVino(model.row, model.weights, choice, sample.choice.trust, sample.log, count=True)
        try:
            return profile_openvino(counted, inputs, counted.traits.graphs[0], runs)
        finally:
            counted.close()
    if item.name == "onnxruntime":
        from depthcli.backends.onnx import OnnxRuntime
        from depthcli.backends.onnx import profile as profile_onnx

        recorded = OnnxRuntime(model.row, model.weights, choice, sample.choice.trust, sample.log, sample.folder)
        try:
            return profile_onnx(recorded, inputs, runs)
        finally:
            recorded.close()
    from depthcli.backends.torch_eager import TorchEager

    if isinstance(item.backend, TorchEager):
        from depthcli.backends.torch_nodes import profile as profile_torch

        return profile_torch(item.backend, inputs, item.backend.traits.graphs[0], runs)
    raise EngineError(f"{item.name} does not tell the times of its operators", "use `backend` openvino, onnx or torch")
