"""Graphs as ONNX files."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import torch

from depthcli.nets.any_size import AnySizeGraph

# Layer norm is one operation from this version on, and every runtime since 2022 reads it.
OPSET = 17


def export_onnx(graph: AnySizeGraph, path: Path) -> None:
    """Write a graph for any size of input. Raises ImportError where the package `onnx` is missing."""
    import onnx  # noqa: F401  torch imports it late, and says less about it

    # torch 1.13 has only the exporter for traces, and later ones have to be told.
    traces: Any = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    axes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in graph.input_names}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that exporter is deprecated
        torch.onnx.export(
            graph.trace,
            graph.example,
            str(path),
            input_names=list(graph.input_names),
            output_names=["depth"],
            dynamic_axes={**axes, "depth": {1: "height", 2: "width"}},
            opset_version=OPSET,
            **traces,
        )
