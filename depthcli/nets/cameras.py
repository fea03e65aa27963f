"""Cameras in and out of Depth Anything 3: tokens of known cameras, and cameras from the encoder's tokens.

A camera is nine numbers: the translation and the quaternion (x, y, z, w) of camera to world, and the field of view
along height and width, in radians. The principal point is the middle of the picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from depthcli.nets.vit import Block

NUMBERS = 9
_HEADS = 16  # of the camera encoder, at every size
_BLOCKS = 4
_EPS = 1e-5
_LEAST_TANGENT = 1e-6


class CameraDecoder(nn.Module):
    """Tokens (V, C) -> cameras (V, 9)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = (nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
        self.backbone = nn.Sequential(*layers)
        self.fc_t = nn.Linear(channels, 3)
        self.fc_qvec = nn.Linear(channels, 4)
        self.fc_fov = nn.Sequential(nn.Linear(channels, 2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.backbone(x)
        return torch.cat([self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)], dim=-1)


class _PoseBranch(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(NUMBERS, dim // 2)
        self.fc2 = nn.Linear(dim // 2, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class CameraEncoder(nn.Module):
    """Cameras (V, 9) -> tokens (V, D), which attend to each other."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pose_branch = _PoseBranch(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.Sequential(*(Block(dim, _HEADS, swiglu=False, eps=_EPS) for _ in range(_BLOCKS)))
        self.trunk_norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.token_norm(self.pose_branch(x))
        return self.trunk_norm(self.trunk(x[None]))[0]


def to_numbers(extrinsics: torch.Tensor, intrinsics: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return cameras (V, 9) with w >= 0.

    extrinsics: (V, 3 or 4, 4) world to camera. intrinsics: (V, 3, 3) in pixels. size: (height, width) of the views.
    """
    rotation = extrinsics[:, :3, :3].transpose(1, 2)
    translation = -(rotation @ extrinsics[:, :3, 3:])[..., 0]
    height, width = size
    tangents = torch.stack([height / 2 / intrinsics[:, 1, 1], width / 2 / intrinsics[:, 0, 0]], dim=-1)
    return torch.cat([translation, quaternions(rotation), 2 * torch.atan(tangents)], dim=-1)


def to_matrices(numbers: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return extrinsics (V, 3, 4), world to camera, and intrinsics (V, 3, 3) in pixels. size: (height, width)."""
    height, width = size
    rotation = rotations(numbers[:, 3:7]).transpose(1, 2)
    extrinsics = torch.cat([rotation, -(rotation @ numbers[:, :3, None])], dim=-1)
    half = torch.tan(numbers[:, 7:] / 2).clamp(min=_LEAST_TANGENT)
    intrinsics = torch.zeros(len(numbers), 3, 3, dtype=numbers.dtype, device=numbers.device)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = width / 2 / half[:, 1], height / 2 / half[:, 0]
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = width / 2, height / 2, 1
    return extrinsics, intrinsics


def rotations(quaternion: torch.Tensor) -> torch.Tensor:
    """Return rotation matrices (V, 3, 3) of quaternions (V, 4), x y z w, of any length."""
    x, y, z, w = quaternion.unbind(-1)
    s = 2 / (quaternion * quaternion).sum(-1)
    rows = (
        (1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        (s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        (s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternions(rotation: torch.Tensor) -> torch.Tensor:
    """Return unit quaternions (V, 4), x y z w with w >= 0, of rotation matrices (V, 3, 3).

    Each row of the matrix q q^T, times four, follows from the rotation's entries; the row of the largest component is
    the most exact.
    """
    m = rotation
    diagonal = (m[:, 0, 0], m[:, 1, 1], m[:, 2, 2])
    trace = diagonal[0] + diagonal[1] + diagonal[2]
    squares = [*(1 + 2 * value - trace for value in diagonal), 1 + trace]
    xy, xz, yz = m[:, 1, 0] + m[:, 0, 1], m[:, 0, 2] + m[:, 2, 0], m[:, 2, 1] + m[:, 1, 2]
    xw, yw, zw = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    x2, y2, z2, w2 = squares
    rows = ((x2, xy, xz, xw), (xy, y2, yz, yw), (xz, yz, z2, zw), (xw, yw, zw, w2))
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    best = torch.stack(squares, dim=-1).argmax(dim=-1)
    found = outer[torch.arange(len(outer), device=outer.device), best]
    found = found / found.norm(dim=-1, keepdim=True)
    return torch.where(found[:, 3:] < 0, -found, found)
