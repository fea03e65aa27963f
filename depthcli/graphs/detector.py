"""A detector's forward pass as one graph for its input size, for backends that convert it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from depthcli.graphs.any_size import AnySizeGraph, trace_part
from depthcli.graphs.jit import quiet_trace
from depthcli.nets.rf_detr import RfDetr, silence

OUTPUTS = ("logits", "boxes", "mask_logits")
_RESIZE = "interpolate_pos_encoding"


def trace_detector(detector: RfDetr) -> AnySizeGraph:
    """Return the graph of a detector on the CPU, which has one part and one size.

    network: image (1, 3, side, side) -> logits (1, Q, C), boxes (1, Q, 4), mask logits (1, Q, h, w). facts: `side` and
    `classes`, by number.
    """
    image = torch.zeros(1, 3, detector.side, detector.side)
    with silence(), warnings.catch_warnings(), quiet_trace(), _fixed_positions(detector.network, detector.side):
        warnings.simplefilter("ignore")  # of transformers, about its own code
        part = trace_part(_Answers(detector.network), image=image)
    facts = {"side": detector.side, "classes": {str(number): name for number, name in detector.classes.items()}}
    return AnySizeGraph({"network": replace(part, outputs=OUTPUTS, any_size=False)}, None, facts=facts)


class _Answers(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found: Any = self.network(pixel_values=image)
        return found.logits, found.pred_boxes, found.pred_masks


@contextmanager
def _fixed_positions(network: nn.Module, side: int) -> Iterator[None]:
    """Let the encoder take its position codes as they are.

    Under a trace it always resizes them, by a bicubic resize with antialiasing that ONNX does not have.
    """
    encoders: list[Any] = [module for module in network.modules() if hasattr(module, _RESIZE)]
    try:
        for encoder in encoders:
            positions = encoder.position_embeddings
            with torch.no_grad():
                fixed = getattr(encoder, _RESIZE)(positions, side, side).detach()
            setattr(encoder, _RESIZE, lambda *_, fixed=fixed: fixed)
        yield
    finally:
        for encoder in encoders:
            vars(encoder).pop(_RESIZE, None)
