"""Files of two eyes: the writer beside the estimator's depth, and the facts that such a file carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Optional

import numpy as np
from PIL import Image

from depthcli.choices.stereo import StereoChoice
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.codecs.png import write_png
from depthcli.io.codecs.quick_facts import TEXT_KEY
from depthcli.io.names import fitting_name
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.views.layouts import LAYOUTS, show
from depthcli.views.nearness import nearness

STEREO_SUFFIXES = (".png", ".jpg", ".jpeg")
_RATIO_SLACK = 0.01  # of sides that belong to one picture, as a scaled one is rounded to whole pixels
_JPEG_QUALITY = 95
_MOST_JPEG = 65535  # columns and rows


@dataclass(frozen=True)
class StereoSpec(OutputSpec):
    """The files of each picture's eyes: PNG, one or two as the layout wants it."""

    choice: StereoChoice = field(default_factory=StereoChoice)

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the files for one picture, from its output path without any ending."""
        endings = (f"{ending}.png" for ending in LAYOUTS[self.choice.layout].endings)
        return tuple(stem.with_name(fitting_name(stem.parent, stem.name, ending)) for ending in endings)

    def check_kind(self, kind: DepthKind) -> None:
        """Take every kind: views need nearness alone."""

    def warnings(self, depth: DepthMap) -> tuple[str, ...]:
        """Return what is doubtful about a map and its views, one line each."""
        assumed = LAYOUTS[self.choice.layout].spherical and depth.camera is None
        return (*depth.provenance.warnings(depth.size), *([ASSUMED] if assumed else []))

    def write(self, depth: DepthMap, rgb: Optional[np.ndarray], paths: Sequence[Path]) -> None:
        """Write the views, each file whole or not at all. rgb: the (H, W, 3) uint8 picture."""
        assert rgb is not None
        near = nearness(fitted(depth, (rgb.shape[1], rgb.shape[0])))
        pictures = show(rgb, near, self.choice, coarseness(depth, rgb.shape[1]), depth.camera)
        facts = stereo_facts(facts_of(depth), self.choice)
        for pixels, path in zip(pictures, paths):
            with atomic_path(path) as partial, partial.open("wb") as stream:
                write_picture(pixels, stream, facts, path, f"stereo: {facts['stereo']['what']}")


@dataclass(frozen=True)
class OneStereoFile(StereoSpec):
    """The views in the very file that a user named."""

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (stem,)


ASSUMED = "its camera is not known: half a sphere takes it for 60 degrees wide, so sizes may be wrong"


def stereo_facts(about: dict[str, Any], choice: StereoChoice) -> dict[str, Any]:
    """Return the facts of a file of views. about: those of the depth it was made of."""
    shaping = {name: value for name, value in choice.settings.items() if value is not None}
    return {**about, "stereo": {**shaping, "what": LAYOUTS[choice.layout].what}}


def fitted(depth: DepthMap, size: tuple[int, int]) -> DepthMap:
    """Return a depth map at (width, height) of its picture. Raises UsageError if the sides have another ratio."""
    if depth.size == size:
        return depth
    ratio = depth.size[0] / depth.size[1] / (size[0] / size[1])
    if abs(ratio - 1) > _RATIO_SLACK:
        sizes = "{}x{}, and the picture {}x{}".format(*depth.size, *size)
        raise UsageError(f"the depth is {sizes} pixels: it is not of this picture", "`depth` takes a map of it")
    values = resize_bilinear(depth.values, size)
    valid = None if depth.valid is None else _nearest(depth.valid, size)
    return DepthMap(values, depth.kind, depth.provenance, depth.max_depth, valid, camera=depth.camera)


def coarseness(depth: DepthMap, width: int) -> float:
    """Return how many pixels of a picture `width` wide share a pixel of what its depth was made of."""
    finest = depth.size[0]
    if depth.provenance.detail in ("off", "nearest") and depth.provenance.input_size[0]:
        finest = min(finest, depth.provenance.input_size[0])
    return max(1.0, width / finest)


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    columns, rows = (np.arange(length) * have // length for length, have in zip(size, mask.shape[::-1]))
    return mask[rows][:, columns]


def write_picture(pixels: np.ndarray, target: IO[bytes], facts: dict[str, Any], path: Path, what: str) -> None:
    """Write (H, W, 3 or 4) uint8 as PNG or JPEG, by the suffix of its path. what: the file for people."""
    text = json.dumps(facts, ensure_ascii=False)
    if path.suffix.lower() == ".png":
        write_png(pixels, target, {TEXT_KEY: text, "Description": what})
        return
    if max(pixels.shape) > _MOST_JPEG:
        raise OutputError(f"{path}: JPEG has at most {_MOST_JPEG} columns and rows", "write a .png")
    # At full resolution of colour, as red and cyan of an anaglyph would otherwise be mixed.
    Image.fromarray(pixels).save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0, comment=text.encode())
