"""Time every operator of a network that torch runs eagerly, for `depth bench --profile`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from depthcli.backends import Arrays
from depthcli.backends.executed import ExecutedNode, with_median_times

if TYPE_CHECKING:
    from depthcli.backends.torch_eager import TorchEager

# Views move no bytes and take no time that counts.
_VIEWS = frozenset(
    "view flatten unflatten t transpose permute expand slice select unbind unsqueeze squeeze detach lift_fresh "
    "resolve_conj resolve_neg".split()
)


def profile(backend: TorchEager, inputs: Arrays, graph: str = "depth", runs: int = 5) -> list[ExecutedNode]:
    """Return the operators of a run, in order, with the medians of several runs.

    Each operator waits for the device, so on a GPU their sum is more than the time of an undisturbed run.
    """
    rounds = []
    for _ in range(runs + 1):
        with _Timed() as timed:
            backend.run(inputs, graph)
        rounds.append(timed.nodes)
    return with_median_times(rounds[1:])


class _Timed(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record every operator that runs while this mode is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nodes: list[ExecutedNode] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        started = time.perf_counter()
        result = func(*args, **kwargs)
        read, written = list(_tensors((args, kwargs))), list(_tensors(result))
        if any(tensor.is_cuda for tensor in written):
            torch.cuda.synchronize()
        milliseconds = 1000 * (time.perf_counter() - started)
        name = func.overloadpacket.__name__
        if name not in _VIEWS:
            shapes = tuple(tuple(tensor.shape) for tensor in read)
            self.nodes.append(
                ExecutedNode(
                    part="depth",
                    name=f"{name}_{len(self.nodes)}",
                    kind=name,
                    kernel=str(read[0].dtype).replace("torch.", "") if read else "",
                    operations=(),
                    milliseconds=milliseconds,
                    inputs=shapes,
                    outputs=tuple(tuple(tensor.shape) for tensor in written),
                    flops=_flops(name, shapes, math.prod(written[0].shape) if written else 0),
                    bytes=sum(math.prod(tensor.shape) * tensor.element_size() for tensor in (*read, *written)),
                )
            )
        return result


def _flops(name: str, inputs: tuple[tuple[int, ...], ...], written: int) -> int:
    """Return the operations of a product with so many output values; a multiply-add counts as 2."""
    if name in ("linear", "matmul", "mm", "bmm"):
        return 2 * written * inputs[0][-1]
    if name in ("conv2d", "convolution"):
        return 2 * written * math.prod(inputs[1][1:])
    if name == "conv_transpose2d":
        return 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if name.startswith("scaled_dot_product"):
        return 4 * written * inputs[1][-2]
    return 0


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
