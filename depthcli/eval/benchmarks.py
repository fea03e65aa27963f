"""Score predictions on data sets by the protocols of published benchmarks: cameras, reconstructions and clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Callable, Optional

import cv2
import numpy as np

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError, PictureError, UsageError
from depthcli.eval import clips, clouds, poses
from depthcli.eval.evaluate import known_truth, reason_of
from depthcli.eval.layouts import Fusion, Layout, TrueScene, draw
from depthcli.eval.lists import Entry
from depthcli.eval.predictions import SavedPredictions
from depthcli.eval.steadiness import SteadinessMeter
from depthcli.geometry.sim3 import align_cameras
from depthcli.geometry.tsdf import Volume, sample_triangles
from depthcli.io.codecs.arrays import read_bytes
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.numbers import read_numbers
from depthcli.io.pictures.images import read_picture
from depthcli.io.scenes.files import read_scene
from depthcli.io.trajectories import read_trajectory
from depthcli.scene import Scene, View

SCHEMA = "depthcli-benchmark/1"
POSE, RECON, RECON_POSED, CLIPS = "da3-pose", "da3-recon", "da3-recon-posed", "depthcrafter"
MOST_VIEWS = 100  # of a scene, as in the benchmark of Depth Anything 3

_RECON = (
    "cameras moved onto the true ones by a scale, turn and move of their places (RANSAC from 10 views on), depth "
    "scaled with them, pixels without true depth left out, fused into voxels, a million points of the surface; one "
    "point for each voxel on both sides; " + clouds.PROTOCOL.split("; clouds", 1)[0]
)
PROTOCOLS: Mapping[str, str] = {
    POSE: f"da3-pose: at most {MOST_VIEWS} views of a scene, drawn with the seed 42; {poses.PROTOCOL}",
    RECON: f"da3-recon: at most {MOST_VIEWS} views of a scene, drawn with the seed 42; {_RECON}",
    RECON_POSED: f"da3-recon-posed: as da3-recon, with the true cameras; {_RECON}",
    CLIPS: clips.PROTOCOL
    + "; OPW: depth against that of the frame before, moved along DIS flow, and TAE: moved by true cameras, percent",
}


@dataclass(frozen=True)
class SceneScore:
    """The figures of a scene or clip, or its error. frames: that were scored. code: exit code of the error."""

    name: str
    frames: int = 0
    figures: Mapping[str, Optional[float]] = field(default_factory=dict)
    error: str = ""
    code: int = 0


@dataclass(frozen=True, eq=False)
class Cameras:
    """Predicted cameras in order. names: of their pictures, or None. extrinsics: (N, 3, 4), world to camera."""

    names: Optional[tuple[str, ...]]
    extrinsics: np.ndarray


@dataclass(frozen=True)
class ClipRules:
    """How a clip is scored. cap: metres. frames: slice. cut: crop (top, left, bottom, right) of a size; None for none.

    still: nothing moves in the clips, so that TAE has a meaning.
    """

    cap: float
    frames: tuple[Optional[int], Optional[int], Optional[int]] = (None, None, None)
    cut: Optional[Callable[[tuple[int, int]], tuple[int, int, int, int]]] = None
    still: bool = False

    @classmethod
    def of(cls, layout: Layout) -> ClipRules:
        """Return the rules of a data set. Raises UsageError for one that is not of the protocol."""
        if not layout.cap:
            raise UsageError(f"{layout.name} is not a data set of {CLIPS}", f"use {POSE} or {RECON}")
        cut = layout.cut if layout.even or layout.crop != (None,) * 4 else None
        return cls(layout.cap, layout.frames, cut, layout.name == "scannet")


def check_layout(protocol: str, layout: Layout) -> None:
    """Raise UsageError for a data set that has not what a protocol compares with."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"no protocol is called {protocol!r}", f"choose from: {', '.join(PROTOCOLS)}")
    if protocol == CLIPS:
        ClipRules.of(layout)
    elif protocol == POSE and layout.cameras is None:
        raise UsageError(f"{layout.name} has no cameras to compare with", f"use {CLIPS}")
    elif protocol in (RECON, RECON_POSED) and layout.fusion is None:
        raise UsageError(
            f"{layout.name} has no surface that {protocol} compares with", "7scenes, eth3d and others have"
        )


def score_each(scenes: Sequence[TrueScene], score: Callable[[TrueScene], SceneScore]) -> Iterator[SceneScore]:
    """Yield one score per scene; a failed one has its error, and the rest goes on."""
    for scene in scenes:
        try:
            yield score(scene)
        except Exception as error:  # whatever a library raises for one scene, the others are scored
            text, code = reason_of(error)
            yield SceneScore(scene.name, error=text, code=code)


def mean(scores: Sequence[SceneScore]) -> dict[str, Optional[float]]:
    """Return the mean of each figure over the scenes that have it."""
    names = dict.fromkeys(name for score in scores for name in score.figures)
    means: dict[str, Optional[float]] = {}
    for name in names:
        values = [value for score in scores if (value := score.figures.get(name)) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


# --- Cameras and reconstructions --------------------------------------------------------------------------------------


def score_cameras(scene: TrueScene, predicted: Cameras) -> SceneScore:
    """Return pose AUC, ATE and RPE. Raises UsageError if cameras and pictures do not belong together."""
    rows, here = _matched(scene, predicted.names, len(predicted.extrinsics))
    scene = scene.chosen(rows)
    assert scene.extrinsics is not None
    known = np.isfinite(scene.extrinsics).all(axis=(1, 2))
    if known.sum() < 2:
        raise UsageError(f"{known.sum()} true cameras are known, and two are the least")
    figures = poses.score_poses(predicted.extrinsics[here][known], scene.extrinsics[known])
    return SceneScore(scene.name, int(known.sum()), figures)


def score_reconstruction(scene: TrueScene, predicted: Scene, fusion: Fusion, posed: bool = False) -> SceneScore:
    """Return the figures of the fused surface. posed: depth is placed by the true cameras.

    Raises UsageError if views and pictures do not belong together, and if the surface is not there.
    """
    if scene.surface is None:
        raise UsageError("its true surface is not there")
    surface = scene.surface
    rows, here = _matched(scene, tuple(view.name for view in predicted.views), len(predicted.views))
    scene, views = scene.chosen(rows), [predicted.views[number] for number in here]
    assert scene.extrinsics is not None and scene.intrinsics is not None
    known = np.flatnonzero(np.isfinite(scene.extrinsics).all(axis=(1, 2)))
    if len(known) < 2:
        raise UsageError(f"{len(known)} true cameras are known, and two are the least")
    ours = np.stack([view.extrinsics for view in views])
    moved = align_cameras(ours[known], scene.extrinsics[known])
    laid = moved.extrinsics(ours)
    volume = Volume(fusion.voxel, fusion.truncation, fusion.farthest)
    for number in known.tolist() if posed else range(len(views)):
        depth = _at_picture(views[number]) * moved.scale
        depth[~_counts(scene, number, depth.shape)] = 0
        if posed:
            volume.add(depth, scene.intrinsics[number], scene.extrinsics[number])
        else:
            volume.add(depth, views[number].picture_camera.intrinsics, laid[number])
    points = sample_triangles(volume.triangles(), clouds.SAMPLES)
    truth = clouds.read_points(surface)
    if fusion.margin is not None:
        low, high = truth.min(axis=0) - fusion.margin, truth.max(axis=0) + fusion.margin
        points = points[((points >= low) & (points <= high)).all(axis=1)]
    figures = asdict(clouds.score_cloud(points, truth, fusion.threshold, fusion.voxel))
    return SceneScore(scene.name, len(views), figures)


def _at_picture(view: View) -> np.ndarray:
    """Return (H, W) float32 depth at the size of the picture, nearest pixels, 0 where there is none."""
    values = np.where(view.depth.valid, view.depth.values, 0) if view.depth.valid is not None else view.depth.values
    if view.depth.sky is not None:
        values = np.where(view.depth.sky, 0, values)
    area, (width, height) = view.area, view.picture_size
    up, across, high, wide = (round(side) for side in (area.top, area.left, area.height, area.width))
    out = np.zeros((height, width), np.float32)
    full = cv2.resize(values.astype(np.float32), (wide, high), interpolation=cv2.INTER_NEAREST)
    top, left, bottom, right = max(up, 0), max(across, 0), min(up + high, height), min(across + wide, width)
    out[top:bottom, left:right] = full[top - up : bottom - up, left - across : right - across]
    return out


def _counts(scene: TrueScene, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the (H, W) mask of the pixels of a picture that count: those with true depth, where there is some."""
    entry, size = scene.entries[number], (shape[1], shape[0])
    if entry.truth is None:
        known = np.ones(shape, bool)
    elif entry.format == "raw":
        stored = np.frombuffer(read_bytes(entry.truth), "<f4")
        if stored.size != shape[0] * shape[1]:
            raise PictureError(f"{entry.truth} has {stored.size} numbers for a picture of {size[0]}x{size[1]}")
        known = (np.isfinite(stored) & (stored > 0)).reshape(shape)
    else:
        truth = known_truth(entry, size)
        assert truth is not None
        known = _nearest(truth.known, size)
    unknown = scene.unknown[number] if scene.unknown else None
    if unknown is None:
        return known
    marked = read_numbers(unknown)
    return known & ~_nearest(marked > 0 if scene.marked is None else marked == scene.marked, size)


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size[::-1]:
        return mask
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def _matched(scene: TrueScene, names: Optional[Sequence[str]], count: int) -> tuple[list[int], list[int]]:
    """Return the numbers of pictures and of predicted views that belong together, of those that the protocol draws.

    Views belong to pictures by their names, or by their order, if there is one for each picture, or for each that is
    drawn.
    """
    every, drawn = list(range(len(scene.entries))), draw(len(scene.entries), MOST_VIEWS)
    places = {entry.picture.name: number for number, entry in enumerate(scene.entries)}
    if names is not None and len(places) == len(scene.entries):
        stems = {entry.picture.stem: number for number, entry in enumerate(scene.entries)}
        found = [places.get(Path(name).name, stems.get(Path(name).name)) for name in names]
        pairs = [(number, view) for view, number in enumerate(found) if number is not None]
        pairs = [(number, view) for number, view in pairs if number in drawn]
        if len(pairs) >= 2 and len({number for number, _ in pairs}) == len(pairs):
            return [number for number, _ in pairs], [view for _, view in pairs]
    if count == len(drawn):
        return drawn, every[:count]
    if count != len(every):
        raise UsageError(
            f"there are {count} predicted views for {len(scene.entries)} pictures, and no names that fit",
            "scenes of `depth scene` have the names of their pictures",
        )
    return drawn, drawn


# --- Clips ------------------------------------------------------------------------------------------------------------


def clips_of(entries: Sequence[Entry]) -> tuple[tuple[TrueScene, ClipRules], ...]:
    """Return the clips of a list, each with its rules. Raises UsageError for an entry without what they need."""
    for entry in entries:
        if not entry.clip or entry.truth is None or entry.max_depth is None:
            raise UsageError(f"{entry.place}: {CLIPS} needs clip, truth and max_depth (the cap, in metres)")
    found = []
    for name, group in groupby(sorted(entries, key=lambda entry: entry.clip), key=lambda entry: entry.clip):
        frames = tuple(sorted(group, key=lambda entry: entry.number))
        caps = {frame.max_depth for frame in frames}
        if len(caps) > 1:
            raise UsageError(f"the frames of clip {name} have several max_depth")
        found.append((TrueScene(name, frames), ClipRules(float(caps.pop() or 0))))
    return tuple(found)


def frames_of(scene: TrueScene, rules: ClipRules) -> TrueScene:
    """Return the scene with the frames that count."""
    numbers = range(len(scene.entries))[slice(*rules.frames)]
    if not numbers:
        raise UsageError(f"it has {len(scene.entries)} frames, and those that count begin later")
    return scene.chosen(numbers)


def cropped(pixels: np.ndarray, rules: ClipRules) -> np.ndarray:
    """Return the part of a picture or map that counts."""
    if rules.cut is None:
        return pixels
    top, left, bottom, right = rules.cut((pixels.shape[1], pixels.shape[0]))
    return pixels[top:bottom, left:right]


def score_frames(scene: TrueScene, rules: ClipRules, predicted: Sequence[DepthMap]) -> SceneScore:
    """Return the figures of a clip. predicted: a map for each frame of `frames_of`, whole or `cropped`, of any size.

    A map of exactly the picture's size is of the whole picture. Raises PictureError for truth that cannot be read and a
    clip that cannot be fitted.
    """
    entries = scene.entries
    if len(predicted) != len(entries):
        raise UsageError(f"there are {len(predicted)} predicted maps for {len(entries)} frames")
    meter, fit = SteadinessMeter(), clips.ClipFit(rules.cap)
    sizes: list[tuple[int, int]] = []

    def frame(number: int) -> tuple[np.ndarray, np.ndarray]:
        truth = known_truth(entries[number], sizes[number])
        if truth is None:
            raise PictureError(f"{entries[number].name} has no true depth")
        depth = predicted[number]
        disparity = _disparity(depth)
        whole = rules.cut is None or depth.size == sizes[number]
        target = cropped(truth.values, rules)
        size = truth.size if whole else target.shape[::-1]
        disparity = cv2.resize(disparity, size, interpolation=cv2.INTER_LINEAR)
        return (cropped(disparity, rules) if whole else disparity), target

    for number, entry in enumerate(entries):
        picture = read_picture(entry.picture)
        sizes.append(picture.size)
        disparity, target = frame(number)
        fit.add(disparity, target)
        meter.add(cropped(picture.rgb, rules), disparity)
    try:
        score = clips.score_clip((frame(number) for number in range(len(entries))), fit)
    except ValueError as error:
        raise PictureError(str(error)) from error
    figures: dict[str, Optional[float]] = {
        "abs_rel": score.abs_rel,
        "rmse": score.rmse,
        "delta1": score.delta1,
        "opw": meter.result().opw,
        "tae": _tae(scene, rules, fit, frame, sizes),
        "scale": score.scale,
        "shift": score.shift,
    }
    return SceneScore(scene.name, score.frames, figures)


def _tae(
    scene: TrueScene,
    rules: ClipRules,
    fit: clips.ClipFit,
    frame: Callable[[int], tuple[np.ndarray, np.ndarray]],
    sizes: Sequence[tuple[int, int]],
) -> Optional[float]:
    """Return TAE in percent, of frames whose cameras are all known; None for others."""
    if not rules.still or scene.extrinsics is None or scene.intrinsics is None or len(scene.entries) < 2:
        return None
    if not np.isfinite(scene.extrinsics).all():
        return None
    depths = [fit.depth(frame(number)[0]).astype(np.float32) for number in range(len(scene.entries))]
    top, left, _, _ = rules.cut(sizes[0]) if rules.cut else (0, 0, 0, 0)
    height, width = cropped(np.empty(sizes[0][::-1], bool), rules).shape
    matrix = scene.intrinsics[0].copy()
    matrix[:2, 2] -= (left, top)
    # From pixels of the cropped picture to those of the cropped map: the same edges, pixel centres at integers.
    for row, ratio in enumerate((depths[0].shape[1] / width, depths[0].shape[0] / height)):
        matrix[row] *= ratio
        matrix[row, 2] += 0.5 * ratio - 0.5
    try:
        return clips.alignment_error(depths, matrix, scene.extrinsics, rules.cap)
    except ValueError:
        return None


def _disparity(depth: DepthMap) -> np.ndarray:
    """Return (H, W) float32, larger is nearer, 0 where there is no depth."""
    values = np.asarray(depth.values, np.float32)
    if not depth.kind.near_is_high:
        with np.errstate(divide="ignore"):
            values = np.where(values > 0, 1 / values, 0)
    return np.where(np.isfinite(values), values, 0).astype(np.float32)


# --- Saved predictions ------------------------------------------------------------------------------------------------

_SCENES = (
    *("{name}/exports/npz/results.npz", "{name}/exports/mini_npz/results.npz"),
    *("{name}/unposed/exports/mini_npz/results.npz", "{name}/results.npz", "{name}.npz"),
)
_PATHS = (
    *("{name}/cameras.json", "{name}/camera_poses.txt", "{name}/transforms.json", "{name}/sparse/0"),
    *("{name}/trajectory_tum.txt", "{name}.txt"),
)
_FRAMES = ("{name}_depth_npz", "{name}_depth_exr", "{name}_depth_npy", "{name}_depth_pfm")
_ARRAYS = ("{name}.npz", "{name}_depth.npz", "{name}_rgb_left.npz")


def saved_scene(folder: Path, name: str) -> Scene:
    """Return the predicted scene of a name: what `depth scene` wrote into folder/name, or Depth Anything 3.

    Raises OutputError if there is none.
    """
    path = _first(folder, name, _SCENES)
    return read_scene(path)


def saved_cameras(folder: Path, name: str) -> Cameras:
    """Return the predicted cameras of a name: of a scene, or a path of cameras. Raises OutputError, UsageError."""
    path = _first(folder, name, (*_SCENES, *_PATHS))
    if path.suffix == ".npz":
        scene = read_scene(path)
        return Cameras(tuple(view.name for view in scene.views), scene.extrinsics)
    found = read_trajectory(path)
    return Cameras(found.names, found.extrinsics)


def saved_frames(folder: Path, scene: TrueScene, rules: ClipRules, kind: Optional[DepthKind]) -> list[DepthMap]:
    """Return the predicted maps of the frames that count.

    They are frames that `depth video` wrote (NAME_depth_npz/ ...), an NPZ file with an array `depth` (T, H, W), such as
    DepthCrafter writes, or files for single pictures, see `SavedPredictions`. kind: of files that do not state it.
    """
    used = range(len(scene.entries))[slice(*rules.frames)]
    folders = [folder / pattern.format(name=scene.name) for pattern in _FRAMES]
    frames = next((sorted(path.glob("frame_*.*")) for path in folders if path.is_dir()), [])
    frames = [path for path in frames if path.suffix != ".json"]
    arrays = [folder / pattern.format(name=scene.name) for pattern in _ARRAYS]
    array = next((path for path in arrays if path.is_file()), None)
    if frames:
        return [read_depth(frames[number]) for number in _numbers(len(frames), used, scene)]
    if array is not None:
        numbers = _maps_in(array)
        if numbers is not None:
            told, chosen = kind or DepthKind.RELATIVE_DISPARITY, _numbers(len(numbers), used, scene)
            return [DepthMap(numbers[number].astype(np.float32), told) for number in chosen]
    saved = SavedPredictions(folder, scene.entries, kind)
    return [saved(scene.entries[number], read_picture(scene.entries[number].picture)) for number in used]


def _maps_in(path: Path) -> Optional[np.ndarray]:
    """Return the (T, H, W) maps in an NPZ file, in `depth`; None if it holds something else. Raises OutputError."""
    try:
        with np.load(path, allow_pickle=False) as held:
            numbers: np.ndarray = held["depth"] if "depth" in held.files else np.empty(0)
    except Exception as error:  # what readers of zip and npy raise on broken bytes has no common class
        raise OutputError(f"cannot read maps from {path}: {' '.join(str(error).split())}") from error
    shape = numbers.shape
    if len(shape) == 4 and shape[1] == 1:
        numbers = numbers.reshape(shape[0], *shape[2:])
    return numbers if numbers.ndim == 3 and numbers.dtype.kind == "f" else None


def _numbers(count: int, used: range, scene: TrueScene) -> Sequence[int]:
    """Return which maps of a clip are those of the frames that count: it has all frames, or these alone."""
    if count == len(scene.entries):
        return used
    if count < len(used):
        raise OutputError(f"there are {count} predicted maps for {len(used)} frames")
    return range(len(used))


def _first(folder: Path, name: str, patterns: Sequence[str]) -> Path:
    paths = [folder / pattern.format(name=name) for pattern in patterns]
    found = next((path for path in paths if path.exists()), None)
    if found is None:
        raise OutputError(f"{folder} holds no prediction for {name}", f"the first file looked for is {paths[0]}")
    return found


def named(scenes: Sequence[TrueScene], names: Sequence[str]) -> tuple[TrueScene, ...]:
    """Return the scenes with these names, all without any. Raises UsageError for a name that no scene has."""
    known = {scene.name: scene for scene in scenes}
    for name in names:
        if name not in known:
            shown = ", ".join(list(known)[:20])
            raise UsageError(f"no scene is called {name!r}", f"choose from: {shown}")
    return tuple(known[name] for name in names) if names else tuple(scenes)
