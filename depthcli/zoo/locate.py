"""Weights on this machine: the named file, ./checkpoints/, the package, the hub's cache, in this order."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional, Union

from depthcli.errors import CheckpointError
from depthcli.zoo.rows import DEPTH_ANYTHING_3, ROWS, Channel, ModelRow, ModelTask, Weights
from depthcli.zoo.verify import digest

# Places of files, as printed.
NAMED = "named"
FOLDER = "checkpoints/"
PACKAGE = "package"
CACHE = "Hugging Face cache"
DOWNLOADED = "downloaded"

CHECKPOINTS = Path("checkpoints")
ASSETS = Path(__file__).parents[1] / "assets"
HUB = "https://huggingface.co"
TRANSFORMERS_FILE = "model.safetensors"  # the name of the weights in every repository of `transformers`

_COMMIT = re.compile(r"[0-9a-f]{40}")

AnyPath = Union[str, Path]


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights on this machine.

    sha256: of its content, "" if not computed (`inventory`). where: the place it was found in, as printed.
    parts: all files of a model of several, in the order of its row; the sha256 is then that of the list of theirs.
    """

    path: Path
    sha256: str
    where: str
    parts: tuple[Path, ...] = ()

    @property
    def from_hub(self) -> bool:
        """Whether the hub's library downloaded it, now or before."""
        return self.where in (CACHE, DOWNLOADED)


class InventoryItem(NamedTuple):
    """One model of the zoo: its file here or None, and the bytes it takes or would take (0 if not published)."""

    row: ModelRow
    file: Optional[WeightsFile]
    bytes: int


def find(row: ModelRow, checkpoint: AnyPath | None = None, folder: Path = CHECKPOINTS) -> WeightsFile | None:
    """Return the row's weights if they are on this machine, else None. Does not use the network.

    checkpoint: this file and no other, or a folder in the layout of transformers or of Depth Anything 3.
    Raises CheckpointError if the named file does not exist or a file in the cache is not the published one.
    """
    if len(row.files) > 1:
        return _find_parts(row, checkpoint, folder)
    located = _locate(row, checkpoint, folder)
    if located is None:
        return None
    path, where = located
    file = WeightsFile(path, digest(path), where)
    if where == CACHE and path.name == row.weights.file and row.weights.sha256 not in (None, file.sha256):
        raise CheckpointError(f"{path} is damaged: its sha256 is not the published one", "delete it, and try again")
    return file


def inventory(folder: Path = CHECKPOINTS) -> list[InventoryItem]:
    """Return every model of the zoo with its file on this machine. Nothing is hashed."""
    items = []
    for row in ROWS:
        located = _locate(row, None, folder)
        if len(row.files) > 1:
            parts, where = _locate_parts(row, None, folder) or ((), "")
            file = WeightsFile(parts[0], "", where, parts) if parts else None
            items.append(InventoryItem(row, file, sum(part.stat().st_size for part in parts)))
        elif located is None:
            items.append(InventoryItem(row, None, row.weights.bytes or 0))
        else:
            path, where = located
            items.append(InventoryItem(row, WeightsFile(path, "", where), path.stat().st_size))
    return items


def whole_digest(parts: Sequence[Path]) -> str:
    """Return the digest of a model of several files: the sha256 of theirs, one a line."""
    return hashlib.sha256("".join(f"{digest(part)}\n" for part in parts).encode()).hexdigest()


def named_file(checkpoint: AnyPath) -> Path:
    """Return the file of a checkpoint, or in a folder in the layout of transformers. CheckpointError if missing."""
    path = Path(os.path.expanduser(checkpoint))  # which, unlike Path.expanduser, leaves an unknown ~user as it is
    if path.is_dir():
        path = path / TRANSFORMERS_FILE
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}", "`checkpoint` takes a .pth or .safetensors file")
    return path


def how_to_place(row: ModelRow) -> str:
    """Return, as a hint, how to put the row's weights on this machine by hand."""
    if len(row.files) > 1:
        repos = dict.fromkeys(weights.repo for weights in row.files)
        places = [f"{HUB}/{repo} into {CHECKPOINTS}/{repo.rpartition('/')[2]}/" for repo in repos]
        return f"put the files of {' and of '.join(places)}"
    if row.family == DEPTH_ANYTHING_3:
        name = row.weights.repo.rpartition("/")[2]
        return f"put the files of {HUB}/{row.weights.repo} into {CHECKPOINTS}/{name}/"
    if row.weights.channel is Channel.HUB:
        return f"put {row.weights.file} from {HUB}/{row.weights.repo} into {CHECKPOINTS}/"
    if row.weights.channel is Channel.TRAINED:
        return f"make them: depth train, with `model` {row.name}; then set `checkpoint` to its best.safetensors"
    return f"put your own {row.weights.file} into {CHECKPOINTS}/"


def hub_cache() -> Path | None:
    """Return the hub's cache; None if there is no home folder for it, as for an unnamed user in a container."""
    # Only the constants: the rest of the hub's library takes half a second to import.
    from huggingface_hub import constants

    folder = os.path.expanduser(constants.HF_HUB_CACHE)
    homeless = os.environ.get("HOME") == "" or not os.path.isabs(os.path.expanduser("~"))
    named = any(map(os.environ.get, ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")))
    return None if homeless and not named else Path(folder)


def _find_parts(row: ModelRow, checkpoint: AnyPath | None, folder: Path) -> WeightsFile | None:
    located = _locate_parts(row, checkpoint, folder)
    if located is None:
        return None
    parts, where = located
    return WeightsFile(parts[0], whole_digest(parts), where, parts)


def _locate_parts(row: ModelRow, checkpoint: AnyPath | None, folder: Path) -> tuple[tuple[Path, ...], str] | None:
    """Return all files of a model of several: in a folder that has a folder for each repository, or in the cache."""
    root = folder if checkpoint is None else Path(os.path.expanduser(checkpoint))
    found = [_part_in(root, weights) for weights in row.files]
    if all(found):
        return tuple(filter(None, found)), FOLDER if checkpoint is None else NAMED
    if checkpoint is not None:
        missing = next(weights for weights, path in zip(row.files, found) if path is None)
        name = f"{missing.repo.rpartition('/')[2]}/{missing.file}"
        raise CheckpointError(f"{root} has no {name}", f"`checkpoint` takes a folder with the files of {row.title}")
    cached = [next(cached_files(part.repo, part.revision, part.file), None) for part in row.files]
    parts = tuple(path for path in cached if path is not None and os.path.isfile(path))
    return (parts, CACHE) if len(parts) == len(row.files) else None


def _part_in(root: Path, weights: Weights) -> Path | None:
    """Return a file in its repository's folder, in half precision or not."""
    place = root / weights.repo.rpartition("/")[2]
    return next(filter(os.path.isfile, (place / weights.file, place / weights.file.replace(".fp16.", "."))), None)


def _locate(row: ModelRow, checkpoint: AnyPath | None, folder: Path) -> tuple[Path, str] | None:
    if checkpoint is not None:
        return named_file(checkpoint), NAMED
    for path, where in _places(row, folder):
        if os.path.isfile(path):  # unlike Path.is_file, False for a folder without permission to enter
            return path, where
    return None


def _places(row: ModelRow, folder: Path) -> Iterator[tuple[Path, str]]:
    weights = row.weights
    if row.family == DEPTH_ANYTHING_3:  # whose files all have one name, so the folder's or their own tells them apart
        yield folder / weights.repo.rpartition("/")[2] / weights.file, FOLDER
        yield folder / f"{row.name}.safetensors", FOLDER
        yield from ((path, CACHE) for path in cached_files(weights.repo, weights.revision, weights.file))
        return
    official = Path(weights.file)
    yield folder / official, FOLDER
    yield folder / official.with_suffix(".safetensors"), FOLDER
    if weights.channel is Channel.PACKAGE:
        yield ASSETS / official, PACKAGE
    if weights.channel is Channel.HUB:
        # The same weights in the layout of transformers; video models have none.
        # The official metric repositories are named after data sets, their transformers twins after scenes.
        twin = row.weights.repo.replace("-Hypersim-", "-Indoor-").replace("-VKITTI-", "-Outdoor-") + "-hf"
        twins = [twin] if row.task is ModelTask.PICTURE else []
        yield from ((folder / twin.rpartition("/")[2] / TRANSFORMERS_FILE, FOLDER) for twin in twins)
        yield from ((path, CACHE) for path in cached_files(weights.repo, weights.revision, weights.file))
        yield from ((path, CACHE) for twin in twins for path in cached_files(twin, "main", TRANSFORMERS_FILE))


def cached_files(repo: str, revision: str, name: str) -> Iterator[Path]:
    """Yield where a file of a repository would lie in the hub's cache. Does not use the network."""
    cache = hub_cache()
    if cache is None:
        return
    store = cache / f"models--{repo.replace('/', '--')}"
    if not _COMMIT.fullmatch(revision):
        try:
            revision = (store / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return
    yield store / "snapshots" / revision / name
