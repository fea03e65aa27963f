"""Decide whether existing outputs of pictures can be reused: which picture each is of, and which model made it.

The manifest vouches for a file whose size and time of change it knows. Any other file is asked itself, as ours say in
their first bytes what they are a map of. A picture is known by its content: another time of change means that it is
looked at, not that it is done again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import OutputError, UsageError
from depthcli.io.codecs.files import is_cut_short, read_facts
from depthcli.io.codecs.formats import STILLS
from depthcli.io.pictures.images import picture_size, printable
from depthcli.jobs.manifest import Manifest

_SUFFIXES = tuple({row.suffix for row in STILLS.values()})  # which clips have none of
_REPLACE = "--if-exists overwrite replaces it"
# Options in `settings` that change a result; which model it is, is told by its name and its weights.
_SHAPING = ("max-depth", "input-size", "panorama", "precision", "shape-policy", "keep-alpha", "colormap")


class Source:
    """The file of a picture, or its bytes. Each fact is looked up when it is asked for, and raises OSError.

    A pipe or a device has none: reading it would wait for ever, or never come to an end.
    """

    def __init__(self, source: Union[Path, bytes], name: str) -> None:
        self._source = source
        self._name = name

    @property
    def name(self) -> str:
        """The name that depth files give for their picture."""
        return Path(printable(self._name)).name

    @cached_property
    def _stat(self) -> Optional[os.stat_result]:
        if isinstance(self._source, bytes):
            return None
        found = os.stat(self._source)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is not a file", str(self._source))
        return found

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._source) if self._stat is None else self._stat.st_size  # type: ignore[arg-type]

    @property
    def times(self) -> list[int]:
        """When the content and when the file changed last, in ns; the latter also tells a copy with an old time."""
        return [] if self._stat is None else [self._stat.st_mtime_ns, self._stat.st_ctime_ns]

    @cached_property
    def sha256(self) -> str:
        """Digest of the whole content."""
        digest = hashlib.sha256()
        with open(self._source, "rb") if self._stat else BytesIO(self._source) as stream:  # type: ignore[arg-type]
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return what the manifest notes, ready for JSON."""
        return {"size": self.size, "times": self.times, "sha256": self.sha256}

    def is_as_noted(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the content is what the manifest says; it is read only where the times differ."""
        if self.size != facts.get("size"):
            return False
        return (bool(self.times) and self.times == facts.get("times")) or self.sha256 == facts.get("sha256")

    def is_newer_than(self, found: os.stat_result) -> bool:
        """Return whether the picture has changed since a file was written."""
        return self._stat is not None and self._stat.st_mtime_ns > found.st_mtime_ns

    def picture_size(self) -> Optional[tuple[int, int]]:
        """Return the (width, height) of the picture, None if its header does not say it."""
        return picture_size(self._source)


@dataclass(frozen=True)
class Maker:
    """By what a result was made: the row's name, the sha256 of the weights, the options. Empty where unknown."""

    model: str = ""
    weights: str = ""
    settings: str = ""


@dataclass(frozen=True)
class Found:
    """A file under a result's name that is the map of its picture. noted: the manifest says all of this."""

    path: Path
    maker: Maker
    noted: bool


def find_results(source: Source, paths: Sequence[Path], name: str, manifest: Optional[Manifest]) -> list[Found] | None:
    """Return the results of a picture, or None if one is missing, cut short, or of what the picture was before.

    name: of the picture in the manifest. Raises OutputError if a file is there that must not be replaced unasked:
    anything that this tool has not made, and maps of other pictures.
    """
    found = [_find_result(source, path, name, manifest) for path in paths]
    return None if None in found else [item for item in found if item is not None]


def _find_result(source: Source, path: Path, name: str, manifest: Optional[Manifest]) -> Found | None:
    try:
        there = os.stat(path)
    except OSError:  # what keeps a file from being written is for the writer to say
        return None
    if not stat.S_ISREG(there.st_mode):
        raise OutputError(f"{path} is there and is not a file", "move it away, or use another -o")
    if not there.st_size:  # holds nothing that could be lost
        return None
    row, place = manifest.outputs.get(str(path), ({}, 0)) if manifest else ({}, 0)
    noted = row.get("source")
    maker = _maker_of(row)
    if row.get("input") == name and isinstance(noted, dict) and _file_facts(row, place) == file_facts(there):
        if not source.is_as_noted(noted):
            return None
        return Found(path, maker, noted=noted.get("times") == source.times)
    facts = read_facts(path)
    if not facts and path.suffix == ".npz" and is_cut_short(path):  # which says what it is at its end
        return None
    if not facts:
        raise OutputError(f"{path} is there and is not a depth map of this tool", _REPLACE)
    if not _is_of(source, facts, there, path):
        return None
    if facts.get("weights_sha256") != maker.weights:
        maker = Maker(facts.get("model", ""), facts.get("weights_sha256", ""))
    return Found(path, maker, noted=False)


def _is_of(source: Source, facts: Mapping[str, Any], there: os.stat_result, path: Path) -> bool:
    """Return whether a map, by what it says, is that of a picture. Raises OutputError if it is that of another."""
    same = facts.get("source_sha256") == source.sha256 if facts.get("source_sha256") else None
    if not same and facts.get("source") != source.name:
        raise OutputError(f"{path} is there and is a map of another picture, {facts.get('source')}", _REPLACE)
    if same is None:  # of an earlier version, which did not say more
        same = tuple(facts.get("size") or ()) == source.picture_size() and not source.is_newer_than(there)
    return same and not is_cut_short(path)


def file_facts(there: os.stat_result) -> tuple[int, int]:
    """Return what the manifest notes of a result's file."""
    return there.st_size, there.st_mtime_ns


def _file_facts(row: Mapping[str, Any], place: int) -> tuple[int, ...]:
    try:
        return tuple(row["files"][place])
    except (KeyError, IndexError, TypeError):
        return ()


def _maker_of(row: Mapping[str, Any]) -> Maker:
    return Maker(*(str(row.get(key) or "") for key in ("model", "weights", "settings")))


class OneModel:
    """Keeps the results in one place to one model and one set of options.

    paths: the files that a run is to make; replaces: it makes all of them anew, so that nothing of what is there now
    stays. makers: by what the results that stay were made, each with one of them.
    """

    def __init__(self, paths: Iterable[Path], manifest: Optional[Manifest], replaces: bool) -> None:
        replaced = set(map(str, paths)) if replaces else set()
        self.makers: dict[Maker, str] = {}
        self._several = manifest is not None
        for path, (row, _) in manifest.outputs.items() if manifest else ():
            maker = _maker_of(row)
            if maker.model and maker not in self.makers and path not in replaced and path.endswith(_SUFFIXES):
                if os.path.isfile(path):
                    self.makers[maker] = path
        if not self.makers and not replaces:
            self._ask_files(paths)

    def _ask_files(self, paths: Iterable[Path]) -> None:
        """Take the maker from the first of our files, where no manifest says it."""
        for path in paths:
            facts = read_facts(path) if os.path.isfile(path) else {}
            if facts.get("model"):
                self.makers[Maker(facts["model"], facts.get("weights_sha256", ""))] = str(path)
                return

    @property
    def model(self) -> str:
        """Name of the row that made what is there; empty where nothing is."""
        return next(iter(self.makers)).model if self.makers else ""

    def check(self, wanted: Maker) -> None:
        """Raise UsageError if a run would put other results beside those that are there. wanted: as far as is known."""
        for maker, path in self.makers.items():
            different = difference(maker, wanted)
            if different:
                mix = ", --mix-models lets both stay" if self._several else ""
                hint = f"--if-exists overwrite makes all anew{mix}, or use another -o"
                raise UsageError(f"{path} was made {different}", hint)


def difference(maker: Maker, wanted: Maker) -> str:
    """Return in what two makers differ, in words; empty where they do not, or where that is not known."""
    if maker.model and wanted.model and maker.model != wanted.model:
        return f"by {maker.model}, and this run would take {wanted.model}"
    if maker.weights and wanted.weights and maker.weights != wanted.weights:
        return f"with other weights of {maker.model} (sha256 {maker.weights[:12]}, not {wanted.weights[:12]})"
    if maker.settings and wanted.settings:
        there, here = _shaping(maker.settings), _shaping(wanted.settings)
        for option in _SHAPING:
            both = option in there and option in here
            if there.get(option) != here.get(option) and (both or option != "colormap"):  # which not all formats have
                was = f"with {_flag(option, there)}" if option in there else f"without --{option}"
                return f"{was}, and this run has {_flag(option, here) if option in here else 'none'}"
    return ""


def _flag(option: str, settings: Mapping[str, str]) -> str:
    return f"--{option}" if settings[option] == "True" else f"--{option} {settings[option]}"


def _shaping(settings: str) -> dict[str, str]:
    return dict(re.findall(rf"(?:^| )({'|'.join(_SHAPING)})=(\S+)", settings))
