"""DepthEstimator: a zoo row, an engine, and the two processes around it. Pictures in, DepthMaps out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Optional, Union

import numpy as np

from depthcli.backends import Backend, open_backend, targets_of
from depthcli.backends.artifact import find_artifacts, origin_of, select_artifacts
from depthcli.choices import BackendChoice, ModelChoice, check_input_size
from depthcli.depthmap import DepthMap, Provenance
from depthcli.errors import CheckpointError, DeviceLostError, Log, PictureError, UsageError
from depthcli.host.memory import check_picture, free_memory
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.pixels.postprocess import to_depth_map
from depthcli.pixels.preprocess import InputPlan, plan_input, to_network_input
from depthcli.zoo.download import obtain, obtain_auto
from depthcli.zoo.identify import is_published, row_for_checkpoint
from depthcli.zoo.locate import WeightsFile, find
from depthcli.zoo.rows import ModelRow, ModelTask, find_row, is_row, select_row, with_max_depth
from depthcli.zoo.verify import digest

AnyPicture = Union[str, Path, bytes, np.ndarray, Picture]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture on its way through the network. image: (3, H, W) float32, normalised."""

    picture: Picture
    plan: InputPlan
    image: np.ndarray


def resolve_model(
    choice: ModelChoice, talk: Log = lambda line: None, video: bool = False
) -> tuple[ModelRow, WeightsFile]:
    """Return the row and the weights file a choice stands for; may download.

    `auto` takes vits where its weights are here or can be fetched, else tiny, and says so through `talk`.
    video: a model for clips will do. Raises UsageError for choices that contradict each other and for a model that
    will not do, ModelError where the weights cannot be had.
    """
    row, checkpoint = _row_and_checkpoint(choice, talk)
    if not video:
        _refuse_video(row, checkpoint)
    if row is None:
        row, weights, notice = obtain_auto(offline=choice.offline, log=talk)
        if notice:
            talk(notice)
    else:
        weights = obtain(row, checkpoint=checkpoint, offline=choice.offline, log=talk)
    return (row if choice.max_depth is None else with_max_depth(row, choice.max_depth)), weights


def known_model(choice: ModelChoice) -> tuple[str, str]:
    """Return the row's name and the sha256 of the weights that a choice names; empty where it names none."""
    row, checkpoint = _named(choice)
    # Any row will do to find a file that was named.
    file = None if checkpoint is None else find(row or find_row("vits"), checkpoint)
    return row.name if row else "", file.sha256 if file else ""


def _row_and_checkpoint(choice: ModelChoice, talk: Log) -> tuple[ModelRow | None, Path | None]:
    """Return the row, or None for the automatic choice, and the file that was named, or None."""
    row, checkpoint = _named(choice)
    if row is None and checkpoint is not None:
        row = row_for_checkpoint(checkpoint) or _row_by_tensors(checkpoint, choice.trust, talk)
    return row, checkpoint


def _refuse_video(row: ModelRow | None, checkpoint: Path | None) -> None:
    if row is not None and row.task is ModelTask.CLIP:
        name = row.name if checkpoint is None else f"{checkpoint}, {row.title},"
        raise UsageError(f"{name} is a video model", "use: depth video")


def _named(choice: ModelChoice) -> tuple[ModelRow | None, Path | None]:
    """Return the row and the file that were named, None for what was not."""
    checkpoint = choice.checkpoint
    encoder = None if choice.encoder == "auto" else choice.encoder
    if choice.model is not None:
        if is_row(choice.model):
            if encoder or choice.metric:
                raise UsageError("--model names the whole model", "leave out --encoder and --metric")
            return find_row(choice.model), checkpoint
        if not (Path(choice.model).suffix or Path(choice.model).exists()):
            find_row(choice.model)  # says which names are near
        if checkpoint is not None:
            raise UsageError("--model and --checkpoint name two files", "leave out one")
        checkpoint = Path(choice.model)
    if encoder or choice.metric:
        return select_row(encoder or "vits", choice.metric), checkpoint
    return None, checkpoint


def _row_by_tensors(checkpoint: Path, trust: bool, talk: Log) -> ModelRow:
    """Return the relative row whose network a checkpoint of an unknown name fits; metric ones look just like it."""
    from depthcli.nets.build import infer_encoder, is_temporal
    from depthcli.nets.checkpoint import read_state

    state = read_state(checkpoint, digest(checkpoint), trust)
    encoder = infer_encoder(state)
    if encoder is None:
        raise CheckpointError(f"{checkpoint} is not a Depth Anything V2 checkpoint")
    if is_temporal(state):
        row = find_row(f"vda-{encoder}")
        otherwise = f"name --model vda-metric-{encoder} too"
    else:
        row = find_row(encoder)
        otherwise = "add --metric"
    talk(f"{checkpoint.name} fits {row.name} and is taken for a relative model; if it is metric, {otherwise}")
    return row


def resolve_compiled(choice: ModelChoice, engine: BackendChoice) -> tuple[ModelRow, WeightsFile]:
    """Return the row and the weights of the compiled networks that an engine is to run; no checkpoint is needed."""
    row, checkpoint = _named(choice)
    _refuse_video(row, checkpoint)
    sha256 = None if checkpoint is None else digest(checkpoint)
    found = find_artifacts(engine.artifacts, targets_of(engine))
    first = select_artifacts(found, row.name if row else None, sha256)[0]
    row = first.row if choice.max_depth is None else with_max_depth(first.row, choice.max_depth)
    return row, origin_of(first)


class DepthEstimator:
    """A loaded model. Use it as a context manager, or call `close` to free the device. Threads may share one.

    model: a zoo row's name, the path of a checkpoint, or "auto". input_size: length of the network input's shorter side
    in pixels; None takes the model's own. device, backend, precision, calibration, artifacts, shape_policy,
    allow_standin: as in BackendChoice. panorama: the pictures go on from the right edge to the left one, and so does
    their depth. talk: takes one line at a time about downloads and fallbacks.
    """

    def __init__(
        self,
        model: Union[str, ModelChoice] = "auto",
        *,
        input_size: Optional[int] = None,
        device: str = "auto",
        backend: str = "auto",
        precision: str = "auto",
        calibration: Optional[Path] = None,
        artifacts: Optional[Path] = None,
        shape_policy: str = "strict",
        allow_standin: bool = False,
        panorama: bool = False,
        talk: Log = lambda line: None,
    ) -> None:
        choice = model if isinstance(model, ModelChoice) else ModelChoice(model=None if model == "auto" else model)
        # What cannot be is said before anything is downloaded, not at the first picture.
        engine = BackendChoice(backend, device, precision, calibration, artifacts, shape_policy, allow_standin)
        check_input_size(input_size)
        self.row, self.weights = (
            resolve_compiled(choice, engine) if engine.runs_compiled else resolve_model(choice, talk)
        )
        if input_size is not None:
            self.row = self.row.with_input_size(input_size)
        self._panorama = panorama
        self._running = threading.Lock()
        self._proven = False  # whether an answer had any depth in it
        self._backend: Backend = open_backend(self.row, self.weights, engine, choice.trust, talk)

    @property
    def input_size(self) -> int:
        """Length of the shorter side of the network's input in pixels."""
        return self.row.input_size

    @property
    def best_batch(self) -> int:
        """How many pictures at once the engine wants; on most 1, as more only take more memory."""
        return self._backend.traits.best_batch

    @property
    def engine(self) -> str:
        """Engine, version, device and precision."""
        return self._backend.traits.description

    @property
    def mixes_sizes(self) -> bool:
        """Whether a run may hold pictures of different input sizes, as where each core takes one."""
        return self._backend.traits.mixes_sizes

    def estimate(self, picture: AnyPicture) -> DepthMap:
        """Return the depth map of one picture, at the size of the upright picture.

        picture: path, bytes of a file, or (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        Raises PictureError for one that cannot be read or is too large for the memory.
        """
        return self.estimate_batch([open_picture(picture)])[0]

    def map(self, pictures: Iterable[AnyPicture]) -> Iterator[DepthMap]:
        """Yield one depth map per picture, in order, holding one picture at a time."""
        return (self.estimate(picture) for picture in pictures)

    def plan(self, size: tuple[int, int]) -> InputPlan:
        """Return the input plan of a picture of (width, height). Raises PictureError if the memory is too small."""
        check_picture(size, free_memory())
        plan = self._backend.fit(plan_input(*size, self.row.input, self._panorama))
        self._backend.check(plan, 1)
        return plan

    def estimate_batch(self, pictures: Sequence[Picture]) -> list[DepthMap]:
        """Return the depth maps of pictures whose plans have one input size, from one run of the network."""
        prepared = [self.prepare(picture) for picture in pictures]
        return [self.finish(item, output) for item, output in zip(prepared, self.run(prepared))]

    # The three steps of an estimate, for a job that does them at the same time for different pictures. All may be
    # called from any thread; the network itself is run for one at a time.

    def prepare(self, picture: Picture) -> Prepared:
        """Return the picture with the network's input made of it. Raises as `plan` does."""
        plan = self.plan((picture.rgb.shape[1], picture.rgb.shape[0]))
        picture = replace(picture, notes=(*picture.notes, *plan.notes))
        return Prepared(picture, plan, to_network_input(picture.rgb, plan))

    def run(self, batch: Sequence[Prepared]) -> Sequence[np.ndarray]:
        """Return the network's answers, (H, W) float32 each, for pictures of one input size, or see `mixes_sizes`.

        Raises DeviceLostError where the network answers alike for everything, as with broken weights.
        """
        answers = self._run(batch)
        if not self._proven:
            self._prove(batch[0].image, answers[0])
        return answers

    def _prove(self, image: np.ndarray, answer: np.ndarray) -> None:
        """Raise DeviceLostError where an answer is flat, and another one to a picture full of detail is flat too.

        The first alone may be right, as for a black picture, a wall or the sky.
        """
        if answer.size > 1 and np.ptp(answer) == 0:
            probe = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
            probe += np.linspace(-2, 2, image.shape[1], dtype=np.float32)[:, None]
            with self._running:
                answer = self._backend.run({"image": probe[None]})["depth"]
            if not np.ptp(answer):
                raise DeviceLostError(
                    f"{self.row.name} answers the same for every pixel of every picture, through {self.engine}",
                    "fetch the weights again, or try another --backend",
                )
        self._proven = True

    def _run(self, batch: Sequence[Prepared]) -> Sequence[np.ndarray]:
        if self.mixes_sizes:
            for item in batch:
                self._backend.check(item.plan, 1)
            with self._running:
                answers: list[np.ndarray] = self._backend.run({"image": [item.image for item in batch]})["depth"]
            return answers
        if len({item.plan.input_size for item in batch}) != 1:
            raise ValueError("the pictures of a batch need one input size")
        self._backend.check(batch[0].plan, len(batch))
        with self._running:
            return list(self._backend.run({"image": np.stack([item.image for item in batch])})["depth"])

    def finish(self, prepared: Prepared, output: np.ndarray) -> DepthMap:
        """Return the depth map at the picture's size for the network's (H, W) answer."""
        provenance = self._provenance(prepared.picture, prepared.plan)
        return to_depth_map(output, prepared.plan, self.row, provenance, prepared.picture.valid)

    def close(self) -> None:
        """Free the device."""
        self._backend.close()

    def __enter__(self) -> DepthEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _provenance(self, picture: Picture, plan: InputPlan) -> Provenance:
        published = is_published(self.row, self.weights)
        return Provenance(
            model=self.row.name,
            model_title=self.row.title if published else f"{self.weights.path.name}, a {self.row.encoder} of its own",
            sha256=self.weights.sha256,
            licence=self.row.licence if published else "",
            engine=self.engine,
            input_size=plan.input_size,
            source=Path(picture.name).name,
            panorama=plan.wrapped > 0,
        )


def open_estimator(
    model: ModelChoice,
    engine: BackendChoice,
    input_size: Optional[int] = None,
    talk: Log = lambda line: None,
    panorama: bool = False,
) -> DepthEstimator:
    """Return the estimator for what was said about the model and the engine. Errors as DepthEstimator."""
    said = {field.name: getattr(engine, field.name) for field in fields(engine)}
    return DepthEstimator(model, input_size=input_size, panorama=panorama, talk=talk, **said)


def open_picture(picture: AnyPicture) -> Picture:
    """Return a Picture for a path, the bytes of a file, or an array (H, W, 3) RGB or (H, W) gray, uint8."""
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, np.ndarray):
        gray = picture.ndim == 2
        if picture.dtype != np.uint8 or not picture.size or not (gray or picture.shape[2:] == (3,)):
            raise PictureError(
                f"an array of {picture.dtype} {picture.shape} is no picture", "give uint8 (H, W, 3) RGB or (H, W)"
            )
        rgb = np.repeat(picture[..., None], 3, axis=2) if gray else np.ascontiguousarray(picture)
        return Picture(rgb, "array", ())
    return read_picture(picture)


def estimate(picture: AnyPicture, model: str = "auto") -> DepthMap:
    """Return the depth map of one picture: load, run, free. For many pictures keep a DepthEstimator."""
    with DepthEstimator(model) as estimator:
        return estimator.estimate(picture)
