"""A chain of worlds and the loops that close it, as a least-squares problem over similarity transforms.

Each link says how one world lies in another; where links disagree, all of them give way a little. Solved by
Levenberg-Marquardt with the first world fixed. Tangents are (place, turn, logarithm of the scale), as of Lie algebra
sim(3): E. Eade, "Lie Groups for 2D and 3D Transformations".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from depthcli.geometry.poses import quaternions_of
from depthcli.geometry.sim3 import IDENTITY, Sim3

ROUNDS = 30
_DAMPING = 1e-6
_ENOUGH = 1e-12  # change of the cost, relative to it, at which the work ends
_LOOPS_AT_ONCE = 16  # whose columns are held together
_STEP = 1e-5  # of numerical derivatives, whose error is of its square
# Integrals over [0, 1] of smooth functions; 16 places give all digits for turns up to half a circle.
_PLACES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_AT, _SHARE = (_PLACES + 1) / 2, _WEIGHTS / 2


@dataclass(frozen=True, eq=False)
class Link:
    """A measured transform from world `source` to world `target`, by their numbers."""

    source: int
    target: int
    transform: Sim3


@dataclass(frozen=True, eq=False)
class Solution:
    """worlds: the transform of each world to the first. costs: sum of squared tangents before and after each round."""

    worlds: list[Sim3]
    costs: tuple[float, ...]


def close_loops(steps: Sequence[Sim3], loops: Sequence[Link], rounds: int = ROUNDS) -> Solution:
    """Return where the worlds of a chain lie after its loops are closed.

    steps: N transforms, each of world k + 1 to world k. loops: further links. All links weigh the same.
    """
    start = [IDENTITY]
    for step in steps:
        start.append(start[-1] @ step)
    links = [Link(k + 1, k, step) for k, step in enumerate(steps)] + list(loops)
    ends = np.array([(link.source, link.target) for link in links], np.intp).reshape(-1, 2)
    measured = matrices([link.transform for link in links])
    worlds, damping = matrices(start), _DAMPING
    residuals = _residuals(measured, worlds, ends)
    costs = [float((residuals**2).sum())]
    for _ in range(rounds if loops else 0):
        change = _solve(_derivatives(measured, worlds, ends), residuals, ends, len(steps), damping)
        moved = worlds.copy()
        moved[1:] = worlds[1:] @ exponential(change)
        after = _residuals(measured, moved, ends)
        cost, before = float((after**2).sum()), costs[-1]
        if not cost < before:
            damping *= 2
            costs.append(before)
            if damping > 1e6 or cost - before < _ENOUGH * before:
                break
            continue
        worlds, residuals, damping = moved, after, damping / 2
        costs.append(cost)
        if before - cost < _ENOUGH * before:
            break
    return Solution(transforms(worlds), tuple(costs))


def matrices(some: Sequence[Sim3]) -> np.ndarray:
    """Return (N, 4, 4) float64 matrices [[scale R, t], [0, 1]]."""
    out = np.tile(np.eye(4), (len(some), 1, 1))
    for matrix, one in zip(out, some):
        matrix[:3, :3], matrix[:3, 3] = one.scale * one.rotation, one.translation
    return out


def transforms(some: np.ndarray) -> list[Sim3]:
    """Return the transforms of (N, 4, 4) matrices, with rotations that are exact."""
    scales = np.cbrt(np.linalg.det(some[:, :3, :3]))
    u, _, v = np.linalg.svd(some[:, :3, :3])
    return [Sim3(float(scale), turn, matrix[:3, 3]) for scale, turn, matrix in zip(scales, u @ v, some)]


def exponential(tangents: np.ndarray) -> np.ndarray:
    """Return the (N, 4, 4) matrices of (N, 7) tangents."""
    turn, grow = tangents[:, 3:6], tangents[:, 6]
    angle = np.linalg.norm(turn, axis=1)
    cross = _cross(turn)
    sine, versine = np.sinc(angle / np.pi), np.sinc(angle / 2 / np.pi) ** 2 / 2
    rotation = np.eye(3) + sine[:, None, None] * cross + versine[:, None, None] * (cross @ cross)
    out = np.tile(np.eye(4), (len(tangents), 1, 1))
    out[:, :3, :3] = np.exp(grow)[:, None, None] * rotation
    out[:, :3, 3] = np.einsum("nij,nj->ni", _shifts(turn, grow), tangents[:, :3])
    return out


def logarithm(some: np.ndarray) -> np.ndarray:
    """Return the (N, 7) tangents of (N, 4, 4) matrices, with turns up to half a circle."""
    scales = np.cbrt(np.linalg.det(some[:, :3, :3]))
    quaternions = quaternions_of(some[:, :3, :3] / scales[:, None, None])
    length = np.linalg.norm(quaternions[:, :3], axis=1)
    half = np.arctan2(length, quaternions[:, 3])
    turn = quaternions[:, :3] * (2 * half / np.where(length > 0, length, 1))[:, None]
    grow = np.log(scales)
    place = np.linalg.solve(_shifts(turn, grow), some[:, :3, 3:])[:, :, 0]
    return np.concatenate([place, turn, grow[:, None]], axis=1)


def _cross(turn: np.ndarray) -> np.ndarray:
    x, y, z = turn.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)


def _shifts(turn: np.ndarray, grow: np.ndarray) -> np.ndarray:
    """Return the (N, 3, 3) matrices from the place in a tangent to the translation: the integral of exp(u (grow + turn)
    over u from 0 to 1."""
    angle = np.linalg.norm(turn, axis=1)
    part = angle[:, None] * _AT
    sizes = np.exp(grow[:, None] * _AT) * _SHARE
    sine = (sizes * _AT * np.sinc(part / np.pi)).sum(axis=1)
    versine = (sizes * _AT**2 * np.sinc(part / 2 / np.pi) ** 2 / 2).sum(axis=1)
    cross = _cross(turn)
    whole = sizes.sum(axis=1)
    return whole[:, None, None] * np.eye(3) + sine[:, None, None] * cross + versine[:, None, None] * (cross @ cross)


def _residuals(measured: np.ndarray, worlds: np.ndarray, ends: np.ndarray) -> np.ndarray:
    back = np.linalg.inv(worlds)
    return logarithm(measured @ back[ends[:, 0]] @ worlds[ends[:, 1]])


def _derivatives(measured: np.ndarray, worlds: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return (2, N, 7, 7): how the tangent of each link changes when its source, then its target, is moved."""
    between = np.linalg.inv(worlds)[ends[:, 0]] @ worlds[ends[:, 1]]
    out = np.empty((2, len(ends), 7, 7))
    for number in range(7):
        step = np.zeros((1, 7))
        step[0, number] = _STEP
        ahead, behind = exponential(step), exponential(-step)
        out[0, :, :, number] = logarithm(measured @ behind @ between) - logarithm(measured @ ahead @ between)
        out[1, :, :, number] = logarithm(measured @ between @ ahead) - logarithm(measured @ between @ behind)
    return out / (2 * _STEP)


def _solve(derivatives: np.ndarray, residuals: np.ndarray, ends: np.ndarray, count: int, damping: float) -> np.ndarray:
    """Return the (count, 7) damped step of all worlds but the first, which stays.

    The links of the chain are a matrix of blocks beside its diagonal, which is solved block after block; the few loops
    are added by the formula of Woodbury, some at a time, so that memory grows as the square of their number alone.
    """
    of_source, of_target = derivatives
    chain, loops = slice(0, count), slice(count, len(ends))
    diagonal = np.einsum("nki,nkj->nij", of_source[chain], of_source[chain])
    diagonal[:-1] += np.einsum("nki,nkj->nij", of_target[1:count], of_target[1:count])
    beside = np.einsum("nki,nkj->nij", of_target[1:count], of_source[1:count])
    right, sums = np.zeros((count + 1, 7)), np.zeros((count + 1, 7))
    np.add.at(right, ends[:, 0], -np.einsum("nki,nk->ni", of_source, residuals))
    np.add.at(right, ends[:, 1], -np.einsum("nki,nk->ni", of_target, residuals))
    sums[1:] = np.einsum("nii->ni", diagonal)
    for derivative, side in ((of_source[loops], 0), (of_target[loops], 1)):
        np.add.at(sums, ends[loops, side], (derivative**2).sum(axis=1))
    np.einsum("nii->ni", diagonal)[...] += damping * sums[1:]
    solver = _Blocks(diagonal, beside)
    alone = solver.solve(right[1:])
    some = range(count, len(ends), _LOOPS_AT_ONCE)
    inner = np.empty((7 * (len(ends) - count),) * 2)
    for start in some:
        part = slice(start, min(start + _LOOPS_AT_ONCE, len(ends)))
        through = solver.solve(_spread(derivatives[:, part], ends[part], count))
        columns = slice(7 * (part.start - count), 7 * (part.stop - count))
        inner[:, columns] = _gathered(derivatives[:, loops], ends[loops], through)
    inner[np.diag_indices(len(inner))] += 1
    shared = np.linalg.solve(inner, _gathered(derivatives[:, loops], ends[loops], alone[:, :, None])[:, 0])
    for start in some:
        part = slice(start, min(start + _LOOPS_AT_ONCE, len(ends)))
        spread = _spread(derivatives[:, part], ends[part], count)
        right[1:] -= spread @ shared[7 * (part.start - count) : 7 * (part.stop - count)]
    return solver.solve(right[1:])


def _spread(derivatives: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """Return (count, 7, 7 L): the transposed derivatives of L loops, as columns of all worlds but the first."""
    out = np.zeros((count + 1, 7, len(ends), 7))
    for number, pair in enumerate(ends):
        for side, world in enumerate(pair):
            out[world, :, number] += derivatives[side, number].T
    return out[1:].reshape(count, 7, -1)


def _gathered(derivatives: np.ndarray, ends: np.ndarray, through: np.ndarray) -> np.ndarray:
    """Return (7 L, C): the derivatives of L loops times (count, 7, C) columns of all worlds but the first."""
    out = np.zeros((len(ends), 7, through.shape[2]))
    for number, pair in enumerate(ends):
        for side, world in enumerate(pair):
            if world:
                out[number] += derivatives[side, number] @ through[world - 1]
    return out.reshape(-1, through.shape[2])


class _Blocks:
    """A symmetric matrix with (N, 7, 7) blocks on its diagonal and (N - 1, 7, 7) to the right of them."""

    def __init__(self, diagonal: np.ndarray, beside: np.ndarray) -> None:
        self._beside, self._pivots = beside, diagonal.copy()
        self._factors = np.empty_like(beside)
        for k in range(1, len(diagonal)):
            self._factors[k - 1] = np.linalg.solve(self._pivots[k - 1], beside[k - 1]).T
            self._pivots[k] -= self._factors[k - 1] @ beside[k - 1]

    def solve(self, right: np.ndarray) -> np.ndarray:
        """Return x for (N, 7) numbers or (N, 7, C) columns on the right."""
        out = right[:, :, None].copy() if right.ndim == 2 else right.copy()
        for k in range(1, len(out)):
            out[k] -= self._factors[k - 1] @ out[k - 1]
        for k in range(len(out) - 1, -1, -1):
            if k + 1 < len(out):
                out[k] -= self._beside[k] @ out[k + 1]
            out[k] = np.linalg.solve(self._pivots[k], out[k])
        return out.reshape(right.shape)
