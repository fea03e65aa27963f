"""Clips: frames in, steady depth maps out, in order. `FrameLoop` is the only loop over the frames of a clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

import numpy as np

from depthcli.backends import open_backend
from depthcli.camera import Camera, CameraSource
from depthcli.choices.camera import CameraChoice
from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import ModelChoice
from depthcli.choices.scenes import ViewsChoice
from depthcli.depthmap import DepthMap, Provenance
from depthcli.errors import ClipError, Log, UsageError, warn
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.video.clip import ClipInfo, Frame, Selection
from depthcli.io.video.reader import FOLDER_RATE, open_clip
from depthcli.pixels.postprocess import at_size
from depthcli.predict.clip_predictors import ClipPredictor, FrameByFrame, Reached, WindowByWindow
from depthcli.predict.denoised import open_denoised
from depthcli.predict.model import resolve_clip_model
from depthcli.predict.picture import CROPPED, DepthEstimator, open_cameras, open_picture
from depthcli.predict.scene import SceneEstimator
from depthcli.predict.views_of_clip import FRAMES, ViewsByChunk
from depthcli.temporal.cuts import CutDetector
from depthcli.temporal.state import State, join_states, part_of
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import DEPTHCRAFTER, ModelTask, with_max_depth

T = TypeVar("T")
_RECORDED = "the focal length is the clip's own, which stabilisation may have shortened the view of by 10 %"
_AHEAD = 3  # frames that are read, and answers that are postprocessed, beside the one in the network


def estimate_clip(
    source: Union[str, Path, Iterable[np.ndarray]],
    model: Union[str, ModelChoice] = "auto",
    clip: ClipChoice = ClipChoice(),
    *,
    selection: Optional[Selection] = None,
    camera: CameraChoice = CameraChoice(),
    log: Log = warn,
) -> Iterator[DepthMap]:
    """Yield the depth map of each frame of a clip, in order, at the size of the clip.

    source: a video file, a folder of frames, or the frames, (H, W, 3) uint8 RGB of one size.
    model: name of a zoo row, path of a checkpoint, or "auto". selection: frames to take of a file or folder.
    camera: of the clip, in place of what it tells itself.
    log: receives lines about downloads and fallbacks; by default they are warnings of the logger "depthcli".

    Maps of a video model, and of one for scenes, come in groups, up to 32 frames late. The model is freed when the
    generator ends or is closed.
    Raises ClipError, after the maps of all frames that could be read, if the clip is damaged.
    """
    damage: list[ClipError] = []
    with ExitStack() as stack:
        if isinstance(source, (str, Path)):
            opened = stack.enter_context(open_clip(source))
            info = opened.info
            frames = stack.enter_context(closing(opened.frames(selection or Selection())))  # type: ignore[type-var]
        else:
            frames = _frames_of(source)
            first = next(frames, None)
            if first is None:
                return
            rate = FOLDER_RATE
            info = ClipInfo("frames", (first.rgb.shape[1], first.rgb.shape[0]), rate, 1 / rate)
            frames = chain([first], frames)
        predictor = stack.enter_context(closing(open_clip_predictor(ModelChoice.of(model), clip, log)))
        seen_by = camera_of_clip(info, open_cameras(camera, clip.panorama), clip.panorama)
        loop = FrameLoop(predictor, info.size, seen_by.camera, find_cuts=clip.scenes)
        for line in (*seen_by.warnings, *loop.warnings):
            log(f"{Path(info.name).name}: {line}")
        provenance = loop.provenance(Path(info.name).name)
        steps = loop.run(readable_frames(frames, damage))
        for item in chain.from_iterable(stack.enter_context(closing(steps))):  # type: ignore[type-var]
            yield loop.depth_map(item.values, provenance)
    if damage:
        raise damage[0]


@dataclass(frozen=True)
class ClipCamera:
    """The camera of a clip, None if it is unknown. notes: how it was found. warnings: what is doubtful."""

    camera: Optional[Camera] = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def camera_of_clip(info: ClipInfo, given: Optional[GivenCameras], panorama: bool = False) -> ClipCamera:
    """Return the camera that was given, else the one that the clip itself tells. Raises UsageError as `given_to`."""
    if panorama:  # which no pinhole sees
        return ClipCamera()
    if given is not None:
        name = str(info.paths[0]) if info.paths else info.name
        return ClipCamera(*given.camera_of(name, info.size, info.orientation, float(info.pixel_aspect)))
    source = info.camera and info.camera.source
    notes = (_RECORDED,) if source is CameraSource.CLIP else ()
    return ClipCamera(info.camera, notes, (CROPPED,) if source is CameraSource.EXIF_CROPPED else ())


def readable_frames(frames: Iterator[Frame], damage: list[ClipError]) -> Iterator[Frame]:
    """Yield the frames that can be read. A ClipError ends them and is appended to `damage`."""
    try:
        yield from frames
    except ClipError as error:
        damage.append(error)


@dataclass(frozen=True, eq=False)
class FrameMap:
    """The map of one frame.

    index, time, duration: as in io.video.clip.Frame. cut: a new shot begins with the frame.
    values: (H, W) float32, in the kind and unit of the row, of the predictor's `map_size`.
    """

    index: int
    time: Fraction
    duration: Fraction
    cut: bool
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class _Input:
    """A frame on its way to the network. cuts: state of the cut detector after it."""

    facts: tuple[int, Fraction, Fraction, bool]
    prepared: Any
    cuts: State


@dataclass(frozen=True, eq=False)
class _Step:
    """What the network returned after a frame, or for a piece of the work that a frame left.

    frame: None for a piece. state: makes the predictor's state; None if it cannot be left here. cuts: state of the cut
    detector. costly: a piece.
    """

    answers: Sequence[Any]
    frame: Optional[_Input] = None
    fed: int = 0
    state: Optional[Callable[[], State]] = None
    cuts: State = field(default_factory=dict)
    costly: bool = False


class FrameLoop:
    """Sends the frames of one clip through a predictor: find cuts, prepare, run the network, postprocess.

    size: (width, height) of the frames. camera: of the clip, or None. frames: in the clip, None if unknown.
    find_cuts: process each shot alone. threads: read and postprocess in threads beside the network, a few frames ahead
    and behind. timed: returns a context that measures a stage: "read", "prepare", "network" or "postprocess".

    fed: number of frames fed to the network. reached: how far a predictor is that works in pieces, None for others.
    costly: the maps that are recorded are of such a piece, after which the state is worth keeping. plan: of the
    network's input. warnings: what is doubtful about the maps.
    Raises PictureError if the frames do not fit into the memory.
    """

    def __init__(
        self,
        predictor: ClipPredictor,
        size: tuple[int, int],
        camera: Optional[Camera] = None,
        *,
        frames: Optional[int] = None,
        find_cuts: bool = True,
        threads: bool = True,
        timed: Callable[[str], AbstractContextManager[None]] = lambda stage: nullcontext(),
    ) -> None:
        self._predictor, self._find_cuts, self._threads, self._timed = predictor, find_cuts, threads, timed
        self.camera = camera
        self.plan = predictor.begin(size, camera, frames)
        self.warnings = predictor.warnings
        self.fed = 0
        self.reached: Optional[Reached] = None
        self.costly = False
        self._cuts = CutDetector()
        self._due: deque[tuple[int, Fraction, Fraction, bool]] = deque()  # frames whose maps are not final
        self._state: Optional[Callable[[], State]] = None
        self._broken = False

    def run(
        self, frames: Iterator[Frame], record: Optional[Callable[[list[FrameMap]], None]] = None
    ) -> Iterator[list[FrameMap]]:
        """Yield after each frame the maps that have become final, and at the end the rest.

        record: receives each list of maps instead, in the thread that makes them; empty lists are yielded then.
        Close the iterator to stop: all answers that the network has given are still recorded. Errors of `frames` are
        raised.
        """
        with closing(self._steps(frames)) as steps:  # type: ignore[type-var]
            if not self._threads:
                for step in steps:
                    yield self._maps_of(step, record)
                return
            with ThreadPoolExecutor(1) as pool:
                waiting: deque[Future[list[FrameMap]]] = deque()
                try:
                    for step in steps:
                        waiting.append(pool.submit(self._maps_of, step, record))
                        yield [item for _ in range(len(waiting) - _AHEAD) for item in waiting.popleft().result()]
                    while waiting:
                        yield waiting.popleft().result()
                finally:
                    wait(waiting)

    def state(self) -> Optional[State]:
        """Return what resumes the work after the last maps; None if it cannot be resumed there.

        Call it in `record`, or when the iterator is closed.
        """
        return None if self._state is None else self._state()

    def restore(self, state: State) -> None:
        """Continue from a state: `run` takes the frames after the first `fed` and gives the same maps, bit for bit."""
        self._predictor.restore(part_of(state, "predictor"))
        self._cuts.restore(part_of(state, "cuts"))
        self.fed = int(state["fed"])
        self._due.extend((i, Fraction(a, b), Fraction(c, d), bool(cut)) for i, a, b, c, d, cut in state["due"].tolist())

    def provenance(self, source: str) -> Provenance:
        """Return where the maps come from. source: name of the clip."""
        row, panorama = self._predictor.row, self.plan.wrapped > 0
        return provenance_of(
            row,
            self._predictor.weights,
            self._predictor.description,
            self.plan.input_size,
            source,
            panorama,
            network=row.name,
        )

    def depth_map(self, values: np.ndarray, provenance: Provenance) -> DepthMap:
        """Return the values of a FrameMap as a DepthMap of the clip's size."""
        return at_size(values, self.plan.picture_size, self._predictor.row, provenance, self.camera)

    def _steps(self, frames: Iterator[Frame]) -> Iterator[_Step]:
        cuts = self._cuts.state()
        if self.fed:  # a state may have been kept in the middle of what its last frame left
            yield from self._pieces(cuts)
        with closing(_ahead(self._inputs(frames), _AHEAD if self._threads else 0)) as inputs:  # type: ignore[type-var]
            for item in inputs:
                with self._timed("network"):
                    answers = self._predictor.feed(item.prepared, item.facts[-1])
                self.fed += 1
                self.reached = self._predictor.reached()
                cuts = item.cuts
                yield _Step(answers, item, self.fed, self._predictor.state(), cuts)
                yield from self._pieces(cuts)
        with self._timed("network"):
            answers = self._predictor.finish()
        yield _Step(answers)
        yield from self._pieces(cuts)

    def _pieces(self, cuts: State) -> Iterator[_Step]:
        """Yield what comes of the work that a frame, or the end, left to do."""
        while True:
            with self._timed("network"):
                answers = self._predictor.advance()
            if answers is None:
                return
            self.reached = self._predictor.reached()
            yield _Step(answers, None, self.fed, self._predictor.state(), cuts, costly=True)

    def _inputs(self, frames: Iterator[Frame]) -> Iterator[_Input]:
        while True:
            with self._timed("read"):
                frame = next(frames, None)
            if frame is None:
                return
            with self._timed("prepare"):
                cut = self._find_cuts and self._cuts.is_cut(frame.rgb)
                prepared = self._predictor.prepare(frame.rgb)
            yield _Input((frame.index, frame.time, frame.duration, cut), prepared, self._cuts.state())

    def _maps_of(self, step: _Step, record: Optional[Callable[[list[FrameMap]], None]]) -> list[FrameMap]:
        if self._broken:  # nothing may follow a frame whose map is missing
            return []
        self._broken, self._state, self.costly = True, None, step.costly
        if step.frame is not None:
            self._due.append(step.frame.facts)
        maps = []
        for answer in step.answers:
            with self._timed("postprocess"):
                values = self._predictor.postprocess(answer)
            maps.append(FrameMap(*self._due.popleft(), values))
        self._state = self._state_after(step)
        if record is not None:
            record(maps)
            maps = []
        self._broken = False
        return maps

    def _state_after(self, step: _Step) -> Optional[Callable[[], State]]:
        make, cuts = step.state, step.cuts
        if make is None:
            return None
        return lambda: {
            **join_states(predictor=make(), cuts=cuts),
            "fed": np.array(step.fed),
            "due": np.array(
                [(index, *a.as_integer_ratio(), *b.as_integer_ratio(), cut) for index, a, b, cut in self._due], np.int64
            ).reshape(-1, 6),
        }


def _ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """Yield the items, made up to `count` ahead in a thread; 0: each when it is asked for."""
    if not count:
        yield from items
        return
    end: Any = object()
    pool = ThreadPoolExecutor(1)
    try:
        coming = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _frames_of(arrays: Iterable[np.ndarray]) -> Iterator[Frame]:
    """Yield arrays (H, W, 3) uint8 as frames of a clip. Raises PictureError for any other array."""
    size = None
    for index, rgb in enumerate(arrays):
        picture = open_picture(rgb).rgb
        if size not in (None, picture.shape):
            raise ClipError(f"frame {index} is {picture.shape}, the frames before are {size}", "use frames of one size")
        size = picture.shape
        yield Frame(index, index / FOLDER_RATE, 1 / FOLDER_RATE, picture)


# --- Which predictor --------------------------------------------------------------------------------------------------


def open_clip_predictor(
    choice: ModelChoice, clip: ClipChoice = ClipChoice(), log: Log = lambda line: None, metres: bool = False
) -> ClipPredictor:
    """Return the chosen predictor, loaded; may download. Raises UsageError, ModelError or EngineError.

    log: receives lines about downloads and fallbacks. metres: they are made of the maps, and `max_depth` of a relative
    model limits them.
    """
    model = resolve_clip_model(replace(choice, max_depth=None) if metres else choice, clip, log)
    if metres and choice.max_depth is not None and model.row.kind.is_metric:
        model = replace(model, row=with_max_depth(model.row, choice.max_depth))
    if model.row.family == DEPTHCRAFTER:
        return open_denoised(model.row.with_input_size(clip.diffusion.max_res), model.weights, clip)
    if model.row.task is ModelTask.CLIP:
        row = model.row.with_input_size(clip.input_size)
        backend = open_backend(row, model.weights, clip.backend, model.trust, log)
        return WindowByWindow(row, model.weights, backend, clip.exact, clip.panorama)
    if model.row.task is ModelTask.SCENE:
        if clip.panorama:
            raise UsageError(f"{model.row.name} takes no panorama", "leave out `panorama`, or use another `model`")
        views = ViewsChoice(input_size=clip.input_size)
        return ViewsByChunk(
            SceneEstimator(model, clip.backend, views=views, log=log), clip.batch if clip.batch > 1 else FRAMES
        )
    estimator = DepthEstimator(model, clip.backend, input_size=clip.input_size, panorama=clip.panorama, log=log)
    return FrameByFrame(estimator, clip.steady != "off", clip.batch)
