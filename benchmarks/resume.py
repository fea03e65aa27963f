"""Seconds of processor time that `depth dir` takes over a folder that is done: 20,000 pictures with maps and manifest.

    python benchmarks/resume.py --vs ../older-checkout

The first run of each state is made by this checkout; then both run in turns over the same files, so that they meet the
same machine. States: `noted`, as a run leaves it; `touched`, every picture has a new time; `no manifest`, all is asked
of the files. The older checkout has the same to do only in the first.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depthcli.depthmap import DepthKind, DepthMap, Provenance  # noqa: E402
from depthcli.io.codecs.files import write_still  # noqa: E402
from depthcli.io.codecs.formats import STILLS  # noqa: E402
from depthcli.io.codecs.outputs import OutputSpec  # noqa: E402
from depthcli.jobs.manifest import DONE, MANIFEST_NAME, Manifest, Result  # noqa: E402
from depthcli.jobs.picture_file import PictureFile  # noqa: E402
from depthcli.jobs.picture_results import file_facts  # noqa: E402

SETTINGS = "encoder=tiny backend=auto precision=auto colormap=Spectral_r"


def make(folder: Path, count: int) -> None:
    """Make tiny pictures and the results they would have, in folders of 1000."""
    rng = np.random.default_rng(0)
    outputs = OutputSpec()
    manifest = Manifest(folder / "out" / MANIFEST_NAME)
    for number in range(count):
        name = f"{number // 1000:02d}/{number:05d}.png"
        path, stem = folder / "in" / name, folder / "out" / Path(name).with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(path)
        picture = PictureFile(path, name)
        facts = picture.facts()
        picture.close()
        origin = Provenance("tiny", sha256="ab" * 32, source=path.name, source_sha256=facts["sha256"])
        (result,) = outputs.paths(stem)
        values = np.arange(64, dtype=np.float32).reshape(8, 8)
        depth = DepthMap(values, DepthKind.RELATIVE_DISPARITY, origin)
        result.parent.mkdir(parents=True, exist_ok=True)
        with result.open("wb") as stream:  # not by OutputSpec.write, which waits for the disk each time
            write_still(STILLS["color"], depth, stream)
        row = Result(
            name,
            (str(result),),
            DONE,
            model="tiny",
            weights="ab" * 32,
            settings=SETTINGS,
            source=facts,
            files=(file_facts(result.stat()),),
        )
        manifest.add(row)


def seconds(checkout: Path, folder: Path) -> float:
    """Return the processor's seconds of a run over the folder, which a busy machine changes little; start included."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "depthcli", "dir", "in", "-o", "out", "--encoder", "tiny", "--quiet"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def states(folder: Path) -> Iterator[str]:
    yield "noted"
    for path in (folder / "in").rglob("*.png"):
        os.utime(path)
    yield "touched"
    (folder / "out" / MANIFEST_NAME).unlink()
    yield "no manifest"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vs", type=Path, help="another checkout to compare with")
    parser.add_argument("--count", type=int, default=20_000, help="how many pictures")
    parser.add_argument("--pairs", type=int, default=3, help="how many runs of each checkout")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="depthcli-resume-"))
    try:
        make(folder, options.count)
        for state in states(folder):
            first = seconds(ROOT, folder)
            if state == "noted":
                first = seconds(ROOT, folder)
            runs: dict[str, list[float]] = {"this": [], "other": []}
            for _ in range(options.pairs):
                runs["this"].append(seconds(ROOT, folder))
                if options.vs:
                    runs["other"].append(seconds(options.vs.resolve(), folder))
            line = f"{state}: first run {first:.2f} s, then {statistics.median(runs['this']):.2f} s"
            if options.vs:
                ratios = [this / other for this, other in zip(runs["this"], runs["other"])]
                line += f"; other {statistics.median(runs['other']):.2f} s, ratio {statistics.median(ratios):.2f}"
            print(line, flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
