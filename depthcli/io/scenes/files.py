"""The files of a scene in its folder, by format. Paths of npz, mini_npz, glb and depth_vis are those of DA3.

    npz         exports/npz/results.npz         glb, glb-mesh  scene.glb, scene.jpg
    mini_npz    exports/mini_npz/results.npz    ply            scene.ply, in the world of the cameras
    colmap      sparse/0/*.bin                  transforms     transforms.json
    colmap-txt  sparse/0/*.txt                  depth_vis      depth_vis/0000.jpg ...
    cameras     cameras.json                    gs_ply         gs_ply/0000.ply
    html        scene.html                      feat_vis       feat_vis/0000.jpg ...
    poses       camera_poses.txt, intrinsic.txt, trajectory_tum.txt, trajectory_kitti.txt

Other files in the folder stay. A further format is a row of EXPORTS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Callable

import numpy as np

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.scene_points import scene_cloud
from depthcli.host.atomic import atomic_path
from depthcli.io.points.files import write_shape
from depthcli.io.scenes import colmap, vis
from depthcli.io.scenes.cameras import write_cameras
from depthcli.io.scenes.features import enlarged
from depthcli.io.scenes.glb import SceneShape, read_scene_glb, write_scene_glb
from depthcli.io.scenes.npz import read_npz, write_npz
from depthcli.io.scenes.page import write_scene_page
from depthcli.io.scenes.splats import Splats, kept_splats, write_splats
from depthcli.io.scenes.transforms import write_transforms
from depthcli.io.trajectories import write_intrinsics, write_kitti, write_matrices, write_tum
from depthcli.pixels.features import feature_colors
from depthcli.scene import Scene, View

NPZ, MINI_NPZ = Path("exports/npz/results.npz"), Path("exports/mini_npz/results.npz")
GLB, THUMBNAIL, PLY, PAGE = Path("scene.glb"), Path("scene.jpg"), Path("scene.ply"), Path("scene.html")
MODEL = Path("sparse/0")
TRANSFORMS, CAMERAS, VIS = Path("transforms.json"), Path("cameras.json"), Path("depth_vis")
GAUSSIANS, FEATURES = Path("gs_ply/0000.ply"), Path("feat_vis")
POSES, INTRINSICS = Path("camera_poses.txt"), Path("intrinsic.txt")
TUM, KITTI = Path("trajectory_tum.txt"), Path("trajectory_kitti.txt")

_Export = Callable[[Scene, Path, SceneChoice], "list[Path]"]


def _one(path: Path, write: Callable[[IO[bytes]], None]) -> list[Path]:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        write(stream)
    return [path]


def _npz(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _one(folder / NPZ, lambda stream: write_npz(scene, stream))


def _mini_npz(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _one(folder / MINI_NPZ, lambda stream: write_npz(scene, stream, mini=True))


def _glb(scene: Scene, folder: Path, choice: SceneChoice, meshes: bool = False) -> list[Path]:
    written = _one(folder / GLB, lambda stream: write_scene_glb(scene, stream, choice, meshes))
    picture = scene.views[0].picture
    if picture is not None:
        written += _one(folder / THUMBNAIL, lambda stream: _put(stream, vis.jpeg(picture)))
    return written


def _glb_mesh(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _glb(scene, folder, choice, meshes=True)


def _ply(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    cloud = scene_cloud(scene, choice)
    write_shape(cloud, folder / PLY)
    return [folder / PLY]


def _colmap(scene: Scene, folder: Path, choice: SceneChoice, suffix: str = ".bin") -> list[Path]:
    return colmap.write_colmap(colmap.colmap_model(scene, choice), folder / MODEL, suffix)


def _colmap_txt(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _colmap(scene, folder, choice, ".txt")


def _transforms(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    cloud = PLY.as_posix() if (folder / PLY).is_file() else ""
    return _one(folder / TRANSFORMS, lambda stream: write_transforms(scene, stream, cloud=cloud))


def _cameras(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _one(folder / CAMERAS, lambda stream: write_cameras(scene, stream))


def _poses(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    poses = scene.extrinsics
    maps_to_pictures = np.empty((len(scene.views), 3, 3))
    for number, view in enumerate(scene.views):
        maps_to_pictures[number] = view.picture_camera.intrinsics
    return [
        *_one(folder / POSES, lambda stream: write_matrices(poses, stream)),
        *_one(folder / INTRINSICS, lambda stream: write_intrinsics(maps_to_pictures, stream)),
        *_one(folder / TUM, lambda stream: write_tum(poses, frame_numbers(scene), stream)),
        *_one(folder / KITTI, lambda stream: write_kitti(poses, stream)),
    ]


def frame_numbers(scene: Scene) -> list[float]:
    """Return what stands for times in a TUM file: the numbers in the views' names if they rise, else 0, 1, 2 ..."""
    found = [re.findall(r"\d+", PurePosixPath(name).stem) for name in scene.names]
    numbers = [float(digits[-1]) for digits in found if digits]
    rises = len(numbers) == len(found) and all(before < after for before, after in zip(numbers, numbers[1:]))
    return numbers if rises else [float(number) for number in range(len(found))]


def _depth_vis(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return [path for number, view in enumerate(scene.views) for path in write_vis(view, number, folder)]


def write_vis(view: View, number: int, folder: Path) -> list[Path]:
    """Write the picture of a view and its depth side by side; return the file. number: of the view."""
    pixels = vis.jpeg(vis.beside_picture(view))
    return _one(folder / str(VIS / "{:04d}.jpg").format(number), lambda stream: _put(stream, pixels))


def _html(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    return _one(folder / PAGE, lambda stream: write_scene_page(scene, stream, choice))


def _put(stream: IO[bytes], content: bytes) -> None:
    stream.write(content)


def _gs_ply(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    if scene.gaussians is None:
        raise OutputError("the scene has no Gaussians", "they come from `model` da3-giant or da3-nested")
    found = scene.gaussians
    splats = Splats(found.means, found.scales, found.rotations, found.opacities, found.harmonics[:, :, 0])
    kept = kept_splats(np.stack([view.depth.values for view in scene.views]))
    for mask, view in zip(kept, scene.views):
        if view.depth.valid is not None:
            mask &= view.depth.valid
    return _one(folder / GAUSSIANS, lambda stream: write_splats(splats, stream, kept))


def _feat_vis(scene: Scene, folder: Path, choice: SceneChoice) -> list[Path]:
    if scene.features is None:
        raise OutputError("the scene has no features", "`depth scene` keeps them if the network runs for them")
    written = []
    for number, (view, colors) in enumerate(zip(scene.views, feature_colors(scene.features))):
        content = vis.jpeg(enlarged(colors, view.depth.size))
        written += _one(folder / FEATURES / f"{number:04d}.jpg", partial(_put, content=content))
    return written


@dataclass(frozen=True)
class Export:
    """One format of a scene.

    what: for people. paths: of its files in the folder; a number such as {:04d} stands for each view. write: takes the
    scene, the folder and the choice, and returns the files.
    """

    what: str
    paths: tuple[Path, ...]
    write: _Export

    def files(self, views: int) -> list[Path]:
        """Return the paths of its files, relative to the folder, for so many views."""
        numbered = [path for path in self.paths if "{" in path.name]
        single = [path for path in self.paths if path not in numbered]
        return [*single, *(Path(str(path).format(number)) for path in numbered for number in range(views))]


def _model_files(suffix: str) -> tuple[Path, ...]:
    return tuple(MODEL / f"{name}{suffix}" for name in ("cameras", "images", "points3D"))


EXPORTS: dict[str, Export] = {
    "npz": Export("depth, confidence, cameras, pictures: keys of Depth Anything 3", (NPZ,), _npz),
    "mini_npz": Export("the same without pictures", (MINI_NPZ,), _mini_npz),
    "glb": Export("points and cameras, glTF 2.0", (GLB, THUMBNAIL), _glb),
    "glb-mesh": Export("a mesh per view and cameras, glTF 2.0", (GLB, THUMBNAIL), _glb_mesh),
    "ply": Export("points, PLY", (PLY,), _ply),
    "colmap": Export("COLMAP model, binary", _model_files(".bin"), _colmap),
    "colmap-txt": Export("COLMAP model, text", _model_files(".txt"), _colmap_txt),
    "transforms": Export("cameras for Nerfstudio and instant-ngp", (TRANSFORMS,), _transforms),
    "cameras": Export("cameras with all digits, JSON", (CAMERAS,), _cameras),
    "poses": Export("path of the cameras, text: DA3-Streaming, TUM, KITTI", (POSES, INTRINSICS, TUM, KITTI), _poses),
    "depth_vis": Export("picture and depth side by side, JPEG", (VIS / "{:04d}.jpg",), _depth_vis),
    "html": Export("page to look at in a browser", (PAGE,), _html),
    "gs_ply": Export("Gaussian splats of da3-giant, PLY", (GAUSSIANS,), _gs_ply),
    "feat_vis": Export("what the network's last block sees, in colours", (FEATURES / "{:04d}.jpg",), _feat_vis),
}
_SAME_FILES = (("glb", "glb-mesh"), ("colmap", "colmap-txt"))


def check_exports(formats: Sequence[str]) -> None:
    """Raise UsageError for a format that is none, and for two that are written to the same place."""
    unknown = [name for name in formats if name not in EXPORTS]
    if unknown:
        raise UsageError(f"a scene is not written as {', '.join(unknown)}", f"choose from: {', '.join(EXPORTS)}")
    for pair in _SAME_FILES:
        if set(pair) <= set(formats):
            raise UsageError(f"{pair[0]} and {pair[1]} would be written to the same place", "choose one of them")


def in_order(formats: Sequence[str]) -> list[str]:
    """Return formats in the order in which they are written, each once: PLY before transforms.json, which names it."""
    return sorted(dict.fromkeys(formats), key=lambda name: (name != "ply", list(EXPORTS).index(name)))


def write_scene(
    scene: Scene, folder: Path | str, formats: Sequence[str], choice: SceneChoice = SceneChoice()
) -> list[Path]:
    """Write a scene in several formats; return the files. Each file, or model of COLMAP, appears whole or not at all.

    Raises UsageError as `check_exports`, OutputError if something cannot be written or no point is left.
    """
    check_exports(formats)
    return [path for name in in_order(formats) for path in EXPORTS[name].write(scene, Path(folder), choice)]


def read_scene(path: Path | str) -> Scene:
    """Return the scene in an NPZ file of ours or of Depth Anything 3. Raises OutputError for any other file."""
    return read_npz(Path(path))


def read_scene_shape(path: Path) -> SceneShape:
    """Return what a GLB file of a scene holds. Raises OutputError for any other file."""
    try:
        return read_scene_glb(path.read_bytes())
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist") from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise OutputError(f"cannot read {path} as a scene: {' '.join(str(error).split()) or 'it is broken'}") from error
