"""Pictures of what a network's blocks see in the views of a scene, by principal components.

feat_vis/feat_layer_11/000000.jpg ...     as Depth Anything 3 names them, in the order of the views
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from depthcli.host.atomic import atomic_path
from depthcli.io.scenes import vis
from depthcli.pixels.features import feature_colors

FOLDER = Path("feat_vis")


def feature_files(layers: Sequence[int], views: int) -> list[Path]:
    """Return the paths, below the folder of a scene, that `write_features` writes for blocks and so many views."""
    return [FOLDER / f"feat_layer_{layer}" / f"{number:06d}.jpg" for layer in layers for number in range(views)]


def write_features(features: Mapping[int, np.ndarray], size: tuple[int, int], folder: Path | str) -> list[Path]:
    """Write a picture per view and block; return the files, each of which appears whole or not at all.

    features: (V, rows, cols, D) by the number of the block, in the order of the views. size: (width, height) of the
    pictures, as a rule that of the network's input; a patch is a square of one colour. Colours of a block agree between
    the views, and mean nothing between blocks.

    Raises ValueError for features that are none, OutputError if a file cannot be written.
    """
    written = []
    for layer, tokens in features.items():
        colors = feature_colors(tokens)
        for path, picture in zip(feature_files([layer], len(colors)), colors):
            with atomic_path(Path(folder) / path) as partial:
                partial.write_bytes(vis.jpeg(enlarged(picture, size)))
            written.append(Path(folder) / path)
    return written


def enlarged(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of patches at (width, height): each is a square of one colour."""
    import cv2

    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)
