"""Estimate how much memory a forward pass needs, and how much is free."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from depthcli.errors import EngineError, PictureError
from depthcli.host.control_groups import group_folders, read_number
from depthcli.pixels.preprocess import InputPlan
from depthcli.zoo.rows import PATCH, WINDOW, AnyConfig, LiteConfig, NestedConfig, NetworkConfig

_FLOAT = 4
# Address space of a backend that is loaded and runs the smallest network, measured with one thread.
_BACKEND_BYTES = {"torch": 650_000_000, "openvino": 500_000_000, "onnx": 200_000_000}
# Peaks measured on the CPU, tiny to vitl, were 0.9 to 1.2 times the sums below.
_MARGIN = 1.25
_GAUSSIAN = 38  # numbers of a Gaussian, one for each pixel
# Peaks of scenes of da3-small and da3-base of 1 to 16 views were 0.9 to 1.5 times the sums below.
_SCENE_MARGIN = 1.4
FINE_FRAMES = 4  # frames whose fine maps a video model makes at once
BYTES_PER_PIXEL = 27  # picture, depth map and arrays of the formats; measured for color, gray and npz at 60 MP;
# `detail` takes 22 before the formats are made, measured with a map as fine as the picture


def predict_bytes(config: AnyConfig, plan: InputPlan, batch: int = 1, plain_attention: bool = False) -> int:
    """Return the peak bytes of a forward pass in float32, without weights.

    plain_attention: the backend makes the full table of attention scores, as torch before 2.0 does.
    """
    if isinstance(config, NestedConfig):
        config = config.views  # the larger; both run one after the other
    assert isinstance(config, (NetworkConfig, LiteConfig))
    floats = _lite_floats(plan) if isinstance(config, LiteConfig) else _vit_floats(config, plan, plain_attention)
    return int(_MARGIN * batch * _FLOAT * floats)


def _lite_floats(plan: InputPlan) -> int:
    """Count the encoder's second stage at half the input's size (96 channels and taps). The head holds less."""
    width, height = plan.input_size
    return width * height * (2 * 96 + 2 * 16) // 4


def _vit_floats(config: NetworkConfig, plan: InputPlan, plain_attention: bool) -> int:
    """Count the encoder (q, k, v and the feed-forward's hidden layer, with plain attention also the (N, N) scores and
    their softmax for each head), or the head's widest stage.
    """
    tokens = plan.tokens
    encoder = tokens * config.embed_dim * 14
    if plain_attention:
        encoder += 2 * config.heads * tokens * tokens
    taps = 4 * tokens * config.embed_dim
    return max(encoder + taps, taps + _head_floats(config, plan))


def _head_floats(config: NetworkConfig, plan: InputPlan) -> int:
    """Count the head of one picture, without its input maps."""
    width, height = plan.input_size
    grid = (width // PATCH) * (height // PATCH)
    reassembled = grid * (16 * config.out_channels[0] + 4 * config.out_channels[1] + config.out_channels[2])
    fused = grid * 64 * 4 * config.features
    predicted = width * height * (2 * 32 + config.features)
    return reassembled + max(fused, predicted)


def scene_bytes(
    config: AnyConfig,
    plan: InputPlan,
    views: int,
    plain_attention: bool = False,
    further: Sequence[str] = (),
) -> int:
    """Return the peak bytes of a forward pass over the views of a scene in float32 on a CPU, without weights.

    plan: of one view, whose size all have. The four maps of all views and the answers stay; added to them is the larger
    of the encoder, which holds all views at once, and the heads, which take one view after the other.
    plain_attention: as for predict_bytes; the scores are those of all views' tokens with each other. further: answers
    asked for beside depth, confidence and cameras, of rays and gaussians.
    """
    views_config = config.views if isinstance(config, NestedConfig) else config
    assert isinstance(views_config, NetworkConfig)
    width, height = plan.input_size
    dim, tokens = views_config.embed_dim, plan.tokens * views
    grid = (width // PATCH) * (height // PATCH)
    # As for one picture, with the norms and the turns of queries and keys.
    encoder = tokens * dim * 18
    if plain_attention:
        encoder += 2 * views_config.heads * tokens * tokens
    # The views themselves and their copy on the device, and the four maps.
    kept = 2 * 3 * width * height * views + 4 * tokens * views_config.map_channels
    head = _head_floats(views_config, plan) + grid * 22 * views_config.features
    # Those of each view, and all of them joined.
    answers = 2 * (4 if isinstance(config, NestedConfig) else 2) * width * height * views
    if "rays" in further:
        answers += 2 * 7 * grid * 64 * views
    if "gaussians" in further:
        answers += 2 * _GAUSSIAN * width * height * views
    return int(_SCENE_MARGIN * _FLOAT * (kept + max(encoder, head + answers)))


def predict_clip_bytes(
    config: AnyConfig, plan: InputPlan, batch: int = 1, plain_attention: bool = False, whole_maps: bool = False
) -> int:
    """Return the peak bytes of a video model's window in float32, without weights.

    The tapped maps of all frames stay. Added to them is the largest of: the encoder with `batch` frames, the two coarse
    levels of the head, its second stage, and the fine maps of FINE_FRAMES. whole_maps: the motion modules work on whole
    maps, with eight times their channels.
    """
    assert isinstance(config, NetworkConfig)
    width, height = plan.input_size
    grid = (width // PATCH) * (height // PATCH)
    taps = WINDOW * 4 * grid * config.embed_dim
    encoder = batch * _vit_floats(config, plan, plain_attention)
    _, _, c2, c3 = config.out_channels
    coarse = WINDOW * grid * 2 * config.embed_dim
    level = coarse + WINDOW * grid * max(4 * c2, 3 * c3)
    stage = coarse + WINDOW * grid * 18 * config.features
    if whole_maps:
        level += WINDOW * grid * 12 * c2
        stage += WINDOW * grid * 4 * 12 * config.features
    fine = WINDOW * grid * 4 * config.features + FINE_FRAMES * _head_floats(config, plan)
    answers = 2 * WINDOW * width * height
    return int(_MARGIN * _FLOAT * (taps + max(encoder, level, stage, fine + answers)))


def free_memory() -> int | None:
    """Return the bytes of memory that this process may still take, or None if unknown.

    The least of the free memory of the machine, of each control group (containers, SLURM, systemd), and of the limits
    of the process (ulimit -v and -d).
    """
    left = [value for value in (_available_on_machine(), *_left_in_groups(), *_left_in_limits()) if value is not None]
    return min(left, default=None)


def check_room(backend: str) -> None:
    """Raise EngineError if a backend cannot load within the limits of the process, as some of them would abort."""
    need, left = _BACKEND_BYTES.get(backend, 0), min(_left_in_limits(), default=None)
    if left is not None and left < need:
        raise EngineError(
            f"{backend} takes about {need / 1e9:.2f} GB of address space when it is loaded, and the limit leaves "
            f"{left / 1e9:.2f} GB",
            "raise it with ulimit -v or -d",
        )


def check_picture(size: tuple[int, int], free: int | None) -> None:
    """Raise PictureError if a picture of (width, height) and its depth map need more than `free` bytes."""
    need = size[0] * size[1] * BYTES_PER_PIXEL
    if free is not None and need > free:
        raise PictureError(
            f"a picture of {size[0]}x{size[1]} needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "make it smaller first",
        )


def check_memory(
    config: AnyConfig, plan: InputPlan, batch: int, free: int | None, plain_attention: bool = False
) -> None:
    """Raise PictureError, with an input size that would fit, if the forward pass needs more than `free` bytes."""
    need = predict_bytes(config, plan, batch, plain_attention)
    if free is None or need <= free:
        return
    width, height = plan.input_size

    def need_of(size: int) -> int:
        return predict_bytes(config, plan.resized(size), 1, plain_attention)

    size = _largest_fit(plan, free, need_of)
    hint = f"`input_size` {size} would fit" if size else "crop it, or use a machine with more memory"
    if batch > 1:
        hint = "a smaller `batch` may fit, or " + hint
    raise PictureError(
        f"a network input of {width}x{height} needs about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free", hint
    )


def check_clip_memory(
    config: AnyConfig,
    plan: InputPlan,
    batch: int,
    free: int | None,
    plain_attention: bool = False,
    whole_maps: bool = False,
) -> None:
    """Raise PictureError, with an input size that would fit, if a window needs more than `free` bytes."""
    form = (batch, plain_attention, whole_maps)
    need = predict_clip_bytes(config, plan, *form)
    if free is None or need <= free:
        return
    width, height = plan.input_size

    def need_of(size: int) -> int:
        return predict_clip_bytes(config, plan.resized(size), *form)

    size = _largest_fit(plan, free, need_of)
    hint = f"`input_size` {size} would fit" if size else "use a machine with more memory"
    raise PictureError(
        f"{WINDOW} frames of {width}x{height} as network input need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB "
        "are free",
        hint,
    )


def check_scene_memory(
    config: AnyConfig,
    plan: InputPlan,
    views: int,
    free: int | None,
    plain_attention: bool = False,
    further: Sequence[str] = (),
) -> None:
    """Raise PictureError, with the number of views that would fit, if a scene needs more than `free` bytes."""
    need = scene_bytes(config, plan, views, plain_attention, further)
    if free is None or need <= free:
        return
    width, height = plan.input_size
    most = most_views(config, plan, free, plain_attention, further)
    hint = "use a smaller `input_size`"
    if most:
        all_of_them = f"`chunk` {most} takes all, so many at a time; " if most > 1 else ""
        hint = f"{all_of_them}`max_views` {most} would fit, or a smaller `input_size`"
    raise PictureError(
        f"{views} views of {width}x{height} as network input need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB "
        "are free",
        hint,
    )


def most_views(
    config: AnyConfig, plan: InputPlan, free: int, plain_attention: bool = False, further: Sequence[str] = ()
) -> int:
    """Return the largest number of views whose scene needs no more than `free` bytes; 0 if not even one fits."""
    fits, beyond = 0, 1
    while scene_bytes(config, plan, beyond, plain_attention, further) <= free:
        fits, beyond = beyond, 2 * beyond
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if scene_bytes(config, plan, middle, plain_attention, further) <= free:
            fits = middle
        else:
            beyond = middle
    return fits


def _largest_fit(plan: InputPlan, free: int, need_of: Callable[[int], int]) -> int | None:
    """Return the largest input size below the plan's that needs no more than `free` bytes; None if there is none."""
    fits, most = 0, min(plan.input_size) // PATCH - 1
    while fits < most:
        middle = (fits + most + 1) // 2
        if need_of(middle * PATCH) <= free:
            fits = middle
        else:
            most = middle - 1
    return fits * PATCH or None


def _available_on_machine() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:  # macOS and others do not report free memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_groups() -> Iterator[int]:
    """Yield the free bytes of each group; cached files that nobody reads count as free."""
    for folder in group_folders("memory"):
        for limits, used, idle in (
            (("memory.max", "memory.high"), "memory.current", "inactive_file"),
            (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
        ):
            now = read_number(f"{folder}/{used}")
            tops = [top for top in (read_number(f"{folder}/{limit}") for limit in limits) if top is not None]
            if now is not None and tops:
                yield max(0, min(tops) - max(0, now - _statistic(f"{folder}/memory.stat", idle)))


def _statistic(path: str, name: str) -> int:
    """Return a number of memory.stat, 0 if it is missing."""
    try:
        with open(path, encoding="ascii") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _left_in_limits() -> Iterator[int]:
    """Yield the free bytes within the process's limits of address space and of data."""
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:
            pages = [int(field) for field in stream.read().split()]
        taken = [pages[0] * resource.getpagesize(), pages[5] * resource.getpagesize()]
    except (OSError, ValueError, IndexError):
        taken = [0, 0]
    for limit, used in zip((resource.RLIMIT_AS, resource.RLIMIT_DATA), taken):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield max(0, most - used)
