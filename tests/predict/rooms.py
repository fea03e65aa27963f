"""The traced room of tests/geometry/rooms.py as a network would answer it, in a world of the network's own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from PIL import Image

from depthcli.errors import EngineError
from depthcli.geometry.poses import square
from depthcli.geometry.rays import rays
from depthcli.geometry.sim3 import Sim3
from depthcli.host.memory import check_scene_memory, scene_bytes
from depthcli.pixels.preprocess import InputPlan
from depthcli.predict.model import Model
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from tests.fake_backend import FakeBackend
from tests.geometry.rooms import PICTURE, SIZE, room, traced

ANGLE = 0.3
# From the world of the room to that of the network.
NETWORK = Sim3(
    2.5,
    np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]]),
    np.array([0.4, -0.2, 1.0]),
)
FAR = 300.0  # focal length for which the metric network answers in metres
INPUT = SIZE[0]  # input size at which views have the size of the room's maps


def pictures(folder: Path, count: int = 3) -> list[Path]:
    """Write the pictures of the room's views, 0.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, view in enumerate(room().views[:count]):
        path = folder / f"{number}.png"
        Image.fromarray(traced(view.picture_camera, PICTURE)[1]).save(path)
        found.append(path)
    return found


def answers(inputs: dict[str, Any]) -> dict[str, Any]:
    """Answer as a network for views: those of the room, in their order."""
    count, _, height, width = inputs["image"].shape
    if (width, height) != SIZE:
        raise EngineError(f"the room has views of {SIZE}, not {(width, height)}")
    scene = room()
    views = scene.views[:count]
    poses = NETWORK.extrinsics(np.stack([view.extrinsics for view in views]))
    found = {
        "depth": np.stack([view.depth.values for view in views]) * np.float32(NETWORK.scale),
        "confidence": np.stack([view.depth.confidence for view in views]),
        "extrinsics": poses.astype(np.float32),
        "intrinsics": np.stack([view.camera.cropped(-0.5, -0.5).intrinsics for view in views]).astype(np.float32),
        "reference": np.array(0),
    }
    if inputs.get("rays"):
        found["rays"] = np.stack([_rays(view, pose) for view, pose in zip(views, poses)])
        found["ray_confidence"] = np.full(found["rays"].shape[:3], 2, np.float32)
    if inputs.get("gaussians"):
        found["gaussians"] = np.zeros((count, height, width, 38), np.float32)
        found["gaussians"][..., 5:9] = 1  # quaternions
    for block in inputs.get("features", ()):  # the place of each patch: colours must vary along both sides
        grid = np.mgrid[: height // 14, : width // 14].astype(np.float32)
        found[f"features_{block}"] = np.stack([np.moveaxis(grid, 0, -1) + number for number in range(count)])
    return found


def _rays(view: Any, pose: np.ndarray) -> np.ndarray:
    """Return the (32, 48, 6) directions and origins of the cells of a centred camera of this pose."""
    size = (48, 32)
    centred = view.camera.resized(SIZE, size)
    matrix = np.array(centred.intrinsics)
    matrix[:2, 2] = (size[0] - 1) / 2, (size[1] - 1) / 2
    local = np.concatenate([rays(size, type(centred)(matrix, centred.source)), np.ones((size[1], size[0], 1))], axis=2)
    back = np.linalg.inv(square(pose[None])[0])
    return np.concatenate([local @ pose[:, :3], np.broadcast_to(back[:3, 3], local.shape)], axis=2).astype(np.float32)


def metres(inputs: dict[str, Any]) -> dict[str, Any]:
    """Answer as the metric network for one view after the other."""
    view = room().views[metres.calls % 3]  # type: ignore[attr-defined]
    metres.calls += 1  # type: ignore[attr-defined]
    focal = (view.camera.focal[0] + view.camera.focal[1]) / 2
    sky = np.where(np.arange(SIZE[1])[:, None] == 0, 1.0, 0.0) + np.zeros(SIZE[::-1])
    return {"depth": (view.depth.values * FAR / focal)[None], "sky": sky[None].astype(np.float32)}


def bytes_of(views: int) -> int:
    """Return what so many views of the room are predicted to take in the network of da3-small."""
    return scene_bytes(find_row("da3-small").network, InputPlan(SIZE, SIZE), views)


def use_room(monkeypatch: pytest.MonkeyPatch, free: Optional[int] = None) -> list[str]:
    """Put the room in the place of all networks; return the list of those that are opened. free: bytes of memory."""
    opened: list[str] = []
    metres.calls = 0  # type: ignore[attr-defined]

    def resolve(choice: Any, *_: Any, **__: Any) -> Model:
        return Model(find_row(choice.model), WeightsFile(Path(f"{choice.model}.safetensors"), "0" * 64, "test"))

    def open_backend(row: Any, *_: Any) -> FakeBackend:
        opened.append(row.name)
        backend = FakeBackend(views=answers, depth=metres)
        if free is not None:
            backend.check = partial(_check, row.network, free)  # type: ignore[method-assign]
        return backend

    monkeypatch.setattr("depthcli.predict.scene.resolve_model", resolve)
    monkeypatch.setattr("depthcli.predict.scene.open_backend", open_backend)
    return opened


def _check(network: Any, free: int, plan: InputPlan, batch: int, further: Sequence[str] = ()) -> None:
    check_scene_memory(network, plan, batch, free, further=further)
