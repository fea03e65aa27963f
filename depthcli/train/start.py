"""Where a network in metres starts from that has no weights of its own: the relative one, fitted to the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from depthcli.nets.lite_depth import LiteDepth
from depthcli.train.samples import Sample

_EACH = 5000  # known pixels of a picture that the fit sees
_CAP = 20.0  # softplus of more is the number itself
_ROUNDS = 4  # of weights for outliers
_OUTLIER = 0.25  # of the logarithm of depth


@torch.no_grad()
def fit_metres(network: LiteDepth, samples: Sequence[Sample], max_depth: float) -> tuple[float, float]:
    """Fit one scale and shift of all answers to the metres of the samples, and put them into the last layer.

    network: metric, with the weights of the relative model. samples: with targets in metres. Returns (scale, shift).
    The fit is one of depth in logarithms, robust to outliers, in which each picture counts alike. If the answers do not
    rise with nearness, their spread is kept as scale.
    """
    answers, wanted, weights = [], [], []
    last = network.depth_head.predict[-1]
    assert isinstance(last, torch.nn.Conv2d) and last.bias is not None
    device = last.weight.device
    for sample in samples:
        known = np.flatnonzero(sample.known)
        if not len(known):
            continue
        known = known[:: max(1, len(known) // _EACH)]
        image = torch.from_numpy(sample.image)[None].to(device)
        # 1 / (1 + softplus(x)) is monotonous: what the head answered is read off the network's own answer.
        found = _before(network(image)[0].double().cpu().numpy().ravel()[known])
        answers.append(found)
        wanted.append(_before(sample.target.ravel()[known].astype(np.float64) / max_depth))
        weights.append(np.full(len(known), 1 / len(known)))
    if not answers:
        return 1.0, 0.0
    scale, shift = _line(np.concatenate(answers), np.concatenate(wanted), np.concatenate(weights))
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
    return scale, shift


def _before(fraction: np.ndarray) -> np.ndarray:
    """Return x of 1 / (1 + softplus(x)) = fraction."""
    nearness = np.maximum(1 / np.clip(fraction, 1e-6, 1 - 1e-6) - 1, 1e-3)
    return np.where(nearness > _CAP, nearness, np.log(np.expm1(np.minimum(nearness, _CAP))))


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return scale and shift of x to y, weighted by what a step of y changes in the logarithm of depth."""
    softplus = np.logaddexp(0, y)
    slope = 1 / (1 + np.exp(-y)) / (1 + softplus)
    start = weights * slope**2
    weights = start
    scale, shift = 1.0, 0.0
    for _ in range(_ROUNDS):
        total = weights.sum()
        mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
        spread = (weights * (x - mean_x) ** 2).sum()
        scale = float((weights * (x - mean_x) * (y - mean_y)).sum() / max(spread, 1e-12))
        if scale <= 0:  # near and far turned over
            scale = float(np.sqrt((weights * (y - mean_y) ** 2).sum() / max(spread, 1e-12)))
        shift = float(mean_y - scale * mean_x)
        miss = np.abs(scale * x + shift - y) * slope
        weights = start * np.minimum(1, _OUTLIER / np.maximum(miss, 1e-9))
    return scale, shift
