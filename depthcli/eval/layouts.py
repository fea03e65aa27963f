"""Where benchmarks keep pictures, depth, cameras and surfaces, and how they are scored: one row for each data set.

Layouts are those in which the data sets are published, or in which the benchmarks of Depth Anything 3 and DepthCrafter
keep them. Paths in a row are patterns below the root.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from depthcli.errors import UsageError
from depthcli.eval.lists import Entry
from depthcli.geometry.poses import inverted
from depthcli.io.cameras.colmap import read_pinholes

_TAG = np.float32(202021.25).tobytes()  # of Sintel's files
_SEED = 42


@dataclass(frozen=True)
class Fusion:
    """How a reconstruction is made and scored, in the unit of the poses. threshold: of precision and recall.

    voxel: width of voxels, and of boxes that hold one point before clouds are compared. truncation: of distances.
    farthest: depth beyond it is left out. margin: predicted points farther outside the box of the truth are left out.
    """

    voxel: float
    truncation: float
    threshold: float
    farthest: float = np.inf
    margin: Optional[float] = None


@dataclass(frozen=True, eq=False)
class TrueScene:
    """One place or clip of a data set.

    entries: pictures in order, with the true depth of each if there is some. extrinsics: (N, 3, 4), world to camera,
    not finite where unknown; None if there are no cameras. intrinsics: (N, 3, 3) for the pictures, without lenses.
    surface: file of true points or triangles. unknown, marked: pictures that mark pixels that do not count, see Layout.
    """

    name: str
    entries: tuple[Entry, ...]
    extrinsics: Optional[np.ndarray] = None
    intrinsics: Optional[np.ndarray] = None
    surface: Optional[Path] = None
    unknown: tuple[Optional[Path], ...] = ()
    marked: Optional[int] = None

    def chosen(self, numbers: Sequence[int]) -> TrueScene:
        """Return the scene with some of its pictures."""
        some = list(numbers)
        return TrueScene(
            self.name,
            tuple(self.entries[number] for number in some),
            None if self.extrinsics is None else self.extrinsics[some],
            None if self.intrinsics is None else self.intrinsics[some],
            self.surface,
            tuple(self.unknown[number] for number in some) if self.unknown else (),
            self.marked,
        )


# Returns (N, 3, 4) world to camera and (N, 3, 3), for the pictures of a folder.
Cameras = Callable[[Path, Path, Sequence[Path]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Layout:
    """The layout of a data set.

    folders: patterns of the folders of scenes; without: endings of some that do not count. part: which part of the path
    is a scene's name, or "-" for all but the first, joined. listed: pattern of the files of a folder, one for each
    picture, sorted by the numbers in their names. picture, truth, unknown, surface: patterns of a picture, its depth,
    its mask and a scene's surface below the root; several are tried. In them {folder} is the folder, {scene} the name,
    {name} and {stem} the listed file with and without what `listed` has behind its last star, {date} the first ten
    letters of the name. A truth with a star has as many files as there are pictures, in the same order.
    format, scale, invalid: of the truth, see Entry; "raw" is float32 of the picture's size. marked: the number that
    pixels have in `unknown` if they do not count, None for all but 0.
    left_out: endings of pictures that do not count, by scene. first: number of the picture that comes first.
    cap, frames, crop: of the protocol depthcrafter, metres, slice, and slices of rows and columns; even: sides are cut
    to even lengths.
    """

    name: str
    what: str
    folders: tuple[str, ...]
    listed: str
    part: str = "-1"
    without: tuple[str, ...] = ()
    picture: tuple[str, ...] = ("{folder}/{path}",)
    truth: tuple[str, ...] = ()
    unknown: str = ""
    marked: Optional[int] = None
    surface: str = ""
    format: str = ""
    scale: Optional[float] = None
    invalid: tuple[float, ...] = ()
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first: int = 0
    cameras: Optional[Cameras] = None
    fusion: Optional[Fusion] = None
    cap: float = 0.0
    frames: tuple[Optional[int], Optional[int], Optional[int]] = (None, None, None)
    crop: tuple[Optional[int], Optional[int], Optional[int], Optional[int]] = (None, None, None, None)
    even: bool = False

    def cut(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the crop (top, left, bottom, right) of a picture or map of (width, height)."""
        top, left, bottom, right = self.crop
        rows, columns = range(size[1])[top:bottom], range(size[0])[left:right]
        high, wide = (len(part) - len(part) % 2 if self.even else len(part) for part in (rows, columns))
        if high < 1 or wide < 1:
            raise UsageError(f"{size[0]}x{size[1]} pixels are too few for the crop of {self.name}")
        return rows[0], columns[0], rows[0] + high, columns[0] + wide


def read_layout(root: Path, layout: Layout) -> tuple[TrueScene, ...]:
    """Return the scenes of a data set, in the order of their names, without opening pictures and depth.

    Raises UsageError if there are none, and for cameras that are broken.
    """
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder", "name the folder of the data set")
    found = [[root] if pattern == "." else root.glob(pattern) for pattern in layout.folders]
    folders = {folder for some in found for folder in some if folder.is_dir()}
    kept = [folder for folder in sorted(folders) if not str(folder).endswith(layout.without or ("\0",))]
    scenes = [scene for folder in kept for scene in _scenes(root, folder, layout)]
    if not scenes:
        looked = " or ".join(f"{pattern}/{layout.listed}" for pattern in layout.folders)
        raise UsageError(f"{root} holds no scene of {layout.name}", f"looked for {looked}")
    return tuple(scenes)


def draw(count: int, most: int) -> list[int]:
    """Return the numbers of at most so many of `count` pictures, as the benchmark of Depth Anything 3 draws them."""
    numbers = list(range(count))
    if count > most:
        random.Random(_SEED).shuffle(numbers)
    return sorted(numbers[:most])


def _scenes(root: Path, folder: Path, layout: Layout) -> list[TrueScene]:
    if layout.listed.endswith(".txt"):
        return _of_list(root, folder / layout.listed, layout)
    below = folder.relative_to(root).parts
    name = "-".join(below[1:] or below) if layout.part == "-" else below[int(layout.part)]
    listed = sorted((path for path in folder.glob(layout.listed) if path.is_file()), key=_by_numbers)
    listed = [path for path in listed if not path.name.endswith(layout.left_out.get(name, ("\0",)))]
    listed = (
        [listed[layout.first], *listed[: layout.first], *listed[layout.first + 1 :]]
        if listed[layout.first :]
        else listed
    )
    tail = layout.listed.rsplit("*", 1)[-1]
    words = [
        {
            "folder": str(folder.relative_to(root)),
            "scene": name,
            "date": name[:10],
            "name": path.name,
            "stem": path.name[: -len(tail)] if tail else path.stem,
            "path": str(path.relative_to(folder)),
        }
        for path in listed
    ]
    pictures = [_found(root, layout.picture, word) for word in words]
    numbers = [number for number, picture in enumerate(pictures) if picture is not None]
    truths = _truths(root, layout, words)
    entries: list[Entry] = []
    for number in numbers:
        picture, truth = pictures[number], truths[number]
        assert picture is not None
        entries.append(_entry(len(entries) + 1, name, picture, truth, layout))
    if not entries:
        return []
    surface = _found(root, (layout.surface,), words[0]) if layout.surface else None
    unknown = tuple(_found(root, (layout.unknown,), words[n]) if layout.unknown else None for n in numbers)
    poses: tuple[Optional[np.ndarray], Optional[np.ndarray]] = (None, None)
    if layout.cameras is not None:
        poses = _checked(name, layout.cameras(root, folder, [entry.picture for entry in entries]))
    return [TrueScene(name, tuple(entries), *poses, surface, unknown, layout.marked)]


def _of_list(root: Path, path: Path, layout: Layout) -> list[TrueScene]:
    """Return a scene for each line of a list: a picture, and its depth in the last of its columns that is a file."""
    scenes = []
    for number, line in enumerate(path.read_text("utf-8").split("\n") if path.is_file() else (), 1):
        words = line.split()
        found = [root / word.lstrip("/") for word in words if (root / word.lstrip("/")).is_file()]
        if len(found) < 2:
            if words:
                raise UsageError(f"{path}, line {number}: its picture or its depth is not there")
            continue
        name = "-".join(found[0].relative_to(root).with_suffix("").parts)
        scenes.append(TrueScene(name, (_entry(1, name, found[0], found[-1], layout),)))
    return scenes


def _entry(number: int, clip: str, picture: Path, truth: Optional[Path], layout: Layout) -> Entry:
    return Entry(
        number=number,
        name=picture.stem,
        source=picture.name,
        picture=picture,
        truth=truth,
        format=layout.format if truth is not None else "",
        scale=layout.scale,
        invalid=layout.invalid,
        clip=clip,
    )


def _truths(root: Path, layout: Layout, words: Sequence[Mapping[str, str]]) -> list[Optional[Path]]:
    starred = [pattern for pattern in layout.truth if "*" in pattern]
    if not starred or not words:
        return [_found(root, layout.truth, word) for word in words]
    files = sorted(root.glob(starred[0].format(**words[0])), key=_by_numbers)
    if len(files) < len(words):
        raise UsageError(f"{words[0]['folder']} has {len(words)} pictures and {len(files)} maps of depth")
    return list(files[: len(words)])


def _found(root: Path, patterns: Sequence[str], words: Mapping[str, str]) -> Optional[Path]:
    paths = [root / pattern.format(**words) for pattern in patterns]
    return next((path for path in paths if path.is_file()), None)


def _by_numbers(path: Path) -> tuple[object, ...]:
    """Return what sorts paths by the numbers in them, so that 10 comes behind 9."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part
    )


def _checked(name: str, found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    extrinsics, intrinsics = found
    if np.isfinite(extrinsics).all(axis=(1, 2)).sum() < 1:
        raise UsageError(f"{name} has no camera whose place is known")
    return extrinsics, intrinsics


# --- Cameras ----------------------------------------------------------------------------------------------------------


def _matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the numbers of a text file. Raises UsageError."""
    try:
        numbers = np.array([float(word) for word in path.read_text("ascii").replace(",", " ").split()])
        return numbers.reshape(shape)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {shape[0]}x{shape[1]} numbers from {path}: {error}") from error


def _pinhole(fx: float, fy: float, cx: float, cy: float, count: int) -> np.ndarray:
    return np.repeat(np.array([[[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]]), count, axis=0)


def _inverse_of(poses: Sequence[np.ndarray]) -> np.ndarray:
    return inverted(np.stack(poses)[:, :3].astype(np.float64))


def _seven_scenes(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    poses = [_matrix(path.with_name(path.name.replace(".color.png", ".pose.txt")), (4, 4)) for path in pictures]
    return _inverse_of(poses), _pinhole(585.0, 585.0, 320.0, 240.0, len(poses))


def _scannet(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    poses = [_matrix(folder / "pose" / f"{path.stem}.txt", (4, 4)) for path in pictures]
    place = folder / "intrinsic" / "intrinsic_color.txt"
    return _inverse_of(poses), np.repeat(_matrix(place, (4, 4))[None, :3, :3], len(poses), axis=0)


def _colmap(model: str, base: str) -> Cameras:
    """Return the reader of a COLMAP model in a folder. base: folder that the names of its pictures start from."""

    def read(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        stored = {camera.name: camera for camera in read_pinholes(folder / model)}
        extrinsics = np.full((len(pictures), 3, 4), np.nan)
        intrinsics = np.full((len(pictures), 3, 3), np.nan)
        for number, path in enumerate(pictures):
            camera = stored.get(path.relative_to(folder / base).as_posix())
            if camera is not None and camera.pose is not None and camera.camera is not None:
                extrinsics[number], intrinsics[number] = camera.pose[:3], camera.camera.intrinsics
        return extrinsics, intrinsics

    return read


def _hiroom(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    try:
        poses = [np.load(folder / "pose" / f"{path.stem}.npy", allow_pickle=False)[:3] for path in pictures]
        matrix = np.load(folder / "cam_K.npy", allow_pickle=False)[:3, :3]
    except (OSError, ValueError, IndexError) as error:
        raise UsageError(f"cannot read the cameras of {folder}: {error}") from error
    return np.stack(poses).astype(np.float64), np.repeat(matrix[None].astype(np.float64), len(poses), axis=0)


def _dtu(number_of: Callable[[Path], int]) -> Cameras:
    """Return the reader of MVSNet's camera files. number_of: the number of a picture's camera."""

    def read(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
        poses, matrices = [], []
        for picture in pictures:
            path = root / "Cameras" / f"{number_of(picture):08d}_cam.txt"
            try:
                lines = path.read_text("ascii").splitlines()
                poses.append(np.array(" ".join(lines[1:5]).split(), np.float64).reshape(4, 4)[:3])
                matrices.append(np.array(" ".join(lines[7:10]).split(), np.float64).reshape(3, 3))
            except (OSError, ValueError) as error:
                raise UsageError(f"cannot read a camera from {path}: {error}") from error
        return np.stack(poses), np.stack(matrices)

    return read


def _sintel(root: Path, folder: Path, pictures: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    poses, matrices = [], []
    for picture in pictures:
        path = folder.parent.parent / "camdata_left" / folder.name / f"{picture.stem}.cam"
        data = path.read_bytes() if path.is_file() else b""
        if len(data) != 4 + 21 * 8 or data[:4] != _TAG:
            return np.full((len(pictures), 3, 4), np.nan), np.full((len(pictures), 3, 3), np.nan)
        numbers = np.frombuffer(data, "<f8", offset=4)
        matrices.append(numbers[:9].reshape(3, 3))
        poses.append(numbers[9:].reshape(3, 4))
    return np.stack(poses), np.stack(matrices)


# --- The rows ---------------------------------------------------------------------------------------------------------

_FINE = 4 / 512  # metres
_ROOM = Fusion(_FINE, 0.04, 0.05)

LAYOUTS: Mapping[str, Layout] = {
    row.name: row
    for row in (
        Layout(
            "7scenes",
            "7-Scenes: [7Scenes/]SCENE/seq-01/frame-000000.color.png, .depth.png, .pose.txt; meshes/SCENE.ply",
            folders=("*/seq-01", "7Scenes/*/seq-01", "stairs/seq-02", "7Scenes/stairs/seq-02"),
            without=("stairs/seq-01",),
            part="-2",
            listed="*.color.png",
            truth=("{folder}/{stem}.depth.png",),
            format="open3d",
            invalid=(65535.0,),
            surface="{folder}/../../meshes/{scene}.ply",
            cameras=_seven_scenes,
            fusion=_ROOM,
        ),
        Layout(
            "eth3d",
            "ETH3D: SCENE/images/dslr_images/, dslr_calibration_jpg/, combined_mesh.ply, ground_truth_depth/",
            folders=("*",),
            listed="images/dslr_images/*.JPG",
            truth=("{folder}/ground_truth_depth/dslr_images/{name}",),
            format="raw",
            unknown="{folder}/masks_for_images/dslr_images/{stem}.png",
            marked=1,
            surface="{folder}/combined_mesh.ply",
            left_out={
                "delivery_area": tuple(f"{number}.JPG" for number in range(711, 715)),
                "electro": tuple(f"{number}.JPG" for number in (9289, 9290, 9291, 9292, 9293, 9298)),
                "playground": tuple(f"{number}.JPG" for number in range(587, 593)),
                "relief": tuple(f"{number}.JPG" for number in range(427, 439)),
                "relief_2": tuple(f"{number}.JPG" for number in range(458, 469)),
            },
            cameras=_colmap("dslr_calibration_jpg", "images"),
            fusion=Fusion(5 * _FINE, 0.2, 0.25),
        ),
        Layout(
            "scannetpp",
            "ScanNet++: SCENE/merge_dslr_iphone/images/iphone/, colmap/sparse_render_rgb/, render_depth/; SCENE/scans/",
            folders=("*/merge_dslr_iphone",),
            part="-2",
            listed="images/iphone/*.jpg",
            truth=("{folder}/render_depth/{stem}.png",),
            format="scannet",
            surface="{folder}/../scans/mesh_aligned_0.05.ply",
            cameras=_colmap("colmap/sparse_render_rgb", "images"),
            fusion=Fusion(0.02, 0.15, 0.05, farthest=5.0, margin=0.1),
        ),
        Layout(
            "hiroom",
            "HiRoom: data/A/B/C/image/, depth/, pose/, cam_K.npy, aliasing_mask/; fused_pcd/A-B-C.ply",
            folders=("data/*/*/*", "data/*/*", "data/*"),
            part="-",
            listed="image/*.*",
            truth=("{folder}/depth/{stem}.png",),
            format="depth",
            scale=655.35,
            unknown="{folder}/aliasing_mask/{stem}.png",
            surface="fused_pcd/{scene}.ply",
            cameras=_hiroom,
            fusion=_ROOM,
        ),
        Layout(
            "dtu",
            "DTU, 49 views: Rectified/scan1/rect_001_3_r5000.png, Cameras/00000000_cam.txt, Points/stl/ (poses alone)",
            folders=("Rectified/scan*",),
            listed="*.png",
            first=33,
            cameras=_dtu(lambda path: int(path.name.split("_")[1]) - 1),
        ),
        Layout(
            "dtu64",
            "DTU, 64 views: scan24/image/00000000.png, Cameras/00000000_cam.txt (poses alone)",
            folders=("scan*",),
            listed="image/*.png",
            first=33,
            cameras=_dtu(lambda path: int(path.stem)),
        ),
        Layout(
            "sintel",
            "MPI Sintel: training/clean/SCENE/frame_0001.png, training/depth/SCENE/frame_0001.dpt, camdata_left/",
            folders=("training/clean/*", "clean/*"),
            listed="*.png",
            truth=("{folder}/../../depth/{scene}/{stem}.dpt",),
            format="depth",
            cameras=_sintel,
            cap=70.0,
            frames=(0, 50, 1),
        ),
        Layout(
            "scannet",
            "ScanNet v2: scene0707_00/color/0.jpg, depth/0.png, pose/0.txt, intrinsic/intrinsic_color.txt",
            folders=("scene*", "scans_test/scene*"),
            listed="color/*.jpg",
            truth=("{folder}/depth/{stem}.png",),
            format="scannet",
            cameras=_scannet,
            cap=10.0,
            frames=(0, 270, 3),
            crop=(8, 11, -8, -11),
        ),
        Layout(
            "bonn",
            "Bonn RGB-D Dynamic: rgbd_bonn_NAME/rgb/TIME.png, depth/TIME.png",
            folders=("rgbd_bonn_*", "rgbd_bonn_dataset/rgbd_bonn_*"),
            listed="rgb/*.png",
            truth=("{folder}/depth/*.png",),
            format="tum",
            cap=10.0,
            frames=(30, 140, 1),
            even=True,
        ),
        Layout(
            "kitti",
            "KITTI depth: [data_depth_annotated/]val/DRIVE/proj_depth/groundtruth/image_02/, [raw_data/]DATE/DRIVE/",
            folders=("val/*", "data_depth_annotated/val/*"),
            listed="proj_depth/groundtruth/image_02/*.png",
            picture=(
                "{date}/{scene}/image_02/data/{name}",
                "raw_data/{date}/{scene}/image_02/data/{name}",
                "raw/{date}/{scene}/image_02/data/{name}",
            ),
            truth=("{folder}/{path}",),
            format="kitti",
            cap=80.0,
            frames=(0, 110, 1),
            even=True,
        ),
        Layout(
            "nyu",
            "NYUv2: filename_list_test.txt with a picture and its depth in millimetres on each line",
            folders=(".",),
            listed="filename_list_test.txt",
            format="nyu",
            cap=10.0,
            frames=(0, 1, 1),
            crop=(45, 41, 471, 601),
        ),
    )
}


def layout_of(name: str) -> Layout:
    """Return the row of a name. Raises UsageError."""
    if name not in LAYOUTS:
        raise UsageError(f"no layout is called {name!r}", f"choose from: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
