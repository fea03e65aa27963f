"""Digests of weights, and their comparison with the published ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from depthcli.errors import CheckpointError
from depthcli.zoo.digests import sha256_of

if TYPE_CHECKING:
    from depthcli.zoo.locate import WeightsFile
    from depthcli.zoo.rows import ModelRow, Weights

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Verification:
    """The result of hashing a file. sha256: of its content. says: one line.

    ok: whether it is the published file, None if no digest is published.
    """

    ok: Optional[bool]
    sha256: str
    says: str


def digest(path: Path) -> str:
    """Return the sha256 of a file's content in hex; see zoo/digests.py for when it is computed.

    The hub's cache names blobs by a sha256 from the server, which is not trusted.
    """
    try:
        stat = path.stat()
        return _digest(path.absolute(), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from error


def verify(row: ModelRow, file: WeightsFile) -> Verification:
    """Read every byte of a file, and compare its digest with the row's, or with its name in the hub's cache.

    Of a model of several files, all are read.
    """
    found = [_verify(weights, path, file) for weights, path in zip(row.files, file.parts or (file.path,))]
    worst = min(found, key=lambda each: (each.ok is not False, each.ok is not None))
    return Verification(worst.ok, found[0].sha256, "; ".join(each.says for each in found))


def _verify(weights: Weights, path: Path, file: WeightsFile) -> Verification:
    try:
        sha256 = sha256_of(path, afresh=True)
    except OSError as error:
        raise _unreadable(path, error) from error
    blob = path.resolve().name
    wanted = weights.sha256 if path.name == weights.file else None
    if wanted is None and file.from_hub and SHA256.fullmatch(blob):
        wanted = blob
    if wanted is None:
        return Verification(None, sha256, f"{path}: no digest is published for it; its sha256 is {sha256}")
    if sha256 == wanted:
        return Verification(True, sha256, f"{path}: verified, sha256 {sha256}")
    return Verification(False, sha256, f"{path}: not the published file; its sha256 is {sha256}, not {wanted}")


@cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path} cannot be read: {error.strerror or error}")
