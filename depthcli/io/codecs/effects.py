"""Files of effects: a picture changed by its depth, or a film of a camera that moves around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from PIL import Image

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.codecs.stereo import coarseness, write_picture
from depthcli.io.names import fitting_name
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.writers import video_writer
from depthcli.views.effects import Blur, Cut, Fog, Parallax

Effect = Union[Blur, Fog, Cut, Parallax]
# Suffixes of the files of each effect; the first is the usual one. A cut-out needs alpha.
SUFFIXES: dict[type, tuple[str, ...]] = {
    Blur: (".png", ".jpg", ".jpeg"),
    Fog: (".png", ".jpg", ".jpeg"),
    Cut: (".png",),
    Parallax: (".mp4", ".webp", ".gif"),
}
_WEBP_QUALITY = 85


@dataclass(frozen=True)
class EffectSpec(OutputSpec):
    """The file of each picture with an effect."""

    effect: Effect = field(default_factory=Blur)

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the file for one picture, from its output path without any ending."""
        kind = type(self.effect)
        return (stem.with_name(fitting_name(stem.parent, stem.name, f"_{kind.__name__.lower()}{SUFFIXES[kind][0]}")),)

    def check_kind(self, kind: DepthKind) -> None:
        """Take every kind: effects that need metres say so with the map."""

    def warnings(self, depth: DepthMap) -> tuple[str, ...]:
        """Return what is doubtful about a map."""
        return depth.provenance.warnings(depth.size)

    def write(self, depth: DepthMap, rgb: Optional[np.ndarray], paths: Sequence[Path]) -> None:
        """Write the file, whole or not at all. rgb: the (H, W, 3) uint8 picture. Raises UsageError as the effects."""
        assert rgb is not None
        (path,) = paths
        effect = self.effect
        facts = {**facts_of(depth), "effect": {"name": type(effect).__name__.lower(), **asdict(effect)}}
        if isinstance(effect, Parallax):
            _write_film(effect, depth, rgb, path, facts)
            return
        pixels = effect.apply(rgb, depth)
        with atomic_path(path) as partial, partial.open("wb") as stream:
            write_picture(pixels, stream, facts, path, f"{facts['effect']['name']} by depth")


@dataclass(frozen=True)
class OneEffectFile(EffectSpec):
    """The effect in the very file that a user named."""

    def paths(self, stem: Path) -> tuple[Path, ...]:
        """Return the file itself."""
        return (stem,)


def _write_film(effect: Parallax, depth: DepthMap, rgb: np.ndarray, path: Path, facts: dict[str, Any]) -> None:
    frames = effect.frames(rgb, depth, coarseness(depth, rgb.shape[1]))
    if path.suffix.lower() == ".mp4":
        timing = Timing(Fraction(effect.rate), Fraction(1, effect.rate))
        size = rgb.shape[1], rgb.shape[0]
        with video_writer(ClipOutput("stereo-mp4", path, size, timing, facts)) as writer:
            for index, frame in enumerate(frames):
                writer.write(frame, Fraction(index, effect.rate))
        return
    kind = path.suffix[1:].upper()
    options: dict[str, Any] = {"quality": _WEBP_QUALITY} if kind == "WEBP" else {}
    first, *others = map(Image.fromarray, frames)
    with atomic_path(path) as partial, partial.open("wb") as stream:
        first.save(
            stream, kind, save_all=True, append_images=others, duration=round(1000 / effect.rate), loop=0, **options
        )
