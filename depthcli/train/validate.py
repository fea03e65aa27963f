"""Score a network on validation pictures: the figures of `depth eval`, and errors by range of metres and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import cv2
import numpy as np
import torch
from torch import nn

from depthcli.depthmap import DepthMap
from depthcli.errors import PictureError
from depthcli.eval import panels
from depthcli.eval.evaluate import Compared, evaluate, mean
from depthcli.eval.lists import Entry
from depthcli.eval.metrics import Figures
from depthcli.io.pictures.images import Picture
from depthcli.pixels.postprocess import to_depth_map
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.train.masks import Masks
from depthcli.train.parallel import Processes
from depthcli.zoo.rows import ModelRow

RANGES = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, np.inf)  # metres
_WIDE = 320  # pixels of a panel of the sheet


@dataclass
class Sums:
    """Sums over known pixels: their number, |p - t| / t, |p - t|, and how many have max(p / t, t / p) < 1.25."""

    pixels: int = 0
    relative: float = 0.0
    metres: float = 0.0
    right: int = 0

    def add(self, p: np.ndarray, t: np.ndarray) -> None:
        """Add pixels (N,), predicted and true."""
        apart = np.abs(p - t)
        self.pixels += p.size
        self.relative += float((apart / t).sum())
        self.metres += float(apart.sum())
        self.right += int((np.maximum(p / t, t / p) < 1.25).sum())

    def join(self, other: Sums) -> None:
        """Add the sums of other pixels."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Group:
    """Errors over the pixels of a range or a class, of all pictures together.

    share: of all known pixels. mae: mean |p - t| in metres, None if the truth has no unit.
    """

    name: str
    share: float
    abs_rel: float
    mae: Optional[float]
    delta1: float


@dataclass(frozen=True)
class Validation:
    """The scores of one validation. figures: means over pictures. ranges, classes: errors by range and by class."""

    figures: Figures
    pictures: int
    ranges: tuple[Group, ...] = ()
    classes: tuple[Group, ...] = ()

    @property
    def abs_rel(self) -> float:
        """The figure that decides which weights are the best: low is good."""
        assert self.figures.abs_rel is not None
        return self.figures.abs_rel


def validate(
    network: nn.Module,
    row: ModelRow,
    entries: Sequence[Entry],
    masks: Optional[Masks] = None,
    processes: Processes = Processes(),
    sheet: Optional[Path] = None,
) -> Validation:
    """Score a network. Each process scores a part of the pictures, and all get the whole result.

    sheet: a picture to write, with photo, prediction, truth and error of up to eight pictures. Raises PictureError.
    """
    network.eval()  # also forgets what was computed from weights before
    watch = _Watch(masks, {entry.number for entry in _spread(entries)} if sheet else set())
    mine = entries[processes.rank :: processes.count]
    scores = list(evaluate(mine, lambda entry, picture: predict(network, row, picture), watch=watch))
    gathered = processes.gathered((scores, watch.seen))
    scores = sorted((score for found, _ in gathered for score in found), key=lambda score: score.entry.number)
    every = [seen for _, seen in gathered]
    for score in scores:
        if score.error:
            raise PictureError(f"{score.entry.place} cannot be validated: {score.error}")
    metres = all(seen.metres for seen in every)
    if sheet is not None and processes.is_first:
        write_sheet([strip for seen in every for strip in seen.strips], sheet)
    ranges = _groups([seen.ranges for seen in every], metres) if metres else []
    classes = _groups([seen.classes for seen in every], metres)
    return Validation(mean(scores), len(scores), tuple(ranges), tuple(classes))


def predict(network: nn.Module, row: ModelRow, picture: Picture) -> DepthMap:
    """Return the depth of a picture, as `depth image` computes it in float32."""
    plan = plan_input(*picture.size, row.input)
    image = torch.from_numpy(to_network_input(picture.rgb, plan))[None]
    with torch.no_grad():
        answer = network(image.to(next(network.parameters()).device))
    return to_depth_map(answer[0].float().cpu().numpy(), plan, row)


@dataclass
class _Seen:
    """What was collected of some pictures: sums by range and by class, strips of the sheet with their numbers.

    metres: whether every truth is in metres.
    """

    ranges: dict[str, Sums] = field(default_factory=dict)
    classes: dict[str, Sums] = field(default_factory=dict)
    strips: list[tuple[int, np.ndarray]] = field(default_factory=list)
    metres: bool = True


class _Watch:
    """Collects the errors of pixels, and strips for the sheet, as pictures are scored."""

    def __init__(self, masks: Optional[Masks], shown: set[int]) -> None:
        self.seen = _Seen()
        self._masks, self._shown = masks, shown

    def __call__(self, compared: Compared) -> None:
        """Take a prediction and its truth."""
        truth = compared.truth
        self.seen.metres &= truth.metres
        known = truth.known
        p, t = compared.aligned[known], truth.depth[known]
        for low, high in zip(RANGES, RANGES[1:]):
            inside = (t >= low) & (t < high)
            if inside.any():
                self.seen.ranges.setdefault(_range_name(low, high), Sums()).add(p[inside], t[inside])
        if self._masks is not None:
            labels = compared.inside(self._masks.read(compared.entry, compared.size))[known]
            for number in np.unique(labels):
                name = self._masks.name(int(number))
                self.seen.classes.setdefault(name, Sums()).add(p[labels == number], t[labels == number])
        if compared.entry.number in self._shown:
            width, height = truth.size
            size = 4 * _WIDE, max(1, round(_WIDE * height / width))
            strip = cv2.resize(compared.panels(), size, interpolation=cv2.INTER_AREA)
            self.seen.strips.append((compared.entry.number, strip))


def write_sheet(strips: Sequence[tuple[int, np.ndarray]], path: Path) -> None:
    """Write strips of equal width below each other, in the order of their numbers."""
    if strips:
        panels.write_panels(np.vstack([strip for _, strip in sorted(strips, key=lambda item: item[0])]), path)


def _spread(entries: Sequence[Entry], most: int = 8) -> list[Entry]:
    return [entries[index * len(entries) // most] for index in range(most)] if len(entries) > most else list(entries)


def _range_name(low: float, high: float) -> str:
    return f"{low:g}-{high:g} m" if np.isfinite(high) else f"{low:g} m and more"


def _groups(parts: Sequence[Mapping[str, Sums]], metres: bool) -> list[Group]:
    joined: dict[str, Sums] = {}
    for part in parts:
        for name, sums in part.items():
            joined.setdefault(name, Sums()).join(sums)
    total = sum(sums.pixels for sums in joined.values())
    order = [_range_name(*pair) for pair in zip(RANGES, RANGES[1:])]
    names = sorted(joined, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [
        Group(
            name,
            joined[name].pixels / total,
            joined[name].relative / joined[name].pixels,
            joined[name].metres / joined[name].pixels if metres else None,
            joined[name].right / joined[name].pixels,
        )
        for name in names
    ]
