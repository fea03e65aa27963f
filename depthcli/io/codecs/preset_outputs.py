"""The files of a preset: its formats, and beside each map the camera, the photo or a quilt."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Optional

import numpy as np
from PIL import Image

from depthcli.camera import Camera
from depthcli.choices.shapes import ShapeChoice
from depthcli.choices.stereo import StereoChoice
from depthcli.depthmap import DepthMap
from depthcli.errors import OutputError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.cameras.written import camera_info, kitti_calibration, plain_matrix
from depthcli.io.codecs.facts import facts_of
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.codecs.presets import Preset
from depthcli.io.codecs.stereo import StereoSpec, coarseness, fitted, write_picture
from depthcli.io.names import fitting_name

_JPEG_QUALITY = 95
# (ending behind the stem of a map, its text) of the file with a camera
CAMERA_FILES: Mapping[str, tuple[str, Callable[[Camera, tuple[int, int], str], str]]] = {
    "ros": ("_camera_info.yaml", camera_info),
    "kitti": ("_calib.txt", lambda camera, size, name: kitti_calibration(camera)),
    "matrix": ("_camera.txt", lambda camera, size, name: plain_matrix(camera)),
}


@dataclass(frozen=True)
class PresetSpec(OutputSpec):
    """Formats of each map, and what the preset wants beside it.

    replaces: other files beside a map may be replaced. keeps: real paths of the photos, which are never written.
    """

    preset: Preset = field(default_factory=lambda: Preset("", "", ()))
    replaces: bool = False
    keeps: frozenset[str] = frozenset()

    def keeping(self, photos: Iterable[Path]) -> PresetSpec:
        """See OutputSpec."""
        return replace(self, keeps=frozenset(map(os.path.realpath, photos)))

    def write(self, depth: DepthMap, rgb: Optional[np.ndarray], paths: Sequence[Path]) -> None:
        """Write the files beside the map, then the map in each format; a camera that is unknown is left out.

        Raises OutputError for a file of another content beside it, UsageError without a photo that is needed.
        """
        preset, path = self.preset, paths[0]
        stem = path.with_name(path.name[: -len(self.endings[0])])
        if preset.camera and depth.camera is not None:
            ending, text = CAMERA_FILES[preset.camera]
            self._write_beside(_named(stem, ending), text(depth.camera, depth.size, stem.name).encode())
        if preset.needs_photo and rgb is None:
            raise UsageError(f"{preset.name} wants the photo beside its depth", "name it with `photo`")
        if preset.photo and rgb is not None:
            whole = io.BytesIO()
            Image.fromarray(rgb).save(whole, "JPEG", quality=_JPEG_QUALITY)
            self._write_beside(_named(stem, preset.photo), whole.getvalue())
        if preset.quilt and rgb is not None:
            self._write_quilt(depth, rgb, stem)
        super().write(depth, rgb, paths)

    def _write_quilt(self, depth: DepthMap, rgb: np.ndarray, stem: Path) -> None:
        from depthcli.views.nearness import nearness
        from depthcli.views.quilt import quilt, quilt_ending

        size = rgb.shape[1], rgb.shape[0]
        path, whole = _named(stem, quilt_ending(size)), io.BytesIO()
        pixels = quilt(rgb, nearness(fitted(depth, size)), coarseness(depth, size[0]))
        write_picture(pixels, whole, {**facts_of(depth), "stereo": {"what": "quilt"}}, path, "stereo: quilt")
        self._write_beside(path, whole.getvalue())

    def _write_beside(self, path: Path, data: bytes) -> None:
        """Write a file; one that is there must be the same, unless it may be replaced. Raises OutputError."""
        if os.path.lexists(path):
            if os.path.realpath(path) in self.keeps or (path.is_file() and path.read_bytes() == data):
                return
            if not self.replaces:
                raise OutputError(f"{path} is there and is another file", "move it away, or use another `output`")
        with atomic_path(path) as partial:
            partial.write_bytes(data)


def outputs_of(
    preset: Preset, formats: Sequence[str], colormap: str, shape: ShapeChoice, replaces: bool = False
) -> OutputSpec:
    """Return what a preset writes for each map. formats: its own, or those given by the user, which win."""
    if preset.layout and tuple(formats) == preset.formats:
        return StereoSpec(choice=StereoChoice(layout=preset.layout))
    return PresetSpec(
        tuple(formats), colormap, endings_of(formats, preset.endings), shape, preset=preset, replaces=replaces
    )


def endings_of(formats: Sequence[str], own: Mapping[str, str]) -> tuple[str, ...]:
    """Return what follows a map's stem: the suffix, and the format's name if several have that suffix.

    own: endings that replace these, by format.
    """
    suffixes = [STILLS[name].suffix for name in formats]
    return tuple(
        own.get(name, suffix if suffixes.count(suffix) == 1 else f"_{name}{suffix}")
        for name, suffix in zip(formats, suffixes)
    )


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(fitting_name(stem.parent, stem.name, ending))
