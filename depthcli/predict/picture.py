"""DepthEstimator: pictures in, DepthMaps out. A model, a backend, and the processing before and after them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import numpy as np

from depthcli.backends import Backend, open_backend, pick_backend, remembered_backend
from depthcli.camera import CameraSource
from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import MetresChoice
from depthcli.choices.model import DETAILS, BackendChoice, ModelChoice
from depthcli.choices.settings import check_input_size, require
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import DeviceLostError, Log, PictureError, UsageError, warn
from depthcli.host.memory import check_picture, free_memory
from depthcli.io.pictures.images import Picture, read_picture
from depthcli.pixels.edges import follow_edges
from depthcli.pixels.postprocess import (
    Answer,
    answer_of,
    depth_map,
    in_metres,
    in_unit,
    nearest_answer,
    picture_map,
    picture_sky,
    to_depth_map,
)
from depthcli.pixels.preprocess import InputPlan, plan_input, to_network_input
from depthcli.pixels.tiles import LEVELS, plan_levels
from depthcli.predict.detail import NEAREST, OFF, TILES, add_tiles
from depthcli.predict.early import EarlyBackend
from depthcli.predict.model import Model, resolve_model
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import with_max_depth

if TYPE_CHECKING:
    from depthcli.io.cameras.pictures import GivenCameras
    from depthcli.predict.clip_metres import ClipMetres
    from depthcli.predict.metres import Metres

CROPPED = (
    "was cropped after it was taken: its focal length is that of the whole picture, and the middle is a guess"
    " (`intrinsics` gives both)"
)
NO_FOCAL = "no focal length is known, so depth is relative (`focal`, `fov`, `f35` or `intrinsics` gives metres)"
AnyPicture = Union[str, Path, bytes, np.ndarray, Picture]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture on its way through the network. image: (3, H, W) float32, normalised."""

    picture: Picture
    plan: InputPlan
    image: np.ndarray


class DepthEstimator:
    """A loaded model. Use it as a context manager, or call `close` to free the device. Threads may share one.

    model: name of a zoo row, path of a checkpoint, "auto", a choice, or a resolved model.
    backend: name of a backend or a choice. input_size: length of the network input's shorter side in pixels, None for
    the model's own. panorama: join the left and right edges of the pictures. detail: for pictures larger than the
    network's input: off, edges (depth edges where the photo has its own), tiles (the network also sees tiles of the
    picture; then edges) or nearest (no number that the network did not give). camera: of the pictures, in place of what
    their EXIF says. metres: how maps become metres; with it, `max_depth` of a relative model is the depth beyond which
    pixels become invalid.
    log: receives lines about downloads and fallbacks; by default they are warnings of the logger "depthcli".
    early: a backend that is opening, taken if it is the one that is wanted.
    remembered: the backend that was taken because it was measured as the fastest here, see `remembered_backend`.
    chosen: the backend's choice, with the name that `auto` stands for.
    """

    def __init__(
        self,
        model: Union[str, ModelChoice, Model] = "auto",
        backend: Union[str, BackendChoice] = "auto",
        *,
        input_size: Optional[int] = None,
        panorama: bool = False,
        detail: str = OFF,
        camera: CameraChoice = CameraChoice(),
        metres: MetresChoice = MetresChoice(),
        log: Log = warn,
        early: Optional[EarlyBackend] = None,
    ) -> None:
        # All are checked before a download.
        backend = BackendChoice(backend) if isinstance(backend, str) else backend
        check_input_size(input_size)
        require("detail", detail, DETAILS)
        self._cameras = open_cameras(camera, panorama)
        self._metres = open_metres(metres, panorama)
        if not isinstance(model, Model):
            model = self._resolved(ModelChoice.of(model), log, backend)
        self.row, self.weights = model.row.with_input_size(input_size), model.weights
        self._panorama, self.detail = panorama, detail
        self._running = threading.Lock()
        self._shared = False  # the backend belongs to another estimator
        self._proven = False  # whether an output was not flat
        self.remembered = remembered_backend(backend, self.row)
        if self.remembered:
            backend = replace(backend, backend=self.remembered)
        self.chosen = replace(backend, backend=pick_backend(backend)) if backend.backend == "auto" else backend
        arguments = self.row, self.weights, self.chosen, model.trust
        opened = early.take(*arguments) if early else None
        self._backend: Backend = opened or open_backend(*arguments, log)

    def _resolved(self, choice: ModelChoice, log: Log, backend: BackendChoice) -> Model:
        """Return the model. `max_depth` belongs to a metric one; of a relative one it limits the metres made of it."""
        if self._metres is None or choice.max_depth is None:
            return resolve_model(choice, log, backend=backend)
        model = resolve_model(replace(choice, max_depth=None), log, backend=backend)
        if model.row.kind.is_metric:
            return replace(model, row=with_max_depth(model.row, choice.max_depth))
        self._metres = self._metres.up_to(choice.max_depth)
        return model

    def variant(
        self,
        *,
        input_size: Optional[int] = None,
        panorama: bool = False,
        detail: str = OFF,
        camera: CameraChoice = CameraChoice(),
        metres: MetresChoice = MetresChoice(),
    ) -> DepthEstimator:
        """Return an estimator with other options and the same network. Closing it frees nothing.

        input_size: None for that of this estimator. The others are those of the class. Raises UsageError.
        """
        check_input_size(input_size)
        require("detail", detail, DETAILS)
        other = copy.copy(self)
        other._shared = True
        other._cameras, other._metres = open_cameras(camera, panorama), open_metres(metres, panorama)
        other._panorama, other.detail = panorama, detail
        other.row = self.row.with_input_size(input_size)
        return other

    @property
    def kind(self) -> DepthKind:
        """Kind of the maps: metric if metres are made; references without a unit are told with the first map."""
        return self.row.kind if self._metres is None else DepthKind.METRIC_DEPTH

    @property
    def input_size(self) -> int:
        """Length of the shorter side of the network's input in pixels."""
        return self.row.input_size

    @property
    def best_batch(self) -> int:
        """Pictures per run that keep the device busy; mostly 1, as more only take memory."""
        return self._backend.traits.best_batch

    @property
    def description(self) -> str:
        """Backend, version, device and precision."""
        return self._backend.traits.description

    @property
    def runs_on_cpu(self) -> bool:
        """Whether the network runs on the CPU."""
        return self._backend.traits.device == "cpu"

    @property
    def mixes_sizes(self) -> bool:
        """Whether a run may hold pictures of different input sizes."""
        return self._backend.traits.mixes_sizes

    def estimate(self, picture: AnyPicture) -> DepthMap:
        """Return the depth map of one picture, at the size of the upright picture.

        picture: path, bytes of a file, or (H, W, 3) uint8 RGB or (H, W) uint8 gray.
        Raises PictureError if it cannot be read or is too large for the memory.
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
    # called from any thread; the network runs for one caller at a time.

    def prepare(self, picture: Picture) -> Prepared:
        """Return the picture with its camera, and the network's input. Raises as `plan`, and UsageError."""
        plan = self.plan((picture.rgb.shape[1], picture.rgb.shape[0]))
        picture = self._with_camera(picture)
        if self.row.canonical_focal is not None and picture.camera is None:
            picture = replace(picture, warnings=(*picture.warnings, NO_FOCAL))
        picture = replace(picture, notes=(*picture.notes, *plan.notes, *self._tile_notes(plan)))
        return Prepared(picture, plan, to_network_input(picture.rgb, plan))

    def _with_camera(self, picture: Picture) -> Picture:
        if self._panorama:  # which no pinhole sees
            return replace(picture, camera=None)
        if self._cameras is not None:
            return self._cameras.given_to(picture)
        if picture.camera is not None and picture.camera.source is CameraSource.EXIF_CROPPED:
            return replace(picture, warnings=(*picture.warnings, CROPPED))
        return picture

    def run(self, batch: Sequence[Prepared], recheck: bool = False) -> Sequence[Answer]:
        """Return the network's answers for pictures of one input size; but see `mixes_sizes`.

        With tiles, they are the maps of the pictures that the outputs of all tiles make.
        recheck: check the free memory for a single picture too; `prepare` did it, perhaps some time ago.
        Raises DeviceLostError if the network's output is the same for everything, as with broken weights, and
        PictureError for a batch that exceeds the memory.
        """
        if self.mixes_sizes:
            outputs = self._run([item.image for item in batch])
        else:
            if len({item.plan.input_size for item in batch}) != 1:
                raise ValueError("the pictures of a batch need one input size")
            if len(batch) > 1 or recheck:
                self._backend.check(batch[0].plan, len(batch))
            outputs = self._run(np.stack([item.image for item in batch]))
        if not self._proven:
            self._prove(batch[0].image, outputs[0].depth)
        if self.detail == TILES:
            return [self._add_tiles(item, answer) for item, answer in zip(batch, outputs)]
        return outputs

    def _add_tiles(self, prepared: Prepared, answer: Answer) -> Answer:
        """Return the picture's map with the detail of its tiles."""
        plan, row = prepared.plan, self.row

        def run(images: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [in_unit(found.depth, row) for found in self._run(np.stack(images))]

        base = picture_map(answer.depth, plan, row)
        shift = row.kind is DepthKind.RELATIVE_DISPARITY
        return replace(answer, depth=add_tiles(base, prepared.picture.rgb, plan, run, self.best_batch, shift=shift))

    def _tile_notes(self, plan: InputPlan) -> tuple[str, ...]:
        """Return what a user should know about the tiles of a picture."""
        if self.detail != TILES:
            return ()
        levels = plan_levels(plan)
        if not levels:
            return ("too small for tiles: edges only",)
        return (f"{sum(level.tiles for level in levels)} tiles, up to {LEVELS[len(levels) - 1]} times finer",)

    def finish(self, prepared: Prepared, answer: Answer) -> DepthMap:
        """Return the depth map at the picture's size for the network's answer. Raises UsageError for metres."""
        picture, plan = prepared.picture, prepared.plan
        answer, row = in_metres(answer, self.row, plan, picture.camera)
        source = Path(picture.name).name
        provenance = provenance_of(
            row, self.weights, self.description, plan.input_size, source, panorama=plan.wrapped > 0
        )
        if self.detail == NEAREST:
            provenance = replace(provenance, detail=NEAREST)
            values, sky = nearest_answer(answer, plan, row)
            depth = depth_map(values, row, provenance, picture.valid, picture.camera, sky)
            return depth if self._metres is None else self._metres.applied(depth, picture.name)
        sky = picture_sky(answer, plan)
        if self.detail != OFF:
            values = answer.depth if self.detail == TILES else picture_map(answer.depth, plan, row)
            values = follow_edges(values, picture.rgb, plan.wrapped > 0)
            provenance = replace(provenance, detail=self.detail)
            depth = depth_map(values, row, provenance, picture.valid, picture.camera, sky)
        else:
            depth = to_depth_map(answer.depth, plan, row, provenance, picture.valid, picture.camera, sky)
        return depth if self._metres is None else self._metres.applied(depth, picture.name)

    def _run(self, images: Union[np.ndarray, list[np.ndarray]]) -> list[Answer]:
        with self._running:
            outputs = self._backend.run({"image": images})
        return [answer_of(self.row, *arrays) for arrays in zip(*(outputs[name] for name in self.row.outputs))]

    def _prove(self, image: np.ndarray, output: np.ndarray) -> None:
        """Raise DeviceLostError if this output and that of a picture full of detail are flat; a wall may be."""
        if output.size > 1 and np.ptp(output) == 0:
            probe = np.random.default_rng(0).standard_normal(image.shape).astype(np.float32)
            probe += np.linspace(-2, 2, image.shape[1], dtype=np.float32)[:, None]
            if not np.ptp(self._run(probe[None])[0].depth):
                raise DeviceLostError(
                    f"{self.row.name} gives the same value for every pixel of every picture, on {self.description}",
                    "download the weights again, or try another `backend`",
                )
        self._proven = True

    def close(self) -> None:
        """Free the device."""
        if not self._shared:
            self._backend.close()

    def __enter__(self) -> DepthEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_cameras(camera: CameraChoice, panorama: bool) -> Optional[GivenCameras]:
    """Return the cameras of a choice, None without one. Raises UsageError for a file that holds none."""
    if not camera.is_given:
        return None
    if panorama:
        raise UsageError("a `panorama` has no focal length", "leave out `intrinsics`, `focal`, `fov` and `f35`")
    from depthcli.io.cameras.pictures import GivenCameras

    return GivenCameras(camera)


def open_metres(choice: MetresChoice, panorama: bool = False) -> Optional[Metres]:
    """Return what makes metres of maps, None if they stay as they are. Raises UsageError for files without metres."""
    if not choice.is_given:
        return None
    _check_flat(choice, panorama)
    from depthcli.predict.metres import Metres

    return Metres(choice)


def open_clip_metres(choice: MetresChoice, panorama: bool = False) -> Optional[ClipMetres]:
    """Return what makes metres of clips; as `open_metres`."""
    if not choice.is_given:
        return None
    _check_flat(choice, panorama)
    from depthcli.predict.clip_metres import ClipMetres

    return ClipMetres(choice)


def _check_flat(choice: MetresChoice, panorama: bool) -> None:
    if panorama and choice.scale_from:
        raise UsageError("a `panorama` has no optical axis to measure along", "leave out `scale_from`")


def open_picture(picture: AnyPicture) -> Picture:
    """Return a Picture for a path, the bytes of a file, or an array (H, W, 3) RGB or (H, W) gray, uint8."""
    if isinstance(picture, Picture):
        return picture
    if isinstance(picture, np.ndarray):
        gray = picture.ndim == 2
        if picture.dtype != np.uint8 or not picture.size or not (gray or picture.shape[2:] == (3,)):
            message = f"an array of {picture.dtype} {picture.shape} is not a picture"
            raise PictureError(message, "give uint8 (H, W, 3) RGB or (H, W)")
        rgb = np.repeat(picture[..., None], 3, axis=2) if gray else np.ascontiguousarray(picture)
        return Picture(rgb, "array", ())
    return read_picture(picture)


def estimate(
    picture: AnyPicture,
    model: Union[str, ModelChoice] = "auto",
    detail: str = OFF,
    camera: CameraChoice = CameraChoice(),
    metres: MetresChoice = MetresChoice(),
) -> DepthMap:
    """Return the depth map of one picture: load, run, free. For many pictures keep a DepthEstimator.

    detail: off, edges, tiles or nearest, for large pictures. camera: of the picture, in place of what its EXIF says.
    metres: how a relative map becomes metres, by what was measured in the picture.
    """
    with DepthEstimator(model, detail=detail, camera=camera, metres=metres) as estimator:
        return estimator.estimate(picture)
