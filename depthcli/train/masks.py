"""Classes of pixels, for scores by class: gray PNGs with a number per pixel, and labels.json with their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depthcli.errors import PictureError, UsageError
from depthcli.eval.lists import Entry
from depthcli.io.masks.labels import read_label_numbers, read_names

_ENDINGS = ("_masks.png", "_mask.png", ".png")


@dataclass(frozen=True)
class Masks:
    """The label pictures of a folder: STEM_masks.png, STEM_mask.png or STEM.png for a picture. 0 is no class.

    names: by number.
    """

    folder: Path
    names: dict[int, str]

    def read(self, entry: Entry, size: tuple[int, int]) -> np.ndarray:
        """Return (H, W) numbers at (width, height), the nearest ones. Raises PictureError if there is no file."""
        stem = entry.picture.stem
        path = next((self.folder / f"{stem}{end}" for end in _ENDINGS if (self.folder / f"{stem}{end}").exists()), None)
        if path is None:
            raise PictureError(f"{self.folder} has no {stem}{_ENDINGS[0]} or {stem}{_ENDINGS[-1]}", "check `masks`")
        numbers = read_label_numbers(path).astype(np.int32)
        return cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST)

    def name(self, number: int) -> str:
        """Return the name of a class."""
        return "no class" if number == 0 else self.names.get(number, f"class {number}")


def open_masks(folder: Path) -> Masks:
    """Return the masks of a folder. Raises UsageError, PictureError."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "`masks` is a folder of label pictures")
    return Masks(folder, read_names(folder))
