"""The facts in the comment of a film that depthcli wrote, which tell it from other clips wherever it lies."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

from depthcli.io.codecs.quick_facts import parse_facts
from depthcli.io.video.ffmpeg_program import find_program, input_of
from depthcli.io.video.libav import has_av, load_av, open_container
from depthcli.io.video.reader import open_clip

_SECONDS = 20.0  # for a program that describes a file


def is_depth_film(path: Path) -> bool:
    """Return whether the comment of a video file names it a depth film of depthcli."""
    return bool(film_facts(path))


def film_facts(path: Path) -> dict[str, Any]:
    """Return the facts in the comment of a video file, empty if there are none of ours."""
    try:
        texts = _comments_by_av(path) if has_av() or not find_program() else _comments_by_program(path)
        return next((facts for facts in map(parse_facts, texts) if facts), {})
    except Exception:  # whatever a stranger's file holds, it is not ours
        return {}


def count_frames(path: Path, decode: bool) -> int:
    """Return how many frames a film has, by its packets, or decoded. Raises what the decoder raises."""
    if decode or not has_av():
        with open_clip(path) as clip:
            return sum(1 for _ in clip.frames())
    with path.open("rb") as file, open_container(load_av(), file) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _comments_by_av(path: Path) -> list[str]:
    with path.open("rb") as file, open_container(load_av(), file) as container:
        return [text for name, text in container.metadata.items() if name.lower() == "comment"]


def _comments_by_program(path: Path) -> list[str]:
    command = [str(find_program()), "-v", "error", *input_of(path), "-f", "ffmetadata", "-"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
    lines = [line.decode() for line in ran.stdout.splitlines() if line.lower().startswith(b"comment={")]
    # A backslash stands before =, ;, # and itself.
    return [re.sub(r"\\(.)", r"\1", line.partition("=")[2]) for line in lines]
