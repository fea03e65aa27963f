"""Scenes -> pictures with exact disparity: texture, light, sky, fog, and what a camera does to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from training.objects import catalogue
from training.scenes import STYLES, Scene, make_scene
from training.textures import Bank, lookup, make_bank
from training.tracing import Tracer, length, surface


@dataclass(frozen=True)
class Pictures:
    """colour: (B, 3, H, W) uint8; disparity: (B, H, W) float32, 1 / depth in 1 / metre, 0 in the sky."""

    colour: torch.Tensor
    disparity: torch.Tensor


def camera_rays(scene: Scene, height: int, width: int) -> torch.Tensor:
    """World directions through the middle of every picture element, 1 along the optical axis: (3, B, H * W)."""
    device = scene.spread.device
    x = ((torch.arange(width, device=device) + 0.5) / width * 2 - 1).repeat(height)
    y = (((torch.arange(height, device=device) + 0.5) / height * 2 - 1) * height / width).repeat_interleave(width)
    across, down = scene.spread[:, None] * x, scene.spread[:, None] * y
    return torch.stack(
        [scene.forward[:, a, None] + across * scene.right[:, a, None] - down * scene.up[:, a, None] for a in range(3)]
    )


def smooth_noise(batch: int, channels: int, height: int, width: int, cell: int) -> torch.Tensor:
    """Noise of one scale, cell picture elements wide, about unit spread: (B, C, H, W)."""
    coarse = torch.randn(batch, channels, height // cell + 2, width // cell + 2)
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)


def _sky(scene: Scene, bank: Bank, rays: torch.Tensor) -> torch.Tensor:
    """Colour of the sky along rays (3, B, N): a gradient from horizon to zenith with clouds: (B, N, 3)."""
    batch = rays.shape[1]
    climb = (rays[1] / length(rays)).clamp(0, 1)
    blue = torch.tensor([0.35, 0.55, 0.9])
    zenith = torch.rand(batch, 1, 1) * (0.5 + torch.rand(batch, 1, 1) * (blue - 0.5)) + 0.35 * torch.rand(batch, 1, 3)
    horizon = 0.45 + 0.5 * torch.rand(batch, 1, 1) + 0.12 * (torch.rand(batch, 1, 3) - 0.5)
    sky = horizon + (zenith - horizon) * climb.unsqueeze(-1) ** (0.3 + torch.rand(batch, 1, 1))
    flat = 0.15 / (climb + 0.12)
    texture = torch.randint(0, bank.count // 2, (batch, 1)).expand_as(climb)
    cloud = lookup(bank, texture, rays[0] * flat, rays[2] * flat, flat * 0.02).mean(-1, keepdim=True)
    cover = torch.rand(batch, 1, 1)
    dim = torch.where(torch.rand(batch, 1, 1) < 0.4, 0.25 + 0.6 * torch.rand(batch, 1, 1), torch.ones(batch, 1, 1))
    share = ((cloud - 0.5) * 2 + cover - 0.5).clamp(0, 1) * cover
    return dim * (sky + (torch.rand(batch, 1, 1) * 0.9 + 0.2 - sky) * share)


def _lit(scene: Scene, tracer: Tracer, point: torch.Tensor, normal: torch.Tensor, shadows: bool) -> torch.Tensor:
    """Light at points (3, B, N) with normals: ambient from above, and a lamp or the sun with shadows: (B, N)."""
    to_light = scene.light.t().unsqueeze(-1) - point
    distance = length(to_light).clamp(min=1e-3)
    facing = ((to_light * normal).sum(0) / distance).clamp(min=0)
    falloff = 1.0 if scene.style.outdoors else (1.6 / (distance + 0.5)).clamp(max=1.8) ** 0.7
    direct = scene.direct.unsqueeze(-1) * facing * falloff
    if shadows:
        blocked = tracer.shadow(scene.solids, scene.light, point)
        direct = direct * (1 - blocked * torch.rand(direct.shape[0], 1).sqrt())
    return scene.ambient.unsqueeze(-1) * (0.8 + 0.25 * normal[1]) + direct


def _crevices(depth: torch.Tensor) -> torch.Tensor:
    """Darkening where a surface lies behind its surroundings, from depth (B, 1, H, W) alone: (B, 1, H, W) in [0, 1]."""
    log = depth.clamp(max=200).log()
    shade = torch.ones_like(log)
    for factor in (2, 6):
        around = F.interpolate(F.avg_pool2d(log, factor), size=log.shape[-2:], mode="bilinear", align_corners=False)
        behind = (log - F.avg_pool2d(around, 3, 1, 1, count_include_pad=False)).clamp(0, 0.25)
        shade = shade * (1 - behind * 2.0 * torch.rand(log.shape[0], 1, 1, 1))
    return shade


def render(
    scene: Scene, bank: Bank, tracer: Tracer, height: int, width: int, shadows: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Linear-light colour (B, 3, H, W) and disparity (B, H, W) of a batch of scenes."""
    batch = scene.spread.shape[0]
    rays = camera_rays(scene, height, width)
    t, which = tracer.nearest(scene.solids, scene.position, rays)
    hit = surface(scene.solids, scene.position, rays, t, which)
    made = scene.materials
    count = made.mix.shape[1]
    table = torch.cat(
        [
            made.texture.float().unsqueeze(-1),
            made.frequency.unsqueeze(-1),
            made.offset,
            made.colour,
            made.mix.unsqueeze(-1),
            made.glow.unsqueeze(-1),
        ],
        -1,
    )
    index = hit.material + torch.arange(batch).unsqueeze(1) * count
    row = F.embedding(index, table.flatten(0, 1))
    slant = (hit.normal * rays).sum(0).abs() / length(rays)
    footprint = t * (2 * scene.spread.unsqueeze(-1) / width) * row[..., 1] / slant.clamp(min=0.15)
    texel = lookup(
        bank, row[..., 0].long(), hit.u * row[..., 1] + row[..., 2], hit.v * row[..., 1] + row[..., 3], footprint
    )
    albedo = row[..., 4:7] + (texel - 0.5 + 0.3 * (0.5 - row[..., 4:7])) * row[..., 7:8]
    light = _lit(scene, tracer, hit.point, hit.normal, shadows).unsqueeze(-1)
    colour = albedo.clamp(0.01, 1) * (light + 3 * row[..., 8:9])
    disparity = 1.0 / t
    sky = torch.zeros_like(t, dtype=torch.bool)
    if scene.style.outdoors:
        room = scene.solids.place.shape[1] * scene.solids.centres.shape[2]
        sky = (hit.material >= room) & (hit.material != room + 2)
        thick = (torch.rand(batch, 1) < 0.5) * torch.rand(batch, 1) ** 2 * 0.05
        haze = torch.rand(batch, 1, 1) * 0.6 + 0.3
        colour = haze + (colour - haze) * torch.exp(-thick * t).unsqueeze(-1)
        colour = torch.where(sky.unsqueeze(-1), _sky(scene, bank, rays), colour)
        disparity = torch.where(sky, torch.zeros_like(disparity), disparity)
    colour = colour.transpose(1, 2).reshape(batch, 3, height, width)
    shade = _crevices(t.view(batch, 1, height, width)).masked_fill(sky.view(batch, 1, height, width), 1.0)
    return colour * shade, disparity.view(batch, height, width)


def _cutouts(colour: torch.Tensor, disparity: torch.Tensor, bank: Bank) -> tuple[torch.Tensor, torch.Tensor]:
    """Ragged patches (leaves, cloth, rubble) on slanted planes, drawn where they are nearer than the scene."""
    batch, _, height, width = colour.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    centre, radius = torch.rand(batch, 2, 1, 1) * 2 - 1, 0.15 + 0.7 * torch.rand(batch, 2, 1, 1)
    ragged = sum(smooth_noise(batch, 1, height, width, cell)[:, 0] * weight for cell, weight in ((20, 0.5), (5, 0.4)))
    field = ((x - centre[:, 0]) / radius[:, 0]) ** 2 + ((y - centre[:, 1]) / radius[:, 1]) ** 2
    inside = field + ragged * (0.3 + 1.5 * torch.rand(batch, 1, 1)) < 1
    high = disparity.flatten(1).amax(1).view(-1, 1, 1)
    mean = disparity.flatten(1).mean(1).view(-1, 1, 1)
    level = mean + (torch.minimum(high, 3 * mean) - mean) * torch.rand(batch, 1, 1)
    plane = level * (1 + 0.25 * torch.randn(batch, 1, 1) * x + 0.25 * torch.randn(batch, 1, 1) * y).clamp(min=0.2)
    drawn = inside & (plane > disparity) & (torch.rand(batch, 1, 1) < 0.5)
    scale = torch.exp(torch.rand(batch, 1) * 2 - 1)
    texture = torch.randint(0, bank.count, (batch, 1)).expand(batch, height * width)
    u, v = (x.flatten() * scale), (y.flatten() * scale)
    paint = lookup(bank, texture, u, v, scale.expand_as(u) * 2 / width).transpose(1, 2).reshape_as(colour)
    paint = paint * (0.4 + 0.8 * torch.rand(batch, 1, 1, 1))
    return torch.where(drawn.unsqueeze(1), paint, colour), torch.where(drawn, plane, disparity)


def _crumple(colour: torch.Tensor, disparity: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift colour and disparity together by a rough field, so that not every edge of the world is straight."""
    batch, _, height, width = colour.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    shift = torch.zeros(batch, 2, height, width)
    for cell in (24, 8, 3):
        shift = shift + smooth_noise(batch, 2, height, width, cell) * cell * 0.2 * torch.rand(batch, 1, 1, 1) ** 2
    shift = shift * (torch.rand(batch, 1, 1, 1) < share)
    grid = torch.stack([x + shift[:, 0] * 2 / width, y + shift[:, 1] * 2 / height], -1)
    colour = F.grid_sample(colour, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    disparity = F.grid_sample(disparity[:, None], grid, mode="nearest", padding_mode="reflection", align_corners=True)
    return colour, disparity[:, 0]


def _develop(colour: torch.Tensor) -> torch.Tensor:
    """Exposure, white balance, tone curve, vignette, blur and noise of a camera: (B, 3, H, W) in [0, 1]."""
    batch, _, height, width = colour.shape

    def draw(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, channels, 1, 1)

    mean = colour.mean((1, 2, 3), keepdim=True).clamp(min=1e-3)
    colour = colour * (draw(0.25, 0.65) / mean) ** draw(0.3, 1.0) * draw(0.88, 1.12, 3)
    colour = colour.clamp(0, 1.5) ** draw(0.6, 1.25)
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    colour = colour * (1 - draw(-0.05, 0.25) * (x * x + y * y))
    soft = F.interpolate(F.avg_pool2d(colour, 2), size=(height, width), mode="bilinear", align_corners=False)
    colour = colour + (soft - colour) * draw(-0.5, 1.0)
    colour = colour + torch.randn_like(colour) * draw(0.0, 0.2) ** 2
    return colour.clamp(0, 1)


def _defocus(colour: torch.Tensor, disparity: torch.Tensor) -> torch.Tensor:
    """Blur what lies before and behind a random distance, as a wide aperture does: (B, 3, H, W).

    The circle of confusion grows with the distance from the focus in disparity; of two blurred copies and the sharp
    picture, neighbours in that scale are mixed.
    """
    batch, _, height, width = colour.shape
    pick = torch.randint(0, height * width, (batch, 1))
    focus = disparity.flatten(1).gather(1, pick).view(batch, 1, 1, 1)
    reach = disparity.flatten(1).amax(1).view(batch, 1, 1, 1).clamp(min=1e-6)
    confusion = (disparity.unsqueeze(1) - focus).abs() / reach * (6 * torch.rand(batch, 1, 1, 1))
    for threshold, kernel in ((0.0, 2 * (height // 84) + 1), (1.0, 2 * (height // 42) + 1)):
        soft = colour
        for _ in range(2):
            soft = F.avg_pool2d(soft, kernel, 1, kernel // 2, count_include_pad=False)
        colour = colour + (soft - colour) * (confusion - threshold).clamp(0, 1)
    return colour


class Generator:
    """Makes batches of pictures; keeps the texture bank and replaces it now and then."""

    def __init__(self, height: int, width: int, compiled: bool = False, textures: int = 256) -> None:
        self.height, self.width, self.textures = height, width, textures
        self.tracer = Tracer(compiled)
        self.things = catalogue()
        self.bank = make_bank(textures)

    def renew_textures(self) -> None:
        """Draw another bank of textures."""
        self.bank = make_bank(self.textures)

    @torch.no_grad()
    def batch(self, size: int, style: int, wild: float = 0.1) -> Pictures:
        """A batch of pictures of one style (its number in STYLES)."""
        scene = make_scene(STYLES[style], size, self.things, self.bank.count, wild)
        colour, disparity = render(scene, self.bank, self.tracer, self.height, self.width, bool(torch.rand(()) < 0.7))
        if torch.rand(()) < 0.1:
            colour, disparity = _cutouts(colour, disparity, self.bank)
        if torch.rand(()) < 0.4:
            colour, disparity = _crumple(colour, disparity, 0.5)
        if torch.rand(()) < 0.2:
            colour = _defocus(colour, disparity)
        colour = (_develop(colour) * 255 + torch.rand_like(colour)).clamp(0, 255).to(torch.uint8)
        return Pictures(colour, disparity)
