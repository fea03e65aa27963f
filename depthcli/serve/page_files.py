"""The files of the web page by name: those of its folder, the viewer of `-f html`, and the colour maps."""

from __future__ import annotations

import base64
import json
from importlib import resources

from depthcli.pixels.colormap import COLORMAPS, DEFAULT_COLORMAP, color_table

VIEWER = "viewer.js"
COLORS = "colors.json"


def page_files() -> dict[str, bytes]:
    """Return the content of each file."""
    folder = resources.files("depthcli.serve") / "page"
    files = {item.name: item.read_bytes() for item in folder.iterdir() if item.is_file()}
    viewer = resources.files("depthcli.io.points") / "viewer" / VIEWER
    return {**files, VIEWER: viewer.read_bytes(), COLORS: _colors()}


def _colors() -> bytes:
    """Return the colour maps, the default one first: by name the base64 of (256, 3) uint8 RGB, from far to near."""
    names = [DEFAULT_COLORMAP, *(name for name in sorted(COLORMAPS, key=str.lower) if name not in DEFAULT_COLORMAP)]
    both = [each for name in names for each in (name, name.removesuffix("_r") if name.endswith("_r") else f"{name}_r")]
    return json.dumps({name: base64.b64encode(color_table(name).tobytes()).decode("ascii") for name in both}).encode()
