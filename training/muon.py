"""Muon: momentum whose updates of a matrix, or of a convolution's kernels as one, are made orthogonal.

Every direction of a matrix learns equally fast, which a head trained from nothing on few pictures gains from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

import torch


def orthogonal(matrices: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """Matrices (K, r, c) with about the same singular vectors and all singular values near 1 (Newton-Schulz)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.flatten(1).norm(dim=1) + 1e-7).view(-1, 1, 1)
    for _ in range(rounds):
        square = x @ x.transpose(1, 2)
        x = a * x + (b * square + c * square @ square) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, with decoupled weight decay. rate: size of a step of an entry's scale."""

    def __init__(
        self, matrices: Iterable[torch.Tensor], rate: float, momentum: float = 0.95, decay: float = 0.0
    ) -> None:
        super().__init__(list(matrices), {"lr": rate, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Optional[object] = None) -> None:
        """One step for every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault(weight.shape, []).append(weight)
            for weights in alike.values():
                self._move(weights, group["lr"], group["momentum"], group["decay"])

    def _move(self, weights: list[torch.Tensor], rate: float, momentum: float, decay: float) -> None:
        """One step of matrices of one shape, made orthogonal together."""
        ahead = []
        for weight in weights:
            state = self.state[weight]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(weight)
            kept = state["momentum"].lerp_(weight.grad, 1 - momentum)
            ahead.append(weight.grad.lerp(kept, momentum).flatten(1))
        updates = orthogonal(torch.stack(ahead).to(torch.bfloat16)).float()
        rows, columns = updates[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for weight, update in zip(weights, updates):
            weight.mul_(1 - rate * decay).add_(update.view_as(weight), alpha=-rate * scale)
