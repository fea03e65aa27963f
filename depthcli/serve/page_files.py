"""The files of the web page: those of its folder, the viewer of `-f html`, and the colour maps."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from importlib import resources

from depthcli.choices.settings import COLORMAPS, DEFAULT_COLORMAP
from depthcli.pixels.colormap import color_table
from depthcli.serve.answers import media_type_of

VIEWER = "viewer.js"
COLORS = "colors.json"


@dataclass(frozen=True)
class PageFile:
    """A file of the page. zipped: its content in gzip, empty if that is not smaller."""

    content: bytes
    media_type: str
    zipped: bytes


def page_files() -> dict[str, PageFile]:
    """Return the files by name."""
    folder = resources.files("depthcli.serve") / "page"
    files = {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}
    viewer = resources.files("depthcli.io.points") / "viewer" / VIEWER
    return {
        name: PageFile(content, media_type_of(name), _zipped(content))
        for name, content in {**files, VIEWER: viewer.read_bytes(), COLORS: _colors()}.items()
    }


def _zipped(content: bytes) -> bytes:
    made = gzip.compress(content, mtime=0)
    return made if len(made) < 0.9 * len(content) else b""


def _colors() -> bytes:
    """Return the colour maps: by name the base64 of (256, 3) uint8 RGB, from far to near; `_r` reverses one."""
    tables = {name: base64.b64encode(color_table(name).tobytes()).decode("ascii") for name in COLORMAPS}
    return json.dumps({"usual": DEFAULT_COLORMAP, "tables": tables}).encode()
