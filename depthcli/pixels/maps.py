"""A depth map at another size, and without its holes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from depthcli.depthmap import DepthMap
from depthcli.pixels.sampling import nearest_cells


def resized(depth: DepthMap, size: tuple[int, int]) -> DepthMap:
    """Return the map at (width, height), with its camera.

    Metric depth, and any map with holes, takes the nearest pixel: a mean across an edge would lie where nothing is.
    Other maps are interpolated, and so is confidence. Sky is always that of the nearest pixel.
    """
    if size == depth.size:
        return depth
    camera = depth.camera and depth.camera.resized(depth.size, size)
    rows, columns = nearest_cells(depth.size[1], size[1]), nearest_cells(depth.size[0], size[0])
    places = rows[:, None], columns
    sky = None if depth.sky is None else depth.sky[places]
    if depth.kind.is_metric or depth.valid is not None:
        valid, confidence = (None if layer is None else layer[places] for layer in (depth.valid, depth.confidence))
        values = depth.values[places]
        return replace(depth, values=values, camera=camera, valid=valid, confidence=confidence, sky=sky)
    smaller = size[0] * size[1] < depth.values.size
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    values = cv2.resize(depth.values, size, interpolation=way)
    confidence = None if depth.confidence is None else cv2.resize(depth.confidence, size, interpolation=way)
    return replace(depth, values=values, camera=camera, confidence=confidence, sky=sky)


def filled(depth: DepthMap) -> DepthMap:
    """Return the map with each hole at the depth of the nearest pixel that has one; a map of holes alone as it is."""
    if depth.valid is None or not depth.valid.any():
        return depth
    holes = (~depth.valid).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(labels.max()) + 1, np.float32)
    table[labels[depth.valid]] = depth.values[depth.valid]
    return replace(depth, values=np.where(depth.valid, depth.values, table[labels]), valid=None)
