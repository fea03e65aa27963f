"""The list of an evaluation: pictures, their truths, and how to read these. JSON or CSV.

JSON is an array of objects. CSV has a heading with the same names, empty cells for missing values, and JSON in the
cells of numbers: 10, or "[45, 41, 471, 601]" in quotes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthcli.errors import UsageError
from depthcli.eval.metrics import Pair
from depthcli.eval.truth import FORMAT_NAMES, OWN
from depthcli.io.codecs.numbers import DISPARITY, ENCODINGS

_TEXTS = ("picture", "truth", "format", "name", "clip")
_FOR_TRUTH = ("format", "scale", "invalid", "crop", "min_depth", "max_depth")
KEYS = (*_TEXTS, "scale", "invalid", "crop", "min_depth", "max_depth", "pairs")
_MOST_BYTES = 1 << 28  # of a list; 1000 entries take 0.2 MB
_LONGEST_NAME = 200  # bytes: a file has 255 at most, and a name gets an ending


@dataclass(frozen=True)
class Entry:
    """One picture of a list.

    number: from 1. name: for tables and files; by default the picture's stem. source: the picture as the list names it;
    picture, truth: their paths. format: of the truth, one of FORMAT_NAMES. scale: stored numbers per metre or unit,
    None for the format's own. invalid: stored numbers that mean unknown. crop: (top, left, bottom, right) in elements
    of the truth, the last two excluded. min_depth, max_depth: metres; a truth outside is unknown, a prediction is
    clipped. pairs: elements of the upright picture, the first of a pair nearer. clip: the name of the clip that it is a
    frame of, in order; empty for a single picture.
    """

    number: int
    name: str
    source: str
    picture: Path
    truth: Path | None = None
    format: str = ""
    scale: float | None = None
    invalid: tuple[float, ...] = ()
    crop: tuple[int, int, int, int] | None = None
    min_depth: float | None = None
    max_depth: float | None = None
    pairs: tuple[Pair, ...] = ()
    clip: str = ""

    @property
    def place(self) -> str:
        """The entry's name in messages."""
        return f"entry {self.number} ({self.name})"


def read_list(path: Path, root: Path | None = None) -> tuple[Entry, ...]:
    """Return the entries of a list, without opening their files. root: folder of relative paths; None: the list's.

    Raises UsageError, with the entry's place, for everything that is wrong in the list itself.
    """
    folder = path.parent if root is None else root
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "check `root`")
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueError(f"it has more than {_MOST_BYTES / 1e6:.0f} MB")
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        table = path.suffix.lower() == ".csv"
        rows = _csv_rows(text) if table else json.loads(text, object_pairs_hook=_object)
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, csv.Error) as error:
        raise UsageError(f"the list {path} is broken: {error}") from error
    except RecursionError:
        raise UsageError(f"the list {path} is broken: it is nested too deeply") from None
    if not isinstance(rows, list) or not rows:
        shape = "a CSV is a heading and one line for each" if table else "a JSON list is an array of objects"
        raise UsageError(f"the list {path} holds no entries", shape)
    entries = tuple(_entry(path, number, row, folder) for number, row in enumerate(rows, 1))
    for name, count in Counter(entry.name for entry in entries).items():
        if count > 1:
            raise UsageError(f"{path}: {count} entries are called {name}", "give them different names")
    return entries


def _csv_rows(text: str) -> list[dict[str, Any]]:
    rows = []
    reader = csv.DictReader(io.StringIO(text), strict=True)
    headings = [heading.strip() for heading in reader.fieldnames or ()]
    for heading, count in Counter(headings).items():
        if ";" in heading or "\t" in heading:
            raise ValueError("cells are separated by commas, not by semicolons or tabs")
        if count > 1:
            raise ValueError(f"{count} columns are headed {heading!r}")
    reader.fieldnames = headings
    for number, cells in enumerate(reader, 1):
        if None in cells or None in cells.values():
            raise ValueError(f"entry {number} has not as many cells as the heading")
        rows.append({key: _cell(number, key, cell) for key, cell in cells.items() if cell.strip()})
    return rows


def _object(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    for key, count in Counter(key for key, _ in items).items():
        if count > 1:
            raise ValueError(f"the key {key!r} stands {count} times in {_short(found)}")
    return found


def _cell(number: int, key: str, cell: str) -> Any:
    if key in _TEXTS or key not in KEYS:
        return cell.strip()
    try:
        return json.loads(cell)
    except ValueError:
        raise ValueError(f"entry {number}: {key} is not a number or array: {cell}") from None


def _entry(path: Path, number: int, row: Any, folder: Path) -> Entry:
    place = f"entry {number}"
    try:
        if not isinstance(row, dict):
            raise ValueError(f"an entry is an object with keys, not {_short(row)}")
        row = {key: value for key, value in row.items() if value is not None}
        source = _text(row, "picture")
        name = _text(row, "name", Path(source).stem)
        place = f"entry {number} ({name})"
        _check_keys(row, name)
        truth = _text(row, "truth") if "truth" in row else None
        entry = Entry(
            number=number,
            name=name,
            source=source,
            picture=folder / source,
            truth=None if truth is None else folder / truth,
            format=_format(row) if truth is not None else "",
            scale=_positive(row, "scale"),
            invalid=_invalid(row),
            crop=_crop(row),
            min_depth=_positive(row, "min_depth"),
            max_depth=_positive(row, "max_depth"),
            pairs=_pairs(row),
            clip=_text(row, "clip") if "clip" in row else "",
        )
        if (entry.min_depth or 0) >= (entry.max_depth or math.inf):
            raise ValueError("min_depth has to be below max_depth")
        return entry
    except ValueError as error:
        raise UsageError(f"{path}, {place}: {error}") from error


def _check_keys(row: dict[str, Any], name: str) -> None:
    for key in row:
        if key not in KEYS:
            raise ValueError(f"no key is called {key!r}; choose from: {', '.join(KEYS)}")
    if "truth" not in row:
        if "pairs" not in row:
            raise ValueError("there is neither truth nor pairs to compare with")
        for key in _FOR_TRUTH:
            if key in row:
                raise ValueError(f"{key} is about a truth, and there is none")
    if name in (".", "..") or any(char in "/\\" or not char.isprintable() for char in name):
        raise ValueError("name cannot be the name of a file")
    if len(name.encode()) > _LONGEST_NAME:
        raise ValueError(f"name has {len(name.encode())} bytes, and {_LONGEST_NAME} are the most; give a shorter one")


def _format(row: dict[str, Any]) -> str:
    name = _text(row, "format")
    if name not in FORMAT_NAMES:
        raise ValueError(f"no format is called {name!r}; choose from: {', '.join(FORMAT_NAMES)}")
    if name == OWN and "scale" in row:
        raise ValueError(f"scale does not go with {OWN}, whose files have their own")
    if name in ENCODINGS and ENCODINGS[name].kind is DISPARITY and ("min_depth" in row or "max_depth" in row):
        raise ValueError("min_depth and max_depth are metres, which disparity has not")
    return name


def _text(row: dict[str, Any], key: str, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is missing" if value is None else f"{key} is a text, not {_short(value)}")
    return value


def _number(key: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{key} is a number, not {_short(value)}")
        return float(value)
    except OverflowError:
        raise ValueError(f"{key} is too large a number: {_short(value)}") from None


def _positive(row: dict[str, Any], key: str) -> float | None:
    if key not in row:
        return None
    value = _number(key, row[key])
    if value <= 0:
        raise ValueError(f"{key} is a number above 0, not {_short(row[key])}")
    return value


def _invalid(row: dict[str, Any]) -> tuple[float, ...]:
    value = row.get("invalid", [])
    return tuple(_number("invalid", item) for item in (value if isinstance(value, list) else [value]))


def _crop(row: dict[str, Any]) -> tuple[int, int, int, int] | None:
    if "crop" not in row:
        return None
    top, left, bottom, right = _whole_numbers(row["crop"], 4, "crop is [top, left, bottom, right]")
    if top >= bottom or left >= right:
        raise ValueError(f"crop {_short(row['crop'])} is empty: it is [top, left, bottom, right]")
    return top, left, bottom, right


def _pairs(row: dict[str, Any]) -> tuple[Pair, ...]:
    shape = "pairs are [[[row, column], [row, column]], ...]"
    pairs = row.get("pairs", [])
    if not isinstance(pairs, list) or ("pairs" in row and not pairs):
        raise ValueError(f"{shape}, not {_short(pairs)}")
    found = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{shape}, and {_short(pair)} is none")
        (a, b), (c, d) = (_whole_numbers(point, 2, shape) for point in pair)
        found.append(((a, b), (c, d)))
    return tuple(found)


def _whole_numbers(value: Any, count: int, shape: str) -> list[int]:
    if not isinstance(value, list) or len(value) != count or any(type(item) is not int or item < 0 for item in value):
        raise ValueError(f"{shape}, whole numbers from 0, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        return "something nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
