"""The depth of a clip by diffusion, as DepthCrafter makes it: windows of noise, denoised in steps.

A window starts as noise and becomes the latents of its frames in a few steps. The next window begins with the last
`overlap` frames of the one before: their latents under new noise. Where windows overlap, their latents are cross-faded.
Latents become depth in eights, counted from the first frame of the shot, as the decoder looks at eight frames at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional, Protocol

import numpy as np

from depthcli.choices.clips import DiffusionChoice
from depthcli.temporal.state import State

EIGHT = 8  # frames that are decoded at once
PIXELS, LATENTS = 0, 1  # kinds of noise
_MOST, _LEAST, _BEND = 700.0, 0.002, 7.0  # the schedule of Stable Video Diffusion: Karras et al. 2022, eq. 5

Noise = Callable[[int, int, tuple[int, ...]], np.ndarray]  # of a kind, for a frame, of a shape: normal, float32


class Denoiser(Protocol):
    """The networks. See backends/diffusion.py."""

    dtype: np.dtype

    def encode(self, frame: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the embedding (D,) and the latents (4, h, w) of a frame (3, 8 h, 8 w)."""

    def denoise(self, z: np.ndarray, latents: np.ndarray, context: np.ndarray, noise: float) -> np.ndarray:
        """Return the answer (T, 4, h, w) of the UNet."""

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Return the maps (T, 8 h, 8 w) of latents (T, 4, h, w)."""


def counted_noise(seed: int) -> Noise:
    """Return noise that depends on the seed, the kind and the frame alone, so that nothing of it must be kept."""

    def noise(kind: int, frame: int, shape: tuple[int, ...]) -> np.ndarray:
        stream = np.random.Philox(key=np.array([seed, kind], np.uint64), counter=np.array([0, 0, 0, frame], np.uint64))
        return np.random.Generator(stream).standard_normal(shape, dtype=np.float32)

    return noise


def noise_levels(steps: int) -> np.ndarray:
    """Return (steps + 1,) float32: the standard deviation of the noise before each step, and 0 in the end."""
    part = np.linspace(0, 1, steps)
    first, last = _MOST ** (1 / _BEND), _LEAST ** (1 / _BEND)
    return np.append((first + part * (last - first)) ** _BEND, 0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """A frame for the UNet: its embedding (D,) and its latents (4, h, w)."""

    embedding: np.ndarray
    latents: np.ndarray


class DenoisedShot:
    """One shot. `feed` takes frames, `advance` does the work that is due, one piece at a time.

    noise: for pixels by the frame's index in the shot, for latents by its place in a window of all frames.
    """

    def __init__(self, network: Denoiser, choice: DiffusionChoice, noise: Noise) -> None:
        self._network, self._choice, self._noise = network, choice, noise
        self._levels = noise_levels(choice.steps)
        self._frames: list[_Encoded] = []  # of the current window
        self._begin = 0  # index of its first frame
        self._step = 0
        self._z: Optional[np.ndarray] = None  # (T, 4, h, w), of a window that is being denoised
        self._overlap: list[np.ndarray] = []  # finished latents of its first frames, still to be cross-faded
        self._waiting: list[np.ndarray] = []  # final latents that are not decoded
        self._ended = False

    @property
    def at(self) -> tuple[int, int]:
        """The current window, from 1, and the steps of it that are done."""
        return self._begin // (self._choice.window - self._choice.overlap) + 1, self._step

    @property
    def worth(self) -> int:
        """Frames that the work so far is worth: those whose latents are final, and a share of the current window's."""
        new = len(self._frames) - len(self._overlap)
        return self._begin + len(self._overlap) + new * self._step // self._choice.steps

    def feed(self, frame: np.ndarray) -> None:
        """Take the next frame (3, H, W) float32 in -1..1. Call it when `advance` has returned None."""
        noise = self._noise(PIXELS, self._begin + len(self._frames), frame.shape)
        self._frames.append(_Encoded(*self._network.encode(frame, noise)))

    def end(self) -> None:
        """There are no more frames."""
        self._ended = True

    def advance(self) -> Optional[list[np.ndarray]]:
        """Do a step of the current window, or decode eight frames; return the maps (H, W) float32 that are final now.

        None: nothing is due until there are more frames.
        """
        if len(self._waiting) >= EIGHT:
            return self._decoded()
        if len(self._frames) == self._choice.window or (self._ended and len(self._frames) > len(self._overlap)):
            self._denoise()
            return []
        if not self._ended:
            return None
        self._waiting += self._overlap
        self._begin += len(self._frames)
        self._overlap, self._frames = [], []
        return self._decoded() if self._waiting else None

    def state(self) -> State:
        """Return the state to restore from. Its arrays never change."""
        arrays = {
            "embeddings": [frame.embedding for frame in self._frames],
            "latents": [frame.latents for frame in self._frames],
            "overlap": self._overlap,
            "waiting": self._waiting,
        }
        return {
            "counts": np.array([self._begin, self._step, self._ended], np.int64),
            **{name: np.stack(items) for name, items in arrays.items() if items},
            **({} if self._z is None else {"z": self._z}),
        }

    def restore(self, state: State) -> None:
        """Continue from a `state`, with the same bits."""
        self._begin, self._step = int(state["counts"][0]), int(state["counts"][1])
        self._ended = bool(state["counts"][2])
        self._frames = [_Encoded(*both) for both in zip(state.get("embeddings", ()), state.get("latents", ()))]
        self._overlap, self._waiting = list(state.get("overlap", ())), list(state.get("waiting", ()))
        self._z = state.get("z")

    def _denoise(self) -> None:
        """Do the next step of the current window, and after the last one begin the next window."""
        z = self._started() if self._z is None else self._z
        now, then = self._levels[self._step], self._levels[self._step + 1]
        latents = np.stack([frame.latents for frame in self._frames])
        context = np.stack([frame.embedding for frame in self._frames])
        scaled = z / np.sqrt(now**2 + 1).astype(z.dtype)
        told = 0.25 * math.log(now)
        answer = self._network.denoise(scaled, latents, context, told)
        if self._choice.guidance > 1:
            blind = self._network.denoise(scaled, np.zeros_like(latents), np.zeros_like(context), told)
            answer = blind + np.float32(self._choice.guidance) * (answer - blind)
        z = z.astype(np.float32)
        clean = answer * (-now / np.sqrt(now**2 + 1)) + z / (now**2 + 1)
        self._z = (z + (z - clean) / now * (then - now)).astype(self._network.dtype)
        self._step += 1
        if self._step == self._choice.steps:
            self._finish_window(list(self._z))

    def _started(self) -> np.ndarray:
        """Return the noise that the current window begins with, and in it the finished latents of its first frames."""
        window, shape = self._choice.window, self._frames[0].latents.shape
        most = self._levels[0]
        places = [(self._begin + index) % window for index in range(len(self._frames))]
        noise = [self._noise(LATENTS, place, shape) for place in places]
        known = [latents + unit * most for latents, unit in zip(self._overlap, noise)]
        begun = [unit * np.sqrt(most**2 + 1) for unit in noise[len(known) :]]
        return np.stack([*known, *begun]).astype(self._network.dtype)

    def _finish_window(self, found: Sequence[np.ndarray]) -> None:
        """Cross-fade the window with the one before, and keep what the next one begins with."""
        count, overlap = len(self._overlap), self._choice.overlap
        weights = np.linspace(0, 1, count, dtype=self._network.dtype)
        mixed = [old * (1 - weight) + new * weight for old, new, weight in zip(self._overlap, found, weights)]
        running = [*mixed, *found[count:]]
        keep = 0 if self._ended else min(overlap, len(running))
        final = len(running) - keep
        self._waiting = [*self._waiting, *running[:final]]
        self._overlap, self._frames = running[final:], self._frames[final:]
        self._begin += final
        self._z, self._step = None, 0

    def _decoded(self) -> list[np.ndarray]:
        part, rest = self._waiting[:EIGHT], self._waiting[EIGHT:]
        maps = self._network.decode(np.stack(part))
        self._waiting = rest
        return list(maps)
