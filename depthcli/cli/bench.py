"""`depth bench`: how fast the backends are on this machine, as tables or JSON."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Callable, Optional

from depthcli.cli.groups import CLIP, MODEL, flag, grouped, option
from depthcli.cli.options import BackendOptions, ModelOptions
from depthcli.errors import UsageError
from depthcli.jobs.parsing import parse_list, parse_size

if TYPE_CHECKING:
    from depthcli.bench.rows import Row


@grouped(without=("offline", "max_depth", "backend"))
def bench(
    images: Annotated[
        Optional[Path],
        option("Also time all pictures in this folder. Default: one synthetic picture.", metavar="FOLDER"),
    ] = None,
    picture: Annotated[
        Optional[str], option("Size of the synthetic picture in pixels. Default: 640x480.", metavar="WxH")
    ] = None,
    runs: Annotated[int, option("Timed runs of each backend, in turns. Default: 10.", metavar="N")] = 10,
    warmup: Annotated[int, option("Runs before the timed ones. Default: 2.", metavar="N")] = 2,
    peers: Annotated[
        bool,
        flag(
            "Compare with the official code, transformers and a plain ONNX export; with --images also the official "
            "script. Slow.",
            "--peers",
        ),
    ] = False,
    profile: Annotated[
        bool, flag("Also print the ten operators of the network that take the most time.", "--profile")
    ] = False,
    quality: Annotated[
        bool,
        flag(
            "With --images: compare every precision with exact maps, and choose the layers of int8. Slow.", "--quality"
        ),
    ] = False,
    duration: Annotated[
        float,
        option(
            "Length of the throughput test, for compiled networks and --cost-per-hour. Default: 10.", metavar="SECONDS"
        ),
    ] = 10.0,
    cost_per_hour: Annotated[
        Optional[float],
        option("Price of this machine per hour; prints the cost of a million pictures.", metavar="PRICE"),
    ] = None,
    remember: Annotated[
        bool, flag("Let --backend auto take the fastest on this machine, for this network and precision.", "--remember")
    ] = False,
    as_json: Annotated[bool, flag("Print one JSON object per row instead of tables.", "--json")] = False,
    video: Annotated[
        bool,
        flag("Measure clips: speed and steadiness of frames alone, filter and video model.", "--video", panel=CLIP),
    ] = False,
    clip: Annotated[
        Optional[Path], option("Video file or folder of frames. Default: synthetic.", panel=CLIP, metavar="CLIP")
    ] = None,
    frames: Annotated[Optional[int], option("Number of frames. Default: 44.", panel=CLIP, metavar="N")] = None,
    backends: Annotated[
        Optional[list[str]],
        option(
            "auto, torch, openvino, onnx, all (these), torchscript, neuron. Default: auto.",
            "--backend",
            panel=MODEL,
            metavar="A,B",
            values=("auto", "all", "torch", "openvino", "onnx", "torchscript", "neuron"),
        ),
    ] = None,
    input_size: Annotated[
        Optional[int],
        option(
            "Shorter side of the network input. Default: the model's own.",
            "--input-size",
            "--size",
            panel=MODEL,
            metavar="PIXELS",
        ),
    ] = None,
    *,
    model: ModelOptions,
    backend: BackendOptions,
) -> None:
    """Measure speed and memory of the backends; with --video, speed and steadiness of clips.

    depth bench --encoder vits --backend all
    depth bench --images photos --peers --json
    depth bench --encoder vits --profile
    depth bench --encoder vits --quality --images photos
    depth bench --backend neuron --cost-per-hour 0.228
    depth bench --encoder vits --remember
    depth bench --video --clip clip.mp4

    Nothing is downloaded: missing weights are replaced by random ones, which take the same time.
    Backends take turns, because machines are shared: compare rows of one run, by their ratios.
    Progress goes to stderr.
    """
    names = ("all" if remember else "auto",) if backends is None else parse_list(backends)
    if not names:
        raise UsageError("`backends` is empty", "is a variable of your script unset?")
    if video:
        _refuse(
            "measures pictures, not clips",
            "leave it out",
            images=images,
            picture=picture,
            peers=peers,
            remember=remember,
            profile=profile,
            quality=quality,
            cost_per_hour=cost_per_hour,
            calibration=backend.calibration,
            artifacts=backend.artifacts,
            shape_policy=backend.shape_policy != "strict",
            allow_standin=backend.allow_standin,
        )
        from depthcli.zoo.rows import DEPTHCRAFTER

        chosen = model.choice()
        if chosen.model == DEPTHCRAFTER:
            from depthcli.bench.denoising import SIZE, DenoisingBenchJob, run_denoising_benchmark
            from depthcli.choices.model import BackendChoice
            from depthcli.temporal.denoising import EIGHT

            if len(names) > 1:
                raise UsageError(f"torch alone runs {DEPTHCRAFTER}", "leave out `backend`")
            chosen_backend = BackendChoice(names[0], backend.device, backend.precision)
            size, count = SIZE if input_size is None else input_size, EIGHT if frames is None else frames
            denoising = DenoisingBenchJob(chosen, chosen_backend, size, clip, count, runs, warmup)
            _report(lambda log: run_denoising_benchmark(denoising, log), as_json)
            return
        from depthcli.bench.clips import FRAMES, VideoBenchJob, run_video_benchmark

        count = FRAMES if frames is None else frames
        clips = VideoBenchJob(
            model.choice(), names, backend.device, backend.precision, input_size, clip, count, runs, warmup
        )
        _report(lambda log: run_video_benchmark(clips, log), as_json)
        return
    _refuse("needs --video", "add --video", clip=clip, frames=frames)
    from depthcli.bench.pictures import BenchJob, run_benchmark

    job = BenchJob(
        model=model.choice(),
        backends=names,
        device=backend.device,
        precision=backend.precision,
        calibration=backend.calibration,
        input_size=input_size,
        images=images,
        picture=None if picture is None else parse_size(picture, "picture", "640x480"),
        runs=runs,
        warmup=warmup,
        peers=peers,
        profile=profile,
        quality=quality,
        artifacts=backend.artifacts,
        shape_policy=backend.shape_policy,
        allow_standin=backend.allow_standin,
        duration=duration,
        cost_per_hour=cost_per_hour,
        remember=remember,
    )
    _report(lambda log: run_benchmark(job, log), as_json)


def _refuse(reason: str, hint: str, **settings: Any) -> None:
    """Raise UsageError for the first of the settings that was given."""
    for name, value in settings.items():
        if value is not None and value is not False:
            raise UsageError(f"`{name}` {reason}", hint)


def _report(measure: "Callable[[Callable[[str], None]], Iterator[Row]]", as_json: bool) -> None:
    """Print what is measured: JSON row by row, or tables at the end."""
    from depthcli.cli.bench_tables import print_benchmark
    from depthcli.cli.report import log, stop_signals

    rows: list[Row] = []
    with stop_signals(quiet=True) as stop:
        stop.at_once = True  # SIGTERM too leaves nothing behind
        try:
            for row in measure(log):
                if as_json:
                    print(row.to_json(), flush=True)
                rows.append(row)
        except KeyboardInterrupt:
            if len(rows) > 1 and not as_json:
                print_benchmark(rows)  # what was measured until then is right
            raise
    if not as_json:
        print_benchmark(rows)
