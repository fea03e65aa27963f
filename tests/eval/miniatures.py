"""Data sets of a few small pictures in the layouts of real ones: a traced room whose depth and cameras are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from depthcli.camera import Camera
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.geometry.poses import inverted, quaternions_of, square
from depthcli.geometry.sim3 import Sim3
from depthcli.scene import Scene, View
from tests.geometry.rooms import camera, traced

PLACES = ((0.0, 0.0, 0.0), (0.5, -0.1, 0.2), (-0.4, 0.2, 0.3), (0.3, 0.3, -0.2), (-0.2, -0.3, 0.1), (0.1, 0.1, 0.6))
SIZE = (168, 112)
SEVEN = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
Views = list[tuple[Camera, np.ndarray, np.ndarray]]


def views(size: tuple[int, int] = SIZE, matrix: np.ndarray | None = None, places: Sequence = PLACES) -> Views:
    """Return cameras, depth and pictures of the room."""
    found = []
    for place in places:
        seen_by = camera(place)
        matrix_ = matrix if matrix is not None else np.diag([size[0] / 84, size[1] / 56, 1]) @ seen_by.intrinsics
        seen_by = replace(seen_by, intrinsics=matrix_)
        found.append((seen_by, *traced(seen_by, size)))
    return found


def picture(path: Path, rgb: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def png16(path: Path, depth: np.ndarray, scale: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.where(np.isfinite(depth), np.minimum(np.round(depth * scale), 65534), 0).astype(np.uint16)
    cv2.imwrite(str(path), stored)


def text(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, numbers)


def mesh(path: Path, made: Views) -> None:
    """Write the surface that the views see, as triangles between pixels that lie on one surface."""
    corners, faces, count = [], [], 0
    for seen_by, z, _ in made:
        height, width = z.shape
        v, u = np.mgrid[:height, :width]
        rays = np.stack([u, v, np.ones_like(u)], axis=2).reshape(-1, 3) @ np.linalg.inv(seen_by.intrinsics).T
        points = (rays * z.reshape(-1, 1) - seen_by.extrinsics[:, 3]) @ seen_by.extrinsics[:, :3]
        number = count + np.arange(z.size).reshape(z.shape)
        a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
        four = np.stack([z[:-1, :-1], z[:-1, 1:], z[1:, :-1], z[1:, 1:]])
        flat = four.max(axis=0) < 1.05 * four.min(axis=0)
        faces += [np.stack([one[flat] for one in (a, c, b)], 1), np.stack([one[flat] for one in (b, c, d)], 1)]
        corners.append(np.where(np.isfinite(points), points, 0))
        count += z.size
    path.parent.mkdir(parents=True, exist_ok=True)
    vertices, triangles = np.concatenate(corners).astype("<f4"), np.concatenate(faces)
    rows = np.zeros(len(triangles), [("n", "u1"), ("i", "<i4", 3)])
    rows["n"], rows["i"] = 3, triangles
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
    head += "".join(f"property float {name}\n" for name in "xyz")
    head += f"element face {len(rows)}\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_bytes(head.encode() + vertices.tobytes() + rows.tobytes())


def colmap(folder: Path, made: Views, names: Sequence[str], model: str = "PINHOLE") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    height, width = made[0][1].shape
    fx, fy, cx, cy = made[0][0].intrinsics[(0, 1, 0, 1), (0, 1, 2, 2)]
    zeros = " 0" * (8 if model == "THIN_PRISM_FISHEYE" else 0)
    lines = ["#", "#", "#", f"1 {model} {width} {height} {fx} {fy} {cx + 0.5} {cy + 0.5}{zeros}"]
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    rows = ["#", "#", "#", "#"]
    for number, ((seen_by, _, _), name) in enumerate(zip(made, names), 1):
        x, y, z, w = quaternions_of(seen_by.extrinsics[None, :, :3])[0]
        move = " ".join(map(repr, seen_by.extrinsics[:, 3].tolist()))
        rows += [f"{number} {w!r} {x!r} {y!r} {z!r} {move} 1 {name}".replace("np.float64", ""), "1 1 -1"]
    (folder / "images.txt").write_text("\n".join(rows).replace("(", "").replace(")", "") + "\n")
    (folder / "points3D.txt").write_text("")


def seven_scenes(root: Path) -> Views:
    made = views((640, 480), SEVEN)
    for number, (seen_by, z, rgb) in enumerate(made):
        stem = root / "chess" / "seq-01" / f"frame-{number:06d}"
        picture(Path(f"{stem}.color.png"), rgb)
        png16(Path(f"{stem}.depth.png"), z, 1000)
        text(Path(f"{stem}.pose.txt"), square(inverted(seen_by.extrinsics[None]))[0])
    mesh(root / "meshes" / "chess.ply", made)
    return made


def eth3d(root: Path) -> Views:
    made, names = views(), [f"DSC_0{300 + number}.JPG" for number in range(6)]
    for name, (_, z, rgb) in zip(names, made):
        picture(root / "pipes" / "images" / "dslr_images" / name, rgb)
        depth = root / "pipes" / "ground_truth_depth" / "dslr_images" / name
        depth.parent.mkdir(parents=True, exist_ok=True)
        z.astype("<f4").tofile(depth)
    mask = np.zeros(made[0][1].shape, np.uint8)
    mask[:5] = 1
    picture(root / "pipes" / "masks_for_images" / "dslr_images" / "DSC_0300.png", mask[..., None])
    colmap(
        root / "pipes" / "dslr_calibration_jpg", made, [f"dslr_images/{name}" for name in names], "THIN_PRISM_FISHEYE"
    )
    mesh(root / "pipes" / "combined_mesh.ply", made)
    picture(root / "relief" / "images" / "dslr_images" / "DSC_0427.JPG", made[0][2])  # one of those left out
    return made


def scannetpp(root: Path) -> Views:
    made, folder = views(), root / "09c1414f1b" / "merge_dslr_iphone"
    names = [f"iphone/frame_{number:06d}.jpg" for number in range(6)]
    for name, (_, z, rgb) in zip(names, made):
        picture(folder / "images" / name, rgb)
        png16(folder / "render_depth" / Path(name).with_suffix(".png").name, z, 1000)
    picture(folder / "images" / "dslr" / "DSC0.jpg", made[0][2])
    colmap(folder / "colmap" / "sparse_render_rgb", made, names)
    mesh(folder.parent / "scans" / "mesh_aligned_0.05.ply", made)
    return made


def hiroom(root: Path) -> Views:
    made, folder = views(), root / "data" / "20241230" / "828805" / "cam_sampled"
    for number, (seen_by, z, rgb) in enumerate(made):
        picture(folder / "image" / f"{number}.png", rgb)
        png16(folder / "depth" / f"{number}.png", z, 655.35)
        (folder / "pose").mkdir(exist_ok=True)
        np.save(folder / "pose" / f"{number}.npy", square(seen_by.extrinsics[None])[0])
    np.save(folder / "cam_K.npy", made[0][0].intrinsics)
    picture(folder / "aliasing_mask" / "0.png", np.eye(112, 168, dtype=np.uint8)[..., None] * 255)
    mesh(root / "fused_pcd" / "20241230-828805-cam_sampled.ply", made)
    return made


def camera_files(root: Path, made: Views) -> None:
    (root / "Cameras").mkdir(parents=True, exist_ok=True)
    for number, (seen_by, _, _) in enumerate(made):
        rows = [" ".join(map(str, row)) for row in square(seen_by.extrinsics[None])[0]]
        matrix = [" ".join(map(str, row)) for row in seen_by.intrinsics]
        lines = ["extrinsic", *rows, "", "intrinsic", *matrix, "", "425 2.5"]
        (root / "Cameras" / f"{number:08d}_cam.txt").write_text("\n".join(lines))


def dtu(root: Path) -> Views:
    made = views()
    for number, (_, _, rgb) in enumerate(made):
        picture(root / "Rectified" / "scan1" / f"rect_{number + 1:03d}_3_r5000.png", rgb)
    camera_files(root, made)
    return made


def dtu64(root: Path) -> Views:
    made = views()
    for number, (_, _, rgb) in enumerate(made):
        picture(root / "scan24" / "image" / f"{number:08d}.png", rgb)
    camera_files(root, made)
    return made


def sintel(root: Path, frames: int = 6) -> Views:
    made, tag = views(places=(PLACES * 9)[:frames]), np.float32(202021.25).tobytes()
    for number, (seen_by, z, rgb) in enumerate(made, 1):
        stem = f"frame_{number:04d}"
        picture(root / "training" / "clean" / "alley_1" / f"{stem}.png", rgb)
        for kind, content in (
            ("depth", np.array([z.shape[1], z.shape[0]], "<i4").tobytes() + z.astype("<f4").tobytes()),
            ("camdata_left", seen_by.intrinsics.astype("<f8").tobytes() + seen_by.extrinsics.astype("<f8").tobytes()),
        ):
            path = root / "training" / kind / "alley_1" / f"{stem}.{'dpt' if kind == 'depth' else 'cam'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tag + content)
    return made


def scannet(root: Path, frames: int = 6) -> Views:
    made, folder = views(places=PLACES[:frames]), root / "scene0707_00"
    for number, (seen_by, z, rgb) in enumerate(made):
        # Every third frame counts; 10 stands behind 9 only if numbers are sorted as numbers.
        for extra in range(3):
            name = 3 * number + extra
            picture(folder / "color" / f"{name}.jpg", rgb if not extra else 255 - rgb)
            png16(folder / "depth" / f"{name}.png", z if not extra else 0 * z, 1000)
            text(folder / "pose" / f"{name}.txt", square(inverted(seen_by.extrinsics[None]))[0])
    whole = np.eye(4)
    whole[:3, :3] = made[0][0].intrinsics
    text(folder / "intrinsic" / "intrinsic_color.txt", whole)
    return made


def bonn(root: Path, frames: int = 34) -> Views:
    made = views((85, 57), places=(PLACES * 9)[:frames])
    for number, (_, z, rgb) in enumerate(made):
        picture(root / "rgbd_bonn_balloon2" / "rgb" / f"{1548266.0 + 0.03 * number:.5f}.png", rgb)
        png16(root / "rgbd_bonn_balloon2" / "depth" / f"{1548266.01 + 0.03 * number:.5f}.png", z, 5000)
    return made


def kitti(root: Path, frames: int = 4) -> Views:
    made, drive = views((125, 37), places=PLACES[:frames]), "2011_09_26_drive_0002_sync"
    for number, (_, z, rgb) in enumerate(made):
        name = f"{number + 5:010d}.png"
        picture(root / "raw_data" / drive[:10] / drive / "image_02" / "data" / name, rgb)
        sparse = np.where(np.arange(z.size).reshape(z.shape) % 5 == 0, z, 0)
        png16(root / "val" / drive / "proj_depth" / "groundtruth" / "image_02" / name, sparse, 256)
    picture(root / "raw_data" / drive[:10] / drive / "image_02" / "data" / f"{0:010d}.png", made[0][2])  # without truth
    return made


def nyu(root: Path) -> Views:
    made, lines = views((640, 480), places=PLACES[:2]), []
    for number, (_, z, rgb) in enumerate(made):
        names = [f"kitchen/rgb_{number:05d}.jpg", f"kitchen/depth_{number}.png", f"kitchen/filled_{number}.png"]
        picture(root / names[0], rgb)
        png16(root / names[1], 0 * z, 1000)
        png16(root / names[2], z, 1000)
        lines.append(" ".join(names) + " 518.8579")
    (root / "filename_list_test.txt").write_text("\n".join(lines) + "\n")
    return made


def answer(made: Views, names: Sequence[str], moved: Sim3, shrink: int = 2) -> Scene:
    """Return what a network would answer that knew all: smaller maps, in another world and scale."""
    found = []
    for (seen_by, z, _), name in zip(made, names):
        small = z[shrink // 2 :: shrink, shrink // 2 :: shrink]
        size = (small.shape[1], small.shape[0])
        pose = moved.extrinsics(seen_by.extrinsics[None])[0]
        whole = replace(seen_by, extrinsics=pose).resized((z.shape[1], z.shape[0]), size)
        depth = DepthMap((small * moved.scale).astype(np.float32), DepthKind.METRIC_DEPTH, camera=whole)
        found.append(View(depth, name, None, (z.shape[1], z.shape[0])))
    return Scene(tuple(found))
