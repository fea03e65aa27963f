"""The same network as other programs run it: a plain ONNX export in two runtimes, and Hugging Face transformers.

Each is a backend for one input size, as such programs use it. What is not installed becomes an EngineError, and so a
row with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import torch

from depthcli.backends import Arrays, Traits
from depthcli.backends.onnx import to_onnx
from depthcli.bench.contenders import MeasuredModel
from depthcli.errors import EngineError, UsageError
from depthcli.graphs.jit import quiet_trace
from depthcli.graphs.official_form import OfficialForm
from depthcli.host.cores import compute_threads
from depthcli.host.memory import check_memory, free_memory
from depthcli.nets.build import read_network
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.rows import ModelRow, NetworkConfig

_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class OtherForm:
    """A function that runs the network, as a backend.

    run: (1, 3, H, W) float32 -> (1, H, W) float32.
    """

    def __init__(self, row: ModelRow, traits: Traits, run: Callable[[np.ndarray], np.ndarray]) -> None:
        self.traits = traits
        self._row = row
        self._run: Optional[Callable[[np.ndarray], np.ndarray]] = run

    def fit(self, plan: InputPlan) -> InputPlan:
        """Return the plan: it is the one that the form was made for."""
        return plan

    def check(self, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
        """Raise PictureError if a picture of this size does not fit into the memory."""
        check_memory(self._row.network, plan, batch, free_memory(), plain_attention=True)

    def run(self, inputs: Arrays, graph: str = "depth", replica: Optional[int] = None) -> Arrays:
        """Return {"depth": (1, H, W) float32} for {"image": (1, 3, H, W) float32}."""
        if self._run is None:
            raise EngineError("this backend is closed", "open another one")
        return {"depth": self._run(np.ascontiguousarray(inputs["image"]))}

    def close(self) -> None:
        """Free the network; may be called twice."""
        self._run = None


def export_plainly(model: MeasuredModel, plan: InputPlan, path: Path, trust: bool) -> None:
    """Write the official form of a network as ONNX for one input size. Raises EngineError or UsageError."""
    network = read_network(model.row, model.weights, trust)
    if not isinstance(network, DepthAnythingV2):
        raise UsageError(f"there is no official code for {model.row.name}", "use `encoder` vits")
    width, height = plan.input_size
    form, image = OfficialForm(network), torch.zeros(1, 3, height, width)
    with torch.no_grad(), quiet_trace():
        trace: Any = torch.jit.trace(form, image, check_trace=False)  # type: ignore[no-untyped-call]
    path.write_bytes(to_onnx(trace, {"image": image}, any_size=False))


def plain_openvino(row: ModelRow, path: Path, precision: str) -> OtherForm:
    """Return the exported file in OpenVINO, compiled for its one size with OpenVINO's own settings."""
    from depthcli.backends.openvino import shared_core

    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": compute_threads()}
    compiled = shared_core().compile_model(str(path), "CPU", settings)
    traits = Traits("openvino", version("openvino"), "cpu", precision)
    return OtherForm(row, traits, lambda image: np.array(compiled([image])[0]))


def plain_onnxruntime(row: ModelRow, path: Path, precision: str) -> OtherForm:
    """Return the exported file in ONNX Runtime. int8: its linear layers are quantised dynamically first."""
    try:
        import onnxruntime
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be loaded: {error}", 'pip install "depthcli[onnx]"') from error
    if precision == "int8":
        whole, path = path, path.with_suffix(".int8.onnx")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it recommends to its root logger another tool to run first
        try:
            quantize_dynamic(whole, path, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
        finally:
            logging.disable(before)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = compute_threads()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    traits = Traits("onnxruntime", version("onnxruntime"), "cpu", precision)
    return OtherForm(row, traits, lambda image: np.asarray(session.run(None, {"image": image})[0]))


def transformers_network(row: ModelRow, precision: str) -> OtherForm:
    """Return the network in Hugging Face transformers, with its own initial weights, which take the same time."""
    try:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
    except ImportError as error:
        raise EngineError(f"transformers cannot be loaded: {error}", "pip install transformers") from error
    config = row.network
    if not isinstance(config, NetworkConfig) or config.swiglu:
        raise UsageError(f"transformers has no {row.name}", "use `encoder` vits")
    backbone = Dinov2Config(
        hidden_size=config.embed_dim,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        image_size=518,
        patch_size=14,
        out_indices=[tap + 1 for tap in config.taps],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    network = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            reassemble_hidden_size=config.embed_dim,
            neck_hidden_sizes=list(config.out_channels),
            fusion_hidden_size=config.features,
        )
    )
    dtype = _TORCH_DTYPES[precision]
    network = network.to(dtype).eval()

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            depth: torch.Tensor = network(pixel_values=torch.from_numpy(image).to(dtype)).predicted_depth
        return depth.float().numpy()

    return OtherForm(row, Traits("transformers", version("transformers"), "cpu", precision), run)
