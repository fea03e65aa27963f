"""Tell films that depthcli wrote from other clips, by the comment in them: names and places may have changed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from depthcli.io.codecs.facts import SCHEMA
from depthcli.io.video.ffmpeg_program import find_program, input_of
from depthcli.io.video.libav import has_av, load_av, open_container

_SECONDS = 20.0  # for a program that describes a file


def is_depth_film(path: Path) -> bool:
    """Return whether the comment of a video file names it a depth film of depthcli."""
    try:
        return _comment_by_av(path) if has_av() or not find_program() else _comment_by_program(path)
    except Exception:  # whatever a stranger's file holds, it is not ours
        return False


def _comment_by_av(path: Path) -> bool:
    with path.open("rb") as file, open_container(load_av(), file) as container:
        texts = [text for name, text in container.metadata.items() if name.lower() == "comment"]
    return any(json.loads(text).get("schema") == SCHEMA for text in texts)


def _comment_by_program(path: Path) -> bool:
    command = [str(find_program()), "-v", "error", *input_of(path), "-f", "ffmetadata", "-"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.lower().startswith(b"comment={")]
    return any(json.dumps({"schema": SCHEMA}).encode()[1:-1] in line for line in lines)
