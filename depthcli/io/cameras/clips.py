"""The camera that a film itself tells, in the metadata of its container."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Optional

from depthcli.camera import Camera, CameraSource, equivalent_focal, pinhole

# Millimetres on 35 mm film, as phones write it into the `mdta` keys of QuickTime and MP4.
_EQUIVALENT = "com.apple.quicktime.camera.focal_length.35mm_equivalent"


def camera_of_metadata(metadata: Mapping[str, str], size: tuple[int, int], aspect: float = 1.0) -> Optional[Camera]:
    """Return the camera by the texts in a container, or None. The principal point is the middle.

    size: (width, height), upright. aspect: width of a pixel by its height.
    """
    with suppress(ValueError):
        millimetres = float(metadata.get(_EQUIVALENT, 0))
        if 0 < millimetres < math.inf:  # -13 was seen, for a lens that the phone does not know
            shown = max(1, round(size[0] * aspect)), size[1]
            return pinhole(shown, equivalent_focal(shown, millimetres), CameraSource.CLIP).resized(shown, size)
    return None
