"""Where training pictures and their depth come from: lists of `depth eval`, folders, TUM sequences."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Optional, Union

from depthcli.errors import UsageError
from depthcli.eval.lists import Entry, read_list
from depthcli.eval.truth import FORMAT_NAMES, OWN
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.foreign import DEPTH_SUFFIXES, SOURCES
from depthcli.io.pictures.images import is_picture

_TRAIN, _VAL = ("train",), ("val", "valid")
_PICTURES, _DEPTHS = "images", ("depth", "depths")
_TUM_APART = 0.02  # seconds between a picture and its depth, as TUM's own tool allows
_TUM_PAIRS = ("associations.txt", "associate.txt", "associated.txt")


@dataclass(frozen=True)
class TruthFormat:
    """How the depth files of a folder are read. name: of eval/truth.py or of `depth convert`; scale: per metre."""

    name: Optional[str] = None
    scale: Optional[float] = None

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in FORMAT_NAMES and _encoding(self.name) is None:
            known = ", ".join(dict.fromkeys((*FORMAT_NAMES, *(name for name in SOURCES if _encoding(name)))))
            raise UsageError(f"no `truth_format` is called {self.name!r}", f"choose from: {known}")

    def of(self, path: Path) -> str:
        """Return the name of the format of a depth file. Raises UsageError if nobody says it."""
        if self.name is not None:
            return _encoding(self.name) or self.name
        if read_facts(path):
            return OWN
        raise UsageError(f"{path} does not say what its numbers mean", "give `truth_format`, such as realsense or tum")


@dataclass(frozen=True)
class DataSet:
    """Entries to train on, and others to validate on; each has a truth. notes: what the user should know."""

    train: tuple[Entry, ...]
    val: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 of both lists: which files, and how they are read."""
        entries = [[asdict(entry) for entry in part] for part in (self.train, self.val)]
        return hashlib.sha256(json.dumps(entries, default=str).encode()).hexdigest()


def read_data(
    sources: Sequence[Path],
    truth_format: TruthFormat,
    root: Optional[Path] = None,
    val: Union[Path, float, None] = None,
    limit: Optional[int] = None,
) -> DataSet:
    """Return the data set of lists and folders.

    root: folder of the paths in lists. val: a list or folder to validate on, or the share of each folder's pictures
    kept for it, the last ones, as neighbouring frames of a clip are alike; None: the folders' own part, else a tenth.
    limit: at most so many pictures in all, spread over both parts; a fifth of them validate. Raises UsageError.
    """
    train: list[Entry] = []
    own: list[Entry] = []
    notes: list[str] = []
    for source in sources:
        for part, found in zip((train, own), _parts(source)):
            part += _read(source, found, truth_format, root, notes)
    if isinstance(val, Path):
        own = [entry for found in _parts(val) for entry in _read(val, found, truth_format, root, notes)]
    elif val is not None or not own:
        train, kept = _split([*train, *own], 0.1 if val is None else val)
        own = kept
    _check_apart(train, own)
    if limit is not None:
        count = max(1, limit // 5) if own else 0
        train, own = _spread(train, limit - count), _spread(own, count)
    for entry in (*train, *own):
        if entry.truth is None:
            raise UsageError(f"{entry.place} has no truth to train on", "name it in the list, and its format")
    if not train:
        raise UsageError(f"{', '.join(map(str, sources))} holds no pictures to train on", "check the folder")
    return DataSet(_numbered(train), _numbered(own), tuple(notes))


def _numbered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(replace(entry, number=number) for number, entry in enumerate(entries, 1))


def _encoding(name: str) -> Optional[str]:
    """Return the encoding behind a name of `depth convert`, None if it has none."""
    row = SOURCES.get(name)
    return row.encoding.name if row and row.encoding else None


# --- Sources ----------------------------------------------------------------------------------------------------------

_LIST, _TUM = "list", "tum"
_Part = Union[str, list[tuple[Path, Path]]]  # _LIST, _TUM, or folders of pictures with their folders of depth


def _parts(source: Path) -> tuple[_Part, _Part]:
    """Return what holds the parts of a source to train and to validate on. Raises UsageError if there is nothing."""
    if source.suffix.lower() in (".json", ".csv"):
        return _LIST, []
    if not source.is_dir():
        raise UsageError(f"{source} is neither a list (.json, .csv) nor a folder", "see docs/train.md for the layouts")
    if any((source / name).is_file() for name in (*_TUM_PAIRS, "rgb.txt")):
        return _TUM, []
    train, val = (_folders(source, names) for names in (_TRAIN, _VAL))
    if not train and not val and (source / _PICTURES).is_dir():
        train = [(source / _PICTURES, _depths(source, ""))]
    if not train and not val:
        raise UsageError(f"{source} has no images/train, train/images, images or rgb.txt", "see docs/train.md")
    return train, val


def _folders(source: Path, names: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return the folders of pictures of a part, each with its folder of depth. names: of the part."""
    found = []
    for name in names:
        for pictures, above, below in (
            (source / _PICTURES / name, source, name),  # images/train beside depth/train
            (source / name / _PICTURES, source / name, ""),  # train/images beside train/depth
        ):
            if pictures.is_dir():
                found.append((pictures, _depths(above, below)))
    return found


def _depths(above: Path, below: str) -> Path:
    for name in _DEPTHS:
        if (above / name / below).is_dir():
            return above / name / below
    raise UsageError(f"{above} has no folder {Path('depth', below)}", f"put the depth of {_PICTURES}/ there")


def _read(
    source: Path,
    part: _Part,
    truth_format: TruthFormat,
    root: Optional[Path],
    notes: list[str],
) -> list[Entry]:
    if part == _LIST:
        return list(read_list(source, root))
    pairs: Iterator[tuple[Path, Path, str]]
    if part == _TUM:
        pairs = ((*pair, "tum") for pair in _tum_pairs(source))
    else:
        assert not isinstance(part, str)
        pairs = (
            (picture, truth, truth_format.of(truth))
            for folders in part
            for picture, truth in _folder_pairs(*folders, notes)
        )
    scale = None if part == _TUM else truth_format.scale
    return [
        Entry(number, picture.stem, str(picture), picture, truth, name, scale)
        for number, (picture, truth, name) in enumerate(pairs, 1)
    ]


def _folder_pairs(pictures: Path, depths: Path, notes: list[str]) -> list[tuple[Path, Path]]:
    """Return each picture below a folder with its depth, which has its path and stem below another one."""
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(depths.rglob("*")):
        if path.suffix.lower() in DEPTH_SUFFIXES and not path.name.startswith("."):
            by_stem.setdefault(str(path.relative_to(depths).with_suffix("")), []).append(path)
    pairs, without = [], 0
    for picture in sorted(path for path in pictures.rglob("*") if is_picture(path)):
        stem = str(picture.relative_to(pictures).with_suffix(""))
        found = by_stem.get(stem) or by_stem.get(f"{stem}_depth") or []
        if len(found) > 1:
            raise UsageError(f"{picture} has {len(found)} depth files: {', '.join(map(str, found))}", "leave one")
        pairs += [(picture, found[0])] if found else []
        without += not found
    if without:
        notes.append(f"{without} pictures of {pictures} have no depth in {depths} and are left out")
    return pairs


def _tum_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of a TUM sequence: of its file of associations, else the nearest in time."""
    for name in _TUM_PAIRS:
        if (folder / name).is_file():
            rows = _tum_rows(folder / name, 4)
            return [(folder / a, folder / b) for a, b in (_by_name(row) for row in rows)]
    pictures = [(_seconds(folder, row), row[1]) for row in _tum_rows(folder / "rgb.txt", 2)]
    depths = [(_seconds(folder, row), row[1]) for row in _tum_rows(folder / "depth.txt", 2)]
    near = sorted(
        (abs(at - other), i, j)
        for i, (at, _) in enumerate(pictures)
        for j, (other, _) in enumerate(depths)
        if abs(at - other) < _TUM_APART
    )
    taken: dict[int, int] = {}
    used: set[int] = set()
    for _, i, j in near:
        if i not in taken and j not in used:
            taken[i] = j
            used.add(j)
    return [(folder / pictures[i][1], folder / depths[j][1]) for i, j in sorted(taken.items())]


def _by_name(row: list[str]) -> tuple[str, str]:
    """Return (picture, depth) of a line of associations, which tools write in either order."""
    names = row[1], row[3]
    return (names[1], names[0]) if names[0].startswith("depth") else names


def _tum_rows(path: Path, cells: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", "a TUM sequence has rgb.txt and depth.txt") from error
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.startswith("#")]
    for row in rows:
        if len(row) < cells:
            raise UsageError(f"{path} has a line of {len(row)} words, not {cells}: {' '.join(row)[:60]}")
    return rows


def _seconds(folder: Path, row: list[str]) -> float:
    try:
        return float(row[0])
    except ValueError:
        raise UsageError(f"{folder}: {row[0]!r} is no time stamp", "a line is: seconds file") from None


# --- Parts ------------------------------------------------------------------------------------------------------------


def _split(entries: Sequence[Entry], share: float) -> tuple[list[Entry], list[Entry]]:
    """Return the entries without the last `share` of each folder of pictures, and these; at least one, if any."""
    if not 0 <= share < 1:
        raise UsageError(f"`val` is a list, a folder, or a share from 0 to below 1, not {share}")
    folders: dict[Path, list[Entry]] = {}
    for entry in entries:
        folders.setdefault(entry.picture.parent, []).append(entry)
    counts = {folder: int(share * len(inside) + 0.5) for folder, inside in folders.items()}
    if share and len(entries) > 1 and not any(counts.values()):
        counts[max(folders, key=lambda folder: len(folders[folder]))] = 1
    kept = {id(entry) for folder, inside in folders.items() for entry in inside[len(inside) - counts[folder] :]}
    return [e for e in entries if id(e) not in kept], [e for e in entries if id(e) in kept]


def _spread(entries: Sequence[Entry], count: int) -> list[Entry]:
    """Return at most `count` entries, evenly over all."""
    if len(entries) <= count:
        return list(entries)
    return [entries[index * len(entries) // count] for index in range(count)]


def _check_apart(train: Sequence[Entry], val: Sequence[Entry]) -> None:
    both = {entry.picture.resolve() for entry in train} & {entry.picture.resolve() for entry in val}
    if both:
        raise UsageError(f"{min(both)} is used to train and to validate", "its score would say nothing")
