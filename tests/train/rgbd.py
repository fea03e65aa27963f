"""Small pictures with depth for tests: what is bright is near, so a network has something to learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from depthcli.nets.build import build_network, load_network
from depthcli.zoo.rows import ModelRow
from tests.reference import reference_image, reference_state

SIZE = (84, 56)  # width, height


def depth_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Metres (H, W) float32 from 1 to 5, a smooth surface of each picture's own."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return (3 + 2 * np.sin(3 * x + number) * np.cos(2 * y - number)).astype(np.float32)


def write_pair(picture: Path, truth: Path, number: int, size: tuple[int, int] = SIZE) -> None:
    """Write a picture whose red is nearness, and its depth as 16-bit millimetres."""
    depth = depth_of(number, size)
    rgb = reference_image(size[1], size[0], number).copy()
    rgb[..., 0] = np.round(255 / depth)
    for path in (picture, truth):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(picture)
    Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(truth)


def write_list(count: int, path: Path | str = "list.json", size: tuple[int, int] = SIZE, first: int = 0) -> Path:
    """Write so many pairs and their list for `depth eval`."""
    rows = []
    for number in range(first, first + count):
        write_pair(Path(f"rgb/{number}.png"), Path(f"depth/{number}.png"), number, size)
        rows.append({"picture": f"rgb/{number}.png", "truth": f"depth/{number}.png", "format": "nyu"})
    Path(path).write_text(json.dumps(rows))
    return Path(path)


def network(row: ModelRow) -> torch.nn.Module:
    """Return the row's network with weights by rule; with torch's own its last ReLU may give 0 everywhere."""
    shapes = {name: value.shape for name, value in build_network(row.network, row.kind.is_metric).state_dict().items()}
    return load_network(row, {name: torch.from_numpy(value) for name, value in reference_state(shapes).items()})
