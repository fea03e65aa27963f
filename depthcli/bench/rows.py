"""What `depth bench` prints and writes: one kind of row for each thing that is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Optional, Union


@dataclass(frozen=True)
class _Row:
    row: ClassVar[str]

    def to_json(self) -> str:
        """Return the row as one line of JSON; `row` names its kind."""
        return json.dumps({"row": self.row, **asdict(self)}, allow_nan=False)


@dataclass(frozen=True)
class Machine(_Row):
    """The machine and the model of a benchmark.

    cores: that this process may use; threads: of a torch operation. flags: relevant CPU flags. picture_size,
    input_size: (width, height) in pixels of the timed picture. pictures: number of pictures, or of a clip's frames.
    gflop: 1e9 operations in one pass (depthcli.bench.flops); None for a video model. random_weights: untrained weights,
    which do not change the speed. load: load average of one minute before the start, or None. date: ISO 8601, UTC.
    """

    row: ClassVar[str] = "machine"
    cpu: str
    cores: int
    threads: int
    flags: tuple[str, ...]
    system: str
    python: str
    versions: Mapping[str, str]
    model: str
    title: str
    random_weights: bool
    pictures: int
    picture_size: tuple[int, int]
    input_size: tuple[int, int]
    gflop: Optional[float]
    runs: int
    warmup: int
    load: Optional[float]
    date: str


@dataclass(frozen=True)
class Network(_Row):
    """The network alone, on one backend: from one prepared picture to its raw output.

    name: of the backend, or the peer. engine: with version, device and precision. faster: times faster than the row
    `reference`, the median of the turns' ratios. median_ms, p90_ms, min_ms: of the timed runs. spread: interquartile
    range as a share of the median. gflop_s: the network's operations over the median. roofline: gflop_s as a share of
    the best matrix product of this precision, or None. open_s: seconds to load the network, with the converted graph in
    the cache. error: why there are no numbers, or empty.
    """

    row: ClassVar[str] = "network"
    name: str
    backend: str
    precision: str
    engine: str = ""
    faster: Optional[float] = None
    reference: str = ""
    median_ms: Optional[float] = None
    p90_ms: Optional[float] = None
    min_ms: Optional[float] = None
    spread: Optional[float] = None
    gflop_s: Optional[float] = None
    roofline: Optional[float] = None
    open_s: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Quality(_Row):
    """How far a backend's maps are from those of the exact one, as shares of each map's range.

    mean: mean difference, averaged over the pictures; worst: of the worst picture. greatest: of any pixel. rank: lowest
    correlation of the pixels' order. error: why there are no numbers, or empty.
    """

    row: ClassVar[str] = "quality"
    name: str
    precision: str
    pictures: int = 0
    mean: Optional[float] = None
    worst: Optional[float] = None
    greatest: Optional[float] = None
    rank: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Roofline(_Row):
    """The best product of two matrices in torch: what the machine can do in a precision.

    shape: (M, K, N) of the product (M, K) x (K, N), one of some square ones and those of the network's linear layers.
    """

    row: ClassVar[str] = "roofline"
    precision: str
    device: str
    gflop_s: float
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Bandwidth(_Row):
    """What the memory of a device reads and writes in a large copy, in 1e9 bytes per second."""

    row: ClassVar[str] = "bandwidth"
    device: str
    gigabytes_s: float


@dataclass(frozen=True)
class Limit(_Row):
    """The distance of the network's time from what the machine can do.

    operations_ms: the least time for the network's operations, at the best product's rate; None if that is unknown.
    bytes_ms: the least time for `megabytes`: weights, picture and depth map once, at the memory's bandwidth; all else
    may stay in caches. share: the larger of the two over median_ms.
    """

    row: ClassVar[str] = "limit"
    name: str
    precision: str
    median_ms: float
    operations_ms: Optional[float]
    bytes_ms: float
    megabytes: float
    share: Optional[float]


@dataclass(frozen=True)
class Operator(_Row):
    """Operators of one kind and shape in the network, on one backend.

    operator: what they compute, or "all others"; output: shape of the result; count: number of them. kernel: how, by
    the backend's name. ms: of all together, share: of the network's sum. gflop_s: of products and convolutions, else
    None. megabytes: read and written if nothing stayed in a cache, with the weights; gigabytes_s: of these.
    """

    row: ClassVar[str] = "operator"
    name: str
    precision: str
    operator: str = ""
    kernel: str = ""
    output: str = ""
    count: int = 0
    ms: Optional[float] = None
    share: Optional[float] = None
    gflop_s: Optional[float] = None
    megabytes: Optional[float] = None
    gigabytes_s: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Stages(_Row):
    """One picture in one process: median milliseconds of each stage. All but `run` are the same for every backend.

    read: file to pixels; prepare: pixels to network input; run: the network; finish: output to depth map at the
    picture's size; write: depth map to colour PNG in memory.
    """

    row: ClassVar[str] = "stages"
    name: str
    precision: str
    faster: float
    reference: str
    total_ms: float
    read_ms: float
    prepare_ms: float
    run_ms: float
    finish_ms: float
    write_ms: float


@dataclass(frozen=True)
class Process(_Row):
    """`depth image` as a process, from start to end: Python, imports, loading, one picture.

    first_s: without a converted graph in the cache; again_s: median of later runs, compared in `faster`. peak_mb:
    highest resident memory, 1e6 bytes, None if unknown.
    """

    row: ClassVar[str] = "process"
    name: str
    precision: str
    faster: Optional[float] = None
    reference: str = ""
    first_s: Optional[float] = None
    again_s: Optional[float] = None
    peak_mb: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Folder(_Row):
    """`depth dir` over all pictures as a process, from start to end.

    seconds: median of the runs. network_s: time of the pictures in the backend alone; over_network: seconds over that,
    1 without any overhead. format: of the outputs. The official script's loop runs in this process, without its
    loading.
    """

    row: ClassVar[str] = "folder"
    name: str
    precision: str
    format: str
    pictures: int = 0
    faster: Optional[float] = None
    reference: str = ""
    seconds: Optional[float] = None
    seconds_per_picture: Optional[float] = None
    pictures_per_second: Optional[float] = None
    network_s: Optional[float] = None
    over_network: Optional[float] = None
    peak_mb: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Throughput(_Row):
    """A busy backend, under the names of AWS's neuronperf.

    scope: "model" for the network alone, "end_to_end" from a picture's file to a colour PNG; latency is that of one
    picture. simulated: a stand-in ran, so the numbers do not describe the chip. target: of the compiled network, with
    model_filename and its sha256; empty for other backends. instance_type: by the machine's firmware. n_models: copies
    of the network; workers_per_model: threads that feed each; pipeline_size: cores that share one copy. n: pictures in
    duration_s seconds. throughput: pictures per second, on average and in the best second. host_cpu_percent: of all
    cores this process may use. cost_per_1m: of a million pictures, at cost_per_hour.
    """

    row: ClassVar[str] = "throughput"
    scope: str
    name: str
    precision: str
    simulated: bool
    engine: str = ""
    target: str = ""
    instance_type: Optional[str] = None
    model_filename: str = ""
    model_sha256: str = ""
    compiler_args: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    batch_size: int = 1
    n_models: int = 1
    workers_per_model: int = 1
    pipeline_size: int = 1
    n: int = 0
    duration_s: Optional[float] = None
    throughput_avg: Optional[float] = None
    throughput_peak: Optional[float] = None
    latency_ms_p50: Optional[float] = None
    latency_ms_p90: Optional[float] = None
    latency_ms_p95: Optional[float] = None
    latency_ms_p99: Optional[float] = None
    host_cpu_percent: Optional[float] = None
    cost_per_hour: Optional[float] = None
    cost_per_1m: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Video(_Row):
    """A clip through `depth video`, with one `steady`: off (frame by frame), on (the filter) or vda.

    name, backend, precision, engine, faster: as in Network, faster for the whole work on the clip. clip: name of the
    file, or "synthetic"; frames: number taken of it.

    network_fps: frames per second of the network alone. clip_fps: of a clip's whole work by a loaded model, from
    opening the clip to the finished mp4; share: median of the turns' ratios of the two, 1 without any overhead.
    process_s, process_fps, peak_mb: of `depth video` as a process, as in Process.

    read_ms ... write_ms: milliseconds per frame of each step alone: decode; find cuts and prepare the input; the
    network; steady its output; range and spool, without the state to resume from; colour and mp4.

    opw, flow_flicker, range_jitter: of the clip; flicker, contrast_kept: of a still one with a sensor's noise
    and exposure; cut_bleeding: of a clip with one cut, at most 1000 (eval.steadiness). None for random weights.
    """

    row: ClassVar[str] = "video"
    steady: str
    name: str
    backend: str
    precision: str
    model: str
    title: str
    random_weights: bool
    clip: str
    clip_size: tuple[int, int]
    engine: str = ""
    input_size: Optional[tuple[int, int]] = None
    frames: int = 0
    faster: Optional[float] = None
    reference: str = ""
    network_fps: Optional[float] = None
    clip_fps: Optional[float] = None
    share: Optional[float] = None
    process_s: Optional[float] = None
    process_fps: Optional[float] = None
    peak_mb: Optional[float] = None
    read_ms: Optional[float] = None
    prepare_ms: Optional[float] = None
    network_ms: Optional[float] = None
    settle_ms: Optional[float] = None
    spool_ms: Optional[float] = None
    write_ms: Optional[float] = None
    opw: Optional[float] = None
    flow_flicker: Optional[float] = None
    range_jitter: Optional[float] = None
    flicker: Optional[float] = None
    contrast_kept: Optional[float] = None
    cut_bleeding: Optional[float] = None
    error: str = ""


@dataclass(frozen=True)
class Denoising(_Row):
    """One network of a diffusion model for clips, alone: encode (pixels to latents and embedding), denoise, or decode.

    engine: version, device and precision; pixels are encoded in fp32 always. frames: of the window. passes: how often a
    frame of a long clip goes through it. tflop: 1e12 operations of a frame in one pass. seconds: median of a frame in
    one pass. gflop_s, roofline: as in Network.
    """

    row: ClassVar[str] = "denoising"
    network: str
    engine: str
    model: str
    random_weights: bool
    input_size: tuple[int, int]
    frames: int
    passes: float
    tflop: float
    seconds: float
    gflop_s: float
    roofline: Optional[float]


@dataclass(frozen=True)
class Load(_Row):
    """The load average of one minute, before and after, when the benchmark is part of it. seconds: it took."""

    row: ClassVar[str] = "load"
    before: Optional[float]
    after: Optional[float]
    seconds: float


Row = Union[
    Machine,
    Network,
    Quality,
    Roofline,
    Bandwidth,
    Limit,
    Operator,
    Stages,
    Process,
    Throughput,
    Folder,
    Video,
    Denoising,
    Load,
]
