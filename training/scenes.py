"""Random scenes: what stands where, what it is made of, where the light is, and the camera that looks at it.

The world has y up and metres; the ground or floor is y = 0. All draws are made for a whole batch of one style at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.objects import INDEX, PARTS, TEMPLATES, Catalogue
from training.tracing import Solids

Range = tuple[float, float]


@dataclass(frozen=True)
class Group:
    """count things of one of the named templates, put by one rule.

    rule: "front" (standing, before the camera), "wall" (standing with its back to a wall), "pinned" (on a wall),
    "ceiling" (hanging from the ceiling), "on" (on one of the things before it that carry others), "spray" (growing out
    of the top of the last thing of another rule, leaning any way), "left"/"right" (along a road), "float" (anywhere in
    view, turned in any way).
    """

    count: int
    names: tuple[str, ...]
    rule: str
    distance: Range = (0.8, 6.0)
    scale: float = 1.0


@dataclass(frozen=True)
class Style:
    """Ranges of one kind of scene: degrees and metres; share: how much of the data; outdoors: walls become sky."""

    name: str
    share: float
    groups: tuple[Group, ...]
    width: Range
    height: Range
    depth: Range
    camera: Range
    pitch: tuple[float, float]
    view: Range
    outdoors: bool = False
    ahead: float = 180.0


_SMALL = ("ball", "can", "bottle", "books", "carton", "plant", "screen", "carton", "can", "pot")
_SEATS = (
    "chair",
    "armchair",
    "chair",
    "sofa",
    "person",
    "table",
    "round table",
    "crate",
    "floor lamp",
    "plant",
    "desk",
    "office chair",
    "stool",
)
_BULKY = (
    "wardrobe",
    "cabinet",
    "shelf",
    "sofa",
    "bed",
    "desk",
    "table",
    "full shelf",
    "full shelf",
    "cabinet",
    "column",
)

STYLES: tuple[Style, ...] = (
    Style(
        "room",
        0.40,
        (
            Group(4, _BULKY, "wall"),
            Group(6, _SEATS, "front", (1.1, 7.0)),
            Group(7, _SMALL, "on"),
            Group(1, ("flat slab", "person"), "front", (0.8, 4.0)),
            Group(3, ("panel", "panel", "wall shelf"), "pinned"),
            Group(1, ("ball", "can", "carton", "panel"), "ceiling", (1.0, 5.0)),
            Group(1, ("pot", "can", "stool"), "front", (1.0, 5.0)),
            Group(5, ("leaf",), "spray", scale=1.2),
        ),
        (2.5, 9.0),
        (2.2, 3.6),
        (2.5, 11.0),
        (0.8, 1.9),
        (-13.0, 8.0),
        (48.0, 80.0),
    ),
    Style(
        "desk",
        0.15,
        (
            Group(3, ("full shelf", "shelf", "cabinet", "wardrobe", "desk"), "wall"),
            Group(2, ("desk", "table", "desk", "cabinet"), "front", (1.2, 3.0)),
            Group(9, (*_SMALL, "screen", "books"), "on"),
            Group(3, ("chair", "office chair", "office chair", "stool", "armchair"), "front", (0.9, 3.0)),
            Group(2, ("crate", "motorbike", "plant", "person", "motorbike"), "front", (1.2, 3.5)),
            Group(1, ("person",), "front", (0.6, 2.0)),
            Group(3, ("panel", "wall shelf"), "pinned"),
        ),
        (2.2, 5.0),
        (2.2, 3.2),
        (2.2, 5.5),
        (0.9, 1.8),
        (-14.0, 9.0),
        (45.0, 75.0),
    ),
    Style(
        "street",
        0.18,
        (
            Group(2, ("house",), "left", (4.0, 9.0)),
            Group(2, ("house",), "right", (4.0, 9.0)),
            Group(1, ("pavement",), "left", (2.0, 6.0)),
            Group(1, ("pavement",), "right", (2.0, 6.0)),
            Group(1, ("line",), "left", (0.05, 3.0)),
            Group(1, ("line",), "right", (0.05, 3.0)),
            Group(1, ("wall piece", "fence", "bush", "house"), "left", (2.5, 6.0)),
            Group(1, ("wall piece", "fence", "bush", "house"), "right", (2.5, 6.0)),
            Group(2, ("tree", "fir", "pole", "street lamp", "bush", "sign"), "left", (3.0, 7.0)),
            Group(2, ("tree", "fir", "pole", "street lamp", "bush", "sign"), "right", (3.0, 7.0)),
            Group(2, ("car", "van", "car", "motorbike"), "left", (1.4, 3.6)),
            Group(2, ("car", "van", "car", "motorbike"), "right", (1.4, 3.6)),
            Group(3, ("car", "person", "person", "pole", "sign", "motorbike", "van"), "front", (4.0, 40.0)),
        ),
        (300.0, 500.0),
        (150.0, 200.0),
        (300.0, 500.0),
        (0.9, 2.6),
        (-3.0, 4.0),
        (45.0, 95.0),
        True,
        10.0,
    ),
    Style(
        "nature",
        0.06,
        (
            Group(3, ("hill",), "front", (25.0, 120.0)),
            Group(6, ("tree", "fir", "bush", "tree"), "front", (4.0, 60.0)),
            Group(2, ("bush", "crate", "person", "wall piece", "fence", "house"), "front", (3.0, 25.0)),
            Group(3, ("person", "pole", "ball", "bush", "car", "sign"), "front", (2.0, 20.0)),
            Group(1, ("person",), "front", (0.8, 3.0)),
        ),
        (300.0, 500.0),
        (150.0, 200.0),
        (300.0, 500.0),
        (0.6, 4.0),
        (-4.0, 10.0),
        (45.0, 85.0),
        True,
    ),
    Style(
        "close",
        0.18,
        (
            Group(7, (*_SMALL, "leaf", "crate"), "front", (0.35, 2.2), 0.9),
            Group(3, _SMALL, "on", scale=0.7),
            Group(1, ("motorbike", "armchair", "crate", "cabinet", "plant"), "front", (0.8, 2.5), 0.8),
            Group(1, ("panel",), "pinned"),
            Group(1, ("pot", "pot", "can", "bottle", "carton"), "front", (0.5, 1.5)),
            Group(10, ("leaf",), "spray", scale=0.6),
        ),
        (1.2, 4.5),
        (2.0, 3.5),
        (1.2, 4.5),
        (0.25, 1.1),
        (-18.0, 9.0),
        (35.0, 70.0),
    ),
    Style(
        "chaos",
        0.03,
        (
            Group(8, (*_SMALL, "crate", "leaf", "pole", "panel"), "float", (0.6, 6.0), 1.6),
            Group(4, _BULKY + _SEATS, "float", (1.5, 7.0)),
        ),
        (2.5, 14.0),
        (2.5, 9.0),
        (2.5, 14.0),
        (0.5, 2.4),
        (0.0, 40.0),
        (35.0, 90.0),
    ),
)


@dataclass(frozen=True)
class Materials:
    """One row per part and room face, (B, M) or (B, M, 3): texture number, periods per metre, offset of the texture,
    plain colour, share of the texture in the colour, light given off."""

    texture: torch.Tensor
    frequency: torch.Tensor
    offset: torch.Tensor
    colour: torch.Tensor
    mix: torch.Tensor
    glow: torch.Tensor


@dataclass(frozen=True)
class Scene:
    """A batch of scenes of one style. right, up, forward: (B, 3) camera axes; position: (B, 3); spread: (B,) half the
    picture's width at depth 1; light: (B, 3) place of the lamp or, far away, the sun; ambient, direct: (B,)."""

    style: Style
    solids: Solids
    materials: Materials
    right: torch.Tensor
    up: torch.Tensor
    forward: torch.Tensor
    position: torch.Tensor
    spread: torch.Tensor
    light: torch.Tensor
    ambient: torch.Tensor
    direct: torch.Tensor


def _draw(batch: int, bounds: Range, device: torch.device) -> torch.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(batch, device=device)


def _log_draw(batch: int, bounds: Range, device: torch.device) -> torch.Tensor:
    return torch.exp(_draw(batch, (math.log(bounds[0]), math.log(bounds[1])), device))


def _turn(angle: torch.Tensor) -> torch.Tensor:
    """World -> thing rotation about y by angle (B,): (B, 3, 3)."""
    c, s, o = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([c, o, -s, o, o + 1, o, s, o, c], -1).view(-1, 3, 3)


def _any_rotation(batch: int, device: torch.device) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(batch, 3, 3, device=device))[0]


@dataclass(frozen=True)
class _Camera:
    position: torch.Tensor
    yaw: torch.Tensor
    right: torch.Tensor
    up: torch.Tensor
    forward: torch.Tensor
    spread: torch.Tensor


def _camera(style: Style, batch: int, low: torch.Tensor, high: torch.Tensor, wild: float) -> _Camera:
    """A camera inside the room; a share `wild` of the batch is pitched, and another rolled, in any way."""
    device = low.device
    yaw = torch.randn(batch, device=device) * math.radians(style.ahead)
    pitch = torch.randn(batch, device=device) * math.radians(style.pitch[1]) + math.radians(style.pitch[0])
    pitch = torch.where(torch.rand(batch, device=device) < wild, torch.randn_like(pitch) * math.radians(40), pitch)
    pitch = pitch.clamp(-1.5, 1.5)
    roll = torch.randn(batch, device=device) * math.radians(4)
    anyhow = _draw(batch, (-math.pi, math.pi), device)
    roll = torch.where(torch.rand(batch, device=device) < wild, anyhow, roll)
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(yaw)
    forward = torch.stack([sy * cp, sp, cy * cp], -1)
    right = torch.stack([cy, zero, -sy], -1)
    up = torch.cross(forward, right, dim=-1)
    c, s = roll.cos().unsqueeze(-1), roll.sin().unsqueeze(-1)
    right, up = c * right + s * up, c * up - s * right
    inside = low + (high - low) * (0.08 + 0.84 * torch.rand(batch, 3, device=device))
    if style.outdoors:
        inside[:, 0] = torch.randn(batch, device=device) * 1.2
        inside[:, 2] = 0.0
    else:  # people stand back from what they photograph: most of the room lies in front of the camera
        back = 1 - 0.6 * torch.rand(batch, device=device) ** 2
        middle = (low + high) / 2
        reach = (high - low)[:, [0, 2]].amax(-1) * 0.45
        inside[:, 0] = inside[:, 0].lerp(middle[:, 0] - forward[:, 0] * reach, back)
        inside[:, 2] = inside[:, 2].lerp(middle[:, 2] - forward[:, 2] * reach, back)
        inside = torch.maximum(torch.minimum(inside, high - 0.1), low + 0.1)
    inside[:, 1] = torch.minimum(_draw(batch, style.camera, device), high[:, 1] - 0.15)
    spread = torch.tan(_draw(batch, style.view, device) * (math.pi / 360.0))
    return _Camera(inside, yaw, right, up, forward, spread)


def _before(group: Group, camera: _Camera, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x and z of places in or near the view, nearer ones as likely as farther ones on a log scale."""
    device = camera.yaw.device
    bearing = camera.yaw + torch.atan(camera.spread) * _draw(batch, (-1.15, 1.15), device)
    away = _log_draw(batch, group.distance, device)
    return camera.position[:, 0] + away * bearing.sin(), camera.position[:, 2] + away * bearing.cos()


def _place(
    group: Group, camera: _Camera, size: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Place (B, 3) and rotation (B, 3, 3) of one thing of sizes (B, 3) by every rule but "on"."""
    batch, device = size.shape[0], size.device
    x, z = _before(group, camera, batch)
    y = torch.zeros_like(x)
    half = size[:, [0, 2]].amax(-1) / 2
    turn = _draw(batch, (-math.pi, math.pi), device)
    square = torch.randint(0, 4, (batch,), device=device) * (math.pi / 2)
    turn = torch.where(torch.rand(batch, device=device) < 0.5, square, turn)
    if group.rule in ("left", "right"):
        sign = -1.0 if group.rule == "left" else 1.0
        aside = _draw(batch, group.distance, device)
        x = sign * (aside + size[:, 0] / 2)
        z = _log_draw(batch, (3.0, 60.0), device) + size[:, 2] * 0.3 - 1.0
        turn = torch.randint(0, 2, (batch,), device=device) * math.pi + 0.05 * torch.randn(batch, device=device)
    elif group.rule in ("wall", "pinned"):
        wall = torch.randint(0, 4, (batch,), device=device)
        off = size[:, 2] / 2 + 0.005
        xs = torch.minimum(torch.maximum(x, low[:, 0] + size[:, 0] / 2), high[:, 0] - size[:, 0] / 2)
        zs = torch.minimum(torch.maximum(z, low[:, 2] + size[:, 0] / 2), high[:, 2] - size[:, 0] / 2)
        x = torch.where(wall == 0, low[:, 0] + off, torch.where(wall == 1, high[:, 0] - off, xs))
        z = torch.where(wall == 2, low[:, 2] + off, torch.where(wall == 3, high[:, 2] - off, zs))
        quarter = torch.tensor([math.pi / 2, -math.pi / 2, math.pi, 0.0], device=device)
        turn = quarter[wall]
        if group.rule == "pinned":
            y = (high[:, 1] - size[:, 1]) * _draw(batch, (0.25, 0.95), device)
    else:
        x = torch.maximum(torch.minimum(x, high[:, 0] - half), low[:, 0] + half)
        z = torch.maximum(torch.minimum(z, high[:, 2] - half), low[:, 2] + half)
    rotation = _turn(turn)
    if group.rule == "ceiling":
        y = high[:, 1] - size[:, 1] * _draw(batch, (1.0, 2.0), device)
    if group.rule == "float":
        away = _log_draw(batch, group.distance, device).unsqueeze(-1)
        offset = torch.randn(batch, 2, device=device) * 0.7 * camera.spread.unsqueeze(-1)
        ray = camera.forward + offset[:, :1] * camera.right + offset[:, 1:] * camera.up
        point = torch.minimum(torch.maximum(camera.position + away * ray, low), high)
        rotation = torch.where(
            (torch.rand(batch, device=device) < 0.8).view(-1, 1, 1), _any_rotation(batch, device), rotation
        )
        return point, rotation
    return torch.stack([x, y, z], -1), rotation


def _leaning(batch: int, device: torch.device) -> torch.Tensor:
    """World -> thing rotations whose y axis leans from upright by up to 80 degrees, any way: (B, 3, 3)."""
    lean = _draw(batch, (0.0, math.radians(80.0)), device)
    away = _draw(batch, (-math.pi, math.pi), device)
    up = torch.stack([lean.sin() * away.cos(), lean.cos(), lean.sin() * away.sin()], -1)
    side = torch.nn.functional.normalize(torch.cross(up, torch.randn(batch, 3, device=device), dim=-1), dim=-1)
    return torch.stack([side, up, torch.cross(side, up, dim=-1)], 1)


def _furnish(
    style: Style, camera: _Camera, low: torch.Tensor, high: torch.Tensor, things: Catalogue
) -> tuple[Solids, torch.Tensor]:
    """Put all groups of a style into the rooms; also returns the template numbers (B, S)."""
    batch, device = low.shape[0], low.device
    kinds, places, turns, sizes, tops = [], [], [], [], []
    root = torch.zeros(batch, 3, device=device)
    for group in style.groups:
        names = torch.tensor([INDEX[name] for name in group.names], device=device)
        for _ in range(group.count):
            kind = names[torch.randint(0, len(names), (batch,), device=device)]
            grown = torch.exp(0.15 * torch.randn(batch, 1, device=device)) * group.scale
            size = things.low[kind] + (things.high[kind] - things.low[kind]) * torch.rand(batch, 3, device=device)
            size = size * grown
            place, rotation = _place(group, camera, size, low, high)
            if group.rule == "spray":
                place, rotation = root, _leaning(batch, device)
            if group.rule == "on" and places:
                carrier = torch.randint(0, len(places), (batch,), device=device)
                pick = torch.arange(batch, device=device)
                top = torch.stack(tops, 1)[pick, carrier]
                under, under_size = torch.stack(places, 1)[pick, carrier], torch.stack(sizes, 1)[pick, carrier]
                within = (torch.rand(batch, 3, device=device) - 0.5) * under_size * 0.8
                aside = torch.einsum("bji,bj->bi", torch.stack(turns, 1)[pick, carrier], within)
                on = under + aside
                on[:, 1] = under[:, 1] + top * under_size[:, 1]
                # What carries nothing has its guest stand on the floor beside it instead.
                place = torch.where((top > 0).unsqueeze(-1), on, place)
            if group.rule != "spray":
                root = place + torch.nn.functional.pad((things.top[kind] * size[:, 1]).unsqueeze(-1), (1, 1))
            kinds.append(kind)
            places.append(place)
            turns.append(rotation)
            sizes.append(size)
            tops.append(things.top[kind])
    kind, size = torch.stack(kinds, 1), torch.stack(sizes, 1)
    absent = torch.rand(batch, kind.shape[1], device=device) < torch.rand(batch, 1, device=device) * 0.85
    place = torch.stack(places, 1)
    place = torch.where(absent.unsqueeze(-1), torch.tensor([0.0, -1e4, 0.0], device=device), place)
    into = torch.stack(turns, 1) / size.unsqueeze(-1)
    solids = Solids(into, place, size, things.centres[kind], things.halves[kind], low, high)
    return solids, kind


_GREENS = torch.tensor([[0.12, 0.22, 0.07], [0.25, 0.38, 0.12], [0.08, 0.15, 0.08], [0.35, 0.33, 0.15]])
_GROUNDS = torch.tensor(
    [[0.35, 0.35, 0.36], [0.22, 0.22, 0.23], [0.5, 0.48, 0.45], [0.2, 0.33, 0.12], [0.45, 0.36, 0.25]]
)
_LEAFY = ("tree", "fir", "bush", "plant", "leaf", "hill")


def _natural(colour: torch.Tensor, kind: torch.Tensor, outdoors: bool) -> torch.Tensor:
    """Give most plants a green and most ground outdoors a colour of ground: colour (B, M, 3), kind (B, S)."""
    batch, slots = kind.shape
    device = kind.device
    leafy = torch.isin(kind, torch.tensor([INDEX[name] for name in _LEAFY], device=device))
    leafy = (leafy & (torch.rand(batch, slots, device=device) < 0.8)).repeat_interleave(PARTS, 1)
    shade = 0.6 + 0.8 * torch.rand(batch, slots, 1, device=device)
    green = (_GREENS.to(device)[torch.randint(0, 4, (batch, slots), device=device)] * shade).repeat_interleave(PARTS, 1)
    parts = torch.where(leafy.unsqueeze(-1), green, colour[:, :-6])
    room = colour[:, -6:].clone()
    if outdoors:
        ground = _GROUNDS.to(device)[torch.randint(0, 5, (batch,), device=device)]
        ground = ground * (0.7 + 0.6 * torch.rand(batch, 1, device=device))
        room[:, 2] = torch.where(torch.rand(batch, 1, device=device) < 0.75, ground, room[:, 2])
    return torch.cat([parts, room], 1)


def _materials(style: Style, kind: torch.Tensor, textures: int) -> Materials:
    """Parts of one thing mostly share their material; outdoors the ground is finer than the things on it."""
    batch, slots = kind.shape
    device, count = kind.device, slots * PARTS + 6

    def shared(own: float, *tail: int) -> torch.Tensor:
        """Uniform draws, one per thing, replaced for a share of its parts: (B, M, *tail)."""
        thing = torch.rand(batch, slots, 1, *tail, device=device).expand(batch, slots, PARTS, *tail)
        part = torch.rand(batch, slots, PARTS, *tail, device=device)
        alone = torch.rand(batch, slots, PARTS, *[1] * len(tail), device=device) < own
        room = torch.rand(batch, 6, *tail, device=device)
        if torch.rand(()) < 0.7:  # walls are mostly of one paint
            room[:, [1, 4, 5]] = room[:, [0]]
        return torch.cat([torch.where(alone, part, thing).flatten(1, 2), room], 1)

    texture = (shared(0.4) * textures).long().clamp(max=textures - 1)
    frequency = torch.exp(shared(0.3) * 3.2 - 1.6)
    if style.name in ("close", "chaos", "desk"):
        frequency = frequency * 2.5
    if style.outdoors:
        frequency = frequency * 0.4
    grey = shared(0.35) ** 0.8
    # White paint is common, and without it a bright surface would always be taken for sky.
    grey = torch.where(shared(0.3) < (0.15 if style.outdoors else 0.3), 0.85 + 0.15 * grey, grey)
    colour = (grey.unsqueeze(-1) + (shared(0.2, 3) - 0.5) * shared(0.2).unsqueeze(-1) ** 1.5 * 0.7).clamp(0.01, 1.0)
    colour = _natural(colour, kind, style.outdoors)
    if not style.outdoors:  # white chairs stand before white walls
        alike = (torch.rand(batch, 1, 1, device=device) < 0.15) * (0.6 + 0.4 * torch.rand(batch, 1, 1, device=device))
        colour = colour.lerp(colour[:, -6:-5].expand_as(colour), alike.expand_as(colour))
    mix = shared(0.4)
    # Plain walls and strong patterns both: cloth, wallpaper and brick stand right behind things.
    mix[:, -6:] *= torch.where(
        torch.rand(batch, 1, device=device) < 0.3, 1.0, torch.rand(batch, 1, device=device) ** 0.5
    )
    if style.outdoors:
        mix = mix.sqrt()
    glow = (torch.rand(batch, count, device=device) < 0.03).float() * torch.rand(batch, count, device=device)
    return Materials(texture, frequency, torch.rand(batch, count, 2, device=device), colour, mix, glow)


def _light(style: Style, camera: _Camera, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """A lamp in the upper half of the room, the sun, or now and then a flash at the camera: (B, 3)."""
    batch, device = low.shape[0], low.device
    if style.outdoors:
        ray = torch.randn(batch, 3, device=device)
        ray[:, 1] = ray[:, 1].abs() + 0.3
        return camera.position + 400 * ray / ray.norm(dim=-1, keepdim=True)
    lamp = low + (high - low) * (0.05 + 0.9 * torch.rand(batch, 3, device=device))
    lamp[:, 1] = high[:, 1] * _draw(batch, (0.6, 0.98), device)
    flash = camera.position + 0.1 * torch.randn(batch, 3, device=device)
    return torch.where((torch.rand(batch, 1, device=device) < 0.1), flash, lamp)


def make_scene(style: Style, batch: int, things: Catalogue, textures: int, wild: float = 0.1) -> Scene:
    """Draw a batch of scenes of one style; wild: share of cameras pitched, and share rolled, in any way."""
    device = things.centres.device
    width, depth = _draw(batch, style.width, device), _draw(batch, style.depth, device)
    height = _draw(batch, style.height, device)
    zero = torch.zeros_like(width)
    low, high = torch.stack([-width / 2, zero, -depth / 2], -1), torch.stack([width / 2, height, depth / 2], -1)
    camera = _camera(style, batch, low, high, wild)
    solids, kind = _furnish(style, camera, low, high, things)
    materials = _materials(style, kind, textures)
    ambient = _draw(batch, (0.2, 0.8), device)
    return Scene(
        style,
        solids,
        materials,
        camera.right,
        camera.up,
        camera.forward,
        camera.position,
        camera.spread,
        _light(style, camera, low, high),
        ambient,
        (1.15 - ambient) * _draw(batch, (0.5, 1.3), device),
    )


assert all(name in INDEX for style in STYLES for group in style.groups for name in group.names), TEMPLATES
