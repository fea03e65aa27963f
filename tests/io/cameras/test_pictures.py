"""Which camera a picture gets, at its own size and orientation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from depthcli.camera import CameraSource
from depthcli.choices.camera import CameraChoice
from depthcli.errors import UsageError
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.pictures.images import Picture


def picture(size: tuple[int, int], orientation: int = 1) -> Picture:
    return Picture(np.zeros((size[1], size[0], 3), np.uint8), "photos/a.jpg", orientation=orientation)


def numbers(choice: CameraChoice, size: tuple[int, int], orientation: int = 1) -> tuple[float, ...]:
    camera = GivenCameras(choice).given_to(picture(size, orientation)).camera
    assert camera and camera.source is CameraSource.GIVEN
    return (*camera.focal, *camera.center)


def stored(size: list[int] | None) -> CameraChoice:
    Path("K.json").write_text(json.dumps({"fx": 500, "fy": 510, "cx": 300, "cy": 200, "size": size}))
    return CameraChoice(intrinsics="K.json")


def test_plain_choices_are_pinholes_in_the_middle():
    middle = (319.5, 239.5)
    assert numbers(CameraChoice(focal=700), (640, 480)) == (700, 700, *middle)
    assert numbers(CameraChoice(fov="90"), (640, 480)) == pytest.approx((320, 320, *middle))
    assert numbers(CameraChoice(fov="v:90"), (640, 480)) == pytest.approx((240, 240, *middle))
    assert numbers(CameraChoice(fov="d:90"), (640, 480)) == pytest.approx((400, 400, *middle))
    assert numbers(CameraChoice(f35=26), (4032, 3024))[0] == pytest.approx(3028.7, abs=0.5)
    assert numbers(CameraChoice(intrinsics="500,510,300,200"), (640, 480)) == (500, 510, 300, 200)


def test_a_picture_made_smaller_has_its_camera_made_smaller():
    assert numbers(stored([640, 480]), (640, 480)) == (500, 510, 300, 200)
    assert numbers(stored([640, 480]), (160, 120)) == (125, 127.5, 300.5 / 4 - 0.5, 200.5 / 4 - 0.5)
    assert numbers(stored(None), (640, 480)) == (500, 510, 300, 200)


def test_a_file_of_the_stored_picture_turns_with_it_and_one_of_the_upright_picture_does_not():
    # Orientation 6: the top row of the upright picture is the left column of the stored one.
    as_stored, upright = stored([640, 480]), picture((480, 640), 6)
    assert numbers(as_stored, (480, 640), 6) == (510, 500, 479 - 200, 300)
    assert numbers(as_stored, (240, 320), 6) == (255, 250, 239 - (200.5 / 2 - 0.5), 300.5 / 2 - 0.5)
    assert numbers(stored([480, 640]), (480, 640), 6) == (500, 510, 300, 200)
    for square in ([640, 640], None):
        assert numbers(stored(square), (640, 640), 6) == (500, 510, 300, 200)
    notes = GivenCameras(stored([640, 480])).given_to(upright).notes
    assert "as stored, turned with the picture" in notes[0]
    assert "of the upright picture" in GivenCameras(stored([480, 640])).given_to(upright).notes[0]


@pytest.mark.parametrize("size", [[640, 640], [480, 640], [1242, 375]])
def test_a_file_for_another_ratio_of_sides_is_refused_in_one_line(size):
    choice = stored(size)
    with pytest.raises(UsageError, match=r"K\.json is for .* pixels, and photos/a\.jpg has 640x480") as refused:
        GivenCameras(choice).given_to(picture((640, 480)))
    assert set(refused.value.settings) == {"intrinsics", "focal", "fov", "f35"}


def test_a_principal_point_outside_of_the_picture_tells_a_camera_of_another_size():
    for choice in (stored(None), CameraChoice(intrinsics="500,510,300,200")):
        with pytest.raises(UsageError, match="principal point at 300,200, outside of the 160x120 pixels"):
            GivenCameras(choice).given_to(picture((160, 120)))


def test_the_settings_tell_what_a_file_holds_and_not_where_it_is():
    before = GivenCameras(stored([640, 480])).settings
    Path("with space.json").write_bytes(Path("K.json").read_bytes())
    copy = GivenCameras(CameraChoice(intrinsics=Path("with space.json"))).settings["intrinsics"]
    assert copy.split(":")[1] == before["intrinsics"].split(":")[1] and copy.startswith("with_space.json:")
    assert GivenCameras(stored([64, 48])).settings != before
    assert GivenCameras(CameraChoice(fov="60.0")).settings == GivenCameras(CameraChoice(fov="h:60")).settings
    assert GivenCameras(CameraChoice(intrinsics="1,2,3, 4")).settings["intrinsics"] == "1,2,3,4"


@pytest.mark.parametrize(
    "given",
    [
        {"focal": 0},
        {"focal": -1},
        {"focal": math.nan},
        {"focal": math.inf},
        {"f35": 0},
        {"fov": "0"},
        {"fov": "180"},
        {"fov": "x:60"},
        {"fov": "-60"},
        {"fov": "wide"},
        {"intrinsics": "500,500,320"},
        {"intrinsics": "0,500,320,240"},
        {"focal": 500, "fov": "60"},
        {"intrinsics": "K.json", "f35": 26},
    ],
)
def test_a_choice_that_makes_no_sense_is_a_usage_error(given):
    with pytest.raises(UsageError) as refused:
        CameraChoice(**given)
    assert set(given) <= set(refused.value.settings)
