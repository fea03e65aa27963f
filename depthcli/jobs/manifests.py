"""The manifests of one folder of results: that of a whole run, and those of shards, each with one writer."""

from __future__ import annotations

import os
import re
from pathlib import Path

from depthcli.jobs.manifest import MANIFEST_NAME, Manifest
from depthcli.jobs.shards import Shard

_OF_SHARD = re.compile(r"manifest-\d{5}-of-\d{5}\.jsonl")


def open_manifest(folder: Path, shard: Shard) -> Manifest:
    """Return the manifest that a run writes, with the rows that all manifests of the folder have of its pictures.

    A part reads its own and that of whole runs: what other numbers of parts noted is looked up in the files.
    """
    own = folder / shard.manifest_name
    others = [folder / MANIFEST_NAME] if shard.count > 1 else shard_manifests(folder)
    return Manifest(own, also=others)


def shard_manifests(folder: Path) -> list[Path]:
    """Return the manifests of shards in a folder, sorted by name."""
    try:
        names = sorted(name for name in os.listdir(folder) if _OF_SHARD.fullmatch(name))
    except OSError:  # not made yet; writing will tell
        return []
    return [folder / name for name in names]
