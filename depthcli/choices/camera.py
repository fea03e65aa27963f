"""The camera of pictures, as a user gives it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from depthcli.errors import UsageError


@dataclass(frozen=True)
class CameraChoice:
    """The camera of the pictures, for those who know more than EXIF; at most one of these.

    intrinsics: a calibration file, a COLMAP folder, or the text fx,fy,cx,cy in pixels of the upright picture.
    focal: focal length in pixels of the whole picture. f35: in millimetres of 35 mm film, by the diagonal.
    fov: angle of view in degrees across the upright picture: 60, v:45 for its height, d:75 for its diagonal.
    """

    intrinsics: Optional[Union[str, Path]] = None
    focal: Optional[float] = None
    fov: Optional[str] = None
    f35: Optional[float] = None

    def __post_init__(self) -> None:
        given = [name for name in ("intrinsics", "focal", "fov", "f35") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name, unit in (("focal", "pixels"), ("f35", "millimetres")):
            length = getattr(self, name)
            if length is not None and not 0 < length < math.inf:
                raise UsageError(f"`{name}` must be more than 0 {unit}, got {length:g}")
        _ = self.view, self.inline  # raise for texts that make no sense

    @property
    def is_given(self) -> bool:
        """Whether a camera was chosen."""
        return any(value is not None for value in vars(self).values())

    @property
    def view(self) -> Optional[tuple[str, float]]:
        """The axis (h, v or d) and the degrees of `fov`."""
        if self.fov is None:
            return None
        match = re.fullmatch(r"\s*(?:([hvd]):)?(\d+(?:\.\d*)?|\.\d+)\s*", str(self.fov))
        if match is None or not 0 < float(match[2]) < 180:
            raise UsageError(f"`fov` must be more than 0 and less than 180 degrees, got {self.fov}", "such as 60, v:45")
        return match[1] or "h", float(match[2])

    @property
    def inline(self) -> Optional[tuple[float, float, float, float]]:
        """(fx, fy, cx, cy) if `intrinsics` is a list of numbers; None for a file."""
        text = str(self.intrinsics)
        if "," not in text or not re.fullmatch(r"[-+\s\d.,eE]+", text):
            return None
        try:
            fx, fy, cx, cy = map(float, text.split(","))
        except ValueError:
            raise UsageError(f"{text!r} is not a camera", "give `intrinsics` as fx,fy,cx,cy or as a file") from None
        if min(fx, fy) <= 0 or not all(map(math.isfinite, (fx, fy, cx, cy))):
            raise UsageError(f"the focal lengths of `intrinsics` must be more than 0, got {text}")
        return fx, fy, cx, cy
