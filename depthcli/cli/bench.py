"""`depth bench`: how fast the engines are on this machine, as tables or JSON."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional, Union

import typer

from depthcli.cli import options as opt
from depthcli.errors import UsageError

if TYPE_CHECKING:
    from depthcli.bench.rows import (
        Folder,
        Load,
        Machine,
        Network,
        Process,
        Roofline,
        Row,
        Stages,
        Throughput,
        Video,
    )

Cell = Union[str, float, None]

CLIP_PANEL = "Clips"

# The packages that compute, as the head names them; JSON has more.
_ENGINES = ("torch", "openvino", "onnxruntime")


def bench(
    encoder: Annotated[
        str,
        typer.Option(
            help="Size of the network: tiny, vits, vitb, vitl, vitg. auto takes vits.", rich_help_panel=opt.MODEL_PANEL
        ),
    ] = "auto",
    metric: opt.Metric = None,
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    trust_checkpoint: opt.TrustCheckpoint = False,
    backend: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Engines to compare: auto, torch, openvino, onnx, or all of these; torchscript and neuron, which run "
            "what `depth compile` wrote. Repeat it or separate with commas.",
            rich_help_panel=opt.RUN_PANEL,
        ),
    ] = None,
    input_size: Annotated[
        Optional[int],
        typer.Option(
            "--size",
            "--input-size",
            help="Shorter side of the network's input in pixels. Default: the model's own.",
            rich_help_panel=opt.RUN_PANEL,
        ),
    ] = None,
    device: opt.Device = "auto",
    precision: opt.Precision = "auto",
    calibration: opt.Calibration = None,
    artifacts: opt.Artifacts = None,
    shape_policy: opt.ShapePolicy = "strict",
    allow_standin: opt.AllowStandin = False,
    images: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="Time all pictures below this folder too, as `depth dir`. Default: one synthetic picture.",
        ),
    ] = None,
    picture: Annotated[
        Optional[str], typer.Option(metavar="WxH", help="Size of the synthetic picture in pixels. Default: 640x480.")
    ] = None,
    runs: Annotated[int, typer.Option(help="How often each engine is timed, in turns with the others.")] = 10,
    warmup: Annotated[int, typer.Option(help="Turns before those that count.")] = 2,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Compare with the official code's form of the network and, with --images, its script's loop. Slow.",
        ),
    ] = False,
    duration: Annotated[
        float,
        typer.Option(
            help="Seconds that an engine is kept busy for its throughput, which is measured for compiled networks, and "
            "for all with --cost-per-hour."
        ),
    ] = 10.0,
    cost_per_hour: Annotated[
        Optional[float],
        typer.Option(help="What this machine costs an hour; says what a million pictures cost on it."),
    ] = None,
    video: Annotated[
        bool,
        typer.Option(
            "--video",
            help="Measure clips instead of pictures: speed and steadiness, frame by frame, with the filter of `depth "
            "video`, and with the model for video of that encoder.",
            rich_help_panel=CLIP_PANEL,
        ),
    ] = False,
    clip: Annotated[
        Optional[Path],
        typer.Option(
            metavar="CLIP",
            help="A video file or a folder of frames for --video. Default: a synthetic one.",
            rich_help_panel=CLIP_PANEL,
        ),
    ] = None,
    frames: Annotated[
        Optional[int],
        typer.Option(
            help="How many frames of it, and of the synthetic clips. Default: 44.", rich_help_panel=CLIP_PANEL
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per row, and no tables.")] = False,
) -> None:
    """Measure speed and memory: engines side by side, whole processes, and a folder; or clips, and how steady they are.

    Nothing is downloaded: without weights the network gets random ones, which take as long.
    Engines take turns, as machines are shared: what to compare is rows of one run, by their ratios.
    Progress goes to stderr.

    Examples: depth bench · depth bench --encoder vits --backend all · depth bench --images photos --peers --json ·
    depth bench --backend neuron --cost-per-hour 0.228 · depth bench --video --clip clip.mp4
    """
    from depthcli.choices import ModelChoice

    choice = ModelChoice(model, encoder, metric, checkpoint, trust=trust_checkpoint)
    if video:
        _refuse(
            "--video measures clips",
            ("--images", images),
            ("--picture", picture),
            ("--peers", peers),
            ("--cost-per-hour", cost_per_hour),
            ("--calibration", calibration),
            ("--artifacts", artifacts),
            ("--shape-policy", shape_policy != "strict"),
            ("--allow-standin", allow_standin),
        )
        from depthcli.bench.clips import FRAMES, VideoBenchJob, run_video_benchmark

        count = FRAMES if frames is None else frames
        clips = VideoBenchJob(choice, _names(backend), device, precision, input_size, clip, count, runs, warmup)
        _report(lambda talk: run_video_benchmark(clips, talk), as_json)
        return
    _refuse("only --video measures clips", ("--clip", clip), ("--frames", frames))
    from depthcli.bench.pictures import BenchJob, run_benchmark

    job = BenchJob(
        model=choice,
        backends=_names(backend),
        device=device,
        precision=precision,
        calibration=calibration,
        input_size=input_size,
        images=images,
        picture=_parse_size(picture),
        runs=runs,
        warmup=warmup,
        peers=peers,
        artifacts=artifacts,
        shape_policy=shape_policy,
        allow_standin=allow_standin,
        duration=duration,
        cost_per_hour=cost_per_hour,
    )
    _report(lambda talk: run_benchmark(job, talk), as_json)


def _refuse(because: str, *options: tuple[str, Any]) -> None:
    """Raise UsageError for the first of the options that was given."""
    for name, value in options:
        if value is not None and value is not False:
            raise UsageError(f"{because}: {name} does not go with that", f"leave out {name}")


def _report(measure: "Callable[[Callable[[str], None]], Iterator[Row]]", as_json: bool) -> None:
    """Print what is measured: rows as they come, or tables in the end."""
    from depthcli.cli.report import say, stop_signals

    rows: list[Row] = []
    with stop_signals(quiet=True) as stop:
        stop.at_once = True  # SIGTERM too leaves nothing behind
        try:
            for row in measure(say):
                if as_json:
                    print(row.to_json(), flush=True)
                rows.append(row)
        except KeyboardInterrupt:
            if len(rows) > 1 and not as_json:
                _print(rows)  # what was measured until then is right
            raise
    if not as_json:
        _print(rows)


def _names(backend: Optional[Sequence[str]]) -> tuple[str, ...]:
    """Return the engines of `--backend`, which may be repeated and may hold lists with commas."""
    if backend is None:
        return ("auto",)
    names = tuple(name.strip() for item in backend for name in item.split(",") if name.strip())
    if not names:
        raise UsageError("--backend is empty", "is a variable of your script unset?")
    return names


def _parse_size(picture: Optional[str]) -> Optional[tuple[int, int]]:
    if picture is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", picture)
    if match is None:
        raise UsageError(f"{picture!r} is no size of a picture", "give --picture as 640x480")
    return int(match[1]), int(match[2])


# --- Tables -----------------------------------------------------------------------------------------------------------


def _print(rows: Sequence["Row"]) -> None:
    """Print the head, a table for each kind of row, and what failed."""
    kinds: dict[str, list[Any]] = {}
    for row in rows:
        kinds.setdefault(row.row, []).append(row)
    (machine,) = kinds["machine"]
    if "video" in kinds:
        _print_videos(machine, kinds["video"], *kinds.get("load", []))
        return
    _print_head(machine, *kinds.get("load", []))
    _print_networks(machine, kinds["network"], kinds.get("roofline", []))
    for kind, show in (
        ("stages", _print_stages),
        ("process", _print_processes),
        ("throughput", _print_throughputs),
        ("folder", _print_folders),
    ):
        if kind in kinds:  # not where it was interrupted before that
            show(kinds[kind])


def _print_head(machine: "Machine", load: Optional["Load"] = None) -> None:
    print(f"{machine.title} ({machine.model}), {_weights(machine)}, {machine.gflop:.4g} GFLOP per picture")
    which = f"the first of {machine.pictures} pictures" if machine.pictures > 1 else "one picture"
    print(f"{which}: {_by(machine.picture_size)} px, network input {_by(machine.input_size)} px")
    _print_machine(machine, load)


def _print_machine(machine: "Machine", load: Optional["Load"]) -> None:
    flags = f", {' '.join(machine.flags)}" if machine.flags else ""
    print(f"{machine.cpu}, {_count(machine.cores, 'core')}, {_count(machine.threads, 'thread')}{flags}")
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in _ENGINES if name in machine.versions)
    print(f"{machine.system}, Python {machine.python}, {versions}")
    took = "interrupted" if load is None else f"{load.seconds:.0f} s"
    after = "" if load is None else f" and {load.after} after"
    loads = "" if machine.load is None else f", load average {machine.load} before{after}"
    print(f"{machine.date}, {took}{loads}")
    if machine.load is not None and machine.load > machine.cores / 2:
        print("other work ran on this machine, which slows some engines more than others: compare with care")


def _print_networks(machine: "Machine", rows: Sequence["Network"], rooflines: Sequence["Roofline"]) -> None:
    _print_table(
        f"network alone, {_count(machine.runs, 'turn')} after {machine.warmup} of warm-up",
        rows,
        (
            ("faster", lambda row: _times(row.faster)),
            ("engine", lambda row: row.name),
            ("precision", lambda row: row.precision),
            ("median ms", lambda row: row.median_ms),
            ("p90 ms", lambda row: row.p90_ms),
            ("spread", lambda row: _percent(row.spread)),
            ("GFLOP/s", lambda row: row.gflop_s),
            ("of best product", lambda row: _percent(row.roofline)),
            ("open s", lambda row: row.open_s),
        ),
    )
    if rooflines:
        best = ", ".join(
            f"{line.precision} {_number(line.gflop_s)} GFLOP/s ({line.side} x {line.side})" for line in rooflines
        )
        print(f"best product of two matrices in torch: {best}")
    print("spread: first to third quartile over the median; open: with the converted network in the cache")


def _print_stages(rows: Sequence["Stages"]) -> None:
    _print_table(
        "one picture, stage by stage, ms",
        rows,
        (
            ("faster", lambda row: _times(row.faster)),
            ("engine", lambda row: row.name),
            ("precision", lambda row: row.precision),
            ("total", lambda row: row.total_ms),
            ("read", lambda row: row.read_ms),
            ("prepare", lambda row: row.prepare_ms),
            ("network", lambda row: row.run_ms),
            ("finish", lambda row: row.finish_ms),
            ("write PNG", lambda row: row.write_ms),
        ),
    )


def _print_processes(rows: Sequence["Process"]) -> None:
    _print_table(
        "depth image, the whole process",
        rows,
        (
            ("faster", lambda row: _times(row.faster)),
            ("engine", lambda row: row.name),
            ("precision", lambda row: row.precision),
            ("first s", lambda row: row.first_s),
            ("again s", lambda row: row.again_s),
            ("peak MB", lambda row: _whole(row.peak_mb)),
        ),
    )


def _print_throughputs(rows: Sequence["Throughput"]) -> None:
    seconds = next((row.duration_s for row in rows if row.duration_s), None)
    _print_table(
        f"kept busy for {_number(seconds)} s each",
        rows,
        (
            ("engine", lambda row: row.name),
            ("of", lambda row: row.scope.replace("_", " ")),
            ("copies", lambda row: str(row.n_models)),
            ("threads each", lambda row: str(row.workers_per_model)),
            ("batch", lambda row: str(row.batch_size)),
            ("pictures/s", lambda row: row.throughput_avg),
            ("peak", lambda row: row.throughput_peak),
            ("p50 ms", lambda row: row.latency_ms_p50),
            ("p90 ms", lambda row: row.latency_ms_p90),
            ("p95 ms", lambda row: row.latency_ms_p95),
            ("p99 ms", lambda row: row.latency_ms_p99),
            ("host CPU", lambda row: None if row.host_cpu_percent is None else f"{row.host_cpu_percent:.0f}%"),
            ("per million", lambda row: row.cost_per_1m),
        ),
    )
    print("of: the network alone, or from a picture's file to a PNG, where the latency is the work on one picture")
    if any(row.simulated for row in rows):
        print("simulated: CPU stand-in, not Neuron; none of these figures says anything of a chip")


def _print_folders(rows: Sequence["Folder"]) -> None:
    spec = {"color": "colour", "side": "photo and colour side by side"}[rows[0].format]
    _print_table(
        f"depth dir, the whole process, {_count(max(row.pictures for row in rows), 'picture')}, {spec}",
        rows,
        (
            ("faster", lambda row: _times(row.faster)),
            ("engine", lambda row: row.name),
            ("precision", lambda row: row.precision),
            ("s", lambda row: row.seconds),
            ("s/picture", lambda row: row.seconds_per_picture),
            ("pictures/s", lambda row: row.pictures_per_second),
            ("over network", lambda row: _times(row.over_network)),
            ("peak MB", lambda row: _whole(row.peak_mb)),
        ),
    )
    print("over network: seconds of the whole over those in the network alone, measured for each size of input")


def _print_videos(machine: "Machine", rows: Sequence["Video"], load: Optional["Load"] = None) -> None:
    models = {row.title: f"{row.title} ({row.model}), {_weights(row)}" for row in rows}
    print(" · ".join(models.values()))
    clip, frames = rows[0].clip, max(row.frames for row in rows)
    print(f"{clip} clip: {_count(frames, 'frame')} of {_by(machine.picture_size)} px")
    _print_machine(machine, load)
    which: list[tuple[str, Callable[[Any], Cell]]] = [
        ("steady", lambda row: row.steady),
        ("engine", lambda row: row.name),
        ("precision", lambda row: row.precision),
    ]
    _print_table(
        f"depth video, {_count(machine.runs, 'turn')}",
        rows,
        (
            ("faster", lambda row: _times(row.faster)),
            *which,
            ("network frames/s", lambda row: row.network_fps),
            ("clip frames/s", lambda row: row.clip_fps),
            ("of network", lambda row: _percent(row.share)),
            ("process s", lambda row: row.process_s),
            ("process frames/s", lambda row: row.process_fps),
            ("peak MB", lambda row: _whole(row.peak_mb)),
        ),
    )
    print("clip: from opening it to the mp4, with the model loaded; process: with Python's start and loading")
    done = [row for row in rows if not row.error]
    _print_table(
        "step by step, ms per frame; depth video does them beside each other",
        done,
        (
            *which,
            ("input", lambda row: _by(row.input_size)),
            ("read", lambda row: row.read_ms),
            ("prepare", lambda row: row.prepare_ms),
            ("network", lambda row: row.network_ms),
            ("settle", lambda row: row.settle_ms),
            ("spool", lambda row: row.spool_ms),
            ("write mp4", lambda row: row.write_ms),
        ),
    )
    known = [row for row in done if not row.random_weights]
    if known:
        _print_table(
            "steadiness: smaller is steadier",
            known,
            (
                *which,
                ("OPW", lambda row: row.opw),
                ("flow flicker", lambda row: _finely(row.flow_flicker)),
                ("range jitter", lambda row: _finely(row.range_jitter)),
                ("still flicker", lambda row: _finely(row.flicker)),
                ("contrast kept", lambda row: _percent(row.contrast_kept)),
                ("cut bleeding", lambda row: row.cut_bleeding),
            ),
        )
        print(f"OPW, flow flicker, range jitter: {clip} clip; still flicker, contrast kept: a synthetic one, still;")
        print(
            "cut bleeding: a synthetic one, how much more a frame differs from itself alone behind a cut than elsewhere"
        )
    for name in dict.fromkeys(row.model for row in done if row.random_weights):
        print(f"{name} has random weights: how steady they are says nothing, and is left out")


def _print_table(title: str, rows: Sequence[Any], columns: Sequence[tuple[str, Callable[[Any], Cell]]]) -> None:
    """Print rows under a title, as wide as they are, and below them why rows have no figures."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, _ in columns:
        words = heading in ("steady", "engine", "precision", "of")
        table.add_column(heading, justify="left" if words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_number(value(row)) for _, value in columns))
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    reference = next((row.reference for row in rows if getattr(row, "reference", "")), "")
    compared = columns[0][0] == "faster" and len(rows) > 1 and reference
    print()
    print(title + (f"; times faster than {reference}" if compared else ""))
    console.print(table)
    for row in rows:
        if getattr(row, "error", ""):
            steady = getattr(row, "steady", "")
            print(f"{steady} {row.name}: {row.error}" if steady else f"{row.name}: {row.error}")


def _number(value: Cell) -> str:
    """Return a figure to three digits, a text as it is."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _times(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.2f}x"


def _percent(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.0%}"


def _finely(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.2%}"


def _weights(row: "Union[Machine, Video]") -> str:
    return "random weights" if row.random_weights else "its weights"


def _whole(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.0f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
