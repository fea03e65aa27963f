"""Score weights on pictures with measured depth: rank correlation per picture, beside the vertical prior.

    python -m training.score REALDATA WEIGHTS [--input-size 224] [--turns] [--json FILE]

REALDATA is the folder with gt-metric3d, gt-open3d, gt-skimage and gt-opencv-aloe. These pictures are a test only.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.stats import rankdata
from torch import nn

from training.network import load_weights

PATCH = 14
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Case:
    """A picture and its truth. colour: (h, w, 3) uint8 RGB; disparity: (h, w) of any scale, NaN where unknown."""

    name: str
    colour: np.ndarray
    disparity: np.ndarray


def _inverse(depth: np.ndarray) -> np.ndarray:
    return np.where(depth > 0, 1.0 / np.maximum(depth, 1e-9), np.nan)


def _colour(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(path)
    return np.ascontiguousarray(picture[:, :, ::-1])


def _raw(path: Path) -> np.ndarray:
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise FileNotFoundError(path)
    return (values if values.ndim == 2 else values[:, :, 0]).astype(np.float64)


def load_cases(folder: Path) -> list[Case]:
    """The twelve scored pictures."""
    cases = []
    nyu = folder / "gt-metric3d" / "nyu_demo"
    for number in ("00000", "00050", "00100"):
        truth = _inverse(_raw(nyu / "depth" / f"sync_depth_{number}.png"))
        frame = np.full_like(truth, np.nan)
        frame[45:471, 41:601] = truth[45:471, 41:601]
        cases.append(Case(f"nyu_{number}", _colour(nyu / "rgb" / f"rgb_{number}.jpg"), frame))
    kitti = folder / "gt-metric3d" / "kitti_demo"
    for number in ("0000000005", "0000000050", "0000000100"):
        truth = _inverse(_raw(kitti / "depth" / f"{number}.png"))
        cases.append(Case(f"kitti_{number[-3:]}", _colour(kitti / "rgb" / f"{number}.png"), truth))
    room = folder / "gt-open3d"
    for number in ("00000", "00002", "00004"):
        truth = _inverse(_raw(room / "depth" / f"{number}.png"))
        cases.append(Case(f"open3d_{number[-1]}", _colour(room / "color" / f"{number}.jpg"), truth))
    other = room / "other_formats"
    cases.append(Case("tum", _colour(other / "TUM_color.png"), _inverse(_raw(other / "TUM_depth.png"))))
    disparity = np.load(folder / "gt-skimage" / "motorcycle_disp.npz")["arr_0"].astype(np.float64)
    disparity[~np.isfinite(disparity)] = np.nan
    cases.append(Case("motorcycle", _colour(folder / "gt-skimage" / "motorcycle_left.png"), disparity))
    aloe = _raw(folder / "gt-opencv-aloe" / "aloeGT.png")
    aloe[aloe == 0] = np.nan
    cases.append(Case("aloe", _colour(folder / "gt-opencv-aloe" / "aloeL.jpg"), aloe))
    return cases


def _fitting(length: float, least: int) -> int:
    """The multiple of a patch nearest to length, but at least `least`."""
    near = round(length / PATCH) * PATCH
    return int(near if near >= least else -(-length // PATCH) * PATCH)


def predict(network: nn.Module, colour: np.ndarray, input_size: int) -> np.ndarray:
    """Disparity (h, w) of a picture (h, w, 3), its shorter side brought to input_size, as the tool does it."""
    height, width = colour.shape[:2]
    scale = max(input_size / height, input_size / width)
    size = (_fitting(width * scale, input_size), _fitting(height * scale, input_size))
    small = cv2.resize(colour.astype(np.float32) / 255, size, interpolation=cv2.INTER_CUBIC)
    batch = torch.from_numpy((small - MEAN) / STD).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        answer = network(batch)[0].numpy()
    return cv2.resize(answer, (width, height), interpolation=cv2.INTER_LINEAR)


def rank_correlation(values: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's correlation over the known elements, ties shared; 0 where either is constant."""
    known = np.isfinite(truth)
    a, b = rankdata(values[known]), rankdata(truth[known])
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def vertical_prior(shape: tuple) -> np.ndarray:
    """ "Lower in the picture is nearer": the number of the row, (h, w)."""
    return np.repeat(np.arange(shape[0], dtype=np.float64)[:, None], shape[1], 1)


def score(network: nn.Module, cases: list[Case], input_size: int, turn: int = 0) -> dict[str, float]:
    """Rank correlation per picture; turn: quarter turns given to picture and truth before."""
    scores = {}
    for case in cases:
        colour, truth = (np.ascontiguousarray(np.rot90(values, turn)) for values in (case.colour, case.disparity))
        scores[case.name] = rank_correlation(predict(network, colour, input_size), truth)
    return scores


def baseline(cases: list[Case]) -> dict[str, float]:
    """Rank correlation of the vertical prior per picture."""
    return {case.name: rank_correlation(vertical_prior(case.disparity.shape), case.disparity) for case in cases}


def mean(scores: dict[str, float]) -> float:
    """Mean of the scores."""
    return float(np.mean(list(scores.values())))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Score weights on pictures with measured depth.")
    parser.add_argument("realdata", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--input-size", type=int, nargs="+", default=[224])
    parser.add_argument("--turns", action="store_true", help="also turn every picture by 90, 180 and 270 degrees")
    parser.add_argument("--json", type=Path, help="write the scores to a file as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, cases = load_weights(options.weights), load_cases(options.realdata)
    columns = {"vertical": baseline(cases)}
    for size in options.input_size:
        columns[f"tiny@{size}"] = score(network, cases, size)
        if options.turns:
            for turn in (1, 2, 3):
                columns[f"tiny@{size} turned {90 * turn}"] = score(network, cases, size, turn)
    print("| picture | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
    for case in cases:
        print(f"| {case.name} | " + " | ".join(f"{column[case.name]:.3f}" for column in columns.values()) + " |")
    print("| mean | " + " | ".join(f"{mean(column):.3f}" for column in columns.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(columns, indent=1))


if __name__ == "__main__":
    main()
