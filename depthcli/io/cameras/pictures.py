"""The camera that a user gives to each picture: from a calibration file, a focal length or an angle of view."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from depthcli.camera import Camera, CameraSource, equivalent_focal, pinhole, same_ratio
from depthcli.choices.camera import CameraChoice
from depthcli.errors import UsageError
from depthcli.io.cameras.files import read_cameras
from depthcli.io.cameras.stored import CameraFile, StoredCamera, camera_from, focal_of_angle
from depthcli.io.pictures.images import Picture


class GivenCameras:
    """The cameras of a choice. Raises UsageError for a calibration file that cannot be read."""

    def __init__(self, choice: CameraChoice) -> None:
        self._choice = choice
        self._file: Optional[CameraFile] = None
        if choice.intrinsics is not None and choice.inline is None:
            self._file = read_cameras(Path(choice.intrinsics))

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note, with the content of a file instead of its path."""
        choice = self._choice
        intrinsics: Any = None if choice.inline is None else ",".join(f"{number:g}" for number in choice.inline)
        return {
            "intrinsics": self._file.fingerprint if self._file else intrinsics,
            "focal": choice.focal,
            "fov": choice.view and "{}:{:g}".format(*choice.view),
            "f35": choice.f35,
        }

    @property
    def path(self) -> Optional[Path]:
        """The calibration file, if there is one."""
        return None if self._file is None else Path(str(self._choice.intrinsics))

    @property
    def json(self) -> Optional[dict[str, Any]]:
        """The content of a calibration file in JSON, None for any other."""
        if self.path is None:
            return None
        try:
            content = json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def given_to(self, picture: Picture) -> Picture:
        """Return the picture with its camera. Raises UsageError if the file has none for it, or one of another size."""
        camera, notes = self.camera_of(picture.name, picture.size, picture.orientation)
        return replace(picture, camera=camera, notes=(*picture.notes, *notes))

    def camera_of(
        self, name: str, size: tuple[int, int], orientation: int = 1, aspect: float = 1.0
    ) -> tuple[Camera, tuple[str, ...]]:
        """Return the camera of a picture or clip, and how it was found. Raises UsageError as `given_to`.

        name: its path. size: (width, height), upright. orientation: of EXIF, that made it upright. aspect: width of a
        pixel by its height; angles and millimetres are those of the picture as it is shown, with square pixels.
        """
        if self._file is not None:
            return self._from_file(self._file, name, size, orientation)
        if self._choice.inline is not None or aspect == 1:
            return self._plain(size), ()
        shown = max(1, round(size[0] * aspect)), size[1]
        return self._plain(shown).resized(shown, size), ()

    def _plain(self, size: tuple[int, int]) -> Camera:
        choice = self._choice
        if choice.inline is not None:
            fx, fy, cx, cy = choice.inline
            camera = camera_from((fx, fy), (cx, cy))
            _check_center(camera, size, "`intrinsics`", "the picture")
            return camera
        if choice.focal is not None:
            return pinhole(size, choice.focal, CameraSource.GIVEN)
        if choice.f35 is not None:
            return pinhole(size, equivalent_focal(size, choice.f35), CameraSource.GIVEN)
        assert choice.view is not None
        axis, degrees = choice.view
        side = {"h": size[0], "v": size[1], "d": math.hypot(*size)}[axis]
        focal = focal_of_angle(side, math.radians(degrees))
        return pinhole(size, focal, CameraSource.GIVEN)

    def _from_file(
        self, file: CameraFile, name: str, size: tuple[int, int], orientation: int
    ) -> tuple[Camera, tuple[str, ...]]:
        stored = file.of_picture(name)
        if stored is None:
            raise UsageError(
                f"{file.name} has {len(file.cameras)} cameras, and none is that of {name}",
                "give `intrinsics` of this picture, or one of `focal`, `fov` and `f35`",
            )
        camera, note = _fitted(stored, file, name, size, orientation)
        _check_center(camera, size, file.name, name)
        return camera, (f"camera from {file.name}, {', '.join([file.title, *([note] if note else ()), *file.notes])}",)


def _fitted(
    stored: StoredCamera, file: CameraFile, name: str, upright: tuple[int, int], orientation: int
) -> tuple[Camera, str]:
    """Return the camera of the upright picture at its size, and how it came from that of the file.

    A file belongs to the picture as it is stored if its size is that one; else to the upright one, unless only the
    stored one has its ratio of sides.
    """
    size = stored.size
    camera = stored.for_size(size or upright)
    swapped = orientation >= 5  # width and height
    as_stored = upright[::-1] if swapped else upright
    if size is not None and swapped and (size == as_stored != upright or not same_ratio(size, upright)):
        if not same_ratio(size, as_stored):
            raise _misfit(file, size, name, upright)
        turned = camera.resized(size, as_stored).turned(orientation, as_stored)
        return turned, f"of {_by(size)} pixels as stored, turned with the picture"
    whose = "of the upright picture" if orientation > 1 else ""
    if size is None or size == upright:
        return camera, whose
    if not same_ratio(size, upright):
        raise _misfit(file, size, name, upright)
    return camera.resized(size, upright), f"resized from {_by(size)} pixels {whose}".rstrip()


def _misfit(file: CameraFile, size: tuple[int, int], name: str, upright: tuple[int, int]) -> UsageError:
    return UsageError(
        f"{file.name} is for {_by(size)} pixels, and {name} has {_by(upright)}, which is no resize of it",
        "give `intrinsics` of this picture, or one of `focal`, `fov` and `f35`",
    )


def _check_center(camera: Camera, size: tuple[int, int], file: str, name: str) -> None:
    """Raise UsageError for a principal point outside of the picture, as of a file for another size."""
    (cx, cy), (width, height) = camera.center, size
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        raise UsageError(
            f"{file} has its principal point at {cx:g},{cy:g}, outside of the {_by(size)} pixels of {name}",
            "give `intrinsics` for the size of the picture",
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
