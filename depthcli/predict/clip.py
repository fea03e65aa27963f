"""ClipEstimator: a model and what makes it steady. Frames in, depth maps of the network's size out, shot by shot.

Two engines of steadiness behind one interface: a model for video, which sees 32 frames at once, and the filter of
temporal/steady.py behind a model that sees one frame at a time. Both are taken in three steps, so that a job can read
the next frame and settle the last one while the network runs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional, Protocol

import numpy as np

from depthcli.backends import VideoBackend, open_video_backend
from depthcli.choices import ClipChoice, ModelChoice
from depthcli.depthmap import Provenance
from depthcli.errors import Log, ModelError, UsageError
from depthcli.host.memory import check_picture, free_memory
from depthcli.io.pictures.images import Picture
from depthcli.pixels.postprocess import network_values, resize_bilinear, unwrap
from depthcli.pixels.preprocess import InputPlan, plan_input, to_network_input, wrap_columns
from depthcli.predict.picture import DepthEstimator, Prepared, open_estimator, resolve_model
from depthcli.temporal.steady import SteadyFilter
from depthcli.temporal.windows import Windows
from depthcli.zoo.download import obtain
from depthcli.zoo.identify import is_published, row_for_checkpoint
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow, ModelTask, find_row, is_row

State = dict[str, np.ndarray]
# The sizes of which there is a model for video.
_VIDEO_ENCODERS = ("vits", "vitb", "vitl")


@dataclass(frozen=True, eq=False)
class Step:
    """What a network gave for the frames so far. answers: in order. state: makes what ClipEstimator.run says."""

    answers: Sequence[Any]
    state: Optional[Callable[[], State]]


class ClipEstimator(Protocol):
    """A loaded model for the frames of one clip, in order.

    `prepare` may be called from any thread, `run` and `finish` from one thread and `settle` from one other, each in the
    order of the frames. There are as many maps as frames, and they come in their order, though later. exact: every bit
    of them counts.
    """

    row: ModelRow
    weights: WeightsFile
    exact: bool

    @property
    def engine(self) -> str:
        """Engine, version, device, precision."""

    def plan(self, size: tuple[int, int]) -> InputPlan:
        """Return the plan for frames of (width, height). Raises PictureError where they do not fit the memory."""

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (width, height) of the maps for frames of (width, height)."""

    def prepare(self, rgb: np.ndarray) -> Any:
        """Return what `run` takes of a frame (H, W, 3) uint8."""

    def run(self, prepared: Any, cut: bool) -> Step:
        """Run the network; cut: a new shot begins with this frame.

        The step's state, with that of `settled_state`, is all that is needed to go on behind this frame in another
        process; None where the work cannot be left at this point. It is made only when it is called for.
        """

    def finish(self) -> Step:
        """Return the answers that are still due: the clip has ended."""

    def settle(self, answer: Any) -> np.ndarray:
        """Return the map (H, W) float32 for one of a step's answers, in the kind and unit of the row."""

    def settled_state(self) -> State:
        """Return what `settle` keeps."""

    def restore(self, run: State, settled: State) -> None:
        """Go on from where those states were taken; what follows is the same, bit for bit. Empty ones begin a clip."""

    def close(self) -> None:
        """Free the device."""


def open_clip_estimator(
    choice: ModelChoice, clip: ClipChoice = ClipChoice(), talk: Log = lambda line: None
) -> ClipEstimator:
    """Return the estimator that was chosen, loaded; may download.

    talk: takes a line at a time about downloads and fallbacks. Raises UsageError, ModelError or EngineError.
    """
    if clip.backend.runs_compiled:  # whose files say which model they are
        return _frame_by_frame(choice, clip, talk)
    row, weights = resolve_clip_model(choice, clip, talk)
    if row.task is ModelTask.PICTURE:
        named = replace(choice, model=row.name, encoder="auto", metric=None, checkpoint=weights.path)
        return _frame_by_frame(named, clip, talk)
    if clip.input_size is not None:
        row = row.with_input_size(clip.input_size)
    backend = open_video_backend(row, weights, clip.backend, choice.trust, talk)
    return WindowByWindow(row, weights, backend, clip.exact, clip.panorama)


def _frame_by_frame(choice: ModelChoice, clip: ClipChoice, talk: Log) -> FrameByFrame:
    if clip.exact:
        raise UsageError("--exact is about models for video", "leave it out with a model for pictures")
    estimator = open_estimator(choice, clip.backend, clip.input_size, talk, clip.panorama)
    return FrameByFrame(estimator, clip.steady != "off", clip.batch)


def resolve_clip_model(choice: ModelChoice, clip: ClipChoice, talk: Log) -> tuple[ModelRow, WeightsFile]:
    """Return the row and the weights file for a clip; may download.

    Where nothing but a size was named, a model for video is taken if it can be had. Raises UsageError for a model for
    video that the filter is asked for, ModelError where no weights can be had.
    """
    if choice.checkpoint is not None and choice.model is None and choice.metric is None:
        row = row_for_checkpoint(choice.checkpoint)
        if row is not None and row.task is ModelTask.CLIP and choice.encoder in ("auto", row.encoder):
            choice = replace(choice, model=row.name, encoder="auto")
    if choice.model is not None and is_row(choice.model):
        _check_steady(find_row(choice.model), clip)  # before a download
    free = choice.model is None and choice.metric is None and choice.checkpoint is None
    encoder = "vits" if choice.encoder == "auto" else choice.encoder
    if clip.steady == "auto" and free and encoder in _VIDEO_ENCODERS:
        row = find_row(f"vda-{encoder}")
        try:
            return row, obtain(row, offline=choice.offline, log=talk)
        except ModelError as error:
            talk(f"the weights of {row.name} are not here: {error.message}; so one frame at a time, then steadied")
    row, weights = resolve_model(choice, talk, video=True)
    _check_steady(row, clip)
    return row, weights


def _check_steady(row: ModelRow, clip: ClipChoice) -> None:
    if row.task is ModelTask.CLIP and clip.steady != "auto":
        raise UsageError(f"{row.name} is steady by itself", "leave out --steady, or name a model for pictures")


class FrameByFrame:
    """A model for pictures, to which every frame is a picture of its own.

    steady: with the filter behind it. batch: frames that share a run; more where the engine wants them.
    """

    exact = False

    def __init__(self, estimator: DepthEstimator, steady: bool, batch: int = 1) -> None:
        self._estimator, self._steady = estimator, steady
        self._batch = max(batch, estimator.best_batch)
        self._group: list[tuple[Prepared, bool]] = []
        self._plan: Optional[InputPlan] = None
        self.row, self.weights = estimator.row, estimator.weights
        self._filter = SteadyFilter(metric=self.row.kind.is_metric)

    @property
    def engine(self) -> str:
        """Engine, version, device, precision."""
        return self._estimator.engine

    def plan(self, size: tuple[int, int]) -> InputPlan:
        """See ClipEstimator."""
        return self._estimator.plan(_picture(np.broadcast_to(np.uint8(0), (*size[::-1], 3))))

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """See ClipEstimator."""
        return self.plan(size).map_size

    def prepare(self, rgb: np.ndarray) -> Prepared:
        """See ClipEstimator."""
        size = rgb.shape[1], rgb.shape[0]
        if self._plan is None or self._plan.picture_size != size:  # looked at once: free memory has its ups and downs
            self._plan = self.plan(size)
        return Prepared(_picture(rgb), self._plan, to_network_input(rgb, self._plan))

    def run(self, prepared: Prepared, cut: bool) -> Step:
        """See ClipEstimator. Between two batches nothing is kept."""
        self._group.append((prepared, cut))
        return self.finish() if len(self._group) >= self._batch else Step([], None)

    def finish(self) -> Step:
        """See ClipEstimator."""
        group, self._group = self._group, []
        outputs = self._estimator.run([prepared for prepared, _ in group]) if group else []
        return Step([(prepared, output, cut) for (prepared, cut), output in zip(group, outputs)], dict)

    def settle(self, answer: tuple[Prepared, np.ndarray, bool]) -> np.ndarray:
        """See ClipEstimator."""
        prepared, output, cut = answer
        plan = prepared.plan
        values = network_values(output, plan, self.row)
        if self._steady:
            if cut:
                self._filter = SteadyFilter(metric=self.row.kind.is_metric)
            values = self._filter.feed(wrap_columns(prepared.picture.rgb, plan.wrapped), values)
        return unwrap(values, plan, plan.map_size[0])

    def settled_state(self) -> State:
        """See ClipEstimator."""
        return self._filter.state()

    def restore(self, run: State, settled: State) -> None:
        """See ClipEstimator."""
        self._group = []
        self._filter.restore(settled)

    def close(self) -> None:
        """See ClipEstimator."""
        self._estimator.close()


class WindowByWindow:
    """A model for video, over windows of 32 frames; exact: as the official code aligns them."""

    def __init__(
        self, row: ModelRow, weights: WeightsFile, backend: VideoBackend, exact: bool, panorama: bool = False
    ) -> None:
        self.row, self.weights, self._backend, self.exact = row, weights, backend, exact
        self._panorama = panorama
        self._shot: Optional[Windows] = None
        self._size = (0, 0)
        # What a shot can be made again from: its state behind the last window, and the images that came since.
        self._window: State = {}
        self._since: list[np.ndarray] = []

    @property
    def engine(self) -> str:
        """Engine, version, device, precision."""
        return self._backend.description

    def plan(self, size: tuple[int, int]) -> InputPlan:
        """See ClipEstimator."""
        check_picture(size, free_memory())
        plan = self._input(size)
        self._backend.check(plan)
        self._size = size
        return plan

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """See ClipEstimator. The official code aligns maps of the frames' own size."""
        return size if self.exact else self.plan(size).map_size

    def prepare(self, rgb: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
        """See ClipEstimator."""
        size = rgb.shape[1], rgb.shape[0]
        return size, to_network_input(rgb, self._input(size))

    def run(self, prepared: tuple[tuple[int, int], np.ndarray], cut: bool) -> Step:
        """See ClipEstimator. Answers come by windows, and at the end of a shot."""
        self._size, image = prepared
        due: list[np.ndarray] = []
        if cut and self._shot is not None:
            due, self._shot = self._shot.finish(), None
        shot = self._shot or self._begin()
        final = shot.feed(image)
        if final:
            self._window, self._since = shot.state(), []
        else:
            self._since.append(image)
        return Step([*due, *final], functools.partial(_state_of, self._window, tuple(self._since)))

    def finish(self) -> Step:
        """See ClipEstimator."""
        due = [] if self._shot is None else self._shot.finish()
        self._shot = None
        return Step(due, None)

    def settle(self, answer: np.ndarray) -> np.ndarray:
        """See ClipEstimator."""
        if self.exact:  # of the frames' own size by now
            size = answer.shape[1], answer.shape[0]
            return network_values(answer, InputPlan(size, size), self.row)
        plan = self._input(self._size)
        return unwrap(network_values(answer, plan, self.row), plan, plan.map_size[0])

    def settled_state(self) -> State:
        """See ClipEstimator."""
        return {}

    def restore(self, run: State, settled: State) -> None:
        """See ClipEstimator."""
        self._shot = None
        if not run:
            return
        shot = self._begin()
        self._window, self._since = part_of(run, "window"), list(run.get("since", ()))
        if self._window:
            shot.restore(self._window)
        for image in self._since:
            shot.feed(image)  # which gives nothing: no window was full

    def close(self) -> None:
        """See ClipEstimator."""
        self._backend.close()

    def _input(self, size: tuple[int, int]) -> InputPlan:
        return plan_input(*size, self.row.input, self._panorama)

    def _begin(self) -> Windows:
        """Begin a shot."""
        resize = (lambda values: resize_bilinear(values, self._size)) if self.exact else None
        self._shot = shot = Windows(self._backend, metric=self.row.kind.is_metric, exact=self.exact, resize=resize)
        self._window, self._since = {}, []
        return shot


def _state_of(window: State, since: Sequence[np.ndarray]) -> State:
    """Return what a shot can be made again from."""
    state = join_states(window=window)
    return {**state, "since": np.stack(since)} if since else state


def provenance_of_clip(estimator: ClipEstimator, plan: InputPlan, source: str) -> Provenance:
    """Return where the maps of a clip come from."""
    row, weights = estimator.row, estimator.weights
    published = is_published(row, weights)
    return Provenance(
        model=row.name,
        model_title=row.title if published else f"{weights.path.name}, a {row.name} of its own",
        sha256=weights.sha256,
        licence=row.licence if published else "",
        engine=estimator.engine,
        input_size=plan.input_size,
        source=source,
        panorama=plan.wrapped > 0,
    )


def join_states(**parts: Mapping[str, np.ndarray]) -> State:
    """Return several states as one: the arrays of each under its name."""
    return {f"{name}/{key}": value for name, part in parts.items() for key, value in part.items()}


def part_of(state: Mapping[str, np.ndarray], name: str) -> State:
    """Return one of the states that were joined."""
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _picture(rgb: np.ndarray) -> Picture:
    return Picture(rgb, "frame", ())
