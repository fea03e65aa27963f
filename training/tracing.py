"""Exact ray casting of a batch of scenes: which surface every ray meets first, and how far away.

Rays have unit length along the optical axis (the third camera coordinate of a direction is 1), so the ray parameter t
of a hit is its depth z in scene units, and the target of the training, disparity, is 1 / t.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training import fused
from training.objects import BALLS, BOXES, PARTS

NEAR = 0.02
_TINY = 1e-9
_SHADOW_GAP = 0.02


@dataclass(frozen=True)
class Solids:
    """What stands in a batch of B scenes, S things of PARTS parts each, inside one room per scene.

    into: (B, S, 3, 3) world -> unit frame of a thing (rotation, then division by its size); place: (B, S, 3) origin
    of that frame in the world; size: (B, S, 3) metres; centres, halves: (B, S, PARTS, 3) parts in the unit frame;
    room_low, room_high: (B, 3) opposite corners of the room, which every camera is inside.
    """

    into: torch.Tensor
    place: torch.Tensor
    size: torch.Tensor
    centres: torch.Tensor
    halves: torch.Tensor
    room_low: torch.Tensor
    room_high: torch.Tensor


def length(vectors: torch.Tensor) -> torch.Tensor:
    """Lengths of vectors (3, B, N): (B, N)."""
    return (vectors[0] * vectors[0] + vectors[1] * vectors[1] + vectors[2] * vectors[2]).sqrt()


def _into_frame(rays: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Directions (3, B, N) of the world in the unit frame of a thing, into (B, 3, 3); never exactly zero."""
    turned = torch.stack([sum(into[:, a, b, None] * rays[b] for b in range(3)) for a in range(3)])
    return torch.where(turned.abs() < _TINY, torch.full_like(turned, _TINY), turned)


def _nearest_of_thing(
    origin: torch.Tensor,
    ray: torch.Tensor,
    centres: torch.Tensor,
    halves: torch.Tensor,
    best: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Meet the parts of one thing per scene and keep what is nearer than before.

    origin: (3, B, 1) and ray: (3, B, N) in the unit frame of the thing; centres, halves: (B, PARTS, 3); best: (B, N)
    nearest t so far. Returns the new nearest t and the part it belongs to, -1 where no part was nearer.
    """
    which = torch.full_like(best, -1.0)
    inverse = 1.0 / ray
    for part in range(PARTS):
        centre, half = centres[:, part, :, None], halves[:, part, :, None]
        middle = [(centre[:, a] - origin[a]) * inverse[a] for a in range(3)]
        reach = [half[:, a] * inverse[a].abs() for a in range(3)]
        if part < BOXES:
            enter = torch.maximum(torch.maximum(middle[0] - reach[0], middle[1] - reach[1]), middle[2] - reach[2])
            leave = torch.minimum(torch.minimum(middle[0] + reach[0], middle[1] + reach[1]), middle[2] + reach[2])
        else:
            axes = (0, 1, 2) if part < BOXES + BALLS else (0, 2)
            aa = ab = bb = 0.0
            for a in axes:
                narrow = 1.0 / half[:, a]
                step, begin = ray[a] * narrow, (origin[a] - centre[:, a]) * narrow
                aa, ab, bb = aa + step * step, ab + step * begin, bb + begin * begin
            under = ab * ab - aa * (bb - 1.0)
            root = under.clamp(min=0.0).sqrt()
            # A ray that misses gets an empty interval, so no mask has to be carried along.
            enter = torch.where(under > 0, (-ab - root) / aa, torch.full_like(root, 1e9))
            leave = (root - ab) / aa
            if len(axes) == 2:
                enter = torch.maximum(enter, middle[1] - reach[1])
                leave = torch.minimum(leave, middle[1] + reach[1])
        hit = (enter < leave) & (enter > NEAR) & (enter < best)
        best = torch.where(hit, enter, best)
        which = torch.where(hit, torch.full_like(which, float(part)), which)
    return best, which


class Tracer:
    """The ray queries; compiled: by the C++ form of the loop, for a CPU, instead of by tensor operations."""

    def __init__(self, compiled: bool = False) -> None:
        self._library = fused.build() if compiled else None

    def _things(
        self, solids: Solids, origin: torch.Tensor, rays: torch.Tensor, best: torch.Tensor, which: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        things = solids.place.shape[1]
        if self._library is not None:
            tensors = (rays, origin, solids.into, solids.place, solids.centres, solids.halves, best, which)
            tensors = [tensor.contiguous() for tensor in tensors]
            fused.call(self._library, tensors, [*best.shape, things, PARTS, BOXES, BALLS], NEAR)
            return tensors[-2], tensors[-1]
        for number in range(things):
            into = solids.into[:, number]
            start = torch.einsum("bij,bj->ib", into, origin - solids.place[:, number]).unsqueeze(-1)
            best, part = _nearest_of_thing(
                start, _into_frame(rays, into), solids.centres[:, number], solids.halves[:, number], best
            )
            which = torch.where(part >= 0, part + number * PARTS, which)
        return best, which

    def nearest(self, solids: Solids, position: torch.Tensor, rays: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """First hit of rays (3, B, N) from position (B, 3): t (B, N) and part number (B, N), S * PARTS for the room."""
        inverse = 1.0 / torch.where(rays.abs() < _TINY, torch.full_like(rays, _TINY), rays)
        low = (solids.room_low - position).t().unsqueeze(-1) * inverse
        high = (solids.room_high - position).t().unsqueeze(-1) * inverse
        best = torch.maximum(low, high).amin(0)
        which = torch.full_like(best, float(solids.place.shape[1] * PARTS))
        best, which = self._things(solids, position, rays, best, which)
        return best, which.long()

    def shadow(self, solids: Solids, light: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """1 where something stands between a lamp (B, 3) and points (3, B, N), else 0: (B, N).

        The rays start at the lamp, one origin per scene, so that the loop of the camera's rays serves here too.
        """
        rays = points - light.t().unsqueeze(-1)
        best = torch.ones_like(rays[0])
        best, _ = self._things(solids, light, rays, best, torch.zeros_like(best))
        return ((1.0 - best) * length(rays) > _SHADOW_GAP).to(rays.dtype)


@dataclass(frozen=True)
class Surface:
    """What the rays met: point (3, B, N) world; normal (3, B, N) world, unit, towards the camera; u, v (B, N) metres
    along the surface; material (B, N) row of the material table: S * PARTS parts, then the six faces of the room."""

    point: torch.Tensor
    normal: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    material: torch.Tensor


def _part_rows(solids: Solids) -> torch.Tensor:
    """Everything needed at a hit, one row per part and one for the room: (B, S * PARTS + 1, 21)."""
    batch, slots = solids.place.shape[:2]

    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.unsqueeze(2).expand(batch, slots, PARTS, values.shape[-1])

    parts = torch.cat(
        [spread(solids.into.flatten(2)), spread(solids.place), spread(solids.size), solids.centres, solids.halves], -1
    ).flatten(1, 2)
    middle, half = (solids.room_low + solids.room_high) / 2, (solids.room_high - solids.room_low) / 2
    unit = torch.eye(3, device=half.device).flatten().expand(batch, 9)
    room = torch.cat([unit, torch.zeros_like(half), torch.ones_like(half), middle, half], -1)
    return torch.cat([parts, room.unsqueeze(1)], 1)


def _axis_normal(p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Face of the unit cube that points (3, B, N) lie on: normal (3, B, N) and axis (B, N)."""
    axis = p.abs().argmax(0)
    onehot = torch.stack([(axis == a) for a in range(3)]).to(p.dtype)
    return onehot * p.sign(), axis


def surface(
    solids: Solids, position: torch.Tensor, rays: torch.Tensor, t: torch.Tensor, which: torch.Tensor
) -> Surface:
    """Point, normal, texture coordinates and material of every hit."""
    batch, count = t.shape
    rows = _part_rows(solids)
    number = rows.shape[1]
    index = which + torch.arange(batch, device=t.device).unsqueeze(1) * number
    row = torch.nn.functional.embedding(index, rows.flatten(0, 1)).permute(2, 0, 1)
    into, place, size, centre, half = row[:9].reshape(3, 3, batch, count), row[9:12], row[12:15], row[15:18], row[18:21]
    point = position.t().unsqueeze(-1) + rays * t
    shifted = point - place
    local = sum(into[:, a] * shifted[a] for a in range(3)) - centre
    p = local / half
    face, axis = _axis_normal(p)
    shape = which % PARTS
    room = which == number - 1
    ball = (shape >= BOXES) & (shape < BOXES + BALLS) & ~room
    side = (shape >= BOXES + BALLS) & (p[1].abs() < 0.999) & ~room
    round_side = torch.stack([p[0], torch.zeros_like(p[1]), p[2]])
    flat = torch.where(ball, p, torch.where(side, round_side, face)) / half
    normal = sum(into[a] * flat[a] for a in range(3))
    normal = normal / length(normal).clamp(min=1e-12)
    normal = torch.where((normal * rays).sum(0) > 0, -normal, normal)
    metric = local * size
    u = torch.where(axis == 0, metric[2], metric[0])
    v = torch.where(axis == 1, metric[2], metric[1])
    sign = torch.gather(p, 0, axis.unsqueeze(0)).squeeze(0) > 0
    material = torch.where(room, number - 1 + axis * 2 + sign.long(), which)
    return Surface(point, normal, u, v, material)
