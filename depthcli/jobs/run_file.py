"""run.json: what made the results of a folder. Other shards match it; `depth manifest` takes the files from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import DiskFullError, OutputError
from depthcli.host.atomic import FULL, atomic_path, temporary_path
from depthcli.jobs.manifest import RUN_NAME

PICTURES, CLIPS = "pictures", "clips"


@dataclass(frozen=True)
class RunFile:
    """The run that began a folder of results.

    input: the folder of the pictures, as it was named. formats: of the results. template: their names, or empty.
    model, weights, settings: as a row of the manifest has them. version: of depthcli. pack: "tar"
    if the results are in tars. unit: of the input, PICTURES or CLIPS.
    """

    input: str
    formats: tuple[str, ...]
    template: str = ""
    model: str = ""
    weights: str = ""
    settings: str = ""
    version: str = ""
    pack: str = ""
    unit: str = PICTURES


def read_run(folder: Path) -> Optional[RunFile]:
    """Return the run of a folder, None if it has none. Raises OutputError for a damaged file."""
    path = folder / RUN_NAME
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        formats = tuple(map(str, facts["formats"]))
        texts = {name: str(facts[name]) for name in ("input", "template", "model", "weights", "settings", "version")}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OutputError(f"{path} is damaged", "remove it: the next run writes it anew") from None
    later = {name: str(facts.get(name, default)) for name, default in (("pack", ""), ("unit", PICTURES))}
    return RunFile(formats=formats, **texts, **later)  # those of earlier versions lack some


def write_run(folder: Path, run: RunFile, replaces: bool = False) -> None:
    """Write run.json, whole; if there is one, it stays unless `replaces`. Shards may do so at the same time.

    Raises OutputError, DiskFullError.
    """
    path, content = (
        folder / RUN_NAME,
        (json.dumps(asdict(run), ensure_ascii=False, indent=2) + "\n").encode("utf-8", "surrogateescape"),
    )
    if replaces:
        with atomic_path(path) as partial:
            partial.write_bytes(content)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = temporary_path(folder)
        try:
            partial.write_bytes(content)
            os.link(partial, path)  # unlike a rename, it fails if another shard was first
        finally:
            partial.unlink(missing_ok=True)
    except FileExistsError:
        return
    except OSError as error:
        kind = DiskFullError if error.errno in FULL else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from error
