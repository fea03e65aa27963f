"""Compare views made of one picture with what a second camera saw: python benchmarks/stereo.py FOLDER.

FOLDER holds pictures of Middlebury, found by their names below it: `motorcycle_left.png`, `motorcycle_right.png` and
`motorcycle_disp.npz` (pixels, infinite if unknown); `aloeL.jpg`, `aloeR.jpg` and `aloeGT.png` (pixels, 0 if unknown).
Each row is a way to make the right picture from the left one and its measured disparity; the figures are the PSNR to
the real right picture in dB, without the strip at the right that the left camera does not see. `soft` blurs the
disparity as a network does (sigma 2), `coarse` shrinks it to a third first. Below stands the time of both eyes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

from depthcli.choices.stereo import FILLS, StereoChoice
from depthcli.io.pictures.images import read_picture
from depthcli.views.eyes import both_eyes
from depthcli.views.nearness import fill_from_far
from depthcli.views.warp import right_view, source_columns

SCENES = {
    "Motorcycle": ("motorcycle_left.png", "motorcycle_right.png", "motorcycle_disp.npz"),
    "Aloe": ("aloeL.jpg", "aloeR.jpg", "aloeGT.png"),
}
SIZES = ((1280, 720), (1920, 1080), (3840, 2160))
Way = Callable[[np.ndarray, np.ndarray], np.ndarray]


def load(folder: Path, names: tuple[str, str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return the left and the right picture, the disparity of the left one without gaps, and its largest value."""
    left, right, truth = (next(folder.rglob(name)) for name in names)
    if truth.suffix == ".npz":
        disparity = np.load(truth)["arr_0"].astype(np.float32)
        known = np.isfinite(disparity)
    else:
        disparity = cv2.imread(str(truth), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        known = disparity > 0
    filled = fill_from_far(disparity, known)
    return read_picture(left).rgb, read_picture(right).rgb, filled, float(disparity[known].max())


def psnr(found: np.ndarray, wanted: np.ndarray, strip: float) -> float:
    """Return the PSNR in dB without the last `strip` columns."""
    width = found.shape[1] - int(np.ceil(strip))
    error = found[:, :width].astype(np.float64) - wanted[:, :width]
    return float(10 * np.log10(255**2 / (error**2).mean()))


def soft(disparity: np.ndarray) -> np.ndarray:
    """Return disparity that is blurred across edges."""
    return cv2.GaussianBlur(disparity, (0, 0), 2)


def coarse(disparity: np.ndarray) -> np.ndarray:
    """Return disparity of a third of the size, enlarged again."""
    height, width = disparity.shape
    small = cv2.resize(cv2.GaussianBlur(disparity, (0, 0), 3), (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def taken(rgb: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the pixels at these columns."""
    rows = np.repeat(np.arange(len(rgb), dtype=np.float32)[:, None], rgb.shape[1], axis=1)
    return cv2.remap(rgb, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def backward(rgb: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return the view of most programs: each target pixel moves by the disparity that the source has there."""
    return taken(rgb, np.arange(rgb.shape[1], dtype=np.float32) + shift)


def ways() -> dict[str, Way]:
    """Return {row: what makes the right picture}."""
    found: dict[str, Way] = {
        "the left picture": lambda rgb, disparity: rgb,
        "backward, measured": backward,
        "backward, soft": lambda rgb, disparity: backward(rgb, soft(disparity)),
        "exact rows, measured": lambda rgb, disparity: taken(rgb, source_columns(disparity)[0]),
        "exact rows, soft": lambda rgb, disparity: taken(rgb, source_columns(soft(disparity))[0]),
    }
    for fill in FILLS:
        found[f"depthcli, soft, {fill}"] = lambda rgb, disparity, fill=fill: right_view(rgb, soft(disparity), fill)
    found["depthcli, coarse, stretch"] = lambda rgb, disparity: right_view(rgb, coarse(disparity), coarseness=3)
    return found


def main(folder: Path) -> None:
    """Print both tables."""
    scenes = {name: load(folder, names) for name, names in SCENES.items()}
    print("| | " + " | ".join(scenes) + " |\n|---|" + "---|" * len(scenes))
    for name, way in ways().items():
        figures = [psnr(way(left, disparity), right, most) for left, right, disparity, most in scenes.values()]
        print(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    left, _, disparity, most = scenes["Aloe"]
    print("\n| both eyes | seconds |\n|---|---|")
    for size in SIZES:
        rgb, near = cv2.resize(left, size), cv2.resize(disparity, size) / np.float32(most)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            both_eyes(rgb, near, StereoChoice())
            seconds.append(time.perf_counter() - started)
        print(f"| {size[0]}x{size[1]} | {min(seconds):.2f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
