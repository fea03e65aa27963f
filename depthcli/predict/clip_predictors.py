"""The ways to make the depth of a clip steady, behind one protocol.

`FrameByFrame` runs a picture model on each frame, with the filter of temporal/steady.py behind it.
`WindowByWindow` runs a video model on windows of 32 frames. A diffusion model is in predict/denoised.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Protocol

import numpy as np

from depthcli.backends import Backend
from depthcli.camera import Camera
from depthcli.host.memory import check_picture, free_memory
from depthcli.io.pictures.images import Picture
from depthcli.pixels.postprocess import Answer, in_metres, in_unit, network_values, resize_bilinear, unwrap
from depthcli.pixels.preprocess import InputPlan, plan_input, to_network_input, wrap_columns
from depthcli.predict.picture import NO_FOCAL, DepthEstimator, Prepared
from depthcli.temporal.state import State, join_states, part_of
from depthcli.temporal.steady import SteadyFilter
from depthcli.temporal.windows import Windows
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow


@dataclass(frozen=True)
class Reached:
    """How far the work on a clip is. frames: that the work so far is worth. doing: the piece under way, in words."""

    frames: int
    doing: str


class ClipPredictor(Protocol):
    """A loaded model for the frames of a clip, one clip at a time.

    `feed` returns the answers that are ready, if any: one for each frame, in order. `postprocess` makes the maps.
    `prepare` may run in any thread, `feed`, `finish` and `state` in one, `postprocess` in one other, each in the order
    of the frames.

    description: backend, version, device and precision. exact: maps must be kept in float32, not in 16 bits.
    map_size: (width, height) of the maps of the current clip. row: its kind is that of the current clip.
    warnings: what is doubtful about the maps of the current clip.
    """

    row: ModelRow
    warnings: tuple[str, ...]
    weights: WeightsFile
    description: str
    exact: bool
    map_size: tuple[int, int]

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> InputPlan:
        """Begin a clip with frames of (width, height); raises PictureError if they do not fit into the memory.

        camera: of the clip, for networks that need its focal length for metres. frames: of the clip, None if unknown.
        """

    def prepare(self, rgb: np.ndarray) -> Any:
        """Return the network's input for a frame (H, W, 3) uint8."""

    def feed(self, prepared: Any, cut: bool) -> Sequence[Any]:
        """Take the next frame and return the answers that are final now. cut: a new shot begins with this frame."""

    def finish(self) -> Sequence[Any]:
        """Return the remaining answers after the last frame."""

    def advance(self) -> Optional[Sequence[Any]]:
        """Do a piece of the work that `feed` or `finish` left, and return the answers that are final now.

        None: nothing is left. Called until then after each `feed` and `finish`.
        """

    def reached(self) -> Optional[Reached]:
        """Return how far the work is; None for predictors that leave nothing to `advance`."""

    def postprocess(self, answer: Any) -> np.ndarray:
        """Return the map (H, W) float32 for an answer, in the kind and unit of the row."""

    def state(self) -> Optional[Callable[[], State]]:
        """Return a function that makes the state after the last fed frame; None if the work cannot be resumed there.

        Call it when `postprocess` has had all answers until then, and no others.
        """

    def restore(self, state: State) -> None:
        """Continue from a state in a clip that was begun; all that follows has the same bits."""

    def close(self) -> None:
        """Free the device."""


class AtOnce:
    """What predictors have in common that do all work in `feed` and `finish`."""

    def advance(self) -> None:
        """See ClipPredictor."""

    def reached(self) -> None:
        """See ClipPredictor."""


class FrameByFrame(AtOnce):
    """A picture model that sees each frame alone.

    steady: filter the maps over time. batch: frames per run of the network; the backend may take more.
    """

    exact = False
    warnings: tuple[str, ...] = ()

    def __init__(self, estimator: DepthEstimator, steady: bool, batch: int = 1) -> None:
        self._estimator, self._steady = estimator, steady
        self._batch = max(batch, estimator.best_batch)
        self.row, self.weights, self.description = estimator.row, estimator.weights, estimator.description

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> InputPlan:
        """See ClipPredictor."""
        self._plan, self._camera = self._estimator.plan(size), camera
        row = self._estimator.row
        self.row = row if camera else row.without_focal()
        self.warnings = () if self.row is row else (f"{row.name}: {NO_FOCAL}",)
        self.map_size = self._plan.map_size
        self._group: list[tuple[Prepared, bool]] = []
        self._filter = SteadyFilter(metric=self.row.kind.is_metric)
        return self._plan

    def prepare(self, rgb: np.ndarray) -> Prepared:
        """See ClipPredictor."""
        return Prepared(Picture(rgb, "frame", ()), self._plan, to_network_input(rgb, self._plan))

    def feed(self, prepared: Prepared, cut: bool) -> Sequence[Any]:
        """See ClipPredictor."""
        self._group.append((prepared, cut))
        return self.finish() if len(self._group) >= self._batch else ()

    def finish(self) -> Sequence[Any]:
        """See ClipPredictor."""
        group, self._group = self._group, []
        outputs = self._estimator.run([prepared for prepared, _ in group], recheck=True) if group else ()
        return [(prepared, output, cut) for (prepared, cut), output in zip(group, outputs)]

    def postprocess(self, answer: tuple[Prepared, Answer, bool]) -> np.ndarray:
        """See ClipPredictor."""
        prepared, output, cut = answer
        plan = prepared.plan
        output, row = in_metres(output, self._estimator.row, plan, self._camera)
        values = network_values(output.depth, plan, row)
        if cut:
            self._filter = SteadyFilter(metric=self.row.kind.is_metric)
        if self._steady:
            values = self._filter.feed(wrap_columns(prepared.picture.rgb, plan.wrapped), values)
        return unwrap(values, plan, plan.map_size[0])

    def state(self) -> Optional[Callable[[], State]]:
        """See ClipPredictor."""
        return None if self._group else lambda: self._filter.state()

    def restore(self, state: State) -> None:
        """See ClipPredictor."""
        self._filter.restore(state)

    def close(self) -> None:
        """Free the device."""
        self._estimator.close()


class WindowByWindow(AtOnce):
    """A video model. exact: align its windows as the official code does, at the size of the frames."""

    warnings: tuple[str, ...] = ()

    def __init__(
        self, row: ModelRow, weights: WeightsFile, backend: Backend, exact: bool, panorama: bool = False
    ) -> None:
        self.row, self.weights, self.description, self.exact = row, weights, backend.traits.description, exact
        self._backend, self._panorama = backend, panorama

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> InputPlan:
        """See ClipPredictor."""
        check_picture(size, free_memory())
        self._plan = plan_input(*size, self.row.input, self._panorama)
        self._backend.check(self._plan, self._backend.traits.best_batch)
        self.map_size = size if self.exact else self._plan.map_size
        self._begin_shot()
        return self._plan

    def _begin_shot(self) -> None:
        resize = (lambda values: resize_bilinear(values, self._plan.picture_size)) if self.exact else None
        self._shot = Windows(self._backend, metric=self.row.kind.is_metric, exact=self.exact, resize=resize)
        # The state of the shot after its last window, and the images since: it can be made again from these.
        self._window: State = {}
        self._since: list[np.ndarray] = []

    def prepare(self, rgb: np.ndarray) -> np.ndarray:
        """See ClipPredictor."""
        return to_network_input(rgb, self._plan)

    def feed(self, prepared: np.ndarray, cut: bool) -> Sequence[np.ndarray]:
        """See ClipPredictor. Answers come with each full window, and at the end of a shot."""
        rest: Sequence[np.ndarray] = ()
        if cut:
            rest = self._shot.finish()
            self._begin_shot()
        final = self._shot.feed(prepared)
        if final:
            self._window, self._since = self._shot.state(), []
        else:
            self._since.append(prepared)
        return [*rest, *final]

    def finish(self) -> Sequence[np.ndarray]:
        """See ClipPredictor."""
        return self._shot.finish()

    def postprocess(self, answer: np.ndarray) -> np.ndarray:
        """See ClipPredictor."""
        if self.exact:
            return in_unit(answer, self.row)
        return unwrap(network_values(answer, self._plan, self.row), self._plan, self._plan.map_size[0])

    def state(self) -> Optional[Callable[[], State]]:
        """See ClipPredictor."""
        window, since = self._window, tuple(self._since)
        return lambda: {**join_states(window=window), **({"since": np.stack(since)} if since else {})}

    def restore(self, state: State) -> None:
        """See ClipPredictor."""
        self._window, self._since = part_of(state, "window"), list(state.get("since", ()))
        if self._window:
            self._shot.restore(self._window)
        for image in self._since:
            self._shot.feed(image)  # completes no window, so it returns nothing

    def close(self) -> None:
        """Free the device."""
        self._backend.close()
