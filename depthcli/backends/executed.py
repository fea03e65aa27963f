"""The nodes of a network as a backend executes them, for `depth bench --profile`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class ExecutedNode:
    """One node of a network, and the median of its time.

    part: of the network: depth, or encode, mix, finish. name: unique in its part. kind: the backend's, as
    FullyConnected. kernel: how it is computed, as brgemm_avx512_bf16, or the types of its inputs. operations: of the
    graph, fused in this node. inputs, outputs: shapes. flops: of products and convolutions, 0 for other kinds. bytes:
    read and written once, with the weights.
    """

    part: str
    name: str
    kind: str
    kernel: str
    operations: tuple[str, ...]
    milliseconds: float
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    flops: int
    bytes: int


def with_median_times(rounds: Sequence[Sequence[ExecutedNode]]) -> list[ExecutedNode]:
    """Return the nodes of the last of several equal runs, each with the median of its times."""
    times = np.median([[node.milliseconds for node in nodes] for nodes in rounds], axis=0)
    return [replace(node, milliseconds=float(time)) for node, time in zip(rounds[-1], times)]
