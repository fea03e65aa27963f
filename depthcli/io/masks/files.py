"""Masks of pictures and frames from files: COCO JSON, the JSON of depthcli, label pictures, or a folder of these."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import PictureError, UsageError
from depthcli.io.codecs.arrays import read_bytes
from depthcli.io.masks import rle
from depthcli.io.masks.coco import CocoFile
from depthcli.io.masks.found import ObjectMask
from depthcli.io.masks.labels import read_label_picture, read_names

SCHEMA = "depthcli.objects/1"
OBJECTS_ENDING = "_objects.json"
_ENDINGS = ("_masks.png", "_mask.png", OBJECTS_ENDING, ".png")
_KNOWN = "COCO JSON, JSON or JSONL of depth objects, label PNG, or a folder of these"
Masks = tuple[list[ObjectMask], tuple[str, ...]]


class MaskFiles:
    """The masks of a file or a folder. Raises UsageError for what cannot hold masks, PictureError for a damaged file.

    A folder holds a file for each picture: STEM_masks.png, STEM_mask.png, STEM_objects.json or STEM.png.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        if not os.path.lexists(place):
            raise UsageError(f"{place} does not exist", f"`masks` takes {_KNOWN}")
        if not self.is_folder and place.suffix.lower() not in (".json", ".jsonl", ".png"):
            raise UsageError(f"{place} holds no masks", f"`masks` takes {_KNOWN}")
        if place.suffix.lower() in (".json", ".jsonl"):
            _ = self._content

    @property
    def is_folder(self) -> bool:
        """Whether each picture has its own file."""
        return os.path.isdir(self._place)

    @property
    def name(self) -> str:
        """Name of the file or folder, as results note it."""
        return Path(os.path.abspath(self._place)).name

    @property
    def fingerprint(self) -> str:
        """Digest of a file; of a folder its name."""
        if self.is_folder:
            return self.name
        return hashlib.sha256(self._place.read_bytes()).hexdigest()[:12]

    def file_of(self, picture: Path) -> Path:
        """Return the file that the masks of a picture are in. Raises UsageError if there is none."""
        return self._own_file(picture) if self.is_folder else self._place

    def of_picture(self, picture: Path, size: tuple[int, int]) -> Masks:
        """Return the masks of a picture, all at its (width, height), and notes.

        Raises UsageError if the file is not of this picture, PictureError if it is damaged or of another size.
        """
        if self.is_folder:
            return _checked(_read_own(self._own_file(picture), picture, size), size, self.name)
        if self._place.suffix.lower() == ".png":
            return _checked((read_label_picture(self._place, read_names(self._place.parent)), ()), size, self.name)
        if isinstance(self._content, CocoFile):
            return self._content.of_picture(str(picture), size)
        if len(self._content) != 1:
            raise UsageError(f"{self._place} is of a clip, and {picture.name} a picture", "give `masks` of the picture")
        return _checked((_objects_of(self._content[0], self._place), ()), size, self.name)

    def of_frame(self, number: int, size: tuple[int, int]) -> Masks:
        """Return the masks of a frame of a clip, counted from 0. Raises as `of_picture`."""
        if self.is_folder:
            files = self._label_pictures
            if number >= len(files):
                return [], (f"{self.name} holds {len(files)} label pictures, and the clip has more frames",)
            return _checked((read_label_picture(files[number], read_names(self._place)), ()), size, files[number].name)
        if self._place.suffix.lower() == ".png":
            raise UsageError(f"{self._place} is of one picture", "for a clip, `masks` takes a folder of label pictures")
        if isinstance(self._content, CocoFile):
            return self._content.of_frame(number, size)
        documents = {document.get("frame", place): document for place, document in enumerate(self._content)}
        document = documents.get(number)
        if document is None:
            return [], (f"{self.name} does not reach to the end of the clip",)
        return _checked((_objects_of(document, self._place), ()), size, self.name)

    @cached_property
    def _label_pictures(self) -> list[Path]:
        from depthcli.io.video.reader import natural_order  # which loads what videos need

        return sorted((path for path in self._place.iterdir() if path.suffix.lower() == ".png"), key=natural_order)

    @cached_property
    def _content(self) -> Union[CocoFile, list[Mapping[str, Any]]]:
        try:
            text = read_bytes(self._place)
            if self._place.suffix.lower() == ".jsonl":
                return [_document(json.loads(line)) for line in text.splitlines() if line.strip()]
            content = json.loads(text)
            if isinstance(content, dict) and "schema" in content:
                return [_document(content)]
            return CocoFile(content, self.name)
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PictureError(f"cannot read masks from {self._place}: {reason}", f"`masks` takes {_KNOWN}") from error

    def _own_file(self, picture: Path) -> Path:
        for ending in _ENDINGS:
            path = self._place / f"{picture.stem}{ending}"
            if os.path.isfile(path) and os.path.realpath(path) != os.path.realpath(picture):
                return path
        names = ", ".join(f"{picture.stem}{ending}" for ending in _ENDINGS)
        raise UsageError(f"{self._place} holds no masks of {picture.name}", f"looked for {names}")


def _read_own(path: Path, picture: Path, size: tuple[int, int]) -> Masks:
    if path.suffix.lower() == ".png":
        return read_label_picture(path, read_names(path.parent)), ()
    return MaskFiles(path).of_picture(picture, size)


def _document(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("objects"), list):
        raise ValueError(f"its schema is not {SCHEMA}")
    return content


def _objects_of(document: Mapping[str, Any], path: Path) -> list[ObjectMask]:
    try:
        return [_object(row) for row in document["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        raise PictureError(f"an object of {path} is damaged: {error}") from error


def _object(row: Mapping[str, Any]) -> ObjectMask:
    box: Optional[Any] = row.get("box")
    return ObjectMask(
        rle.decode(row["mask"]),
        str(row.get("label") or ""),
        row.get("class"),
        row.get("score"),
        None if box is None or row.get("score") is None else tuple(map(float, box)),  # type: ignore[arg-type]
        row.get("track"),
    )


def _checked(found: Masks, size: tuple[int, int], name: str) -> Masks:
    """Return masks that are of a size. Raises PictureError for others."""
    for item in found[0]:
        if item.mask.shape != (size[1], size[0]):
            sizes = "{}x{} pixels, the picture {}x{}".format(*item.mask.shape[::-1], *size)
            raise PictureError(f"the masks of {name} are {sizes}", "give masks of the upright picture at its own size")
    return found
