"""How a picture or a film shows two eyes: one table of layouts, their names, and what players are told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable, Optional

import cv2
import numpy as np

from depthcli.camera import Camera, assumed_camera
from depthcli.choices.stereo import StereoChoice
from depthcli.views.eyes import Eyes, both_eyes
from depthcli.views.vr180 import sphere, sphere_side

# Of the box st3d in Google's "Spherical Video V2"; Matroska's stereo_mode has the same orders by names.
TOP_BOTTOM, LEFT_RIGHT, RIGHT_LEFT = 1, 2, 4


@dataclass(frozen=True)
class Layout:
    """One layout.

    endings: of the files behind a picture's stem, without suffix. pictures: makes one picture for each ending of the
    eyes. packing: one of the codes above, or None. tagged: whether films say so unless the user decides.
    spherical: whether the eyes are half a sphere each. exact_colors: whether a film must keep the colour of each pixel.
    repeats: how many eyes stand beside and above each other. squeezed: by how much each is compressed, (width, height).
    """

    name: str
    endings: tuple[str, ...]
    pictures: Callable[[Eyes], tuple[np.ndarray, ...]]
    what: str
    packing: Optional[int] = None
    tagged: bool = True
    spherical: bool = False
    exact_colors: bool = False
    repeats: tuple[int, int] = (1, 1)
    squeezed: tuple[int, int] = (1, 1)

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of each file for a picture of (width, height)."""
        if self.spherical:
            side = sphere_side(size)
            size = side, side
        width, height = (each * -(-length // by) for length, each, by in zip(size, self.repeats, self.squeezed))
        return width, height

    def tag(self, choice: StereoChoice) -> Optional[int]:
        """Return the packing to write into a film, None for none."""
        return self.packing if (self.tagged if choice.tags is None else choice.tags) else None


def _beside(eyes: Eyes) -> tuple[np.ndarray, ...]:
    return (np.hstack(eyes),)


def _crossed(eyes: Eyes) -> tuple[np.ndarray, ...]:
    return (np.hstack(eyes[::-1]),)


def _stacked(eyes: Eyes) -> tuple[np.ndarray, ...]:
    return (np.vstack(eyes),)


def _half_beside(eyes: Eyes) -> tuple[np.ndarray, ...]:
    height, width = eyes.left.shape[:2]
    return (np.hstack([_resized(eye, (-(-width // 2), height)) for eye in eyes]),)


def _half_stacked(eyes: Eyes) -> tuple[np.ndarray, ...]:
    height, width = eyes.left.shape[:2]
    return (np.vstack([_resized(eye, (width, -(-height // 2))) for eye in eyes]),)


def _apart(eyes: Eyes) -> tuple[np.ndarray, ...]:
    return tuple(eyes)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


# --- Red and cyan -----------------------------------------------------------------------------------------------------

# Shares of (R, G, B) of the left eye, then of the right eye, in the R, G and B that glasses of red and cyan see.
_LUMA = (0.2126, 0.7152, 0.0722)
_NOTHING, _RED, _GREEN, _BLUE = (0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_GRAY = ((*_LUMA, *_NOTHING), (*_NOTHING, *_LUMA), (*_NOTHING, *_LUMA))
_COLOR = ((*_RED, *_NOTHING), (*_NOTHING, *_GREEN), (*_NOTHING, *_BLUE))
_HALF_COLOR = ((*_LUMA, *_NOTHING), *_COLOR[1:])
# E. Dubois, "A projection method to generate anaglyph stereo images" (ICASSP 2001), least squares for such glasses.
_DUBOIS = (
    (0.456, 0.500, 0.176, -0.043, -0.088, -0.002),
    (-0.040, -0.038, -0.016, 0.378, 0.734, -0.018),
    (-0.015, -0.021, -0.005, -0.072, -0.113, 1.226),
)
_GAMMA = 2.2
_STEPS = 4096  # of light that are told apart: the darkest codes of sRGB need about as many


def _anaglyph(shares: tuple[tuple[float, ...], ...]) -> Callable[[Eyes], tuple[np.ndarray, ...]]:
    """Return what mixes two eyes for glasses of red and cyan, in linear light."""
    matrix = np.array(shares, np.float32)

    def mixed(eyes: Eyes) -> tuple[np.ndarray, ...]:
        to_light = (np.arange(256, dtype=np.float32) / 255) ** np.float32(_GAMMA)
        left, right = (cv2.transform(to_light[eye], part) for eye, part in zip(eyes, (matrix[:, :3], matrix[:, 3:])))
        light = np.clip(left + right, 0, 1)
        codes = np.round(255 * (np.arange(_STEPS, dtype=np.float32) / (_STEPS - 1)) ** np.float32(1 / _GAMMA))
        return (codes.astype(np.uint8)[np.rint(light * (_STEPS - 1)).astype(np.intp)],)

    return mixed


# --- The table --------------------------------------------------------------------------------------------------------

_ROWS = (
    # Players take a film that is tagged side by side for one of half width.
    Layout("sbs", ("_LRF_Full_SBS",), _beside, "left | right", LEFT_RIGHT, tagged=False, repeats=(2, 1)),
    Layout("half-sbs", ("_LR",), _half_beside, "left | right", LEFT_RIGHT, repeats=(2, 1), squeezed=(2, 1)),
    Layout("ou", ("_TBF_fulltb",), _stacked, "left over right", TOP_BOTTOM, repeats=(1, 2)),
    Layout("half-ou", ("_TB",), _half_stacked, "left over right", TOP_BOTTOM, repeats=(1, 2), squeezed=(1, 2)),
    Layout("cross", ("_RLF_cross",), _crossed, "right | left", RIGHT_LEFT, repeats=(2, 1)),
    *(
        Layout(f"anaglyph{kind}", ("_redcyan",), _anaglyph(shares), "red for the left eye", exact_colors=True)
        for kind, shares in (("", _DUBOIS), ("-gray", _GRAY), ("-color", _COLOR), ("-half-color", _HALF_COLOR))
    ),
    Layout("vr180", ("_180x180_LR",), _beside, "left | right", LEFT_RIGHT, spherical=True, repeats=(2, 1)),
    Layout("pair", ("_L", "_R"), _apart, "two files"),
    Layout("rgbd", ("_RGBD",), _beside, "picture | nearness", repeats=(2, 1)),
)
LAYOUTS: Mapping[str, Layout] = {row.name: row for row in _ROWS}


def show(
    rgb: np.ndarray,
    near: np.ndarray,
    choice: StereoChoice,
    coarseness: float = 1.0,
    camera: Optional[Camera] = None,
) -> tuple[np.ndarray, ...]:
    """Return (h, w, 3) uint8 pictures, one for each file of the layout.

    rgb: (H, W, 3) uint8. near: (H, W) float32 nearness. coarseness: see `right_view`. camera: of the picture, for half
    a sphere; None for an assumed one. Raises PictureError for a picture that is too wide.
    """
    layout = LAYOUTS[choice.layout]
    if choice.layout == "rgbd":
        gray = np.round(near * np.float32(255)).astype(np.uint8)
        eyes = Eyes(rgb, np.repeat(gray[..., None], 3, axis=2))
    else:
        eyes = both_eyes(rgb, near, choice, coarseness)
    if layout.spherical:
        seen = camera or assumed_camera((rgb.shape[1], rgb.shape[0]))
        eyes = Eyes(*(sphere(eye, seen) for eye in eyes))
    return layout.pictures(Eyes(*eyes[::-1]) if choice.swap else eyes)
