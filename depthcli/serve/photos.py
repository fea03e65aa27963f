"""Pictures as a browser shows them: small JPEGs."""

from __future__ import annotations

import numpy as np

from depthcli.errors import OutputError

_QUALITY = 88


def jpeg_of(rgb: np.ndarray, max_side: int) -> bytes:
    """Return a picture (H, W, 3) uint8 RGB as JPEG, its longer side at most `max_side` pixels."""
    import cv2

    height, width = rgb.shape[:2]
    scale = max_side / max(height, width)
    if scale < 1:
        rgb = cv2.resize(
            rgb, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
    made, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not made:
        raise OutputError("the picture cannot be written as JPEG")
    return bytes(data)
