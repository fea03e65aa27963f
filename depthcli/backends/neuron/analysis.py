"""Check whether a network can be compiled for an AWS chip, without AWS's packages.

Does the converter support every operator of the graph, and is the graph's depth still that of the network? Only a
machine with the chip can tell whether it compiles, and how fast it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from depthcli.backends.export import Shape, example, relative_difference
from depthcli.backends.neuron.flavours import Flavour
from depthcli.graphs.operators import inf1_operators, operators_of
from depthcli.graphs.resize_matrices import MatrixResize
from depthcli.graphs.static import joined, trace


@dataclass(frozen=True)
class Analysis:
    """Facts about a graph.

    operators: how often each occurs. unknown: those that the converter does not list; empty if it has no list.
    difference: between the depth of graph and network in float32, over the maximum. snapped: the same with the weights
    of resizes rounded to bfloat16, as they are compiled; snapped_mean: its mean over the standard deviation of the
    depth. Of several outputs the worst counts, for snapped_mean the depth. bound: of `difference`; 1e-6 measured.
    """

    bound: ClassVar[float] = 1e-5
    operators: Mapping[str, int]
    unknown: tuple[str, ...]
    difference: float
    snapped: float
    snapped_mean: float

    @property
    def passed(self) -> bool:
        """Whether nothing prevents compiling."""
        return not self.unknown and self.difference <= self.bound


def analyze(flavour: Flavour, network: torch.nn.Module, shape: Shape) -> Analysis:
    """Return the analysis of a network for one batch and input size."""
    with torch.inference_mode():
        image = torch.from_numpy(example(shape))
        wanted = joined(network(image)).numpy()
        # Attention as products: torch 1.13 has no fused operator, and the converter does not know it.
        plain, snapped = (trace(network, *shape, False, MatrixResize(snap)) for snap in (False, True))
        found, found_snapped = (graph(image).numpy() for graph in (plain, snapped))
    operators = operators_of(snapped)
    # Depth is the first of several outputs.
    depth, depth_snapped = (maps[:, 0] if maps.ndim == 4 else maps for maps in (wanted, found_snapped))
    return Analysis(
        dict(operators.most_common()),
        tuple(sorted(set(operators) - inf1_operators())) if flavour.listed else (),
        relative_difference(found, wanted),
        relative_difference(found_snapped, wanted),
        float(np.abs(depth_snapped - depth).mean() / depth.std()),
    )
