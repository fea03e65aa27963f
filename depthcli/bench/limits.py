"""What this machine can do at best, in matrix products and bytes, and how near the networks come to it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from depthcli.bench.contenders import Contender
from depthcli.bench.rows import Bandwidth, Limit, Roofline
from depthcli.bench.sample import Sample
from depthcli.bench.statistics import median
from depthcli.nets.attention import HAS_FUSED
from depthcli.nets.build import count_parameters
from depthcli.zoo.rows import PATCH, AnyConfig, NetworkConfig

Shape = tuple[int, int, int]  # (M, K, N) of a product (M, K) x (K, N)

SIDES = (1024, 2048, 3072)  # of square matrices
# Larger than any cache, so that a copy shows the memory.
_COPIED_BYTES = 512 * 2**20
_TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WIDTHS = {"exact": 4, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}  # bytes of a weight


def product_shapes(config: AnyConfig, width: int, height: int) -> list[Shape]:
    """Return the products to try: square ones, and those of a transformer's linear layers at an input size."""
    shapes = [(side, side, side) for side in SIDES]
    if isinstance(config, NetworkConfig):
        tokens, dim = (width // PATCH) * (height // PATCH) + 1, config.embed_dim
        shapes += [(tokens, dim, dim), (tokens, dim, 4 * dim), (tokens, 4 * dim, dim)]
    return shapes


def best_product(precision: str, device: str, runs: int, shapes: Sequence[Shape]) -> tuple[float, Shape] | None:
    """Return the GFLOP/s of the fastest of some matrix products in torch, and its shape; None if unsupported.

    The median of `runs` products counts for each shape. precision: fp32, bf16, fp16, or int8 with int32 sums.
    """
    if precision not in (*_TORCH_DTYPES, "int8") or (not HAS_FUSED and precision != "fp32"):
        return None
    best: tuple[float, Shape] = (0.0, shapes[0])
    try:
        for shape in shapes:
            seconds = _repeat(_product(precision, device, shape), device, runs)
            m, k, n = shape
            best = max(best, (2 * m * k * n / seconds / 1e9, shape))
    except (RuntimeError, AttributeError):  # a type that the device, or this torch, does not multiply
        return None
    return best


def memory_bandwidth(device: str, runs: int) -> float:
    """Return the bytes per second of a large copy, read and written bytes together."""
    source = torch.zeros(_COPIED_BYTES // 4)
    source, target = source.to(device), torch.empty_like(source, device=device)
    target.zero_()  # so that the system has given the pages
    return 2 * source.numel() * 4 / _repeat(lambda: target.copy_(source), device, runs)


def limit_rows(
    sample: Sample, contenders: Sequence[Contender], rooflines: Mapping[str, Roofline], runs: int
) -> Iterator[Bandwidth | Limit]:
    """Yield the bandwidth of each device, then for each backend how far its time is from what the machine can do.

    Chips that torch cannot address are left out.

    Floor by operations: the network's operations at the best product's rate. Floor by bytes: weights, picture and map
    once, at the memory's bandwidth, as all else may stay in caches.
    """
    from depthcli.bench.flops import network_flops

    racing = [item for item in contenders if item.choice is not None and not item.error and _is_known(item.device)]
    speeds: dict[str, float] = {}
    for item in racing:
        if item.device not in speeds:
            sample.log(f"memory bandwidth of {item.device}")
            speeds[item.device] = memory_bandwidth(item.device, runs)
            yield Bandwidth(item.device, speeds[item.device] / 1e9)
    row, (width, height) = sample.model.row, sample.plan.input_size
    flops, weights = network_flops(row.network, width, height), count_parameters(row)
    for item in racing:
        moved = weights * _WIDTHS[item.precision] + (3 + 1) * width * height * 4
        line = rooflines.get(item.precision)
        milliseconds = median(item.times[sample.plan.input_size])
        by_operations = flops / line.gflop_s / 1e6 if line else None
        by_bytes = 1000 * moved / speeds[item.device]
        yield Limit(
            name=item.name,
            precision=item.precision,
            median_ms=milliseconds,
            operations_ms=by_operations,
            bytes_ms=by_bytes,
            megabytes=moved / 1e6,
            share=None if by_operations is None else max(by_operations, by_bytes) / milliseconds,
        )


def _is_known(device: str) -> bool:
    try:
        torch.device(device)
    except RuntimeError:
        return False
    return True


def _product(precision: str, device: str, shape: Shape) -> Callable[[], object]:
    m, k, n = shape
    if precision == "int8":
        a, b = (torch.randint(-127, 128, size, dtype=torch.int8, device=device) for size in ((m, k), (k, n)))
        return lambda: torch._int_mm(a, b)
    # Weights are held transposed, as in a linear layer.
    x, w = (torch.randn(*size).to(_TORCH_DTYPES[precision]).to(device) for size in ((m, k), (n, k)))
    return lambda: torch.nn.functional.linear(x, w)


def _repeat(run: Callable[[], object], device: str, runs: int) -> float:
    """Return the median seconds of several runs after one that does not count."""
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + runs):
            started = time.perf_counter()
            run()
            wait_for(device)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def wait_for(device: str) -> None:
    """Wait until a device has done all that was asked of it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()
