"""The things a synthetic scene is furnished with: templates of boxes, balls and cylinders in a unit frame.

A template stands on y = 0 and fills x, z in [-0.5, 0.5] and y in [0, 1]; a scene scales it to metres, turns it and
puts it somewhere. Every template has the same number of parts of every shape (spare ones lie far below the ground), so
that one tensor holds the parts of a whole batch of scenes and a ray meets them without a branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

BOXES, BALLS, CYLINDERS = 6, 2, 2
PARTS = BOXES + BALLS + CYLINDERS
_SPARE = ((0.0, -1e4, 0.0), (1e-2, 1e-2, 1e-2))

Part = tuple[tuple[float, float, float], tuple[float, float, float]]
Range = tuple[float, float]


@dataclass(frozen=True)
class Template:
    """One thing: its parts as (centre, half size) in the unit frame and the sizes it has in metres.

    width, height, depth: range of the size along x, y, z in metres; top: height (unit frame) of the surface that
    carries other things, 0 where nothing stands on it.
    """

    name: str
    width: Range
    height: Range
    depth: Range
    boxes: tuple[Part, ...] = ()
    balls: tuple[Part, ...] = ()
    cylinders: tuple[Part, ...] = ()
    top: float = 0.0


def _span(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> Part:
    """The part between two corners."""
    return ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2), ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2)


def _legs(height: float, thick: float) -> tuple[Part, ...]:
    edge = 0.5 - thick
    return tuple(_span(x, x + thick, 0.0, height, z, z + thick) for x in (-0.5, edge) for z in (-0.5, edge))


_FULL = _span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5)

TEMPLATES: tuple[Template, ...] = (
    Template("crate", (0.3, 1.2), (0.3, 1.2), (0.3, 1.2), boxes=(_FULL,), top=1.0),
    Template(
        "cabinet",
        (0.5, 1.6),
        (0.6, 1.2),
        (0.35, 0.65),
        top=1.0,
        boxes=(
            _span(-0.5, 0.5, 0.0, 0.96, -0.46, 0.5),
            _span(-0.48, -0.01, 0.05, 0.93, -0.5, -0.4),
            _span(0.01, 0.48, 0.05, 0.93, -0.5, -0.4),
            _span(-0.52, 0.52, 0.96, 1.0, -0.52, 0.5),
        ),
    ),
    Template(
        "wardrobe",
        (0.6, 2.2),
        (1.6, 2.4),
        (0.4, 0.7),
        boxes=(
            _span(-0.5, 0.5, 0.0, 1.0, -0.46, 0.5),
            _span(-0.49, -0.01, 0.05, 0.97, -0.5, -0.4),
            _span(0.01, 0.49, 0.05, 0.97, -0.5, -0.4),
        ),
    ),
    Template(
        "table",
        (0.6, 2.0),
        (0.45, 0.95),
        (0.5, 1.2),
        top=1.0,
        boxes=(_span(-0.5, 0.5, 0.93, 1.0, -0.5, 0.5), *_legs(0.93, 0.06)),
    ),
    Template(
        "desk",
        (0.9, 1.8),
        (0.7, 0.8),
        (0.5, 0.9),
        top=1.0,
        boxes=(
            _span(-0.5, 0.5, 0.95, 1.0, -0.5, 0.5),
            _span(-0.48, -0.44, 0.0, 0.95, -0.45, 0.45),
            _span(0.2, 0.48, 0.0, 0.95, -0.45, 0.45),
            _span(-0.44, 0.2, 0.5, 0.95, 0.4, 0.45),
        ),
    ),
    Template(
        "round table",
        (0.5, 1.3),
        (0.45, 0.95),
        (0.5, 1.3),
        top=1.0,
        cylinders=(
            _span(-0.5, 0.5, 0.94, 1.0, -0.5, 0.5),
            _span(-0.08, 0.08, 0.0, 0.94, -0.08, 0.08),
        ),
    ),
    Template(
        "chair",
        (0.4, 0.6),
        (0.8, 1.1),
        (0.4, 0.6),
        boxes=(_span(-0.5, 0.5, 0.42, 0.5, -0.5, 0.5), _span(-0.5, 0.5, 0.55, 1.0, 0.42, 0.5), *_legs(0.45, 0.1)),
    ),
    Template(
        "armchair",
        (0.7, 1.1),
        (0.7, 1.1),
        (0.7, 1.0),
        top=0.45,
        boxes=(
            _span(-0.5, 0.5, 0.05, 0.45, -0.5, 0.5),
            _span(-0.5, 0.5, 0.45, 1.0, 0.25, 0.5),
            _span(-0.5, -0.3, 0.1, 0.65, -0.5, 0.4),
            _span(0.3, 0.5, 0.1, 0.65, -0.5, 0.4),
        ),
    ),
    Template(
        "sofa",
        (1.4, 2.6),
        (0.7, 1.0),
        (0.8, 1.1),
        top=0.45,
        boxes=(
            _span(-0.5, 0.5, 0.05, 0.4, -0.5, 0.5),
            _span(-0.5, 0.5, 0.4, 1.0, 0.22, 0.5),
            _span(-0.5, -0.41, 0.1, 0.65, -0.5, 0.4),
            _span(0.41, 0.5, 0.1, 0.65, -0.5, 0.4),
            _span(-0.4, -0.01, 0.4, 0.52, -0.48, 0.2),
            _span(0.01, 0.4, 0.4, 0.52, -0.48, 0.2),
        ),
    ),
    Template(
        "bed",
        (0.9, 2.0),
        (0.6, 1.2),
        (1.8, 2.2),
        top=0.5,
        boxes=(
            _span(-0.5, 0.5, 0.15, 0.45, -0.5, 0.48),
            _span(-0.5, 0.5, 0.0, 1.0, 0.46, 0.5),
            _span(-0.42, -0.05, 0.45, 0.58, 0.22, 0.44),
            _span(0.05, 0.42, 0.45, 0.58, 0.22, 0.44),
            _span(-0.52, 0.52, 0.3, 0.48, -0.5, 0.1),
        ),
    ),
    Template(
        "shelf",
        (0.6, 1.8),
        (0.8, 2.2),
        (0.25, 0.45),
        top=1.0,
        boxes=(
            _span(-0.5, -0.46, 0.0, 1.0, -0.5, 0.5),
            _span(0.46, 0.5, 0.0, 1.0, -0.5, 0.5),
            _span(-0.5, 0.5, 0.97, 1.0, -0.5, 0.5),
            _span(-0.46, 0.46, 0.6, 0.63, -0.5, 0.5),
            _span(-0.46, 0.46, 0.27, 0.3, -0.5, 0.5),
            _span(-0.46, 0.46, 0.0, 1.0, 0.3, 0.5),
        ),
        balls=(_span(0.05, 0.3, 0.3, 0.5, -0.4, 0.2), _span(-0.4, -0.2, 0.63, 0.78, -0.4, 0.2)),
        cylinders=(_span(-0.4, -0.1, 0.3, 0.55, -0.45, 0.25), _span(0.1, 0.25, 0.63, 0.9, -0.3, 0.2)),
    ),
    Template(
        "full shelf",
        (0.6, 2.2),
        (0.8, 2.4),
        (0.25, 0.5),
        top=1.0,
        boxes=(
            _span(-0.5, 0.5, 0.0, 1.0, 0.3, 0.5),
            _span(-0.5, 0.5, 0.46, 0.5, -0.5, 0.4),
            _span(-0.5, 0.5, 0.96, 1.0, -0.5, 0.4),
            _span(-0.46, -0.1, 0.5, 0.8, -0.4, 0.4),
            _span(0.05, 0.46, 0.5, 0.72, -0.3, 0.4),
            _span(-0.2, 0.3, 0.02, 0.35, -0.42, 0.4),
        ),
        balls=(_span(0.05, 0.25, 0.72, 0.9, -0.3, 0.2), _span(-0.46, -0.25, 0.0, 0.25, -0.4, 0.2)),
        cylinders=(_span(0.32, 0.46, 0.0, 0.3, -0.4, 0.2), _span(-0.05, 0.05, 0.5, 0.75, -0.3, 0.2)),
    ),
    Template(
        "wall shelf",
        (0.5, 1.6),
        (0.3, 0.6),
        (0.2, 0.35),
        top=0.1,
        boxes=(
            _span(-0.5, 0.5, 0.0, 0.1, -0.5, 0.5),
            _span(-0.45, -0.2, 0.1, 0.8, -0.35, 0.35),
            _span(-0.18, 0.0, 0.1, 0.65, -0.3, 0.35),
        ),
        balls=(_span(0.2, 0.45, 0.1, 0.7, -0.4, 0.3),),
        cylinders=(_span(0.05, 0.17, 0.1, 1.0, -0.25, 0.25),),
    ),
    Template(
        "screen",
        (0.4, 1.3),
        (0.35, 0.8),
        (0.1, 0.25),
        boxes=(
            _span(-0.5, 0.5, 0.2, 1.0, -0.1, 0.1),
            _span(-0.48, 0.48, 0.23, 0.97, -0.13, 0.0),
            _span(-0.05, 0.05, 0.0, 0.3, 0.0, 0.2),
            _span(-0.2, 0.2, 0.0, 0.04, -0.5, 0.5),
        ),
    ),
    Template(
        "floor lamp",
        (0.25, 0.5),
        (1.2, 1.9),
        (0.25, 0.5),
        cylinders=(
            _span(-0.05, 0.05, 0.0, 0.85, -0.05, 0.05),
            _span(-0.5, 0.5, 0.8, 1.0, -0.5, 0.5),
        ),
        boxes=(_span(-0.4, 0.4, 0.0, 0.03, -0.4, 0.4),),
    ),
    Template(
        "person",
        (0.45, 0.65),
        (1.4, 1.95),
        (0.25, 0.4),
        boxes=(
            _span(-0.28, -0.04, 0.0, 0.5, -0.25, 0.25),
            _span(0.04, 0.28, 0.0, 0.5, -0.25, 0.25),
            _span(-0.5, -0.36, 0.42, 0.82, -0.2, 0.2),
            _span(0.36, 0.5, 0.42, 0.82, -0.2, 0.2),
        ),
        balls=(_span(-0.19, 0.19, 0.86, 1.0, -0.35, 0.35),),
        cylinders=(
            _span(-0.37, 0.37, 0.46, 0.84, -0.45, 0.45),
            _span(-0.1, 0.1, 0.8, 0.9, -0.2, 0.2),
        ),
    ),
    Template(
        "car",
        (1.6, 1.9),
        (1.35, 1.8),
        (3.6, 4.8),
        boxes=(
            _span(-0.5, 0.5, 0.18, 0.6, -0.5, 0.5),
            _span(-0.44, 0.44, 0.55, 0.94, -0.25, 0.32),
            _span(-0.42, 0.42, 0.9, 1.0, -0.18, 0.26),
            _span(-0.51, 0.51, 0.0, 0.4, -0.38, -0.23),
            _span(-0.51, 0.51, 0.0, 0.4, 0.22, 0.37),
            _span(-0.46, 0.46, 0.3, 0.45, -0.52, 0.52),
        ),
    ),
    Template(
        "van",
        (1.8, 2.5),
        (2.0, 3.4),
        (4.5, 9.0),
        boxes=(
            _span(-0.5, 0.5, 0.15, 1.0, -0.3, 0.5),
            _span(-0.48, 0.48, 0.12, 0.7, -0.5, -0.3),
            _span(-0.51, 0.51, 0.0, 0.3, -0.4, -0.25),
            _span(-0.51, 0.51, 0.0, 0.3, 0.2, 0.35),
            _span(-0.45, 0.45, 0.4, 0.68, -0.505, -0.4),
            _span(-0.51, 0.51, 0.4, 0.8, -0.1, 0.3),
        ),
    ),
    Template(
        "tree",
        (2.0, 6.0),
        (3.0, 10.0),
        (2.0, 6.0),
        balls=(
            _span(-0.5, 0.4, 0.35, 0.9, -0.5, 0.4),
            _span(-0.3, 0.5, 0.5, 1.0, -0.4, 0.5),
        ),
        cylinders=(_span(-0.05, 0.05, 0.0, 0.6, -0.05, 0.05),),
    ),
    Template(
        "fir",
        (1.5, 4.0),
        (4.0, 12.0),
        (1.5, 4.0),
        balls=(
            _span(-0.5, 0.5, 0.1, 0.7, -0.5, 0.5),
            _span(-0.3, 0.3, 0.3, 1.0, -0.3, 0.3),
        ),
        cylinders=(_span(-0.06, 0.06, 0.0, 0.4, -0.06, 0.06),),
    ),
    Template(
        "bush",
        (0.6, 3.0),
        (0.5, 1.8),
        (0.6, 3.0),
        balls=(
            _span(-0.5, 0.2, 0.0, 0.9, -0.5, 0.4),
            _span(-0.2, 0.5, -0.1, 1.0, -0.3, 0.5),
        ),
    ),
    Template("pole", (0.06, 0.2), (2.0, 7.0), (0.06, 0.2), cylinders=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),)),
    Template(
        "sign",
        (0.5, 1.0),
        (2.0, 3.5),
        (0.06, 0.12),
        boxes=(_span(-0.5, 0.5, 0.7, 1.0, -0.4, 0.0),),
        cylinders=(_span(-0.06, 0.06, 0.0, 1.0, 0.0, 0.8),),
    ),
    Template(
        "street lamp",
        (0.3, 0.5),
        (4.0, 8.0),
        (1.5, 2.5),
        boxes=(
            _span(-0.15, 0.15, 0.98, 1.0, -0.45, 0.05),
            _span(-0.4, 0.4, 0.97, 1.0, -0.5, -0.3),
        ),
        cylinders=(_span(-0.2, 0.2, 0.0, 1.0, 0.0, 0.1),),
    ),
    Template(
        "fence",
        (2.0, 8.0),
        (0.8, 2.0),
        (0.05, 0.15),
        boxes=(
            _span(-0.5, 0.5, 0.8, 0.9, -0.3, 0.3),
            _span(-0.5, 0.5, 0.3, 0.4, -0.3, 0.3),
            _span(-0.5, -0.47, 0.0, 1.0, -0.5, 0.5),
            _span(-0.18, -0.15, 0.0, 1.0, -0.5, 0.5),
            _span(0.15, 0.18, 0.0, 1.0, -0.5, 0.5),
            _span(0.47, 0.5, 0.0, 1.0, -0.5, 0.5),
        ),
    ),
    Template("wall piece", (2.0, 10.0), (0.8, 3.0), (0.15, 0.4), boxes=(_FULL,)),
    Template(
        "house",
        (5.0, 14.0),
        (4.0, 18.0),
        (5.0, 20.0),
        boxes=(
            _FULL,
            _span(-0.53, 0.53, 0.94, 0.97, -0.53, 0.53),
            _span(-0.51, 0.51, 0.0, 0.18, -0.51, 0.51),
        ),
    ),
    Template("flat slab", (1.0, 3.0), (0.01, 0.04), (1.0, 3.0), boxes=(_FULL,)),
    Template("pavement", (2.0, 6.0), (0.08, 0.2), (120.0, 200.0), boxes=(_FULL,)),
    Template(
        "line",
        (0.1, 0.2),
        (0.005, 0.01),
        (60.0, 200.0),
        boxes=(
            _FULL,
            _span(4.0, 5.0, 0.0, 1.0, -0.5, 0.5),
        ),
    ),
    Template(
        "panel",
        (0.4, 1.8),
        (0.4, 1.6),
        (0.02, 0.08),
        boxes=(
            _FULL,
            _span(-0.44, 0.44, 0.07, 0.93, -0.6, 0.0),
        ),
    ),
    Template("ball", (0.1, 0.5), (0.1, 0.5), (0.1, 0.5), balls=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),)),
    Template("can", (0.06, 0.3), (0.1, 0.5), (0.06, 0.3), cylinders=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),)),
    Template(
        "bottle",
        (0.06, 0.14),
        (0.2, 0.45),
        (0.06, 0.14),
        cylinders=(
            _span(-0.5, 0.5, 0.0, 0.65, -0.5, 0.5),
            _span(-0.2, 0.2, 0.6, 1.0, -0.2, 0.2),
        ),
    ),
    Template(
        "books",
        (0.15, 0.35),
        (0.08, 0.3),
        (0.15, 0.3),
        boxes=(
            _span(-0.5, 0.5, 0.0, 0.3, -0.5, 0.5),
            _span(-0.4, 0.5, 0.3, 0.65, -0.45, 0.4),
            _span(-0.5, 0.3, 0.65, 1.0, -0.4, 0.45),
        ),
    ),
    Template("carton", (0.1, 0.5), (0.1, 0.4), (0.1, 0.4), boxes=(_FULL,), top=1.0),
    Template(
        "plant",
        (0.3, 0.9),
        (0.4, 1.4),
        (0.3, 0.9),
        balls=(
            _span(-0.5, 0.4, 0.4, 1.0, -0.4, 0.5),
            _span(-0.3, 0.5, 0.35, 0.85, -0.5, 0.3),
        ),
        cylinders=(_span(-0.25, 0.25, 0.0, 0.3, -0.25, 0.25), _span(-0.04, 0.04, 0.2, 0.6, -0.04, 0.04)),
    ),
    Template("pot", (0.1, 0.4), (0.1, 0.4), (0.1, 0.4), cylinders=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),), top=0.9),
    Template(
        "stool",
        (0.3, 0.5),
        (0.4, 0.8),
        (0.3, 0.5),
        boxes=_legs(0.9, 0.07),
        cylinders=(_span(-0.5, 0.5, 0.9, 1.0, -0.5, 0.5),),
        top=1.0,
    ),
    Template(
        "office chair",
        (0.5, 0.7),
        (0.85, 1.2),
        (0.5, 0.7),
        boxes=(
            _span(-0.4, 0.4, 0.4, 0.48, -0.45, 0.4),
            _span(-0.38, 0.38, 0.55, 1.0, 0.36, 0.46),
            _span(-0.5, 0.5, 0.0, 0.05, -0.05, 0.05),
            _span(-0.05, 0.05, 0.0, 0.05, -0.5, 0.5),
        ),
        cylinders=(_span(-0.06, 0.06, 0.0, 0.42, -0.06, 0.06),),
    ),
    Template("leaf", (0.06, 0.25), (0.4, 1.2), (0.03, 0.08), balls=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),)),
    Template("hill", (10.0, 80.0), (2.0, 18.0), (10.0, 80.0), balls=(_span(-0.5, 0.5, -1.0, 1.0, -0.5, 0.5),)),
    Template(
        "column",
        (0.2, 0.7),
        (1.5, 5.0),
        (0.2, 0.7),
        cylinders=(_span(-0.5, 0.5, 0.0, 1.0, -0.5, 0.5),),
        boxes=(_span(-0.6, 0.6, 0.0, 0.08, -0.6, 0.6), _span(-0.6, 0.6, 0.93, 1.0, -0.6, 0.6)),
    ),
    Template(
        "motorbike",
        (0.5, 0.8),
        (0.9, 1.2),
        (1.8, 2.2),
        boxes=(
            _span(-0.25, 0.25, 0.25, 0.6, -0.25, 0.2),
            _span(-0.3, 0.3, 0.6, 0.75, -0.05, 0.45),
            _span(-0.5, 0.5, 0.9, 0.96, -0.3, -0.25),
            _span(-0.1, 0.1, 0.3, 1.0, -0.36, -0.3),
        ),
        balls=(_span(-0.12, 0.12, 0.0, 0.58, -0.5, -0.22), _span(-0.12, 0.12, 0.0, 0.58, 0.2, 0.5)),
    ),
)

INDEX: dict[str, int] = {template.name: number for number, template in enumerate(TEMPLATES)}


@dataclass(frozen=True)
class Catalogue:
    """All templates as tensors: centres, halves (T, PARTS, 3); low, high (T, 3) metres; top (T,)."""

    centres: torch.Tensor
    halves: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    top: torch.Tensor


def _padded(template: Template) -> list[Part]:
    """The parts of a template: BOXES boxes, BALLS balls, CYLINDERS cylinders, spare ones out of sight."""
    rows: list[Part] = []
    for parts, count in ((template.boxes, BOXES), (template.balls, BALLS), (template.cylinders, CYLINDERS)):
        if len(parts) > count:
            raise ValueError(f"{template.name}: {len(parts)} parts of one shape, {count} at most")
        rows += list(parts) + [_SPARE] * (count - len(parts))
    return rows


def catalogue(device: str = "cpu") -> Catalogue:
    """The templates as tensors on a device."""
    rows = [_padded(template) for template in TEMPLATES]
    sizes = [(t.width, t.height, t.depth) for t in TEMPLATES]
    return Catalogue(
        centres=torch.tensor([[part[0] for part in row] for row in rows], device=device),
        halves=torch.tensor([[part[1] for part in row] for row in rows], device=device),
        low=torch.tensor([[side[0] for side in size] for size in sizes], device=device),
        high=torch.tensor([[side[1] for side in size] for size in sizes], device=device),
        top=torch.tensor([t.top for t in TEMPLATES], device=device),
    )
