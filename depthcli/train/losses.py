"""The losses, one number per picture, in float32. p predicted, t true, over the known pixels of a picture.

silog: sqrt(mean(g^2) - LAMBDA mean(g)^2), g = ln t - ln p (Eigen et al. 2014), LAMBDA = 0.5 as in the official training
of Depth Anything V2: a common factor of all depths costs half of what it would cost in full.

ssi: mean |d| + GRADIENT sum over SCALES of the mean |slope of d|, d = n(p) - n(t), of disparities, with
n(x) = (x - median x) / mean |x - median x| (Ranftl et al. 2020): neither scale nor shift counts. Slopes are taken
between known neighbours in every, every 2nd, 4th and 8th row and column, and keep edges where they are.
"""

from __future__ import annotations

import torch

LAMBDA = 0.5
GRADIENT = 0.5
SCALES = 4
_LEAST = 1e-6  # of a prediction before its logarithm, and of a spread
_UNDER_ROOT = 1e-8  # the slope of a root is infinite at 0


def silog(predicted: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the loss of metres (..., H, W), > 0, over all known pixels together."""
    g = target[known].log() - predicted[known].clamp(min=_LEAST).log()
    return (g.square().mean() - LAMBDA * g.mean().square() + _UNDER_ROOT).sqrt()


def scale_and_shift_invariant(predicted: torch.Tensor, target: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the loss of one picture's disparities (H, W)."""
    difference = _normalised(predicted, known) - _normalised(target, known)
    loss = difference[known].abs().mean()
    for scale in range(SCALES):
        step = 1 << scale
        part, there = difference[::step, ::step], known[::step, ::step]
        for ahead, back in (
            ((slice(1, None), slice(None)), (slice(-1), slice(None))),
            ((slice(None), slice(1, None)), (slice(None), slice(-1))),
        ):
            both = there[ahead] & there[back]
            slopes = (part[ahead] - part[back]).abs() * both
            loss = loss + GRADIENT * slopes.sum() / both.sum().clamp(min=1)
    return loss


def _normalised(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    inside = values[known]
    centred = values - inside.median()
    return centred / centred[known].abs().mean().clamp(min=_LEAST)
