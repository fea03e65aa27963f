"""The operators of a traced network, and those that a compiler supports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_INF1_LIST = Path(__file__).parents[1] / "assets" / "inf1_operators.txt"


def operators_of(graph: torch.jit.ScriptModule) -> Counter[str]:
    """Return how often each operator occurs, nested blocks included, by full name (aten::linear)."""
    return Counter(node.kind() for node in _nodes(graph.inlined_graph))


def inf1_operators() -> frozenset[str]:
    """Return the operators that torch-neuron converts: its own list if it is installed, else AWS's published one."""
    try:
        import torch_neuron
    except ImportError:
        lines = _INF1_LIST.read_text(encoding="utf-8").splitlines()
        return frozenset(line for line in lines if not line.startswith("#"))
    # Once imported it is part of torch: torch.neuron.
    return frozenset(getattr(torch, "neuron", torch_neuron).get_supported_operations())


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
