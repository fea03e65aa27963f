"""Pictures and truths as inputs and targets of a network, changed at random in ways that keep metres true.

What a sample looks like depends on the seed, its place in the stream of all samples and the shape of its step, and on
nothing else: not on the process that makes it, nor on what ran before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from depthcli.errors import PictureError
from depthcli.eval.evaluate import known_truth
from depthcli.eval.lists import Entry
from depthcli.eval.metrics import DENSE
from depthcli.eval.truth import Truth
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.zoo.rows import ModelRow

Shape = tuple[int, int]  # (height, width) of a network input

LEAST_KNOWN = 10  # elements: a picture with fewer counts as none
MIN_DEPTH = 1e-3  # metres, as in the official training
_COLOUR = 0.2  # brightness, contrast, saturation and gamma change by up to this share
_NOISE = 0.02  # largest standard deviation of noise, of 1
_ZOOM = 1.5  # largest enlargement for a relative model: it would make metres wrong
_SMALLEST_CROP = 0.75  # of the sides


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture of a step.

    entry: where it comes from. image: (3, H, W) float32, normalised. target: (H, W) float32, metres or disparity, 0
    where unknown. known: (H, W) bool.
    """

    entry: Entry
    image: np.ndarray
    target: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Sampler:
    """Makes the samples of a training. shape: of whole pictures; others are cropped to it."""

    entries: Sequence[Entry]
    row: ModelRow
    shape: Shape
    augment: bool
    seed: int

    def entry_at(self, position: int) -> Entry:
        """Return the entry at a place of the stream: all entries in a new order for each epoch."""
        epoch, index = divmod(position, len(self.entries))
        return self.entries[_order(self.seed, epoch, len(self.entries))[index]]

    def shape_of(self, step: int) -> Shape:
        """Return the shape of a step's samples: the whole one, or in half of the steps a smaller crop."""
        draw = np.random.default_rng((self.seed, 2, step))
        if not self.augment or draw.random() < 0.5:
            return self.shape
        multiple, share = self.row.input.multiple, draw.uniform(_SMALLEST_CROP, 1)
        height, width = (max(multiple, int(side * share) // multiple * multiple) for side in self.shape)
        return height, width

    def sample(self, position: int, shape: Shape) -> Sample:
        """Return the sample at a place of the stream. Raises PictureError."""
        entry = self.entry_at(position)
        picture = read_picture(entry.picture)
        truth = known_truth(entry, picture.size)
        if truth is None:
            raise PictureError(f"{entry.place} has no truth to train on")
        draw = np.random.default_rng((self.seed, 3, position))
        zoom = draw.uniform(1, _ZOOM) if self.augment and not self.row.kind.is_metric else 1.0
        rgb = _changed_colours(picture.rgb, draw) if self.augment else picture.rgb
        plan = plan_input(*picture.size, self.row.with_input_size(round(self.row.input_size * zoom)).input)
        image = to_network_input(rgb, plan)
        target, known = targets(truth, plan.input_size, self.row)
        top, left = (_offset(have, want, draw, self.augment) for have, want in zip(known.shape, shape))
        window = slice(top, top + shape[0]), slice(left, left + shape[1])
        image, target, known = image[(slice(None), *window)], target[window], known[window]
        if self.augment and draw.random() < 0.5:
            image, target, known = image[..., ::-1], target[..., ::-1], known[..., ::-1]
        return Sample(entry, *(np.ascontiguousarray(part) for part in (image, target, known)))


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return [int(index) for index in np.random.default_rng((seed, 1, epoch)).permutation(count)]


def common_shape(sizes: Sequence[tuple[int, int]], row: ModelRow) -> Shape:
    """Return the largest shape that fits into the network input of each picture. sizes: (width, height) of these."""
    inputs = [plan_input(width, height, row.input).input_size for width, height in dict.fromkeys(sizes)]
    return min(height for _, height in inputs), min(width for width, _ in inputs)


def targets(truth: Truth, size: tuple[int, int], row: ModelRow) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W) float32 targets at (width, height), 0 where unknown, and (H, W) bool where they are known.

    Metres up to the model's largest, or disparity for a relative model. Depth is never averaged, as there is nothing
    between two surfaces: a dense truth gives each pixel the nearest element. Of a sparse one every known element is
    kept: it goes to the pixel it lies in, and of several the nearest thing wins.
    """
    metric = row.kind.is_metric
    values = truth.depth if metric else truth.disparity
    known = truth.known
    if metric:
        known = (
            known
            & (np.where(known, values, 0) >= MIN_DEPTH)
            & (np.where(known, values, 0) <= (row.max_depth or np.inf))
        )
    width, height = size
    if known.mean() >= DENSE:
        rows, columns = (
            np.minimum(((np.arange(to) + 0.5) * have / to).astype(int), have - 1)
            for to, have in zip((height, width), values.shape)
        )
        at = np.ix_(rows, columns)
        inside = known[at]
        return np.where(inside, values[at], 0).astype(np.float32), inside
    y, x = np.nonzero(known)
    place = (y * height // values.shape[0]) * width + x * width // values.shape[1]
    found = np.full(height * width, np.inf if metric else 0.0)
    nearest = np.minimum if metric else np.maximum
    nearest.at(found, place, values[y, x])
    inside = np.zeros(height * width, bool)
    inside[place] = True
    flat = np.where(inside, found, 0).astype(np.float32)
    return flat.reshape(height, width), inside.reshape(height, width)


def _offset(have: int, want: int, draw: np.random.Generator, augment: bool) -> int:
    spare = have - want
    assert spare >= 0, (have, want)
    return int(draw.integers(spare + 1)) if augment else spare // 2


def _changed_colours(rgb: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return (H, W, 3) uint8 with other brightness, contrast, saturation and gamma, some noise, or as a rough JPEG."""
    brightness, contrast, saturation, gamma = draw.uniform(1 - _COLOUR, 1 + _COLOUR, 4)
    codes = np.linspace(0, 1, 256) ** gamma * brightness
    table = np.clip(255 * ((codes - 0.5) * contrast + 0.5), 0, 255).astype(np.uint8)
    changed = cv2.LUT(rgb, table)
    gray = cv2.cvtColor(cv2.cvtColor(changed, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    changed = cv2.addWeighted(changed, float(saturation), gray, float(1 - saturation), 0)
    kind = draw.random()
    if kind < 0.25:
        noise = draw.normal(0, 255 * draw.uniform(0, _NOISE), changed.shape)
        changed = np.clip(changed + noise, 0, 255).astype(np.uint8)
    elif kind < 0.5:
        stream = io.BytesIO()
        Image.fromarray(changed).save(stream, "JPEG", quality=int(draw.integers(40, 90)))
        changed = np.asarray(Image.open(stream))
    return changed
