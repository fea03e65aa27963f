"""NPZ files with the keys of Depth Anything 3, and a `meta` text with what those do not say.

    depth       (N, H, W) float32, 0 where there is none     extrinsics  (N, 3, 4) float32, world to camera
    conf        (N, H, W) float32, if known                  intrinsics  (N, 3, 3) float32, integer pixel centres
    image       (N, H, W, 3) uint8, not in the mini file     sky         (N, H, W) bool, if known

Numbers are not rounded. `meta` has the names of the pictures and the cameras with all their digits.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Optional

import numpy as np

from depthcli.camera import Camera, CameraSource, camera_of, describe_camera
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.scenes.cameras import scene_facts
from depthcli.scene import Area, Scene, View

_MOST_NUMBERS = 1 << 32


def write_npz(scene: Scene, target: IO[bytes], mini: bool = False) -> None:
    """Write all views, uncompressed. mini: without the pictures. Raises OutputError for maps of several sizes."""
    if scene.size is None:
        raise OutputError("an NPZ file holds maps of one size, and these differ", "write a file per view")
    depths = [view.depth for view in scene.views]
    arrays: dict[str, Any] = {
        "depth": np.stack([d.values if d.valid is None else np.where(d.valid, d.values, 0) for d in depths]),
        "extrinsics": scene.extrinsics.astype(np.float32),
        "intrinsics": scene.intrinsics.astype(np.float32),
        "meta": np.array(json.dumps(_meta(scene))),
    }
    for key, layer in (("conf", "confidence"), ("sky", "sky")):
        layers = [getattr(depth, layer) for depth in depths]
        if all(one is not None for one in layers):
            arrays[key] = np.stack(layers)
    pictures = [view.picture for view in scene.views]
    if not mini and all(picture is not None for picture in pictures):
        arrays["image"] = np.stack(pictures)  # type: ignore[arg-type]
    whole = io.BytesIO()  # a zip file that meets a full disk in its middle complains once more when it is collected
    np.savez(whole, **arrays)
    with whole.getbuffer() as content:
        target.write(content)


def read_npz(path: Path) -> Scene:
    """Return the scene in a file of ours, or of Depth Anything 3, whose views are then called 0000.png and so on.

    Its principal points are moved by half a pixel if they lie at exactly half of the sides. Raises OutputError.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in _KEYS}
        return _scene(arrays)
    except FileNotFoundError as error:
        raise OutputError(f"{path} does not exist") from error
    except KeyError as error:
        raise OutputError(f"{path} is no file of a scene: it lacks {error}") from error
    except Exception as error:  # what zipfile, numpy and JSON raise on broken bytes has no common class
        raise OutputError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


_KEYS = ("depth", "conf", "image", "sky", "extrinsics", "intrinsics", "meta")


def _meta(scene: Scene) -> dict[str, Any]:
    maps = [
        {
            **describe_camera(view.camera, view.depth.size),
            "area": [view.area.left, view.area.top, view.area.width, view.area.height],
        }
        for view in scene.views
    ]
    return {**scene_facts(scene), "maps": maps, "provenance": asdict(scene.views[0].depth.provenance)}


def _scene(arrays: dict[str, np.ndarray]) -> Scene:
    depth = arrays["depth"]
    if depth.ndim != 3 or depth.size > _MOST_NUMBERS:
        raise ValueError(f"its depth is {depth.shape}, not (N, H, W)")
    meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    if meta.get("schema") != SCHEMA:
        meta = {}
    count, height, width = depth.shape
    made = Provenance(**{**meta.get("provenance", {}), "converted": None}) if meta else Provenance()
    views = []
    for number in range(count):
        camera = camera_of(meta["maps"][number]) if meta else _camera(arrays, number, (width, height))
        valid = depth[number] > 0
        about = meta["cameras"][number] if meta else {}
        views.append(
            View(
                DepthMap(
                    np.where(valid, depth[number], 0),
                    DepthKind(meta.get("kind", "relative_depth")),
                    valid=valid,
                    confidence=_layer(arrays, "conf", number),
                    sky=_layer(arrays, "sky", number),
                    camera=camera,
                    provenance=replace(made, source=str(about.get("name", "")), input_size=(width, height)),
                ),
                about.get("name", f"{number:04d}.png"),
                _layer(arrays, "image", number),
                tuple(about["size"]) if about else (0, 0),
                Area(*meta["maps"][number]["area"]) if meta else Area(0, 0, 0, 0),
            )
        )
    return Scene(tuple(views), meta.get("scene", {}))


def _layer(arrays: dict[str, np.ndarray], key: str, number: int) -> Optional[np.ndarray]:
    return arrays[key][number] if key in arrays else None


def _camera(arrays: dict[str, np.ndarray], number: int, size: tuple[int, int]) -> Camera:
    camera = Camera(arrays["intrinsics"][number], CameraSource.PREDICTED, arrays["extrinsics"][number][:3])
    middle = np.allclose(camera.center, (size[0] / 2, size[1] / 2), rtol=0, atol=1e-3)
    return camera.cropped(0.5, 0.5) if middle else camera
