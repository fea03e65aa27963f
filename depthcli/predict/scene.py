"""SceneEstimator: the pictures of one place in, a Scene out. A network for views, and the rules around it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np

from depthcli.backends import Backend, open_backend
from depthcli.camera import Camera, CameraSource
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.scenes import ViewsChoice
from depthcli.depthmap import DepthKind
from depthcli.errors import EngineError, Log, PictureError, StoppedError, UsageError, warn
from depthcli.geometry.gaussians import to_gaussians
from depthcli.geometry.given_poses import settle_given_poses
from depthcli.geometry.poses import normalised, rigid, square
from depthcli.geometry.ray_pose import cameras_of_rays
from depthcli.geometry.sim3 import IDENTITY, Sim3
from depthcli.host.memory import scene_bytes
from depthcli.io.cameras.files import read_cameras
from depthcli.io.cameras.posed import posed_camera
from depthcli.io.cameras.stored import StoredCamera
from depthcli.pixels.metric_scene import metres_of, metric_scene
from depthcli.pixels.preprocess import InputPlan
from depthcli.pixels.scene_input import Method, ViewPlan, cut_view, fit_view, normalise, plan_scene, plan_view
from depthcli.pixels.scene_output import network_intrinsics, scene_of, shows_picture
from depthcli.predict.model import Model, resolve_model
from depthcli.predict.picture import AnyPicture, open_picture
from depthcli.scene import Gaussians, Scene, View, check_pose
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import ModelTask, NestedConfig, ViewsConfig

DEFAULT_MODEL, METRIC_MODEL = "da3-base", "da3-metric"
FEWEST_VIEWS = 2
Cameras = Union[str, Path, Sequence[Union[Camera, StoredCamera]]]
_PADDED_RAY = 1e-6  # confidence of rays outside a picture


@dataclass(frozen=True, eq=False)
class ReadView:
    """A picture on its way into a scene, resized for the network and not yet of the size that all views share.

    name: of the view. size: (width, height) of the upright picture. fitted: (h, w, 3) uint8.
    """

    name: str
    size: tuple[int, int]
    fitted: np.ndarray


@dataclass(frozen=True)
class ScenePlan:
    """What the network will see. views: a plan per picture, of one input size. note: what is padded or cut, or ""."""

    views: tuple[ViewPlan, ...]
    note: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the network's input."""
        return self.views[0].size


@dataclass(frozen=True, eq=False)
class Described:
    """A scene and, from networks that give them, (N, C) descriptors: alike, by cosine, for views of one place."""

    scene: Scene
    descriptors: Optional[np.ndarray] = None


class SceneEstimator:
    """A loaded model for the views of scenes. Use it as a context manager, or call `close` to free the device.

    model: name of a zoo row, path of a checkpoint, a choice, or a resolved model; "auto" is da3-base.
    backend: name of a backend or a choice. views: how views go through the network.
    gaussians: ask a network that gives them, da3-giant or da3-nested, for Gaussian splats. features: keep what the
    last block of the network gives, which torch alone does.
    log: receives lines about downloads and padding; by default they are warnings of the logger "depthcli".
    Raises UsageError for a model of single pictures or clips.
    """

    def __init__(
        self,
        model: Union[str, ModelChoice, Model] = "auto",
        backend: Union[str, BackendChoice] = "auto",
        *,
        views: ViewsChoice = ViewsChoice(),
        gaussians: bool = False,
        features: bool = False,
        log: Log = warn,
    ) -> None:
        backend = BackendChoice(backend) if isinstance(backend, str) else backend
        if features and backend.backend == "auto":
            backend = replace(backend, backend="torch")
        offline = False
        if not isinstance(model, Model):
            choice = ModelChoice.of(model)
            offline = choice.offline
            if choice.is_automatic:
                choice = replace(choice, model=DEFAULT_MODEL)
            model = resolve_model(choice, log, backend=backend, tasks=(ModelTask.SCENE,))
        self.row, self.weights, self.views = model.row.with_input_size(views.input_size), model.weights, views
        check_scene_model(self.row.network, self.row.name, gaussians)
        self._gaussians, self._log = gaussians, log
        self._stop: Optional[Callable[[], bool]] = None
        self._last_block = _views_of(self.row.network).depth - 1 if features else None
        self._metric: Optional[Model] = None
        if views.metres and not self.row.kind.is_metric:
            metric = ModelChoice(model=METRIC_MODEL, offline=offline)
            self._metric = resolve_model(metric, log, backend=backend)
        if self.is_metric and views.align_to_input_scale:
            raise UsageError(f"{self.row.name} gives the scale, in metres", "leave out `align_to_input_scale`")
        self._backend: Backend = open_backend(self.row, self.weights, backend, model.trust, log)
        self._second: Optional[Backend] = None
        if self._metric is not None:
            self._second = open_backend(self._metric.row, self._metric.weights, backend, False, log)

    def stopped_by(self, stop: Callable[[], bool]) -> SceneEstimator:
        """Return this estimator with another rule for its end: closing either closes both.

        stop: asked again and again while the network runs; once it returns True, StoppedError is raised. Networks stop
        at their next layer.
        """
        other = copy.copy(self)
        other._stop = stop
        return other

    @property
    def is_metric(self) -> bool:
        """Whether scenes are in metres."""
        return self._metric is not None or self.row.kind.is_metric

    @property
    def kind(self) -> DepthKind:
        """Kind of the maps."""
        return DepthKind.METRIC_DEPTH if self.is_metric else DepthKind.RELATIVE_DEPTH

    @property
    def description(self) -> str:
        """Backend, version, device and precision."""
        return self._backend.traits.description

    def estimate(
        self,
        pictures: Sequence[AnyPicture],
        cameras: Optional[Cameras] = None,
        names: Optional[Sequence[str]] = None,
    ) -> Scene:
        """Return the scene of at least two pictures, each map at the size of the network's input.

        pictures: paths, bytes of files, or (H, W, 3) uint8 RGB. cameras: known ones with poses, one per picture in
        their order, or a COLMAP folder, a transforms.json, a cameras.json or an NPZ file that names the pictures.
        names: of the views, relative paths with slashes; by default those of the files.

        Depth is along the optical axis, larger is farther, in metres if `is_metric`, else in the unit of the given
        cameras, else up to one scale. Raises UsageError for fewer pictures and unfit cameras, PictureError for one that
        cannot be read, for views that exceed the memory, and for metres of nothing but sky, EngineError if the network
        finds no depth.
        """
        if names is None:
            names = names_of(pictures)
        views = [self.read(picture, name) for picture, name in zip(pictures, names)]
        return self.run(views, cameras)

    def read(self, picture: AnyPicture, name: str) -> ReadView:
        """Return a picture ready for `run`; only its small form is kept. Raises PictureError."""
        opened = open_picture(picture)
        plan = plan_view(opened.size, self.row.input_size, Method(self.views.resize))
        return ReadView(name, opened.size, fit_view(opened.rgb, plan))

    def plan(self, sizes: Sequence[tuple[int, int]], fewest: int = FEWEST_VIEWS) -> ScenePlan:
        """Return the plan for pictures of (width, height). Raises UsageError for less than the fewest, PictureError for
        too many.
        """
        check_count(len(sizes), fewest)
        plans, note = plan_scene(sizes, self.row.input_size, Method(self.views.resize), self.views.mixed == "pad")
        self._backend.check(self._input_plan(plans[0].size), len(plans), self._further)
        return ScenePlan(plans, note)

    def memory(self, plan: ScenePlan) -> int:
        """Return the bytes that the network is predicted to take beside its weights."""
        return scene_bytes(self.row.network, self._input_plan(plan.size), len(plan.views), further=self._further)

    @property
    def _further(self) -> tuple[str, ...]:
        """Answers of the network beside depth, confidence and cameras."""
        asked = {"rays": self.views.ray_pose, "gaussians": self._gaussians}
        return tuple(name for name, is_asked in asked.items() if is_asked)

    def _input_plan(self, size: tuple[int, int]) -> InputPlan:
        return InputPlan(size, size, policy=self.row.input)

    def run(self, views: Sequence[ReadView], cameras: Optional[Cameras] = None, fewest: int = FEWEST_VIEWS) -> Scene:
        """Return the scene of views that were read; see `estimate`."""
        return self.run_described(views, cameras, fewest).scene

    def run_described(
        self, views: Sequence[ReadView], cameras: Optional[Cameras] = None, fewest: int = FEWEST_VIEWS
    ) -> Described:
        """Return the scene of views that were read, with what tells views of one place; see `estimate`."""
        plan = self.plan([view.size for view in views], fewest)
        if plan.note:
            self._log(plan.note)
        poses = None if cameras is None else poses_alone(cameras)
        given = None
        if cameras is not None and poses is None:
            given = given_cameras(cameras, [(view.name, view.size) for view in views])
        pixels = [cut_view(view.fitted, one) for view, one in zip(views, plan.views)]
        return self._run([(view.name, view.size) for view in views], pixels, plan, given, poses)

    def run_again(self, views: Sequence[View]) -> Scene:
        """Return a scene of views of other scenes, by their pictures, which were the network's input then."""
        plan = self.plan([view.picture_size for view in views])
        pixels = [view.picture for view in views if view.picture is not None]
        return self._run([(view.name, view.picture_size) for view in views], pixels, plan, None).scene

    def _run(
        self,
        views: Sequence[tuple[str, tuple[int, int]]],
        pixels: Sequence[np.ndarray],
        plan: ScenePlan,
        given: Optional[list[Camera]],
        poses: Optional[np.ndarray] = None,
    ) -> Described:
        """Run the network. views: name and (width, height) of each picture. pixels: (H, W, 3) uint8 inputs.

        given: cameras that the network is told. poses: (N, 3, 4) without cameras, to whose world the scene is brought.
        """
        images = np.stack([normalise(view) for view in pixels])
        answers = dict(self._backend.run(self._inputs(images, plan, given), "views"))
        if not np.isfinite(answers["depth"]).any():
            raise EngineError("the network answered no numbers", "use `precision` fp32, or another checkpoint")
        inside = np.stack([shows_picture(one) for one in plan.views])
        raw = (answers["depth"], answers["extrinsics"], answers["intrinsics"])
        if self.views.ray_pose:
            self._from_rays(answers, inside, plan.size)
        answers["extrinsics"] = rigid(answers["extrinsics"])
        names = [name for name, _ in views]
        facts = self._facts(answers, names, given)
        moved = self._in_metres(answers, images, inside, facts)
        if given is not None:
            moved = self._settle(answers, np.stack([_pose(camera) for camera in given]), facts) @ moved
            answers["intrinsics"] = np.stack([network_intrinsics(one, view) for one, view in zip(given, plan.views)])
        elif poses is not None:
            facts.update(cameras="given poses", reference=None)
            moved = self._settle(answers, poses, facts) @ moved
        scene = scene_of(
            answers,
            plan.views,
            names,
            pixels,
            self.kind,
            CameraSource.PREDICTED if given is None else CameraSource.GIVEN,
            provenance_of(self.row, self.weights, self.description),
            facts,
            _moved_gaussians(answers["gaussians"], *raw, moved) if "gaussians" in answers else None,
            answers.get(f"features_{self._last_block}"),
        )
        return Described(scene, answers.get("descriptors"))

    def _inputs(self, images: np.ndarray, plan: ScenePlan, given: Optional[Sequence[Camera]]) -> dict[str, Any]:
        inputs: dict[str, Any] = {"image": images, "reference": self.views.reference}
        inputs.update(dict.fromkeys(self._further, True))
        if self._last_block is not None:
            inputs["features"] = (self._last_block,)
        if self._stop is not None:
            inputs["stop"] = self._stop
        if given is not None:
            inputs["extrinsics"] = normalised(np.stack([_pose(camera) for camera in given])).astype(np.float32)
            inputs["intrinsics"] = np.stack([network_intrinsics(one, view) for one, view in zip(given, plan.views)])
        return inputs

    def _from_rays(self, answers: dict[str, np.ndarray], inside: np.ndarray, size: tuple[int, int]) -> None:
        """Replace the cameras of the answers by those that the rays give."""
        confidence = answers["ray_confidence"]
        rows, columns = confidence.shape[1:]
        across = np.arange(columns) * inside.shape[2] // columns
        there = inside[:, (np.arange(rows) * inside.shape[1] // rows)[:, None], across]
        confidence = np.where(there, confidence, _PADDED_RAY)
        try:
            found = cameras_of_rays(answers["rays"], confidence, size, self.views.seed)
        except ValueError as error:
            raise EngineError(f"the network's rays give no cameras: {error}", "leave out `ray_pose`") from error
        answers["extrinsics"], answers["intrinsics"] = found.extrinsics, found.intrinsics

    def _in_metres(
        self, answers: dict[str, np.ndarray], images: np.ndarray, inside: np.ndarray, facts: dict[str, Any]
    ) -> Sim3:
        """Bring the answers to metres, if there is a metric network; return the transform from before."""
        if not self.is_metric:
            return IDENTITY
        if self._second is not None:
            found = [self._metric_answer(image) for image in images]
            answers["metric_depth"], answers["sky"] = (
                np.concatenate([one[name] for one in found]) for name in ("depth", "sky")
            )
        sky = np.where(inside, answers["sky"], np.float32(1))  # padding gives no scale
        metric = metres_of(answers["metric_depth"], answers["intrinsics"])
        try:
            scaled = metric_scene(answers["depth"], answers["confidence"], metric, sky)
        except ValueError as error:
            way_out = "leave out `metres`" if self._metric else "use `model` da3-giant"
            raise PictureError(f"the scene has no scale in metres: {error}", way_out) from error
        answers["depth"], answers["confidence"] = scaled.depth, scaled.confidence
        answers["extrinsics"][:, :, 3] *= scaled.scale
        second = {"model": self._metric.row.name, "weights_sha256": self._metric.weights.sha256} if self._metric else {}
        facts["metres"] = {**second, "scale": scaled.scale}
        return Sim3(scaled.scale, np.eye(3), np.zeros(3))

    def _metric_answer(self, image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return what the metric network answers for one view."""
        assert self._second is not None
        if self._stop is not None and self._stop():
            raise StoppedError
        return self._second.run({"image": image[None]})

    def _settle(self, answers: dict[str, np.ndarray], poses: np.ndarray, facts: dict[str, Any]) -> Sim3:
        """Replace the poses by given ones, in one world with the depth; return the transform from before."""
        theirs = self.views.align_to_input_scale
        keep = not self.is_metric if theirs is None else theirs
        settled = settle_given_poses(answers["depth"], answers["extrinsics"], poses, keep)
        answers["depth"], answers["extrinsics"] = settled.depth, settled.extrinsics
        facts["world"] = "given" if keep else "network"
        facts["scale_of_given"] = settled.transform.scale
        return settled.transform.inverse() if keep else IDENTITY

    def _facts(
        self, answers: Mapping[str, np.ndarray], names: Sequence[str], given: Optional[Sequence[Camera]]
    ) -> dict[str, Any]:
        return {
            "model": self.row.name,
            "weights_sha256": self.weights.sha256,
            "backend": self.description,
            "cameras": "given" if given is not None else "rays" if self.views.ray_pose else "predicted",
            "reference": names[int(answers["reference"])] if "reference" in answers and given is None else None,
            **{name: value for name, value in self.views.settings.items() if value is not None},
        }

    def close(self) -> None:
        """Free the device."""
        for backend in (self._backend, self._second):
            if backend is not None:
                backend.close()

    def __enter__(self) -> SceneEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def estimate_scene(
    pictures: Sequence[AnyPicture],
    cameras: Optional[Cameras] = None,
    model: Union[str, ModelChoice] = "auto",
    backend: Union[str, BackendChoice] = "auto",
    views: ViewsChoice = ViewsChoice(),
) -> Scene:
    """Return the scene of several pictures of one place: load, run, free. See `SceneEstimator.estimate`."""
    check_count(len(pictures))
    with SceneEstimator(model, backend, views=views) as estimator:
        return estimator.estimate(pictures, cameras)


def check_count(count: int, fewest: int = FEWEST_VIEWS) -> None:
    """Raise UsageError for fewer views than have poses, or than `fewest`: a clip may have one, which is the world."""
    if count < fewest:
        what = "one picture has no pose" if count else "there is no picture"
        raise UsageError(f"{what}: a scene takes at least {FEWEST_VIEWS} views", "use: depth image")


def check_scene_model(network: object, name: str, gaussians: bool) -> None:
    """Raise UsageError if Gaussians are wanted of a network without them."""
    if gaussians and not _views_of(network).gaussians:
        raise UsageError(f"{name} gives no Gaussians, which gs_ply holds", "use `model` da3-giant or da3-nested")


def _views_of(network: object) -> ViewsConfig:
    """Return the network for views, which may be a part of another."""
    views = network.views if isinstance(network, NestedConfig) else network
    assert isinstance(views, ViewsConfig)
    return views


def names_of(pictures: Sequence[AnyPicture]) -> list[str]:
    """Return a name for each view: that of its file, with folders if two are the same; 0000.png for arrays."""
    paths = [Path(picture) if isinstance(picture, (str, Path)) else None for picture in pictures]
    names = [f"{number:04d}.png" if path is None else path.name for number, path in enumerate(paths)]
    if len(set(names)) < len(names):
        names = [
            name if path is None else path.as_posix().lstrip("/").replace("../", "") for name, path in zip(names, paths)
        ]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UsageError(f"{doubled} is named twice")
    return names


def given_cameras(cameras: Cameras, pictures: Sequence[tuple[str, tuple[int, int]]]) -> list[Camera]:
    """Return the given camera of each picture, at its size and with its pose.

    pictures: name and (width, height) of each. Raises UsageError as `posed_camera`, and if one has no camera.
    """
    if isinstance(cameras, (str, Path)):
        file = read_cameras(Path(cameras))
        found = [file.of_picture(name) for name, _ in pictures]
        missing = next((name for (name, _), one in zip(pictures, found) if one is None or not one.name), None)
        if missing is not None:
            raise UsageError(f"{cameras} has no camera of {missing}", "each view needs one")
        cameras = [one for one in found if one is not None]
    if len(cameras) != len(pictures):
        raise UsageError(f"{len(cameras)} cameras were given for {len(pictures)} pictures", "each view needs one")
    return [posed_camera(_stored(one, name, size), size) for one, (name, size) in zip(cameras, pictures)]


def poses_alone(cameras: Cameras) -> Optional[np.ndarray]:
    """Return the (N, 3, 4) poses of given cameras that have no intrinsics; None if one has some, or a file has them.

    Raises UsageError for a pose that is no rotation.
    """
    if isinstance(cameras, (str, Path)):
        return None
    poses = []
    for one in cameras:
        if not isinstance(one, StoredCamera) or one.camera is not None or one.view is not None or one.pose is None:
            return None
        try:
            check_pose(one.pose, one.name or "a pose")
        except ValueError as error:
            raise UsageError(str(error), "poses are world to camera with OpenCV's axes") from error
        poses.append(one.pose[:3])
    return np.stack(poses)


def _stored(camera: Union[Camera, StoredCamera], name: str, size: tuple[int, int]) -> StoredCamera:
    if isinstance(camera, StoredCamera):
        return camera
    return StoredCamera(replace(camera, extrinsics=None), size, name, pose=camera.extrinsics)


def _pose(camera: Camera) -> np.ndarray:
    assert camera.extrinsics is not None
    return camera.extrinsics


def _moved_gaussians(
    raw: np.ndarray, depth: np.ndarray, extrinsics: np.ndarray, intrinsics: np.ndarray, moved: Sim3
) -> Gaussians:
    """Return the Gaussians of the network's own answer, moved with its world. moved: the transform."""
    poses = moved.extrinsics(extrinsics[:, :3])
    poses[:, :, 3] /= moved.scale  # the size of the network's world, which the offsets of Gaussians are in
    found = to_gaussians(raw, depth, square(poses), intrinsics)
    return replace(
        found,
        means=(found.means * moved.scale).astype(np.float32),
        scales=(found.scales * moved.scale).astype(np.float32),
    )
