"""The graph for every size gives the readable network's numbers, also at sizes it was not traced at."""

from __future__ import annotations

import pytest
import torch

from depthcli.graphs.any_size import trace_any_size
from depthcli.graphs.positions import resize_positions
from tests.graphs.test_static import NETWORKS, network
from tests.nets import da3


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_says_what_the_readable_network_says_at_every_size(name: str, metric: bool) -> None:
    source = network(name, metric)
    graph = trace_any_size(source)
    part = graph.parts["depth"]
    for height, width in ((42, 70), (70, 42), (56, 56), (14, 140), (98, 126)):
        image = torch.randn(1, 3, height, width)
        inputs = [image]
        if graph.positions is not None:
            inputs.append(torch.from_numpy(resize_positions(graph.positions, height // 14, width // 14)))
        assert len(inputs) == len(part.examples)
        with torch.no_grad():
            wanted = source(image)
            assert (part.trace(*inputs) - wanted).abs().max() <= 1e-5 * wanted.abs().max(), (height, width)
    assert wanted.std() > 0


def test_depth_anything_3_gives_its_sky_too() -> None:
    source = da3.network("mono")
    graph = trace_any_size(source)
    part = graph.parts["depth"]
    assert part.outputs == ("depth", "sky")
    for height, width in ((42, 70), (70, 42), (14, 140)):
        image = torch.randn(1, 3, height, width)
        positions = torch.from_numpy(resize_positions(graph.positions, height // 14, width // 14))
        with torch.no_grad():
            for found, wanted in zip(part.trace(image, positions), source(image)):
                assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max(), (height, width)
