"""Choose the layers that run in int8: as much of a network's work as a bound of the damage allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from depthcli.backends.int8_nodes import Layer

_SMALLEST = 0.005  # share of the work below which a piece is not worth another measurement

Damage = Callable[[Sequence[Layer]], float]  # what int8 in these layers alone does to the result


@dataclass(frozen=True)
class _Piece:
    layers: tuple[Layer, ...]
    damage: float

    @property
    def price(self) -> float:
        """Squared damage per operation in int8: squares add, as the layers' errors are nearly independent."""
        return self.damage**2 / max(1, _work(self.layers))


def choose_layers(layers: Sequence[Layer], damage: Damage, bound: float) -> list[Layer]:
    """Return the layers to run in int8, in order, so that their damage together is at most `bound`.

    A piece of the network whose damage is more than its share of the work allows is halved, down to single
    layers. Then
    the pieces are taken in the order of damage per operation, as many as the bound allows. The result is measured as a
    whole, because damages add only nearly.
    """
    allowed = bound**2 / max(1, _work(layers))
    smallest = _SMALLEST * _work(layers)
    pieces = sorted(_pieces(tuple(layers), damage, allowed, smallest), key=lambda piece: piece.price)
    fits, fails = 0, len(pieces) + 1
    while fits + 1 < fails:
        count = (fits + fails) // 2 if fits or fails <= len(pieces) else len(pieces)  # most often all of them fit
        if damage(_joined(pieces[:count])) <= bound:
            fits = count
        else:
            fails = count
    chosen = set(_joined(pieces[:fits]))
    return [layer for layer in layers if layer in chosen]


def _pieces(layers: tuple[Layer, ...], damage: Damage, allowed: float, smallest: float) -> list[_Piece]:
    if not layers:
        return []
    piece = _Piece(layers, damage(layers))
    if piece.price <= allowed or len(layers) == 1 or _work(layers) < smallest:
        return [piece]
    middle = len(layers) // 2
    halves = layers[:middle], layers[middle:]
    return [piece for half in halves for piece in _pieces(half, damage, allowed, smallest)]


def _joined(pieces: Sequence[_Piece]) -> list[Layer]:
    return [layer for piece in pieces for layer in piece.layers]


def _work(layers: Sequence[Layer]) -> int:
    return sum(layer.flops for layer in layers)
