"""int8 is calibrated on pictures, compared with float32, refused where it strays, and kept."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from depthcli.errors import EngineError, UsageError
from depthcli.host import graph_cache
from tests.backends.test_backends import checkpoints, opened, picture  # noqa: F401
from tests.conftest import photo

pytestmark = pytest.mark.skipif(not find_spec("openvino"), reason="OpenVINO has no wheel for this Python")


@pytest.fixture
def pictures() -> Path:
    for number in range(8):
        photo(f"pictures/{number}.png", (70 + 14 * number, 56))
    Path("pictures/broken.png").write_bytes(b"no picture")
    return Path("pictures")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "graphs"))


def set_bounds(monkeypatch, mean: float, rank: float) -> None:
    monkeypatch.setattr("depthcli.backends.quantize.MEAN_BOUND", mean)
    monkeypatch.setattr("depthcli.backends.quantize.RANK_BOUND", rank)


def choose(precision: str, calibration: Path | None = None) -> tuple[object, ...]:
    return "openvino", "cpu", precision, calibration


@pytest.mark.slow
@pytest.mark.parametrize("network", ["vit", "lite"])
def test_it_is_calibrated_once_near_float32_and_kept(checkpoints, pictures, monkeypatch, network) -> None:  # noqa: F811
    set_bounds(monkeypatch, mean=0.5, rank=0)  # networks this small and untrained are coarse ones
    int8 = opened(network, checkpoints, *choose("int8", pictures))
    assert int8.traits.description.endswith("cpu int8")
    image = picture(42, 70)
    found, wanted = (b.run({"image": image})["depth"] for b in (int8, opened(network, checkpoints, *choose("fp32"))))
    assert 0 < np.abs(found - wanted).mean() < 0.15 * np.ptp(wanted)

    int8.close()  # by when it is kept
    # Not again, neither for the same pictures.
    monkeypatch.setattr("depthcli.backends.quantize.Calibration.quantized", None)
    for calibration in (None, pictures):
        again = opened(network, checkpoints, *choose("int8", calibration)).run({"image": image})["depth"]
        assert np.array_equal(again, found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "rank", "message"),
    [
        (0.5, 1.0, r"too far from float32 .*bound.*use `precision` bf16"),
        (0, 0, "no layer of this network can run in int8"),
    ],
)
def test_one_that_strays_is_refused_and_not_kept(checkpoints, pictures, monkeypatch, mean, rank, message) -> None:  # noqa: F811
    set_bounds(monkeypatch, mean, rank)
    monkeypatch.setattr("depthcli.backends.int8_search._SMALLEST", 1.1)  # one piece is enough to try
    with pytest.raises(EngineError, match=message):
        opened("vit", checkpoints, *choose("int8", pictures))
    assert not [entry for entry in graph_cache.entries() if "int8" in entry.name]
    with pytest.raises(UsageError, match="has not been calibrated"):
        opened("vit", checkpoints, *choose("int8"))


def test_what_it_cannot_be_made_of_is_said(checkpoints, pictures) -> None:  # noqa: F811
    with pytest.raises(UsageError, match="not a folder"):
        opened("vit", checkpoints, *choose("int8", Path("nowhere")))
    for number in range(5):
        (pictures / f"{number}.png").unlink()
    with pytest.raises(UsageError, match="holds 3 pictures"):
        opened("vit", checkpoints, *choose("int8", pictures))
    with pytest.raises(UsageError, match="needs `precision` int8"):
        opened("vit", checkpoints, *choose("bf16", pictures))
