"""Decide whether existing outputs of pictures can be reused: their picture and their model.

A file in the manifest counts if its size and time of change are the same. Any other file is opened: ours name their
picture in their first bytes. Pictures are compared by content, and only if their time of change is new.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from depthcli.errors import OutputError, UsageError
from depthcli.io.codecs.files import is_cut_short, read_facts
from depthcli.io.codecs.formats import STILLS
from depthcli.jobs.manifest import Manifest
from depthcli.jobs.picture_file import PictureFile

if TYPE_CHECKING:
    from depthcli.jobs.run_file import RunFile

_SUFFIXES = tuple({row.suffix for row in STILLS.values()})  # a clip's results have others
_MOST_ASKED = 1000  # files
_REPLACE = "`if_exists` overwrite replaces it"
# Those that only some formats have: results of others are not different without them.
_OF_SOME = (
    *("colormap", "axes", "edges", "points", "mesh-size", "farthest"),
    *("confidence", "sparse-points", "show-cameras"),
)
# Options in `settings` that change a result; the model is told by its name and its weights.
_SHAPING = (
    *("max-depth", "input-size", "panorama", "detail", "precision", "shape-policy"),
    *("intrinsics", "focal", "fov", "f35"),
    *("resize", "mixed", "reference", "ray-pose", "seed", "metres", "align-to-input-scale", "poses", "max-views"),
    *("fps", "stride", "frames", "motion", "sharp"),
    *("scale-from", "fit", "scale", "unit-of-colmap", "calibration-from", "keep-alpha", *_OF_SOME),
)
_VIEWS = ("layout", "strength", "screen", "view", "swap", "fill", "border")  # of stereo, see StereoChoice


@dataclass(frozen=True)
class MadeBy:
    """What made a result: the row's name, the sha256 of the weights, the options. Empty if unknown.

    remembered: the backend that `auto` took by a measurement, empty by its fixed order; None if unknown, or if the
    options name a backend.
    """

    model: str = ""
    weights: str = ""
    settings: str = ""
    remembered: Optional[str] = None


@dataclass(frozen=True)
class FoundResult:
    """A file that is the map of its picture. noted: the manifest has all of this."""

    made_by: MadeBy
    noted: bool


def find_results(
    picture: PictureFile, paths: Sequence[Path], name: str, manifest: Optional[Manifest]
) -> list[FoundResult] | None:
    """Return the results of a picture, None if one is missing, truncated, or of an earlier version of the picture.

    name: of the picture in the manifest. Raises OutputError if a file must not be replaced without asking: a foreign
    one, or the map of another picture.
    """
    found = [_find_result(picture, path, name, manifest) for path in paths]
    return None if None in found else [item for item in found if item is not None]


def _find_result(picture: PictureFile, path: Path, name: str, manifest: Optional[Manifest]) -> FoundResult | None:
    try:
        there = os.stat(path)
    except OSError:  # what keeps a file from being written, the writer will tell
        return None
    if not stat.S_ISREG(there.st_mode):
        raise OutputError(f"{path} is there and is not a file", "move it away, or use another `output`")
    if not there.st_size:  # nothing can be lost
        return None
    row, place = manifest.outputs.get(str(path), ({}, 0)) if manifest else ({}, 0)
    noted = row.get("source")
    made_by = _made_by(row)
    if row.get("input") == name and isinstance(noted, dict) and _noted_facts(row, place) == file_facts(there):
        if not picture.is_as_noted(noted):
            return None
        return FoundResult(made_by, noted=noted.get("times") == picture.times)
    facts = read_facts(path)
    if not facts and path.suffix == ".npz" and is_cut_short(path):  # its facts are at its end
        return None
    if not facts:
        raise OutputError(f"{path} is there and is not a depth map of this tool", _REPLACE)
    if not _is_of(picture, facts, there, path):
        return None
    if facts.get("weights_sha256") != made_by.weights:
        made_by = MadeBy(facts.get("model", ""), facts.get("weights_sha256", ""))
    return FoundResult(made_by, noted=False)


def _is_of(picture: PictureFile, facts: Mapping[str, Any], there: os.stat_result, path: Path) -> bool:
    """Return whether a map is that of a picture, by its facts. Raises OutputError if it is that of another."""
    facts = facts.get("converted") or facts  # of a depth file that was converted, that file is the picture
    same = facts.get("source_sha256") == picture.sha256 if facts.get("source_sha256") else None
    if not same and facts.get("source") != picture.name:
        raise OutputError(f"{path} is there and is a map of another picture, {facts.get('source')}", _REPLACE)
    if same is None:  # from an earlier version, which noted less
        same = tuple(facts.get("size") or ()) == picture.size and not picture.is_newer_than(there)
    return same and not is_cut_short(path)


def file_facts(there: os.stat_result) -> tuple[int, int]:
    """Return what the manifest notes of a result's file."""
    return there.st_size, there.st_mtime_ns


def _noted_facts(row: Mapping[str, Any], place: int) -> tuple[int, ...]:
    try:
        return tuple(row["files"][place])
    except (KeyError, IndexError, TypeError):
        return ()


def _made_by(row: Mapping[str, Any]) -> MadeBy:
    model, weights, settings = (str(row.get(key) or "") for key in ("model", "weights", "settings"))
    options = dict(re.findall(r"(?:^| )(backend|remembered)=(\S+)", settings))
    return MadeBy(model, weights, settings, options.get("remembered", "") if options.get("backend") == "auto" else None)


def made_settings(settings: str, remembered: Optional[str]) -> str:
    """Return the options of a run, with the backend that `auto` took by a measurement."""
    return f"{settings} remembered={remembered}" if remembered else settings


class ExistingResults:
    """The model and options of the results in one place, which a run must match to add others.

    paths: the files that a run will make. replaces: it makes all of them anew. run: the first run of the folder,
    which speaks for the results of other shards, and what to call it.
    made_by: models and options of the results that stay, each with the path of one.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        manifest: Optional[Manifest],
        replaces: bool,
        run: Optional[tuple[RunFile, str]] = None,
    ) -> None:
        replaced = _Known(paths if replaces and manifest and manifest.outputs else ())
        self.made_by: dict[MadeBy, str] = {}
        self._several = manifest is not None
        if run is not None and not replaces:
            self.made_by[_made_by(asdict(run[0]))] = run[1]
        for path, (row, _) in manifest.outputs.items() if manifest else ():
            made_by = _made_by(row)
            if made_by.model and made_by not in self.made_by and path not in replaced and path.endswith(_SUFFIXES):
                if os.path.isfile(path):
                    self.made_by[made_by] = path
        if not self.made_by and not replaces:
            self._ask_files(paths)

    def _ask_files(self, paths: Iterable[Path]) -> None:
        """Read the first of our files, if no manifest tells; a folder without it among the first has none."""
        for path in islice(paths, _MOST_ASKED):
            facts = read_facts(path) if os.path.isfile(path) else {}
            if facts.get("model"):
                self.made_by[MadeBy(facts["model"], facts.get("weights_sha256", ""))] = str(path)
                return

    @property
    def model(self) -> str:
        """Name of the row that made the results; empty if there are none."""
        return next(iter(self.made_by)).model if self.made_by else ""

    def check(self, wanted: MadeBy) -> None:
        """Raise UsageError if a run would mix its results with different ones. wanted: as far as it is known."""
        for made_by, path in self.made_by.items():
            different = difference(made_by, wanted)
            if different:
                mix = ", `mix_models` lets both stay" if self._several else ""
                hint = f"`if_exists` overwrite makes all anew{mix}, or use another `output`"
                raise UsageError(f"{path} was made {different}", hint)


class _Known:
    """A set of many paths in 8 bytes for each."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._hashes = np.unique(np.fromiter((hash(str(path)) for path in paths), np.int64))

    def __contains__(self, path: str) -> bool:
        place = int(np.searchsorted(self._hashes, hash(path)))
        return place < len(self._hashes) and bool(self._hashes[place] == hash(path))


def difference(made_by: MadeBy, wanted: MadeBy) -> str:
    """Return the difference between two makers in words; empty if there is none, or it is unknown."""
    if made_by.model and wanted.model and made_by.model != wanted.model:
        return f"by {made_by.model}, and this run would take {wanted.model}"
    if made_by.weights and wanted.weights and made_by.weights != wanted.weights:
        return f"with other weights of {made_by.model} (sha256 {made_by.weights[:12]}, not {wanted.weights[:12]})"
    if made_by.remembered is not None and wanted.remembered is not None and made_by.remembered != wanted.remembered:
        was, now = (
            f"{name}, measured as the fastest" if name else "its fixed order"
            for name in (made_by.remembered, wanted.remembered)
        )
        return f"with `backend` auto by {was}, and this run would take {now}"
    if made_by.settings and wanted.settings:
        there, here = _shaping(made_by.settings), _shaping(wanted.settings)
        for option in (*_SHAPING, *(_VIEWS if _share_names(there, here) else ())):
            both = option in there and option in here
            if there.get(option) != here.get(option) and (both or option not in _OF_SOME):
                was = f"with {_worded(option, there)}" if option in there else f"without {_worded(option)}"
                return f"{was}, and this run has {_worded(option, here) if option in here else 'none'}"
    return ""


def _share_names(there: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Return whether stereo results with these settings have the same names; other layouts lie beside them."""
    first, second = (settings.get("layout", "") for settings in (there, here))
    return bool(first) and (first == second or (first.startswith("anaglyph") and second.startswith("anaglyph")))


def _worded(option: str, settings: Mapping[str, str] | None = None) -> str:
    value = settings[option] if settings else "True"
    return f"`{option.replace('-', '_')}`" + ("" if value == "True" else f" {value}")


def _shaping(settings: str) -> dict[str, str]:
    return dict(re.findall(rf"(?:^| )({'|'.join((*_SHAPING, *_VIEWS))})=(\S+)", settings))
