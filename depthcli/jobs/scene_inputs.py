"""What a user named, as the views of a scene: which rule took it, which pictures, and which cameras."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Optional

from depthcli.errors import UsageError
from depthcli.io.cameras.colmap import find_model
from depthcli.io.cameras.files import read_cameras
from depthcli.io.cameras.stored import StoredCamera
from depthcli.io.pictures.images import PICTURE_SUFFIXES, is_picture
from depthcli.jobs.find import CLIP_SUFFIXES, refuse_address
from depthcli.predict.scene import names_of


class SceneSource(str, enum.Enum):
    """What was named. PICTURE and CLIP are one file; a PICTURE has depth, and is no scene."""

    PICTURE = "picture"
    PICTURES = "pictures"
    FOLDER = "folder"
    CLIP = "clip"
    COLMAP = "colmap"
    NERFSTUDIO = "nerfstudio"
    CAMERAS = "cameras"


@dataclass(frozen=True, eq=False)
class SceneInput:
    """The views of a scene, or the clip that frames are taken from.

    rule: one line for people: what was found, and why it is taken for that. paths: of the pictures, in order, or of the
    clip. names: of the views. cameras: one per picture, or None if they are to be found. missing: names of pictures
    that the cameras are for, and that are not there.
    """

    source: SceneSource
    rule: str
    paths: tuple[Path, ...]
    names: tuple[str, ...]
    cameras: Optional[tuple[StoredCamera, ...]] = None
    missing: tuple[str, ...] = ()


def recognise(arguments: Sequence[str], model_folder: str = "") -> SceneInput:
    """Return what the arguments are, by the first rule that fits.

    1. several files: pictures of one scene, in the order in which they are named
    2. one file: a picture or a clip, by its suffix
    3. a folder with images/ and sparse/: COLMAP's, whatever else lies there; the views of its images file
    4. a folder with transforms.json, then one with cameras.json: the pictures that these name
    5. a folder with pictures directly in it: those, 2 before 10

    model_folder: below sparse/, where the model is not in sparse/0 or sparse/ itself. Raises UsageError if none fits.
    """
    if not arguments:
        raise UsageError("no picture, folder or clip was named")
    for argument in arguments:
        refuse_address(argument)
        if not os.path.exists(argument):
            raise UsageError(f"{argument} does not exist")
    paths = [Path(argument) for argument in arguments]
    if len(paths) > 1:
        return _several(paths)
    (path,) = paths
    return _folder(path, model_folder) if path.is_dir() else _file(path)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key to sort names by in which numbers count as numbers: 2 before 10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts if part]


def _several(paths: list[Path]) -> SceneInput:
    other = next((path for path in paths if path.suffix.lower() not in PICTURE_SUFFIXES or path.is_dir()), None)
    if other is not None:
        raise UsageError(
            f"{other} is no picture, and several inputs are the pictures of one scene", "name it by itself"
        )
    names = names_of(paths)
    rule = f"{len(paths)} pictures were named: views of one scene, in this order"
    return SceneInput(SceneSource.PICTURES, rule, tuple(paths), tuple(names))


def _file(path: Path) -> SceneInput:
    suffix = path.suffix.lower()
    for source, suffixes in ((SceneSource.PICTURE, PICTURE_SUFFIXES), (SceneSource.CLIP, CLIP_SUFFIXES)):
        if suffix in suffixes:
            rule = f"{path.name} is a {source.value}, by its suffix"
            return SceneInput(source, rule, (path,), (path.name,))
    raise UsageError(f"{path} is neither a picture nor a clip, by its suffix", "name a folder, a picture or a clip")


def _folder(folder: Path, model_folder: str) -> SceneInput:
    if (folder / "images").is_dir() and (folder / "sparse").is_dir():
        place = folder / "sparse" / model_folder if model_folder else folder
        model = find_model(place)
        if model is None:
            raise UsageError(f"{place} holds no cameras.bin or cameras.txt of COLMAP")
        rule = f"{folder} has images/ and sparse/: a COLMAP folder, with the cameras of {model.relative_to(folder)}"
        return _posed(SceneSource.COLMAP, rule, model, folder / "images")
    for source, name in ((SceneSource.NERFSTUDIO, "transforms.json"), (SceneSource.CAMERAS, "cameras.json")):
        if (folder / name).is_file():
            return _posed(source, f"{folder} has {name}: the pictures and cameras of that", folder / name, folder)
    names = sorted(
        (entry.name for entry in os.scandir(folder) if entry.is_file() and is_picture(Path(entry.name))), key=natural
    )
    if not names:
        below = (
            "; pictures in folders below are other scenes" if any(path.is_dir() for path in folder.iterdir()) else ""
        )
        raise UsageError(f"{folder} has no picture directly in it{below}", "name the folder with the pictures")
    counted = "1 picture" if len(names) == 1 else f"{len(names)} pictures"
    rule = f"{folder} has {counted}: views of one scene, sorted by name"
    return SceneInput(SceneSource.FOLDER, rule, tuple(folder / name for name in names), tuple(names))


def _posed(source: SceneSource, rule: str, file: Path, folder: Path) -> SceneInput:
    stored = [one for one in read_cameras(file).cameras if one.name]
    if not stored:
        raise UsageError(f"{file} names no picture")
    found = [(one, _picture(folder, one.name)) for one in stored]
    there = [(one, path) for one, path in found if path is not None]
    missing = tuple(one.name for one, path in found if path is None)
    if not there:
        raise UsageError(
            f"none of the {len(stored)} pictures that {file} names is in {folder}", f"such as {missing[0]}"
        )
    return SceneInput(
        source,
        f"{rule}; {len(there)} of {len(stored)} pictures are there" if missing else rule,
        tuple(path for _, path in there),
        tuple(_relative(one.name) for one, _ in there),
        tuple(one for one, _ in there),
        missing,
    )


def _relative(name: str) -> str:
    """Return a name that a view can have: without ./ and what leads out of the folder."""
    return "/".join(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", ".."))


def _picture(folder: Path, name: str) -> Optional[Path]:
    """Return the picture of a name; one without a suffix, as of synthetic scenes, may have any."""
    path = folder / name
    candidates = [path] if path.suffix else [path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg")]
    # cameras.json names the pictures alone; they may lie in images/.
    candidates += [folder / "images" / name] if not name.startswith("images/") else []
    return next((candidate for candidate in candidates if candidate.is_file()), None)
