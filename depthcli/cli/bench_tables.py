"""Print what `depth bench` measured as tables: a head, a table for each kind of row, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from depthcli.cli.tables import Column, by, count, format_number, print_rows
from depthcli.cli.wording import worded

if TYPE_CHECKING:
    from depthcli.bench.rows import (
        Bandwidth,
        Denoising,
        Folder,
        Limit,
        Load,
        Machine,
        Network,
        Operator,
        Quality,
        Roofline,
        Row,
        Throughput,
        Video,
    )

_PACKAGES = ("torch", "openvino", "onnxruntime")  # those that compute; JSON has more

_FASTER = Column("faster", "faster", "x")
_BACKEND = Column("backend", "name", left=True)
_PRECISION = Column("precision", "precision", left=True)
_PEAK = Column("peak MB", "peak_mb", "0")
_NETWORK = (
    _FASTER,
    _BACKEND,
    _PRECISION,
    Column("median ms", "median_ms"),
    Column("p90 ms", "p90_ms"),
    Column("spread", "spread", "%"),
    Column("GFLOP/s", "gflop_s"),
    Column("of best product", "roofline", "%"),
    Column("open s", "open_s"),
)
_QUALITY = (
    _BACKEND,
    _PRECISION,
    Column("pictures", "pictures", "0"),
    Column("mean", "mean", "%%"),
    Column("worst picture", "worst", "%%"),
    Column("greatest", "greatest", "%%"),
    Column("rank correlation", "rank", "0.0000"),
)
_STAGES = (
    _FASTER,
    _BACKEND,
    _PRECISION,
    Column("total", "total_ms"),
    Column("read", "read_ms"),
    Column("prepare", "prepare_ms"),
    Column("network", "run_ms"),
    Column("finish", "finish_ms"),
    Column("write PNG", "write_ms"),
)
_PROCESS = (_FASTER, _BACKEND, _PRECISION, Column("first s", "first_s"), Column("again s", "again_s"), _PEAK)
_THROUGHPUT = (
    _BACKEND,
    Column("of", "scope", left=True),
    Column("copies", "n_models", "0"),
    Column("threads each", "workers_per_model", "0"),
    Column("batch", "batch_size", "0"),
    Column("pictures/s", "throughput_avg"),
    Column("peak", "throughput_peak"),
    *(Column(f"p{share} ms", f"latency_ms_p{share}") for share in (50, 90, 95, 99)),
    Column("host CPU", "host_cpu_percent", "0%"),
    Column("per million", "cost_per_1m"),
)
_FOLDER = (
    _FASTER,
    _BACKEND,
    _PRECISION,
    Column("s", "seconds"),
    Column("s/picture", "seconds_per_picture"),
    Column("pictures/s", "pictures_per_second"),
    Column("over network", "over_network", "x"),
    _PEAK,
)
_LIMITS = (
    _BACKEND,
    _PRECISION,
    Column("network ms", "median_ms"),
    Column("floor by operations ms", "operations_ms"),
    Column("floor by bytes ms", "bytes_ms"),
    Column("MB", "megabytes"),
    Column("share of the limit", "share", "%"),
)
_OPERATORS = (
    Column("share", "share", "%%"),
    Column("ms", "ms"),
    Column("count", "count", "0"),
    Column("operator", "operator", left=True),
    Column("output", "output", left=True),
    Column("kernel", "kernel", left=True),
    Column("GFLOP/s", "gflop_s"),
    Column("MB", "megabytes"),
    Column("GB/s", "gigabytes_s"),
)
_CLIP = (Column("steady", "steady", left=True), _BACKEND, _PRECISION)
_VIDEO = (
    _FASTER,
    *_CLIP,
    Column("network frames/s", "network_fps"),
    Column("clip frames/s", "clip_fps"),
    Column("of network", "share", "%"),
    Column("process s", "process_s"),
    Column("process frames/s", "process_fps"),
    _PEAK,
)
_VIDEO_STEPS = (
    *_CLIP,
    Column("input", "input_size"),
    Column("read", "read_ms"),
    Column("prepare", "prepare_ms"),
    Column("network", "network_ms"),
    Column("steady", "settle_ms"),
    Column("spool", "spool_ms"),
    Column("write mp4", "write_ms"),
)
_DENOISING = (
    Column("network", "network", left=True),
    Column("passes a frame", "passes"),
    Column("TFLOP a pass", "tflop"),
    Column("s a pass", "seconds"),
    Column("GFLOP/s", "gflop_s"),
    Column("of best product", "roofline", "%"),
)
_STEADINESS = (
    *_CLIP,
    Column("OPW", "opw"),
    Column("flow flicker", "flow_flicker", "%%"),
    Column("range jitter", "range_jitter", "%%"),
    Column("still flicker", "flicker", "%%"),
    Column("contrast kept", "contrast_kept", "%"),
    Column("cut bleeding", "cut_bleeding"),
)


def print_benchmark(rows: Sequence[Row]) -> None:
    """Print the rows of one benchmark."""
    kinds: dict[str, list[Any]] = {}
    for row in rows:
        kinds.setdefault(row.row, []).append(row)
    (machine,) = kinds["machine"]
    if "video" in kinds:
        _print_videos(machine, kinds["video"], *kinds.get("load", []))
        return
    if "denoising" in kinds:
        _print_denoising(machine, kinds["denoising"], kinds.get("roofline", []), *kinds.get("load", []))
        return
    _print_head(machine, *kinds.get("load", []))
    _print_networks(machine, kinds["network"])
    for kind, show in (
        ("quality", lambda rows: _print_qualities(machine, rows)),
        ("stages", lambda rows: _print_table("one picture, stage by stage, ms", rows, _STAGES)),
        ("process", lambda rows: _print_table("depth image, the whole process", rows, _PROCESS)),
        ("throughput", _print_throughputs),
        ("folder", _print_folders),
        ("operator", _print_operators),
    ):
        if kind in kinds:  # absent if the benchmark was interrupted before
            show(kinds[kind])
    if "limit" in kinds:
        _print_limits(kinds["limit"], kinds["bandwidth"], kinds.get("roofline", []))


def _print_head(machine: Machine, load: Optional[Load] = None) -> None:
    print(f"{machine.title} ({machine.model}), {_weights(machine)}, {machine.gflop:.4g} GFLOP per picture")
    which = f"the first of {machine.pictures} pictures" if machine.pictures > 1 else "one picture"
    print(f"{which}: {by(machine.picture_size)} px, network input {by(machine.input_size)} px")
    _print_machine(machine, load)


def _print_machine(machine: Machine, load: Optional[Load]) -> None:
    flags = f", {' '.join(machine.flags)}" if machine.flags else ""
    print(f"{machine.cpu}, {count(machine.cores, 'core')}, {count(machine.threads, 'thread')}{flags}")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in _PACKAGES if name in machine.versions)
    print(f"{machine.system}, Python {machine.python}, {versions}")
    took = "interrupted" if load is None else f"{load.seconds:.0f} s"
    after = "" if load is None else f" and {load.after} after"
    loads = "" if machine.load is None else f", load average {machine.load} before{after}"
    print(f"{machine.date}, {took}{loads}")
    if machine.load is not None and machine.load > machine.cores / 2:
        print("other programs were running, which slows some backends more than others: compare with care")


def _print_networks(machine: Machine, rows: Sequence[Network]) -> None:
    _print_table(f"network alone, {count(machine.runs, 'turn')} after {machine.warmup} of warm-up", rows, _NETWORK)
    print("spread: first to third quartile over the median; open: with the converted network in the cache")


def _print_qualities(machine: Machine, rows: Sequence[Quality]) -> None:
    _print_table("difference from exact float32, as a share of the map's range", rows, _QUALITY)
    if machine.random_weights:
        print("these weights are random: the figures say nothing about trained ones")


def _print_operators(rows: Sequence[Operator]) -> None:
    for name, precision in dict.fromkeys((row.name, row.precision) for row in rows):
        same = [row for row in rows if (row.name, row.precision) == (name, precision)]
        _print_table(f"operators of {name} {precision}, equal ones together", same, _OPERATORS)
    print("MB: read and written if nothing stayed in a cache; times are taken node by node, their sum is a little more")


def _print_limits(rows: Sequence[Limit], bandwidths: Sequence[Bandwidth], rooflines: Sequence[Roofline]) -> None:
    _print_table("distance to the limit of this machine", rows, _LIMITS)
    products = (
        f"{line.precision} {format_number(line.gflop_s)} GFLOP/s ({'x'.join(map(str, line.shape))})"
        for line in rooflines
    )
    print(f"best products of two matrices in torch: {', '.join(products)}")
    print(f"memory: {', '.join(f'{format_number(line.gigabytes_s)} GB/s on {line.device}' for line in bandwidths)}")
    print("floor by bytes: weights, picture and depth map once; all else may stay in caches")


def _print_throughputs(rows: Sequence[Throughput]) -> None:
    seconds = next((row.duration_s for row in rows if row.duration_s), None)
    _print_table(f"kept busy for {format_number(seconds)} s each", rows, _THROUGHPUT)
    print("of: model is the network alone, end_to_end is from a picture's file to a PNG (latency of one picture)")
    if any(row.simulated for row in rows):
        print("simulated: CPU stand-in, not Neuron; these figures say nothing about a chip")


def _print_folders(rows: Sequence[Folder]) -> None:
    format = {"color": "colour", "side": "photo and colour side by side"}[rows[0].format]
    pictures = count(max(row.pictures for row in rows), "picture")
    _print_table(f"depth dir, the whole process, {pictures}, {format}", rows, _FOLDER)
    print("over network: seconds of the whole over those in the network alone, measured for each size of input")


def _print_videos(machine: Machine, rows: Sequence[Video], load: Optional[Load] = None) -> None:
    models = {row.title: f"{row.title} ({row.model}), {_weights(row)}" for row in rows}
    print(" · ".join(models.values()))
    clip, frames = rows[0].clip, max(row.frames for row in rows)
    print(f"{clip} clip: {count(frames, 'frame')} of {by(machine.picture_size)} px")
    _print_machine(machine, load)
    _print_table(f"depth video, {count(machine.runs, 'turn')}", rows, _VIDEO)
    print("clip: from opening it to the mp4, with the model loaded; process: with Python's start and loading")
    done = [row for row in rows if not row.error]
    _print_table("step by step, ms per frame; depth video runs them in parallel", done, _VIDEO_STEPS)
    known = [row for row in done if not row.random_weights]
    if known:
        _print_table("steadiness: smaller is steadier", known, _STEADINESS)
        print(f"OPW, flow flicker, range jitter: {clip} clip; still flicker, contrast kept: a still synthetic clip;")
        print("cut bleeding: a synthetic clip with a cut; how much more frames behind it differ from themselves alone")
    for name in dict.fromkeys(row.model for row in done if row.random_weights):
        print(f"{name} has random weights: its steadiness is left out")


def _print_denoising(
    machine: Machine, rows: Sequence[Denoising], rooflines: Sequence[Roofline], load: Optional[Load] = None
) -> None:
    print(f"{machine.title} ({machine.model}), {_weights(machine)}, {rows[0].engine}")
    print(f"windows of {count(rows[0].frames, 'frame')}, network input {by(rows[0].input_size)} px")
    _print_machine(machine, load)
    _print_table(f"each network alone, {count(machine.runs, 'turn')}", rows, _DENOISING)
    products = (f"{line.precision} {format_number(line.gflop_s)} GFLOP/s" for line in rooflines)
    print(f"best products of two matrices in torch: {', '.join(products)}")
    whole = sum(row.passes * row.tflop for row in rows), sum(row.passes * row.seconds for row in rows)
    print(f"a frame of a long clip: {format_number(whole[0])} TFLOP, {format_number(whole[1])} s")


def _print_table(title: str, rows: Sequence[Any], columns: Sequence[Column]) -> None:
    """Print rows under a title, and below them why rows have no figures."""
    compared = columns[0] is _FASTER and len(rows) > 1
    reference = next((row.reference for row in rows if row.reference), "") if compared else ""
    print()
    print(title + (f"; times faster than {reference}" if reference else ""))
    print_rows(rows, columns)
    for row in rows:
        if columns not in (_STAGES, _LIMITS, _DENOISING) and row.error:
            name = f"{row.steady} {row.name}" if row.row == "video" else row.name
            print(f"{name}: {worded(row.error)}")


def _weights(row: Union[Machine, Video]) -> str:
    return "random weights" if row.random_weights else "its weights"
