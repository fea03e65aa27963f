"""Saved predictions: find the file of an entry, and read its kind of depth."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError, UsageError
from depthcli.eval.lists import Entry
from depthcli.io.codecs.files import read_depth, read_facts
from depthcli.io.codecs.numbers import read_numbers
from depthcli.io.pictures.images import Picture

# The most exact first: floats, 16 bits, 8 bits. A plain .png comes last, as it may be a photograph.
ENDINGS = (
    *("_depth.npz", "_depth.npy", "_depth.pfm", ".npz", ".npy", ".pfm", "_depth.exr"),
    *("_depth_gray.png", "_depth.png", "_depth_gray8.png", "_depth_side.png", ".png"),
)
# Rank of a file name for a picture: where `depth dir` puts it, beside that, or only by its name. 0 is the best.
_OURS, _MIRRORED, _BY_NAME = range(3)
KINDS = tuple(kind.value for kind in DepthKind)


@dataclass(frozen=True)
class SavedPredictions:
    """The predictions in a folder, as a source for `evaluate`.

    entries: the whole list; a file that fits two pictures equally is used for neither. kind: of files that do not state
    it (NPY, PFM, NPZ of other programs).
    """

    folder: Path
    entries: Sequence[Entry]
    kind: DepthKind | None = None

    def __call__(self, entry: Entry, picture: Picture) -> DepthMap:
        """Return the prediction for an entry. Raises DepthError if it is missing or its kind is unknown."""
        own = _picture(entry)
        names = [name for _, name in _claims(entry) if self._owners.get(name, own) == own]
        for name in names:
            path = self.folder / name
            if os.path.isfile(path) and os.path.realpath(path) != own:
                return self._read(path)
        if not names:
            raise OutputError("every file name for it fits another entry as well", "give their pictures other names")
        first = self.folder / names[0]
        raise OutputError(f"{self.folder} holds no prediction for it", f"the first file looked for is {first}")

    @cached_property
    def _owners(self) -> dict[str, str | None]:
        """The picture that fits each file best, None if two fit equally well."""
        best: dict[str, tuple[int, str | None]] = {}
        for entry in self.entries:
            picture = _picture(entry)
            for rank, name in _claims(entry):
                other_rank, other = best.get(name, (_BY_NAME + 1, None))
                if rank < other_rank:
                    best[name] = rank, picture
                elif rank == other_rank and picture != other:
                    best[name] = rank, None
        return {name: picture for name, (_, picture) in best.items()}

    def _read(self, path: Path) -> DepthMap:
        if path.suffix in (".npy", ".pfm") and not read_facts(path):
            return self._read_plain(path, f"{path} does not say what its numbers mean")
        try:
            depth = read_depth(path)
        except OutputError as error:
            if path.suffix == ".png":
                raise
            return self._read_plain(path, error.message)
        if self.kind not in (None, depth.kind):
            raise UsageError(f"{path} says it holds {depth.kind.value}", "leave out `prediction_kind`")
        return depth

    def _read_plain(self, path: Path, why: str) -> DepthMap:
        if self.kind is None:
            raise OutputError(why, "if another program wrote it, give `prediction_kind`")
        try:
            return DepthMap(read_numbers(path), self.kind, Provenance(source=path.name))
        except ValueError as error:
            raise OutputError(f"{path} is no prediction: {error}") from error


def _picture(entry: Entry) -> str:
    return os.path.realpath(entry.picture)


def _claims(entry: Entry) -> Iterator[tuple[int, str]]:
    """Yield (rank, path below the folder) of each file that may be this entry's, the likeliest first.

    First where `depth dir` puts it, with the suffix if pictures differ only in that; then by the name of entry and
    picture.
    """
    source = PurePath(entry.source)
    stems = [(_BY_NAME, name) for name in (entry.name, source.stem, source.name)]
    if not source.is_absolute() and ".." not in source.parts:
        stems = [(_OURS, str(source.parent / source.stem)), (_OURS, str(source)), *stems]
    for rank, stem in stems:
        for ending in ENDINGS:
            yield (_MIRRORED if rank == _OURS and not ending.startswith("_depth") else rank), stem + ending


def parse_kind(name: str | None) -> DepthKind | None:
    """Return the kind with that name. Raises UsageError for an unknown one."""
    if name is not None and name not in KINDS:
        raise UsageError(f"no kind of depth is called {name!r}", f"choose from: {', '.join(KINDS)}")
    return None if name is None else DepthKind(name)
