"""The layers chosen for int8 stay within the bound, and the cheapest damage comes first."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from depthcli.backends.int8_nodes import Layer
from depthcli.backends.int8_search import choose_layers


class Network:
    """Layers whose errors are independent, so that their squares add, and a count of the measurements."""

    def __init__(self, damages: Sequence[float], flops: Sequence[int]) -> None:
        self.layers = [Layer(f"layer {index}", -1, 1, count) for index, count in enumerate(flops)]
        self.damages = {layer: damage for layer, damage in zip(self.layers, damages)}
        self.measured = 0

    def damage(self, layers: Sequence[Layer]) -> float:
        self.measured += 1
        return math.sqrt(sum(self.damages[layer] ** 2 for layer in layers))

    def chosen(self, bound: float) -> list[int]:
        return [self.layers.index(layer) for layer in choose_layers(self.layers, self.damage, bound)]


def test_all_layers_are_taken_with_two_measurements_if_they_fit():
    network = Network([1e-4] * 64, [10] * 64)
    assert network.chosen(0.003) == list(range(64))
    assert network.measured == 2


def test_the_layers_that_do_the_harm_are_left_out_and_found_by_halving():
    damages = [1e-4] * 64
    damages[13] = damages[40] = 0.1
    network = Network(damages, [10] * 64)
    assert network.chosen(0.003) == [index for index in range(64) if index not in (13, 40)]
    assert network.measured < 32


@pytest.mark.parametrize("seed", range(8))
def test_what_is_chosen_stays_within_the_bound_and_is_worth_it(seed):
    rng = np.random.default_rng(seed)
    network = Network(10.0 ** rng.uniform(-5, -1, 50), [int(count) for count in rng.integers(1, 1000, 50)])
    for bound in (1e-4, 1e-3, 1e-2):
        chosen = choose_layers(network.layers, network.damage, bound)
        assert network.damage(chosen) <= bound
        assert chosen == sorted(chosen, key=network.layers.index)
    assert chosen


def test_nothing_is_chosen_if_every_layer_harms_too_much_or_there_is_none():
    assert Network([1.0] * 5, [10] * 5).chosen(0.01) == []
    assert Network([], []).chosen(0.01) == []
