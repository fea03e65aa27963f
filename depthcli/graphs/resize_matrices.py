"""Bilinear resizes as matrix products, for compilers without a reliable bilinear resize.

With aligned corners a resize is linear along each axis: rows @ x @ cols^T. NeuronCores round factors to bfloat16, so
plain weights do not sum to one and leave ripples of up to 0.4 % in the map. Snapped weights are exact in bfloat16 and
shift the samples by at most 0.002 pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class MatrixResize:
    """A `Resize` for the head. The first call for a pair of sizes, which makes the matrices, must precede a trace.

    snap: round the weights to 1/256, which bfloat16 holds exactly.
    """

    def __init__(self, snap: bool) -> None:
        self._snap = snap
        self._matrices: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return x (B, C, h, w) at (height, width)."""
        rows, _ = self._pair(int(x.shape[-2]), size[0])
        _, cols = self._pair(int(x.shape[-1]), size[1])
        return rows @ x @ cols

    def _pair(self, inputs: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a matrix and its transpose."""
        key = inputs, outputs
        if key not in self._matrices:
            matrix = resize_matrix(inputs, outputs, self._snap)
            self._matrices[key] = matrix, matrix.t().contiguous()
        return self._matrices[key]


def resize_matrix(inputs: int, outputs: int, snap: bool) -> torch.Tensor:
    """Return the matrix (outputs, inputs) that resizes one axis with aligned corners; its rows sum to one.

    snap: round the larger of a row's two weights to 1/256, so that both have at most eight significant bits, as
    bfloat16.
    """
    each = torch.eye(inputs).reshape(1, inputs, inputs, 1)
    matrix = F.interpolate(each, size=(outputs, 1), mode="bilinear", align_corners=True)[0, :, :, 0].t().contiguous()
    if not snap or inputs == 1:
        return matrix
    weights, places = matrix.topk(2, dim=1)
    larger = torch.round(weights[:, :1] * 256) / 256
    return torch.zeros_like(matrix).scatter_(1, places, torch.cat([larger, 1 - larger], dim=1))
