"""The sizes of DepthCrafter's input, as its official code has them."""

from __future__ import annotations

import pytest

from depthcli.pixels.preprocess import plan_input
from depthcli.zoo.rows import find_row

BOUNDS = (1024, 768, 640, 512)
# (height, width) of frames -> (height, width) of the input for each bound
OFFICIAL = {
    (1080, 1920): ((576, 1024), (448, 768), (384, 640), (256, 512)),
    (720, 1280): ((576, 1024), (448, 768), (384, 640), (256, 512)),
    (480, 640): ((512, 640), (512, 640), (512, 640), (384, 512)),
    (540, 960): ((512, 960), (448, 768), (384, 640), (256, 512)),
    (804, 1920): ((448, 1024), (320, 768), (256, 640), (192, 512)),
    (2160, 3840): ((576, 1024), (448, 768), (384, 640), (256, 512)),
    (1920, 1080): ((1024, 576), (768, 448), (640, 384), (512, 256)),
    (576, 1024): ((576, 1024), (448, 768), (384, 640), (256, 512)),
    (360, 640): ((384, 640), (384, 640), (384, 640), (256, 512)),
    (480, 854): ((512, 832), (448, 768), (384, 640), (256, 512)),
    (240, 320): ((256, 320),) * 4,
    (100, 150): ((128, 128),) * 4,
    (31, 40): ((64, 64),) * 4,  # officially a height of 0, which fails
    (1080, 1440): ((768, 1024), (576, 768), (512, 640), (384, 512)),
    (32, 96): ((64, 128),) * 4,  # the same
    (96, 160): ((128, 128),) * 4,
}


@pytest.mark.parametrize("size", OFFICIAL, ids=str)
def test_sizes_are_the_official_ones(size):
    policy = find_row("depthcrafter").input
    plans = [plan_input(size[1], size[0], policy.with_size(bound)) for bound in BOUNDS]
    assert tuple(plan.input_size[::-1] for plan in plans) == OFFICIAL[size]
    assert not plans[0].notes and plans[0].map_size == plans[0].input_size
