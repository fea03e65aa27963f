"""Losses for disparity known up to scale and shift: of the disparity itself, and of its logarithm."""

from __future__ import annotations

import torch


def normalise(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, W) minus its median, divided by its mean distance from it; also that distance (B, 1, 1)."""
    flat = values.flatten(1)
    median = flat.median(1, keepdim=True).values
    spread = (flat - median).abs().mean(1, keepdim=True)
    return (values - median.unsqueeze(-1)) / spread.clamp(min=1e-6).unsqueeze(-1), spread.unsqueeze(-1)


def gradient_loss(difference: torch.Tensor, scales: int = 4) -> torch.Tensor:
    """Mean absolute slope of a difference (B, H, W) at several scales: (B,). It keeps edges where they are."""
    total = difference.new_zeros(difference.shape[0])
    for scale in range(scales):
        step = 1 << scale
        part = difference[:, ::step, ::step]
        across = (part[:, :, 1:] - part[:, :, :-1]).abs().mean((1, 2))
        down = (part[:, 1:] - part[:, :-1]).abs().mean((1, 2))
        total = total + across + down
    return total


LEVEL = 3.0  # what a network that answers in the target's own scale says at a picture's median
FLOOR = 0.15  # added to disparity over its mean before the logarithm: far beyond seven times as far, all is alike


def affine_invariant_losses(
    predicted: torch.Tensor, truth: torch.Tensor, free: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean absolute error and gradient loss of disparities (B, H, W), the same under any scale > 0 and shift of truth.

    The truth is normalised by median and mean deviation; one far out in the tail (something right before the lens)
    counts no more than its bound, or one such picture would rule a batch.
    free: normalise the prediction too, so that its scale and shift do not matter either. A network that knows nothing
    yet must not be trained so: as its answers are stretched to full contrast, every guess but the commonest one costs
    more than it can win, and it stays with "lower is nearer". Not free, it may answer faintly where it is unsure.
    """
    wanted = normalise(truth)[0].clamp(-LEVEL, 4.0)
    given = normalise(predicted)[0] if free else predicted - LEVEL
    difference = given - wanted
    return difference.abs().mean(), gradient_loss(difference).mean()


def logarithmic_losses(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean absolute error and gradient loss of the logarithms of disparities (B, H, W); truth >= 0, 0 is endlessly far.

    Most of a picture is far, and there disparities differ by little: in their logarithms the order of far things counts
    as much as that of near ones. predicted: in the truth's normalised scale, LEVEL at its median, as a network answers
    that was trained by `affine_invariant_losses` without `free`; here it is brought back to the truth's own.
    """
    flat = truth.flatten(1)
    median, mean = flat.median(1).values.view(-1, 1, 1), flat.mean(1).view(-1, 1, 1).clamp(min=1e-6)
    given = (predicted - LEVEL) * normalise(truth)[1] + median
    difference = ((given / mean).clamp(min=0) + FLOOR).log() - ((truth / mean) + FLOOR).log()
    return difference.abs().mean(), gradient_loss(difference).mean()
