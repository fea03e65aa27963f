"""A walk round a hall, traced exactly, and a stand-in network that answers each chunk in a world of its own.

Pictures carry the number of their view in their first pixel, by which the stand-in knows them. Its answers are wrong as
those of a network are: each run has its own scale, turn and place, depth is noisy and wrong by a part that changes
slowly over the picture, and cameras are a little off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from depthcli.camera import Camera, CameraSource
from depthcli.geometry.rays import rays
from depthcli.geometry.sim3 import Sim3
from depthcli.predict.model import Model
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from tests.fake_backend import FakeBackend
from tests.geometry.worlds import random_turn

SIZE = (42, 28)  # of pictures and maps
MATRIX = np.array([[30.0, 0, 20.5], [0, 30.0, 13.5], [0, 0, 1]])
_MATRIX_FROM_CORNERS = np.array([[30.0, 0, 21], [0, 30.0, 14], [0, 0, 1]])  # as networks count pixels
_HALL = np.array([9.0, 2.0, 7.0])  # half sides, y down; walls all round
_PILLARS = np.array([[4.0 * np.cos(a), 3.0 * np.sin(a)] for a in np.arange(9) * 0.7])  # (x, z), half a metre thick
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def poses(count: int, rounds: float = 1.05) -> np.ndarray:
    """Return (N, 3, 4) world to camera: once round between walls and pillars and a little further, looking ahead."""
    out = np.zeros((count, 3, 4))
    for number, angle in enumerate(np.linspace(0, 2 * np.pi * rounds, count)):
        place = np.array([6.5 * np.cos(angle), 0.2 * np.sin(3 * angle), 5.0 * np.sin(angle)])
        yaw = angle + np.pi / 2 + 0.5 * np.sin(2 * angle)
        forward = np.array([np.cos(yaw), 0.1 * np.sin(angle), np.sin(yaw)])
        forward /= np.linalg.norm(forward)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        turn = np.stack([right, np.cross(forward, right), forward])
        out[number] = np.concatenate([turn, -turn @ place[:, None]], axis=1)
    return out


def traced(pose: np.ndarray) -> np.ndarray:
    """Return the (H, W) depth along the axis that a (3, 4) pose sees; each is traced once or twice."""
    return _traced(np.ascontiguousarray(pose).tobytes())


@lru_cache(128)
def _traced(content: bytes) -> np.ndarray:
    pose = np.frombuffer(content).reshape(3, 4)
    camera = Camera(MATRIX, CameraSource.GIVEN)
    local = np.concatenate([rays(SIZE, camera), np.ones((SIZE[1], SIZE[0], 1))], axis=2)
    way, origin = local @ pose[:, :3], -pose[:, :3].T @ pose[:, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        walls = (np.sign(way) * _HALL - origin) / way
        nearest = np.where(np.isfinite(walls), walls, np.inf).min(axis=2)
        for pillar in _PILLARS:
            flat, apart = way[..., ::2], origin[::2] - pillar
            a, b = (flat**2).sum(axis=2), flat @ apart
            root = b * b - a * (apart @ apart - 0.25)
            hit = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
            nearest = np.where((hit > 1e-6) & (hit < nearest), hit, nearest)
    return nearest.astype(np.float32)


def pictures(folder: Path, count: int) -> None:
    """Write the pictures of a walk, 00000.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
        pixels[0, 0] = number % 256, number // 256, 7
        pixels[1:, :, 0] = np.arange(SIZE[0]) * 5
        Image.fromarray(pixels).save(folder / f"{number:05d}.png")


@dataclass
class Walker:
    """The stand-in. wrong: share of depth that is arbitrary. runs: how often it ran."""

    truth: np.ndarray
    noise: float = 0.02
    bias: float = 0.01
    wrong: float = 0.0
    runs: int = 0

    def answers(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.runs += 1
        first = inputs["image"][:, :, 0, 0] * _STD + _MEAN
        numbers = np.round(first * 255).astype(int)
        indices = numbers[:, 0] + 256 * numbers[:, 1]
        generator = np.random.default_rng(indices)
        turn = random_turn(generator, generator.uniform(0, 3))
        world = Sim3(float(np.exp(generator.uniform(-0.7, 0.7))), turn, generator.normal(size=3) * 5)
        exact = self.truth[indices]
        depth = np.stack([traced(pose) for pose in exact])
        u, v = np.meshgrid(np.linspace(0, 3, SIZE[0]), np.linspace(0, 2, SIZE[1]))
        phases = generator.uniform(0, 6, (len(exact), 1, 1))
        depth = depth * (1 + self.noise * generator.normal(size=depth.shape) + self.bias * np.sin(u + v + phases))
        wrong = generator.uniform(size=depth.shape) < self.wrong
        depth = np.where(wrong, depth * generator.uniform(0.3, 3, depth.shape), depth)
        shaken = np.array(exact)
        shaken[:, :, 3] += 0.003 * generator.normal(size=(len(exact), 3))
        for pose in shaken:
            pose[:] = random_turn(generator, 0.0005) @ pose
        places = np.einsum("nji,nj->ni", exact[:, :, :3], -exact[:, :, 3])
        ways = 3 * exact[:, 2, :3]
        return {
            "depth": (depth * world.scale).astype(np.float32),
            "confidence": np.full(depth.shape, 2, np.float32) + generator.uniform(size=depth.shape).astype(np.float32),
            "extrinsics": world.extrinsics(shaken).astype(np.float32),
            "intrinsics": np.tile(_MATRIX_FROM_CORNERS, (len(exact), 1, 1)),
            "reference": np.array(0),
            "descriptors": np.concatenate([places, ways], axis=1),
        }


def stand_in(walker: Walker) -> tuple[Any, Any]:
    """Return what takes the places of `resolve_model` and `open_backend` of predict.scene."""

    def resolve(choice: Any, *_: Any, **__: Any) -> Model:
        return Model(find_row(choice.model), WeightsFile(Path(f"{choice.model}.safetensors"), "0" * 64, "test"))

    return resolve, lambda *_: FakeBackend(views=walker.answers)


def use_walk(monkeypatch: pytest.MonkeyPatch, count: int, **settings: float) -> Walker:
    """Put the stand-in in the place of all networks."""
    walker = Walker(poses(count), **settings)  # type: ignore[arg-type]
    resolve, open_backend = stand_in(walker)
    monkeypatch.setattr("depthcli.predict.scene.resolve_model", resolve)
    monkeypatch.setattr("depthcli.predict.scene.open_backend", open_backend)
    return walker
