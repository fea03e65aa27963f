"""Each format of calibration file, as its own program writes it, becomes a camera in our convention."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from depthcli.camera import Camera, CameraSource, Distortion, LensModel
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.files import write_depth

SIZE = (640, 480)
K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
LENS = [0.1, -0.05, 0.001, -0.002, 0.01]


def numbers(stored) -> tuple[float, ...]:
    return (*stored.camera.focal, *stored.camera.center)


def only(path: Path | str):
    (stored,) = read_cameras(Path(path)).cameras
    assert stored.camera.source is CameraSource.GIVEN
    return stored


# --- COLMAP -----------------------------------------------------------------------------------------------------------

HEAD = "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
IDS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
IDS |= {"FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9}


def colmap_text(folder: str, rows: list[tuple[str, list[float]]], images: list[tuple[int, str]] = ()) -> Path:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    lines = [f"{n} {model} 640 480 {' '.join(map(str, p))}" for n, (model, p) in enumerate(rows, 1)]
    (place / "cameras.txt").write_text(HEAD + "\n".join(lines) + "\n")
    if images:
        pictures = [f"{n} 1 0 0 0 0.1 0.2 0.3 {camera} {name}\n" for n, (camera, name) in enumerate(images, 1)]
        points = ["10.5 20.5 7 30.5 40.5 -1\n", "\n"]
        text = "".join(line + points[n % 2] for n, line in enumerate(pictures))
        (place / "images.txt").write_text("# Image list with two lines of data per image:\n" + text)
    return place / "cameras.txt"


def colmap_binary(folder: str, rows: list[tuple[str, list[float]]], images: list[tuple[int, str]] = ()) -> Path:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    data = struct.pack("<Q", len(rows))
    for n, (model, p) in enumerate(rows, 1):
        data += struct.pack(f"<iiQQ{len(p)}d", n, IDS[model], *SIZE, *p)
    (place / "cameras.bin").write_bytes(data)
    if images:
        data = struct.pack("<Q", len(images))
        for n, (camera, name) in enumerate(images, 1):
            data += struct.pack("<i7di", n, 1, 0, 0, 0, 0.1, 0.2, 0.3, camera) + name.encode() + b"\0"
            data += struct.pack("<Q", n) + struct.pack("<ddq", 1.5, 2.5, 7) * n
        (place / "images.bin").write_bytes(data)
    return place / "cameras.bin"


@pytest.mark.parametrize("write", [colmap_text, colmap_binary])
@pytest.mark.parametrize(
    ("model", "parameters", "found", "lens"),
    [
        ("SIMPLE_PINHOLE", [500, 320, 240], (500, 500, 319.5, 239.5), None),
        ("PINHOLE", [500, 510, 320, 240], (500, 510, 319.5, 239.5), None),
        ("SIMPLE_RADIAL", [500, 320, 240, 0.1], (500, 500, 319.5, 239.5), ("radial", (0.1, 0, 0, 0, 0))),
        ("RADIAL", [500, 320, 240, 0.1, 0.2], (500, 500, 319.5, 239.5), ("radial", (0.1, 0.2, 0, 0, 0))),
        ("OPENCV", [500, 510, 320, 240, *LENS[:4]], (500, 510, 319.5, 239.5), ("radial", (*LENS[:4], 0))),
        ("FULL_OPENCV", [500, 510, 320, 240, *LENS, 0, 0, 0], (500, 510, 319.5, 239.5), ("radial", tuple(LENS))),
        ("OPENCV_FISHEYE", [500, 510, 320, 240, *LENS[:4]], (500, 510, 319.5, 239.5), ("fisheye", tuple(LENS[:4]))),
        ("RADIAL_FISHEYE", [500, 320, 240, 0.1, 0.2], (500, 500, 319.5, 239.5), ("fisheye", (0.1, 0.2, 0, 0))),
        ("SIMPLE_RADIAL_FISHEYE", [500, 320, 240, 0.1], (500, 500, 319.5, 239.5), ("fisheye", (0.1, 0, 0, 0))),
    ],
)
def test_a_camera_of_colmap_moves_by_half_a_pixel(write, model, parameters, found, lens):
    stored = only(write("model", [(model, parameters)]))
    assert numbers(stored) == found and stored.size == SIZE
    assert (
        stored.camera.distortion and (stored.camera.distortion.model, stored.camera.distortion.coefficients)
    ) == lens


@pytest.mark.parametrize("write", [colmap_text, colmap_binary])
@pytest.mark.parametrize("folder", ["scene/sparse/0", "scene/sparse", "scene"])
def test_a_colmap_folder_gives_each_picture_its_own_camera(write, folder):
    write(folder, [("PINHOLE", [1, 2, 3, 4]), ("PINHOLE", [5, 6, 7, 8])], [(1, "left/a b.jpg"), (2, "right/a b.jpg")])
    file = read_cameras(Path("scene"))
    assert (file.name, file.title) == ("scene", "COLMAP")
    assert numbers(file.of_picture("photos/right/a b.jpg")) == (5, 6, 6.5, 7.5)
    assert numbers(file.of_picture("photos/left/a b.png")) == (1, 2, 2.5, 3.5)
    assert file.of_picture("photos/a b.jpg") is None  # either
    assert file.of_picture("photos/other.jpg") is None


def test_a_picture_that_the_only_camera_does_not_name_has_it_too():
    file = read_cameras(colmap_text("m", [("PINHOLE", [1, 2, 3, 4])], [(1, "a.jpg"), (1, "b.jpg")]))
    assert numbers(file.of_picture("c.jpg")) == (1, 2, 2.5, 3.5)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("FOV", [500, 510, 320, 240, 0.9])], "FOV is not supported"),
        ([("FULL_OPENCV", [500, 510, 320, 240, *LENS, 0.5, 0, 0])], "beyond k1 k2 p1 p2 k3"),
        ([("PINHOLE", [-500, 510, 320, 240])], "focal lengths must be positive"),
    ],
)
def test_a_camera_of_colmap_beyond_our_models_is_refused(rows, reason):
    for write in (colmap_text, colmap_binary):
        with pytest.raises(UsageError, match=reason):
            read_cameras(write("model", rows))


@pytest.mark.parametrize("length", [4, 70, 77])
def test_a_list_of_pictures_that_is_cut_short_is_refused(length):
    path = colmap_binary("model", [("PINHOLE", [1, 2, 3, 4])], [(1, "long name.jpg")])
    images = path.with_name("images.bin")
    images.write_bytes(images.read_bytes()[:length])
    with pytest.raises(UsageError, match="cannot read a camera from model"):
        read_cameras(path)


# --- OpenCV -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["camera.yml", "camera.xml", "camera.json"])
@pytest.mark.parametrize("count", [0, 4, 5, 8])
def test_what_opencv_writes_is_read_as_it_is(name, count):
    storage = cv2.FileStorage(name, cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", K)
    if count:
        storage.write("distortion_coefficients", np.array([[*LENS, 0, 0, 0][:count]]))
    storage.release()
    stored = only(name)
    assert numbers(stored) == (500, 510, 320, 240) and stored.size == SIZE
    lens = stored.camera.distortion
    assert lens is None if not count else lens.coefficients == (*LENS[:4], LENS[4] if count > 4 else 0)


def test_a_fisheye_calibration_of_opencv_keeps_its_model():
    storage = cv2.FileStorage("fisheye.yml", cv2.FILE_STORAGE_WRITE)
    storage.write("fisheye_model", 1)
    storage.write("cameraMatrix", K)
    storage.write("distCoeffs", np.array(LENS[:4]))
    storage.release()
    assert only("fisheye.yml").camera.distortion == Distortion(LensModel.FISHEYE, tuple(LENS[:4]))
    assert only("fisheye.yml").size is None


# --- ROS --------------------------------------------------------------------------------------------------------------

ROS = """image_width: 640
image_height: 480
camera_name: head_camera
camera_matrix:
  rows: 3
  cols: 3
  data: [500.0, 0., 320.0,
         0, 510.0, 240.0, 0,
         0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.05, 0.001, -2.0e-3, 0.01]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [480, 0, 310, 0, 0, 490, 230, 0, 0, 0, 1, 0]
"""
MESSAGE = """header:
  stamp:
    sec: 1
  frame_id: camera
height: 480
width: 640
distortion_model: equidistant
d:
- 0.1
- -0.05
- 0.001
- -0.002
k:
- 500.0
- 0.0
- 320.0
- 0.0
- 510.0
- 240.0
- 0.0
- 0.0
- 1.0
binning_x: 0
roi:
  height: 0
  width: 0
"""


@pytest.mark.parametrize("text", [ROS, ROS.replace("\n", "\r\n"), "---\n" + ROS], ids=["unix", "dos", "marked"])
def test_a_camera_info_is_read_with_its_wrapped_lists(text):
    Path("camera.yaml").write_bytes(text.encode())
    stored = only("camera.yaml")
    assert numbers(stored) == (500, 510, 320, 240) and stored.size == SIZE
    assert stored.camera.distortion.coefficients == tuple(LENS)


def test_a_message_as_ros2_prints_it_is_read_too():
    Path("info.yaml").write_text(MESSAGE)
    stored = only("info.yaml")
    assert numbers(stored) == (500, 510, 320, 240) and stored.size == SIZE
    assert stored.camera.distortion == Distortion(LensModel.FISHEYE, tuple(LENS[:4]))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("plumb_bob", "kannala", "kannala is not supported"),
        ("320.0,", "", "not 9 numbers"),
        (", 0.01]", "", "cut short|9 numbers"),
    ],
)
def test_a_camera_info_that_is_broken_is_refused(old, new, reason):
    text = ROS.replace(old, new) if old != ", 0.01]" else ROS[: ROS.index(old)]
    Path("camera.yaml").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_cameras(Path("camera.yaml"))


# --- Nerfstudio -------------------------------------------------------------------------------------------------------

FRAMES = {"frames": [{"file_path": "./images/a.jpg"}, {"file_path": "images/b.jpg", "fl_x": 700, "cx": 300}]}
SHARED = {"camera_model": "OPENCV", "fl_x": 500, "fl_y": 510, "cx": 320, "cy": 240, "w": 640, "h": 480}


def transforms(**content) -> Path:
    Path("transforms.json").write_text(json.dumps(content))
    return Path("transforms.json")


def test_a_frame_of_nerfstudio_has_its_own_numbers_before_those_of_the_file():
    file = read_cameras(transforms(**SHARED, k1=0.1, k2=-0.05, p1=0.001, p2=-0.002, **FRAMES))
    a, b = file.of_picture("data/images/a.jpg"), file.of_picture("data/images_2/b.png")
    assert numbers(a) == (500, 510, 319.5, 239.5) and a.size == SIZE
    assert a.camera.distortion.coefficients == (*LENS[:4], 0)
    assert numbers(b) == (700, 510, 299.5, 239.5)
    assert file.of_picture("data/images/c.jpg") is None


def test_the_angle_of_view_of_instant_ngp_becomes_a_focal_length():
    angle = 2 * np.arctan(320 / 500)
    stored = only(transforms(camera_angle_x=angle, w=640, h=480, frames=[]))
    assert numbers(stored) == pytest.approx((500, 500, 319.5, 239.5))
    (synthetic,) = read_cameras(transforms(camera_angle_x=angle, frames=[{"file_path": "./train/r_0"}])).cameras
    assert synthetic.size is None and synthetic.for_size((320, 320)).focal == pytest.approx((250, 250))
    assert synthetic.for_size((320, 320)).center == (159.5, 159.5)


def test_a_fisheye_of_nerfstudio_keeps_its_model():
    stored = only(transforms(**{**SHARED, "camera_model": "OPENCV_FISHEYE"}, k1=0.1, k4=0.4, frames=[]))
    assert stored.camera.distortion == Distortion(LensModel.FISHEYE, (0.1, 0, 0, 0.4))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"frames": []}, "neither fl_x nor camera_angle_x"),
        ({"camera_angle_x": 4, "frames": []}, "angle of view"),
        ({"fl_x": 500, "frames": []}, "neither cx and cy nor w and h"),
        ({**SHARED, "camera_model": "EQUIRECTANGULAR", "frames": []}, "EQUIRECTANGULAR is not supported"),
        ({"fl_x": "wide", "cx": 1, "cy": 1, "frames": []}, "wide"),
        ({"frames": [1]}, "cannot read a camera"),
    ],
)
def test_transforms_without_a_camera_are_refused(content, reason):
    with pytest.raises(UsageError, match=reason):
        read_cameras(transforms(**content))


# --- KITTI ------------------------------------------------------------------------------------------------------------

P = "7.2e+02 0.0 6.1e+02 4.5e+01 0.0 7.2e+02 1.7e+02 -3.4e-01 0.0 0.0 1.0 4.9e-03"
RAW = (
    "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.95e-02\n"
    "S_02: 1.392e+03 5.12e+02\nK_02: 9.5e+02 0 6.9e+02 0 9.5e+02 2.5e+02 0 0 1\n"
    f"S_rect_02: 1.242e+03 3.75e+02\nP_rect_02: {P}\n"
    f"S_rect_03: 1.242e+03 3.75e+02\nP_rect_03: {P.replace('7.2', '7.3')}\n"
)


def test_the_raw_calibration_of_kitti_gives_the_rectified_camera_of_the_folder():
    Path("calib_cam_to_cam.txt").write_text(RAW)
    file = read_cameras(Path("calib_cam_to_cam.txt"))
    left, right = file.of_picture("drive/image_02/data/1.png"), file.of_picture("drive/image_03/data/1.png")
    assert numbers(left) == (720, 720, 610, 170) and left.size == (1242, 375)
    assert numbers(right) == (730, 730, 610, 170)
    assert file.of_picture("1.png") is left


def test_the_calibration_of_kittis_odometry_and_objects_has_no_size():
    Path("calib.txt").write_text("".join(f"P{n}: {P.replace('7.2', f'7.{n}')}\n" for n in range(4)) + "Tr: 1 2 3\n")
    stored = read_cameras(Path("calib.txt")).of_picture("training/image_2/000000.png")
    assert numbers(stored) == (720, 720, 610, 170) and stored.size is None


# --- Open3D, ours, NPZ, numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_the_nine_numbers_of_open3d_stand_in_columns(nested):
    content = {"width": 640, "height": 480, "intrinsic_matrix": K.T.ravel().tolist()}
    Path("intrinsic.json").write_text(json.dumps({"intrinsic": content, "extrinsic": [0] * 16} if nested else content))
    stored = only("intrinsic.json")
    assert numbers(stored) == (500, 510, 320, 240) and stored.size == SIZE


@pytest.mark.parametrize("name", ["own.npz", "own.png", "own.exr"])
def test_a_depth_file_of_ours_is_a_calibration_with_its_source(name):
    camera = Camera(K, CameraSource.EXIF, distortion=Distortion(LensModel.RADIAL, tuple(LENS)))
    write_depth(DepthMap(np.ones((480, 640)), DepthKind.METRIC_DEPTH, camera=camera), name)
    (stored,) = read_cameras(Path(name)).cameras
    assert np.array_equal(stored.camera.intrinsics, K) and stored.size == SIZE
    assert stored.camera.source is CameraSource.EXIF and stored.camera.distortion == camera.distortion
    write_depth(DepthMap(np.ones((4, 6)), DepthKind.METRIC_DEPTH), name)
    with pytest.raises(UsageError, match="says nothing about its camera"):
        read_cameras(Path(name))


def test_the_facts_of_ours_as_json_are_a_calibration():
    for content in (
        {"camera": {"fx": 5, "fy": 6, "cx": 2, "cy": 1, "size": [6, 4]}},
        {"fx": 5, "fy": 6, "cx": 2, "cy": 1},
    ):
        Path("own.json").write_text(json.dumps(content))
        assert numbers(only("own.json")) == (5, 6, 2, 1)


def test_the_middle_of_an_npz_of_depth_anything_3_is_moved_by_half_a_pixel():
    np.savez("da3.npz", depth=np.ones((1, 480, 640), np.float32), intrinsics=K[None].astype(np.float32))
    file = read_cameras(Path("da3.npz"))
    assert numbers(file.cameras[0]) == (500, 510, 319.5, 239.5) and file.cameras[0].size == SIZE
    assert "half a pixel" in file.notes[0]
    np.savez("other.npz", intrinsics=K)
    assert numbers(only("other.npz")) == (500, 510, 320, 240)


@pytest.mark.parametrize("columns", [3, 4])
def test_a_file_of_numbers_is_a_matrix(columns):
    matrix = np.eye(columns)
    matrix[:3, :3] = K
    np.savetxt("K.txt", matrix)
    assert numbers(only("K.txt")) == (500, 510, 320, 240)


def test_a_matrix_in_json_is_read_under_its_usual_names():
    Path("K.json").write_text(json.dumps({"K": K.tolist(), "dist": [LENS], "width": 640, "height": 480}))
    stored = only("K.json")
    assert numbers(stored) == (500, 510, 320, 240) and stored.size == SIZE
    assert stored.camera.distortion.coefficients == tuple(LENS)


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "none of the formats"),
        (b"hello world\n", "none of the formats"),
        (b"{}", "JSON without a camera"),
        (b"[1, 2]", "none of the formats"),
        (b'{"frames": [', "cannot read"),
        (b"%YAML:1.0\n---\nimage_width: 3\n", "no camera_matrix"),
        (b"%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n   rows: 3\n", "no camera_matrix"),
        (b"\x89PNG\r\n\x1a\n", "a picture, not a calibration"),
        (b"PK\3\4", "cannot read"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "not a calibration"),
        (b"P2: 1 2 3\n", "3 numbers, not 12"),
        (b"500 9 320 0 500 240 0 0 1", "skewed"),
        (b"500 0 320 0 500 240 0 0 2", "is not .fx 0 cx"),
        (b"-500 0 320 0 500 240 0 0 1", "is not .fx 0 cx"),
        (b'{"intrinsic_matrix": [1, 2]}', "2 numbers, not 9"),
        (b'{"fx": NaN, "fy": 1, "cx": 1, "cy": 1}', "finite"),
    ],
)
def test_a_file_without_a_camera_is_refused_in_one_line(content, reason):
    Path("K.bin").write_bytes(content)
    with pytest.raises(UsageError, match=reason) as refused:
        read_cameras(Path("K.bin"))
    assert "K.bin" in refused.value.message and "`intrinsics`" in refused.value.hint
    assert "\n" not in str(refused.value)


def test_a_missing_file_a_plain_folder_and_a_pipe_are_refused():
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for name, reason in (("missing", "does not exist"), ("folder", "without cameras.txt"), ("pipe", "is not a file")):
        with pytest.raises(UsageError, match=reason):
            read_cameras(Path(name))
