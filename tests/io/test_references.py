"""Measured depth from files: each lands on its pixels, in metres along the axis."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

import depthcli
from depthcli.camera import assumed_camera
from depthcli.choices.metres import MetresChoice, parse_reference
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.geometry.rays import along_rays, rays_at
from depthcli.geometry.solids import PointCloud
from depthcli.io.references import ReferenceFile
from tests.geometry.scenes import camera

SIZE = (64, 48)
SEEN_BY = camera(60.0, SIZE)


def read(text: str, picture: str = "a.jpg", size: tuple[int, int] = SIZE, **choice: object):
    """Return {(u, v): z} of the points of a reference, rounded."""
    chosen = MetresChoice((text,), **choice)
    points = ReferenceFile(parse_reference(text), chosen).points(picture, size, SEEN_BY)
    return {(round(float(u), 3), round(float(v), 3)): round(float(z), 4) for (u, v), z in zip(points.pixels, points.z)}


def sparse(size: tuple[int, int] = SIZE) -> np.ndarray:
    z = np.zeros(size[::-1])
    z[5, 3], z[20, 60] = 2.5, 7.25
    return z


FOUND = {(3, 5): 2.5, (60, 20): 7.25}


@pytest.mark.parametrize(("prefix", "scale"), [("", 1000), ("mm:", 1000), ("kitti:", 256), ("tum:", 5000)])
def test_png_of_16_bits_holds_codes(prefix, scale):
    cv2.imwrite("d.png", np.round(sparse() * scale).astype(np.uint16))
    assert read(f"{prefix}d.png") == FOUND


def test_arrays_lists_and_our_own_files_hold_metres():
    z = sparse()
    np.save("d.npy", np.where(z > 0, z, np.nan))
    np.savez("d.npz", depth=np.where(z > 0, z, np.inf))
    Path("d.csv").write_text("u,v,z\n3,5,2.5\n60,20,7.25\n1,1,0\n2,2,nan\n")
    Path("d.txt").write_text("# u v z\n3 5 2.5\n60 20 7.25\n")
    depthcli.write_depth(DepthMap(z, DepthKind.METRIC_DEPTH, valid=z > 0), "own.png")
    for name in ("d.npy", "d.npz", "d.csv", "d.txt", "own.png"):
        assert read(name) == FOUND, name


def test_a_map_of_another_size_is_put_on_the_picture_by_the_middles_of_pixels():
    np.save("d.npy", sparse())
    assert read("d.npy", size=(128, 96)) == {(6.5, 10.5): 2.5, (120.5, 40.5): 7.25}
    with pytest.raises(UsageError, match=r"d\.npy is for 64x48 pixels, and the picture has 100x100"):
        read("d.npy", size=(100, 100))


def test_a_folder_holds_a_map_for_each_picture():
    Path("maps").mkdir()
    np.save("maps/a.npy", sparse())
    assert read("maps", "pictures/a.jpg") == FOUND
    with pytest.raises(UsageError, match=r"maps has no depth of b\.jpg"):
        read("maps", "b.jpg")


def test_a_dense_map_is_thinned_the_same_way_every_time():
    np.save("d.npy", np.linspace(1, 9, 200 * 150).reshape(150, 200))
    found = read("d.npy", size=(200, 150))
    assert len(found) == 5000 and found == read("d.npy", size=(200, 150))


# --- COLMAP -----------------------------------------------------------------------------------------------------------

WORLD = np.array([[0.1, -0.2, 3.0], [1.0, 0.5, 6.0], [-0.5, 0.3, 4.0]])
TURN, MOVE = (0.9689124, 0.0, 0.2474040, 0.0), (0.1, 0.0, 0.5)  # 28.6 degrees about y


def expected(unit: float = 1.0) -> dict[tuple[float, float], float]:
    w, _, y, _ = TURN
    z = WORLD @ [-2 * y * w, 0, 1 - 2 * y * y] + MOVE[2]  # the third row of the turn
    return {(9.5, 11.5): round(z[0] * unit, 3), (29.5, 31.5): round(z[1] * unit, 3)}


def colmap(binary: bool) -> None:
    """A model of two pictures; b.jpg sees points 11 and 12, and one place without a point."""
    folder = Path("model/sparse/0")
    folder.mkdir(parents=True)
    if not binary:
        (folder / "cameras.txt").write_text("1 PINHOLE 64 48 60 60 32 24\n")
        pose = " ".join(map(str, (*TURN, *MOVE)))
        lines = ["1 1 0 0 0 0 0 0 1 x/a.jpg", "5 5 13", f"2 {pose} 1 x/b.jpg", "10 12 11 1 1 -1 30 32 12"]
        (folder / "images.txt").write_text("# pictures\n" + "\n".join(lines) + "\n")
        points = [f"{n} {x} {y} {z} 1 2 3 0.5 1 0" for n, (x, y, z) in zip((11, 12, 13), WORLD)]
        (folder / "points3D.txt").write_text("# points\n" + "\n".join(points) + "\n")
        return
    (folder / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 1, 1, 64, 48, 60, 60, 32, 24))
    seen = struct.pack("<2dq", 10, 12, 11) + struct.pack("<2dq", 1, 1, -1) + struct.pack("<2dq", 30, 32, 12)
    images = struct.pack("<Q", 2)
    images += struct.pack("<i7di", 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"x/a.jpg\0" + struct.pack("<Q2dq", 1, 5, 5, 13)
    images += struct.pack("<i7di", 2, *TURN, *MOVE, 1) + b"x/b.jpg\0" + struct.pack("<Q", 3) + seen
    (folder / "images.bin").write_bytes(images)
    points = struct.pack("<Q", 3)
    for n, place in zip((13, 11, 12), WORLD[[2, 0, 1]]):
        points += struct.pack("<Q3d3BdQ", n, *place, 1, 2, 3, 0.5, 2) + bytes(16)
    (folder / "points3D.bin").write_bytes(points)


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_gives_the_points_that_a_picture_sees(binary):
    colmap(binary)
    near = {place: pytest.approx(z, abs=2e-3) for place, z in expected().items()}
    assert read("model", "photos/x/b.jpg") == near
    assert read("model", "photos/x/b.jpg", unit_of_colmap=2.0) == {
        place: pytest.approx(z, abs=4e-3) for place, z in expected(2.0).items()
    }
    assert read("model", "a.jpg") == {(4.5, 4.5): 4.0}
    with pytest.raises(UsageError, match=r"model has no picture c\.jpg"):
        read("model", "c.jpg")


def test_the_unit_of_colmap_is_no_metre_unless_it_is_told():
    colmap(False)
    depth = DepthMap(np.mgrid[0:48, 0:64][0] + 1.0, DepthKind.RELATIVE_DISPARITY)
    assert (
        depthcli.calibrate(depth, "model", picture="b.jpg", fit="scale").apply(depth).kind is DepthKind.RELATIVE_DEPTH
    )
    told = depthcli.calibrate(depth, "model", picture="b.jpg", fit="scale", unit_of_colmap=1.0)
    assert told.apply(depth).kind is DepthKind.METRIC_DEPTH
    with pytest.raises(UsageError, match="cannot be mixed"):
        depthcli.calibrate(depth, ["model", "z:1,1=3"], picture="b.jpg")


# --- LiDAR ------------------------------------------------------------------------------------------------------------


def test_a_cloud_is_seen_by_the_camera_and_the_nearest_point_of_a_cell_counts():
    pixels = np.array([[9.0, 9.0], [9.5, 9.5], [40.0, 20.0], [90.0, 20.0]])
    points = along_rays(np.array([4.0, 8.0, 5.0, 5.0]), rays_at(pixels, SEEN_BY)).astype(np.float64)
    points = np.r_[points, [[0, 0, -3.0]]]  # one behind the camera
    # The scanner's axes: x forward, y left, z up, a metre above the camera.
    pose = np.array([[0, -1, 0, 0], [0, 0, -1, 1.0], [1, 0, 0, 0]])
    scanned = (points - pose[:, 3]) @ pose[:, :3]
    depthcli.write_shape(PointCloud(scanned.astype(np.float32)), "scan.ply")
    np.savetxt("T.txt", pose)
    assert read("scan.ply", cloud_to_camera=Path("T.txt")) == {(9, 9): 4, (40, 20): 5}


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_files_that_give_no_metres_are_one_line():
    cv2.imwrite("gray.png", np.zeros((48, 64), np.uint8))
    depthcli.write_depth(DepthMap(np.ones((48, 64)), DepthKind.RELATIVE_DISPARITY), "relative.npz")
    depthcli.write_shape(PointCloud(np.ones((3, 3), np.float32)), "scan.ply")
    Path("bad.csv").write_text("1,2\n")
    Path("T.txt").write_text("1 2 3")
    Path("wide.txt").write_text("2 0 0 0 0 2 0 0 0 0 2 0")
    Path("empty").mkdir()
    Path("photo.jpg").write_bytes(b"\xff\xd8\xff")
    np.savez("two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    (Path("half/sparse/0")).mkdir(parents=True)
    Path("half/sparse/0/cameras.txt").write_text("1 PINHOLE 64 48 60 60 32 24\n")
    for text, choice, reason in (
        ("gray.png", {}, "it has 8 bits, as a preview has"),
        ("relative.npz", {}, "holds relative_disparity, and no metres"),
        ("scan.ply", {}, "whose place is unknown"),
        ("scan.ply", {"cloud_to_camera": Path("T.txt")}, "12 or 16 numbers"),
        ("scan.ply", {"cloud_to_camera": Path("wide.txt")}, "no rotation"),
        ("scan.ply", {"cloud_to_camera": Path("none.txt")}, "none.txt does not exist"),
        ("bad.csv", {}, "not lines of u,v,z"),
        ("empty", {}, "neither a COLMAP model nor depth files"),
        ("photo.jpg", {}, "is no depth file"),
        ("none.npz", {}, "does not exist"),
        ("two.npz", {}, "it holds a, b"),
        ("half", {}, "lacks images.txt"),
    ):
        with pytest.raises(UsageError) as told:
            read(text, **choice)
        assert reason in str(told.value) and "\n" not in str(told.value), text


def test_a_model_that_is_cut_short_or_claims_too_much_is_one_line():
    colmap(True)
    path = Path("model/sparse/0/images.bin")
    whole = path.read_bytes()
    huge = bytearray(whole)
    huge[8 + 64 + 8 : 8 + 64 + 16] = b"\xff" * 8  # the count of points of the first picture
    for data in (whole[:-5], whole[:3], bytes(huge)):
        path.write_bytes(data)
        with pytest.raises(UsageError, match="cannot read"):
            read("model", "b.jpg")


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (("at:1,2",), "is not a reference"),
        (("at:1,2=0",), "must be more than 0"),
        (("z:1,2=3,4",), "is not a reference"),
        (("size:1,2,3=4",), "is not a reference"),
        (("ground:1.6,pitch=70",), "must be -60 to 60"),
        (("ground:-1",), "must be more than 0"),
        (("range:5,2",), "ends before it begins"),
        (("range:1,9", "at:1,2=3"), "gives scale and shift alone"),
        (("",), "is empty"),
    ],
)
def test_references_that_make_no_sense_are_refused(texts, reason):
    with pytest.raises(UsageError, match=reason):
        MetresChoice(texts)


def test_settings_that_contradict_each_other_are_refused():
    for choice, reason in (
        ({"scale": 2.0, "calibration_from": Path("c.json")}, "contradict each other"),
        ({"scale": -1.0}, "must be a factor above 0"),
        ({"fit": "line"}, "needs references"),
        ({"unit_of_colmap": 2.0}, "is for a reference"),
        ({"fit": "best", "scale_from": ("z:1,1=1",)}, "unknown `fit`"),
    ):
        with pytest.raises(UsageError, match=reason):
            MetresChoice(**choice)


def test_a_typed_pixel_must_lie_in_the_picture():
    depth = DepthMap(np.ones((48, 64)), DepthKind.RELATIVE_DISPARITY, camera=assumed_camera(SIZE))
    with pytest.raises(UsageError, match="names the pixel 64,2, outside of the 64x48 picture"):
        depthcli.calibrate(depth, "z:1,1=2,64,2=3")
