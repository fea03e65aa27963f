"""The eager float32 path gives what the official code gives, from the picture to the depth map.

Set DEPTHCLI_PARITY to a folder of reference outputs to hold the network to those as well.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli.nets.build import build_network, load_network
from depthcli.pixels.postprocess import to_depth_map
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.zoo.rows import InputPolicy, select_row
from tests.reference import reference_image, reference_state

DATA = Path(__file__).parents[1] / "data"
NAME = re.compile(r"dav2_(relative|metric)_(vit\w)_(\d+)x(\d+)_s(\d+)")
MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
FILES = sorted(DATA.glob("dav2_*.npz")) + (sorted(MORE.glob("dav2_*.npz")) if MORE else [])

# A wrong LayerNorm epsilon moves the answer by 4e-6 to 2e-5 of its maximum. Rounding differs between versions of torch:
# 1.1e-6 was measured with 2.13, 7.6e-6 of the network's maximum with 1.13.
TOLERANCE = 2e-6 if hasattr(torch.nn.functional, "scaled_dot_product_attention") else 1e-5


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_official_answer_is_reproduced(path: Path) -> None:
    match = NAME.fullmatch(path.stem)
    assert match
    kind, encoder = match.group(1, 2)
    height, width, size = (int(number) for number in match.group(3, 4, 5))
    golden = np.load(path)
    stride, input_stride = int(golden.get("stride", 1)), int(golden.get("input_stride", 8))
    row = select_row(encoder, "indoor" if kind == "metric" else None)
    network = load_network(row, _state(encoder))

    plan = plan_input(width, height, InputPolicy(size))
    image = to_network_input(reference_image(height, width), plan)
    assert (1, *image.shape) == tuple(golden["input_shape"])
    assert np.array_equal(image[:, ::input_stride, ::input_stride], golden["input_tensor"])

    with torch.inference_mode():
        taps = network.pretrained(torch.from_numpy(image)[None])
        output = network(torch.from_numpy(image)[None])[0].numpy()
    tokens = [tap.flatten(2).transpose(1, 2)[0].numpy() for tap in taps]
    close(np.stack([t[:2, :8] for t in tokens]), golden["taps_corner"])
    assert np.allclose([t.mean() for t in tokens], golden["taps_mean"], atol=1e-6)
    assert np.allclose([t.std() for t in tokens], golden["taps_std"], atol=1e-5)

    metres = row.max_depth or 1.0
    network_maximum = golden["network_output"].max() if stride == 1 else golden["network_maximum"]
    close(output[::stride, ::stride] * metres, golden["network_output"], network_maximum)
    depth = to_depth_map(output, plan, row)
    assert depth.size == (width, height)
    close(
        depth.values[::stride, ::stride], golden["depth"], golden["depth"].max() if stride == 1 else golden["maximum"]
    )


def close(found: np.ndarray, wanted: np.ndarray, maximum: float | None = None) -> None:
    error = np.abs(found - wanted).max() / (np.abs(wanted).max() if maximum is None else maximum)
    assert error <= TOLERANCE, f"off by {error:.1e} of the maximum"


_STATES: dict[str, dict[str, torch.Tensor]] = {}


def _state(encoder: str) -> dict[str, torch.Tensor]:
    """The reference weights of an encoder; only the last one is kept, as making them takes a second."""
    if encoder not in _STATES:
        _STATES.clear()
        shapes = {
            name: tensor.shape for name, tensor in build_network(select_row(encoder).network).state_dict().items()
        }
        _STATES[encoder] = {name: torch.from_numpy(values) for name, values in reference_state(shapes).items()}
    return _STATES[encoder]
