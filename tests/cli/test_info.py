"""`depth info`: what a file is, ours or a stranger's, and one line for what is nothing known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from depthcli import DepthKind, DepthMap, Provenance, write_depth
from depthcli.camera import Camera, CameraSource, Distortion, LensModel
from tests.conftest import TINY, environment, photo
from tests.io.video.clips import make_clip

CAMERA = Camera(np.array([[40.0, 0, 19], [0, 50, 14], [0, 0, 1]]), CameraSource.EXIF)
CAMERA_FACTS = {"source": "exif", "fx": 40, "fy": 50, "cx": 19, "cy": 14, "size": [40, 30], "distortion": None}


def metric(camera: Camera | None = CAMERA) -> DepthMap:
    values = np.linspace(1, 4, 1200, dtype=np.float32).reshape(30, 40)
    provenance = Provenance("metric-indoor-vits", backend="torch 2 cpu fp32", source="a.jpg")
    return DepthMap(values, DepthKind.METRIC_DEPTH, provenance, 20.0, valid=values > 1.75, camera=camera)


def about(depth, *names: str) -> list[dict]:
    ran = depth("info", "--json", *names)
    assert (ran.code, ran.err) == (0, "")
    return [json.loads(line) for line in ran.lines]


@pytest.mark.parametrize("name", ["a.npz", "a.exr", "a.png"])
def test_a_file_of_ours_tells_all_that_it_carries(depth, name):
    write_depth(metric(), name)
    (found,) = about(depth, name)
    assert found["what"].startswith("depth map by depthcli") and found["file"] == name
    assert (found["kind"], found["unit"], found["size"]) == ("metric_depth", "m", [40, 30])
    assert found["range"] == pytest.approx([1.75, 4], abs=0.01) and found["invalid"] == pytest.approx(0.25, abs=0.01)
    assert found["camera"] == CAMERA_FACTS
    assert (found["model"], found["source"]) == ("metric-indoor-vits", "a.jpg")
    assert found["backend"] == "torch 2 cpu fp32"


@pytest.mark.parametrize(
    ("name", "what", "axes"),
    [
        ("a.ply", "points by depthcli, PLY", "opengl"),
        ("a.pcd", "points by depthcli, PCD", "opencv"),
        ("a.glb", "mesh by depthcli, GLB", "opengl"),
        ("a.obj", "mesh by depthcli, OBJ", "opengl"),
    ],
)
def test_a_shape_tells_its_unit_its_axes_and_the_depth_that_it_is_of(depth, name, what, axes):
    write_depth(metric(), name)
    (found,) = about(depth, name)
    assert (found["what"], found["unit"], found["kind"]) == (what, "m", "metric_depth")
    assert found["camera"] == CAMERA_FACTS and found["range"] == pytest.approx([1.75, 4], abs=0.01)
    assert found["notes"][-1] == f"axes {axes}" and found["notes"][-2][0].isdigit()
    Path(f"cut{Path(name).suffix}").write_bytes(Path(name).read_bytes()[:-200])
    assert depth("info", f"cut{Path(name).suffix}").code == 3


def test_a_strangers_points_tell_their_number(depth):
    Path("a.ply").write_text(
        "ply\nformat ascii 1.0\ncomment from afar\nelement vertex 2\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 1\n1 2 3\n"
    )
    (found,) = about(depth, "a.ply")
    assert found["what"] == "points, PLY, not by depthcli" and found["unit"] is None
    assert found["notes"] == ["2 points", "axes not stated", "from afar"]


def test_normals_are_no_depth_map(depth):
    write_depth(metric(), "a_normal.png", format="normal")
    assert about(depth, "a_normal.png")[0]["what"] == "normals by depthcli, PNG"


def test_people_read_one_fact_a_line(depth):
    lens = Distortion(LensModel.RADIAL, (0.1, 0, 0, 0, 0))
    write_depth(metric(Camera(CAMERA.intrinsics, CameraSource.GIVEN, distortion=lens)), "a.png")
    lines = depth("info", "a.png").lines
    assert lines[0] == "a.png: depth map by depthcli, PNG"
    assert "  kind     metric_depth: depth in metres, larger is farther" in lines and "  unit     m" in lines
    camera = (
        "  camera   fx 40, fy 50, cx 19, cy 14 pixels (given), 53.1 x 33.4 degrees, radial lens k1 0.1, k2 0, p1 0,"
    )
    assert any(line.startswith(camera) for line in lines)
    assert "           held as millimetres" in lines


def test_a_file_of_an_earlier_version_without_a_camera_is_told_without_one(depth):
    write_depth(metric(None), "a.npz")
    (found,) = about(depth, "a.npz")
    assert found["camera"] is None and found["kind"] == "metric_depth"


def test_a_picture_tells_its_camera(depth):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 26
    photo("a.jpg", (400, 300), exif.tobytes())
    photo("b.jpg")
    a, b = about(depth, "a.jpg", "b.jpg")
    assert (a["what"], a["size"], a["kind"], a["range"]) == ("picture", [300, 400], None, None)
    assert a["camera"]["fx"] == pytest.approx(300.46, abs=0.01) and a["camera"]["source"] == "exif"
    assert "orientation 6" in a["notes"][0]
    assert (b["camera"], b["notes"]) == (None, [])


def test_films_and_folders_of_frames_tell_their_depth_with_and_without_their_sidecar(depth):
    make_clip(Path("clip.mp4"), frames=3)
    assert depth("video", "clip.mp4", "-f", "ffv1,npz", "--steady", "off", *TINY).code == 0
    film, folder, frame, sidecar = about(
        depth, "clip_depth.mkv", "clip_depth_npz", "clip_depth_npz/frame_000001.npz", "clip_depth.mkv.json"
    )
    for found in (film, folder, frame, sidecar):
        assert (found["kind"], found["model"], found["source"]) == ("relative_disparity", "tiny", "clip.mp4")
        assert found["camera"] is None and found["range"] == film["range"]
    assert "3 frames" in film["notes"] and "3 frames" in folder["notes"] and "frame 1 at" in frame["notes"][0]
    Path("clip_depth.mkv.json").unlink()
    (alone,) = about(depth, "clip_depth.mkv")
    assert alone["what"] == "depth film by depthcli" and alone["range"] == film["range"]


CODES = np.array([[0, 1000, 2000], [3000, 4000, 65535]], np.uint16)


def strangers() -> dict[str, np.ndarray]:
    numbers = CODES.astype(np.float32) / 1000
    numbers[1, 0] = np.nan
    cv2.imwrite("codes.png", CODES)
    cv2.imwrite("numbers.pfm", numbers)
    cv2.imwrite("numbers.tiff", numbers)
    cv2.imwrite("codes.tiff", CODES)
    np.save("numbers.npy", numbers)
    np.savez("numbers.npz", other=numbers)
    return {"codes": CODES, "numbers": numbers}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("codes.png", "16-bit gray PNG"),
        ("codes.tiff", "gray TIFF of uint16"),
        ("numbers.tiff", "gray TIFF of float32"),
        ("numbers.pfm", "PFM"),
        ("numbers.npy", "NPY of float32"),
        ("numbers.npz", "NPZ of float32"),
    ],
)
def test_of_a_strangers_depth_is_told_what_can_be_told(depth, name, what):
    values = strangers()[Path(name).stem]
    (found,) = about(depth, name)
    known = values[np.isfinite(values) & (values != 0)]
    assert found["what"] == f"{what}, not by depthcli" and found["size"] == [3, 2]
    assert (found["kind"], found["unit"]) == (None, None)
    assert found["range"] == [float(known.min()), float(known.max())]
    assert found["invalid"] == pytest.approx(1 - known.size / 6)
    lines = depth("info", name).lines
    assert "  unit     not stated" in lines
    reads = "           read as millimetres 1 to 65.5 m, as KITTI 3.91 to 256 m, as TUM 0.2 to 13.1 m"
    assert (reads in lines) is (values.dtype == np.uint16)


def test_the_arrays_of_a_strangers_npz_are_listed_with_its_camera(depth):
    K = np.array([[40.0, 0, 20], [0, 40, 15], [0, 0, 1]])  # noqa: N806
    np.savez("da3.npz", depth=np.ones((1, 30, 40), np.float32), intrinsics=K[None])
    (found,) = about(depth, "da3.npz")
    assert found["notes"] == ["depth 1x30x40", "intrinsics 1x3x3"] and found["camera"]["cx"] == 19.5


def test_a_strangers_openexr_tells_its_channels(depth):
    write_depth(metric(), "a.exr")
    Path("b.exr").write_bytes(Path("a.exr").read_bytes().replace(b"depthcli\0", b"stranger\0", 1))
    (found,) = about(depth, "b.exr")
    assert found["what"] == "OpenEXR, not by depthcli" and found["size"] == [40, 30]
    assert found["notes"] == ["channels B, G, R, Z"]


def test_a_calibration_tells_its_camera(depth):
    Path("sparse/0").mkdir(parents=True)
    Path("sparse/0/cameras.txt").write_text("1 PINHOLE 640 480 500 510 320 240\n2 PINHOLE 640 480 5 5 320 240\n")
    Path("K.json").write_text(json.dumps({"intrinsic_matrix": [5, 0, 0, 0, 5, 0, 3, 2, 1], "width": 6, "height": 4}))
    colmap, open3d = about(depth, "sparse/0", "K.json")
    assert colmap["what"] == "calibration, COLMAP" and colmap["notes"] == ["2 cameras, this is the first"]
    assert (colmap["camera"]["cx"], colmap["size"]) == (319.5, [640, 480])
    assert (open3d["what"], open3d["camera"]["fx"]) == ("calibration, Open3D", 5)


def test_what_is_nothing_known_is_one_line_each_and_the_rest_is_told(depth):
    photo("a.png")
    make_clip(Path("clip.mp4"), frames=2)
    Path("text.txt").write_text("hello\n")
    Path("empty").write_bytes(b"")
    Path("zip.npz").write_bytes(b"PK\5\6" + bytes(18))
    Path("half.npz").write_bytes(b"PK\3\4" + bytes(30))
    Path("broken.json").write_text('{"schema": "depthcli/1"')
    Path("folder").mkdir()
    os.mkfifo("pipe")
    unknown = ("text.txt", "empty", "zip.npz", "half.npz", "broken.json", "folder", "pipe", "missing", "clip.mp4")
    ran = depth("info", "text.txt", "a.png", *unknown[1:])
    assert ran.code == 3 and ran.lines[0] == "a.png: picture"
    lines = ran.err.splitlines()
    assert len(lines) == len(unknown)
    for name, line in zip(unknown, lines):
        assert line.startswith("error: ") and name in line


def test_info_loads_no_torch_and_no_openvino():
    write_depth(metric(), "a.npz")
    code = "import sys\nfrom depthcli.cli import app\ntry:\n    app.run()\nexcept SystemExit:\n    print(*sys.modules)"
    command = [sys.executable, "-c", code, "info", "a.npz"]
    ran = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "metric_depth" in ran.stdout
    assert not {"torch", "openvino", "av"} & set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "facts",
    [
        {"camera": "none"},
        {"camera": {"fx": 1}},
        {"kind": "wishful"},
        {"size": "large"},
        {"size": [0, 0], "invalid_pixels": 3},
        {"encoding": {"code": "nearness"}},
        {"min": "small"},
    ],
)
def test_a_file_that_lies_about_itself_is_one_line(depth, facts):
    write_depth(metric(), "a.npz")
    with np.load("a.npz") as arrays:
        told = {**json.loads(str(arrays["meta"])), **facts}
    np.savez("a.npz", depth=np.ones((30, 40), np.float32), meta=json.dumps(told))
    ran = depth("info", "a.npz")
    assert ran.code == 3 and "a.npz cannot be read" in ran.error


def test_what_a_file_says_cannot_steer_the_terminal(depth):
    provenance = Provenance("tiny", source="a\x1b[2J\nb.jpg")
    write_depth(DepthMap(np.ones((2, 3)), DepthKind.RELATIVE_DEPTH, provenance), "a.npz")
    assert "  source   a\\x1b[2J\\nb.jpg" in depth("info", "a.npz").lines


def test_a_calibration_and_what_it_made_tell_their_scale_and_shift(depth):
    photo("a.png")
    assert depth("calibrate", "a.png", "-o", "c.json", "--scale-from", "z:1,1=3", *TINY).code == 0
    assert depth("image", "a.png", "-o", "a.npz", "--calibration-from", "c.json", *TINY).code == 0
    for name, what in (("c.json", "scale and shift by depthcli"), ("a.npz", "depth map by depthcli, NPZ")):
        told = depth("info", name).out
        assert told.startswith(f"{name}: {what}") and "metres: 1/z = " in told and "tiny" in told
