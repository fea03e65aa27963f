"""Decide whether existing outputs of clips can be reused: which clip each is of, and which model made it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import SOME_FAILED, ClipError, UsageError
from depthcli.io.codecs.facts import SCHEMA
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.names import fitting_name, name_limit
from depthcli.io.pictures.images import printable
from depthcli.io.video.clip_output import sidecar_of
from depthcli.io.video.exr_frames import is_exr, is_our_exr
from depthcli.io.video.reader import STDIN, frames_of_folder, frames_of_pattern
from depthcli.io.video.spool import spooled_job
from depthcli.jobs.existing import MadeBy, difference
from depthcli.jobs.manifest import FAILED, SKIPPED, Result

REPLACE = "--if-exists overwrite replaces it"
Source = Union[Path, str]
# What a clip is, compared with an earlier state of it.
SAME, GROWN, CHANGED, GONE, OTHER = "same", "grown", "changed", "gone", "other"
# A digest covers this many pieces of a file, evenly from its first byte to its last; smaller files as a whole.
_PIECES, _PIECE_BYTES = 16, 1 << 14
# And these, which may not be packed: other pixels change a few of their bytes, and not all that come behind.
_UNPACKED = frozenset(".bmp .exr .pbm .pgm .pnm .ppm .tif .tiff .y4m".split())
_BLOCK_BYTES = 1 << 20
_SPOOL = ".depthcli-spool"


def is_our_map(path: Path) -> bool:
    """Return whether a picture says in itself that it is a depth map of depthcli."""
    if not path.is_file():
        return False
    return is_our_exr(path) if is_exr(path) else path.suffix.lower() == ".png" and bool(read_facts(path))


# --- Which clip it is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipFiles:
    """The files of a clip as they were when they were listed. sizes: bytes; times: of changes, in ns."""

    source: Source
    paths: tuple[Path, ...]
    sizes: tuple[int, ...]
    times: tuple[tuple[int, int], ...]
    single: bool

    @classmethod
    def of(cls, source: Source) -> ClipFiles:
        """Look at a clip. Raises OSError or ClipError where it is not there or may not be read."""
        if source == STDIN:
            return cls(source, (), (), (), single=False)
        path = Path(source)
        single = path.is_file()
        paths = (path,) if single else tuple(_frames_of(path))
        stats = [item.stat() for item in paths]
        sizes, times = (found.st_size for found in stats), ((found.st_mtime_ns, found.st_ctime_ns) for found in stats)
        return cls(source, paths, tuple(sizes), tuple(times), single)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What tells the content from any other, ready for JSON: neither the place of the clip nor its times count."""
        kind = "stdin" if self.source == STDIN else "file" if self.single else "frames"
        return {"kind": kind, "files": len(self.paths), "size": sum(self.sizes), "content": self._digest()}

    def made_of(self, folder: Path) -> dict[str, Any]:
        """Return what results in a folder say of the clip: its identity, and where it lies as seen from there."""
        name = "stdin" if self.source == STDIN else printable(Path(self.source).name)
        return {"name": name, **self.identity, "place": _place(self.source, folder)}

    def compare(self) -> str:
        """Return what has become of the clip since: SAME, GROWN, GONE or CHANGED."""
        if self.source == STDIN:
            return SAME
        try:
            now = ClipFiles.of(self.source)
            if (now.paths, now.sizes, now.times) == (self.paths, self.sizes, self.times):
                return SAME
            if not now.paths or (not self.single and not set(self.paths) <= set(now.paths)):
                return GONE
            sizes = tuple(path.stat().st_size for path in self.paths)
            longer = self.single and sizes[0] > self.sizes[0]
            if (sizes != self.sizes and not longer) or self._digest() != self.identity["content"]:
                return CHANGED
            return GROWN if longer or len(now.paths) > len(self.paths) else SAME
        except (OSError, ClipError):
            return GONE

    def _digest(self) -> str:
        """Return a digest of the content as far as the files went when they were listed. Raises OSError."""
        digest = hashlib.sha256()
        for path, size in zip(self.paths, self.sizes):
            digest.update(repr(("" if self.single else os.fsencode(path.name), size)).encode())
            with path.open("rb") as stream:
                for start, length in _pieces(size, path.suffix.lower() in _UNPACKED):
                    stream.seek(start)
                    digest.update(stream.read(length))
        return digest.hexdigest()[:32]


def _frames_of(path: Path) -> list[Path]:
    """Return the frames that a folder, or a pattern such as shot/f%04d.png, stands for. Raises OSError, ClipError."""
    if path.is_dir():
        return frames_of_folder(path)
    frames = frames_of_pattern(str(path))
    if not frames:
        path.stat()  # raises that it is not there
    return frames or []


def _pieces(size: int, whole: bool = False) -> list[tuple[int, int]]:
    """Return (start, length) of what a digest covers of a file."""
    if whole or size <= _PIECES * _PIECE_BYTES:
        return [(start, min(_BLOCK_BYTES, size - start)) for start in range(0, size, _BLOCK_BYTES)]
    return [(number * (size - _PIECE_BYTES) // (_PIECES - 1), _PIECE_BYTES) for number in range(_PIECES)]


def _place(source: Source, folder: Path) -> str:
    """Return a digest of the way from the results to a clip, which stays when both are moved or mounted elsewhere."""
    if source == STDIN:
        return ""
    there, here = os.path.realpath(source), os.path.realpath(folder)
    with suppress(ValueError):  # on another drive of Windows
        there = os.path.relpath(there, here)
    return hashlib.sha256(os.fsencode(there)).hexdigest()[:16]


def _relation(made: Mapping[str, Any], source: Source, files: ClipFiles, folder: Path) -> str:
    """Return whether a result in a folder is of this clip: SAME, CHANGED (of what it was before), or OTHER."""
    if "content" in made:
        if made["content"] == files.identity["content"]:
            return SAME
        return CHANGED if made.get("place") == _place(source, folder) else OTHER
    # Of an earlier version, which noted where the clip was, and the times of all files in its folder.
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
    """Return where the depth of a clip is kept while it is made. stem: the path of its results without ending."""
    return stem.with_name(fitting_name(stem.parent, f".{stem.name}", _SPOOL))


def result_path(stem: Path, format: str) -> Path:
    """Return where a result in a format lies; a name that would be too long, with its sidecar's, is shortened."""
    return stem.with_name(fitting_name(stem.parent, stem.name, CLIPS[format].clip, spare=len(".json")))


def check_name(path: Path) -> None:
    """Raise UsageError where a result, or its sidecar, has a longer name than the system allows."""
    excess = len(os.fsencode(sidecar_of(path).name)) - name_limit(path.parent)
    if excess > 0:
        raise UsageError(f"{path} has a name that is too long by {excess} bytes, with its sidecar", "shorten -o")


def is_result_of(source: Source, stem: Path) -> bool:
    """Return whether results, or an unfinished one, of a clip lie under a path without ending."""
    found = [facts_beside(result_path(stem, name)) for name in CLIPS]
    made = [facts["made_of"] for facts in found if isinstance(facts.get("made_of"), Mapping)]
    begun = spooled_job(spool_of(stem)).get("clip")
    if source == STDIN or not (made or begun):
        return False
    try:
        files = ClipFiles.of(source)
        return begun == files.identity or any(_relation(item, source, files, stem.parent) != OTHER for item in made)
    except (OSError, ClipError):
        return False


def already_there(
    name: str, source: Source, paths: Sequence[Path], if_exists: str, said: str, begun: bool
) -> Optional[Result]:
    """Return the result of a clip that needs no work, or must not be worked on; None where it is to be done.

    name: of the clip, for the result. said: the options that shape its results. begun: an earlier run left a spool.
    """
    texts = tuple(map(str, paths))
    present = [path for path in paths if os.path.lexists(path)]
    if if_exists == "overwrite" or not present:
        return None
    if if_exists == "error":
        return _refused(name, texts, f"{present[0]} is there already")
    try:
        files = ClipFiles.of(source)
    except (OSError, ClipError):  # opening it will say why
        files = None
    facts = {path: facts_beside(path) for path in present}
    relations = set()
    for path in present:
        made_of = facts[path].get("made_of")
        if not isinstance(made_of, Mapping):
            if not begun:
                return _refused(name, texts, f"{path} is there and does not say what it was made of ({REPLACE})")
            continue
        if source == STDIN:
            return _refused(name, texts, f"{path} is there, of an earlier stream ({REPLACE})")
        if files is not None:
            relations.add(_relation(made_of, source, files, path.parent))
            if OTHER in relations:
                other = f"{path} is of another clip, {made_of.get('name')} (use another -o, or {REPLACE})"
                return _refused(name, texts, other)
    if begun or relations != {SAME}:
        return None  # a run was interrupted, or the clip has changed
    if len(present) < len(paths):  # a format is new; all are made by one run, so that they show the same
        others = [path for path in present if facts[path].get("settings") != said]
        if not others:
            return None
        return _refused(name, texts, f"{others[0]} was made with other options (use another -o, or {REPLACE})")
    damage = next((facts[path]["damage"] for path in paths if facts[path].get("damage")), "")
    if damage:
        error = f"{damage}; the depth of what could be read is there"
        return Result(name, texts, FAILED, error=error, code=SOME_FAILED)
    older = any(facts[path].get("settings") != said for path in paths)
    warning = "was made with other options; --if-exists overwrite makes it anew"
    return Result(name, texts, SKIPPED, warnings=(warning,) if older else ())


def _refused(name: str, texts: tuple[str, ...], error: str) -> Result:
    return Result(name, texts, FAILED, error=error, code=1)


def facts_beside(path: Path) -> Mapping[str, Any]:
    """Return what the sidecar of an output says; nothing where it is gone, as beside one that is not whole."""
    with suppress(OSError, ValueError, TypeError):
        facts = dict(json.loads(sidecar_of(path).read_text(encoding="utf-8")))
        if facts.get("schema") == SCHEMA and isinstance(facts.get("video"), Mapping):
            return facts
    return {}


# --- By what it was made ----------------------------------------------------------------------------------------------


def check_one_model(paths: Sequence[Path], spool: Path, model: str, weights: str) -> None:
    """Raise UsageError where a clip's results, or its unfinished depth, are of another model than this run has."""
    makers = [(path, facts_beside(path)) for path in paths if os.path.lexists(path)]
    made = [(str(path), MadeBy(facts.get("model", ""), facts.get("weights_sha256", ""))) for path, facts in makers]
    begun = spooled_job(spool).get("model")
    if isinstance(begun, Mapping):
        made.append((f"the unfinished depth in {spool}", MadeBy(begun.get("name", ""), begun.get("weights", ""))))
    for what, maker in made:
        different = difference(maker, MadeBy(model, weights)) if maker.model else ""
        if different:
            hint = "--if-exists overwrite makes all anew, --mix-models allows results of several, or use another -o"
            raise UsageError(f"{what} was made {different}", hint)
