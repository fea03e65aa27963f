"""COCO JSON: annotations of objects, and lists of results, as masks of one picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Optional

import numpy as np

from depthcli.errors import PictureError, UsageError
from depthcli.io.masks import rle
from depthcli.io.masks.found import ObjectMask
from depthcli.io.masks.polygons import draw


@dataclass(frozen=True)
class _Image:
    """A picture of the file. size: (width, height), None if it does not tell."""

    key: Any
    file_name: str
    size: Optional[tuple[int, int]]


class CocoFile:
    """The content of a COCO file. Raises ValueError for any other content.

    content: {"images": ..., "annotations": ..., "categories": ...}, or a list of results, whose `image_id` is the
    picture's name or the number that its name ends in.
    """

    def __init__(self, content: Any, name: str) -> None:
        self._name = name
        if isinstance(content, list):
            content = {"annotations": content, "categories": [], "images": _images_of_results(content)}
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise ValueError("it has no annotations")
        try:
            self._names = {int(row["id"]): str(row["name"]) for row in content.get("categories") or []}
            self._images = [_image(row) for row in content["images"]]
            self._rows: dict[Any, list[Mapping[str, Any]]] = {}
            for row in content["annotations"]:
                self._rows.setdefault(row["image_id"], []).append(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"its pictures, classes or annotations are damaged: {error}") from error

    @property
    def count(self) -> int:
        """How many pictures it names."""
        return len(self._images)

    def of_picture(self, picture: str, size: tuple[int, int]) -> tuple[list[ObjectMask], tuple[str, ...]]:
        """Return the masks of a picture and notes. picture: its path. size: (width, height).

        Raises UsageError if the file does not name the picture, or names it twice, and PictureError for a mask that is
        damaged or of another size.
        """
        return self._masks(self._find(picture), picture, size)

    def of_frame(self, number: int, size: tuple[int, int]) -> tuple[list[ObjectMask], tuple[str, ...]]:
        """Return the masks of a frame, which is the picture of that place by name. Raises as `of_picture`."""
        from depthcli.io.video.reader import natural_order  # which loads what videos need

        images = sorted(self._images, key=lambda image: natural_order(Path(image.file_name)))
        if number >= len(images):
            return [], (f"{self._name} names {len(images)} pictures, and the clip has more frames",)
        return self._masks(images[number], images[number].file_name, size)

    def _find(self, picture: str) -> _Image:
        path = PurePath(picture)
        best: list[_Image] = []
        most = 0
        for image in self._images:
            shared = _shared_end(path, PurePath(image.file_name))
            if shared > most:
                best, most = [image], shared
            elif shared and shared == most:
                best.append(image)
        if not best:
            raise UsageError(f"{self._name} does not name {path.name}", "`masks` takes a file of this picture")
        if len(best) > 1:
            names = " and ".join(image.file_name for image in best[:2])
            raise UsageError(f"{path.name} may be {names} of {self._name}", "name the pictures by longer paths")
        return best[0]

    def _masks(self, image: _Image, picture: str, size: tuple[int, int]) -> tuple[list[ObjectMask], tuple[str, ...]]:
        if image.size is not None and image.size != size:
            sizes = "{}x{} pixels, and it has {}x{}".format(*image.size, *size)
            raise PictureError(f"{self._name} was made for {picture} at {sizes}", "give masks of the upright picture")
        masks, plain = [], 0
        for row in self._rows.get(image.key, []):
            if row.get("iscrowd"):  # a region of many, not an object
                continue
            if not row.get("segmentation"):
                plain += 1
                continue
            masks.append(self._mask(row, size))
        return masks, (f"{plain} annotations of {self._name} are boxes without a mask",) if plain else ()

    def _mask(self, row: Mapping[str, Any], size: tuple[int, int]) -> ObjectMask:
        what = f"annotation {row.get('id', '')} of {self._name}".replace("  ", " ")
        try:
            mask = _pixels(row["segmentation"], size)
            score = row.get("score")
            number = int(row["category_id"])
            box = row.get("bbox")
            return ObjectMask(
                mask,
                self._names.get(number, ""),
                number,
                None if score is None else float(score),
                None if not box or score is None else _corners(box),
                None if row.get("track_id") is None else int(row["track_id"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PictureError(f"{what} is damaged: {error}") from error


def _pixels(found: Any, size: tuple[int, int]) -> np.ndarray:
    if isinstance(found, list):
        return draw(found, size)
    mask = rle.decode(found)
    if mask.shape != (size[1], size[0]):
        raise ValueError(f"its mask is {mask.shape[1]}x{mask.shape[0]}, the picture {size[0]}x{size[1]} pixels")
    return mask


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = map(float, box)
    return left, top, left + width, top + height


def _image(row: Mapping[str, Any]) -> _Image:
    sides = row.get("width"), row.get("height")
    size = None if None in sides else (int(sides[0]), int(sides[1]))  # type: ignore[arg-type]
    return _Image(row["id"], str(row["file_name"]), size)


def _images_of_results(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the pictures that a list of results is of; a file name of its own stands before the number."""
    if not all(isinstance(row, dict) and "image_id" in row for row in rows):
        raise ValueError("it is a list, and not one of results with an image_id")
    keys = dict.fromkeys((row["image_id"], row.get("file_name")) for row in rows)
    return [{"id": key, "file_name": str(name if name else key)} for key, name in keys]


def _shared_end(path: PurePath, other: PurePath) -> int:
    """Return how well a name of the file fits a path: 1 for the number or the stem, 2 and more for shared parts."""
    shared = 0
    for mine, theirs in zip(reversed(path.parts), reversed(other.parts)):
        if mine != theirs:
            break
        shared += 1
    if shared:
        return 1 + shared
    if other.suffix == "" and len(other.parts) == 1:
        number = re.search(r"(\d+)$", path.stem)
        if other.name == path.stem or (number and other.name.isdigit() and int(number[1]) == int(other.name)):
            return 1
    return 0
