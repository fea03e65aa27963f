"""Label pictures: gray or palette PNG whose numbers are objects, 0 is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from depthcli.errors import PictureError
from depthcli.io.codecs.arrays import check_pixels
from depthcli.io.codecs.numbers import read_numbers
from depthcli.io.codecs.png import check_claim
from depthcli.io.masks.found import ObjectMask

LABELS_NAME = "labels.json"  # beside label pictures: {"1": "person", ...}
_MOST_OBJECTS = 4096  # in one picture: a depth map or a photo that was taken for labels has more


def read_label_picture(path: Path, names: Mapping[int, str]) -> list[ObjectMask]:
    """Return the objects of a label picture by their numbers; parts of one number are one object.

    names: of the numbers; others are "object 3". Raises PictureError for colour, another format, and a damaged file.
    """
    numbers = read_label_numbers(path)
    found = [int(number) for number in np.unique(numbers) if number]
    if len(found) > _MOST_OBJECTS:
        raise PictureError(f"{path} holds {len(found)} numbers, more than a label picture has", "is it a photo?")
    return [
        ObjectMask(numbers == number, names.get(number, f"object {number}"), number if number in names else None)
        for number in found
    ]


def read_label_numbers(path: Path) -> np.ndarray:
    """Return the (H, W) numbers of a label picture, uint8 or uint16; 0 is none. Raises PictureError."""
    numbers = _indices(path)
    if numbers is None:
        numbers = read_numbers(path)
    if numbers.dtype.kind != "u":
        raise PictureError(f"{path} does not hold whole numbers", "labels are 8-bit or 16-bit PNG")
    return numbers


def read_names(folder: Path) -> dict[int, str]:
    """Return the names of the numbers in a folder's labels.json; empty without one. Raises PictureError."""
    path = folder / LABELS_NAME
    try:
        content = json.loads(path.read_bytes())
        return {int(number): str(name) for number, name in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise PictureError(f"{path} does not name the labels: {error}", 'such as {"1": "person"}') from error


def _indices(path: Path) -> np.ndarray | None:
    """Return the (H, W) uint8 numbers of a PNG with a palette, None for any other file."""
    if path.suffix.lower() != ".png":
        return None
    try:
        with path.open("rb") as stream:
            image = PngImageFile(stream)
            if image.mode != "P":
                return None
            check_pixels(*image.size)
            check_claim(image, path.stat().st_size)
            image.load()
            return np.array(image, np.uint8)
    except (OSError, ValueError, SyntaxError):  # reading it as numbers tells what is wrong
        return None
