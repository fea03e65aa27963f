"""`depth eval`: predictions against measured depth, as a table or JSON."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.running import RunOptions
from depthcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.eval.evaluate import Predict, Score
    from depthcli.eval.metrics import Figures
    from depthcli.predict.picture import DepthEstimator

# Field of Figures, heading, digits behind the point.
_COLUMNS = (
    ("abs_rel", "AbsRel", 3),
    ("sq_rel", "SqRel", 3),
    ("rmse", "RMSE", 3),
    ("rmse_log", "RMSElog", 3),
    ("log10", "log10", 3),
    ("silog", "SILog", 1),
    ("delta1", "delta1", 3),
    ("delta2", "delta2", 3),
    ("delta3", "delta3", 3),
    ("spearman", "Spearman", 3),
    ("prior", "prior", 3),
    ("pairs", "pairs", 3),
    ("boundary_f1", "edgeF1", 3),
)


def evaluate(
    name: Annotated[
        Path,
        typer.Argument(metavar="LIST", help="A .json or .csv that ties pictures and truths together: docs/eval.md."),
    ],
    root: Annotated[
        Optional[Path], typer.Option(help="Folder from which the paths in LIST start. Default: the list's own.")
    ] = None,
    align: Annotated[
        str,
        typer.Option(
            help="How predictions come to the truth's unit: scale-shift (least squares in disparity), median (scale "
            "of depth), none (metres as they are), or auto, which takes out what the kind of depth leaves open."
        ),
    ] = "auto",
    predictions: Annotated[
        Optional[Path],
        typer.Option(help="Score the saved depth files in this folder (STEM_depth.npz, ...) instead of a model."),
    ] = None,
    prediction_kind: Annotated[
        Optional[str],
        typer.Option(
            help="What NPY, PFM and foreign NPZ files in that folder hold: relative_disparity, relative_depth or "
            "metric_depth. Files written by depth say it themselves."
        ),
    ] = None,
    output: Annotated[
        Optional[str],
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write everything as JSON, or with - to stdout instead of the table.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    errors: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FOLDER",
            help="Write NAME_error.png for each picture: photo, prediction, truth and relative error side by side.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    encoder: opt.Encoder = "auto",
    metric: opt.Metric = None,
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    max_depth: opt.MaxDepth = None,
    offline: opt.Offline = False,
    trust_checkpoint: opt.TrustCheckpoint = False,
    input_size: opt.InputSize = None,
    device: opt.Device = "auto",
    backend: opt.BackendName = "auto",
    precision: opt.Precision = "auto",
    calibration: opt.Calibration = None,
) -> None:
    """Score a model, or saved predictions, against measured depth.

    The table has one row per picture and their mean; beside the rank correlation (Spearman) stands what the guess
    "lower in the picture is nearer" gets (prior). The protocol of alignment is printed with it. A picture that fails is
    named and the rest goes on.

    Examples: depth eval list.json · depth eval list.json --root data --encoder vits --json scores.json ·
    depth eval list.csv --predictions maps --errors look
    """
    from depthcli.eval.lists import read_list
    from depthcli.eval.predictions import SavedPredictions, parse_kind

    options = RunOptions(
        encoder=encoder,
        metric=metric,
        model=model,
        checkpoint=checkpoint,
        max_depth=max_depth,
        offline=offline,
        trust_checkpoint=trust_checkpoint,
        input_size=input_size,
        device=device,
        backend=backend,
        precision=precision,
        calibration=calibration,
    )
    _check(options, align, predictions, prediction_kind, output, errors)
    kind = parse_kind(prediction_kind)
    entries = read_list(name, root)
    _make_ready(output, errors)
    if predictions is not None:
        source: dict[str, Any] = {"list": name.name, "predictions": str(predictions)}
        scores, code = _run(entries, SavedPredictions(predictions, entries, kind), align, errors)
    else:
        with options.load() as estimator:
            source = {"list": name.name, **_facts(estimator, align)}
            scores, code = _run(entries, lambda entry, picture: estimator.estimate(picture), align, errors)
    if output != "-":
        _print_table(scores, len(entries))
    if output is not None:
        _write_json(scores, align, source, output, len(entries))
    raise typer.Exit(code)


def _check(
    options: RunOptions,
    align: str,
    predictions: Optional[Path],
    kind: Optional[str],
    output: Optional[str],
    errors: Optional[Path],
) -> None:
    """Refuse what cannot be before anything is loaded."""
    from depthcli.eval.alignment import check_name

    check_name(align)
    if predictions is None and kind is not None:
        raise UsageError("--prediction-kind is about saved files", "it goes with --predictions")
    if predictions is not None and options != RunOptions():
        raise UsageError("--predictions are made already, no model runs", "leave out the options of model and run")
    if predictions is not None and not predictions.is_dir():
        raise UsageError(f"{predictions} is not a folder", "check --predictions")
    if output == "":
        raise UsageError("--json is empty", "is a variable of your script unset?")
    if output not in (None, "-") and Path(str(output)).is_dir():
        raise UsageError(f"{output} is a folder, not a file", "name the file of --json")
    if errors is not None and errors.exists() and not errors.is_dir():
        raise UsageError(f"{errors} is a file, not a folder", "use another --errors")


def _make_ready(output: Optional[str], errors: Optional[Path]) -> None:
    """Make the folders of all that will be written and try them: not when the scores are there, to be lost."""
    folders = [] if output in (None, "-") else [Path(str(output)).parent]
    for folder in folders if errors is None else [*folders, errors]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}", "use another folder") from error


def _facts(estimator: "DepthEstimator", align: str) -> dict[str, Any]:
    """Return what a reader of the scores needs to know of the model, once the alignment is seen to fit it."""
    from depthcli.eval.alignment import choose

    choose(align, estimator.row.kind, metres=True)
    return {
        "model": estimator.row.name,
        "kind": estimator.row.kind.value,
        "weights": estimator.weights.path.name,
        "weights_sha256": estimator.weights.sha256,
        "engine": estimator.description,
        "input_size": estimator.input_size,
    }


def _run(entries: Sequence[Any], predict: "Predict", align: str, errors: Optional[Path]) -> tuple[list["Score"], int]:
    """Return the scores and the exit code; failures and progress go to stderr as they come.

    Ctrl-C and SIGTERM end it after the picture at hand, a second one at once; the scores so far are returned.
    """
    from depthcli.cli.report import Report, say, stop_signals
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
        say(_interrupted(scores, len(entries)))
    return scores, progress.exit_code(interrupted)


def _interrupted(scores: Sequence["Score"], total: int) -> str:
    return f"interrupted: {len(scores)} of {total} pictures"


def _print_table(scores: Sequence["Score"], total: int) -> None:
    """Print the figures of all pictures that have some, their mean, and the protocol. total: entries of the list."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from depthcli.eval.alignment import protocol
    from depthcli.eval.evaluate import better_than_prior, mean, pictures_in_mean

    scored = [score for score in scores if not score.error]
    if not scored:
        return
    means = mean(scored)
    columns = [column for column in _COLUMNS if getattr(means, column[0]) is not None]
    turned = False
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("picture", no_wrap=True)
    table.add_column("known", justify="right", no_wrap=True)
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for score in scored:
        over = bool(score.alignment and score.alignment.turned_over)
        known = f"{score.known / score.elements:.0%}" if score.elements else "-"
        turned |= over
        cells = _cells(score.figures, columns)
        table.add_row(score.entry.name + " !" * over, known, *cells, style="red" if over else None)
    table.add_section()
    table.add_row(f"mean of {len(scored)}", "", *_cells(means, columns), style="bold")
    counts = [pictures_in_mean(scored)[field] for field, _, _ in columns]
    if set(counts) != {len(scored)}:
        table.add_row("over", "", *map(str, counts))
    console = Console(highlight=False, markup=False, emoji=False)
    # As wide as the table is: a figure that is cut off is a wrong one.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)
    if turned:
        print("! negative scale: the prediction runs against the truth, and its errors are those of its negative")
    if len(scores) < total:
        print(_interrupted(scores, total))
    better, compared = better_than_prior(scored)
    if compared:
        print(f'Spearman is above that of "lower in the picture is nearer" (prior) on {better} of {compared} pictures')
    print(f"protocol: {protocol(score.alignment for score in scored if score.alignment)}")


def _cells(figures: "Figures", columns: Sequence[tuple[str, str, int]]) -> list[str]:
    values = [(getattr(figures, field), digits) for field, _, digits in columns]
    return ["-" if value is None else f"{value:.{digits}f}" for value, digits in values]


def _write_json(scores: Sequence["Score"], align: str, source: dict[str, Any], output: str, total: int) -> None:
    from depthcli.eval.evaluate import report
    from depthcli.host.atomic import atomic_path

    text = json.dumps(report(scores, align, source, total), indent=1, allow_nan=False)
    if output == "-":
        print(text)
        return
    with atomic_path(Path(output)) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
