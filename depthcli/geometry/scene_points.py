"""Points of all views of a Scene in its world, and the pixels of two views that see the same point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Optional

import numpy as np

from depthcli.choices.scenes import SceneChoice
from depthcli.errors import EmptyShapeError
from depthcli.geometry.edges import find_edges
from depthcli.geometry.grid import thin
from depthcli.geometry.poses import centers, to_camera, to_world
from depthcli.geometry.rays import chunks, project, rays_at
from depthcli.geometry.solids import OPENCV, PointCloud
from depthcli.scene import Scene, View

# Confidence begins at 1, which says nothing: pixels below this are left out, but never more than nine of ten.
_LEAST_CONFIDENCE = 1.05
_MOST_LEFT_OUT = 90.0
# Two views see the same point if each finds the other's pixel within so many pixels of its map, at nearly its depth.
_SAME_PIXELS = 1.0
_SAME_DEPTH = 0.02
_JOINED = 256  # arrays that are joined at a time
_NEAREST_VIEWS = 100  # in which a point is looked for: in all views of a long scene it would take hours


@dataclass(frozen=True, eq=False)
class ViewPoints:
    """Points that one view sees.

    rows, columns: (N,) int32, pixels of its map. points: (N, 3) float64, in the world.
    """

    rows: np.ndarray
    columns: np.ndarray
    points: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """(N, 2) float64 (u, v)."""
        return np.stack([self.columns, self.rows], axis=1).astype(np.float64)


def confidence_floor(scene: Scene, percent: float) -> Optional[np.float32]:
    """Return the confidence from which on a pixel is kept: a percentile over all views; None if nothing tells it.

    It is 1.05 at least, and the 90th percentile at most, as in Depth Anything 3. What lies outside a picture, in a view
    that was padded, does not count.
    """
    known = _Joined()
    for view in scene.views if percent else ():
        if view.depth.confidence is not None:
            known.add(view.depth.confidence[view.inside].ravel())
    if not known:
        return None
    low, high = np.percentile(known.whole(), (percent, _MOST_LEFT_OUT))
    return np.float32(min(max(_LEAST_CONFIDENCE, low), high))


def has_depth(view: View) -> np.ndarray:
    """Return the (H, W) mask of the pixels whose depth is more than 0, valid and not sky."""
    mask = view.depth.values > 0
    if view.depth.valid is not None:
        mask &= view.depth.valid
    if view.depth.sky is not None:
        mask &= ~view.depth.sky
    return mask


def kept_masks(scene: Scene, choice: SceneChoice) -> list[np.ndarray]:
    """Return for each view the (H, W) mask of the pixels that become points. Raises OutputError if none is left."""
    floor = confidence_floor(scene, choice.confidence)
    found = []
    for view in scene.views:
        mask = has_depth(view)
        if choice.edges is not None:
            mask &= ~find_edges(view.depth.values, mask, choice.edges).flying
        if floor is not None and view.depth.confidence is not None:
            mask &= view.depth.confidence >= floor
        found.append(mask)
    if not any(mask.any() for mask in found):
        raise EmptyShapeError("no point of the scene is left", "use a smaller `confidence`, or set `edges` to off")
    return found


def points_by_view(scene: Scene, choice: SceneChoice = SceneChoice()) -> list[ViewPoints]:
    """Return the points of each view: row by row, or on a regular grid if all views have more than `choice.points`."""
    return list(_each_view(scene, choice))


def _each_view(scene: Scene, choice: SceneChoice) -> Iterator[ViewPoints]:
    masks = kept_masks(scene, choice)
    total = sum(int(mask.sum()) for mask in masks)
    for view, mask in zip(scene.views, masks):
        rows, columns = thin(mask, _share(mask, total, choice.points))
        yield ViewPoints(rows, columns, world_points(view, rows, columns))


class _Joined:
    """Arrays that become one: some at a time, as thousands of small ones take more than what is in them."""

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._some: list[np.ndarray] = []

    def __bool__(self) -> bool:
        return bool(self._blocks or self._some)

    def add(self, array: np.ndarray) -> None:
        """Take the next array."""
        self._some.append(array)
        if len(self._some) >= _JOINED:
            self._blocks, self._some = [*self._blocks, np.concatenate(self._some)], []

    def whole(self) -> np.ndarray:
        """Return all arrays, one after the other."""
        return np.concatenate([*self._blocks, *self._some])


def _share(mask: np.ndarray, total: int, most: Optional[int]) -> Optional[int]:
    """Return how many points a view may have of the most that all may have; None if all fit."""
    return None if most is None or total <= most else max(1, int(most * int(mask.sum()) / total))


def world_points(view: View, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the (N, 3) float64 points in the world of pixels at rows and columns (N,)."""
    out = np.empty((len(rows), 3))
    for part in chunks(len(rows)):
        pixels = np.stack([columns[part], rows[part]], axis=1).astype(np.float64)
        z = view.depth.values[rows[part], columns[part]].astype(np.float64)[:, None]
        out[part] = to_world(np.concatenate([rays_at(pixels, view.camera) * z, z], axis=1), view.extrinsics)
    return out


def scene_cloud(scene: Scene, choice: SceneChoice = SceneChoice()) -> PointCloud:
    """Return the points of all views, view after view, in the world and with OpenCV's axes.

    Colours are those of the pictures; None if a view has none. Raises OutputError if no point is left.
    """
    points, colors = _Joined(), _Joined()
    colored = True
    for view, some in zip(scene.views, _each_view(scene, choice)):
        points.add(some.points)
        colored = colored and view.picture is not None
        if colored:
            colors.add(view.picture[some.rows, some.columns])  # type: ignore[index]
    return PointCloud(
        points=points.whole(),
        colors=colors.whole() if colored else None,
        axes=OPENCV,
        unit=scene.unit,
        facts={"scene": dict(scene.facts), "views": len(scene.views), "kind": scene.kind.value},
    )


def seen_from(points: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 2) float64 pixels (u, v) of (N, 3) points of the world in a view's map, and their (N,) depth.

    Points behind the camera have a depth up to 0, and NaN for pixels.
    """
    local = to_camera(points, view.extrinsics)
    ahead = local[:, 2] > 0
    pixels = np.full((len(points), 2), np.nan)
    if ahead.any():
        pixels[ahead] = project(local[ahead], view.camera)
    return pixels, local[:, 2]


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points of the world, and the views that see them.

    points: (N, 3) float64. colors: (N, 3) uint8. For each of M sights: `point` (M,) its point, `view` (M,) its view,
    `pixels` (M, 2) float64 its place (u, v) in the view's map. Sights of a point follow each other; the first is where
    its depth was taken. errors: (N,) float64, mean distance in pixels of the map between a point's first sight and the
    places that the other views' own depths lead back to; -1 with one sight.
    """

    points: np.ndarray
    colors: np.ndarray
    point: np.ndarray
    view: np.ndarray
    pixels: np.ndarray
    errors: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """(N,) how many views see each point."""
        return np.bincount(self.point, minlength=len(self.points))


def find_tracks(scene: Scene, choice: SceneChoice = SceneChoice()) -> Tracks:
    """Return points of a scene, each with all the views that see it.

    View after view gives its pixels that no point of an earlier view has hit. Another view sees a point if it has depth
    where the point falls, at most 2 % from the point's, and if that depth leads back to within one pixel of where the
    point came from. Of more than a hundred other views, those taken nearest to it are asked. The most points are
    `choice.sparse_points`. Raises OutputError if no point is left.
    """
    masks = kept_masks(scene, choice)
    depths = [has_depth(view) for view in scene.views]
    places = centers(scene.extrinsics)
    total = sum(int(mask.sum()) for mask in masks)
    taken = [np.zeros(mask.shape, bool) for mask in masks]
    found: list[Tracks] = []
    for number, mask in enumerate(masks):
        rows, columns = thin(mask & ~taken[number], _share(mask, total, choice.sparse_points))
        others = _nearest_views(places, number)
        tracks = _tracks_from(scene, number, rows, columns, depths, others)
        for other in (number, *others):
            hit = taken[other]
            nearest = np.round(tracks.pixels[tracks.view == other]).astype(int)
            hit[nearest[:, 1], nearest[:, 0]] = True
        found.append(tracks)
    starts = np.cumsum([0, *(len(tracks.points) for tracks in found)])
    return Tracks(
        points=np.concatenate([tracks.points for tracks in found]),
        colors=np.concatenate([tracks.colors for tracks in found]),
        point=np.concatenate([tracks.point + start for tracks, start in zip(found, starts)]),
        view=np.concatenate([tracks.view for tracks in found]),
        pixels=np.concatenate([tracks.pixels for tracks in found]),
        errors=np.concatenate([tracks.errors for tracks in found]),
    )


def _tracks_from(
    scene: Scene,
    number: int,
    rows: np.ndarray,
    columns: np.ndarray,
    depths: Sequence[np.ndarray],
    others: Sequence[int],
) -> Tracks:
    """Return the tracks of the points that some pixels of one view see.

    depths: (H, W) masks of all views. others: views that may see them too.
    """
    view = scene.views[number]
    points = world_points(view, rows, columns)
    origin = np.stack([columns, rows], axis=1).astype(np.float64)
    errors, hits = np.zeros(len(points)), np.zeros(len(points), int)
    found = [(np.arange(len(points)), np.full(len(points), number), origin)]
    for other in others if len(points) else ():
        seen, pixels, error = _sees(points, origin, view, scene.views[other], depths[other])
        errors[seen] += error
        hits[seen] += 1
        found.append((seen, np.full(len(seen), other), pixels))
    owner, seer, places = (np.concatenate(parts) for parts in zip(*found))
    order = np.argsort(owner, kind="stable")
    return Tracks(
        points=points,
        colors=_colors(view, rows, columns),
        point=owner[order],
        view=seer[order],
        pixels=places[order],
        errors=np.where(hits > 0, errors / np.maximum(hits, 1), -1.0),
    )


def _nearest_views(places: np.ndarray, number: int) -> list[int]:
    """Return the other views, at most those whose (N, 3) places are nearest, in their order."""
    apart = ((places - places[number]) ** 2).sum(axis=1)
    apart[number] = -1  # itself, also where several views are in one place
    nearest: list[int] = np.argsort(apart, kind="stable")[1 : _NEAREST_VIEWS + 1].tolist()
    return sorted(nearest)


def _sees(
    points: np.ndarray, origin: np.ndarray, source: View, other: View, depth_there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points of one view another sees, their pixels (u, v) there, and the error of the way back."""
    pixels, z = seen_from(points, other)
    width, height = other.depth.size
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (pixels >= 0).all(axis=1) & (pixels <= (width - 1, height - 1)).all(axis=1)
    place = np.flatnonzero(inside)
    at, z = pixels[place], z[place]
    measured, good = _depth_at(other.depth.values, depth_there, at)
    good &= np.abs(measured - z) <= _SAME_DEPTH * z
    place, at, measured = place[good], at[good], measured[good]
    local = np.concatenate([rays_at(at, other.camera), np.ones((len(at), 1))], axis=1) * measured[:, None]
    back, ahead = seen_from(to_world(local, other.extrinsics), source)
    error = np.linalg.norm(back - origin[place], axis=1)
    with np.errstate(invalid="ignore"):
        close = (ahead > 0) & (error <= _SAME_PIXELS)
    return place[close], at[close], error[close]


def _depth_at(z: np.ndarray, there: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (N,) depths between pixels, and where all four around have one. Inverse depth is linear on a plane."""
    height, width = z.shape
    left = np.clip(np.floor(pixels[:, 0]).astype(int), 0, max(0, width - 2))
    top = np.clip(np.floor(pixels[:, 1]).astype(int), 0, max(0, height - 2))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    x, y = pixels[:, 0] - left, pixels[:, 1] - top
    total, known = np.zeros(len(pixels)), np.ones(len(pixels), bool)
    for rows, columns, weight in (
        (top, left, (1 - x) * (1 - y)),
        (top, right, x * (1 - y)),
        (bottom, left, (1 - x) * y),
        (bottom, right, x * y),
    ):
        known &= there[rows, columns]
        total += weight / np.where(there[rows, columns], z[rows, columns], 1).astype(np.float64)
    return 1 / total, known


def _colors(view: View, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    if view.picture is None:
        return np.full((len(rows), 3), 128, np.uint8)
    return view.picture[rows, columns]


def reproject(view: View, other: View, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the (N, 2) float64 pixels (u, v) in another view's map of pixels at rows and columns (N,) of a view's."""
    return seen_from(world_points(view, rows, columns), other)[0]


def shown(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return (N, 3) float64 points after a (4, 4) transform."""
    return np.asarray(points, np.float64) @ transform[:3, :3].T + transform[:3, 3]


def show_transform(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Return the (4, 4) transform of the world for people to look at, as Depth Anything 3 has it.

    The first camera looks along -z with y up, and the median of the (N, 3) points is the origin.
    """
    turn = np.diag([1.0, -1.0, -1.0, 1.0]) @ np.vstack([scene.views[0].extrinsics, [0, 0, 0, 1]])
    move = np.eye(4)
    move[:3, 3] = -np.median(shown(turn, points), axis=0)
    return move @ turn


def frusta(scene: Scene, size: float) -> Iterator[np.ndarray]:
    """Yield for each view (8, 2, 3) float64 segments in the world: its centre to the corners, then around them.

    size: depth of the corners. They are the centres of the map's corner pixels.
    """
    for view in scene.views:
        width, height = view.depth.size
        corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
        local = np.concatenate([rays_at(corners, view.camera), np.ones((4, 1))], axis=1) * size
        around = to_world(local, view.extrinsics)
        center = to_world(np.zeros((1, 3)), view.extrinsics)[0]
        spokes = [np.stack([center, corner]) for corner in around]
        yield np.stack([*spokes, *(np.stack([around[k], around[(k + 1) % 4]]) for k in range(4))])


def frustum_size(points: np.ndarray) -> float:
    """Return the depth of a shown frustum: 3 % of the extent of the points."""
    return 0.03 * extent(points)


def extent(points: np.ndarray) -> float:
    """Return the diagonal of the box around the middle 90 % of (N, 3) points."""
    low, high = np.percentile(points, (5, 95), axis=0)
    return float(np.linalg.norm(high - low))


def without_pictures(scene: Scene) -> Scene:
    """Return the scene without the colours of its views."""
    return replace(scene, views=tuple(replace(view, picture=None) for view in scene.views))
