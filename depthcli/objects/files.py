"""The files of a picture's objects: JSON, overlay, label picture, mattes, and EXR with depth and ids."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from depthcli.choices.objects import OBJECT_FILES
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.exr import ID_CHANNEL, write_exr
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.png import write_png
from depthcli.io.codecs.quick_facts import TEXT_KEY
from depthcli.io.masks.files import OBJECTS_ENDING
from depthcli.io.names import fitting_name
from depthcli.objects.document import COLUMNS, Objects, coco_of, table_rows
from depthcli.objects.overlay import overlay

ENDINGS = {
    "json": OBJECTS_ENDING,
    "overlay": "_objects.png",
    "masks": "_masks.png",
    "mattes": "_mattes",
    "exr": "_objects.exr",
}
assert tuple(ENDINGS) == OBJECT_FILES
_WHITE = 65535
_MATTE = re.compile(r"\d{3,}_.*\.png")


def paths_of(stem: Path, formats: Sequence[str]) -> dict[str, Path]:
    """Return the files of a picture by format; the mattes are a folder."""
    return {name: stem.with_name(fitting_name(stem.parent, stem.name, ENDINGS[name])) for name in formats}


def write_objects(found: Objects, document: Mapping[str, Any], paths: Mapping[str, Path], colormap: str) -> None:
    """Write the files of a picture, each whole or not at all; the JSON comes last. paths: as of `paths_of`."""
    facts = {**facts_of(found.depth), "objects": {"count": len(found)}}
    if "overlay" in paths:
        _write_png(overlay(found, colormap), paths["overlay"], facts, "objects over depth")
    if "masks" in paths:
        write_label_picture(found, paths["masks"])
    if "mattes" in paths:
        _write_mattes(found, paths["mattes"], facts)
    if "exr" in paths:
        write_objects_exr(found, paths["exr"])
    if "json" in paths:
        write_text(json_text(document), paths["json"])


def json_text(document: Mapping[str, Any]) -> str:
    """Return the JSON of a picture as its file has it."""
    return json.dumps(document, ensure_ascii=False) + "\n"


def label_picture(found: Objects) -> np.ndarray:
    """Return (H, W) uint16 numbers of objects, id + 1, or the track of a clip + 1; the nearer one wins."""
    width, height = found.depth.size
    labels = np.zeros((height, width), np.uint16)
    for place in found.near_to_far()[::-1]:
        item = found.masks[place]
        labels[item.mask] = 1 + (place if item.track is None else item.track)
    return labels


def write_label_picture(found: Objects, path: Path) -> None:
    """Write the numbers of objects as a 16-bit PNG."""
    facts = {**facts_of(found.depth), "objects": {"count": len(found)}}
    _write_png(label_picture(found), path, facts, "numbers of objects: id + 1, or track + 1, 0 for none")


def write_table(documents: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a CSV with a row for each object of all pictures."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for document in documents:
        table.writerows(["" if value is None else value for value in row] for row in table_rows(document))
    write_text(text.getvalue(), path)


def write_coco(documents: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write all pictures as one COCO file."""
    write_text(json.dumps(coco_of(documents), ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text as UTF-8, whole or not at all. Names that are not UTF-8 are spelled out."""
    with atomic_path(path) as partial:
        partial.write_bytes(text.encode("utf-8", "backslashreplace"))


def _write_mattes(found: Objects, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a 16-bit picture for each object, the nearest first, white inside; older ones of ours go."""
    written = set()
    for number, place in enumerate(found.near_to_far()):
        item = found.masks[place]
        name = re.sub(r"[^\w-]+", "-", item.name).strip("-") or "object"
        path = folder / fitting_name(folder, f"{number:03d}_{name}", ".png")
        _write_png(item.mask.astype(np.uint16) * _WHITE, path, facts, f"matte of {item.name}")
        written.add(path.name)
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if path.name not in written and _MATTE.fullmatch(path.name) and "objects" in read_facts(path):
                path.unlink()


def write_objects_exr(found: Objects, path: Path) -> None:
    """Write depth as Z and the numbers of objects as id into one EXR."""
    values = found.depth.values
    if found.depth.valid is not None:
        values = np.where(found.depth.valid, values, np.float32(np.nan))
    with atomic_path(path) as partial, partial.open("wb") as stream:
        write_exr(values, stream, facts_of(found.depth), {ID_CHANNEL: label_picture(found)})


def _write_png(pixels: np.ndarray, path: Path, facts: Mapping[str, Any], what: str) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        write_png(pixels, stream, {TEXT_KEY: json.dumps(facts, ensure_ascii=False), "Description": what})
