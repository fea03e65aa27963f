"""Detectors of objects with masks: RF-DETR Segmentation, where its files are, and the names of its classes.

Weights and code by Roboflow, Apache-2.0 (nano to large). Sizes of input and the count of windows: research release of
RF-DETR Segmentation; the windows are not in the shapes of the tensors, and a wrong count answers differently.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from depthcli.errors import CheckpointError, DownloadError, Log, UsageError
from depthcli.zoo.download import fetch_file, tell
from depthcli.zoo.locate import CHECKPOINTS, HUB, TRANSFORMERS_FILE, cached_files
from depthcli.zoo.rows import APACHE, Weights
from depthcli.zoo.verify import digest

CONFIG_FILE = "config.json"
DEFAULT = "seg-small"
_MASKS_FROM_FILES = "or give `masks`, as COCO JSON or label pictures"


@dataclass(frozen=True)
class DetectorRow:
    """One detector a user can name.

    name: as typed. title: as printed. weights: on the hub, in the layout of transformers. checkpoint: name of the
    official file. side: of the square input in pixels. windows: along a side of the encoder's attention.
    """

    name: str
    title: str
    weights: Weights
    checkpoint: str
    side: int
    windows: int = 2
    licence: str = APACHE


@dataclass(frozen=True)
class DetectorFiles:
    """The files of a detector. path: a folder in the layout of transformers, or a .pth. sha256: of the weights."""

    name: str
    path: Path
    sha256: str

    @property
    def is_folder(self) -> bool:
        """Whether the files have the layout of transformers."""
        return self.path.is_dir()

    @property
    def fingerprint(self) -> str:
        """Digest of all that shapes the network: of a folder also its configuration."""
        if not self.is_folder:
            return self.sha256
        return hashlib.sha256(self.sha256.encode() + (self.path / CONFIG_FILE).read_bytes()).hexdigest()

    @property
    def stem(self) -> str:
        """The name without the ending of a checkpoint."""
        return self.name if self.is_folder or self.name in DETECTORS else Path(self.name).stem


def _row(size: str, letter: str, side: int, windows: int = 2) -> DetectorRow:
    weights = Weights(f"Roboflow/rf-detr-seg-{size}", TRANSFORMERS_FILE)
    title = f"RF-DETR Segmentation {size.capitalize()}"
    return DetectorRow(f"seg-{size}", title, weights, f"rf-detr-seg-{letter}-ft.pth", side, windows)


DETECTORS = {
    row.name: row
    for row in (
        _row("nano", "n", 312, windows=1),
        _row("small", "s", 384),
        _row("medium", "m", 432),
        _row("large", "l", 504),
    )
}


def licence_of(files: DetectorFiles) -> Optional[str]:
    """Return the licence of a row's weights, None for those of a user."""
    row = DETECTORS.get(files.name)
    return row.licence if row else None


def windows_of(side: int) -> int:
    """Return the windows of the official detector of an input side; 2 for one that is not among them."""
    return next((row.windows for row in DETECTORS.values() if row.side == side), 2)


def find_detector(name: str, *, offline: bool = False, folder: Path = CHECKPOINTS, log: Log = tell) -> DetectorFiles:
    """Return the files of a detector: the name of a row, a folder in the layout of transformers, or a .pth.

    Rows are looked for in ./checkpoints/ and the hub's cache, then downloaded. log: takes a line before a download.
    Raises CheckpointError for a named file that is not there, DownloadError if a row cannot be had, and UsageError for
    any other name.
    """
    row = DETECTORS.get(name)
    found = detector_here(name, folder)
    if found is not None:
        return found
    if row is not None:
        return _fetched(row, offline, log)
    path = Path(os.path.expanduser(name))
    if path.suffix or os.sep in name:
        raise CheckpointError(f"there is no {path}", "`detector` takes a .pth of RF-DETR, or a folder of transformers")
    raise UsageError(f"no detector is called {name!r}", f"choose from: {', '.join(DETECTORS)}, a folder, a .pth")


def detector_here(name: str, folder: Path = CHECKPOINTS) -> Optional[DetectorFiles]:
    """Return the files of a detector without a download, None if they are not here. Arguments as `find_detector`.

    Raises CheckpointError for a folder without the files of transformers.
    """
    row = DETECTORS.get(name)
    if row is not None:
        return _here(row, folder)
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        missing = [file for file in (CONFIG_FILE, TRANSFORMERS_FILE) if not (path / file).is_file()]
        if missing:
            raise CheckpointError(f"{path} lacks {' and '.join(missing)}", "`detector` takes a folder of transformers")
        return DetectorFiles(path.resolve().name, path, digest(path / TRANSFORMERS_FILE))
    if path.is_file():
        return DetectorFiles(path.name, path, digest(path))
    return None


def _here(row: DetectorRow, folder: Path) -> Optional[DetectorFiles]:
    own = folder / row.weights.repo.rpartition("/")[2]
    cached = (path.parent for path in cached_files(row.weights.repo, row.weights.revision, TRANSFORMERS_FILE))
    for place in (own, *cached):
        if all(os.path.isfile(place / file) for file in (CONFIG_FILE, TRANSFORMERS_FILE)):
            return DetectorFiles(row.name, place, digest(place / TRANSFORMERS_FILE))
    official = folder / row.checkpoint
    return DetectorFiles(row.name, official, digest(official)) if os.path.isfile(official) else None


def _fetched(row: DetectorRow, offline: bool, log: Log) -> DetectorFiles:
    def fail(reason: str) -> DownloadError:
        place = f"{CHECKPOINTS}/{row.weights.repo.rpartition('/')[2]}/"
        files = f"put {CONFIG_FILE} and {TRANSFORMERS_FILE} from {HUB}/{row.weights.repo} into {place}"
        return DownloadError(f"cannot get {row.title}: {reason}", f"{files}, {_MASKS_FROM_FILES}")

    fetch_file(replace(row.weights, file=CONFIG_FILE), row.title, row.licence, offline, log, fail)
    file = fetch_file(row.weights, row.title, row.licence, offline, log, fail)
    return DetectorFiles(row.name, file.path.parent, file.sha256)


# Categories of COCO by their numbers, which have gaps: 80 classes between 1 and 90.
COCO_CLASSES = dict(
    zip(
        (
            *(*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70, *range(72, 83)),
            *range(84, 91),
        ),
        (
            "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
            "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
            "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
            "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
            "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
            "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
            "toothbrush"
        ).split(","),
    )
)


def class_names(names: list[str], rows: int) -> dict[int, str]:
    """Return the names of a detector's classes by number. names: in its checkpoint, empty if it has none.

    rows: of its logits. Names of COCO's 80 classes belong to COCO's numbers if there are rows for these; others count
    from 0. Rows without a name are background or gaps, and no classes.
    """
    coco = list(COCO_CLASSES.values())
    if rows > max(COCO_CLASSES) and (not names or names == coco):
        return dict(COCO_CLASSES)
    return dict(enumerate(names)) if names else {number: f"class {number}" for number in range(rows - 1)}
