"""The generator's depth is exact."""

from __future__ import annotations

import shutil
import subprocess

import pytest

torch = pytest.importorskip("torch")

from training.objects import BOXES, PARTS  # noqa: E402
from training.pictures import Generator, camera_rays  # noqa: E402
from training.scenes import STYLES, make_scene  # noqa: E402
from training.tracing import Solids, Tracer, surface  # noqa: E402

BALL = BOXES  # the first part that is a ball


def one_ball(centre: tuple[float, float, float], radius: float) -> Solids:
    """A ball in a room 20 m wide, 10 m high and 20 m long, as the only thing in it."""
    centres = torch.zeros(1, 1, PARTS, 3)
    centres[..., 1] = -1e4
    halves = torch.full((1, 1, PARTS, 3), 1e-2)
    centres[0, 0, BALL], halves[0, 0, BALL] = torch.zeros(3), torch.ones(3)
    return Solids(
        into=(torch.eye(3) / radius).view(1, 1, 3, 3),
        place=torch.tensor(centre).view(1, 1, 3),
        size=torch.full((1, 1, 3), radius),
        centres=centres,
        halves=halves,
        room_low=torch.tensor([[-10.0, 0.0, -10.0]]),
        room_high=torch.tensor([[10.0, 10.0, 10.0]]),
    )


def test_rays_meet_ball_floor_and_wall_where_geometry_says() -> None:
    solids = one_ball((0.0, 2.0, 5.0), 1.5)
    eye = torch.tensor([[0.0, 2.0, 0.0]])
    rays = torch.tensor([[0.0, 0.0, 1.0], [0.0, -1.0, 1.0], [2.0, 0.0, 1.0]]).t().reshape(3, 1, 3)
    depth, which = Tracer().nearest(solids, eye, rays)
    assert depth[0].tolist() == pytest.approx([3.5, 2.0, 5.0], rel=1e-6)
    assert which[0].tolist() == [BALL, PARTS, PARTS]
    normal = surface(solids, eye, rays, depth, which).normal[:, 0].t()
    assert torch.allclose(normal, torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), atol=1e-5)


def test_a_lamp_behind_the_ball_leaves_the_eye_in_shadow() -> None:
    solids = one_ball((0.0, 2.0, 5.0), 1.5)
    points = torch.tensor([[0.0, 2.0, 0.0], [8.0, 2.0, 9.0]]).t().reshape(3, 1, 2)
    assert Tracer().shadow(solids, torch.tensor([[0.0, 2.0, 9.0]]), points)[0].tolist() == [1.0, 0.0]


def test_both_forms_of_the_loop_agree() -> None:
    if shutil.which("g++") is None:  # then there is one form only, and asking for the other says so
        with pytest.raises((OSError, subprocess.SubprocessError)):
            Tracer(compiled=True)
        return
    compiled = Tracer(compiled=True)
    generator = Generator(24, 32, textures=8)
    for style in STYLES:
        torch.manual_seed(1)
        scene = make_scene(style, 2, generator.things, 8)
        rays = camera_rays(scene, 24, 32)
        plain, _ = Tracer().nearest(scene.solids, scene.position, rays)
        fused, _ = compiled.nearest(scene.solids, scene.position, rays)
        close = (plain - fused).abs() < 1e-3 * plain
        assert close.float().mean() > 0.995, style.name


def test_every_style_gives_pictures_with_finite_disparity() -> None:
    generator = Generator(24, 32, textures=8)
    for number, style in enumerate(STYLES):
        pictures = generator.batch(2, number)
        assert pictures.colour.dtype == torch.uint8 and pictures.colour.shape == (2, 3, 24, 32), style.name
        assert torch.isfinite(pictures.disparity).all() and (pictures.disparity >= 0).all(), style.name
