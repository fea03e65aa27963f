"""Saved predictions: which file in a folder belongs to an entry, and what its numbers mean."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError, UsageError
from depthcli.eval.lists import Entry
from depthcli.eval.truth import read_numbers
from depthcli.io.codecs.files import read_depth
from depthcli.io.pictures.images import Picture

# The most exact first: floats, 16 bits, then the 8 bits of pictures made to be looked at. A plain .png comes last, as
# it may be a photograph.
ENDINGS = (
    *("_depth.npz", "_depth.npy", "_depth.pfm", ".npz", ".npy", ".pfm", "_depth.exr"),
    *("_depth_gray.png", "_depth.png", "_depth_gray8.png", "_depth_side.png", ".png"),
)
# How good a claim a picture has to a file: where `depth dir` puts it, beside that, or only by its name. 0 is the best.
_OURS, _MIRRORED, _BY_NAME = range(3)
KINDS = tuple(kind.value for kind in DepthKind)


@dataclass(frozen=True)
class SavedPredictions:
    """The predictions in a folder, as a source for `evaluate`.

    entries: the whole list, as a file that two pictures could claim alike is nobody's. kind: what the numbers mean in
    files that do not say so themselves (NPY, PFM, NPZ of others).
    """

    folder: Path
    entries: Sequence[Entry]
    kind: DepthKind | None = None

    def __call__(self, entry: Entry, picture: Picture) -> DepthMap:
        """Return the prediction for an entry. Raises DepthError where there is none, or what it means is not known."""
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
        """The picture with the best claim to each file, None where two have claims that are equally good."""
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
        if path.suffix in (".npy", ".pfm"):
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
    """Yield (rank of the claim, path below the folder) for each file that could be this entry's, the likeliest first.

    Where `depth dir` puts it: by the picture's path, with its suffix where two pictures differ in nothing else. Then by
    the entry's name, and by the picture's own.
    """
    source = PurePath(entry.source)
    stems = [(_BY_NAME, name) for name in (entry.name, source.stem, source.name)]
    if not source.is_absolute() and ".." not in source.parts:
        stems = [(_OURS, str(source.parent / source.stem)), (_OURS, str(source)), *stems]
    for rank, stem in stems:
        for ending in ENDINGS:
            yield (_MIRRORED if rank == _OURS and not ending.startswith("_depth") else rank), stem + ending


def parse_kind(name: str | None) -> DepthKind | None:
    """Return the kind of that name. Raises UsageError for an unknown one."""
    if name is not None and name not in KINDS:
        raise UsageError(f"no kind of depth is called {name!r}", f"choose from: {', '.join(KINDS)}")
    return None if name is None else DepthKind(name)
