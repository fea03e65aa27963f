"""Whether a network would compile for AWS's chips, as far as that can be said on any machine, without their packages.

Two questions: does the converter know every operator of the graph, where it says which it knows, and does the graph
still answer as the network does? That it then compiles, and how fast it runs, only such a machine can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from depthcli.backends.neuron.flavours import CHIPS, FLAVOURS
from depthcli.errors import UsageError
from depthcli.jobs.compiling import check_size
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow

# How far the graph's answer may be from the readable network's, over its maximum; 1e-6 was measured.
BOUND = 1e-5


@dataclass(frozen=True)
class Analysis:
    """What was found out about a graph.

    operators: how often each occurs. unknown: those that the converter does not list; none where it has no list.
    difference: of the graph's answer from the network's in float32, over the maximum. snapped: the same once the
    weights of resizes are rounded to what bfloat16 holds, as they will be compiled; snapped_mean: the mean of that over
    the standard deviation of the answer.
    """

    operators: Mapping[str, int]
    unknown: tuple[str, ...]
    difference: float
    snapped: float
    snapped_mean: float

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against compiling it."""
        return not self.unknown and self.difference <= BOUND


def check_analysis(target: str, height: int, width: int, batch: int) -> None:
    """Raise UsageError for what cannot be analysed."""
    if target not in FLAVOURS:
        raise UsageError(f"{target} is not analysed", f"--analyze-only goes with --target {' or '.join(CHIPS)}")
    check_size(height, width, batch)


def analyze(
    target: str, row: ModelRow, weights: WeightsFile, height: int, width: int, batch: int, trust: bool
) -> Analysis:
    """Return what speaks for and against compiling a model for one input and one kind of chip.

    Raises ModelError for weights that do not fit.
    """
    import torch

    from depthcli.graphs.operators import inf1_operators, operators_of
    from depthcli.graphs.resize_matrices import MatrixResize
    from depthcli.graphs.static import trace
    from depthcli.nets.build import read_network

    network = read_network(row, weights, trust)
    picture = np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)
    with torch.inference_mode():
        image = torch.from_numpy(picture)
        wanted = network(image)
        # Attention as products: torch 1.13 knows no other, and the converter no fused one.
        plain, snapped = (trace(network, batch, height, width, False, MatrixResize(snap)) for snap in (False, True))
        away, away_snapped = ((graph(image) - wanted).abs() for graph in (plain, snapped))
    operators = operators_of(snapped)
    top = float(wanted.max())
    return Analysis(
        dict(operators.most_common()),
        tuple(sorted(set(operators) - inf1_operators())) if FLAVOURS[target].listed else (),
        float(away.max()) / top,
        float(away_snapped.max()) / top,
        float(away_snapped.mean() / wanted.std()),
    )
