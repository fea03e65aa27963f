"""What `depth bench` prints and writes: one kind of row for each thing that is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar, Optional, Union


@dataclass(frozen=True)
class _Row:
    """One line of the result."""

    row: ClassVar[str]

    def to_json(self) -> str:
        """Return the row as one line of JSON; `row` names its kind."""
        return json.dumps({"row": self.row, **asdict(self)}, allow_nan=False)


@dataclass(frozen=True)
class Machine(_Row):
    """What a reader has to know before any figure.

    cores: those this process may use; threads: what an operation of torch takes. flags: of the CPU, those that matter.
    picture_size, input_size: (width, height) in pixels of the picture the engines are timed on. pictures: how many, or
    frames of a clip. gflop: 1e9 operations in one pass over it, see depthcli.bench.flops; None for a model for clips.
    random_weights: nobody trained them; speed does not depend on it. load: the load average of one minute before the
    start, None where there is none. date: ISO 8601, UTC.
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
    """The network alone, in one engine: from one prepared picture to its raw answer.

    name: the engine's, or the peer's. engine: with version, device and precision. faster: times faster than the row
    `reference`, the median of the turns' ratios. median_ms, p90_ms, min_ms: of the timed runs. spread: from the first
    to the third quartile, as a share of the median. gflop_s: the network's operations over the median. roofline: that
    over what the best matrix product of this precision reached, None where none was measured. open_s: seconds to load
    the network into the engine, with the converted graph in the cache. error: why there are no figures, or empty.
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
class Roofline(_Row):
    """The best product of two square matrices in torch: what the machine can do in a precision. side: of the matrix."""

    row: ClassVar[str] = "roofline"
    precision: str
    device: str
    gflop_s: float
    side: int


@dataclass(frozen=True)
class Stages(_Row):
    """One picture in one process, a stage at a time: median milliseconds each.

    read: file to pixels; prepare: pixels to network input; run: the network; finish: answer to depth map at the
    picture's size; write: depth map to colour PNG in memory. All but `run` are the same code for every engine.
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
    """`depth image` as a process of its own, from its start to its end: Python, imports, loading, one picture.

    first_s: the very first, with no converted graph in the cache; again_s: median of those after it, and `faster` is
    about them. peak_mb: resident memory at its highest, 1e6 bytes, None where the system does not say.
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
    """`depth dir` over all pictures, as a process of its own, from its start to its end.

    seconds: median of the runs. network_s: what the pictures take in the engine alone, and over_network is seconds over
    that: 1 would be a job that costs nothing but the network. format: what is written. The official script's loop runs
    in this process, and loading Python, torch and its model is not counted.
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
    """An engine kept busy, under the names of AWS's neuronperf.

    scope: "model" for the network alone, "end_to_end" from a picture's file to a colour PNG, where latency is the work
    on one picture. simulated: a stand-in ran, and no figure says anything about the chip. target: what the network was
    compiled for, with model_filename and its sha256; empty for other engines. instance_type: of the machine, as its
    firmware says. n_models: copies of the network; workers_per_model: threads that feed each; pipeline_size: cores that
    share one copy. n: pictures in duration_s seconds. throughput: pictures per second, on average and in the best
    second. host_cpu_percent: of all cores this process may use. cost_per_1m: of a million pictures, at cost_per_hour.
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
    """A clip through `depth video`, with one engine of steadiness: off (frame by frame), on (the filter) or vda.

    name, backend, precision, engine: of the network, as in Network. clip: the name of the file, or "synthetic"; frames
    that were taken of it. faster: of the clip's whole work, as in Network.

    network_fps: frames per second of the network alone. clip_fps: of the whole work on a clip by a loaded model, from
    opening the clip to the finished mp4; share: the median of the turns' ratios of the two, 1 for a job that costs
    nothing but the network. process_s, process_fps, peak_mb: of `depth video` as a process of its own, from its start
    to its end, as in Process.

    read_ms ... write_ms: milliseconds per frame of each step by itself, none beside another, as `depth video` does
    them: decode; find cuts and prepare the input; the network; what makes its answers steady; range and spool, without
    the state to go on from; colour and mp4.

    opw, flow_flicker, range_jitter: of the clip; flicker, contrast_kept: of a still synthetic one with the noise and
    the exposure of a sensor; see eval.temporal.Steadiness. cut_bleeding: see there, of a synthetic clip with one cut,
    1000 at most. All None for random weights, whose steadiness says nothing.
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
class Load(_Row):
    """The load average of one minute, before and after, when the benchmark is part of it. seconds: it took."""

    row: ClassVar[str] = "load"
    before: Optional[float]
    after: Optional[float]
    seconds: float


Row = Union[Machine, Network, Roofline, Stages, Process, Throughput, Folder, Video, Load]
