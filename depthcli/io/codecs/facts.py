"""The JSON block that every file of ours carries: what its numbers mean, and what they were made of."""

from __future__ import annotations

from typing import Any

from depthcli.camera import Camera, describe_camera
from depthcli.depthmap import DepthKind, DepthMap, Provenance, describe, describe_values
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.version import __version__


def facts_of(depth: DepthMap) -> dict[str, Any]:
    """Return the facts about a map."""
    return {"schema": SCHEMA, **describe(depth), "depthcli": __version__}


def facts_of_clip(
    kind: DepthKind,
    extremes: tuple[float, float],
    size: tuple[int, int],
    provenance: Provenance,
    max_depth: float | None,
    settings: str,
    damage: str = "",
    camera: Camera | None = None,
) -> dict[str, Any]:
    """Return the facts about all maps of a clip. extremes: of the numbers. damage: why the clip ended early."""
    about = describe_values(kind, extremes, size, provenance, max_depth)
    if camera is not None:
        about["camera"] = describe_camera(camera, size)
    return {"schema": SCHEMA, **about, "depthcli": __version__, "settings": settings, "damage": damage}
