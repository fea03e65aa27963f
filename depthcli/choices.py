"""What a user can choose, as frozen values: the same for the command line, a service and a cluster.

None and "auto" mean: choose for me. A choice checks itself when it is made, raises UsageError, and can be pickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.errors import UsageError

MIN_INPUT_SIZE = 14  # pixels: one patch
BACKENDS = ("torch", "openvino", "onnx", "torchscript", "neuron")
# These run networks that were compiled before, instead of checkpoints.
COMPILED_BACKENDS = ("torchscript", "neuron")
PRECISIONS = ("auto", "exact", "fp32", "bf16", "fp16", "int8")
SHAPE_POLICIES = ("strict", "stretch")
STEADY = ("auto", "on", "off")
DETAILS = ("off", "edges", "tiles", "nearest")
COLORMAPS = ("Spectral", "gray", "cividis", "inferno", "magma", "plasma", "turbo", "viridis")  # each also with _r
DEFAULT_COLORMAP = "Spectral_r"
IF_EXISTS = ("skip", "overwrite", "error")
FITS = ("auto", "scale", "line", "isotonic")
KINDS = ("relative_disparity", "relative_depth", "metric_depth")
DEPTH_IS = ("z", "ray")
AXES = ("opencv", "opengl", "zup")
MOST_MESH_SIZE = 1 << 14  # vertices along a side: 268 million of them take 8 GB
LAYOUTS = (
    "sbs",
    "half-sbs",
    "ou",
    "half-ou",
    "cross",
    "anaglyph",
    "anaglyph-gray",
    "anaglyph-color",
    "anaglyph-half-color",
    "vr180",
    "pair",
    "rgbd",
)
VIEWS = ("both", "left", "right")
FILLS = ("stretch", "edge", "telea")
BORDERS = ("crop", "stretch")
OFFLOADS = ("none", "model", "sequential")
LATENT_MULTIPLE = 64  # pixels: sides of a diffusion model's input are multiples of it
MOST_STEPS, MOST_RES = 1000, 8192
OBJECT_FILES = ("json", "overlay", "masks", "mattes", "exr")
OBJECT_ORDERS = ("distance", "score", "area", "label")
COMFORT = 4.0  # percent of the width: more parallax is hard to look at
MOST_STRENGTH = 20.0
REFERENCES = ("saddle_balanced", "saddle_sim_range", "first", "middle")
RESIZES = ("upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop")
MIXED = ("pad", "cut")


@dataclass(frozen=True)
class ModelChoice:
    """Which model.

    model: name of a zoo row or path of a checkpoint. encoder: vits, vitb, vitl, vitg, tiny or auto.
    metric: indoor or outdoor. checkpoint: file to load instead of looking for one. max_depth: largest depth of a metric
    model, metres. offline: never download. trust: read a pickle that this torch cannot read safely.
    accept_licence: of a model that may be used for some purposes only; it is remembered.
    """

    model: Optional[str] = None
    encoder: str = "auto"
    metric: Optional[str] = None
    checkpoint: Optional[Path] = None
    max_depth: Optional[float] = None
    offline: bool = False
    trust: bool = False
    accept_licence: bool = False

    @classmethod
    def of(cls, model: Union[str, ModelChoice]) -> ModelChoice:
        """Return the choice that a name, a path or "auto" stands for; a choice stands for itself."""
        if isinstance(model, ModelChoice):
            return model
        return cls() if model == "auto" else cls(model=model)

    @property
    def is_automatic(self) -> bool:
        """Whether no model was chosen."""
        return self.encoder == "auto" and not (self.model or self.metric or self.checkpoint)


@dataclass(frozen=True)
class BackendChoice:
    """What runs the network.

    backend: auto or one of BACKENDS. device: auto, cpu, cuda, cuda:N or mps.
    precision: one of PRECISIONS. auto is the fastest whose answers stay within a few thousandths of the map's range:
    bf16 on a CPU that computes it, else fp32; exact is float32 in torch, as the reference computes it.
    calibration: folder of pictures to choose the steps of int8 by; None takes those chosen before.
    artifacts: compiled network, or a folder of them; None takes those beside the checkpoints.
    shape_policy: one of SHAPE_POLICIES, for a picture whose size was not compiled.
    allow_standin: run networks that only simulate one of AWS's chips.
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    calibration: Optional[Path] = None
    artifacts: Optional[Path] = None
    shape_policy: str = "strict"
    allow_standin: bool = False

    def __post_init__(self) -> None:
        require("backend", self.backend, ("auto", *BACKENDS))
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            raise UsageError(f"unknown `device` {self.device!r}", "choose from: auto, cpu, cuda, cuda:N, mps")
        require("precision", self.precision, PRECISIONS)
        if self.calibration is not None and self.precision != "int8":
            raise UsageError("`calibration` needs `precision` int8", "leave it out, or set `precision` to int8")
        require("shape_policy", self.shape_policy, SHAPE_POLICIES)
        if not self.runs_compiled and (self.artifacts is not None or self.shape_policy != "strict"):
            name = "artifacts" if self.artifacts else "shape_policy"
            backends = " or ".join(COMPILED_BACKENDS)
            raise UsageError(f"`{name}` needs a compiled network", f"leave it out, or set `backend` to {backends}")
        if self.allow_standin and self.backend != "neuron":
            raise UsageError("`allow_standin` needs `backend` neuron", "leave it out")

    @property
    def runs_compiled(self) -> bool:
        """Whether the backend runs compiled networks instead of checkpoints."""
        return self.backend in COMPILED_BACKENDS


@dataclass(frozen=True)
class DiffusionChoice:
    """How a diffusion model makes the depth of a clip; the defaults are those it was published with.

    steps: of denoising. window: frames that are denoised at once. overlap: frames that two windows share; 0 for windows
    that know nothing of each other. guidance: 1 for none; more runs the network twice a step. seed: of the noise.
    max_res: bound of the network input's longer side, pixels. cpu_offload: one of OFFLOADS, what stays in the memory of
    the host while another part runs on the GPU.
    """

    steps: int = 5
    window: int = 110
    overlap: int = 25
    guidance: float = 1.0
    seed: int = 42
    max_res: int = 1024
    cpu_offload: str = "none"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("window", 1), ("overlap", 0), ("seed", 0), ("max_res", LATENT_MULTIPLE)):
            if getattr(self, name) < least:
                raise UsageError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        for name, most in (("steps", MOST_STEPS), ("seed", (1 << 64) - 1), ("max_res", MOST_RES)):
            if getattr(self, name) > most:
                raise UsageError(f"`{name}` must be at most {most}, got {getattr(self, name)}")
        if self.overlap >= self.window:
            raise UsageError(
                f"`overlap` must be less than `window`, got {self.overlap} of {self.window}", "25 of 110 are usual"
            )
        if not 1 <= self.guidance < math.inf:
            raise UsageError(f"`guidance` must be 1 (none) or more, got {self.guidance:g}")
        require("cpu_offload", self.cpu_offload, OFFLOADS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape depth, by the names that results note."""
        return {
            "steps": self.steps,
            "window": self.window,
            "overlap": self.overlap,
            "guidance": self.guidance,
            "seed": self.seed,
            "max-res": self.max_res,
        }


@dataclass(frozen=True)
class ClipChoice:
    """How a clip is processed, excluding the model.

    steady: "auto" takes a video model if its weights are here or can be downloaded, else the filter; "on" takes the
    filter behind a picture model; "off" keeps every frame as the picture model answers it.
    exact: align a video model's windows with the official code's arithmetic, at the size of the frames. For
    DepthCrafter the clip job writes the files of the official code; its numbers are the official ones anyway.
    input_size: length of the network input's shorter side in pixels, None for the model's own.
    batch: frames that share a run of a picture model; of a model for scenes, which takes 16 if it is 1.
    panorama: join the left and right edges of the frames.
    scenes: find cuts, and process each shot alone. diffusion: for a diffusion model.
    """

    steady: str = "auto"
    exact: bool = False
    input_size: Optional[int] = None
    backend: BackendChoice = field(default_factory=BackendChoice)
    batch: int = 1
    panorama: bool = False
    scenes: bool = True
    diffusion: DiffusionChoice = field(default_factory=DiffusionChoice)

    def __post_init__(self) -> None:
        check_batch(self.batch)
        check_input_size(self.input_size)
        require("steady", self.steady, STEADY)
        if self.exact and self.steady != "auto":
            raise UsageError("`exact` needs a video model", "leave out `steady`")
        if self.exact and self.panorama:
            raise UsageError("`exact` repeats the official script, which has no `panorama`", "leave out one of them")


@dataclass(frozen=True)
class CameraChoice:
    """The camera of the pictures, for those who know more than EXIF; at most one of these.

    intrinsics: a calibration file, a COLMAP folder, or the text fx,fy,cx,cy in pixels of the upright picture.
    focal: focal length in pixels of the whole picture. f35: in millimetres of 35 mm film, by the diagonal.
    fov: angle of view in degrees across the upright picture: 60, v:45 for its height, d:75 for its diagonal.
    """

    intrinsics: Optional[Union[str, Path]] = None
    focal: Optional[float] = None
    fov: Optional[str] = None
    f35: Optional[float] = None

    def __post_init__(self) -> None:
        given = [name for name in ("intrinsics", "focal", "fov", "f35") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name, unit in (("focal", "pixels"), ("f35", "millimetres")):
            length = getattr(self, name)
            if length is not None and not 0 < length < math.inf:
                raise UsageError(f"`{name}` must be more than 0 {unit}, got {length:g}")
        _ = self.view, self.inline  # raise for texts that make no sense

    @property
    def is_given(self) -> bool:
        """Whether a camera was chosen."""
        return any(value is not None for value in vars(self).values())

    @property
    def view(self) -> Optional[tuple[str, float]]:
        """The axis (h, v or d) and the degrees of `fov`."""
        if self.fov is None:
            return None
        match = re.fullmatch(r"\s*(?:([hvd]):)?(\d+(?:\.\d*)?|\.\d+)\s*", str(self.fov))
        if match is None or not 0 < float(match[2]) < 180:
            raise UsageError(f"`fov` must be more than 0 and less than 180 degrees, got {self.fov}", "such as 60, v:45")
        return match[1] or "h", float(match[2])

    @property
    def inline(self) -> Optional[tuple[float, float, float, float]]:
        """(fx, fy, cx, cy) if `intrinsics` is a list of numbers; None for a file."""
        text = str(self.intrinsics)
        if "," not in text or not re.fullmatch(r"[-+\s\d.,eE]+", text):
            return None
        try:
            fx, fy, cx, cy = map(float, text.split(","))
        except ValueError:
            raise UsageError(f"{text!r} is not a camera", "give `intrinsics` as fx,fy,cx,cy or as a file") from None
        if min(fx, fy) <= 0 or not all(map(math.isfinite, (fx, fy, cx, cy))):
            raise UsageError(f"the focal lengths of `intrinsics` must be more than 0, got {text}")
        return fx, fy, cx, cy


@dataclass(frozen=True)
class Reference:
    """Something measured, from which metres follow.

    text: as the user gave it. name: at, z, size, ground, range, or file. rows: its numbers; of at and z one row
    (u, v, metres) per point, of size (u1, v1, u2, v2, metres), of ground (height, pitch), of range (near, far).
    path: of a file. scale: codes per metre of its 16-bit PNG. frame: of a clip, in which it was measured; None if the
    text does not say.
    """

    text: str
    name: str
    rows: tuple[tuple[float, ...], ...] = ()
    path: Optional[Path] = None
    scale: float = 1000.0
    frame: Optional[int] = None

    @property
    def shown(self) -> str:
        """The text for files, without the folders of an absolute path."""
        if self.path is None or not self.path.is_absolute():
            return self.text
        return self.path.name if self.frame is None else f"{self.path.name}@{self.frame}"

    @property
    def stands_alone(self) -> bool:
        """Whether it gives the whole calibration, and not points for a fit."""
        return self.name in ("ground", "range")


# Name -> (pattern of what follows it, groups of numbers it holds, example); # is a number
_REFERENCES = {
    "at": (r"#,#=#(?:,#,#=#)*", 3, "at:812,540=2.35"),
    "z": (r"#,#=#(?:,#,#=#)*", 3, "z:812,540=2.35"),
    "size": (r"#,#,#,#=#", 5, "size:100,40,100,400=1.75"),
    "ground": (r"#(?:,pitch=#)?", 2, "ground:1.65,pitch=2"),
    "range": (r"#,#", 2, "range:0.5,20"),
}
_CODES = {"mm": 1000.0, "kitti": 256.0, "tum": 5000.0}  # per metre, of 16-bit PNG
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def parse_reference(text: str) -> Reference:
    """Return what a text such as at:812,540=2.35 means. Raises UsageError for one that makes no sense.

    An @ and a number at its end name the frame of a clip: at:812,540=2.35@120.
    """
    named = re.fullmatch(r"(.+)@(\d+)", str(text).strip())
    if named:
        return replace(parse_reference(named[1]), text=str(text), frame=int(named[2]))
    name, colon, rest = str(text).strip().partition(":")
    if not colon or name not in _REFERENCES:
        scale = _CODES.get(name) if colon else None
        path = rest if scale else str(text).strip()
        if not path:
            raise UsageError("a reference of `scale_from` is empty", f"such as {_REFERENCES['at'][2]}, or a file")
        return Reference(str(text), "file", path=Path(path), scale=scale or 1000.0)
    pattern, width, example = _REFERENCES[name]
    if not re.fullmatch(pattern.replace("#", _NUMBER), rest):
        raise UsageError(f"{text!r} is not a reference", f"give `scale_from` as {example}")
    numbers = [float(number) for number in re.findall(_NUMBER, rest)]
    if name == "ground" and len(numbers) == 1:
        numbers.append(0.0)
    rows = tuple(tuple(numbers[start : start + width]) for start in range(0, len(numbers), width))
    metres = rows[0][:1] if name == "ground" else rows[0] if name == "range" else tuple(row[-1] for row in rows)
    if min(metres) <= 0 or not all(map(math.isfinite, numbers)):
        raise UsageError(f"the metres of {text!r} must be more than 0", f"give `scale_from` as {example}")
    if name == "ground" and not -60 <= rows[0][1] <= 60:
        raise UsageError(f"the pitch of {text!r} must be -60 to 60 degrees", "0 is level, positive looks down")
    if name == "range" and rows[0][0] >= rows[0][1]:
        raise UsageError(f"{text!r} ends before it begins", "give `scale_from` as range:NEAR,FAR")
    return Reference(str(text), name, rows)


@dataclass(frozen=True)
class MetresChoice:
    """How the numbers of a map become metres; by default they stay as they are.

    scale_from: references, as texts. fit: one of FITS. scale: one factor, for a metric model. calibration_from: a file
    of `depth calibrate`, or a depth file with a calibration. unit_of_colmap: metres in a unit of COLMAP's model.
    cloud_to_camera: file with the 12 or 16 numbers that take points of a LiDAR cloud to the camera's axes.
    max_depth: metres; what is farther gets no depth. None: 3 times the farthest reference, and at least 100.
    """

    scale_from: tuple[str, ...] = ()
    fit: str = "auto"
    scale: Optional[float] = None
    calibration_from: Optional[Path] = None
    unit_of_colmap: Optional[float] = None
    cloud_to_camera: Optional[Path] = None
    max_depth: Optional[float] = None

    def __post_init__(self) -> None:
        require("fit", self.fit, FITS)
        given = [name for name in ("scale_from", "scale", "calibration_from") if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name, what in (("scale", "factor"), ("unit_of_colmap", "length"), ("max_depth", "depth")):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise UsageError(f"`{name}` must be a {what} above 0, got {number:g}")
        for name in () if self.scale_from else ("unit_of_colmap", "cloud_to_camera"):
            if getattr(self, name) is not None:
                raise UsageError(f"`{name}` is for a reference of `scale_from`", "leave it out")
        if self.fit != "auto" and not self.scale_from:
            raise UsageError("`fit` needs references", "leave it out, or give `scale_from`")
        alone = [reference.text for reference in self.references if reference.stands_alone]
        if alone and (len(self.scale_from) > 1 or self.fit != "auto"):
            raise UsageError(f"{alone[0]} gives scale and shift alone", "leave out the other references and `fit`")

    @property
    def is_given(self) -> bool:
        """Whether metres were asked for."""
        return bool(self.scale_from or self.scale is not None or self.calibration_from)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The references, parsed."""
        return tuple(map(parse_reference, self.scale_from))


@dataclass(frozen=True)
class ShapeChoice:
    """How a depth map becomes points or a mesh.

    axes: one of AXES; None for those that a format's readers expect. edges: pixels between surfaces are left out if
    depth varies by more than this part of itself within 3x3 pixels; None keeps all. points: most points, chosen on a
    regular grid; None for all. mesh_size: most vertices along the longer side.
    farthest: leave out what is farther, in the unit of the shape; None for no limit, and 20 for a relative map.
    """

    axes: Optional[str] = None
    edges: Optional[float] = 0.04
    points: Optional[int] = 1_000_000
    mesh_size: int = 512
    farthest: Optional[float] = None

    def __post_init__(self) -> None:
        if self.axes is not None:
            require("axes", self.axes, AXES)
        if self.edges is not None and not 0 < self.edges < 1:
            raise UsageError(f"`edges` must lie between 0 and 1, got {self.edges:g}", "0.04 is usual, off keeps all")
        if self.points is not None and self.points < 1:
            raise UsageError(f"`points` must be at least 1, got {self.points}", "or all")
        if not 2 <= self.mesh_size <= MOST_MESH_SIZE:
            raise UsageError(f"`mesh_size` must be 2 to {MOST_MESH_SIZE}, got {self.mesh_size}")
        if self.farthest is not None and not 0 < self.farthest < float("inf"):
            raise UsageError(f"`farthest` must be positive, got {self.farthest:g}")

    @property
    def settings(self) -> dict[str, Any]:
        """All of the choice by the names that results note, as defaults may change."""
        return {
            "axes": self.axes or "auto",
            "edges": self.edges or "off",
            "points": self.points or "all",
            "mesh-size": self.mesh_size,
            "farthest": self.farthest or "auto",
        }


@dataclass(frozen=True)
class SourceChoice:
    """What depth files of other programs hold. Files of depthcli say it themselves.

    source_format: one of SOURCES in io.codecs.foreign. kind: one of KINDS, for files that leave it open.
    depth_is: z, depth along the optical axis, or ray, distance from the camera.
    """

    source_format: Optional[str] = None
    kind: Optional[str] = None
    depth_is: str = "z"

    def __post_init__(self) -> None:
        if self.kind is not None:
            require("kind", self.kind, KINDS)
        require("depth_is", self.depth_is, DEPTH_IS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note."""
        depth_is = None if self.depth_is == "z" else self.depth_is
        return {"from": self.source_format, "kind": self.kind, "depth-is": depth_is}


@dataclass(frozen=True)
class ViewsChoice:
    """How the views of a scene go through the network.

    input_size: length in pixels of the side of the network's input that `resize` bounds, None for the model's own.
    resize: one of RESIZES, named as in Depth Anything 3. mixed: what becomes of pictures of several sizes: "pad" all to
    the largest input, or "cut" all to the smallest, as Depth Anything 3 does. reference: how the reference view is
    chosen, one of REFERENCES. ray_pose: find cameras from the network's rays, more accurate and slower
    than its own answer. seed: of the samples that `ray_pose` draws. metres: depth and places in metres, by a second
    network, da3-metric. align_to_input_scale: whether a scene with given cameras has their scale and world, or the
    network's; None for theirs, unless `metres` makes the scale.
    """

    input_size: Optional[int] = None
    resize: str = "upper_bound_resize"
    mixed: str = "pad"
    reference: str = "saddle_balanced"
    ray_pose: bool = False
    seed: int = 0
    metres: bool = False
    align_to_input_scale: Optional[bool] = None

    def __post_init__(self) -> None:
        check_input_size(self.input_size)
        require("resize", self.resize, RESIZES)
        require("mixed", self.mixed, MIXED)
        require("reference", self.reference, REFERENCES)
        if self.seed < 0:
            raise UsageError(f"`seed` must be 0 or more, got {self.seed}")
        if self.metres and self.align_to_input_scale:
            raise UsageError("`metres` and `align_to_input_scale` both give the scale", "leave out one of them")

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape a scene, by the names that results note; None for the usual ones."""
        usual = ViewsChoice()
        return {
            name.replace("_", "-"): None if value == getattr(usual, name) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class ChunksChoice:
    """How more views than fit at once go through the network.

    chunk: so many at a time; None for all at once. overlap: views that a chunk shares with the one before, None for
    half of them. loops: find places that are seen again, and close the path there.
    """

    chunk: Optional[int] = None
    overlap: Optional[int] = None
    loops: bool = True

    def __post_init__(self) -> None:
        if self.chunk is None:
            if self.overlap is not None or not self.loops:
                raise UsageError("`overlap` and `loops` are for views in chunks", "add `chunk`, as 60")
            return
        if self.chunk < 2:
            raise UsageError(f"`chunk` must be at least 2, got {self.chunk}")
        if self.overlap is not None and not 0 < self.overlap < self.chunk:
            raise UsageError(f"`overlap` must be 1 to {self.chunk - 1}, got {self.overlap}")

    @property
    def shared(self) -> int:
        """Views that two chunks share; 0 without chunks."""
        if self.chunk is None:
            return 0
        return self.overlap if self.overlap is not None else self.chunk // 2

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape a scene, by the names that results note; None for the usual ones."""
        return {"chunk": self.chunk, "overlap": self.overlap, "loops": None if self.loops else False}


@dataclass(frozen=True)
class FramesChoice:
    """Which frames of a clip become the views of a scene; at most one of the first four, by default `fps` 1.

    fps: so many of each second, by the frames' own times. stride: every so manieth. frames: so many in all, evenly.
    motion: whenever the picture has moved by this part of its diagonal. sharp: of the frames around each place that
    `frames` or `motion` gives, the sharpest.
    """

    fps: Optional[float] = None
    stride: Optional[int] = None
    frames: Optional[int] = None
    motion: Optional[float] = None
    sharp: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("fps", "stride", "frames", "motion") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"`{name}` must be more than 0, got {getattr(self, name):g}")
        if self.sharp and not (self.frames or self.motion):
            raise UsageError("`sharp` chooses among frames", "give `frames` or `motion` too")

    @property
    def words(self) -> str:
        """The rule, for people."""
        if self.stride is not None:
            return f"frames {self.stride} apart"
        if self.frames is not None:
            return (
                f"the sharpest frames of {self.frames} stretches"
                if self.sharp
                else f"{self.frames} of its frames, evenly"
            )
        if self.motion is not None:
            return (
                f"a{' sharp' if self.sharp else ''} frame whenever the picture moved by {self.motion:g} of its diagonal"
            )
        return f"frames at {self.fps or 1:g} a second"

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note; None for what was left open."""
        return {**vars(self), "sharp": self.sharp or None}


@dataclass(frozen=True)
class ObjectsChoice:
    """Which objects are measured, and how.

    classes: names or numbers, none for all. threshold: least score of a detection; annotations have none.
    max_objects: the best by score, then area; None for all. trim_px: pixels left out along the edge of a mask, None for
    1 of masks from files and the coarseness of a detector's. overlap: intersection over union beyond which a
    detection repeats a better one. sort: one of OBJECT_ORDERS. require_metric: refuse depth without metres.
    """

    classes: tuple[str, ...] = ()
    threshold: float = 0.5
    max_objects: Optional[int] = None
    trim_px: Optional[float] = None
    overlap: float = 0.8
    sort: str = "distance"
    require_metric: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"`{name}` must be 0 to 1, got {getattr(self, name):g}")
        if self.max_objects is not None and self.max_objects < 1:
            raise UsageError(f"`max_objects` must be at least 1, got {self.max_objects}")
        if self.trim_px is not None and not 0 <= self.trim_px < math.inf:
            raise UsageError(f"`trim_px` must be 0 pixels or more, got {self.trim_px:g}")
        require("sort", self.sort, OBJECT_ORDERS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note; None for those left open."""
        return {
            "classes": ",".join(self.classes) or None,
            "threshold": self.threshold,
            "max-objects": self.max_objects,
            "trim-px": self.trim_px,
            "overlap": self.overlap,
            "sort": self.sort,
        }


def object_files(formats: Sequence[str]) -> tuple[str, ...]:
    """Return the names of OBJECT_FILES, in their order, that lists with commas hold. Raises UsageError for others."""
    asked = [name.strip() for item in formats for name in item.split(",") if name.strip()]
    for name in asked:
        require("formats", name, OBJECT_FILES)
    return tuple(name for name in OBJECT_FILES if name in asked)


@dataclass(frozen=True)
class SceneChoice:
    """How the views of a scene become one cloud or meshes.

    confidence: percent of the least sure pixels that are left out; 0 keeps all. edges, points, mesh_size: as of
    ShapeChoice, with points for all views together. sparse_points: the same for a COLMAP model, in which each point
    also has a place in every view that sees it. cameras: show where the views were taken.
    """

    confidence: float = 40.0
    edges: Optional[float] = 0.04
    points: Optional[int] = 1_000_000
    sparse_points: Optional[int] = 100_000
    mesh_size: int = 256
    cameras: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 100:
            raise UsageError(f"`confidence` must be 0 to 99 percent, got {self.confidence:g}")
        for points in (self.points, self.sparse_points):
            ShapeChoice(edges=self.edges, points=points, mesh_size=self.mesh_size)  # which checks the same numbers

    @property
    def settings(self) -> dict[str, Any]:
        """All of it by the names that results note, as defaults may change."""
        return {
            "confidence": self.confidence,
            "edges": self.edges or "off",
            "points": self.points or "all",
            "sparse-points": self.sparse_points or "all",
            "mesh-size": self.mesh_size,
            "show-cameras": self.cameras,
        }


@dataclass(frozen=True)
class CompilerChoice:
    """Options of the compilers for AWS's chips.

    fast_math: how to round, one of the chip's ways, or None for its default. workdir: folder for the compiler's files.
    timeout: seconds. allow_cpu_ops: leave operators that cannot be compiled to the CPU, which is slow.
    """

    fast_math: Optional[str] = None
    workdir: Optional[Path] = None
    timeout: int = 4 * 3600
    allow_cpu_ops: bool = False

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise UsageError(f"`timeout` must be at least 1 second, got {self.timeout}")


@dataclass(frozen=True)
class StereoChoice:
    """How two eyes are made of a picture and its depth, and how a file shows them.

    layout: one of LAYOUTS. strength: the parallax between the nearest and the farthest point, percent of the width.
    screen: nearness, 0 (farthest) to 1 (nearest), of what stays in the plane of the screen; nearer things come out.
    view: which eyes are made: "both" by half of the parallax, or one by all of it beside the picture itself.
    swap: exchange the eyes, for a display that has them the wrong way round.
    fill: what is seen beside a near thing by one eye only: "stretch" the surroundings, repeat the "edge" of the
    background, or "telea" (A. Telea 2004), for pictures. border: "crop" what an eye lacks at the sides, or "stretch".
    tags: write into films what their layout is; None for the layouts that players expect it of.
    """

    layout: str = "sbs"
    strength: float = 2.0
    screen: float = 0.5
    view: str = "both"
    swap: bool = False
    fill: str = "stretch"
    border: str = "crop"
    tags: Optional[bool] = None

    def __post_init__(self) -> None:
        require("layout", self.layout, LAYOUTS)
        require("view", self.view, VIEWS)
        require("fill", self.fill, FILLS)
        require("border", self.border, BORDERS)
        if not 0 <= self.strength <= MOST_STRENGTH:
            raise UsageError(f"`strength` must be from 0 to {MOST_STRENGTH:g} percent, got {self.strength:g}")
        if not 0 <= self.screen <= 1:
            raise UsageError(f"`screen` must be from 0 (farthest) to 1 (nearest), got {self.screen:g}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the choice, one line each."""
        if self.strength <= COMFORT or self.layout == "rgbd":
            return ()
        return (f"`strength` {self.strength:g} is hard to look at: {COMFORT:g} is the most that is comfortable",)

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape results, by the names that results note; None for the usual ones."""
        usual = {"layout": None, "strength": None, "screen": None, "view": "both", "fill": "stretch", "border": "crop"}
        values = {name: getattr(self, name) for name in usual}
        shaping = {name: None if value == usual[name] else value for name, value in values.items()}
        return {**shaping, "swap": self.swap or None, "tags": self.tags}


def shaping_settings(
    model: ModelChoice, backend: BackendChoice, input_size: Optional[int], panorama: bool, detail: str = "off"
) -> dict[str, Any]:
    """Return the choices that shape depth maps, by the names that results note; None for those left open."""
    return {
        "encoder": model.encoder,
        "metric": model.metric,
        "model": model.model,
        "checkpoint": model.checkpoint and model.checkpoint.name,
        "max-depth": model.max_depth,
        "input-size": input_size,
        "panorama": panorama or None,
        "detail": None if detail == "off" else detail,
        "backend": backend.backend,
        "precision": backend.precision,
        "shape-policy": backend.shape_policy if backend.shape_policy != "strict" else None,
    }


def noted(settings: Mapping[str, Any]) -> str:
    """Return settings as the line that results note; those that are None were left open."""
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def require(setting: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise UsageError if a setting's value is not one of those allowed."""
    if value not in allowed:
        raise UsageError(f"unknown `{setting}` {value!r}", f"choose from: {', '.join(allowed)}")


def parse_colormap(name: str) -> tuple[str, bool]:
    """Return the colour map of COLORMAPS that a name means, and whether it ends in _r. Raises UsageError for others."""
    base, reverse = (name[:-2], True) if name.endswith("_r") else (name, False)
    known = {colormap.lower(): colormap for colormap in COLORMAPS}
    if base.lower() not in known:
        raise UsageError(f"no colour map is called {name!r}", f"choose from: {', '.join(COLORMAPS)}, each also with _r")
    return known[base.lower()], reverse


def check_batch(batch: int) -> None:
    """Raise UsageError for a batch without a picture."""
    if batch < 1:
        raise UsageError(f"`batch` must be at least 1, got {batch}")


def check_input_size(size: Optional[int]) -> None:
    """Raise UsageError for an input smaller than one patch. size: pixels, None for the model's own."""
    if size is not None and size < MIN_INPUT_SIZE:
        raise UsageError(f"`input_size` must be at least {MIN_INPUT_SIZE}, got {size}")
