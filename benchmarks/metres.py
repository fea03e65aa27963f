"""Metres from relative depth against measured depth: how many references, how many wrong ones, what the error says.

    python benchmarks/metres.py FOLDER [--encoder tiny] [--draws 60]

FOLDER holds gt-metric3d (NYU and KITTI) and gt-open3d. References are drawn from the truth of each picture; the error
is |z - truth| / truth over all of it. Figures stand in docs/log.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import depthcli  # noqa: E402
from depthcli.calibration import Calibration  # noqa: E402
from depthcli.camera import Camera, CameraSource  # noqa: E402
from depthcli.errors import UsageError  # noqa: E402
from depthcli.eval.truth import read_truth  # noqa: E402
from depthcli.geometry.metres import fit_ground, fit_points  # noqa: E402

COUNTS = (1, 2, 3, 5, 10, 30, 100, 1000)
KIND = "relative_disparity"
CAMERA_HEIGHT = 1.65  # metres, of KITTI's cameras above the road


def scenes(folder: Path) -> dict[str, tuple[Path, Path, str, tuple[slice, slice]]]:
    whole, nyu = (slice(None), slice(None)), (slice(45, 471), slice(41, 601))
    found = {}
    base = folder / "gt-metric3d"
    for number in ("00000", "00050", "00100"):
        names = base / f"nyu_demo/rgb/rgb_{number}.jpg", base / f"nyu_demo/depth/sync_depth_{number}.png"
        found[f"NYU {number}"] = (*names, "nyu", nyu)
    for number in ("0000000005", "0000000050", "0000000100"):
        names = base / f"kitti_demo/rgb/{number}.png", base / f"kitti_demo/depth/{number}.png"
        found[f"KITTI {int(number)}"] = (*names, "kitti", whole)
    names = folder / "gt-open3d/color/00000.jpg", folder / "gt-open3d/depth/00000.png"
    found["Open3D 0"] = (*names, "open3d", whole)
    return found


def errors_of(calibration: Calibration, p: np.ndarray, z: np.ndarray) -> np.ndarray:
    found, known = calibration.metres(p)
    return np.where(known, np.abs(found / z - 1), 1.0)


def fit(p: np.ndarray, z: np.ndarray, how: str = "auto") -> Calibration | None:
    try:
        return fit_points(p, z, KIND, how)
    except UsageError:
        return None


def tables(p: np.ndarray, z: np.ndarray, draws: int, seed: int) -> dict[str, str]:
    draw = np.random.default_rng(seed)
    cells = {}
    said = {10: [], 30: []}
    for count in COUNTS:
        found, refused = [], 0
        for _ in range(draws if count <= 100 else draws // 4):
            at = draw.choice(len(p), count, replace=False)
            calibration = fit(p[at], z[at])
            if calibration is None:
                refused += 1
                continue
            errors = errors_of(calibration, p, z)
            found.append(errors.mean())
            if count in said and calibration.error is not None:
                said[count].append(calibration.error / np.median(errors))
        cells[f"n={count}"] = (f"{np.median(found):.3f} / {np.percentile(found, 90):.3f}" if found else "-") + (
            f" ({refused} refused)" if refused else ""
        )
    everything = fit(p[:: 1 + len(p) // 5000], z[:: 1 + len(z) // 5000])
    share = 0.0 if everything is None else everything.inliers / everything.points
    cells["all"] = "-" if everything is None else f"{errors_of(everything, p, z).mean():.3f}, inliers {share:.2f}"
    for count in (100, 1000):
        found = [fit(p[at], z[at], "isotonic") for at in (draw.choice(len(p), count, replace=False) for _ in range(15))]
        good = [errors_of(each, p, z).mean() for each in found if each is not None]
        cells[f"isotonic n={count}"] = f"{np.median(good):.3f}" if good else "-"
    for wrong in (0.2, 0.4):
        found = []
        for _ in range(15):
            at = draw.choice(len(p), 100, replace=False)
            truth = z[at].copy()
            truth[: int(100 * wrong)] = draw.uniform(z.min(), z.max(), int(100 * wrong))
            calibration = fit(p[at], truth)
            found += [] if calibration is None else [errors_of(calibration, p, z).mean()]
        cells[f"{wrong:.0%} wrong, n=100"] = (
            f"{np.mean(found):.3f}{'' if len(found) == 15 else f' ({15 - len(found)} refused)'}" if found else "refused"
        )
    for count, ratios in said.items():
        low, middle, high = np.percentile(ratios, [5, 50, 95]) if ratios else (np.nan,) * 3
        inside = np.mean([0.5 <= ratio <= 2 for ratio in ratios]) if ratios else np.nan
        cells[f"said / true, n={count}"] = f"{low:.2f}, {middle:.2f}, {high:.2f} (in x0.5-2: {inside:.0%})"
    return cells


def ground_error(depth: depthcli.DepthMap, truth: np.ndarray, folder: Path) -> str:
    annotations = json.loads((folder / "gt-metric3d/kitti_demo/test_annotations.json").read_text())
    fx, fy, cx, cy = annotations["files"][0]["cam_in"]
    camera = Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), CameraSource.GIVEN)
    found = fit_ground(depth, camera, CAMERA_HEIGHT, 0.0, "ground:1.65")
    known = np.isfinite(truth)
    return f"{errors_of(found, depth.values[known], truth[known]).mean():.3f}, {found.notes[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", default="tiny")
    parser.add_argument("--draws", type=int, default=60)
    options = parser.parse_args()
    with depthcli.DepthEstimator(options.encoder) as estimator:
        for seed, (name, (picture, measured, format, part)) in enumerate(scenes(options.folder).items()):
            if not picture.exists():
                print(f"{name}: missing")
                continue
            depth, truth = estimator.estimate(picture), read_truth(measured, format).values
            known = np.zeros(truth.shape, bool)
            known[part] = np.isfinite(truth[part])
            print(
                f"{name}: |z - truth| / truth, mean over the picture; median / 90th percentile of {options.draws} draws"
            )
            cells = tables(depth.values[known].astype(np.float64), truth[known], options.draws, seed)
            if format == "kitti":
                cells["ground:1.65"] = ground_error(depth, truth, options.folder)
            for row, cell in cells.items():
                print(f"  {row:20} {cell}")


if __name__ == "__main__":
    main()
