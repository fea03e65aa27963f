"""Saved predictions: which file in a folder belongs to an entry, and what its numbers mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from depthcli.depthmap import DepthKind, DepthMap, Origin
from depthcli.errors import OutputError, UsageError
from depthcli.eval.lists import Entry
from depthcli.eval.truth import read_numbers
from depthcli.io.depth_files import read_depth
from depthcli.io.images import Picture

# The most exact first: floats, 16 bits, then the 8 bits of pictures made to be looked at.
ENDINGS = (
    *("_depth.npz", "_depth.npy", "_depth.pfm", ".npz", ".npy", ".pfm"),
    *("_depth_gray.png", ".png", "_depth.png", "_depth_gray8.png", "_depth_side.png"),
)
KINDS = tuple(kind.value for kind in DepthKind)


@dataclass(frozen=True)
class SavedPredictions:
    """The predictions in a folder, as a source for `evaluate`.

    entries: the whole list, as a name that two pictures could claim finds no file. kind: what the numbers mean in files
    that do not say so themselves (NPY, PFM, NPZ of others).
    """

    folder: Path
    entries: Sequence[Entry]
    kind: DepthKind | None = None

    def __call__(self, entry: Entry, picture: Picture) -> DepthMap:
        """Return the prediction for an entry. Raises DepthError where there is none, or what it means is not known."""
        for stem in self._stems(entry):
            for ending in ENDINGS:
                path = stem.with_name(stem.name + ending)
                if path.is_file():
                    return self._read(path)
        raise OutputError(f"{self.folder} holds no prediction for it", f"such as {entry.picture.stem}_depth.npz")

    def _stems(self, entry: Entry) -> Iterator[Path]:
        """Yield the paths without ending: where `depth dir` puts it, then by the entry's name, then by its stem."""
        source = PurePath(entry.source)
        if not source.is_absolute() and ".." not in source.parts:
            yield self.folder / source.parent / source.stem
        others = [other for other in self.entries if other.number != entry.number]
        taken = {name for other in others for name in (other.name, other.picture.stem)}
        yield from (self.folder / name for name in (entry.name, source.stem) if name not in taken)

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
            raise UsageError(f"{path} says it holds {depth.kind.value}", "leave out --prediction-kind")
        return depth

    def _read_plain(self, path: Path, why: str) -> DepthMap:
        if self.kind is None:
            raise OutputError(why, "if another program wrote it, give --prediction-kind")
        try:
            return DepthMap(read_numbers(path), self.kind, Origin(source=path.name))
        except ValueError as error:
            raise OutputError(f"{path} is no prediction: {error}") from error


def parse_kind(name: str | None) -> DepthKind | None:
    """Return the kind of that name. Raises UsageError for an unknown one."""
    if name is not None and name not in KINDS:
        raise UsageError(f"no kind of depth is called {name!r}", f"choose from: {', '.join(KINDS)}")
    return None if name is None else DepthKind(name)
