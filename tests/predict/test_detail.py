"""Tiles add detail to the map of the whole picture, whatever scale and shift the network gives each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

import depthcli
from depthcli import DepthEstimator
from depthcli.errors import UsageError
from depthcli.io.codecs.files import read_depth
from depthcli.pixels.preprocess import to_network_input
from depthcli.pixels.tiles import plan_levels
from depthcli.predict.detail import tile_detail
from depthcli.predict.picture import open_picture
from depthcli.zoo.rows import find_row
from tests.conftest import TINY
from tests.fake_backend import FakeBackend
from tests.reference import reference_image

pytestmark = pytest.mark.usefixtures("tiny_weights")


def brightness(images: np.ndarray) -> np.ndarray:
    """A network whose depth is the brightness of the pixel: it sees all that its input shows, and no context."""
    return np.asarray(images).mean(axis=1) + 3


def estimator(
    monkeypatch: pytest.MonkeyPatch, network: Any = brightness, detail: str = "tiles", **options: Any
) -> DepthEstimator:
    backend = FakeBackend(options.pop("batch", 1), depth=lambda inputs: {"depth": network(inputs["image"])})
    monkeypatch.setattr("depthcli.predict.picture.open_backend", lambda *_: backend)
    return DepthEstimator("tiny", input_size=56, detail=detail, **options)


def wavy(width: int = 448, height: int = 336) -> np.ndarray:
    """A smooth picture with waves that are too fine for the network's input, and a slow ramp."""
    y, x = np.mgrid[:height, :width]
    value = 40 + 100 * x / width + 40 * y / height + 30 * np.sin(2 * np.pi * x / 20) * np.sin(2 * np.pi * y / 20)
    return np.repeat(value.round().astype(np.uint8)[..., None], 3, axis=2)


def test_tiles_show_what_the_whole_picture_hides(monkeypatch) -> None:
    picture = wavy()
    instance = estimator(monkeypatch)
    prepared = instance.prepare(open_picture(picture))
    found = instance.run([prepared])[0].depth
    plain = cv2.resize(brightness(prepared.image[None])[0], found.shape[::-1])
    wanted = brightness(to_network_input(picture, replace(prepared.plan, input_size=found.shape[::-1]))[None])[0]
    assert found.shape == (224, 299)  # four times 56 rows
    assert np.abs(found - wanted).mean() < 0.25 * np.abs(plain - wanted).mean()


def test_the_scale_and_shift_of_each_answer_is_undone(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    calls = []

    def moody(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        answer = brightness(images)
        return answer if len(calls) == 1 else answer * rng.uniform(0.1, 20) + rng.uniform(-50, 50)

    calm, found = estimator(monkeypatch).estimate(wavy()), estimator(monkeypatch, moody).estimate(wavy())
    assert len(calls) == 1 + 39
    assert found.values == pytest.approx(calm.values, abs=1e-3 * float(np.ptp(calm.values)))


def test_a_tile_that_contradicts_the_whole_picture_adds_nothing(monkeypatch) -> None:
    calls = []

    def contrary(images: np.ndarray) -> np.ndarray:
        calls.append(1)
        return brightness(images) if len(calls) == 1 else -brightness(images)

    ramp = np.linspace(20, 230, 448).astype(np.uint8)[None, :, None].repeat(336, axis=0).repeat(3, axis=2)
    edges = estimator(monkeypatch, detail="edges").estimate(ramp)
    found = estimator(monkeypatch, contrary).estimate(ramp)
    assert found.values == pytest.approx(edges.values, abs=0.04 * float(np.ptp(edges.values)))


def test_the_borders_of_tiles_do_not_show(monkeypatch) -> None:
    """Each tile is off by a ramp of its own, as networks are; gradients at its borders are those of its inside."""
    rng = np.random.default_rng(1)
    calls = []

    def leaning(images: np.ndarray) -> np.ndarray:
        answer = brightness(images)
        calls.append(1)
        if len(calls) > 1:
            height, width = answer.shape[1:]
            y, x = np.mgrid[:height, :width]
            answer = answer + rng.uniform(-1, 1) * x / width + rng.uniform(-1, 1) * y / height
        return answer

    instance = estimator(monkeypatch, leaning)
    picture = instance.prepare(open_picture(wavy(450, 338)))
    found = instance.run([picture])[0].depth
    (*_, level) = plan_levels(picture.plan)
    slopes = np.abs(np.diff(found, axis=1)).mean(axis=0)
    borders = sorted(
        {int(end) for span in level.columns for end in (span.cells[0], span.cells[-1])} - {0, found.shape[1] - 1}
    )
    at = np.array([slopes[max(0, border - 1) : border + 1].mean() for border in borders])
    assert len(borders) >= 6
    assert at.mean() == pytest.approx(slopes.mean(), rel=0.1)


@pytest.mark.parametrize("panorama", [False, True])
@pytest.mark.parametrize("size", [(448, 336), (301, 407), (40, 30)])
def test_nearest_holds_no_number_that_the_network_did_not_give(monkeypatch, size, panorama: bool) -> None:
    answers = []

    def surfaces(images: np.ndarray) -> np.ndarray:
        """Two surfaces, 1 and 9, whose edge goes through the picture: any mean of them would be neither."""
        answers.append(np.where(brightness(images) > np.median(brightness(images)), 9.0, 1.0))
        return answers[-1]

    instance = estimator(monkeypatch, surfaces, detail="nearest", panorama=panorama)
    depth = instance.estimate(wavy(*size))
    assert depth.size == size and depth.provenance.detail == "nearest"
    assert set(np.unique(depth.values)) == {1.0, 9.0}
    smooth = estimator(monkeypatch, surfaces, detail="off", panorama=panorama).estimate(wavy(*size))
    assert len(np.unique(smooth.values)) > 2
    # They lie where the smooth ones do: half-way values apart, both say the same surface.
    sure = np.abs(smooth.values - 5) > 3
    assert (np.sign(depth.values - 5) == np.sign(smooth.values - 5))[sure].mean() > 0.99


def test_nearest_takes_the_pixel_that_the_middle_lies_in(monkeypatch) -> None:
    instance = estimator(monkeypatch, detail="nearest")
    prepared = instance.prepare(open_picture(wavy(448, 336)))
    (answer,) = instance.run([prepared])
    rows = ((np.arange(336) + 0.5) * answer.depth.shape[0] / 336).astype(int)
    columns = ((np.arange(448) + 0.5) * answer.depth.shape[1] / 448).astype(int)
    assert np.array_equal(instance.finish(prepared, answer).values, answer.depth[np.ix_(rows, columns)])


@pytest.mark.parametrize("detail", ["edges", "tiles"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_picture_has_flipped_depth(monkeypatch, detail: str, axis: int) -> None:
    picture = reference_image(301, 407)
    instance = estimator(monkeypatch, detail=detail)
    plain = instance.estimate(picture).values
    flipped = instance.estimate(np.flip(picture, axis).copy()).values
    assert np.flip(flipped, axis) == pytest.approx(plain, abs=1e-3 * float(np.ptp(plain)))


@pytest.mark.parametrize("detail", ["edges", "tiles"])
def test_an_even_picture_has_even_depth(monkeypatch, detail: str) -> None:
    depth = estimator(monkeypatch, detail=detail).estimate(np.full((300, 400, 3), 90, np.uint8))
    assert np.ptp(depth.values) < 1e-5


@pytest.mark.parametrize("size", [(336, 448), (448, 336), (150, 1500), (1500, 150), (40, 30), (1, 1), (57, 300)])
@pytest.mark.parametrize("detail", ["edges", "tiles"])
def test_every_shape_of_picture_has_a_map_of_its_size_and_range(monkeypatch, size, detail: str) -> None:
    picture = reference_image(*size) if min(size) > 8 else np.zeros((*size, 3), np.uint8)
    base = estimator(monkeypatch, detail="off").estimate(picture)
    depth = estimator(monkeypatch, detail=detail).estimate(picture)
    assert depth.values.shape == size and depth.provenance.detail == detail
    slack = 1e-3 * max(np.ptp(base.values), 1e-3) + 0.2 * np.ptp(base.values)
    assert base.range[0] - slack <= depth.range[0] <= depth.range[1] <= base.range[1] + slack


def test_batches_and_single_runs_agree(monkeypatch) -> None:
    one, many = (estimator(monkeypatch, batch=batch).estimate(wavy()).values for batch in (1, 7))
    assert np.array_equal(one, many)


@pytest.mark.parametrize("columns", [64, 112])
def test_a_panorama_with_tiles_has_no_seam(monkeypatch, columns: int) -> None:
    y, x = np.mgrid[:224, :448]
    value = 120 + 60 * np.sin(2 * np.pi * x / 448) + 40 * np.sin(2 * np.pi * 32 * x / 448) * np.sin(y / 3)
    picture = np.repeat(value.round().astype(np.uint8)[..., None], 3, axis=2)
    instance = estimator(monkeypatch, panorama=True)
    depth = instance.estimate(picture)
    assert depth.provenance.panorama and depth.provenance.detail == "tiles"
    steps = np.abs(np.diff(depth.values, axis=1)).mean(axis=0)
    assert np.abs(depth.values[:, 0] - depth.values[:, -1]).mean() < 1.1 * steps.max()
    turned = instance.estimate(np.roll(picture, columns, axis=1)).values
    assert np.abs(np.roll(turned, -columns, axis=1) - depth.values).mean() < 0.02 * np.ptp(depth.values)


def test_tiles_of_metres_are_scaled_and_not_shifted() -> None:
    coarse = np.broadcast_to(np.linspace(2, 4, 60, dtype=np.float32), (40, 60))
    waves = 0.1 * np.sin(np.arange(60, dtype=np.float32))
    detail = tile_detail(5 * (coarse + waves), coarse, 4, shift=False)
    inside = (slice(5, -5), slice(10, -10))
    assert detail[inside] == pytest.approx(np.broadcast_to(waves, (40, 60))[inside], abs=0.02)


def test_a_metric_model_keeps_its_metres(monkeypatch) -> None:
    row = replace(find_row("tiny"), kind=depthcli.DepthKind.METRIC_DEPTH, max_depth=20.0)
    instance = estimator(monkeypatch, lambda images: brightness(images) / 10)
    instance.row = row.with_input_size(56)
    depth = instance.estimate(wavy())
    plain = 20 * brightness(instance.prepare(open_picture(wavy())).image[None])[0] / 10
    assert depth.kind.is_metric and depth.values.mean() == pytest.approx(plain.mean(), rel=0.01)
    assert plain.min() - 1e-4 <= depth.range[0] < depth.range[1] <= plain.max() + 1e-4


def test_invalid_pixels_stay_invalid(monkeypatch) -> None:
    valid = np.ones((336, 448), bool)
    valid[:50] = False
    picture = replace(open_picture(wavy()), valid=valid)
    depth = estimator(monkeypatch).estimate(picture)
    assert np.array_equal(depth.valid, valid)


def test_small_pictures_say_that_they_have_no_tiles(monkeypatch) -> None:
    instance = estimator(monkeypatch)
    small, large = (instance.prepare(open_picture(reference_image(*size))) for size in ((60, 80), (336, 448)))
    assert small.picture.notes == ("too small for tiles: edges only",)
    assert large.picture.notes == ("39 tiles, up to 4 times finer",)


def test_an_unknown_detail_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="unknown `detail` 'fine'"):
        DepthEstimator("tiny", detail="fine")


def test_the_packaged_network_makes_finer_maps_twice_alike() -> None:
    weights = str(Path(depthcli.__file__).parent / "assets/tiny.safetensors")
    picture = cv2.GaussianBlur(reference_image(448, 600), (0, 0), 2)  # without its grain
    maps = {}
    for detail in ("off", "edges", "tiles"):
        with DepthEstimator(weights, detail=detail) as instance:
            maps[detail] = instance.estimate(picture).values
            assert np.array_equal(instance.estimate(picture).values, maps[detail])
    for detail in ("edges", "tiles"):
        assert np.corrcoef(maps[detail].ravel(), maps["off"].ravel())[0, 1] > 0.9  # the coarse shape stays
        assert np.abs(maps[detail] - maps["off"]).max() > 0.02 * np.ptp(maps["off"])


def test_a_folder_keeps_to_one_detail_and_notes_it(depth) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(reference_image(240, 320)).save(f"in/{name}.png")
    run = ("dir", "in", "-o", "out", "-f", "npz", *TINY)
    assert depth(*run, "--include", "a.png").code == 0
    refused = depth(*run, "--detail", "tiles")
    assert refused.code == 2 and "without --detail" in refused.error
    ran = depth(*run, "--detail", "tiles", "--if-exists", "overwrite", "-v")
    assert ran.code == 0 and "tiles, up to 4 times finer" in ran.out + ran.err
    (*_, last) = map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())
    assert "detail=tiles" in last["settings"]
    made = Path("out/b_depth.npz").read_bytes()
    assert read_depth(Path("out/b_depth.npz")).provenance.detail == "tiles"
    Path("out/b_depth.npz").unlink()
    again = depth(*run, "--detail", "tiles")
    assert again.code == 0 and Path("out/b_depth.npz").read_bytes() == made
    other = depth(*run, "--detail", "edges")
    assert other.code == 2 and "--detail tiles" in other.error


def test_depth_video_has_no_detail(depth) -> None:
    ran = depth("video", "clip.mp4", "--detail", "tiles")
    assert ran.code == 2 and "--detail" in ran.err


def test_an_unknown_detail_on_the_command_line_is_named(depth) -> None:
    Image.fromarray(reference_image(60, 80)).save("a.png")
    assert "--detail" in depth("image", "a.png", "--detail", "fine", *TINY).error
