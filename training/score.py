"""Score weights while they are trained: rank correlation per photograph, upright and turned, beside the row's own.

    python -m training.score REALDATA WEIGHTS [--input-size 168 196] [--turns] [--json FILE]

`depth eval` gives all other figures of finished weights. What is here besides is the turning: a picture turned by a
quarter takes the help of its rows away. The photographs are those of benchmarks/pictures.json;
none is trained on, but they choose the checkpoint that is kept.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from depthcli.eval.evaluate import known_truth
from depthcli.eval.lists import read_list
from depthcli.eval.metrics import spearman
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.pixels.preprocess import plan_input, to_network_input
from depthcli.zoo.rows import InputPolicy
from training.network import load_weights

PICTURES = Path(__file__).parents[1] / "benchmarks" / "pictures.json"


@dataclass(frozen=True)
class Case:
    """A photograph and its truth. rgb: (h, w, 3) uint8; disparity: (h, w) of any scale, NaN where unknown."""

    name: str
    rgb: np.ndarray
    disparity: np.ndarray


def load_cases(folder: Path) -> list[Case]:
    """The scored photographs, from a folder laid out as benchmarks/pictures.json says."""
    cases = []
    for entry in read_list(PICTURES, folder):
        picture = read_picture(entry.picture)
        truth = known_truth(entry, picture.size)
        if truth is not None:
            cases.append(Case(entry.name, picture.rgb, truth.disparity))
    return cases


def predict(network: nn.Module, rgb: np.ndarray, input_size: int) -> np.ndarray:
    """Disparity (h, w) of a picture (h, w, 3), as the tool computes it."""
    height, width = rgb.shape[:2]
    batch = torch.from_numpy(to_network_input(rgb, plan_input(width, height, InputPolicy(input_size))))[None]
    with torch.no_grad():
        return resize_bilinear(network(batch)[0].numpy(), (width, height))


def _ranked(values: np.ndarray, truth: np.ndarray) -> float:
    known = np.isfinite(truth)
    return spearman(values[known], truth[known]) or 0.0


def score(network: nn.Module, cases: list[Case], input_size: int, turn: int = 0) -> dict[str, float]:
    """Rank correlation per photograph; turn: quarter turns given to photograph and truth before."""
    scores = {}
    for case in cases:
        rgb, truth = (np.ascontiguousarray(np.rot90(values, turn)) for values in (case.rgb, case.disparity))
        scores[case.name] = _ranked(predict(network, rgb, input_size), truth)
    return scores


def baseline(cases: list[Case]) -> dict[str, float]:
    """Rank correlation of "lower in the picture is nearer" per photograph."""
    return {case.name: _ranked(np.indices(case.disparity.shape)[0], case.disparity) for case in cases}


def mean(scores: dict[str, float]) -> float:
    """Mean of the scores."""
    return float(np.mean(list(scores.values())))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Score weights on photographs with measured depth.")
    parser.add_argument("realdata", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--input-size", type=int, nargs="+", default=[210])
    parser.add_argument("--turns", action="store_true", help="also turn every photograph by 90, 180 and 270 degrees")
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
    print("| picture | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for case in cases:
        print(f"| {case.name} | " + " | ".join(f"{column[case.name]:.3f}" for column in columns.values()) + " |")
    print("| mean | " + " | ".join(f"{mean(column):.3f}" for column in columns.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(columns, indent=1))


if __name__ == "__main__":
    main()
