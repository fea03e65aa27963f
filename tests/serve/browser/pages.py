"""Sizes of windows, and pictures of what they show."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from tests.io.browser import Visit

DESK = {"viewport": {"width": 1200, "height": 760}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NET = re.compile(r"Failed to load resource: (net::ERR_|the server responded with a status of (400|401|422|503))")


def shot(there: Visit, selector: str) -> np.ndarray:
    """The (H, W, 3) pixels of an element, two frames from now."""
    there.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return np.asarray(Image.open(io.BytesIO(there.page.locator(selector).screenshot())).convert("RGB"))
