"""A contact sheet, photograph beside depth, to look at: figures do not show a sky that is near.

python -m training.sheet PHOTOGRAPHS WEIGHTS sheet.jpg [--input-size 210]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.io.pictures.images import is_picture, read_picture
from depthcli.pixels.colormap import DEFAULT_COLORMAP, to_color
from training.network import load_weights
from training.score import predict

COLUMNS, TILE = 4, (240, 180)


def _tile(rgb: np.ndarray) -> np.ndarray:
    """A picture fitted into a tile, on white."""
    height, width = rgb.shape[:2]
    scale = min(TILE[0] / width, TILE[1] / height)
    small = cv2.resize(rgb, (max(1, int(width * scale)), max(1, int(height * scale))), interpolation=cv2.INTER_AREA)
    tile = np.full((TILE[1], TILE[0], 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


def contact_sheet(folder: Path, weights: Path, input_size: int) -> np.ndarray:
    """All pictures of a folder in rows of COLUMNS pairs: (h, w, 3) uint8 RGB."""
    network, pairs = load_weights(weights), []
    for path in sorted(path for path in folder.iterdir() if is_picture(path)):
        rgb = read_picture(path).rgb
        depth = DepthMap(predict(network, rgb, input_size), DepthKind.RELATIVE_DISPARITY)
        pairs.append(np.hstack([_tile(rgb), _tile(to_color(depth, DEFAULT_COLORMAP))]))
    pairs += [np.full_like(pairs[0], 255)] * (-len(pairs) % COLUMNS)
    return np.vstack([np.hstack(pairs[row : row + COLUMNS]) for row in range(0, len(pairs), COLUMNS)])


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description="Write a contact sheet: photographs beside their depth.")
    parser.add_argument("photographs", type=Path, help="folder of pictures")
    parser.add_argument("weights", type=Path)
    parser.add_argument("sheet", type=Path, help="file to write")
    parser.add_argument("--input-size", type=int, default=210)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sheet = contact_sheet(options.photographs, options.weights, options.input_size)
    cv2.imwrite(str(options.sheet), sheet[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    main()
