"""How long a picture takes: the network alone, and every stage from a JPEG file to a PNG file.

    python benchmarks/forward.py --encoder vits --width 640 --height 480 --runs 5

Speed does not depend on the values of the weights, so networks run with random ones and nothing is downloaded. Each
stage runs once unmeasured, then --runs times; median and spread are printed, and one line of JSON last. Times of two
runs of this script on a shared machine are not comparable; the shares within one run are.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from depthcli.colormap import DEFAULT_COLORMAP
from depthcli.io.depth_files import write_color, write_gray16, write_npz
from depthcli.io.images import read_picture
from depthcli.nets import vit
from depthcli.nets.attention import HAS_FUSED, attention, plain_attention
from depthcli.nets.build import build_network, channels_last
from depthcli.postprocess import to_depth_map
from depthcli.preprocess import plan_input, to_network_input
from depthcli.zoo import ENCODERS, find_row


def measure(call: Callable[[], object], runs: int) -> dict[str, float]:
    """Return median, smallest and largest milliseconds of `runs` calls after one that does not count."""
    call()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return {"median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}


def photograph(width: int, height: int) -> bytes:
    """Return the bytes of a JPEG with the spectrum of a photograph: smooth, with a little noise."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="tiny")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--input-size", type=int)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()

    row = find_row(arguments.encoder)
    plan = plan_input(arguments.width, arguments.height, arguments.input_size or row.input_size)
    torch.manual_seed(0)
    network = build_network(row.network).eval()
    photo = photograph(arguments.width, arguments.height)
    picture = read_picture(photo, "photo.jpg")
    image = torch.from_numpy(to_network_input(picture.rgb, plan))[None]

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        return network(image)

    rows: dict[str, dict[str, float]] = {}
    vit.attention = plain_attention
    rows["network, plain attention, channels first"] = measure(forward, arguments.runs)
    if HAS_FUSED:
        vit.attention = attention
        rows["network, fused attention"] = measure(forward, arguments.runs)
    channels_last(network)
    rows["network, as depth runs it"] = measure(forward, arguments.runs)
    output = forward()[0].numpy()
    depth = to_depth_map(output, plan, row)
    rows["read JPEG"] = measure(lambda: read_picture(photo, "photo.jpg"), arguments.runs)
    rows["preprocess"] = measure(lambda: to_network_input(picture.rgb, plan), arguments.runs)
    rows["postprocess"] = measure(lambda: to_depth_map(output, plan, row), arguments.runs)
    rows["write color PNG"] = measure(lambda: write_color(depth, io.BytesIO(), DEFAULT_COLORMAP), arguments.runs)
    rows["write gray PNG"] = measure(lambda: write_gray16(depth, io.BytesIO()), arguments.runs)
    rows["write npz"] = measure(lambda: write_npz(depth, io.BytesIO()), arguments.runs)

    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    sizes = f"picture {plan.picture_size}, input {plan.input_size}"
    print(f"{row.name}, {sizes}, {torch.get_num_threads()} threads; {machine}")
    for name, times in rows.items():
        print(f"{name:42s} {times['median_ms']:8.1f} ms   ({times['min_ms']:.1f} to {times['max_ms']:.1f})")
    print(json.dumps({"encoder": row.name, "input_size": plan.input_size, "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
