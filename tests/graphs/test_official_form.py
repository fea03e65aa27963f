"""The official code's form gives our network's numbers, and is as wasteful as that code is."""

from __future__ import annotations

import pytest
import torch

from depthcli.graphs.official_form import OfficialForm
from depthcli.nets import vit
from depthcli.nets.attention import HAS_FUSED, plain_attention
from depthcli.nets.build import build_network
from depthcli.nets.depth_anything_v2 import DepthAnythingV2
from depthcli.zoo.rows import NetworkConfig
from tests.reference import reference_state


def network(metric: bool = False, swiglu: bool = False) -> DepthAnythingV2:
    config = NetworkConfig(32, 5, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3), swiglu=swiglu, position_grid=4)
    made = build_network(config, metric).eval()
    shapes = {key: value.shape for key, value in made.state_dict().items()}
    made.load_state_dict({key: torch.from_numpy(value) for key, value in reference_state(shapes).items()})
    assert isinstance(made, DepthAnythingV2)
    return made


@pytest.mark.parametrize("fused", (True, False) if HAS_FUSED else (False,))
@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("size", [(1, 56, 56), (2, 70, 42)])
def test_the_numbers_are_those_of_our_network(fused, metric, swiglu, size):
    source = network(metric, swiglu)
    picture = torch.randn(size[0], 3, *size[1:])
    with torch.no_grad():
        wanted = source(picture)
        assert (OfficialForm(source, fused)(picture) - wanted).abs().max() <= 1e-5 * wanted.max()
    assert wanted.std() > 0


def test_the_last_convolution_of_a_stage_works_on_the_larger_map(monkeypatch):
    counter = pytest.importorskip("torch.utils.flop_counter")
    monkeypatch.setattr(vit, "attention", plain_attention)  # the fused one is not counted on a CPU
    source = network()
    counts = []
    for module in (source, OfficialForm(source)):
        with torch.no_grad(), counter.FlopCounterMode(display=False) as counted:
            module(torch.randn(1, 3, 56, 70))
        counts.append(counted.get_total_flops())
    # What a stage leaves with the next one comes with: what remains are the largest map and the smallest, 2 x 3.
    patches, features = 4 * 5, 16
    assert counts[1] - counts[0] == 2 * (64 * patches - 2 * 3) * features * features


def test_the_positions_are_made_anew_in_every_pass(monkeypatch):
    from depthcli.graphs import official_form

    calls = []
    resize = official_form.interpolate_positions
    monkeypatch.setattr(official_form, "interpolate_positions", lambda *args: calls.append(args) or resize(*args))
    form = OfficialForm(network())
    with torch.no_grad():
        for _ in range(3):
            form(torch.zeros(1, 3, 56, 70))
    assert len(calls) == 3
