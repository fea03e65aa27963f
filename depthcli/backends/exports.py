"""Traced networks as files of other engines: ONNX, and OpenVINO's own format."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union

import torch

from depthcli.errors import EngineError, first_line

# Layer norm is one operation from this version on, and every runtime since 2022 reads it.
OPSET = 17
OUTPUT = "depth"

Trace = Union[torch.jit.ScriptModule, "torch.jit.ScriptFunction[Any, Any]"]
Examples = Mapping[str, torch.Tensor]


def export_onnx(trace: Trace, examples: Examples, path: Path, any_size: bool, facts: Mapping[str, str]) -> None:
    """Write a trace as ONNX.

    examples: an input (B, C, H, W) by name, in order. any_size: H and W of inputs and answer are left open.
    facts: texts that the file carries as its metadata. Raises EngineError where the package `onnx` is missing or the
    network cannot be written.
    """
    content = to_onnx(trace, examples, any_size)
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, str(path))


def to_onnx(trace: Trace, examples: Examples, any_size: bool) -> bytes:
    """Return a trace as the content of an ONNX file. Arguments and errors as for `export_onnx`."""
    if importlib.util.find_spec("onnx") is None:  # which torch needs for it
        raise EngineError(
            "the network cannot be written as ONNX without the package onnx", 'pip install "depthcli[onnx]"'
        )
    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in examples}
    # torch 1.13 has only the exporter for traces, and later ones have to be told.
    export: Any = torch.onnx.export  # whose types no longer know of streams
    traces = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    content = io.BytesIO()
    try:
        with _uninterrupted(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that exporter is deprecated
            export(
                trace,
                tuple(examples.values()),
                content,
                input_names=list(examples),
                output_names=[OUTPUT],
                dynamic_axes={**axes, OUTPUT: {1: "height", 2: "width"}} if any_size else None,
                opset_version=OPSET,
                **traces,
            )
    except RuntimeError as error:  # above all: protobuf holds 2 GB and no more, which vitg exceeds
        raise EngineError(f"the network cannot be written as ONNX: {first_line(error)}", "use openvino") from error
    return content.getvalue()


def export_openvino(trace: Trace, examples: Examples, path: Path, any_size: bool, facts: Mapping[str, str]) -> None:
    """Write a trace as OpenVINO's .xml and, beside it, .bin, weights in float32. Arguments as for ONNX."""
    import openvino as ov

    model = to_openvino(trace, examples, any_size)
    for key, text in facts.items():
        model.set_rt_info(text, ["depthcli", key])
    ov.save_model(model, path, compress_to_fp16=False)


def to_openvino(trace: Trace, examples: Examples, any_size: bool) -> Any:
    """Return a trace as a model of OpenVINO, which shares the memory of its weights.

    Through the frontend itself: `openvino.convert_model` takes three times as long and reports to its makers.
    """
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(trace)  # has to live as long as the conversion
    with _uninterrupted():
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


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Within this context Ctrl-C waits: where a converter calls Python back, it becomes an error of the converter."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
