"""Settings that several choices share, and their checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from depthcli.errors import UsageError

MIN_INPUT_SIZE = 14  # pixels: one patch
COLORMAPS = ("Spectral", "gray", "cividis", "inferno", "magma", "plasma", "turbo", "viridis")  # each also with _r
DEFAULT_COLORMAP = "Spectral_r"
IF_EXISTS = ("skip", "overwrite", "error")


def noted(settings: Mapping[str, Any]) -> str:
    """Return settings as the line that results note; those that are None were left open."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def require(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError if a setting's value is not one of those allowed."""
    if value not in allowed:
        raise UsageError(f"unknown `{setting}` {value!r}", f"choose from: {', '.join(allowed)}")


def parse_colormap(name: str) -> tuple[str, bool]:
    """Return the colour map of COLORMAPS that a name means, and whether it ends in _r. Raises UsageError for others."""
    base, reverse = (name[:-2], True) if name.endswith("_r") else (name, False)
    known = {colormap.lower(): colormap for colormap in COLORMAPS}
    if base.lower() not in known:
        raise UsageError(f"no colour map is called {name!r}", f"choose from: {', '.join(COLORMAPS)}, each also with _r")
    return known[base.lower()], reverse


def check_batch(batch: int) -> None:
    """Raise UsageError for a batch without a picture."""
    if batch < 1:
        raise UsageError(f"`batch` must be at least 1, got {batch}")


def check_input_size(size: Optional[int]) -> None:
    """Raise UsageError for an input smaller than one patch. size: pixels, None for the model's own."""
    if size is not None and size < MIN_INPUT_SIZE:
        raise UsageError(f"`input_size` must be at least {MIN_INPUT_SIZE}, got {size}")
