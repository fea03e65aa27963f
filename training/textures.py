"""A bank of procedural textures with their smaller copies, looked up once per picture element."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

import torch

SIDE = 128
LEVELS = 6
_SIDES = [SIDE >> level for level in range(LEVELS)]
_STARTS = [sum(s * s for s in _SIDES[:level]) for level in range(LEVELS)]
_ROWS = sum(s * s for s in _SIDES)


@dataclass(frozen=True)
class Bank:
    """texels: (T * rows, 3) colours in [0, 1] with mean near 0.5; the copies of one texture follow each other."""

    texels: torch.Tensor
    count: int


def _uniform(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape)


def _noise(count: int, channels: int = 1) -> torch.Tensor:
    """Noise with a power-law spectrum, periodic, spread to [0, 1]: (count, channels, SIDE, SIDE)."""
    fy, fx = torch.fft.fftfreq(SIDE), torch.fft.rfftfreq(SIDE)
    stretch = torch.exp(_uniform((count, 1, 1, 1), -1.5, 1.5) * (torch.rand(count, 1, 1, 1) < 0.4))
    radius = ((fy[:, None] * stretch) ** 2 + (fx[None, :] / stretch) ** 2).sqrt().clamp(min=1.0 / SIDE)
    slope = _uniform((count, 1, 1, 1), 0.3, 2.2)
    spectrum = torch.fft.rfft2(torch.randn(count, channels, SIDE, SIDE)) * radius**-slope
    field = torch.fft.irfft2(spectrum, s=(SIDE, SIDE))
    field = field - field.mean((-1, -2), keepdim=True)
    return (0.5 + 0.25 * field / field.std((-1, -2), keepdim=True).clamp(min=1e-6)).clamp(0, 1)


def _grid(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    line = (torch.arange(SIDE) + 0.5) / SIDE
    return line.view(1, 1, SIDE).expand(count, SIDE, SIDE), line.view(1, SIDE, 1).expand(count, SIDE, SIDE)


def _repeats(count: int, low: int, high: int) -> torch.Tensor:
    return torch.randint(low, high + 1, (count, 1, 1)).float()


def _stripes(count: int) -> torch.Tensor:
    x, y = _grid(count)
    kx, ky = _repeats(count, 0, 8), _repeats(count, 0, 8)
    kx = torch.where(kx + ky == 0, torch.ones_like(kx), kx)
    wave = torch.sin(2 * math.pi * (kx * x + ky * y))
    return torch.sigmoid(wave * _uniform((count, 1, 1), 1, 20) + _uniform((count, 1, 1), -3, 3))


def _checks(count: int) -> torch.Tensor:
    x, y = _grid(count)
    k = _repeats(count, 1, 6) * 2
    return ((torch.floor(x * k) + torch.floor(y * k)) % 2).float()


def _bricks(count: int) -> torch.Tensor:
    """Rows of blocks with joints: bricks, tiles, planks, according to the counts drawn."""
    x, y = _grid(count)
    rows, columns = _repeats(count, 1, 6) * 2, _repeats(count, 1, 6)
    shift = 0.5 * (torch.rand(count, 1, 1) < 0.6)
    row = torch.floor(y * rows)
    across = x * columns + (row % 2) * shift
    joint_x, joint_y = _uniform((count, 1, 1), 0.02, 0.12), _uniform((count, 1, 1), 0.02, 0.15)
    solid = ((across % 1) > joint_x) & ((y * rows % 1) > joint_y)
    block = torch.sin(torch.floor(across % columns) * 12.9898 + row * 78.233 + torch.rand(count, 1, 1) * 50) * 43758.5
    return torch.where(solid, 0.55 + 0.4 * ((block % 1) - 0.3), torch.rand(count, 1, 1).expand_as(x))


def _windows(count: int) -> torch.Tensor:
    """Dark or bright openings in a plain front."""
    x, y = _grid(count)
    columns, rows = _repeats(count, 1, 5), _repeats(count, 1, 5)
    wide, tall = _uniform((count, 1, 1), 0.15, 0.45), _uniform((count, 1, 1), 0.15, 0.45)
    inside = ((x * columns % 1 - 0.5).abs() < wide) & ((y * rows % 1 - 0.5).abs() < tall)
    cross = ((x * columns % 1 - 0.5).abs() < 0.03) | ((y * rows % 1 - 0.45).abs() < 0.02)
    return torch.where(inside & ~cross, _uniform((count, 1, 1), 0, 0.45), _uniform((count, 1, 1), 0.5, 1))


def _spots(count: int) -> torch.Tensor:
    """The nearest of random points: cells, pebbles, leaves."""
    points = torch.rand(count, 24, 2)
    x, y = _grid(count)
    stretch = torch.exp(_uniform((count, 1, 1), -1, 1))
    best = torch.full_like(x, 9.0)
    for number in range(points.shape[1]):
        dx = (x - points[:, number, 0, None, None] + 0.5) % 1 - 0.5
        dy = (y - points[:, number, 1, None, None] + 0.5) % 1 - 0.5
        best = torch.minimum(best, dx * dx * stretch + dy * dy / stretch)
    return (best.sqrt() * 4).clamp(0, 1)


def _print(count: int) -> torch.Tensor:
    """Rows of dark runs on bright ground, like print, books on a shelf or shutters."""
    x, y = _grid(count)
    columns, rows = _repeats(count, 8, 40), _repeats(count, 1, 16)
    cell = torch.floor(x * columns) * 12.9898 + torch.floor(y * rows) * 78.233 + torch.rand(count, 1, 1) * 99
    value = (torch.sin(cell) * 43758.5) % 1
    gap = (y * rows % 1) > _uniform((count, 1, 1), 0.05, 0.5)
    return torch.where(gap, value, torch.ones_like(value))


_PATTERNS: list[Callable[[int], torch.Tensor]] = [_stripes, _checks, _bricks, _windows, _spots, _print, _bricks, _spots]


def _colours(pattern: torch.Tensor) -> torch.Tensor:
    """Two random related colours joined by a pattern (C, SIDE, SIDE) in [0, 1]: (C, 3, SIDE, SIDE)."""
    count = pattern.shape[0]
    grey = torch.rand(count, 1, 1, 1)
    chroma = torch.rand(count, 1, 1, 1) ** 1.5 * 0.6
    first = grey + chroma * (torch.rand(count, 3, 1, 1) - 0.5)
    second = first + _uniform((count, 1, 1, 1), -0.9, 0.9) + 0.2 * (torch.rand(count, 3, 1, 1) - 0.5)
    return (first + (second - first) * pattern.unsqueeze(1)).clamp(0, 1)


def make_bank(count: int = 256) -> Bank:
    """Draw a bank of textures; half are pure noise, half patterns with noise over them."""
    half = count // 2
    images = [_colours(_noise(half)[:, 0])]
    each = -(-(count - half) // len(_PATTERNS))
    drawn = torch.cat([make(each) for make in _PATTERNS])[torch.randperm(each * len(_PATTERNS))[: count - half]]
    grain = _uniform((count - half, 1, 1), 0, 0.6) * (_noise(count - half)[:, 0] - 0.5)
    images.append(_colours((drawn + grain).clamp(0, 1)))
    bank = torch.cat(images)
    bank = (bank + 0.15 * (_noise(count, 3) - 0.5) * torch.rand(count, 1, 1, 1)).clamp(0, 1)
    levels = [torch.nn.functional.avg_pool2d(bank, 1 << level) for level in range(LEVELS)]
    return Bank(torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2).flatten(0, 1).contiguous(), count)


def lookup(
    bank: Bank, texture: torch.Tensor, u: torch.Tensor, v: torch.Tensor, footprint: torch.Tensor
) -> torch.Tensor:
    """Colour (B, N, 3) of textures (B, N) at u, v in periods; footprint (B, N): periods one picture element covers."""
    level = torch.log2((footprint * SIDE).clamp(min=1.0)).round().clamp(max=LEVELS - 1).long()
    side = torch.tensor(_SIDES, device=u.device)[level]
    start = torch.tensor(_STARTS, device=u.device)[level]
    column = ((u % 1.0) * side).long().clamp(min=0)
    row = ((v % 1.0) * side).long().clamp(min=0)
    column, row = torch.minimum(column, side - 1), torch.minimum(row, side - 1)
    return torch.nn.functional.embedding(texture * _ROWS + start + row * side + column, bank.texels)
