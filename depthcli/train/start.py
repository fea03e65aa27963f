"""What a training starts from: a model's own weights, or for metres without weights the relative ones, fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from depthcli.errors import Log
from depthcli.eval.lists import Entry
from depthcli.nets.build import channels_last, read_network
from depthcli.nets.lite_depth import LiteDepth
from depthcli.predict.model import Model
from depthcli.train.samples import Sample, Sampler, common_shape
from depthcli.zoo.rows import ModelRow

_FITTED = 32  # pictures that the start of a model in metres is fitted to
_EACH = 5000  # known pixels of a picture that the fit sees
_CAP = 20.0  # softplus of more is the number itself
_STEPS = 40
_SHARE = 0.2  # of the ratio of spreads within pictures: the least scale
_LARGE = 0.1  # an error of the logarithm of depth from which on it counts as itself, not as its square


@dataclass(frozen=True)
class Start:
    """What is trained: the row, and the model whose weights it starts from; usually the row's own."""

    row: ModelRow
    origin: Model

    @property
    def is_fitted(self) -> bool:
        """Whether a relative model becomes one in metres."""
        return self.row.kind.is_metric and not self.origin.row.kind.is_metric


def network_of(
    start: Start, entries: Sequence[Entry], sizes: Sequence[tuple[int, int]], seed: int, fresh: bool, log: Log
) -> nn.Module:
    """Return the network with the weights to start from, in memory of its own.

    entries: to fit metres to, if the start needs that. sizes: (width, height) of the pictures. fresh: False for a
    training that goes on, whose weights are read afterwards. log: told of the fit.
    """
    row = start.row
    network = channels_last(read_network(row, start.origin.weights, start.origin.trust))
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()  # it may lie in the mapped file
    if start.is_fitted and fresh:
        assert isinstance(network, LiteDepth) and row.max_depth is not None
        shape = common_shape(sizes, row)
        sampler = Sampler(entries, row, shape, False, seed)
        samples = [sampler.sample(position, shape) for position in range(min(_FITTED, len(entries)))]
        fit_metres(network, samples, row.max_depth)
        log(f"{row.name} starts from {start.origin.row.name}, one scale and shift fitted to {len(samples)} pictures")
    return network


@torch.no_grad()
def fit_metres(network: LiteDepth, samples: Sequence[Sample], max_depth: float) -> tuple[float, float]:
    """Fit one scale and shift of all answers to the metres of the samples, and put them into the last layer.

    network: metric, with the weights of the relative model. samples: with targets in metres. Returns (scale, shift).
    The fit is one of depth in logarithms, robust to outliers, in which each picture counts alike. The scale is at least
    a part of what the spread of depth within pictures asks for, also if the answers do not rise with nearness.
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
    x, y, counts = (np.concatenate(part) for part in (answers, wanted, weights))
    scale, shift = _line(x, y, counts, _least(answers, wanted))
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(shift)
    return scale, shift


def _before(fraction: np.ndarray) -> np.ndarray:
    """Return x of 1 / (1 + softplus(x)) = fraction."""
    nearness = np.maximum(1 / np.clip(fraction, 1e-6, 1 - 1e-6) - 1, 1e-3)
    return np.where(nearness > _CAP, nearness, np.log(np.expm1(np.minimum(nearness, _CAP))))


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray, least: float) -> tuple[float, float]:
    """Return scale > `least` and shift of x to y that leave the least error of the logarithm of depth, robustly.

    The error is not linear in y: a room taken for a street is off by a logarithm, not by a difference. So a line
    by least squares is only the start of some steps of Levenberg and Marquardt.
    """
    wanted = np.log1p(np.logaddexp(0, y))

    def error(scale: float, shift: float) -> np.ndarray:
        return np.log1p(np.logaddexp(0, scale * x + shift)) - wanted

    def cost(missed: np.ndarray) -> float:
        size = np.abs(missed)
        return float((weights * np.where(size < _LARGE, size**2 / 2 / _LARGE, size - _LARGE / 2)).sum())

    scale, shift = _straight(x, y, weights)
    scale = max(scale, 1.1 * least)
    missed, damping = error(scale, shift), 1e-3
    for _ in range(_STEPS):
        inner = scale * x + shift
        slope = 1 / (1 + np.exp(-inner)) / (1 + np.logaddexp(0, inner))
        rows = np.stack([slope * x * (scale - least), slope])  # by the logarithm of scale - least
        strength = weights / np.maximum(np.abs(missed), _LARGE)
        square = (rows * strength) @ rows.T
        step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-12), -(rows * strength) @ missed)
        other = least + (scale - least) * float(np.exp(np.clip(step[0], -1, 1))), shift + float(step[1])
        found = error(*other)
        if cost(found) < cost(missed):
            (scale, shift), missed, damping = other, found, damping / 4
        else:
            damping *= 8
    return scale, shift


def _straight(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return scale and shift of x to y by least squares, each weighted by what a step of y changes in depth."""
    weights = weights * (1 / (1 + np.exp(-y)) / (1 + np.logaddexp(0, y))) ** 2
    total = weights.sum()
    mean_x, mean_y = (weights * x).sum() / total, (weights * y).sum() / total
    spread = max(float((weights * (x - mean_x) ** 2).sum()), 1e-12)
    scale = float((weights * (x - mean_x) * (y - mean_y)).sum()) / spread
    return scale, float(mean_y - scale * mean_x)


def _least(answers: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Return a scale that the fit stays above: near 0 all pictures would be flat, and gradients would end there."""
    spreads = [[float(np.subtract(*np.percentile(part, (75, 25)))) for part in pair] for pair in zip(answers, wanted)]
    ratios = [there / here for here, there in spreads if here > 0 and there > 0]
    return _SHARE * float(np.median(ratios)) if ratios else _SHARE
