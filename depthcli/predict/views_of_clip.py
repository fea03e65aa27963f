"""Clips by a model for scenes, behind the protocol of predict/clip_predictors.py: steady, as views agree in depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import numpy as np

from depthcli.camera import Camera
from depthcli.errors import EngineError, PictureError
from depthcli.geometry.point_fit import pair_weights, robust_ratio
from depthcli.host.memory import check_picture, free_memory
from depthcli.pixels.postprocess import network_values
from depthcli.pixels.preprocess import InputPlan
from depthcli.pixels.scene_input import fit_view
from depthcli.predict.clip_predictors import AtOnce
from depthcli.predict.scene import FEWEST_VIEWS, ReadView, SceneEstimator
from depthcli.temporal.state import State

FRAMES = 16  # that go through the network together
_SHARED = 4  # one of so many frames of a chunk is in the next one too
_MOST_PIXELS = 200_000  # that the scale of a chunk rests on
_ROUNDS = 12


class ViewsByChunk(AtOnce):
    """A model for scenes. Chunks of frames go through the network together, and share frames with the chunk before.

    The network answers each chunk at a scale of its own. It is brought to that of the chunk before by the depths of the
    frames that both have, so that a shot has one scale; over those frames the one goes over into the other. frames: of
    a chunk.
    """

    exact = False
    warnings: tuple[str, ...] = ()

    def __init__(self, estimator: SceneEstimator, frames: int = FRAMES) -> None:
        self._estimator, self._chunk = estimator, max(frames, FEWEST_VIEWS)
        self._shared = max(1, self._chunk // _SHARED)
        self.row, self.weights = estimator.row, estimator.weights
        self.description = f"{estimator.description}, {self._chunk} views at once"

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> InputPlan:
        """See ClipPredictor."""
        check_picture(size, free_memory())
        try:
            plan = self._estimator.plan([size] * self._chunk)
        except PictureError as error:
            raise PictureError(error.message, "a smaller `batch` may fit, or a smaller `input_size`") from error
        self._size, self._view = size, plan.views[0]
        self._plan = InputPlan(size, plan.size, policy=self.row.input)
        self.map_size = plan.size
        self._begin_shot()
        return self._plan

    def _begin_shot(self) -> None:
        self._held: list[np.ndarray] = []  # frames of the next chunk, those of the chunk before first
        # Of the frames that the chunk before has too: depth in the scale of the shot, and how sure it is.
        self._depths: Optional[np.ndarray] = None
        self._sure: Optional[np.ndarray] = None

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """Return the frame (H, W, 3) uint8 at the network's size."""
        return fit_view(rgb, self._view)

    def feed(self, prepared: np.ndarray, cut: bool) -> Sequence[np.ndarray]:
        """See ClipPredictor. Answers come with each full chunk, and at the end of a shot."""
        rest: Sequence[np.ndarray] = ()
        if cut:
            rest = self.finish()
        self._held.append(prepared)
        if len(self._held) < self._chunk:
            return rest
        depths, sure = self._run()
        final = len(depths) - self._shared
        self._held, self._depths, self._sure = self._held[final:], depths[final:], sure[final:]
        return [*rest, *depths[:final]]

    def finish(self) -> Sequence[np.ndarray]:
        """See ClipPredictor."""
        if self._depths is not None and len(self._held) == len(self._depths):
            depths = self._depths  # nothing has come since
        elif self._held:
            depths, _ = self._run()
        else:
            return ()
        self._begin_shot()
        return list(depths)

    def _run(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the depths of the frames that are held, in the scale of the shot, and how sure each pixel is."""
        views = [ReadView(f"{number}.png", self._size, frame) for number, frame in enumerate(self._held)]
        found = [view.depth for view in self._estimator.run(views, fewest=1).views]
        depths = np.stack([depth.values for depth in found])
        sure = np.stack([_sureness(depth.values, depth.confidence) for depth in found])
        if self._depths is None or self._sure is None:
            return depths, sure
        count = len(self._depths)
        step = max(1, int(np.ceil(np.sqrt(self._depths.size / _MOST_PIXELS))))
        ours, theirs, our_sure, their_sure = (
            some[:, step // 2 :: step, step // 2 :: step].ravel()
            for some in (depths[:count], self._depths, sure[:count], self._sure)
        )
        try:
            ratio = robust_ratio(ours, theirs, pair_weights(our_sure, their_sure), _ROUNDS)
        except ValueError as error:
            raise EngineError(f"two chunks of the clip have no scale in common: {error}") from error
        depths = depths * np.float32(ratio)
        part = (np.arange(1, count + 1, dtype=np.float32) / (count + 1))[:, None, None]
        depths[:count] = (1 - part) * self._depths + part * depths[:count]
        return depths, sure

    def postprocess(self, answer: np.ndarray) -> np.ndarray:
        """See ClipPredictor."""
        return network_values(answer, self._plan, self.row)

    def state(self) -> Optional[Callable[[], State]]:
        """See ClipPredictor."""
        held, depths, sure = tuple(self._held), self._depths, self._sure
        begun = {} if depths is None or sure is None else {"depths": depths, "sure": sure}
        return lambda: {**({"held": np.stack(held)} if held else {}), **begun}

    def restore(self, state: State) -> None:
        """See ClipPredictor."""
        self._held = list(state.get("held", ()))
        self._depths, self._sure = state.get("depths"), state.get("sure")

    def close(self) -> None:
        """Free the device."""
        self._estimator.close()


def _sureness(depth: np.ndarray, confidence: Optional[np.ndarray]) -> np.ndarray:
    """Return the (H, W) float32 weight of each pixel, 0 without depth; confidence begins at 1."""
    above = np.ones_like(depth) if confidence is None else np.maximum(confidence - np.float32(1), np.float32(0))
    return np.where((depth > 0) & np.isfinite(above), above, np.float32(0)).astype(np.float32)
