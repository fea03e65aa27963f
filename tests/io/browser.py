"""A page in a real browser: Chromium without a window and with software WebGL, if it is installed.

pip install playwright; apt-get install chromium
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox", "--force-color-profile=srgb")
BACKGROUND = (22, 22, 23)


class Visit:
    """A page that is open, what it asked for, and what it complained about."""

    def __init__(self, browser, path: Path, wait: bool = True, **context) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 480, "height": 500}, "reduced_motion": "reduce", **context}
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.resolve().as_uri())
        if wait:
            self.settle()

    def settle(self) -> None:
        """Wait until the view shows more than the background."""
        for _ in range(100):
            shot = Image.open(io.BytesIO(self.page.screenshot())).convert("L")
            if (np.asarray(shot) > 60).mean() > 0.05:
                return
            self.page.wait_for_timeout(30)

    def pixels(self) -> np.ndarray:
        """The (H, W, 3) view without what lies above it. Without motion, it is drawn in the next frame."""
        show = """(opacity) => new Promise((done) => {
          for (const one of document.querySelectorAll("header, footer, #views")) one.style.opacity = opacity;
          requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30)));
        })"""
        self.page.evaluate(show, 0)
        shot = self.page.screenshot()
        self.page.evaluate(show, 1)
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))

    def drag(self, dx: int, dy: int) -> None:
        self.page.mouse.move(240, 250)
        self.page.mouse.down()
        self.page.mouse.move(240 + dx, 250 + dy, steps=3)
        self.page.mouse.up()


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def drawn(seen: np.ndarray) -> np.ndarray:
    """Return the (H, W) mask of pixels that are not background."""
    return np.asarray(np.abs(seen.astype(int) - BACKGROUND).max(axis=2) > 20)
