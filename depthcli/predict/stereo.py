"""Two eyes of a picture, for whoever uses Python."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np

from depthcli.choices.model import ModelChoice
from depthcli.choices.stereo import StereoChoice
from depthcli.depthmap import DepthMap
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.stereo import coarseness, fitted
from depthcli.predict.picture import AnyPicture, estimate, open_picture
from depthcli.views.layouts import show
from depthcli.views.nearness import nearness


def stereo(
    picture: AnyPicture,
    depth: Union[DepthMap, Path, str, None] = None,
    choice: Union[StereoChoice, str] = "sbs",
    model: Union[str, ModelChoice] = "auto",
) -> tuple[np.ndarray, ...]:
    """Return what two eyes see of a picture, as (h, w, 3) uint8 RGB: one array for each file of the layout.

    picture: as for `estimate`. depth: of the picture, a file of depthcli, or None to estimate it with `model`. choice:
    the layout's name, or all of it as a StereoChoice. Values of any kind will do, as only differences of disparity
    count: neither metres nor a focal length are needed.
    Raises UsageError if the depth has sides of another ratio than the picture, and as `estimate` and `read_depth`.
    """
    choice = StereoChoice(choice) if isinstance(choice, str) else choice
    opened = open_picture(picture)
    if depth is None:
        depth = estimate(opened, model, detail="edges")
    elif not isinstance(depth, DepthMap):
        depth = read_depth(depth)
    near = nearness(fitted(depth, opened.size))
    return show(opened.rgb, near, choice, coarseness(depth, opened.size[0]), depth.camera or opened.camera)
