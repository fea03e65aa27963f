"""Points, edges, normals and meshes against what is known of real and made scenes, as a table.

    python benchmarks/geometry.py FOLDER

FOLDER holds gt-open3d (five frames of a Kinect and their poses), gt-skimage (Middlebury Motorcycle) and gt-opencv-aloe;
what is missing is left out. Rows in which something is done wrong on purpose show that the check would notice it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import depthcli  # noqa: E402
from depthcli.camera import Camera, CameraSource, pinhole  # noqa: E402
from depthcli.choices.shapes import ShapeChoice  # noqa: E402
from depthcli.depthmap import DepthKind, DepthMap, Provenance  # noqa: E402
from depthcli.geometry.edges import find_edges  # noqa: E402
from depthcli.geometry.normals import normals  # noqa: E402
from depthcli.geometry.rays import depth_along_axis, project, rays, unproject  # noqa: E402

KINECT = Camera(np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]]), CameraSource.GIVEN)
Rows = Iterator[tuple[str, str]]


def sphere() -> Rows:
    centre, radius = np.array([0.3, -0.2, 2.0]), 0.5
    xy = rays((640, 480), KINECT)
    direction = np.concatenate([xy, np.ones((480, 640, 1))], axis=2)
    a, b, c = (direction**2).sum(axis=2), direction @ centre, centre @ centre - radius**2
    hit = b * b > a * c
    z = np.where(hit, (b - np.sqrt(np.maximum(b * b - a * c, 0))) / a, 0).astype(np.float32)
    wrong = KINECT.intrinsics.copy()
    wrong[[0, 1], [0, 1]] *= 1.01
    for name, points in (
        ("sphere r 0.5", unproject(z, KINECT)),
        ("  f +1 %", unproject(z, Camera(wrong, CameraSource.GIVEN))),
        ("  z taken for the ray", unproject(depth_along_axis(z, KINECT), KINECT)),
    ):
        found, rms = fitted_sphere(points[hit].astype(np.float64))
        yield name, f"r {found:.6f}, RMS {rms:.1e} m"


def fitted_sphere(points: np.ndarray) -> tuple[float, float]:
    found = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(axis=1), rcond=None)[0]
    radius = np.sqrt(found[3] + found[:3] @ found[:3])
    return radius, np.sqrt(((np.linalg.norm(points - found[:3], axis=1) - radius) ** 2).mean())


def kinect(folder: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return (H, W) metres and (H, W, 3) pictures of five frames."""
    depth = [cv2.imread(str(path), -1) / 1000 for path in sorted((folder / "depth").glob("*.png"))]
    color = [cv2.imread(str(path))[..., ::-1] for path in sorted((folder / "color").glob("*.jpg"))]
    return [frame.astype(np.float32) for frame in depth], color


def plane_through(points: np.ndarray) -> np.ndarray:
    """Return the (4,) least-squares plane of (N, 3) points."""
    middle = points.mean(axis=0)
    normal = np.linalg.svd(points[:: 1 + len(points) // 20_000] - middle, full_matrices=False)[2][2]
    return np.append(normal, -middle @ normal)


def largest_plane(points: np.ndarray) -> np.ndarray:
    """Return which points lie on the plane that most of them do: RANSAC, then least squares."""
    draw, most = np.random.default_rng(0), np.zeros(len(points), bool)
    for _ in range(300):
        a, b, c = points[draw.integers(len(points), size=3)]
        normal = np.cross(b - a, c - a)
        if length := np.linalg.norm(normal):
            near = abs((points - a) @ (normal / length)) < 0.01
            most = near if near.sum() > most.sum() else most
    for _ in range(3):
        plane = plane_through(points[most])
        most = abs(points @ plane[:3] + plane[3]) < 0.02
    return most


def planes(right: np.ndarray, seen: np.ndarray) -> tuple[str, np.ndarray]:
    """Return what the three largest planes say of points, and that of the floor.

    right: (N, 3) points by which the planes are found. seen: the same pixels' points, perhaps made wrong.
    """
    found, left = [], np.arange(len(right))
    for _ in range(3):
        members = largest_plane(right[left])
        plane = plane_through(seen[left[members]])
        found.append((plane, np.sqrt(((seen[left[members]] @ plane[:3] + plane[3]) ** 2).mean())))
        left = left[~members]
    found.sort(key=lambda one: -abs(one[0][1]))  # the floor first: its normal is the camera's y
    floor, *walls = found
    angles = [np.degrees(np.arccos(abs(floor[0][:3] @ wall[0][:3]))) for wall in walls]
    rms = ", ".join(f"{1000 * one[1]:.1f}" for one in found)
    text = f"RMS {rms} mm, floor to others {angles[0]:.1f} and {angles[1]:.1f} deg, camera {abs(floor[0][3]):.3f} m up"
    return text, floor[0]


def room(folder: Path) -> Rows:
    z = kinect(folder)[0][0]
    maps = (unproject(z, KINECT), unproject(depth_along_axis(z, KINECT), KINECT))
    right, wrong = (points[z > 0][::5].astype(np.float64) for points in maps)
    text, floor = planes(right, right)
    yield "Kinect: floor and two planes", text
    yield "  z taken for the ray", planes(right, wrong)[0]
    depth = DepthMap(z, DepthKind.METRIC_DEPTH, valid=z > 0, camera=KINECT)
    found, valid = normals(depth, axes="opencv")
    on_floor = valid & (abs(unproject(z, KINECT) @ floor[:3] + floor[3]) < 0.02)
    on_floor &= cv2.dilate(find_edges(z, z > 0).uneven.astype(np.uint8), np.ones((9, 9))) == 0
    on_floor &= np.arange(len(z))[:, None] > 300
    angle = np.degrees(np.arccos(np.clip(abs(found[on_floor] @ floor[:3]), -1, 1)))
    yield "Kinect: normals of the floor", f"median {np.median(angle):.1f}, 90 % {np.quantile(angle, 0.9):.1f} deg"


def poses(path: Path) -> list[np.ndarray]:
    lines = path.read_text().splitlines()
    return [np.array([line.split() for line in lines[at + 1 : at + 5]], float) for at in range(0, len(lines) - 4, 5)]


def reprojection(folder: Path) -> Rows:
    frames = kinect(folder)[0]
    source = unproject(frames[0], KINECT)[frames[0] > 0].astype(np.float64)
    shifted = Camera(KINECT.intrinsics * [[1, 1, 0], [1, 1, 0], [1, 1, 1]], CameraSource.GIVEN)
    moved = unproject(frames[0], shifted)[frames[0] > 0].astype(np.float64)
    for log in ("trajectory.log", "odometry.log"):
        world = poses(folder / log)
        move = np.linalg.inv(world[4]) @ world[0]
        yield f"Kinect: frame 0 in frame 4, {log}", reprojected(source, move, frames[4], KINECT)
        yield (
            "  poses taken as world to camera",
            reprojected(source, world[4] @ np.linalg.inv(world[0]), frames[4], KINECT),
        )
    yield "  principal point 0, 0", reprojected(moved, move, frames[4], shifted)


def reprojected(points: np.ndarray, move: np.ndarray, target: np.ndarray, camera: Camera) -> str:
    points = points @ move[:3, :3].T + move[:3, 3]
    places = np.round(project(points, camera)).astype(int)
    inside = ((places >= 0) & (places < (640, 480))).all(axis=1)
    there = target[places[inside, 1], places[inside, 0]]
    apart = abs(points[inside, 2] - there)[there > 0]
    return (
        f"median {1000 * np.median(apart):.1f} mm, {100 * (apart < 0.02).mean():.1f} % within 2 cm, "
        f"{100 * inside.mean():.0f} % inside"
    )


def middlebury(folder: Path) -> Rows:
    scenes = {}
    if (folder / "gt-skimage").exists():
        scenes["Motorcycle"] = np.load(folder / "gt-skimage/motorcycle_disp.npz")["arr_0"].astype(np.float64)
    if (folder / "gt-opencv-aloe").exists():
        scenes["Aloe"] = cv2.imread(str(folder / "gt-opencv-aloe/aloeGT.png"), 0).astype(np.float64)
    for name, disparity in scenes.items():
        known = np.isfinite(disparity) & (disparity > 0)
        # Networks leave no holes: unknown pixels take the value of the nearest known one, and are not counted.
        _, nearest = cv2.distanceTransformWithLabels(
            (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        values = np.zeros(nearest.max() + 1)
        values[nearest[known]] = disparity[known]
        for sigma in (1, 2):
            soft = cv2.GaussianBlur(values[nearest], (0, 0), sigma)
            flying = known & (abs(soft - disparity) > 0.03 * disparity)
            for holes, valid in (("", np.ones_like(known)), (", with holes", known)):
                found = find_edges(np.where(valid, 1 / soft, 0).astype(np.float32), valid).flying
                caught, lost = found[flying].mean(), found[known & ~flying].mean()
                yield f"{name} blurred by {sigma} px{holes}", f"flying caught {caught:.3f}, good lost {lost:.3f}"


def road() -> Rows:
    down = (np.arange(375) - 172.85) / 707.0
    z = np.broadcast_to(np.where(down > 0, 1.65 / np.maximum(down, 1e-9), 0)[:, None], (375, 1242)).astype(np.float32)
    seen = (z > 0) & (z < 75)
    z = np.where(seen, z, 0).astype(np.float32)
    yield "road, 1.65 m below, to 75 m", f"lost {100 * find_edges(z, seen).flying[seen].mean():.2f} %"
    by_range = cv2.dilate(z, np.ones((3, 3))) - cv2.erode(np.where(seen, z, 1e9).astype(np.float32), np.ones((3, 3)))
    yield "  by the range of depth alone", f"lost {100 * (by_range > 0.04 * z)[seen].mean():.0f} %"


def speed(folder: Path) -> Rows:
    z = np.tile(np.linspace(1, 4, 1024, dtype=np.float32), (1024, 1)) + np.float32(0.1) * np.random.default_rng(
        0
    ).random((1024, 1024), np.float32)
    yield "edges, a megapixel", f"{best(lambda: find_edges(z, np.ones(z.shape, bool))):.3f} s"
    holes = z > 1.2
    yield "edges, a megapixel with holes", f"{best(lambda: find_edges(z, holes)):.3f} s"
    frames, color = kinect(folder)
    depth = DepthMap(frames[0], DepthKind.METRIC_DEPTH, valid=frames[0] > 0, camera=KINECT)
    rgb = np.ascontiguousarray(color[0])
    with tempfile.TemporaryDirectory() as place:
        for name, make in (("k.ply", depthcli.points), ("k.glb", depthcli.mesh), ("k.obj", depthcli.mesh)):
            path = Path(place) / name
            seconds = best(lambda make=make, path=path: depthcli.write_shape(make(depth, rgb), path))
            yield f"640x480 to {path.suffix}", f"{seconds:.2f} s, {path.stat().st_size / 1e6:.1f} MB"
        size = (4032, 3024)
        small = cv2.GaussianBlur(cv2.resize(frames[0], (686, 518), interpolation=cv2.INTER_NEAREST), (0, 0), 1)
        large = np.maximum(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), 0.5)
        photo = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(0).normal(0, 6, photo.shape)  # as photos have; a smooth one packs too well
        photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
        twelve = DepthMap(
            large,
            DepthKind.METRIC_DEPTH,
            Provenance(input_size=(686, 518)),
            camera=pinhole(size, 3029, CameraSource.EXIF),
        )
        for name, make in (("t.glb", depthcli.mesh), ("t.ply", depthcli.points)):
            path = Path(place) / name
            seconds = best(lambda make=make, path=path: depthcli.write_shape(make(twelve, photo), path), 1)
            yield f"12 megapixels to {path.suffix}", f"{seconds:.2f} s, {path.stat().st_size / 1e6:.1f} MB"
        everything = ShapeChoice(points=None)
        seconds = best(
            lambda: depthcli.write_shape(depthcli.points(twelve, photo, everything), Path(place) / "a.ply"), 1
        )
        yield (
            "12 megapixels to .ply, all points",
            f"{seconds:.2f} s, {(Path(place) / 'a.ply').stat().st_size / 1e6:.0f} MB",
        )
    yield "peak memory of this script", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB"


def best(call: object, times: int = 3) -> float:
    """Return the least seconds that a call took."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()  # type: ignore[operator]
        found.append(time.perf_counter() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    checks = [sphere(), road(), middlebury(folder)]
    if (folder / "gt-open3d").exists():
        checks += [room(folder / "gt-open3d"), reprojection(folder / "gt-open3d"), speed(folder / "gt-open3d")]
    for rows in checks:
        for name, figures in rows:
            print(f"{name:38} {figures}", flush=True)


if __name__ == "__main__":
    main()
