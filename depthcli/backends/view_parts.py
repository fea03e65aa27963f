"""Run the parts of a network for the views of a scene, in a backend that converts graphs (graphs/any_views.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

from depthcli.backends import Arrays
from depthcli.errors import EngineError
from depthcli.geometry.poses import decode_cameras, encode_cameras
from depthcli.geometry.reference_views import FEWEST_TO_CHOOSE, REFERENCES
from depthcli.graphs.view_tables import TablesBySize

# Part, inputs, and a function that ends the run once it returns True -> outputs, in order.
Infer = Callable[[str, Sequence[np.ndarray], Callable[[], bool]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class ViewParts:
    """A network for scenes. infer: runs a part. first: tokens (2, D) of the reference view and of the others."""

    infer: Infer
    tables: TablesBySize
    first: np.ndarray

    def run(self, inputs: Arrays) -> Arrays:
        """Return the answers of the graph "views", see Backend.run. Raises EngineError for Gaussians."""

        def infer(part: str, values: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            return self.infer(part, values, inputs.get("stop", lambda: False))

        if inputs.get("features"):
            raise EngineError("features of blocks are given by torch alone", "use `backend` torch")
        if inputs.get("gaussians"):
            raise EngineError("Gaussians are computed by torch alone", "use `backend` torch")
        image = np.ascontiguousarray(inputs["image"], np.float32)
        views, size = len(image), (image.shape[3], image.shape[2])
        tables = self.tables.of(image)
        (tokens,) = infer("begin", [image, tables.positions])
        reference = 0
        if inputs.get("extrinsics") is not None and inputs.get("intrinsics") is not None:
            known = encode_cameras(np.asarray(inputs["extrinsics"]), np.asarray(inputs["intrinsics"]), size)
            (cameras,) = infer("encode", [known.astype(np.float32)])
        else:
            if views >= FEWEST_TO_CHOOSE:
                reference = REFERENCES[inputs.get("reference", "saddle_balanced")](tokens[:, 0])
            cameras = np.repeat(self.first[1:], views, axis=0)
            cameras[reference] = self.first[0]
        across = [np.tile(table, (views, 1)) for table in tables.across]
        *levels, pose = infer("relate", [tokens, cameras, *tables.alone, *across, *tables.codes])
        descriptors = tokens[:, 0].astype(np.float32)
        del tokens
        (numbers,) = infer("decode", [pose])
        extrinsics, intrinsics = decode_cameras(numbers, size)
        heads = {"depth": (("depth", "confidence"), tables.places)}
        if inputs.get("rays"):
            heads["rays"] = (("rays", "ray_confidence"), tables.ray_places)
        answers: dict[str, np.ndarray] = {}
        for part, (names, places) in heads.items():
            found = [infer(part, [*places, *(each[i : i + 1] for each in levels)]) for i in range(views)]
            answers.update(zip(names, map(np.concatenate, zip(*found))))
        return {
            **answers,
            "extrinsics": extrinsics.astype(np.float32),
            "intrinsics": intrinsics.astype(np.float32),
            "cameras": numbers,
            "reference": np.array(reference),
            "descriptors": descriptors,
        }
