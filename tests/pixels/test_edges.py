"""A coarse map takes the edges of its photo, and invents nothing elsewhere."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from depthcli.host.memory import BYTES_PER_PIXEL
from depthcli.pixels.edges import follow_edges
from depthcli.pixels.sampling import centred_taps, sample
from tests.reference import reference_image


def step_photo(width: int = 240, height: int = 160, at: int = 131) -> np.ndarray:
    photo = np.full((height, width, 3), (60, 90, 40), np.uint8)
    photo[:, at:] = (200, 180, 220)
    return photo


def soft_step(photo: np.ndarray, size: tuple[int, int] = (30, 20)) -> np.ndarray:
    """A map of the photo as a network gives it: near at the left, far at the right, blurred."""
    sharp = (photo[..., 0] < 128).astype(np.float32)
    return cv2.GaussianBlur(cv2.resize(sharp, size, interpolation=cv2.INTER_AREA), (0, 0), 1.5)


def test_a_soft_edge_becomes_sharp_at_the_photos_edge() -> None:
    photo = step_photo()
    plain = cv2.resize(soft_step(photo), (240, 160))
    found = follow_edges(soft_step(photo), photo)
    assert found.shape == (160, 240) and found.dtype == np.float32
    steps = np.abs(np.diff(found, axis=1))
    assert (np.abs(steps.argmax(axis=1) - 130) <= 1).all()  # between the last dark and the first bright pixel
    assert steps.max(axis=1).min() > 0.5 > 5 * np.abs(np.diff(plain, axis=1)).max()


def test_even_depth_stays_even_under_any_texture() -> None:
    photo = reference_image(160, 240)
    found = follow_edges(np.full((20, 30), 3.25, np.float32), photo)
    assert found == pytest.approx(3.25, rel=1e-6)


def test_no_value_leaves_the_range_of_the_map() -> None:
    values = np.random.default_rng(0).random((20, 30), np.float32)
    found = follow_edges(values, reference_image(160, 240))
    assert values.min() - 1e-6 <= found.min() <= found.max() <= values.max() + 1e-6


def test_a_ramp_under_one_colour_stays_a_ramp() -> None:
    values = np.broadcast_to(np.linspace(0, 1, 30, dtype=np.float32), (20, 30))
    found = follow_edges(np.ascontiguousarray(values), np.full((160, 240, 3), 128, np.uint8))
    inside = found[:, 40:-40]
    assert np.diff(inside, axis=1).min() > 0
    # No edge to follow: the steps of the coarse cells do not show.
    assert np.diff(inside, axis=1).max() < 1.05 * np.diff(inside, axis=1).mean()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_flipped_photo_has_a_flipped_map(axis: int) -> None:
    values, photo = np.random.default_rng(1).random((20, 30), np.float32), reference_image(160, 240)
    flipped = follow_edges(np.flip(values, axis).copy(), np.flip(photo, axis).copy())
    assert np.flip(flipped, axis) == pytest.approx(follow_edges(values, photo), abs=1e-5)


def test_scale_and_shift_of_the_map_are_kept() -> None:
    values, photo = np.random.default_rng(2).random((20, 30), np.float32), reference_image(160, 240)
    other = follow_edges(50 * values + 7, photo)
    assert other == pytest.approx(50 * follow_edges(values, photo) + 7, rel=1e-4)


def test_the_result_does_not_depend_on_the_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    values, photo = np.random.default_rng(3).random((37, 51), np.float32), reference_image(149, 203)
    whole = follow_edges(values, photo)
    monkeypatch.setattr("depthcli.pixels.edges._BAND_PIXELS", 700)
    assert np.array_equal(follow_edges(values, photo), whole)


def test_a_panorama_that_is_turned_has_its_map_turned() -> None:
    values, photo = np.random.default_rng(4).random((20, 30), np.float32), reference_image(160, 240)
    turned = follow_edges(np.roll(values, 10, axis=1), np.roll(photo, 80, axis=1), wrap=True)
    assert np.roll(turned, -80, axis=1) == pytest.approx(follow_edges(values, photo, wrap=True), abs=1e-5)


def test_a_map_finer_than_the_photo_is_only_resized() -> None:
    values = np.random.default_rng(5).random((40, 60), np.float32)
    found = follow_edges(values, reference_image(30, 45))
    assert found.shape == (30, 45)
    assert np.array_equal(found, cv2.resize(values, (45, 30)))


def test_sampling_is_the_bilinear_resize_with_centres_aligned() -> None:
    values = np.random.default_rng(6).random((11, 17), np.float32)
    found = sample(values, centred_taps(11, 40), centred_taps(17, 29))
    assert found == pytest.approx(cv2.resize(values, (29, 40)), abs=1e-5)


def test_the_memory_is_within_what_is_checked_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The most it takes is for a map as fine as the picture."""
    monkeypatch.setattr("depthcli.pixels.edges._TIMES", 1)
    monkeypatch.setattr("depthcli.pixels.edges._BAND_PIXELS", 1 << 13)
    values, photo = np.random.default_rng(7).random((500, 800), np.float32), np.zeros((600, 900, 3), np.uint8)
    tracemalloc.start()
    follow_edges(values, photo)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak + values.nbytes + photo.nbytes < BYTES_PER_PIXEL * 600 * 900
