"""Each kind of layer of vits on every engine at hand: milliseconds, GFLOP/s, and bytes, in turns.

    python benchmarks/layers.py --kinds attention,mlp --runs 7
    python benchmarks/layers.py --networks vits,tiny --checkpoint vits.pth --runs 5

A kind is a chain of equal layers, as many as the network has, so that an engine's inputs and outputs weigh little. An
engine that a layer does not fit, or that is not installed, is a row with the reason. The percentage is of the best bf16
product of matrices in torch in the same run. The megabytes have to move if every layer reads and writes its maps once.
The inductor needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depthcli.backends.openvino import shared_core  # noqa: E402
from depthcli.errors import last_line  # noqa: E402
from depthcli.graphs.static import static_network  # noqa: E402
from depthcli.host.cores import compute_threads  # noqa: E402
from depthcli.nets.build import channels_last, read_network  # noqa: E402
from depthcli.zoo.locate import find  # noqa: E402
from depthcli.zoo.rows import find_row  # noqa: E402

# vits at 518x686: tokens, width, heads, layers.
TOKENS, WIDTH, HEADS, DEPTH = 1814, 384, 6, 12
HEIGHT, WIDTH_PIXELS = 518, 686

# Seconds between two runs: the threads of an engine wait in a loop for a while, and would slow down the next one.
PAUSE = 0.1

Run = Callable[[], Any]


class Attention(nn.Module):
    """DEPTH times the fused attention of HEADS heads. q, k, v: (1, HEADS, TOKENS, 64)."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        for _ in range(DEPTH):
            q = F.scaled_dot_product_attention(q, k, v)
        return q


class Resize(nn.Module):
    """A bilinear resize with aligned corners."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, self.size, mode="bilinear", align_corners=True)


@dataclass(frozen=True)
class Kind:
    """Layers to time.

    gflop: of all. elements: read and written by all if each map moves once, weights included. open_axes: of the inputs,
    that differ from picture to picture.
    """

    name: str
    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    gflop: float
    elements: int
    open_axes: tuple[int, ...] = ()


def kinds() -> Iterator[Kind]:
    """Yield the kinds of layers of vits at 518x686."""
    torch.manual_seed(0)
    qkv = tuple(torch.randn(1, HEADS, TOKENS, WIDTH // HEADS) for _ in range(3))
    yield Kind("attention x12", Attention(), qkv, 4e-9 * TOKENS**2 * WIDTH * DEPTH, 4 * TOKENS * WIDTH * DEPTH, (2,))
    tokens = (torch.randn(1, TOKENS, WIDTH),)
    for name, widths, between in (("qkv/back x12", 3 * WIDTH, []), ("fc1+GELU/fc2 x12", 4 * WIDTH, [nn.GELU()])):
        block = [[nn.Linear(WIDTH, widths), *between, nn.Linear(widths, WIDTH)] for _ in range(DEPTH)]
        flat = nn.Sequential(*(layer for layers in block for layer in layers))
        moved = DEPTH * (2 * TOKENS * (WIDTH + widths) + 2 * WIDTH * widths)
        yield Kind(name, flat, tokens, 4e-9 * TOKENS * WIDTH * widths * DEPTH, moved, (1,))
    norms = nn.Sequential(*(nn.LayerNorm(WIDTH) for _ in range(2 * DEPTH)))
    yield Kind("layer norm x24", norms, tokens, 0.0, 4 * DEPTH * TOKENS * WIDTH, (1,))
    for (height, width), before, after, count in (
        ((19, 25), 64, 64, 2),
        ((37, 49), 64, 64, 4),
        ((74, 98), 64, 64, 4),
        ((148, 196), 64, 64, 4),
        ((296, 392), 64, 32, 4),
        ((518, 686), 32, 32, 4),
    ):
        channels = [(before, after) if layer % 2 == 0 else (after, before) for layer in range(count)]
        convs = [nn.Sequential(nn.ReLU(), nn.Conv2d(*pair, 3, padding=1)) for pair in channels]
        image = torch.randn(1, before, height, width)
        pixels = height * width * count
        yield Kind(
            f"conv 3x3 {before}>{after} {height}x{width} x{count}",
            nn.Sequential(*convs),
            (image,),
            2e-9 * pixels * before * after * 9,
            pixels * (before + after) + 9 * before * after * count,
            (2, 3),
        )
    for channels, small, large in ((64, (148, 196), (296, 392)), (32, (296, 392), (518, 686))):
        pixels = small[0] * small[1] + large[0] * large[1]
        name = f"resize {channels} to {large[0]}x{large[1]}"
        yield Kind(name, Resize(large), (torch.randn(1, channels, *small),), 0.0, channels * pixels, (2, 3))


def networks(names: Sequence[str], checkpoint: Optional[Path]) -> Iterator[Kind]:
    """Yield whole networks at their own input size, for a picture of 4:3."""
    for name in names:
        row = find_row(name)
        weights = find(row, checkpoint if name != "tiny" else None)
        if weights is None:
            sys.exit(f"the weights of {name} are not here: set --checkpoint")
        scale = row.input_size / HEIGHT
        size = [round(side * scale / 14) * 14 for side in (HEIGHT, WIDTH_PIXELS)]
        network = static_network(read_network(row, weights), 1, *size)
        yield Kind(name, network, (torch.randn(1, 3, *size),), 0.0, 0)


def openvino(kind: Kind, precision: str, dynamic: bool = False, **settings: Any) -> Run:
    """OpenVINO; dynamic leaves the tokens, or the height and width, open."""
    import openvino as ov
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    decoder = TorchScriptPythonDecoder(torch.jit.trace(kind.module, kind.inputs, check_trace=False))
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    for port, x in zip(model.inputs, kind.inputs):
        shape: list[int] = list(x.shape)
        for axis in kind.open_axes if dynamic else ():
            shape[axis] = -1
        port.get_node().set_element_type(ov.Type.f32)
        port.get_node().set_partial_shape(ov.PartialShape(shape))
    model.validate_nodes_and_infer_types()
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": compute_threads(), "NUM_STREAMS": 1}
    compiled = shared_core().compile_model(model, "CPU", {**hints, "ENABLE_CPU_PINNING": False, **settings})
    request = compiled.create_infer_request()
    arrays = [x.numpy() for x in kind.inputs]
    return lambda: request.infer(arrays, share_inputs=True, share_outputs=True)


def eager(kind: Kind, dtype: torch.dtype) -> Run:
    """Torch as it is, with the weights in the type. bf16 linear layers and convolutions run in oneDNN."""
    module = channels_last(copy.deepcopy(kind.module)).eval().to(dtype)
    inputs = [_laid_out(x.to(dtype)) for x in kind.inputs]
    return lambda: module(*inputs)


def autocast(kind: Kind) -> Run:
    """Torch with float32 weights under autocast to bf16."""
    module = channels_last(copy.deepcopy(kind.module)).eval()
    inputs = [_laid_out(x) for x in kind.inputs]

    def run() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return module(*inputs)

    return run


def inductor(kind: Kind, dtype: torch.dtype, tune: bool = False) -> Run:
    """torch.compile with frozen weights; `tune` lets it time oneDNN against its own templates for products."""
    import torch._inductor.config as config

    config.freezing = True
    config.max_autotune = tune
    torch._dynamo.reset()
    module = channels_last(copy.deepcopy(kind.module)).eval().to(dtype)
    inputs = [_laid_out(x.to(dtype)) for x in kind.inputs]
    compiled = torch.compile(module)
    compiled(*inputs)  # settings are read here
    return lambda: compiled(*inputs)


def onednn_graph(kind: Kind) -> Run:
    """TorchScript with its oneDNN graph fuser, bf16."""
    torch.jit.enable_onednn_fusion(True)
    try:
        module = channels_last(copy.deepcopy(kind.module)).eval().to(torch.bfloat16)
        inputs = tuple(_laid_out(x.to(torch.bfloat16)) for x in kind.inputs)
        frozen = torch.jit.freeze(torch.jit.trace(module, inputs, check_trace=False))
        for _ in range(3):  # it fuses in the second run
            frozen(*inputs)
    finally:
        torch.jit.enable_onednn_fusion(False)
    return lambda: frozen(*inputs)


def onnxruntime(kind: Kind, fused: bool = False) -> Run:
    """ONNX Runtime, float32. fused: its own attention operator. Its bf16 fast-math is for ARM alone."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = compute_threads()
    options.log_severity_level = 3
    feeds = {f"x{i}": x.numpy() for i, x in enumerate(kind.inputs)}
    if fused:
        if not isinstance(kind.module, Attention):
            raise ValueError("for attention only")
        feeds = {name: x.transpose(0, 2, 1, 3).reshape(1, TOKENS, WIDTH) for name, x in feeds.items()}
        content = _attention_onnx(list(feeds))
    else:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            torch.onnx.export(
                kind.module, kind.inputs, file.name, input_names=list(feeds), dynamo=False,
                opset_version=17,
            )  # fmt: skip
            content = Path(file.name).read_bytes()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def _attention_onnx(names: list[str]) -> bytes:
    """Return DEPTH times the runtime's MultiHeadAttention, which does not keep the products of queries and keys."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, TOKENS, WIDTH]) for name in names]
    nodes, last = [], names[0]
    for layer in range(DEPTH):
        inputs, last = [last, *names[1:]], f"y{layer}"
        nodes.append(helper.make_node("MultiHeadAttention", inputs, [last], domain="com.microsoft", num_heads=HEADS))
    answer = helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, TOKENS, WIDTH])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "attention", values, [answer])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _laid_out(x: torch.Tensor) -> torch.Tensor:
    images = x.dim() == 4 and x.shape[1] != HEADS
    return x.contiguous(memory_format=torch.channels_last) if images else x


BF16, FP32 = torch.bfloat16, torch.float32
# name -> (bytes of an element, maker)
ENGINES: dict[str, tuple[int, Callable[[Kind], Run]]] = {
    "openvino bf16": (2, lambda kind: openvino(kind, "bf16")),
    "openvino bf16 dynamic": (2, lambda kind: openvino(kind, "bf16", dynamic=True)),
    "openvino bf16 no snippets": (2, lambda kind: openvino(kind, "bf16", SNIPPETS_MODE="DISABLE")),
    "openvino fp32": (4, lambda kind: openvino(kind, "f32")),
    "torch bf16": (2, lambda kind: eager(kind, BF16)),
    "torch autocast bf16": (2, autocast),
    "torch fp32": (4, lambda kind: eager(kind, FP32)),
    "inductor bf16": (2, lambda kind: inductor(kind, BF16)),
    "inductor bf16 autotune": (2, lambda kind: inductor(kind, BF16, tune=True)),
    "inductor fp32": (4, lambda kind: inductor(kind, FP32)),
    "onednn graph bf16": (2, onednn_graph),
    "onnxruntime fp32": (4, onnxruntime),
    "onnxruntime fp32 fused": (4, lambda kind: onnxruntime(kind, fused=True)),
}


def best_product() -> float:
    """Return the GFLOP/s of the best bf16 product of matrices: square ones, and those of the network."""
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (3072, 3072, 3072), (TOKENS, WIDTH, 4 * WIDTH)):
        a, b = torch.randn(rows, inner, dtype=BF16), torch.randn(inner, columns, dtype=BF16)
        times = []
        for _ in range(7):
            started = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - started)
        best = max(best, 2e-9 * rows * inner * columns / min(times))
    return best


def measure(kind: Kind, engines: Sequence[str], runs: int, peak: float) -> None:
    """Time one kind on the engines in turns, and print a table."""
    ready: dict[str, Run] = {}
    print(f"\n{kind.name}: {kind.gflop:.1f} GFLOP" if kind.gflop else f"\n{kind.name}", flush=True)
    for name in engines:
        started = time.perf_counter()
        try:
            ready[name] = ENGINES[name][1](kind)
            first = ready[name]()
        except Exception as error:  # whatever an engine raises, the others are measured
            ready.pop(name, None)
            print(f"  {name:26} {type(error).__name__}: {last_line(error)[:110]}")
            continue
        del first
        print(f"  {name:26} ready after {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    times: dict[str, list[float]] = {name: [] for name in ready}
    order, chance = list(ready.items()), random.Random(0)
    for _ in range(runs):
        chance.shuffle(order)
        for name, run in order:
            time.sleep(PAUSE)
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    for name, each in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        seconds = statistics.median(each)
        line = f"  {name:26} {seconds * 1e3:8.1f} ms (least {min(each) * 1e3:.1f})"
        if kind.gflop:
            line += f" {kind.gflop / seconds:7.0f} GFLOP/s {kind.gflop / seconds / peak:5.0%}"
        if kind.elements:
            moved = kind.elements * ENGINES[name][0]
            line += f" {moved / 1e6:7.1f} MB {moved / seconds / 1e9:6.1f} GB/s"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", help="parts of names, with commas; default: all")
    parser.add_argument("--engines", help="parts of names, with commas; default: all")
    parser.add_argument("--networks", help="names of models, with commas: whole networks instead of layers")
    parser.add_argument("--checkpoint", type=Path, help="weights of the networks, but for tiny")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(compute_threads())
    os.environ.setdefault("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
    wanted = options.engines.split(",") if options.engines else [""]
    engines = [name for name in ENGINES if any(part in name for part in wanted)]
    chosen = networks(options.networks.split(","), options.checkpoint) if options.networks else kinds()
    parts = options.kinds.split(",") if options.kinds else [""]
    with torch.inference_mode():
        peak = best_product()
        print(f"torch {torch.__version__}, {compute_threads()} threads, best bf16 product {peak:.0f} GFLOP/s")
        for kind in chosen:
            if any(part in kind.name for part in parts):
                measure(kind, engines, options.runs, peak)


if __name__ == "__main__":
    main()
