"""A compile resolves its model once and reads the checkpoint once, however many input sizes it has."""

from __future__ import annotations

from collections import Counter

import pytest

from depthcli.choices.model import ModelChoice
from depthcli.jobs import compile as compiling
from depthcli.jobs.compile import CompileJob, compile_model
from depthcli.nets import build
from depthcli.nets.random_weights import random_weights
from depthcli.zoo.rows import find_row


def test_two_sizes_are_one_journey(monkeypatch, tmp_path) -> None:
    calls: Counter[str] = Counter()

    def counted(module, name: str) -> None:
        real = getattr(module, name)

        def call(*arguments, **options):
            calls[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    counted(compiling, "resolve_model")
    counted(build, "read_state")
    counted(compiling, "write_network")
    job = CompileJob("torchscript", ModelChoice("tiny"), ((28, 42), (42, 28)), output=f"{tmp_path}/")
    results = list(compile_model(job, print))
    assert [result.size for result in results] == [(28, 42), (42, 28)]
    assert all(path.is_file() for result in results for path in result.paths)
    assert calls == {"resolve_model": 1, "read_state": 1, "write_network": 2}


# Of docs/operators.md in onnx-tensorrt, those that our networks may need; LayerNormalization since TensorRT 8.6.
TENSORRT = set(
    "Add Cast Clip Concat Constant Conv ConvTranspose Div Erf Gather Gemm Identity LayerNormalization MatMul Mul Pow "
    "Relu Reshape Resize Shape Sigmoid Slice Softmax Sqrt Squeeze Sub Transpose Unsqueeze".split()
)


@pytest.mark.parametrize("name", ["tiny", "vits", "metric-indoor-vits"])
def test_tensorrt_takes_the_onnx_file(name, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = random_weights(find_row(name), tmp_path) if name != "tiny" else None
    choice = ModelChoice(name, checkpoint=weights.path if weights else None)
    (compiled,) = compile_model(CompileJob("onnx", choice, ((28, 42),), output=f"{tmp_path}/"), print)
    assert compiled.error is None
    model = onnx.load(str(compiled.paths[0]))
    assert {node.op_type for node in model.graph.node} <= TENSORRT
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT}
    for value in (*model.graph.input, *model.graph.output):
        assert all(axis.dim_value > 0 for axis in value.type.tensor_type.shape.dim)  # no open sizes
    for node in model.graph.node:
        modes = {
            item.name: item.s for item in node.attribute if item.name in ("mode", "coordinate_transformation_mode")
        }
        assert node.op_type != "Resize" or modes == {
            "mode": b"linear",
            "coordinate_transformation_mode": b"align_corners",
        }
