"""Decide whether existing outputs of clips can be reused: which clip each is of, and which model made it."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import SOME_FAILED, ClipError, UsageError
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.formats import CLIP_ROWS, CLIPS, CRAFTER_FILES, may_be_ours
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.names import STDIN, fitting_name, name_limit, printable, sidecar_of
from depthcli.io.video.exr_frames import is_exr, is_our_exr
from depthcli.io.video.reader import frames_of_folder, frames_of_pattern
from depthcli.io.video.spool import spooled_job
from depthcli.jobs.manifest import FAILED, SKIPPED, Result
from depthcli.jobs.picture_results import MadeBy, difference

REPLACE = "`if_exists` overwrite replaces it"
Source = Union[Path, str]
# Relation of a clip to its state in an earlier run.
SAME, GROWN, CHANGED, GONE, OTHER = "same", "grown", "changed", "gone", "other"
# A digest covers so many pieces of a file, evenly from its first byte to its last, and smaller files as a whole.
_PIECES, _PIECE_BYTES = 16, 1 << 14
# These as a whole too: they may not be packed, so other pixels change only a few of their bytes.
_UNPACKED = frozenset(".bmp .exr .pbm .pgm .pnm .ppm .tif .tiff .y4m".split())
_BLOCK_BYTES = 1 << 20
_SPOOL = ".depthcli-spool"


def is_our_map(path: Path) -> bool:
    """Return whether a picture says that it is a depth map of depthcli."""
    if not path.is_file():
        return False
    return is_our_exr(path) if is_exr(path) else may_be_ours(path) and bool(read_facts(path))


# --- Which clip it is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFiles:
    """The files of a clip when they were listed. sizes: bytes; times: of changes, in ns, two for each file.

    A clip may be a hundred thousand frames in files, so they are kept as plain text and arrays.
    """

    source: Source
    paths: tuple[str, ...]
    sizes: array[int]
    times: array[int]
    single: bool

    @classmethod
    def of(cls, source: Source) -> ClipFiles:
        """List the files of a clip. Raises OSError or ClipError if it is missing or may not be read."""
        if source == STDIN:
            return cls(source, (), array("q"), array("q"), single=False)
        path = Path(source)
        single = path.is_file()
        paths = (str(path),) if single else tuple(map(str, _frames_of(path)))
        sizes, times = array("q"), array("q")
        for item in paths:
            found = os.stat(item)
            sizes.append(found.st_size)
            times.extend((found.st_mtime_ns, found.st_ctime_ns))
        return cls(source, paths, sizes, times, single)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the content from any other, ready for JSON, whatever its place and times."""
        kind = "stdin" if self.source == STDIN else "file" if self.single else "frames"
        return {"kind": kind, "files": len(self.paths), "size": sum(self.sizes), "content": self._digest()}

    def made_of(self, folder: Path) -> dict[str, Any]:
        """Return what results in a folder note of the clip: its identity, and its place as seen from there."""
        name = "stdin" if self.source == STDIN else printable(Path(self.source).name)
        return {"name": name, **self.identity, "place": place_of(self.source, folder)}

    def compare(self) -> str:
        """Return what has become of the clip: SAME, GROWN, GONE or CHANGED."""
        if self.source == STDIN:
            return SAME
        try:
            now = ClipFiles.of(self.source)
            if (now.paths, now.sizes, now.times) == (self.paths, self.sizes, self.times):
                return SAME
            if not now.paths or (not self.single and not set(self.paths) <= set(now.paths)):
                return GONE
            sizes = array("q", (os.stat(path).st_size for path in self.paths))
            longer = self.single and sizes[0] > self.sizes[0]
            if (sizes != self.sizes and not longer) or self._digest() != self.identity["content"]:
                return CHANGED
            return GROWN if longer or len(now.paths) > len(self.paths) else SAME
        except (OSError, ClipError):
            return GONE

    def _digest(self) -> str:
        """Return a digest of the content, up to the sizes when the files were listed. Raises OSError."""
        digest = hashlib.sha256()
        for path, size in zip(self.paths, self.sizes):
            name = os.path.basename(path)
            digest.update(repr(("" if self.single else os.fsencode(name), size)).encode())
            with open(path, "rb") as stream:
                for start, length in _pieces(size, os.path.splitext(name)[1].lower() in _UNPACKED):
                    stream.seek(start)
                    digest.update(stream.read(length))
        return digest.hexdigest()[:32]


def _frames_of(path: Path) -> list[Path]:
    """Return the frames of a folder, or of a pattern such as shot/f%04d.png. Raises OSError or ClipError."""
    if path.is_dir():
        return frames_of_folder(path)
    frames = frames_of_pattern(str(path))
    if not frames:
        path.stat()  # raises that it is not there
    return frames or []


def _pieces(size: int, whole: bool = False) -> list[tuple[int, int]]:
    """Return (start, length) of the pieces of a file that a digest covers."""
    if whole or size <= _PIECES * _PIECE_BYTES:
        return [(start, min(_BLOCK_BYTES, size - start)) for start in range(0, size, _BLOCK_BYTES)]
    return [(number * (size - _PIECE_BYTES) // (_PIECES - 1), _PIECE_BYTES) for number in range(_PIECES)]


def place_of(source: Source, folder: Path) -> str:
    """Return a digest of the path from the results to a clip; moving both together keeps it."""
    if source == STDIN:
        return ""
    there, here = os.path.realpath(source), os.path.realpath(folder)
    with suppress(ValueError):  # on another drive of Windows
        there = os.path.relpath(there, here)
    return hashlib.sha256(os.fsencode(there)).hexdigest()[:16]


def relation_of(made: Mapping[str, Any], source: Source, files: ClipFiles, folder: Path) -> str:
    """Return whether a result in a folder is of this clip: SAME, CHANGED (of an earlier version), or OTHER."""
    if "content" in made:
        if made["content"] == files.identity["content"]:
            return SAME
        return CHANGED if made.get("place") == place_of(source, folder) else OTHER
    # An earlier version noted the place of the clip, and the times of all files in its folder.
    path = Path(source)
    if made.get("name") != printable(path.name):
        return OTHER
    every = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
    facts = [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in every]
    if made.get("what") == hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:16]:
        return SAME
    place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return CHANGED if made.get("place") == place else OTHER


# --- Where its results are --------------------------------------------------------------------------------------------


def spool_of(stem: Path) -> Path:
    """Return the folder of a clip's spool. stem: the path of its results without ending."""
    return stem.with_name(fitting_name(stem.parent, f".{stem.name}", _SPOOL))


def result_path(stem: Path, format: str) -> Path:
    """Return the path of a result in a format, shortened if its sidecar's name would be too long."""
    return stem.with_name(fitting_name(stem.parent, stem.name, CLIP_ROWS[format].clip, spare=len(".json")))


def check_name(path: Path) -> None:
    """Raise UsageError if the name of a result, or of its sidecar, is longer than the system allows."""
    excess = len(os.fsencode(sidecar_of(path).name)) - name_limit(path.parent)
    if excess > 0:
        raise UsageError(f"{path} has a name that is too long by {excess} bytes, with its sidecar", "shorten `output`")


def is_result_of(source: Source, stem: Path) -> bool:
    """Return whether results of a clip, or its spool, have a path without ending as their stem."""
    names = (*CLIPS, *(row.name for row in CRAFTER_FILES))
    found = [facts_beside(result_path(stem, name)) for name in names]
    made = [facts["made_of"] for facts in found if isinstance(facts.get("made_of"), Mapping)]
    begun = spooled_job(spool_of(stem)).get("clip")
    if source == STDIN or not (made or begun):
        return False
    try:
        files = ClipFiles.of(source)
        return begun == files.identity or any(relation_of(item, source, files, stem.parent) != OTHER for item in made)
    except (OSError, ClipError):
        return False


def already_there(
    name: str, source: Source, paths: Sequence[Path], if_exists: str, settings: str, begun: bool
) -> Optional[Result]:
    """Return the result of a clip that is done or must not be replaced; None if it is to be done.

    name: of the clip. settings: that shape its outputs, as one line. begun: an earlier run left a spool.
    """
    texts = tuple(map(str, paths))
    present = {path: facts_beside(path) for path in paths if os.path.lexists(path)}
    if if_exists == "overwrite" or not present:
        return None
    if if_exists == "error":
        return Result(name, texts, FAILED, error=f"{next(iter(present))} is there already", code=1)
    relations, refusal = _relations(source, present, begun)
    if refusal:
        return Result(name, texts, FAILED, error=refusal, code=1)
    if begun or relations != {SAME}:
        return None  # a run was interrupted, or the clip has changed
    others = [path for path, facts in present.items() if facts.get("settings") != settings]
    if len(present) < len(paths):  # a format is new; all are made by one run, so that they show the same
        error = f"{others[0]} was made with other options (choose another `output`, or {REPLACE})" if others else ""
        return Result(name, texts, FAILED, error=error, code=1) if error else None
    damage = next((present[path]["damage"] for path in paths if present[path].get("damage")), "")
    if damage:
        error = f"{damage}; the depth of what could be read is there"
        return Result(name, texts, FAILED, error=error, code=SOME_FAILED)
    warning = f"was made with other options; {REPLACE}"
    return Result(name, texts, SKIPPED, warnings=(warning,) if others else ())


def _relations(source: Source, present: Mapping[Path, Mapping[str, Any]], begun: bool) -> tuple[set[str], str]:
    """Return how the existing outputs relate to the clip, and why they must not be replaced, or ""."""
    try:
        files: Optional[ClipFiles] = ClipFiles.of(source)
    except (OSError, ClipError):  # opening it will say why
        files = None
    relations: set[str] = set()
    for path, facts in present.items():
        made_of = facts.get("made_of")
        if not isinstance(made_of, Mapping):
            if not begun:
                return relations, f"{path} is there and does not say what it was made of ({REPLACE})"
        elif source == STDIN:
            return relations, f"{path} is there, of an earlier stream ({REPLACE})"
        elif files is not None:
            relations.add(relation_of(made_of, source, files, path.parent))
            if OTHER in relations:
                other = f"{path} is of another clip, {made_of.get('name')}"
                return relations, f"{other} (choose another `output`, or {REPLACE})"
    return relations, ""


def facts_beside(path: Path) -> Mapping[str, Any]:
    """Return the facts in the sidecar of an output; none if it is missing, as beside an unfinished output."""
    with suppress(OSError, ValueError, TypeError):
        facts = dict(json.loads(sidecar_of(path).read_text(encoding="utf-8")))
        if facts.get("schema") == SCHEMA and isinstance(facts.get("video"), Mapping):
            return facts
    return {}


# --- Which model made them --------------------------------------------------------------------------------------------


def check_one_model(paths: Sequence[Path], spool: Path, model: str, weights: str) -> None:
    """Raise UsageError if the results of a clip, or its spool, are of another model than this run."""
    makers = [(path, facts_beside(path)) for path in paths if os.path.lexists(path)]
    made = [(str(path), MadeBy(facts.get("model", ""), facts.get("weights_sha256", ""))) for path, facts in makers]
    begun = spooled_job(spool).get("model")
    if isinstance(begun, Mapping):
        made.append((f"the unfinished depth in {spool}", MadeBy(begun.get("name", ""), begun.get("weights", ""))))
    for what, maker in made:
        different = difference(maker, MadeBy(model, weights)) if maker.model else ""
        if different:
            hint = "set `if_exists` to overwrite or `mix_models`, or choose another `output`"
            raise UsageError(f"{what} was made {different}", hint)
