"""Scenes that share views: how one lies in the world of the other, and views carried from one to the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.choices.scenes import SceneChoice
from depthcli.depthmap import DepthMap
from depthcli.geometry.edges import find_edges
from depthcli.geometry.nearest import box_means
from depthcli.geometry.point_fit import fit_robust, pair_weights, robust_ratio
from depthcli.geometry.poses import centers
from depthcli.geometry.scene_points import has_depth, scene_cloud, seen_from, world_points
from depthcli.geometry.sim3 import Sim3
from depthcli.geometry.solids import PointCloud
from depthcli.scene import Area, Scene, View, ViewTable

_MOST_POINTS = 200_000  # that a fit uses; more only take longer
_ROUNDS = 12
_SAMPLE = 2000  # points of a view that are looked for in another one
_SAME_DEPTH = 0.1  # of it, for a point that two views see
_SHARED = 0.25  # share of a view's points that the other one sees, at least, if they show one place


def fit_views(source: Sequence[View], target: Sequence[View]) -> Sim3:
    """Return the transform from the world of one scene to that of another, by views that both have, in one order.

    The scale is that of the depths of the same pixels, whose error is a part of the depth: over a chain of chunks it
    drifts half as much as that of a fit of points, in which far points rule. Turn and place are those that bring the
    points of all pixels, and the cameras, together; the camera of a view weighs as much as all its pixels. Unsure
    pixels weigh less. Raises ValueError for maps of different sizes, and if points fix no transform.
    """
    if [view.depth.size for view in source] != [view.depth.size for view in target]:
        raise ValueError("the maps have different sizes")
    pixels = sum(view.depth.values.size for view in source)
    step = max(1, int(np.ceil(np.sqrt(pixels / _MOST_POINTS))))
    ours, theirs = (_sampled(views, step) for views in (source, target))
    weights = pair_weights(ours.sure, theirs.sure)
    scale = robust_ratio(ours.depths, theirs.depths, weights, _ROUNDS)
    sums = np.array([part.sum() for part in np.split(weights, ours.ends[:-1])])
    fit = fit_robust(
        np.concatenate([ours.points, ours.centers]) * scale,
        np.concatenate([theirs.points, theirs.centers]),
        np.concatenate([weights, sums]),
        with_scale=False,
        limit=None,
        rounds=_ROUNDS,
    )
    return Sim3(scale, fit.rotation, fit.translation)


@dataclass(frozen=True, eq=False)
class _Sampled:
    """Pixels of every so manieth row and column of V views, view after view.

    points: (N, 3) in the world. depths: (N,). sure: (N,), 0 without depth. ends: (V,) where each view ends.
    centers: (V, 3) places of the cameras.
    """

    points: np.ndarray
    depths: np.ndarray
    sure: np.ndarray
    ends: np.ndarray
    centers: np.ndarray


def _sampled(views: Sequence[View], step: int) -> _Sampled:
    points, depths, sure = [], [], []
    for view in views:
        width, height = view.depth.size
        rows, columns = (some.ravel() for some in np.mgrid[step // 2 : height : step, step // 2 : width : step])
        known = has_depth(view)[rows, columns]
        confidence = view.depth.confidence
        above = np.ones(len(rows)) if confidence is None else np.maximum(confidence[rows, columns] - 1.0, 0)
        points.append(world_points(view, rows, columns))
        depths.append(view.depth.values[rows, columns])
        sure.append(np.where(known & np.isfinite(above), above, 0))
    ends = np.cumsum([len(part) for part in sure])
    places = centers(np.stack([view.extrinsics for view in views]))
    return _Sampled(np.concatenate(points), np.concatenate(depths), np.concatenate(sure), ends, places)


def show_one_place(views: Sequence[View], others: Sequence[View]) -> bool:
    """Return whether a view of some sees much of what one of the others sees, at the depth that the other has there.

    All are of one scene. Networks put pictures of different places somewhere too, but not so.
    """
    some, rest = ([group[0], group[len(group) // 2], group[-1]] for group in (views, others))
    return any(_share_seen(one, other) >= _SHARED for one in some for other in rest)


def _share_seen(one: View, other: View) -> float:
    rows, columns = np.nonzero(has_depth(one))
    chosen = np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.intp)
    if not len(chosen):
        return 0.0
    pixels, z = seen_from(world_points(one, rows[chosen], columns[chosen]), other)
    width, height = other.depth.size
    inside = (z > 0) & (pixels >= -0.5).all(axis=1) & (pixels < (width - 0.5, height - 0.5)).all(axis=1)
    column, row = np.round(pixels[inside]).astype(np.intp).T
    there = other.depth.values[row, column]
    seen = has_depth(other)[row, column] & (np.abs(z[inside] - there) < _SAME_DEPTH * there)
    return float(seen.sum()) / len(chosen)


def moved_view(view: View, transform: Sim3) -> View:
    """Return a view in the world after a transform; its depth grows with the scale."""
    pose = transform.extrinsics(view.extrinsics[None])[0]
    depth = view.depth
    values = np.asarray(depth.values * np.float32(transform.scale), np.float32)
    return replace(view, depth=replace(depth, values=values, camera=replace(view.camera, extrinsics=pose)))


def sketched(view: View, pixels: int, edges: Optional[float]) -> View:
    """Return a view of every so manieth pixel of its map, at most `pixels` of them where it has more.

    Pixels between surfaces are invalid in it, by `edges` as of SceneChoice: with the pixels around them gone, nothing
    tells them later. Its camera and area are those of the pixels that are left.
    """
    width, height = view.depth.size
    step = max(1, int(np.ceil(np.sqrt(width * height / pixels))))
    valid = has_depth(view)
    if edges is not None:
        valid &= ~find_edges(view.depth.values, valid, edges).flying
    start = (step - 1) // 2
    rows, columns = slice(min(start, height - 1), None, step), slice(min(start, width - 1), None, step)
    offset = np.array([columns.start, rows.start], np.float64)
    matrix = np.array(view.camera.intrinsics)
    matrix[:2, 2] -= offset
    matrix[:2] /= step
    values = view.depth.values[rows, columns]
    scale = np.array(view.scale)
    corner = np.array([view.area.left, view.area.top]) + (offset + 0.5) * scale - 0.5 * step * scale
    extent = np.array(values.shape[::-1]) * step * scale
    confidence = view.depth.confidence
    depth = DepthMap(
        np.where(valid[rows, columns], values, np.float32(0)),
        view.depth.kind,
        view.depth.provenance,
        valid=valid[rows, columns],
        confidence=None if confidence is None else confidence[rows, columns].copy(),  # not all of the map
        camera=Camera(matrix, view.camera.source, view.extrinsics),
    )
    picture = None if view.picture is None else view.picture[rows, columns]
    return View(depth, view.name, picture, view.picture_size, Area(*corner.tolist(), *extent.tolist()))


def sketch_table(views: Iterable[View], count: int, pixels: int, edges: Optional[float]) -> ViewTable:
    """Return `sketched` views of one size as a table. count: of the views, which are taken one after the other."""
    first: Optional[View] = None
    names: list[str] = []
    arrays: dict[str, Optional[np.ndarray]] = {}
    for number, view in enumerate(views):
        small = sketched(view, pixels, edges)
        layers = {
            "depths": small.depth.values,
            "valid": small.depth.valid,
            "confidence": small.depth.confidence,
            "pictures": small.picture,
            "intrinsics": small.camera.intrinsics,
            "extrinsics": small.extrinsics,
        }
        if first is None:
            first = small
            arrays = {
                name: None if layer is None else np.empty((count, *layer.shape), layer.dtype)
                for name, layer in layers.items()
            }
        for name, layer in layers.items():
            array = arrays[name]
            if array is not None:
                array[number] = layer
        names.append(view.name)
    assert first is not None and len(names) == count
    return ViewTable(first, names, **arrays)  # type: ignore[arg-type]


def thin_cloud(scene: Scene, choice: SceneChoice) -> PointCloud:
    """Return the points of all views as `scene_cloud`, with one point, their mean, for those that lie together.

    Boxes are as wide as a pixel of the maps is at the median depth. Raises OutputError if no point is left.
    """
    cloud = scene_cloud(scene, choice)
    known = ((view, has_depth(view)) for view in scene.views)
    widths = [np.median(view.depth.values[mask]) / view.camera.focal[0] for view, mask in known if mask.any()]
    width = float(np.median(widths))
    colors = None if cloud.colors is None else cloud.colors.astype(np.float64)
    points, means = box_means(cloud.points, width, colors)
    return replace(
        cloud,
        points=points.astype(np.float32),
        colors=None if means is None else np.round(means).astype(np.uint8),
        facts={**cloud.facts, "box": width},
    )
