"""Small networks of Depth Anything 3 of each kind, filled by the rule of tests/reference.py.

`python -m tests.nets.da3` writes their answers to tests/data/da3_small.npz: only for a network that gives what the
official one gives, see test_official_answers_are_reproduced.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from depthcli.nets.build import build_network
from depthcli.pixels.preprocess import InputPlan, to_network_input
from depthcli.zoo.rows import AnyConfig, NestedConfig, SkyConfig, ViewsConfig, find_row
from tests.reference import reference_image, reference_state

FILE = Path(__file__).parents[1] / "data/da3_small.npz"
_HEAD = (16, (8, 16, 16, 16))
SKY = SkyConfig(128, 4, 2, *_HEAD, (0, 1, 2, 3), position_grid=5)
VIEWS = ViewsConfig(128, 6, 2, *_HEAD, (1, 3, 4, 5), position_grid=5, views_from=2)
GIANT = ViewsConfig(128, 6, 2, *_HEAD, (1, 3, 4, 5), position_grid=5, views_from=3, swiglu=True, gaussians=True)
NETWORKS: dict[str, AnyConfig] = {"mono": SKY, "views": VIEWS, "giant": GIANT, "nested": NestedConfig(GIANT, SKY)}
SIZE = (28, 42)


def network(kind: str) -> nn.Module:
    """Return a network of a kind with the rule's weights."""
    made = build_network(NETWORKS[kind]).eval()
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    made.load_state_dict({name: torch.from_numpy(value) for name, value in reference_state(shapes).items()})
    return made


def views(count: int, height: int = SIZE[0], width: int = SIZE[1]) -> torch.Tensor:
    """Return so many normalised pictures (V, 3, H, W)."""
    plan = InputPlan((width, height), (width, height), policy=find_row("da3-mono").input.with_size(max(height, width)))
    return torch.from_numpy(np.stack([to_network_input(reference_image(height, width, i), plan) for i in range(count)]))


def cameras(count: int) -> dict[str, torch.Tensor]:
    """Return cameras that turn and move: extrinsics (V, 4, 4), the first without a pose, and intrinsics (V, 3, 3)."""
    extrinsics, intrinsics = np.tile(np.eye(4), (count, 1, 1)), np.tile(np.eye(3), (count, 1, 1))
    for i in range(count):
        c, s = np.cos(0.4 * i), np.sin(0.4 * i)
        extrinsics[i, :3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        extrinsics[i, :3, 3] = 0.3 * i, -0.2 * i, 0.5 * i
        intrinsics[i, :2] = [[40 + i, 0, SIZE[1] / 2], [0, 38 - i, SIZE[0] / 2]]
    return {"extrinsics": torch.from_numpy(extrinsics).float(), "intrinsics": torch.from_numpy(intrinsics).float()}


def answers() -> dict[str, np.ndarray]:
    """Return what the networks give, as "case/output"."""
    cases = {
        "mono": dict(zip(("depth", "sky"), network("mono")(views(2)))),
        "views": network("views")(views(3), rays=True),
        "middle": network("views")(views(5), reference="middle"),
        "range": network("views")(views(5), reference="saddle_sim_range"),
        "posed": network("views")(views(3), **cameras(3)),
        "giant": network("giant")(views(2), gaussians=True),
        "nested": network("nested")(views(2)),
    }
    return {f"{case}/{name}": np.asarray(value) for case, named in cases.items() for name, value in named.items()}


def kept(name: str, values: np.ndarray) -> np.ndarray:
    """Return the part of an answer that is kept in the file: of large ones each 41st number of the flattened array."""
    return values if values.size <= 100 else values.ravel()[::41]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = answers()
    np.savez_compressed(FILE, **{name: kept(name, values) for name, values in found.items()})
    print({name: values.item() for name, values in found.items() if name.endswith("reference")}, FILE.stat().st_size)
