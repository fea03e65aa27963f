"""Scenes without a network: against the official code of Depth Anything 3, and real frames through files.

    python benchmarks/scene.py [--parity FOLDER] [--frames FOLDER]

--parity: reference outputs, da3_*.npz with reference_weights.py. --frames: gt-open3d, five frames of a Kinect and their
poses. Differences are the largest ones, of all numbers of an array; (relative) ones are parts of its largest number.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depthcli.camera import Camera, CameraSource  # noqa: E402
from depthcli.choices.scenes import SceneChoice  # noqa: E402
from depthcli.depthmap import DepthKind, DepthMap  # noqa: E402
from depthcli.geometry.poses import centers, decode_cameras, normalised, square  # noqa: E402
from depthcli.geometry.ray_pose import cameras_of_rays  # noqa: E402
from depthcli.geometry.scene_points import (  # noqa: E402
    frusta,
    frustum_size,
    scene_cloud,
    seen_from,
    show_transform,
    shown,
    world_points,
)
from depthcli.geometry.sim3 import align_cameras, umeyama  # noqa: E402
from depthcli.io.cameras.files import read_cameras  # noqa: E402
from depthcli.io.scenes.colmap import read_colmap  # noqa: E402
from depthcli.io.scenes.files import EXPORTS, read_scene_shape, write_scene  # noqa: E402
from depthcli.io.scenes.npz import read_npz  # noqa: E402
from depthcli.io.scenes.splats import Splats, kept_splats, write_splats  # noqa: E402
from depthcli.io.scenes.vis import depth_colors  # noqa: E402
from depthcli.pixels.metric_scene import metres_of, metric_scene  # noqa: E402
from depthcli.pixels.scene_input import Method, normalise, plan_scene, plan_view, prepare_view  # noqa: E402
from depthcli.pixels.sky import fill_sky  # noqa: E402
from depthcli.scene import Scene, View  # noqa: E402

Rows = Iterator[tuple[str, str]]


def off(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max())


def part(ours: np.ndarray, theirs: np.ndarray) -> float:
    return off(ours, theirs) / float(np.abs(theirs).max())


def preprocessing(folder: Path) -> Rows:
    from reference_weights import reference_image  # type: ignore[import-not-found]

    with np.load(folder / "da3_preprocess.npz") as data:
        golden = {name: data[name] for name in data.files}
    methods = [Method(name) for name in golden["methods"]]
    sizes = list(dict.fromkeys((int(row[0]), int(row[1])) for row in golden["cases"]))
    different, matrices = 0, 0.0
    for height, width, length, method, *_ in golden["cases"].tolist():
        plan = plan_view((width, height), length, methods[method])
        view = prepare_view(reference_image(height, width, "dev"), plan)
        key = f"{height}x{width}_r{length}_{methods[method].value}"
        different += not (
            (view[::8, ::8] == golden[f"{key}_every8"]).all()
            and np.allclose(view.reshape(-1, 3).mean(axis=0), golden[f"{key}_mean"], rtol=0, atol=1e-10)
        )
        matrices = max(
            matrices, off(plan.intrinsics(golden["input_K"][sizes.index((height, width))]), golden[f"{key}_K"])
        )
    yield f"preprocessing: pictures that differ, of {len(golden['cases'])}", str(different)
    yield "preprocessing: intrinsics", f"{matrices:.1e}"
    tensor = normalise(prepare_view(reference_image(131, 187, "dev"), plan_view((187, 131), 98)))
    yield "preprocessing: normalised", f"{off(tensor, golden['normalised']):.1e}"
    different = 0
    for method in methods:
        sizes = [(int(width), int(height)) for height, width in golden["mixed_sizes"]]
        plans, _ = plan_scene(sizes, 140, method)
        views = [prepare_view(reference_image(h, w, "dev"), plan) for (w, h), plan in zip(sizes, plans)]
        different += not (np.stack(views)[:, ::2, ::2] == golden[f"mixed_{method.value}"]).all()
    yield "preprocessing of mixed sizes: methods that differ, of 4", str(different)


def pipelines(folder: Path) -> Rows:
    first = np.load(folder / "da3_pipeline_small_n4_131x187_r98_posed.npz")
    kept = np.load(folder / "da3_pipeline_small_n4_131x187_r98_posed_keepscale.npz")
    given, moved = kept["input_extrinsics"], kept["extrinsics"][:, :3].astype(float)
    found = umeyama(centers(given), centers(moved))
    yield (
        "posed: the scale between both ways",
        f"{abs(found.scale - float(np.median(kept['depth'] / first['depth']))):.1e}",
    )
    yield "posed: given poses in the predicted world", f"{off(found.extrinsics(given), moved):.1e}"
    for path in sorted(folder.glob("da3_pipeline_*posed*.npz")):
        data = np.load(path)
        sizes = [(int(width), int(height)) for height, width in data["input_shapes"]]
        plans, _ = plan_scene(sizes, int(data["process_res"]), Method(data["method"].item()))
        ours = np.stack([plan.intrinsics(matrix) for plan, matrix in zip(plans, data["input_intrinsics"])])
        yield f"{path.stem[13:]}: intrinsics", f"{off(ours, data['intrinsics']):.1e}"


def functions(folder: Path) -> Rows:
    data = np.load(folder / "da3_functions.npz")
    metric = metres_of(data["nested_in_metric"], data["nested_in_intrinsics"])
    found = metric_scene(data["nested_in_depth"], data["nested_in_conf"], metric, data["nested_in_sky"])
    yield "nested: scale (relative)", f"{abs(found.scale / float(data['nested_out_scale']) - 1):.1e}"
    yield "nested: depth (relative)", f"{part(found.depth, data['nested_out_depth']):.1e}"
    yield "nested: confidence", f"{off(found.confidence, data['nested_out_conf']):.1e}"
    sky = fill_sky(data["nested_in_metric"], data["nested_in_sky"])
    yield "sky of mono (relative)", f"{part(sky, data['mono_sky_out_depth']):.1e}"
    for count in (4, 12):
        yield (
            f"{count} poses normalised",
            f"{off(normalised(data[f'normalise_in_{count}']), data[f'normalise_out_{count}']):.1e}",
        )
        given, predicted = data[f"umeyama_{count}_given"], data[f"umeyama_{count}_predicted"]
        moved = square(align_cameras(given, predicted).extrinsics(given))
        yield f"{count} poses aligned", f"{off(moved, data[f'umeyama_{count}_aligned']):.1e}"
    worst = [0.0, 0.0]
    for path in sorted(folder.glob("da3_net_*.npz")):
        data = np.load(path)
        if "pose_enc" in data.files and "nested" not in path.name:
            height, width = data["depth"].shape[-2:]
            extrinsics, intrinsics = decode_cameras(data["pose_enc"].reshape(-1, 9), (width, height))
            worst[0] = max(worst[0], part(extrinsics, data["extrinsics"].reshape(extrinsics.shape)))
            worst[1] = max(worst[1], part(intrinsics, data["intrinsics"].reshape(intrinsics.shape)))
    yield "pose codes of all networks: extrinsics, intrinsics (relative)", f"{worst[0]:.1e}, {worst[1]:.1e}"


def ray_poses(folder: Path) -> Rows:
    data = np.load(folder / "da3_ray_pose.npz")
    for case, centred in (("centred", True), ("offcentre", False), ("noisy", True)):
        height, width = (int(side) for side in data[f"{case}_size"])
        found = cameras_of_rays(data[f"{case}_ray"], data[f"{case}_conf"], (width, height), centred=centred)
        truth = (
            off(found.extrinsics, data[f"{case}_true_extrinsics"]),
            off(found.intrinsics, data[f"{case}_true_intrinsics"]),
        )
        seeds = min(off(found.extrinsics, seed) for seed in data[f"{case}_extrinsics"])
        theirs = off(data[f"{case}_extrinsics"][0], data[f"{case}_true_extrinsics"])
        spread = float(np.ptp(data[f"{case}_extrinsics"], axis=0).max())
        yield (
            f"ray pose, {case}: pose, K from truth; pose from nearest official seed; official from truth; its seeds",
            f"{truth[0]:.1e}, {truth[1]:.1e}; {seeds:.1e}; {theirs:.1e}; {spread:.1e}",
        )


def exports(folder: Path) -> Rows:
    data = np.load(folder / "da3_exports.npz")
    scene = golden_scene(data, "in_depth")
    for name, percent in (("default", 40), ("p70", 70)):
        choice = SceneChoice(confidence=percent, edges=None, points=None)
        cloud = scene_cloud(scene, choice)
        transform = show_transform(scene, cloud.points)
        places = shown(transform, cloud.points)
        theirs = data[f"glb_{name}_points"]
        step = -(-len(places) // len(theirs))
        assert cloud.colors is not None
        colours = int((cloud.colors[::step] != data[f"glb_{name}_colours"][:, :3]).sum())
        yield f"glb {name}: points, theirs", f"{len(places)}, {int(data[f'glb_{name}_count'])}"
        yield (
            f"glb {name}: places, transform",
            f"{off(places[::step], theirs):.1e}, {off(transform, data[f'glb_{name}_transform']):.1e}",
        )
        yield f"glb {name}: colours that differ", str(colours)
        lines = [shown(transform, line.reshape(-1, 3)) for line in frusta(scene, frustum_size(places))]
        ends = max(off(_sorted(line), _sorted(data[f"glb_{name}_camera{n}"])) for n, line in enumerate(lines))
        yield f"glb {name}: ends of the lines around the views", f"{ends:.1e}"
    threshold = np.percentile(data["in_conf"], 60)
    other = golden_scene(data, "colmap_in_depth")
    masks = [conf >= threshold for conf in data["in_conf"]]
    solid = np.concatenate([world_points(view, *np.nonzero(mask)) for view, mask in zip(other.views, masks)])
    yield "colmap: points, theirs", f"{len(solid)}, {int(data['colmap_count'])}"
    yield "colmap: places", f"{off(solid[::5], data['colmap_xyz']):.1e}"
    half = golden_scene(data, "in_depth", shift=0.5, sizes=data["colmap_picture_sizes"])
    pinholes = np.array([[*v.picture_camera.focal, *(np.array(v.picture_camera.center) + 0.5)] for v in half.views])
    yield "colmap: cameras (relative)", f"{part(pinholes, data['colmap_camera_params']):.1e}"
    with tempfile.TemporaryDirectory() as place:
        write_scene(scene, Path(place), ["npz", "mini_npz"])
        for name, digits in (("npz", 6), ("mini_npz", 8)):
            with np.load(Path(place) / "exports" / name / "results.npz") as file:
                depth, conf = np.round(file["depth"], digits), np.round(file["conf"], 2)
            there = np.isfinite(data[f"{name}_depth"]) & (data[f"{name}_depth"] > 0)
            yield (
                f"{name}: depth, confidence",
                f"{off(depth[there], data[f'{name}_depth'][there]):.1e}, {off(conf, data[f'{name}_conf']):.1e}",
            )
    splats = Splats(*(data[f"gs_in_{name}"] for name in ("means", "scales", "rotations", "opacities", "dc")))
    stream, kept = io.BytesIO(), kept_splats(data["gs_in_depth"])
    write_splats(splats, stream, kept)
    rows = np.frombuffer(stream.getvalue().partition(b"end_header\n")[2], "<f4").reshape(-1, 17)
    yield "gs_ply: Gaussians, theirs", f"{len(rows)}, {int(data['gs_ply_count'])}"
    yield "gs_ply: rows", f"{off(rows[::11], data['gs_ply_rows']):.1e}"
    vis = np.load(folder / "da3_depth_vis.npz")
    colours = [depth_colors(depth) for depth in vis["in_depth"]]
    yield "depth_vis: colours that differ", str(int((np.stack(colours) != vis["depth_vis_colours"]).sum()))


def golden_scene(data: np.lib.npyio.NpzFile, depth: str, shift: float = 0, sizes: np.ndarray | None = None) -> Scene:
    """Return the scene of the file. shift: of principal points, from theirs to ours. sizes: of pictures, (H, W)."""
    views = []
    for number, values in enumerate(data[depth]):
        camera = Camera(data["in_intrinsics"][number], CameraSource.PREDICTED, data["in_extrinsics"][number])
        mapped = DepthMap(
            np.where(np.isfinite(values), values, 0),
            DepthKind.RELATIVE_DEPTH,
            confidence=data["in_conf"][number],
            camera=camera.cropped(shift, shift),
        )
        size = (0, 0) if sizes is None else (int(sizes.reshape(-1, 2)[number][1]), int(sizes.reshape(-1, 2)[number][0]))
        views.append(View(mapped, f"pic_{number}.png", data["in_images"][number], size))
    return Scene(tuple(views))


def _sorted(ends: np.ndarray) -> np.ndarray:
    """Return places in an order that does not depend on how lines are listed."""
    rows = ends.astype(np.float64)
    return rows[np.lexsort(np.round(rows, 4).T)]


def frames(folder: Path) -> Rows:
    poses = [line.split() for line in (folder / "trajectory.log").read_text().splitlines()]
    views = []
    for number in range(5):
        pose = np.linalg.inv(np.array(poses[5 * number + 1 : 5 * number + 5], float))[:3]
        depth = cv2.imread(str(folder / f"depth/{number:05d}.png"), -1).astype(np.float32) / 1000
        colours = cv2.imread(str(folder / f"color/{number:05d}.jpg"))[..., ::-1]
        camera = Camera(np.array([[525, 0, 319.5], [0, 525, 239.5], [0, 0, 1]]), CameraSource.GIVEN, pose)
        views.append(
            View(DepthMap(depth, DepthKind.METRIC_DEPTH, valid=depth > 0, camera=camera), f"{number:05d}.jpg", colours)
        )
    scene = Scene(tuple(views))
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        for name in (name for name in EXPORTS if name != "gs_ply"):
            target = out / name if name in ("glb-mesh", "colmap-txt") else out
            start = time.perf_counter()
            written = write_scene(scene, target, [name], SceneChoice(points=300_000))
            size = sum(path.stat().st_size for path in written) / 1e6
            yield f"frames: {name}", f"{time.perf_counter() - start:.2f} s, {size:.1f} MB"
        model = read_colmap(out / "sparse/0")
        lengths = np.bincount(np.bincount(model.tracks[:, 0]), minlength=6)[1:]
        yield (
            "frames: points in COLMAP, by the number of views that see them",
            f"{len(model.points)}: {lengths.tolist()}",
        )
        seen = model.errors[model.errors >= 0]
        yield (
            "frames: error of the way back, median and 90 %, pixels",
            f"{np.median(seen):.3f}, {np.percentile(seen, 90):.3f}",
        )
        cloud = scene_cloud(scene, SceneChoice(points=20_000)).points
        shape, stored = read_scene_shape(out / "scene.glb"), read_npz(out / "exports/npz/results.npz")
        cameras = {name: read_cameras(out / name).cameras for name in ("transforms.json", "cameras.json", "sparse/0")}
        for number, view in enumerate(views):
            direct = seen_from(cloud, view)[0]
            found = {name: Camera(c[number].camera.intrinsics, "given", c[number].pose) for name, c in cameras.items()}  # type: ignore[union-attr,arg-type]
            found |= {"scene.glb": shape.cameras[number], "npz": stored.views[number].camera}
            worst = max(off(_projected(cloud, camera), direct) for camera in found.values())
            yield f"frames: points in view {number}, by cameras of five files, from the scene's, pixels", f"{worst:.1e}"


def _projected(points: np.ndarray, camera: Camera) -> np.ndarray:
    size = (640, 480)
    depth = DepthMap(np.ones(size[::-1]), DepthKind.METRIC_DEPTH, camera=camera)
    return seen_from(points, View(depth, "a.png"))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parity", type=Path)
    parser.add_argument("--frames", type=Path)
    given = parser.parse_args()
    if given.parity is not None:
        sys.path.insert(0, str(given.parity))
        for table in (preprocessing, pipelines, functions, ray_poses, exports):
            for name, value in table(given.parity):
                print(f"{name:<110} {value}")
    if given.frames is not None:
        for name, value in frames(given.frames):
            print(f"{name:<110} {value}")


if __name__ == "__main__":
    main()
