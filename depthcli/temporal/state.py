"""States: named arrays from which interrupted work continues with the same bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

State = dict[str, np.ndarray]


def join_states(**parts: Mapping[str, np.ndarray]) -> State:
    """Return several states as one: the arrays of each under its name."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def part_of(state: Mapping[str, np.ndarray], name: str) -> State:
    """Return one of the states that were joined."""
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
