"""Traced networks as files of other engines: ONNX, and OpenVINO's own format."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from depthcli.errors import EngineError

# Layer norm is one operation from this version on, and every runtime since 2022 reads it.
OPSET = 17
OUTPUT = "depth"

Examples = Mapping[str, torch.Tensor]


def export_onnx(
    trace: torch.jit.ScriptModule, examples: Examples, path: Path, any_size: bool, facts: Mapping[str, str]
) -> None:
    """Write a trace as ONNX.

    examples: an input (B, C, H, W) by name, in order. any_size: H and W of inputs and answer are left open.
    facts: texts that the file carries as its metadata. Raises EngineError where the package `onnx` is missing or the
    network cannot be written.
    """
    try:
        import onnx
    except ImportError as error:
        raise EngineError(f"the network cannot be written as ONNX: {error}", 'pip install "depthcli[onnx]"') from error

    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in examples}
    # torch 1.13 has only the exporter for traces, and later ones have to be told.
    traces: Any = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that exporter is deprecated
            torch.onnx.export(
                trace,
                tuple(examples.values()),
                str(path),
                input_names=list(examples),
                output_names=[OUTPUT],
                dynamic_axes={**axes, OUTPUT: {1: "height", 2: "width"}} if any_size else None,
                opset_version=OPSET,
                **traces,
            )
    except RuntimeError as error:  # above all: protobuf holds 2 GB and no more, which vitg exceeds
        reason = str(error).strip().splitlines()[0]
        raise EngineError(f"the network cannot be written as ONNX: {reason}", "use openvino") from error
    if facts:
        model = onnx.load(str(path))
        onnx.helper.set_model_props(model, dict(facts))
        onnx.save(model, str(path))


def export_openvino(
    trace: torch.jit.ScriptModule, examples: Examples, path: Path, any_size: bool, facts: Mapping[str, str]
) -> None:
    """Write a trace as OpenVINO's .xml and, beside it, .bin, weights in float32. Arguments as for ONNX."""
    import openvino as ov

    model = to_openvino(trace, examples, any_size)
    for key, text in facts.items():
        model.set_rt_info(text, ["depthcli", key])
    ov.save_model(model, path, compress_to_fp16=False)


def to_openvino(trace: torch.jit.ScriptModule, examples: Examples, any_size: bool) -> Any:
    """Return a trace as a model of OpenVINO, which shares the memory of its weights.

    Through the frontend itself: `openvino.convert_model` takes three times as long and reports to its makers.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace)  # has to live as long as the conversion
    model = frontend.convert(frontend.load(decoder))
    for port, (name, example) in zip(model.inputs, examples.items()):
        node = port.get_node()
        node.set_friendly_name(name)
        port.get_tensor().set_names({name})
        node.set_element_type(ov.Type.f32)
        batch, channels, height, width = example.shape
        node.set_partial_shape(ov.PartialShape([batch, channels, *((-1, -1) if any_size else (height, width))]))
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model.validate_nodes_and_infer_types()
    return model
