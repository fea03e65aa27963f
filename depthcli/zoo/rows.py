"""The models as rows: family, task, network sizes, input policy, kind of depth, files, licence. Imports no torch.

A new size or fine-tune is a row; a new network is a class in nets/. Sizes and digests are those that the official
repositories publish; an unknown digest is None.
"""

from __future__ import annotations

import difflib
import enum
from dataclasses import dataclass, replace
from typing import Optional, Union

from depthcli.choices.clips import LATENT_MULTIPLE
from depthcli.choices.settings import check_input_size
from depthcli.errors import UsageError
from depthcli.kinds import DepthKind

PATCH = 14
WINDOW = 32  # frames that a video model sees at once

# Families: the networks that share a checkpoint layout.
DEPTH_ANYTHING_V2 = "depth-anything-v2"
VIDEO_DEPTH_ANYTHING = "video-depth-anything"
DEPTH_ANYTHING_3 = "depth-anything-3"
DEPTHCRAFTER = "depthcrafter"
TINY = "tiny"


class ModelTask(str, enum.Enum):
    """What a model takes at once: a picture, a window of WINDOW frames of a clip, or the views of a scene."""

    PICTURE = "picture"
    CLIP = "clip"
    SCENE = "scene"


class Bound(str, enum.Enum):
    """Which side of the network input is bounded."""

    SHORTER_SIDE = "shorter side >= size"
    SHORTER_SIDE_16_9 = "shorter side >= size, less for pictures longer than 16:9"
    LONGER_SIDE = "longer side about size"
    LONGER_SIDE_AT_MOST = "longer side <= size, else as the picture"


class Resize(str, enum.Enum):
    """How a picture is resized to the network input.

    BICUBIC: in float64. STEPS: in uint8, to the bounded side and then to multiples, each bicubic to enlarge and by area
    to shrink.
    """

    BICUBIC = "bicubic"
    STEPS = "steps"


class Channel(str, enum.Enum):
    """How a file of weights is distributed: on the Hugging Face hub, inside the package, or not at all.

    TRAINED: everyone makes their own with `depth train`, which starts from the relative model of the same network.
    """

    HUB = "hub"
    PACKAGE = "package"
    UNPUBLISHED = "unpublished"
    TRAINED = "trained"


@dataclass(frozen=True)
class InputPolicy:
    """How a picture becomes a network input. Raises UsageError for a size smaller than one patch.

    size: length of the bounded side in pixels. multiple: both sides are multiples of it. resize: to the input's size.
    mean, std: of RGB in 0..1; ImageNet's, as DINOv2 was trained with.
    """

    size: int = 518
    bound: Bound = Bound.SHORTER_SIDE
    multiple: int = PATCH
    resize: Resize = Resize.BICUBIC
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_input_size(self.size)

    def with_size(self, size: Optional[int]) -> InputPolicy:
        """Return the policy for another size, or itself if `size` is None."""
        return self if size is None else replace(self, size=size)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a DINOv2 encoder and its DPT head.

    embed_dim: width of a token; depth: number of blocks; heads: attention heads; swiglu: gated feed-forward (vitg).
    features: channels of the fusion stages; out_channels: channels of the four reassembled maps.
    taps: the four blocks (0-based) whose output the head reads.
    position_grid: side of the square grid of trained positions (37 for 518 / 14).
    norm_eps: epsilon of the encoder's last norm. unused: the files hold a mask token and the coarsest stage's
    resConfUnit1, which nothing reads.
    """

    embed_dim: int
    depth: int
    heads: int
    features: int
    out_channels: tuple[int, int, int, int]
    taps: tuple[int, int, int, int]
    swiglu: bool = False
    position_grid: int = 37
    norm_eps: float = 1e-6
    unused: bool = True

    @property
    def map_channels(self) -> int:
        """Channels of the four maps that the head reads."""
        return self.embed_dim


@dataclass(frozen=True)
class SkyConfig(NetworkConfig):
    """Sizes of Depth Anything 3 for one picture: the encoder of Depth Anything V2, and a head that also finds sky."""

    norm_eps: float = 1e-5
    unused: bool = False


@dataclass(frozen=True)
class ViewsConfig(NetworkConfig):
    """Sizes of Depth Anything 3 for the views of a scene.

    views_from: first block (0-based) with rotary positions; from it on, odd blocks attend across all views.
    gaussians: the files hold a head for Gaussian splats.
    """

    norm_eps: float = 1e-5
    unused: bool = False
    views_from: int = 4
    gaussians: bool = False

    @property
    def map_channels(self) -> int:
        """Channels of the four maps: those of the last block within a view, and of the tapped one."""
        return 2 * self.embed_dim


@dataclass(frozen=True)
class NestedConfig:
    """Two networks of Depth Anything 3: one for the views of a scene, one for the metres of each view."""

    views: ViewsConfig
    metric: SkyConfig


@dataclass(frozen=True)
class LiteConfig:
    """Size of the head over an EfficientNet-Lite0 encoder. features: channels of the fusion stages."""

    features: int


@dataclass(frozen=True)
class DiffusionConfig:
    """Size of the UNet of a diffusion model; the rest is in the config.json of its files. width: of its first level."""

    width: int


AnyConfig = Union[NetworkConfig, LiteConfig, NestedConfig, DiffusionConfig]


@dataclass(frozen=True)
class Weights:
    """One published file of weights.

    repo: repository on the Hugging Face hub, "" if there is none. file: its name. revision: commit or branch.
    sha256, bytes: of the file, None if not published.
    """

    repo: str
    file: str
    revision: str = "main"
    sha256: Optional[str] = None
    bytes: Optional[int] = None
    channel: Channel = Channel.HUB


@dataclass(frozen=True)
class ModelRow:
    """One model a user can name.

    name: as typed; title: as printed; family: of its checkpoints. encoder: size of its network.
    kind: of its numbers. files: its weights, the network's own file first. input: how a picture becomes its input.
    scene: of a metric model: indoor, outdoor, or metric for any; "" for a relative model.
    max_depth: metres at the top of a metric model's range, None if the network answers in metres itself.
    outputs: names of the network's outputs. canonical_focal: focal length in pixels of the network input for which the
    network answers in metres; for others, metres are in proportion. None if they need no focal length.
    restricted: its licence must be accepted before it is used.
    """

    name: str
    title: str
    family: str
    encoder: str
    network: AnyConfig
    kind: DepthKind
    files: tuple[Weights, ...]
    licence: str
    scene: str = ""
    max_depth: Optional[float] = None
    task: ModelTask = ModelTask.PICTURE
    input: InputPolicy = InputPolicy()
    outputs: tuple[str, ...] = ("depth",)
    canonical_focal: Optional[float] = None
    restricted: bool = False

    @property
    def weights(self) -> Weights:
        """The file that holds the network."""
        return self.files[0]

    @property
    def input_size(self) -> int:
        """Length of the bounded side of the network input in pixels."""
        return self.input.size

    def with_input_size(self, size: Optional[int]) -> ModelRow:
        """Return the row for another input size, or itself if `size` is None."""
        return replace(self, input=self.input.with_size(size))

    def without_focal(self) -> ModelRow:
        """Return the row for pictures of unknown focal length: its metres are then depth up to scale."""
        if self.canonical_focal is None:
            return self
        return replace(self, kind=DepthKind.RELATIVE_DEPTH, scene="", canonical_focal=None)


NETWORKS: dict[str, AnyConfig] = {
    "vits": NetworkConfig(384, 12, 6, 64, (48, 96, 192, 384), (2, 5, 8, 11)),
    "vitb": NetworkConfig(768, 12, 12, 128, (96, 192, 384, 768), (2, 5, 8, 11)),
    "vitl": NetworkConfig(1024, 24, 16, 256, (256, 512, 1024, 1024), (4, 11, 17, 23)),
    "vitg": NetworkConfig(1536, 40, 24, 384, (1536, 1536, 1536, 1536), (9, 19, 29, 39), swiglu=True),
    "tiny": LiteConfig(64),
}

# The networks of Depth Anything 3, by the `model_name` of their config.json.
_DA3_LARGE = SkyConfig(1024, 24, 16, 256, (256, 512, 1024, 1024), (4, 11, 17, 23))
_DA3_GIANT = ViewsConfig(
    1536,
    40,
    24,
    256,
    (256, 512, 1024, 1024),
    (19, 27, 33, 39),
    swiglu=True,
    views_from=13,
    gaussians=True,
)
DA3_NETWORKS: dict[str, AnyConfig] = {
    "da3-small": ViewsConfig(384, 12, 6, 64, (48, 96, 192, 384), (5, 7, 9, 11)),
    "da3-base": ViewsConfig(768, 12, 12, 128, (96, 192, 384, 768), (5, 7, 9, 11)),
    "da3-large": ViewsConfig(1024, 24, 16, 256, (256, 512, 1024, 1024), (11, 15, 19, 23), views_from=8),
    "da3-giant": _DA3_GIANT,
    "da3nested-giant-large": NestedConfig(_DA3_GIANT, _DA3_LARGE),
    "da3mono-large": _DA3_LARGE,
    "da3metric-large": _DA3_LARGE,
}

APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"
RESEARCH = "research and education only"
# The hub pages of the larger metric models say Apache-2.0 or nothing, while their encoders come from CC-BY-NC models.
UNCLEAR = "unclear, treat as non-commercial"

_RANGES = {"indoor": 20.0, "outdoor": 80.0}  # metres, by the scene of a metric model
_SIZE_NAMES = {"vits": "Small", "vitb": "Base", "vitl": "Large", "vitg": "Giant"}


def _relative(encoder: str, licence: str, weights: Weights) -> ModelRow:
    return ModelRow(
        name=encoder,
        title=f"Depth Anything V2 {_SIZE_NAMES[encoder]}",
        family=DEPTH_ANYTHING_V2,
        encoder=encoder,
        network=NETWORKS[encoder],
        kind=DepthKind.RELATIVE_DISPARITY,
        files=(weights,),
        licence=licence,
    )


def _metric(scene: str, encoder: str, licence: str, sha256: str | None, size: int | None = None) -> ModelRow:
    dataset = {"indoor": "Hypersim", "outdoor": "VKITTI"}[scene]
    size_name = _SIZE_NAMES[encoder]
    file = f"depth_anything_v2_metric_{dataset.lower()}_{encoder}.pth"
    return ModelRow(
        name=f"metric-{scene}-{encoder}",
        title=f"Depth Anything V2 Metric {scene.capitalize()} {size_name}",
        family=DEPTH_ANYTHING_V2,
        encoder=encoder,
        network=NETWORKS[encoder],
        kind=DepthKind.METRIC_DEPTH,
        scene=scene,
        max_depth=_RANGES[scene],
        files=(Weights(f"depth-anything/Depth-Anything-V2-Metric-{dataset}-{size_name}", file, "main", sha256, size),),
        licence=licence,
    )


def _video(scene: str, encoder: str, revision: str, sha256: str, size: int) -> ModelRow:
    size_name = _SIZE_NAMES[encoder]
    repo = f"depth-anything/{'Metric-' if scene else ''}Video-Depth-Anything-{size_name}"
    file = f"{'metric_' if scene else ''}video_depth_anything_{encoder}.pth"
    return ModelRow(
        name=f"vda-metric-{encoder}" if scene else f"vda-{encoder}",
        title=f"Video-Depth-Anything {'Metric ' if scene else ''}{size_name}",
        family=VIDEO_DEPTH_ANYTHING,
        encoder=encoder,
        network=NETWORKS[encoder],
        kind=DepthKind.METRIC_DEPTH if scene else DepthKind.RELATIVE_DISPARITY,
        scene=scene,
        files=(Weights(repo, file, revision, sha256, size),),
        licence=APACHE if encoder == "vits" else NON_COMMERCIAL,
        task=ModelTask.CLIP,
        input=InputPolicy(bound=Bound.SHORTER_SIDE_16_9),
    )


def _depthcrafter() -> ModelRow:
    """Return the row of DepthCrafter; of its files neither digest nor exact size is known.

    The UNet is DepthCrafter's, the other networks are those of Stable Video Diffusion. Each has its config.json.
    """
    own, stable = "tencent/DepthCrafter", "stabilityai/stable-video-diffusion-img2vid-xt"
    return ModelRow(
        name="depthcrafter",
        title="DepthCrafter",
        family=DEPTHCRAFTER,
        encoder="svd-xt",
        network=DiffusionConfig(320),
        kind=DepthKind.RELATIVE_DISPARITY,
        files=(
            Weights(own, "diffusion_pytorch_model.safetensors"),
            Weights(own, "config.json"),
            Weights(stable, "vae/diffusion_pytorch_model.fp16.safetensors"),
            Weights(stable, "vae/config.json"),
            Weights(stable, "image_encoder/model.fp16.safetensors"),
            Weights(stable, "image_encoder/config.json"),
        ),
        licence=RESEARCH,
        task=ModelTask.CLIP,
        input=InputPolicy(1024, Bound.LONGER_SIDE_AT_MOST, LATENT_MULTIPLE, Resize.STEPS),
        restricted=True,
    )


_DA3_INPUT = InputPolicy(504, Bound.LONGER_SIDE, resize=Resize.STEPS)
_DA3_FOCAL = 300.0


def _da3(name: str, title: str, network: str, repo: str, licence: str) -> ModelRow:
    """Return the row of a network for scenes; of its files neither digest nor exact size is known."""
    nested = network == "da3nested-giant-large"
    return ModelRow(
        name=name,
        title=f"Depth Anything 3 {title}",
        family=DEPTH_ANYTHING_3,
        encoder=network,
        network=DA3_NETWORKS[network],
        kind=DepthKind.METRIC_DEPTH if nested else DepthKind.RELATIVE_DEPTH,
        scene="metric" if nested else "",
        files=(Weights(f"depth-anything/{repo}", "model.safetensors"),),
        licence=licence,
        task=ModelTask.SCENE,
        input=_DA3_INPUT,
        outputs=("depth", "confidence", "extrinsics", "intrinsics"),
    )


def _da3_picture(name: str, title: str, network: str, repo: str) -> ModelRow:
    metric = network == "da3metric-large"
    return replace(
        _da3(name, title, network, repo, APACHE),
        kind=DepthKind.METRIC_DEPTH if metric else DepthKind.RELATIVE_DEPTH,
        scene="metric" if metric else "",
        task=ModelTask.PICTURE,
        outputs=("depth", "sky"),
        canonical_focal=_DA3_FOCAL if metric else None,
    )


ROWS: tuple[ModelRow, ...] = (
    ModelRow(
        name="tiny",
        title="depthcli tiny",
        family=TINY,
        encoder="tiny",
        network=NETWORKS["tiny"],
        kind=DepthKind.RELATIVE_DISPARITY,
        files=(
            Weights(
                repo="",
                file="tiny.safetensors",
                sha256="9a3788ba718c9c0c618d49645736d9f7965446ae838cd45ac5b02e5d959f809f",
                channel=Channel.PACKAGE,
            ),
        ),
        licence=APACHE,
        input=InputPolicy(210),
    ),
    _relative(
        "vits",
        APACHE,
        Weights(
            "depth-anything/Depth-Anything-V2-Small",
            "depth_anything_v2_vits.pth",
            "03876f8651c73a60fe4c2c48294e09fcb6838fcf",
            "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
            99_218_434,
        ),
    ),
    _relative(
        "vitb",
        NON_COMMERCIAL,
        Weights(
            "depth-anything/Depth-Anything-V2-Base",
            "depth_anything_v2_vitb.pth",
            "a4e71a6c2ce52fe50df0f212066b0d4a87be9b5e",
            "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
            389_961_218,
        ),
    ),
    _relative(
        "vitl",
        NON_COMMERCIAL,
        Weights(
            "depth-anything/Depth-Anything-V2-Large",
            "depth_anything_v2_vitl.pth",
            "cbbb86a30ce19b5684b7a05155dc7e6cbc7685b9",
            "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
            1_341_395_338,
        ),
    ),
    # Never published officially: a local file is accepted, nothing is downloaded.
    _relative("vitg", NON_COMMERCIAL, Weights("", "depth_anything_v2_vitg.pth", channel=Channel.UNPUBLISHED)),
    _metric("indoor", "vits", APACHE, None),
    _metric("indoor", "vitb", UNCLEAR, "9dc9e274c5eff55c6daf27b660c0ced0eca4e8593a6da90cdcb04d2b4d3f3fa2"),
    _metric("indoor", "vitl", UNCLEAR, "6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d"),
    _metric("outdoor", "vits", APACHE, "9203e538d35255c90dda4b7fedb47ff33fe725497bcca3b1e53b3a65ee63f0cb"),
    _metric(
        "outdoor", "vitb", UNCLEAR, "4dad67a7cc10b462bca48e6b8569c762b8eb3c1adada170a3851a6d3ba37bb3e", 389_964_656
    ),
    _metric(
        "outdoor", "vitl", UNCLEAR, "239b1054a369e66da2576e9a118d6d7c12d90dc8ebe609579a9a09cd8e05fe38", 1_341_401_064
    ),
    ModelRow(
        name="metric-tiny",
        title="depthcli tiny in metres",
        family=TINY,
        encoder="tiny",
        network=NETWORKS["tiny"],
        kind=DepthKind.METRIC_DEPTH,
        scene="metric",
        max_depth=_RANGES["indoor"],
        files=(Weights("", "metric_tiny.safetensors", channel=Channel.TRAINED),),
        licence=APACHE,
        input=InputPolicy(210),
    ),
    _video(
        "",
        "vits",
        "256875362cff76724b920335dfb4b29dd611f66e",
        "13379300b739e659f076a59d52e9801bd8d38c541a7e71f73bbca4dcfb013609",
        116_440_756,
    ),
    _video(
        "",
        "vitb",
        "7231d0c6e260f54f103eba5005d01f6efa4f43db",
        "775e578e8f9431ec0496514aa466bd0a1f67c28d0f518267809f35a43c04329b",
        458_247_082,
    ),
    _video(
        "",
        "vitl",
        "7aafbcb5c6af0bac741aad2b6471894fb4761afa",
        "43df27c6b396042ba34ff7b798ab279f64d204d2e86d7a373968f8fa36d0e6fa",
        1_538_392_012,
    ),
    _video(
        "metric",
        "vits",
        "273d090f2ce17df50c2872d82c8322c45da5b4dd",
        "3c28432b4e1f0d7bb31cad5151b6313b49457db5aa58d82e85bfb0f8b1311b33",
        116_444_063,
    ),
    _video(
        "metric",
        "vitb",
        "f6a245abad4b5a5b0d26722c8e1767ef310c547d",
        "f6f58576b9680a112f2428d4f39aff92656d3ae85745b0164675ace8d5b1fade",
        458_249_567,
    ),
    _video(
        "metric",
        "vitl",
        "607fcdbd454b95c3bd39abbd3054142869a527d3",
        "24eba25342e7ee0f054be25da6a852ebd7cfa40cd6bf41a353ecb6abfe24e620",
        1_538_348_216,
    ),
    _depthcrafter(),
    _da3_picture("da3-mono", "Mono Large", "da3mono-large", "DA3MONO-LARGE"),
    _da3_picture("da3-metric", "Metric Large", "da3metric-large", "DA3METRIC-LARGE"),
    # The licence of the data behind the small model was questioned in its repository.
    _da3("da3-small", "Small", "da3-small", "DA3-SMALL", APACHE),
    _da3("da3-base", "Base", "da3-base", "DA3-BASE", APACHE),
    # The repository's README says CC-BY-NC-4.0, the hub's page of version 1.1 said Apache-2.0. Version 1.1 was trained
    # again after an error.
    _da3("da3-large", "Large 1.1", "da3-large", "DA3-LARGE-1.1", UNCLEAR),
    _da3("da3-giant", "Giant 1.1", "da3-giant", "DA3-GIANT-1.1", NON_COMMERCIAL),
    _da3("da3-nested", "Nested 1.1", "da3nested-giant-large", "DA3NESTED-GIANT-LARGE-1.1", NON_COMMERCIAL),
)

_BY_NAME = {row.name: row for row in ROWS}
ENCODERS = tuple(NETWORKS)


def is_row(name: str) -> bool:
    """Return whether a row has that name."""
    return name in _BY_NAME


def find_row(name: str) -> ModelRow:
    """Return the row of that name. Raises UsageError, with near names, if there is none."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5)
    choices = ", ".join(near or _BY_NAME)
    raise UsageError(f"no model is called {name!r}", f"{'did you mean' if near else 'choose from'}: {choices}")


def select_row(encoder: str, metric: str | None = None) -> ModelRow:
    """Return the picture model of an encoder; its metric form if `metric` is indoor or outdoor."""
    if encoder not in NETWORKS:
        raise UsageError(f"no encoder is called {encoder!r}", f"choose from: {', '.join(ENCODERS)}")
    if metric is None:
        return _BY_NAME[encoder]
    if metric not in _RANGES:
        raise UsageError(f"no metric model for {metric!r}", "`metric` is indoor or outdoor")
    if encoder == "tiny":  # one model for both: only the range differs
        return with_max_depth(_BY_NAME["metric-tiny"], _RANGES[metric])
    name = f"metric-{metric}-{encoder}"
    if name not in _BY_NAME:
        raise UsageError(f"there is no metric model of size {encoder}", "choose vits, vitb or vitl")
    return _BY_NAME[name]


def with_max_depth(row: ModelRow, max_depth: float) -> ModelRow:
    """Return a metric row with another range. max_depth: its end, metres."""
    if not row.kind.is_metric:
        raise UsageError(f"{row.name} is a relative model without metres", "`max_depth` needs `metric`")
    if row.max_depth is None:
        raise UsageError(f"{row.name} answers in metres without a range", "leave out `max_depth`")
    if not 0 < max_depth < float("inf"):
        raise UsageError(f"`max_depth` must be more than 0, got {max_depth}", "give it in metres")
    return replace(row, max_depth=float(max_depth))
