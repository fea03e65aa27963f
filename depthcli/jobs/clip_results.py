"""What lies where a clip's results go: done already, of another clip, or to be made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import SOME_FAILED
from depthcli.io.images import printable
from depthcli.io.video import STDIN
from depthcli.io.video_writers import sidecar_of
from depthcli.jobs.manifest import FAILED, SKIPPED, Result

REPLACE = "--if-exists overwrite replaces it"


def clip_identity(source: Union[Path, str]) -> dict[str, Any]:
    """Return what tells a clip from another, and from what may lie in its place later, ready for JSON.

    place: where it is, as a digest, since results are given away. what: sizes and times of its files; of stdin there is
    nothing that could be known again.
    """
    if source == STDIN:
        return {"name": "stdin", "place": "", "what": f"process {os.getpid()}"}
    path = Path(source)
    place = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    files = sorted(item for item in path.iterdir() if item.is_file()) if path.is_dir() else [path]
    facts = [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in files]
    what = hashlib.sha256(repr(facts).encode(errors="surrogateescape")).hexdigest()[:16]
    return {"name": printable(path.name), "place": place, "what": what}


def already_there(
    name: str, source: Union[Path, str], paths: Sequence[Path], if_exists: str, said: str, begun: bool
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
    wanted = clip_identity(source) if source == STDIN or os.path.exists(source) else None
    facts = {path: _said_by(path) for path in present}
    for path in present:
        made_of = facts[path].get("made_of")
        if made_of is None and not begun:
            return _refused(name, texts, f"{path} is there and does not say what it was made of ({REPLACE})")
        if made_of and wanted and (made_of["name"], made_of["place"]) != (wanted["name"], wanted["place"]):
            return _refused(name, texts, f"{path} is of another clip, {made_of['name']} (use another -o, or {REPLACE})")
        if made_of and source == STDIN:
            return _refused(name, texts, f"{path} is there, of an earlier stream ({REPLACE})")
    if begun or len(present) < len(paths) or any(facts[path]["made_of"] != wanted for path in paths):
        return None  # a run was interrupted, a format is new, or the clip has changed
    damage = next((facts[path]["damage"] for path in paths if facts[path].get("damage")), "")
    if damage:
        error = f"{damage}; the depth of what could be read is there"
        return Result(name, texts, FAILED, error=error, code=SOME_FAILED)
    older = any(facts[path].get("settings") != said for path in paths)
    warning = "was made with other options; --if-exists overwrite makes it anew"
    return Result(name, texts, SKIPPED, warnings=(warning,) if older else ())


def _refused(name: str, texts: tuple[str, ...], error: str) -> Result:
    return Result(name, texts, FAILED, error=error, code=1)


def _said_by(path: Path) -> Mapping[str, Any]:
    """Return what an output says of itself; nothing where its sidecar is gone, as beside one that is not whole."""
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads(sidecar_of(path).read_text(encoding="utf-8")))
    return {}
