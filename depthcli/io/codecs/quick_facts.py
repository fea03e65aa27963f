"""The facts of our PNG files, read from their first bytes without a reader of pictures.

Planning asks existing results whose they are; the readers of all formats take longer to load than a client runs.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Optional

SCHEMA = "depthcli/1"
TEXT_KEY = "depthcli"  # of the block in a PNG, and of the attribute in an EXR
_HEAD = b"\x89PNG\r\n\x1a\n"
_FIRST = TEXT_KEY.encode() + b"\0\0\0\0\0"  # of the text: not compressed, no language
_MOST = 1 << 20  # bytes of the block


def parse_facts(text: str) -> dict[str, Any]:
    """Return the block in a text, empty if it is not ours. Raises ValueError for what is not JSON."""
    facts = json.loads(text)
    return facts if isinstance(facts, dict) and facts.get("schema") == SCHEMA else {}


def png_facts(path: Path) -> Optional[dict[str, Any]]:
    """Return the facts in a PNG file that begins as `write_png` leaves it; None for any other file."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(_HEAD)) != _HEAD or stream.read(8) != b"\0\0\0\x0dIHDR":
                return None
            stream.seek(13 + 4, 1)
            (size,) = struct.unpack(">I", stream.read(4))
            if stream.read(4) != b"iTXt" or size > _MOST or stream.read(len(_FIRST)) != _FIRST:
                return None
            data = stream.read(size - len(_FIRST))
        return parse_facts(data.decode()) or None
    except (OSError, ValueError, struct.error):
        return None
