"""Speed of `depth convert`: millimetre PNGs to EXR beside a loop with OpenCV and OpenEXR, and single large files.

    python benchmarks/convert.py [--files 1000] [--turns 3]
    python benchmarks/convert.py --real mm:open3d/depth kitti:kitti/depth    # folders of measured depth

With --real every pair of formats is taken there and back instead, and compared with what was read first.

Both read 16-bit PNGs of 640x480 and write float32 EXR with ZIP, in turns, each in a process of its own; what a process
takes to start counts for both. The loop writes one channel, Z, and does not wait for the disk. The depth is made here:
planes and spheres with noise and holes, as a sensor has them.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_LOOP = """
import sys, pathlib, cv2, numpy as np, OpenEXR
source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir()
for path in sorted(source.glob("*.png")):
    codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    z = np.where(codes > 0, codes / np.float32(1000), np.float32("nan")).astype(np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": z}).write(str(target / (path.stem + ".exr")))
"""


def scene(width: int, height: int, seed: int) -> np.ndarray:
    """Return (H, W) uint16 millimetres of a floor, a wall and a ball, with the noise and the holes of a sensor."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    z = np.minimum(4.0, 1.2 / np.maximum((y / height) - 0.45, 0.05))
    z = np.where((x - width * random.random()) ** 2 + (y - height / 2) ** 2 < (height / 5) ** 2, 1.5, z)
    z += random.normal(0, 0.0015, z.shape) * z**2
    codes = np.round(z * 1000).astype(np.uint16)
    codes[:, : width // 20] = 0
    codes[random.random(z.shape) < 0.02] = 0
    return codes


def timed(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a process, those of the processor, and the peak memory of any process so far in MB."""
    before, started = used(), time.perf_counter()
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(process.stderr.decode())
    return seconds, used() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def used() -> float:
    """Return the seconds of the processor that ended processes took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


FORMATS = ("exr", "tiff", "pfm", "npy", "npz", "mm", "kitti", "tum", "sun", "scannet")


def compare(folders: list[str]) -> None:
    """Print, for each first format, the largest difference over all second ones, and how many holes came or went.

    Pixels that are too far for a format are left out of that pair, and counted.
    """
    from depthcli.choices.source import SourceChoice
    from depthcli.io.codecs.files import read_depth, write_file
    from depthcli.io.codecs.foreign import read_map
    from depthcli.io.codecs.formats import STILLS

    for folder in folders:
        source, _, place = folder.partition(":")
        paths = sorted(Path(place).glob("*.png"))
        for first in FORMATS:
            worst, holes, far = 0.0, 0, 0
            for path in paths:
                truth = read_map(path, SourceChoice(source))
                for second in FORMATS:
                    with tempfile.TemporaryDirectory() as name:
                        one, two = (Path(name) / f"{n}{STILLS[f].suffix}" for n, f in enumerate((first, second)))
                        write_file(STILLS[first], truth, one)
                        write_file(STILLS[second], read_depth(one), two)
                        back = read_depth(two)
                    scales = [STILLS[each].scale for each in (first, second) if STILLS[each].scale]
                    beyond = truth.values > min((65535 / scale for scale in scales), default=np.inf)
                    was = np.ones_like(beyond) if truth.valid is None else truth.valid
                    now = np.ones_like(beyond) if back.valid is None else back.valid
                    holes += int((was != now)[~beyond].sum())
                    far += int((beyond & was).sum())
                    both = was & now
                    worst = max(worst, float(np.abs(back.values - truth.values)[both].max()))
            print(f"{place} {first}, then any: at most {1000 * worst:.3g} mm, {holes} holes differ, {far} too far")


def main() -> None:
    import cv2

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", nargs="*", default=[], metavar="NAME:FOLDER")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    if asked.real:
        compare(asked.real)
        return
    depth = [sys.executable, "-m", "depthcli", "convert"]
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        large = place / "large.png"
        cv2.imwrite(str(large), scene(1920, 1080, 0))
        for target in ("a.exr", "a.tiff", "a.npz", "a.pfm"):
            seconds, cpu, memory = timed([*depth, str(large), "--from", "mm", "-o", str(place / target)])
            print(f"1920x1080 to {target[2:]}: {seconds:.2f} s, processor {cpu:.2f} s, at most {memory:.0f} MB so far")
        source = place / "source"
        source.mkdir()
        for number in range(asked.files):
            cv2.imwrite(str(source / f"{number:05d}.png"), scene(640, 480, number % 50))
        few = place / "few"
        few.mkdir()
        for path in sorted(source.iterdir())[:50]:
            shutil.copy(path, few)
        *_, memory_few = timed([*depth, str(few), "--from", "mm", "-f", "exr", "-o", str(place / "few_out"), "-q"])
        rows: dict[str, list[tuple[float, float, float]]] = {"loop": [], "depth": []}
        for turn in range(asked.turns):
            target = str(place / f"out{turn}")
            rows["loop"].append(timed([sys.executable, "-c", _LOOP, str(source), target + "_loop"]))
            rows["depth"].append(timed([*depth, str(source), "--from", "mm", "-f", "exr", "-o", target, "-q"]))
            shutil.rmtree(target)
            shutil.rmtree(target + "_loop")
        for name, turns in rows.items():
            listed = ", ".join(f"{seconds:.1f} s (processor {cpu:.1f} s)" for seconds, cpu, _ in turns)
            print(f"{name}: {listed} for {asked.files} files")
        loop, mine = (statistics.median(seconds for seconds, *_ in rows[name]) for name in ("loop", "depth"))
        print(f"depth has {loop / mine:.0%} of the speed of the loop")
        print(f"memory: at most {memory_few:.0f} MB for 50 files, {rows['depth'][-1][2]:.0f} MB for {asked.files}")


if __name__ == "__main__":
    main()
