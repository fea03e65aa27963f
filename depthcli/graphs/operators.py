"""What a traced network is made of, held against what a compiler knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_INF1_LIST = Path(__file__).parents[1] / "assets" / "inf1_operators.txt"


def operators_of(graph: torch.jit.ScriptModule) -> Counter[str]:
    """Return how often each operator occurs, by its full name (aten::linear), those inside of blocks included."""
    return Counter(node.kind() for node in _nodes(graph.inlined_graph))


def inf1_operators() -> frozenset[str]:
    """Return the operators that torch-neuron converts: by its own word where it is installed, else by AWS's list."""
    try:
        import torch_neuron
    except ImportError:
        lines = _INF1_LIST.read_text(encoding="utf-8").splitlines()
        return frozenset(line for line in lines if not line.startswith("#"))
    # Where it is installed it is part of torch: torch.neuron.
    return frozenset(getattr(torch, "neuron", torch_neuron).get_supported_operations())


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
