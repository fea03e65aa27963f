"""Windows gives, frame by frame and in bounded memory, what the whole procedure gives that holds the clip at once."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.pixels.postprocess import resize_bilinear
from depthcli.temporal.windows import Windows, _fit_float64
from tests.fake_backend import FakeBackend

LENGTHS = (1, 5, 22, 23, 32, 33, 44, 45, 60, 67)
SIZE = (6, 8)


class Encoded:
    """What the fake network made of a frame; counts how many of them there are at a time."""

    alive = most = 0

    def __init__(self, image: np.ndarray) -> None:
        self.map = image.mean(axis=0)
        Encoded.alive += 1
        Encoded.most = max(Encoded.most, Encoded.alive)

    def __del__(self) -> None:
        Encoded.alive -= 1


class Fake(FakeBackend):
    """A backend whose answers depend on every frame of the window and on their order, at a scale of their own."""

    def __init__(self, best_batch: int = 1) -> None:
        super().__init__(best_batch, encode=self._encode, decode=self._decode)
        self.encoded: list[bytes] = []
        self.batches: list[int] = []

    def _encode(self, inputs: dict[str, np.ndarray]) -> dict[str, list[Encoded]]:
        self.encoded += [image.tobytes() for image in inputs["image"]]
        self.batches.append(len(inputs["image"]))
        return {"features": [Encoded(image) for image in inputs["image"]]}

    def _decode(self, inputs: dict[str, list[Encoded]]) -> dict[str, np.ndarray]:
        return {"depth": answers(np.stack([frame.map for frame in inputs["features"]]))}


def answers(maps: np.ndarray) -> np.ndarray:
    assert len(maps) == 32
    slots = np.arange(1, 33, dtype=np.float32)[:, None, None]
    trend = np.tensordot(np.cos(np.arange(32)), maps, 1) / 32  # of this window alone
    gain = 1 + 0.3 * np.sin(7 * trend.mean())
    return np.maximum(gain * maps + 0.2 * trend + 0.003 * slots - 0.2, 0).astype(np.float32)


def clip(frames: int) -> np.ndarray:
    stream = np.random.RandomState(frames)
    still = stream.standard_normal((3, *SIZE))
    moving = stream.standard_normal((frames, 3, *SIZE)).cumsum(axis=0)
    return (1 + still + 0.1 * moving).astype(np.float32)


def whole(images: np.ndarray, forward, metric=False, fit=None, resize=lambda values: values) -> np.ndarray:
    """The procedure as it is described, over lists of all frames and all answers."""
    count = len(images)
    frames = [*images, *[images[-1]] * ((22 - count % 22) % 22 + 10)]
    keys = [0, 12, *range(24, 32)]
    before, outputs = None, []
    for start in range(0, count, 22):
        window = frames[start : start + 32]
        if before is not None:
            window[:10] = [before[slot] for slot in keys]
        before = window
        outputs.append([resize(values) for values in forward(np.stack(window))])

    aligned = list(outputs[0])
    anchors = [outputs[0][0], outputs[0][12]]
    for out in outputs[1:]:
        scale, shift = (1, 0) if metric else fit(np.concatenate(out[:2]), np.concatenate(anchors))
        done = [np.clip(values * scale + shift, 0, None) for values in out]
        for number in range(8):
            weight = number * (1 / 7) if number < 7 else 1
            aligned[number - 8] = aligned[number - 8] * (1 - weight) + done[2 + number] * weight
        aligned += done[10:]
        anchors[1] = done[12]
    return np.stack(aligned[:count])


def normal_equations(found: np.ndarray, wanted: np.ndarray):
    one = np.ones_like(found)
    a00, a01, a11 = np.sum(one * found * found), np.sum(one * found), np.sum(one)
    b0, b1 = np.sum(one * found * wanted), np.sum(one * wanted)
    determinant = a00 * a11 - a01 * a01
    if determinant == 0:
        return 1, 0
    return (a11 * b0 - a01 * b1) / determinant, (-a01 * b0 + a00 * b1) / determinant


def least_squares(found: np.ndarray, wanted: np.ndarray):
    x = found.astype(np.float64).ravel()
    return np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), wanted.astype(np.float64).ravel(), rcond=None)[0]


def run(windows: Windows, images: np.ndarray) -> list[np.ndarray]:
    maps = [values for image in images for values in windows.feed(image)]
    return maps + windows.finish()


def forward(images: np.ndarray) -> np.ndarray:
    return answers(images.mean(axis=1))


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("frames", LENGTHS)
def test_the_same_bits_as_the_whole_procedure(frames: int, metric: bool) -> None:
    images = clip(frames)
    larger = 16, 12

    def resize(values: np.ndarray) -> np.ndarray:
        return resize_bilinear(values, larger)

    found = run(Windows(Fake(), metric=metric, exact=True, resize=resize), images)
    assert np.array_equal(np.stack(found), whole(images, forward, metric, normal_equations, resize))
    assert found[0].shape == larger[::-1] and found[0].dtype == np.float32


@pytest.mark.parametrize("frames", LENGTHS)
def test_the_better_arithmetic_gives_the_same_to_within_rounding(frames: int) -> None:
    images = clip(frames)
    found = np.stack(run(Windows(Fake(), metric=False), images))
    assert found.dtype == np.float32
    assert np.allclose(found, whole(images, forward, False, least_squares), atol=1e-5 * found.max())


def test_a_low_contrast_costs_no_digits() -> None:
    wanted = np.random.RandomState(0).normal(300, 3, (2, 540, 960)).astype(np.float32)
    scale, shift = _fit_float64((wanted + np.float32(0.9)) / np.float32(1.1), wanted)
    assert scale == pytest.approx(1.1, abs=1e-5) and shift == pytest.approx(-0.9, abs=1e-3)


def test_flat_answers_stay_as_they_are() -> None:
    class Flat(Fake):
        def _decode(self, inputs: dict[str, list[Encoded]]) -> dict[str, np.ndarray]:
            return {"depth": np.full((32, *SIZE), 3, np.float32)}

    for exact in (False, True):
        assert (np.stack(run(Windows(Flat(), metric=False, exact=exact), clip(60))) == 3).all()


def test_maps_come_as_soon_as_they_are_final() -> None:
    windows = Windows(Fake(), metric=False)
    given = [len(windows.feed(image)) for image in clip(80)]
    assert {number + 1: count for number, count in enumerate(given) if count} == {32: 24, 54: 22, 76: 22}
    assert len(windows.finish()) == 80 - 24 - 22 - 22


def test_no_frames_give_no_maps() -> None:
    assert Windows(Fake(), metric=False).finish() == []


@pytest.mark.parametrize("best_batch", [1, 2, 5, 8, 40])
def test_every_frame_is_encoded_once(best_batch: int) -> None:
    for frames in (5, 33, 67):
        network, images = Fake(best_batch), clip(frames)
        found = run(Windows(network, metric=False), images)
        assert network.encoded == [image.tobytes() for image in images]
        assert max(network.batches) <= best_batch
        assert np.array_equal(found, run(Windows(Fake(), metric=False), images))


def test_memory_does_not_grow_with_the_shot() -> None:
    Encoded.most = Encoded.alive
    before = Encoded.alive
    windows = Windows(Fake(), metric=False)
    sizes = []
    for image in clip(230):
        if windows.feed(image):
            sizes.append(sum(values.nbytes for values in windows.state().values()))
    assert Encoded.most - before == 32
    assert len(sizes) == 10 and len(set(sizes)) == 1
    # Ten images, two anchors and eight maps, and three numbers.
    assert sizes[0] == 4 * SIZE[0] * SIZE[1] * (10 * 3 + 2 + 8) + 3 * 8


@pytest.mark.parametrize("exact", [False, True])
def test_a_shot_goes_on_where_it_was_left(exact: bool) -> None:
    images = clip(100)
    windows = Windows(Fake(), metric=False, exact=exact)
    maps, places = [], []
    for number, image in enumerate(images):
        final = windows.feed(image)
        maps += final
        if final:
            places.append((number + 1, len(maps), windows.state()))
    maps += windows.finish()
    assert [(fed, given) for fed, given, _ in places] == [(32, 24), (54, 46), (76, 68), (98, 90)]
    for fed, given, state in places:
        later = Windows(Fake(), metric=False, exact=exact)
        later.restore({name: values.copy() for name, values in state.items()})
        assert np.array_equal(run(later, images[fed:]), maps[given:])


def test_a_state_goes_through_a_file(tmp_path) -> None:
    windows, images = Windows(Fake(), metric=True), clip(60)
    for image in images[:54]:
        windows.feed(image)
    np.savez(tmp_path / "state.npz", **windows.state())
    later = Windows(Fake(), metric=True)
    with np.load(tmp_path / "state.npz") as state:
        later.restore(dict(state))
    assert np.array_equal(run(later, images[54:]), run(windows, images[54:]))


def test_a_state_is_to_be_had_between_windows_only() -> None:
    windows = Windows(Fake(), metric=False)
    for number, image in enumerate(clip(40), start=1):
        windows.feed(image)
        if number != 32:
            with pytest.raises(ValueError, match="between two windows"):
                windows.state()
    windows.finish()
    with pytest.raises(ValueError, match="between two windows"):
        windows.state()


def test_a_real_network_streams_the_same_as_at_once(one_thread) -> None:
    import torch

    from tests.nets.test_video_depth_anything import backend_of, small_network

    network = small_network()

    def at_once(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            frames = [taps for image in images for taps in network.encode(torch.from_numpy(image)[None])]
            return network.decode(frames).numpy()

    images = np.random.RandomState(0).standard_normal((36, 3, 28, 28)).astype(np.float32)
    found = np.stack(run(Windows(backend_of(network, best_batch=1), metric=False, exact=True), images))
    wanted = whole(images, at_once, False, normal_equations)
    assert wanted.min(axis=(1, 2)).max() > 0 and wanted.std() > 0.01  # not on the floor of the last ReLU, nor flat
    assert np.array_equal(found, wanted)
