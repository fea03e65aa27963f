"""Deterministic weights and pictures, from a tensor's name and shape alone, for tests against the official code.

No official checkpoint can be shipped with tests, so both sides of a parity test fill their networks by this rule: the
arrays in data/ were computed by the official code of Depth Anything V2 (revision a561b849) and of Video-Depth-Anything
(4f5ae23) filled with it; those of Depth Anything 3 by the network here, after it gave what the official one (2c21ea8)
gives at full size. NumPy's legacy RandomState stream is frozen, so the same name, shape and salt give the same
bits everywhere. The scales keep the activations healthy and hide nothing: LayerScale is of order one, norms are not the
identity, no projection is zero.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SALT = "dev"
# The last layers of networks: the gains that make their answers vary, and the biases that keep them off a ReLU's floor.
_GAINS = {"scratch.output_conv2.2": 0.4, "depth_head.predict.3": 2.0, "cam_dec.fc_fov.0": 0.1}
_BIASES = {
    "scratch.output_conv2.2": 2.0,
    "depth_head.predict.3": 2.0,
    "cam_dec.fc_fov.0": 1.5,
    "scratch.sky_output_conv2.2": 0.5,
}
_SKY = "scratch.sky_output_conv2.2.weight"  # without a mean, so that there are sky and no sky in every picture


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(f"{SALT}:{name}".encode()))


def reference_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float32 array for one entry of a state_dict."""
    values = _stream(name).standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "gamma":
        values = 0.5 + 0.1 * values
    elif leaf in ("pos_embed", "cls_token", "mask_token", "camera_token"):
        values = 0.2 * values
    elif leaf == "bias":
        offset = 0.0 if name.startswith("gs_head.") or ".gs_head." in name else _of_layer(name, _BIASES, 0.0)
        values = offset + 0.05 * values
    elif len(shape) == 1:  # a norm's scale
        values = 1.0 + 0.1 * values
    else:
        transposed = name.endswith(("resize_layers.0.weight", "resize_layers.1.weight"))
        fan_in = shape[0] if transposed else math.prod(shape[1:])
        if name.endswith(_SKY):
            values = values - values.mean()
        values = _of_layer(name, _GAINS, 1.0) * values / math.sqrt(fan_in)
    return values.astype(np.float32)


def _of_layer(name: str, numbers: Mapping[str, float], otherwise: float) -> float:
    layer = name.rpartition(".")[0]
    return next((number for ending, number in numbers.items() if layer.endswith(ending)), otherwise)


def reference_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return {name: array} for a mapping of state_dict names to shapes; codes that are computed are left out."""
    return {name: reference_tensor(name, tuple(shape)) for name, shape in shapes.items() if not name.endswith(".pe")}


def reference_image(height: int, width: int, view: int | None = None) -> np.ndarray:
    """Return a uint8 RGB picture (height, width, 3) with smooth structure, edges and texture; another for each view."""
    stream = _stream(f"{'' if view is None else f'view{view}:'}image:{height}x{width}")
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    planes = []
    for _ in range(3):
        a, b, c, d = stream.uniform(2, 14, 4)
        phase = stream.uniform(0, 6.28, 3)
        planes.append(np.sin(a * x + phase[0]) + np.cos(b * y + phase[1]) + np.sin(c * x * y + d * (x - y) + phase[2]))
    picture = np.stack(planes, -1)
    for _ in range(12):
        top, left = stream.randint(0, max(1, height - 8)), stream.randint(0, max(1, width - 8))
        h, w = stream.randint(4, max(5, height // 3)), stream.randint(4, max(5, width // 3))
        picture[top : top + h, left : left + w] += stream.uniform(-1.5, 1.5, 3)
    picture += 0.1 * stream.standard_normal(picture.shape)
    low, high = picture.min(), picture.max()
    return np.round(255 * (picture - low) / (high - low)).astype(np.uint8)


def reference_clip(frames: int, height: int, width: int) -> np.ndarray:
    """Return uint8 RGB frames (frames, height, width, 3): a window that slides over one reference picture."""
    picture = reference_image(height + 40, width + 4 * 64)
    return np.stack([picture[i % 40 : i % 40 + height, (3 * i) % 256 : (3 * i) % 256 + width] for i in range(frames)])


def filled_weights(folder: Path, name: str) -> Path:
    """Write the rule's weights of a row of Depth Anything 3 at full size, as its official file holds them."""
    import torch
    from safetensors.torch import save_file

    from depthcli.nets.build import build_network
    from depthcli.zoo.rows import find_row

    shapes = {key: tuple(value.shape) for key, value in build_network(find_row(name).network).state_dict().items()}
    path = folder / f"{name}.safetensors"
    save_file({f"model.{key}": torch.from_numpy(value) for key, value in reference_state(shapes).items()}, str(path))
    return path
