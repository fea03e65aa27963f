"""How far every backend and precision is from exact, on pictures, for `depth bench --quality`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from depthcli.backends.quantize import held_out
from depthcli.bench.contenders import Contender, reason
from depthcli.bench.rows import Quality
from depthcli.bench.sample import Sample
from depthcli.choices.model import BackendChoice
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.difference import MapDifference, compare_maps
from depthcli.pixels.preprocess import to_network_input

# All that OpenVINO computes in, beside the exact float32 of torch.
_PRECISIONS = ("fp32", "bf16", "int8")


def quality_choices(device: str, images: Path, calibration: Path | None) -> list[BackendChoice]:
    """Return the backends to compare: exact first. int8 is calibrated on `images` unless a folder is given."""
    folder = calibration or images
    return [
        BackendChoice("torch", device, "exact"),
        *(
            BackendChoice("openvino", device, precision, calibration=folder if precision == "int8" else None)
            for precision in _PRECISIONS
        ),
    ]


def measure_quality(sample: Sample, contenders: Sequence[Contender], held: bool) -> Iterator[Quality]:
    """Compare each backend's maps with those of the first, which is exact; the errors of one do not stop the others.

    held: use only the pictures that a calibration on the same folder leaves for its verdict.
    """
    pictures = held_out(sample.pictures) if held else list(sample.pictures)
    running = [item for item in contenders if item.backend is not None and not item.error]
    exact, others = running[0], running[1:]
    found: dict[str, list[MapDifference]] = {item.title: [] for item in others}
    plans = dict(zip(sample.pictures, sample.plans))
    sample.log(f"quality on {len(pictures)} pictures: {len(running)} backends")
    for path in pictures:
        inputs = {"image": to_network_input(read_picture(path).rgb, plans[path])[None]}
        wanted = _depth(exact, inputs)
        for item in list(others):
            try:
                found[item.title].append(compare_maps(wanted, _depth(item, inputs)))
            except Exception as error:  # whatever is wrong with one backend, the others are measured
                others.remove(item)
                yield Quality(item.name, item.precision, error=reason(error))
    for item in others:
        differences = found[item.title]
        yield Quality(
            name=item.name,
            precision=item.precision,
            pictures=len(differences),
            mean=float(np.mean([difference.mean for difference in differences])),
            worst=max(difference.mean for difference in differences),
            greatest=max(difference.greatest for difference in differences),
            rank=min(difference.rank for difference in differences),
        )


def _depth(item: Contender, inputs: dict[str, np.ndarray]) -> np.ndarray:
    assert item.backend is not None, item.name
    return item.backend.run(inputs)["depth"][0]
