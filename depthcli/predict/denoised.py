"""Clips by a diffusion model, behind the protocol of predict/clip_predictors.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional, Protocol

import numpy as np

from depthcli.camera import Camera
from depthcli.choices.clips import ClipChoice, DiffusionChoice
from depthcli.host.diffusion_memory import check_diffusion_memory
from depthcli.host.memory import check_picture, free_memory
from depthcli.pixels.postprocess import network_values
from depthcli.pixels.preprocess import InputPlan, plan_input, resize_pixels
from depthcli.predict.clip_predictors import Reached
from depthcli.temporal.denoising import DenoisedShot, Denoiser, Noise, counted_noise
from depthcli.temporal.state import State, join_states, part_of
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow


class DiffusionBackend(Denoiser, Protocol):
    """The networks on a device. See backends/diffusion.py."""

    description: str
    width: int
    weight_bytes: int
    unet_bytes: int
    on_gpu: bool

    def free_memory(self) -> Optional[int]:
        """Return the bytes that are free on the device, without what the weights take; None if it is the host's."""

    def close(self) -> None:
        """Free the networks."""


class WindowsOfNoise:
    """A diffusion model. noise: that it begins with, by default of the choice's seed.

    Maps come in eights, and late: those of a window when its frames are there and it is denoised. `advance` does a step
    of a window, and `state` may be called after each.
    """

    exact = False
    warnings: tuple[str, ...] = ()

    def __init__(
        self,
        row: ModelRow,
        weights: WeightsFile,
        backend: DiffusionBackend,
        choice: DiffusionChoice,
        noise: Optional[Noise] = None,
    ) -> None:
        self.row, self.weights, self.description = row, weights, backend.description
        self._backend, self._choice, self._noise = backend, choice, noise or counted_noise(choice.seed)

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> InputPlan:
        """See ClipPredictor."""
        check_picture(size, free_memory())
        self._plan = plan_input(*size, self.row.input)
        self.map_size = self._plan.map_size
        check_diffusion_memory(self._backend, self._choice, self._plan, frames)
        self._shot = self._new_shot()
        self._before = 0  # frames of earlier shots
        self._next: Optional[np.ndarray] = None  # a frame that waits until the shot before it is done
        return self._plan

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """Return the frame (H, W, 3) uint8 at the network's size: by area to shrink, bicubic to enlarge."""
        return resize_pixels(rgb, self._plan.input_size)

    def feed(self, prepared: np.ndarray, cut: bool) -> Sequence[np.ndarray]:
        """See ClipPredictor. All answers come from `advance`."""
        if cut:
            self._shot.end()
            self._next = prepared
        else:
            self._take(prepared)
        return ()

    def finish(self) -> Sequence[np.ndarray]:
        """See ClipPredictor. All answers come from `advance`."""
        self._shot.end()
        return ()

    def advance(self) -> Optional[Sequence[np.ndarray]]:
        """Do one step of the work that is due, and return the answers that are final now; None if nothing is due."""
        answers = self._shot.advance()
        if answers is None and self._next is not None:
            frame, self._next = self._next, None
            self._before += self._shot.worth
            self._shot = self._new_shot()
            self._take(frame)
            return ()
        return answers

    def reached(self) -> Reached:
        """See ClipPredictor."""
        window, step = self._shot.at
        words = f", step {step} of {self._choice.steps}" if step else ""
        return Reached(self._before + self._shot.worth, f"window {window}{words}")

    def postprocess(self, answer: np.ndarray) -> np.ndarray:
        """See ClipPredictor."""
        return network_values(answer, self._plan, self.row)

    def state(self) -> Optional[Callable[[], State]]:
        """See ClipPredictor."""
        shot, before = self._shot.state(), np.array(self._before)
        following = {} if self._next is None else {"next": self._next}
        return lambda: {**join_states(shot=shot), **following, "before": before}

    def restore(self, state: State) -> None:
        """See ClipPredictor."""
        self._shot.restore(part_of(state, "shot"))
        self._next, self._before = state.get("next"), int(state["before"])

    def close(self) -> None:
        """Free the device."""
        self._backend.close()

    def _new_shot(self) -> DenoisedShot:
        return DenoisedShot(self._backend, self._choice, self._noise)

    def _take(self, pixels: np.ndarray) -> None:
        frame = pixels.transpose(2, 0, 1).astype(np.float32, order="C") / np.float32(255)
        self._shot.feed(2 * frame - 1)


def open_denoised(row: ModelRow, weights: WeightsFile, clip: ClipChoice) -> WindowsOfNoise:
    """Return the predictor of a ClipChoice, loaded."""
    from depthcli.backends.diffusion import Diffusion

    backend = Diffusion(weights, clip.backend, clip.diffusion.cpu_offload)
    return WindowsOfNoise(row, weights, backend, clip.diffusion)
