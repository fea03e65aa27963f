"""Windows of noise: the same depth as with the whole clip in memory, for every length, window and overlap."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.choices.clips import DiffusionChoice
from depthcli.temporal.denoising import LATENTS, PIXELS, DenoisedShot, counted_noise, noise_levels
from tests.denoiser import StandIn

NOISE = counted_noise(7)


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (count, 3, 16, 24)).astype(np.float32)


def drained(shot: DenoisedShot) -> list[np.ndarray]:
    maps: list[np.ndarray] = []
    while (answers := shot.advance()) is not None:
        maps += answers
    return maps


def shot_maps(clip: np.ndarray, choice: DiffusionChoice, network: StandIn | None = None) -> np.ndarray:
    shot, maps = DenoisedShot(network or StandIn(), choice, NOISE), []
    for frame in clip:
        shot.feed(frame)
        maps += drained(shot)
    shot.end()
    return np.stack(maps + drained(shot))


def whole(clip: np.ndarray, choice: DiffusionChoice) -> np.ndarray:
    """The procedure as it is published: all latents, then all depth. Noise is rotated from window to window."""
    network, levels = StandIn(), noise_levels(choice.steps).astype(np.float64)
    encoded = [network.encode(frame, NOISE(PIXELS, index, frame.shape)) for index, frame in enumerate(clip)]
    contexts, video = (np.stack(each) for each in zip(*encoded))
    window, overlap = min(choice.window, len(clip)), choice.overlap if len(clip) > choice.window else 0
    noise = np.stack([NOISE(LATENTS, place, video.shape[1:]) for place in range(window)])
    done, begin = None, 0
    while begin < len(clip) - overlap or done is None:
        part = slice(begin, begin + window)
        count = len(video[part])
        z = noise[:count] * np.sqrt(levels[0] ** 2 + 1)
        if done is not None and overlap:
            z[:overlap] = done[-overlap:] + noise[:overlap] * levels[0]
        for now, then in zip(levels, levels[1:]):
            scaled = (z / np.sqrt(now**2 + 1)).astype(np.float32)
            out = network.denoise(scaled, video[part], contexts[part], 0.25 * np.log(now))
            if choice.guidance > 1:
                blind = network.denoise(scaled, 0 * video[part], 0 * contexts[part], 0.25 * np.log(now))
                out = blind + choice.guidance * (out - blind)
            clean = -out * now / np.sqrt(now**2 + 1) + z / (now**2 + 1)
            z = z + (z - clean) / now * (then - now)
        if done is None:
            done = z
        else:
            k = np.linspace(0, 1, overlap)[:, None, None, None]
            mixed = done[len(done) - overlap :] * (1 - k) + z[:overlap] * k
            done = np.concatenate([done[: len(done) - overlap], mixed, z[overlap:]])
        noise = np.roll(noise, overlap, axis=0)
        begin += window - overlap
    return np.concatenate(
        [network.decode(done[start : start + 8].astype(np.float32)) for start in range(0, len(clip), 8)]
    )


@pytest.mark.parametrize(
    ("count", "window", "overlap"),
    [
        *((count, 6, 2) for count in (1, 2, 5, 6, 7, 8, 9, 10, 11, 30)),
        *((count, 6, 5) for count in (6, 7, 12)),
        *((count, 6, 4) for count in (9, 11, 17)),
        *((count, 6, 0) for count in (5, 6, 7, 12, 13)),
        *((count, 1, 0) for count in (1, 3)),
        (20, 110, 25),
    ],
)
def test_maps_are_those_of_the_whole_clip(count, window, overlap):
    choice = DiffusionChoice(steps=3, window=window, overlap=overlap)
    found = shot_maps(frames(count), choice)
    assert found.shape == (count, 16, 24)
    assert np.abs(found - whole(frames(count), choice)).max() < 2e-4  # z is about 700 at first: rounding


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("steps", [1, 5])
def test_steps_and_guidance_are_as_published(steps, guidance):
    choice = DiffusionChoice(steps=steps, window=6, overlap=2, guidance=guidance)
    assert np.abs(shot_maps(frames(9), choice) - whole(frames(9), choice)).max() < 2e-4


def test_the_levels_of_noise_are_the_published_ones():
    assert np.allclose(noise_levels(5), [700, 134.85, 15.59, 0.678, 0.002, 0], rtol=1e-3)
    assert noise_levels(1).tolist() == [700, 0]


def test_noise_follows_from_seed_kind_and_place_alone():
    shape = (3, 4, 5)
    one = NOISE(PIXELS, 8, shape)
    assert one.dtype == np.float32 and np.array_equal(one, counted_noise(7)(PIXELS, 8, shape))
    others = (NOISE(PIXELS, 9, shape), NOISE(LATENTS, 8, shape), counted_noise(8)(PIXELS, 8, shape))
    assert all(abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.4 for other in others)
    many = NOISE(LATENTS, 0, (100_000,))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02


def test_each_frame_is_encoded_once_and_eights_count_from_the_first_frame():
    network = StandIn()
    shot_maps(frames(21), DiffusionChoice(steps=2, window=6, overlap=2), network)
    assert network.calls.count(("encode", 1)) == 21
    assert [count for name, count in network.calls if name == "decode"] == [8, 8, 5]
    assert [count for name, count in network.calls if name == "denoise"] == 8 * [6] + 2 * [5]


def test_what_is_kept_does_not_grow_with_the_clip():
    shot, kept = DenoisedShot(StandIn(), DiffusionChoice(steps=1, window=6, overlap=2), NOISE), []
    for frame in frames(80):
        shot.feed(frame)
        drained(shot)
        kept.append(sum(array.nbytes for array in shot.state().values()))
    assert max(kept[:40]) == max(kept[40:])


def test_left_after_any_piece_it_ends_with_the_same_bits():
    clip, choice = frames(11), DiffusionChoice(steps=3, window=6, overlap=4)
    shot, maps = DenoisedShot(StandIn(), choice, NOISE), []

    def left(before: DenoisedShot) -> DenoisedShot:
        after = DenoisedShot(StandIn(), choice, NOISE)
        after.restore({name: array.copy() for name, array in before.state().items()})
        return after

    for frame in [*clip, None]:
        if frame is None:
            shot.end()
        else:
            shot.feed(frame)
        shot = left(shot)
        while (answers := shot.advance()) is not None:
            maps += answers
            shot = left(shot)
    assert np.array_equal(np.stack(maps), shot_maps(clip, choice))


def test_half_precision_is_kept_between_the_steps():
    class Half(StandIn):
        dtype = np.dtype(np.float16)

    shot = DenoisedShot(Half(), DiffusionChoice(steps=3, window=6, overlap=2), NOISE)
    for frame in frames(6):
        shot.feed(frame)
    shot.advance()
    z = shot.state()["z"]
    assert z.dtype == np.float16 and np.isfinite(z).all()
