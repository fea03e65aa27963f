"""Gaussians of Depth Anything 3. Set DEPTHCLI_PARITY to hold them to the official arrays too."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.geometry import gaussians
from depthcli.geometry.gaussians import to_gaussians

MORE = Path(os.environ["DEPTHCLI_PARITY"]) if "DEPTHCLI_PARITY" in os.environ else None
SHAPE = (2, 3, 5)
K = np.array([[6.0, 0, 2.5], [0, 4.0, 1.5], [0, 0, 1]])


def turn(angle: float, axis: int = 1) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    i, j = [k for k in range(3) if k != axis]
    found = np.eye(3)
    found[i, i], found[j, j], found[i, j], found[j, i] = c, c, s, -s
    return found


def scene(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    extrinsics = np.zeros((2, 3, 4))
    extrinsics[:, :, :3] = np.eye(3), turn(0.4) @ turn(0.3, 0)
    extrinsics[1, :, 3] = 0.5, -0.2, 1
    raw, depth = random.standard_normal((*SHAPE, 38)), random.uniform(2, 4, SHAPE)
    return {"raw": raw, "depth": depth, "extrinsics": extrinsics, "intrinsics": np.stack([K, K])}


def test_a_gaussian_without_offsets_lies_on_the_ray_of_its_pixel() -> None:
    given = scene()
    given["raw"][..., [0, 1, 36]] = 0
    found = to_gaussians(**given).means.reshape(*SHAPE, 3)
    for view in range(2):
        rotation, translation = given["extrinsics"][view, :, :3], given["extrinsics"][view, :, 3]
        seen = found[view] @ rotation.T + translation
        x, y = seen[..., 0] / seen[..., 2], seen[..., 1] / seen[..., 2]
        columns, rows = np.meshgrid(np.arange(5) + 0.5, np.arange(3) + 0.5)
        assert np.allclose(6 * x + 2.5, columns, atol=1e-5) and np.allclose(4 * y + 1.5, rows, atol=1e-5)
        assert np.allclose(
            np.linalg.norm(seen, axis=-1), given["depth"][view], rtol=1e-5
        )  # along the ray, not the axis


def test_a_scale_moves_and_enlarges_everything_and_is_limited() -> None:
    plain, twice = to_gaussians(**scene()), to_gaussians(**scene(), scale=2)
    assert np.allclose(twice.means, 2 * plain.means, rtol=1e-5, atol=1e-6)
    assert np.allclose(twice.scales, 2 * plain.scales, rtol=1e-5)
    assert np.array_equal(twice.rotations, plain.rotations)
    assert np.array_equal(to_gaussians(**scene(), scale=9).means, to_gaussians(**scene(), scale=3).means)


def test_a_turned_camera_turns_the_gaussians() -> None:
    given = scene()
    given["raw"][1], given["depth"][1] = given["raw"][0], given["depth"][0]
    found = to_gaussians(**given)
    one, other = np.split(found.rotations, 2)
    assert np.allclose(np.linalg.norm(found.rotations, axis=1), 1, atol=1e-6) and (found.rotations[:, 3] >= 0).all()
    expected = given["extrinsics"][1, :, :3].T @ matrices(one)
    assert np.allclose(matrices(other), expected, atol=1e-5)
    assert np.allclose(*np.split(found.scales, 2), rtol=1e-5)
    assert np.allclose(*np.split(found.opacities, 2))


def matrices(q: np.ndarray) -> np.ndarray:
    x, y, z, w = q.T.astype(np.float64)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)


def test_the_colour_of_a_direction_turns_with_the_camera() -> None:
    """What a view of a camera sees of a Gaussian does not depend on where the camera looks in the world."""
    given = scene()
    given["raw"][1] = given["raw"][0]
    rotation = given["extrinsics"][1, :, :3].T
    one, other = (part.astype(np.float64) for part in np.split(to_gaussians(**given).harmonics, 2))
    axes = gaussians._AXES
    direction = np.array([[0.3, -0.5, 0.8]])
    before, after = (
        gaussians._harmonics(direction @ axes.T)[0],
        gaussians._harmonics(direction @ rotation.T @ axes.T)[0],
    )
    assert np.allclose(one @ before, other @ after, atol=1e-5)
    assert np.allclose(one[..., 0], other[..., 0]) and not np.allclose(one, other, atol=1e-3)


if MORE is not None:

    @pytest.mark.parametrize(("kind", "scale"), [("plain", 1.0), ("posed", 1.71182908)])
    def test_official_gaussians_are_reproduced(kind: str, scale: float) -> None:
        """scale: from the predicted camera centres of the file to the given ones, by least squares."""
        assert MORE is not None
        golden = np.load(MORE / "da3_gs_adapter.npz")
        opacity = golden["in_opacity"].astype(np.float64)
        raw = np.concatenate([golden["in_raw"], np.log(opacity / (1 - opacity))[..., None]], axis=-1)
        found = to_gaussians(raw, golden["in_depth"], golden["in_extrinsics"], golden["in_intrinsics"], scale)
        for name, step in (("means", 3), ("scales", 3), ("rotations", 3), ("opacities", 3), ("harmonics", 9)):
            wanted = golden[f"{kind}_{name}"]
            error = np.abs(getattr(found, name)[::step] - wanted).max() / np.abs(wanted).max()
            assert error <= 1e-6, (name, error)
