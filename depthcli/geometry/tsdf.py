"""Depth maps of several views as one surface: a truncated signed distance to it, averaged on a sparse grid.

Formula: B. Curless, M. Levoy, "A volumetric method for building complex models from range images" (1996), with weights
of 1, as the benchmark of Depth Anything 3 takes it. The surface is found in tetrahedra, six to a cell: A. Doi, A.
Koide, "An efficient method of triangulating equi-valued surfaces by using tetrahedral cells" (1991).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_SIDE = 16  # voxels along a block
_SPARSE = 4  # every so many pixels of a row and column are looked at to find the blocks that a map touches
_AT_ONCE = 128  # blocks that are worked on together
_MOST_BLOCKS = 1 << 20  # along one axis, so that three numbers fit into one of 64 bits
# Six tetrahedra around the diagonal of a cell, of its corners x + 2 y + 4 z: neighbours share their faces.
_TETRAHEDRA = np.array([(0, 1, 3, 7), (0, 1, 5, 7), (0, 2, 3, 7), (0, 2, 6, 7), (0, 4, 5, 7), (0, 4, 6, 7)])


class Volume:
    """The distance of each voxel from the surface, positive before it, as views tell it.

    voxel: width of a voxel. truncation: distances beyond it are cut off in front and not known behind. farthest:
    depth beyond it is left out. All in the unit of the depth. Memory grows with the surface alone, 32 kB for each
    block of 16 voxels cubed.
    """

    def __init__(self, voxel: float, truncation: float, farthest: float = np.inf) -> None:
        if not 0 < voxel < np.inf or not 0 < truncation < np.inf:
            raise ValueError(f"voxels of {voxel} and distances up to {truncation} make no surface")
        self._voxel, self._truncation, self._farthest = voxel, truncation, farthest
        self._numbers = np.empty(0, np.int64)  # of the blocks, rising
        self._rows = np.empty(0, np.intp)  # where each of them is
        self._distances = np.empty((0, _SIDE**3), np.float32)
        self._weights = np.empty((0, _SIDE**3), np.float32)
        steps = np.arange(_SIDE)
        z, y, x = np.meshgrid(steps, steps, steps, indexing="ij")
        self._inside = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)

    def add(self, depth: np.ndarray, intrinsics: np.ndarray, extrinsics: np.ndarray) -> None:
        """Add a view. depth: (H, W) along the axis, 0 or no number where unknown. extrinsics: (3, 4), world to camera.

        Raises ValueError for a surface that is too wide for the voxels.
        """
        depth = np.where(np.isfinite(depth) & (depth > 0) & (depth <= self._farthest), depth, 0).astype(np.float32)
        turn, move = extrinsics[:3, :3].astype(np.float64), extrinsics[:3, 3].astype(np.float64)
        rows = self._room_for(self._touched(depth, intrinsics, turn, move))
        height, width = depth.shape
        flat, fx, fy, cx, cy = depth.ravel(), *(intrinsics[place] for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
        inside = (self._inside * self._voxel) @ turn.T
        corners = self._corners(rows) @ turn.T + move
        for part in _parts(len(rows)):
            some = rows[part]
            seen = (corners[part, None] + inside[None]).reshape(-1, 3)
            z = np.where(seen[:, 2] > 0, seen[:, 2], 1)
            x, y = seen[:, 0] / z, seen[:, 1] / z
            u, v = np.floor(fx * x + cx + 0.5), np.floor(fy * y + cy + 0.5)
            hit = (seen[:, 2] > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
            place = np.where(hit, v * width + u, 0).astype(np.intp)
            there = flat[place]
            apart = (there - z) * np.sqrt(1 + x * x + y * y)
            hit &= (there > 0) & (apart > -self._truncation)
            hit = hit.reshape(len(some), -1)
            new = np.minimum(1, apart / self._truncation).reshape(len(some), -1).astype(np.float32)
            distances, weights = self._distances[some], self._weights[some]
            self._distances[some] = np.where(hit, (distances * weights + new) / (weights + 1), distances)
            self._weights[some] = weights + hit

    def triangles(self) -> np.ndarray:
        """Return the surface, (T, 3, 3) float32 corners of triangles, wherever all corners of a cell were seen."""
        found = [np.empty((0, 3, 3), np.float32)]
        for part in _parts(len(self._numbers)):
            numbers, rows = self._numbers[part], self._rows[part]
            distances, seen = self._with_neighbours(numbers, rows)
            below, known = distances < 0, seen
            count = sum(_corner(below, corner).astype(np.int8) for corner in range(8))
            whole = np.logical_and.reduce([_corner(known, corner) for corner in range(8)])
            block, z, y, x = np.nonzero((count > 0) & (count < 8) & whole)
            if not len(block):
                continue
            values = np.stack([_corner(distances, corner)[block, z, y, x] for corner in range(8)], axis=1)
            cells = np.stack([x, y, z], axis=1) * self._voxel + self._corners(rows)[block]
            shifts = np.array([[corner & 1, corner >> 1 & 1, corner >> 2] for corner in range(8)]) * self._voxel
            corners = cells[:, None] + shifts[None]
            for tetrahedron in _TETRAHEDRA:
                found.append(_cut(values[:, tetrahedron], corners[:, tetrahedron]))
        return np.concatenate(found)

    def _touched(self, depth: np.ndarray, intrinsics: np.ndarray, turn: np.ndarray, move: np.ndarray) -> np.ndarray:
        """Return the numbers of the blocks that lie within the truncation of the points of a map."""
        v, u = np.nonzero(depth[::_SPARSE, ::_SPARSE])
        v, u = v * _SPARSE, u * _SPARSE
        z = depth[v, u].astype(np.float64)
        x, y = (u - intrinsics[0, 2]) / intrinsics[0, 0] * z, (v - intrinsics[1, 2]) / intrinsics[1, 1] * z
        points = (np.stack([x, y, z], axis=1) - move) @ turn
        width = self._voxel * _SIDE
        low, high = (
            np.floor((points + side) / width).astype(np.int64) for side in (-self._truncation, self._truncation)
        )
        if len(points) and max(-low.min(), high.max()) >= _MOST_BLOCKS // 2:
            raise ValueError(f"voxels of {self._voxel:.3g} are too small for a scene of this size")
        span = int((high - low).max(initial=0)) + 1
        numbers = [np.empty(0, np.int64)]
        for offset in np.ndindex(span, span, span):
            boxes = low + offset
            numbers.append(np.unique(_number(boxes[(boxes <= high).all(axis=1)])))
        return np.unique(np.concatenate(numbers))

    def _room_for(self, numbers: np.ndarray) -> np.ndarray:
        """Return the rows of blocks, which are made if they are new."""
        new = np.setdiff1d(numbers, self._numbers, assume_unique=True)
        if len(new):
            free = np.arange(len(self._numbers), len(self._numbers) + len(new))
            every, rows = np.concatenate([self._numbers, new]), np.concatenate([self._rows, free])
            order = np.argsort(every)
            self._numbers, self._rows = every[order], rows[order]
            if len(every) > len(self._distances):
                more = max(len(every) - len(self._distances), len(self._distances) // 2)
                for name in ("_distances", "_weights"):
                    setattr(self, name, np.concatenate([getattr(self, name), np.zeros((more, _SIDE**3), np.float32)]))
        return self._rows[np.searchsorted(self._numbers, numbers)]

    def _corners(self, rows: np.ndarray) -> np.ndarray:
        """Return the (N, 3) places of the first voxels of blocks."""
        numbers = np.empty(len(self._numbers), np.int64)
        numbers[self._rows] = self._numbers
        return _place(numbers[rows]) * (self._voxel * _SIDE)

    def _with_neighbours(self, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (N, 17, 17, 17) distances and whether they are known: blocks, with the voxels that follow them."""
        distances = np.zeros((len(rows), *(_SIDE + 1,) * 3), np.float32)
        known = np.zeros(distances.shape, bool)
        for shift in np.ndindex(2, 2, 2):  # z, y, x
            wanted = _number(_place(numbers) + shift[::-1])
            place = np.minimum(np.searchsorted(self._numbers, wanted), len(self._numbers) - 1)
            there = np.flatnonzero(self._numbers[place] == wanted)
            source = self._rows[place[there]]
            into = (there, *(slice(_SIDE, None) if one else slice(0, _SIDE) for one in shift))
            from_ = (slice(None), *(slice(0, 1) if one else slice(0, _SIDE) for one in shift))
            cube = (-1, _SIDE, _SIDE, _SIDE)
            distances[into] = self._distances[source].reshape(cube)[from_]
            known[into] = self._weights[source].reshape(cube)[from_] > 0
        return distances, known


def sample_triangles(triangles: np.ndarray, count: int, seed: int = 42) -> np.ndarray:
    """Return (count, 3) float64 points, spread evenly over the area of (T, 3, 3) triangles; none without an area."""
    sides = triangles[:, 1:].astype(np.float64) - triangles[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    ends = np.cumsum(areas)
    if not len(ends) or not 0 < ends[-1] < np.inf:
        return np.empty((0, 3))
    generator = np.random.default_rng(seed)
    chosen = np.minimum(np.searchsorted(ends, np.sort(generator.random(count)) * ends[-1], side="right"), len(ends) - 1)
    root, along = np.sqrt(generator.random(count)), generator.random(count)
    return (
        triangles[chosen, 0]
        + (root * (1 - along))[:, None] * sides[chosen, 0]
        + (root * along)[:, None] * sides[chosen, 1]
    )


def _cut(values: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the triangles in which 0 cuts tetrahedra. values: (N, 4). corners: (N, 4, 3)."""
    order = np.argsort(values >= 0, axis=1, kind="stable")  # those below 0 first
    values, corners = np.take_along_axis(values, order, 1), np.take_along_axis(corners, order[:, :, None], 1)
    below = (values < 0).sum(axis=1)
    out = []
    for count, faces in ((1, (((0, 1), (0, 2), (0, 3)),)), (3, (((0, 3), (1, 3), (2, 3)),)), (2, _TWO)):
        some, places = values[below == count].astype(np.float64), corners[below == count]
        for face in faces:
            found = []
            for a, b in face:
                along = some[:, a] / (some[:, a] - some[:, b])
                found.append(places[:, a] + along[:, None] * (places[:, b] - places[:, a]))
            out.append(np.stack(found, axis=1).astype(np.float32))
    return np.concatenate(out)


_TWO = (((0, 2), (0, 3), (1, 3)), ((0, 2), (1, 3), (1, 2)))


def _corner(values: np.ndarray, corner: int) -> np.ndarray:
    """Return the values at one corner of all cells."""
    x, y, z = (slice(bit, bit + _SIDE) for bit in (corner & 1, corner >> 1 & 1, corner >> 2))
    return values[:, z, y, x]


def _number(boxes: np.ndarray) -> np.ndarray:
    x, y, z = (boxes + _MOST_BLOCKS // 2).T
    return (x * _MOST_BLOCKS + y) * _MOST_BLOCKS + z


def _place(numbers: np.ndarray) -> np.ndarray:
    rest, z = np.divmod(numbers, _MOST_BLOCKS)
    x, y = np.divmod(rest, _MOST_BLOCKS)
    return np.stack([x, y, z], axis=1) - _MOST_BLOCKS // 2


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE))
