"""`depth eval`: predictions against measured depth, cameras against cameras, clouds against clouds."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from depthcli.cli.benchmark import benchmark
from depthcli.cli.groups import ADVANCED, PlainCommand, PlainGroup, flag, grouped, option
from depthcli.cli.options import BackendOptions, ModelOptions, NetworkOptions
from depthcli.cli.running import open_model
from depthcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.eval.evaluate import Predict, Score
    from depthcli.predict.picture import DepthEstimator

ALIGNMENTS = ("auto", "scale-shift", "median", "none")
PATH_ALIGNMENTS = ("sim3", "se3", "none")
KINDS = ("relative_disparity", "relative_depth", "metric_depth")


class EvalGroup(PlainGroup):
    """The commands of `depth eval`; without the name of one, it is `list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` before arguments that begin with no command, or `benchmark` if they name a protocol."""
        if args and args[0] not in (*self.commands, "--help", "-h"):
            names_protocol = any(word == "--protocol" or word.startswith("--protocol=") for word in args)
            args = ["benchmark" if names_protocol else "list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=EvalGroup, no_args_is_help=True, add_completion=False)


@app.callback()
def _root() -> None:
    """Score a model, or saved predictions, against measured depth.

    depth eval list.json                       a model over a list of pictures with measured depth
    depth eval poses camera_poses.txt truth    cameras against cameras
    depth eval cloud scene.ply truth.ply       points against points
    depth eval --protocol da3-pose DATA        a data set, by the protocol of a benchmark
    """


@app.command("list", cls=PlainCommand)
@grouped(without=("panorama", "batch"))
def evaluate(
    name: Annotated[
        Path, typer.Argument(metavar="LIST", help="A .json or .csv of pictures and measured depth: docs/eval.md.")
    ],
    root: Annotated[
        Optional[Path], option("Folder of the paths in LIST. Default: the list's own.", metavar="FOLDER")
    ] = None,
    align: Annotated[
        str,
        option(
            "scale-shift (least squares in disparity), median (scale of depth), none (metres as they are), or "
            "auto (what the kind of depth leaves open).",
            metavar="CHOICE",
            values=ALIGNMENTS,
            show_default=True,
        ),
    ] = "auto",
    predictions: Annotated[
        Optional[Path],
        option("Score the depth files in this folder (STEM_depth.npz, ...), not a model.", metavar="FOLDER"),
    ] = None,
    output: Annotated[
        Optional[str], option("Write all scores as JSON; - prints them instead of the table.", "--json", metavar="FILE")
    ] = None,
    errors: Annotated[
        Optional[Path],
        option("Write NAME_error.png: photo, prediction, truth and error side by side.", metavar="FOLDER"),
    ] = None,
    prediction_kind: Annotated[
        Optional[str],
        option(
            "Kind of NPY, PFM and foreign NPZ files: relative_disparity, relative_depth or metric_depth. "
            "Files of this program name it themselves.",
            panel=ADVANCED,
            metavar="KIND",
            values=KINDS,
        ),
    ] = None,
    *,
    model: ModelOptions,
    network: NetworkOptions,
    backend: BackendOptions,
) -> None:
    """Score a model, or saved predictions, against measured depth.

    depth eval list.json
    depth eval list.json --root data --encoder vits --json scores.json
    depth eval list.csv --predictions maps --errors look

    The table has one row per picture and their mean. Next to the rank correlation (Spearman) stands
    that of a simple guess, "lower in the picture is nearer" (prior).
    Pictures that fail are named, and the others are scored.
    """
    from depthcli.eval.lists import read_list
    from depthcli.eval.predictions import SavedPredictions, parse_kind

    has_model = (model, network, backend) != (ModelOptions(), NetworkOptions(), BackendOptions())
    _check(has_model, align, predictions, prediction_kind, output, errors)
    kind = parse_kind(prediction_kind)
    entries = read_list(name, root)
    _prepare(output, errors)
    if predictions is not None:
        source: dict[str, Any] = {"list": name.name, "predictions": str(predictions)}
        scores, code = _run(entries, SavedPredictions(predictions, entries, kind), align, errors)
    else:
        with open_model(model, backend, network) as estimator:
            source = {"list": name.name, **_facts(estimator, align)}
            scores, code = _run(entries, lambda entry, picture: estimator.estimate(picture), align, errors)
    if output != "-":
        from depthcli.cli.eval_table import print_scores

        print_scores(scores, len(entries))
    if output is not None:
        _write_json(scores, align, source, output, len(entries))
    raise typer.Exit(code)


@app.command("poses", cls=PlainCommand)
def poses(
    predicted: Annotated[
        Path, typer.Argument(metavar="PREDICTED", help="Path of cameras, or a scene's folder of them.")
    ],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The true path, in any of the formats.")],
    align: Annotated[
        str,
        option(
            "How the path is moved onto the truth: sim3 (with one scale), se3, or none.",
            metavar="CHOICE",
            values=PATH_ALIGNMENTS,
            show_default=True,
        ),
    ] = "sim3",
    as_json: Annotated[bool, flag("Print JSON instead of the table.", "--json")] = False,
) -> None:
    """Score cameras against true ones: pose AUC, ATE and RPE.

    depth eval poses clip_scene/camera_poses.txt groundtruth.txt
    depth eval poses scene/cameras.json colmap/sparse/0 --align se3

    Formats: TUM, KITTI, 4x4 matrices, Open3D's log, a folder of 7-Scenes, and files of cameras, such as COLMAP's.
    Cameras belong together by name, by time, or by their order.
    """
    from depthcli.eval.poses import PROTOCOL, check_alignment, score_poses
    from depthcli.io.trajectories import in_common, read_trajectory

    check_alignment(align)
    ours, theirs = read_trajectory(predicted), read_trajectory(truth)
    here, there = in_common(ours, theirs)
    score = score_poses(ours.extrinsics[here], theirs.extrinsics[there], align)
    facts = {"views": len(here), "of": [len(ours), len(theirs)], "align": align, **score}
    _print_figures(facts, PROTOCOL, as_json)


@app.command("cloud", cls=PlainCommand)
def cloud(
    predicted: Annotated[Path, typer.Argument(metavar="PREDICTED", help="Points: PLY, PCD, LAZ, GLB.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="True points, in the same world and unit.")],
    threshold: Annotated[
        float, option("Points nearer than this are right, in the unit of the clouds.", metavar="LENGTH")
    ],
    voxel: Annotated[
        Optional[float],
        option("Replace points by their means in boxes of this width before. Default: no boxes.", metavar="LENGTH"),
    ] = None,
    as_json: Annotated[bool, flag("Print JSON instead of the table.", "--json")] = False,
) -> None:
    """Score points against true ones: accuracy, completeness, F-score.

    depth eval cloud scene.ply scan.ply --threshold 0.05
    depth eval cloud scene.ply scan.ply --threshold 0.25 --voxel 0.05

    Both clouds are taken as they are: nothing moves or scales them.
    """
    from dataclasses import asdict

    from depthcli.eval.clouds import PROTOCOL, read_points, score_cloud

    for name, length in (("threshold", threshold), ("voxel", voxel)):
        if length is not None and not 0 < length < float("inf"):
            raise UsageError(f"`{name}` must be more than 0, got {length:g}")
    ours, theirs = read_points(predicted), read_points(truth)
    try:
        score = score_cloud(ours, theirs, threshold, voxel)
    except ValueError as error:
        raise UsageError(f"cannot compare {predicted} with {truth}: {error}") from error
    _print_figures({"points": [len(ours), len(theirs)], **asdict(score)}, PROTOCOL, as_json)


app.command("benchmark", cls=PlainCommand)(benchmark)


def _print_figures(facts: dict[str, Any], protocol: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**facts, "protocol": protocol}, indent=1, allow_nan=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = (
            f"{value:.6g}"
            if isinstance(value, float)
            else " of ".join(map(str, value))
            if isinstance(value, list)
            else value
        )
        print(f"{name.replace('_', ' '):{width}}  {shown}")
    print(f"protocol: {protocol}")


def _check(
    has_model: bool,
    align: str,
    predictions: Optional[Path],
    kind: Optional[str],
    output: Optional[str],
    errors: Optional[Path],
) -> None:
    """Raise UsageError for contradictions before anything is loaded. has_model: options of a model were given."""
    from depthcli.eval.alignment import check_name

    check_name(align)
    if predictions is None and kind is not None:
        raise UsageError("`prediction_kind` needs `predictions`", "it describes saved files")
    if predictions is not None and has_model:
        raise UsageError("`predictions` are made already, no model runs", "leave out the options of model and speed")
    if predictions is not None and not predictions.is_dir():
        raise UsageError(f"{predictions} is not a folder", "check `predictions`")
    if output == "":
        raise UsageError("--json is empty", "is a variable of your script unset?")
    if output not in (None, "-") and Path(str(output)).is_dir():
        raise UsageError(f"{output} is a folder, not a file", "name the file of --json")
    if errors is not None and errors.exists() and not errors.is_dir():
        raise UsageError(f"{errors} is a file, not a folder", "use another `errors`")


def _prepare(output: Optional[str], errors: Optional[Path]) -> None:
    """Make the output folders and try to write there, so that no scores are lost at the end."""
    folders = [] if output in (None, "-") else [Path(str(output)).parent]
    for folder in folders if errors is None else [*folders, errors]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}", "use another folder") from error


def _facts(estimator: "DepthEstimator", align: str) -> dict[str, Any]:
    """Return the facts of the model for the JSON. Raises UsageError if the alignment does not fit its kind of depth."""
    from depthcli.eval.alignment import choose

    choose(align, estimator.row.kind, metres=True)
    return {
        "model": estimator.row.name,
        "kind": estimator.row.kind.value,
        "weights": estimator.weights.path.name,
        "weights_sha256": estimator.weights.sha256,
        "engine": estimator.description,
        "input_size": estimator.input_size,
        **({"detail": estimator.detail} if estimator.detail != "off" else {}),
    }


def _run(entries: Sequence[Any], predict: "Predict", align: str, errors: Optional[Path]) -> tuple[list["Score"], int]:
    """Return the scores and the exit code; failures and progress go to stderr.

    Ctrl-C and SIGTERM end it after the current picture, a second one at once; the scores so far are returned.
    """
    from depthcli.cli.eval_table import interrupted_line
    from depthcli.cli.report import Report, log, stop_signals
    from depthcli.eval.evaluate import evaluate
    from depthcli.jobs.manifest import DONE, FAILED, Result

    scores = []
    with Report(len(entries)) as progress, stop_signals(quiet=False) as stop:
        try:
            for score in evaluate(entries, predict, align, errors):
                scores.append(score)
                status = FAILED if score.error else DONE
                progress.add(Result(score.entry.place, (), status, error=score.error, code=score.code))
                if stop.asked:
                    break
        except KeyboardInterrupt:
            pass
        progress.finish()
    interrupted = len(scores) < len(entries)
    if interrupted:
        log(interrupted_line(scores, len(entries)))
    return scores, progress.exit_code(interrupted)


def _write_json(scores: Sequence["Score"], align: str, source: dict[str, Any], output: str, total: int) -> None:
    from depthcli.eval.evaluate import report
    from depthcli.host.atomic import atomic_path

    text = json.dumps(report(scores, align, source, total), indent=1, allow_nan=False)
    if output == "-":
        print(text)
        return
    with atomic_path(Path(output)) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
