"""A clip as one page: the meshes and pictures of some of its frames, in the viewer of `depthcli.io.points.page`.

All frames share a camera, a grid and a space. Pages are for looking at, and are not read back.
"""

from __future__ import annotations

from fractions import Fraction
from typing import IO, Any, Optional

import numpy as np

from depthcli.errors import OutputError
from depthcli.geometry.grid import grid_step
from depthcli.geometry.rays import rays_at
from depthcli.geometry.solids import Mesh
from depthcli.io.codecs.files import Content
from depthcli.io.points import page
from depthcli.io.video.clip_output import ClipOutput

MOST_FRAMES = 100  # that a page shows
MOST_BYTES = 20_000_000  # of a page
# Bytes of the page that vertices may take: what is left is for the pictures. A vertex has 2 of depth and half a byte
# for its cell, which Base64 makes a third longer.
_MOST_OF_VERTICES = 9_000_000
_BYTES_OF_VERTEX = 2.5 * 4 / 3
_SIDES = (1280, 1024, 896, 768, 640, 512, 448, 384, 320, 256, 192, 128)
_COARSEST = 16  # vertices along the longer side
_OF_FRAME = ("near", "far", "z", "cells")


def shown_every(frames: int) -> int:
    """Return n if every n-th of so many frames is shown."""
    return max(1, -(-frames // MOST_FRAMES))


def frame_mesh_size(size: tuple[int, int], frames: int, most: int) -> int:
    """Return how many vertices the longer side of each frame may have so that all that are shown fit into the page.

    size: (width, height) of the clip. most: the largest answer.
    """
    shown = -(-frames // shown_every(frames))
    while True:
        step = grid_step(size, most)
        vertices = shown * (size[0] // step + 2) * (size[1] // step + 2)
        if vertices * _BYTES_OF_VERTEX <= _MOST_OF_VERTICES or most <= _COARSEST:
            return most
        most = max(_COARSEST, int(0.95 * most))


class PageWriter:
    """Takes the frames of a clip and writes the page at the end; see FrameWriter.

    count: frames of the clip. What it keeps is the page, which is bounded.
    """

    def __init__(self, output: ClipOutput) -> None:
        self.notes: list[str] = []
        self.count = 0
        self._output, self._every = output, shown_every(output.frames)
        shown = -(-output.frames // self._every)
        self._most_of_picture = int((MOST_BYTES - _MOST_OF_VERTICES) * 0.74) // shown
        self._sides: tuple[int, ...] = _SIDES
        self._common: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._frames: list[dict[str, Any]] = []
        self._times: list[float] = []
        self._length = 0.0

    def has(self, index: int, time: Fraction) -> bool:
        """Return whether the page does not show this frame."""
        return index % self._every > 0

    def write(self, content: Content, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Add a frame. The mesh of a content is that of a map's pixels."""
        mesh = content.body
        assert isinstance(mesh, Mesh)
        data = page.page_data(mesh, content.facts)
        frame = {name: data.pop(name) for name in _OF_FRAME}
        fill = data.pop("fill") and self._common.get("fill", True)
        if not self._common:
            self._facts = dict(content.facts)
            self._common = {**data, "rays": _rays(mesh, data["step"]) if data["rays"] else None}
        self._common["fill"] = fill
        picture = page.fitting_texture(mesh.texture, self._most_of_picture, self._sides)
        self._sides = self._sides_from(picture)
        self._frames.append({"time": float(time), **frame, "texture": page.packed(picture)})
        self.skip(time, duration)

    def skip(self, time: Fraction, duration: Optional[Fraction] = None) -> None:
        """Count a frame that the page does not show."""
        self._times.append(float(time))
        self._length = self._times[-1] - self._times[0] + float(duration or 1 / self._output.timing.rate)
        self.count += 1

    def finish(self, target: IO[bytes]) -> None:
        """Write the page. Raises OutputError if no frame has a mesh."""
        if not self._frames:
            raise OutputError(f"cannot write {self._output.path}: no frame of the clip has a mesh", "use npz")
        data = {
            **self._common,
            "near": min(frame["near"] for frame in self._frames),
            "far": max(frame["far"] for frame in self._frames),
            "length": self._length,
            "of": self.count,
            "frames": self._frames,
        }
        facts = {**self._output.facts, **self._facts, "frames": len(self._frames)}
        target.write(page.page_bytes(data, facts))
        if self._every > 1:
            self.notes.append(f"the page shows {len(self._frames)} of {self.count} frames, one in {self._every}")

    @property
    def described(self) -> dict[str, Any]:
        """What the sidecar says of the page."""
        return {"shown": [frame["time"] for frame in self._frames], "duration": self._length}

    def _sides_from(self, picture: bytes) -> tuple[int, ...]:
        """Return the sides that later frames may have: no frame is larger than one before it, so that none flashes."""
        import io

        from PIL import Image

        with Image.open(io.BytesIO(picture)) as file:
            longest = max(file.size)
        return tuple(dict.fromkeys((min(longest, _SIDES[0]), *(side for side in self._sides if side < longest))))


def _rays(mesh: Mesh, step: list[int]) -> str:
    """Return the rays of all pixels of the grid, of a lens: float32 in base64."""
    assert mesh.camera is not None and mesh.size is not None
    columns, rows = np.meshgrid(*(page.grid_lines(length, step[2]) for length in mesh.size))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)
    return page.packed(rays_at(pixels, mesh.camera).astype("<f4").tobytes())
