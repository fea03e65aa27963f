"""What gives depth its metres: references, a fit, a factor."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from depthcli.choices.settings import require
from depthcli.errors import UsageError

FITS = ("auto", "scale", "line", "isotonic")


@dataclass(frozen=True)
class Reference:
    """Something measured, from which metres follow.

    text: as the user gave it. name: at, z, size, ground, range, or file. rows: its numbers; of at and z one row
    (u, v, metres) per point, of size (u1, v1, u2, v2, metres), of ground (height, pitch), of range (near, far).
    path: of a file. scale: codes per metre of its 16-bit PNG. frame: of a clip, in which it was measured; None if the
    text does not say.
    """

    text: str
    name: str
    rows: tuple[tuple[float, ...], ...] = ()
    path: Optional[Path] = None
    scale: float = 1000.0
    frame: Optional[int] = None

    @property
    def shown(self) -> str:
        """The text for files, without the folders of an absolute path."""
        if self.path is None or not self.path.is_absolute():
            return self.text
        return self.path.name if self.frame is None else f"{self.path.name}@{self.frame}"

    @property
    def stands_alone(self) -> bool:
        """Whether it gives the whole calibration, and not points for a fit."""
        return self.name in ("ground", "range")


# Name -> (pattern of what follows it, groups of numbers it holds, example); # is a number
_REFERENCES = {
    "at": (r"#,#=#(?:,#,#=#)*", 3, "at:812,540=2.35"),
    "z": (r"#,#=#(?:,#,#=#)*", 3, "z:812,540=2.35"),
    "size": (r"#,#,#,#=#", 5, "size:100,40,100,400=1.75"),
    "ground": (r"#(?:,pitch=#)?", 2, "ground:1.65,pitch=2"),
    "range": (r"#,#", 2, "range:0.5,20"),
}
_CODES = {"mm": 1000.0, "kitti": 256.0, "tum": 5000.0}  # per metre, of 16-bit PNG
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def parse_reference(text: str) -> Reference:
    """Return what a text such as at:812,540=2.35 means. Raises UsageError for one that makes no sense.

    An @ and a number at its end name the frame of a clip: at:812,540=2.35@120.
    """
    named = re.fullmatch(r"(.+)@(\d+)", str(text).strip())
    if named:
        return replace(parse_reference(named[1]), text=str(text), frame=int(named[2]))
    name, colon, rest = str(text).strip().partition(":")
    if not colon or name not in _REFERENCES:
        scale = _CODES.get(name) if colon else None
        path = rest if scale else str(text).strip()
        if not path:
            raise UsageError("a reference of `scale_from` is empty", f"such as {_REFERENCES['at'][2]}, or a file")
        return Reference(str(text), "file", path=Path(path), scale=scale or 1000.0)
    pattern, width, example = _REFERENCES[name]
    if not re.fullmatch(pattern.replace("#", _NUMBER), rest):
        raise UsageError(f"{text!r} is not a reference", f"give `scale_from` as {example}")
    numbers = [float(number) for number in re.findall(_NUMBER, rest)]
    if name == "ground" and len(numbers) == 1:
        numbers.append(0.0)
    rows = tuple(tuple(numbers[start : start + width]) for start in range(0, len(numbers), width))
    metres = rows[0][:1] if name == "ground" else rows[0] if name == "range" else tuple(row[-1] for row in rows)
    if min(metres) <= 0 or not all(map(math.isfinite, numbers)):
        raise UsageError(f"the metres of {text!r} must be more than 0", f"give `scale_from` as {example}")
    if name == "ground" and not -60 <= rows[0][1] <= 60:
        raise UsageError(f"the pitch of {text!r} must be -60 to 60 degrees", "0 is level, positive looks down")
    if name == "range" and rows[0][0] >= rows[0][1]:
        raise UsageError(f"{text!r} ends before it begins", "give `scale_from` as range:NEAR,FAR")
    return Reference(str(text), name, rows)


@dataclass(frozen=True)
class MetresChoice:
    """How the numbers of a map become metres; by default they stay as they are.

    scale_from: references, as texts. fit: one of FITS. scale: one factor, for a metric model. calibration_from: a file
    of `depth calibrate`, or a depth file with a calibration. unit_of_colmap: metres in a unit of COLMAP's model.
    cloud_to_camera: file with the 12 or 16 numbers that take points of a LiDAR cloud to the camera's axes.
    max_depth: metres; what is farther gets no depth. None: 3 times the farthest reference, and at least 100.
    """

    scale_from: tuple[str, ...] = ()
    fit: str = "auto"
    scale: Optional[float] = None
    calibration_from: Optional[Path] = None
    unit_of_colmap: Optional[float] = None
    cloud_to_camera: Optional[Path] = None
    max_depth: Optional[float] = None

    def __post_init__(self) -> None:
        require("fit", self.fit, FITS)
        given = [name for name in ("scale_from", "scale", "calibration_from") if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name, what in (("scale", "factor"), ("unit_of_colmap", "length"), ("max_depth", "depth")):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise UsageError(f"`{name}` must be a {what} above 0, got {number:g}")
        for name in () if self.scale_from else ("unit_of_colmap", "cloud_to_camera"):
            if getattr(self, name) is not None:
                raise UsageError(f"`{name}` is for a reference of `scale_from`", "leave it out")
        if self.fit != "auto" and not self.scale_from:
            raise UsageError("`fit` needs references", "leave it out, or give `scale_from`")
        alone = [reference.text for reference in self.references if reference.stands_alone]
        if alone and (len(self.scale_from) > 1 or self.fit != "auto"):
            raise UsageError(f"{alone[0]} gives scale and shift alone", "leave out the other references and `fit`")

    @property
    def is_given(self) -> bool:
        """Whether metres were asked for."""
        return bool(self.scale_from or self.scale is not None or self.calibration_from)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references, parsed."""
        return tuple(map(parse_reference, self.scale_from))
