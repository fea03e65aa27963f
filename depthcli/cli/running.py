"""From parsed options to a folder job that runs: what `image` and `dir` have in common."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import functools
import inspect
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Callable, Optional

import typer

from depthcli.cli import options as opt
from depthcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.estimator import DepthEstimator
    from depthcli.io.writers import OutputSpec
    from depthcli.jobs.folder import FolderJob
    from depthcli.jobs.inputs import Task
    from depthcli.jobs.manifest import Manifest, Result


@dataclass(frozen=True)
class RunOptions:
    """The options that every command which runs a model has, as the user gave them, in the order of the help."""

    formats: opt.Formats = None
    colormap: opt.Colormap = "Spectral_r"
    grayscale: opt.Grayscale = False
    pred_only: opt.PredOnly = False
    if_exists: opt.IfExists = "skip"
    encoder: opt.Encoder = "auto"
    metric: opt.Metric = None
    model: opt.Model = None
    checkpoint: opt.Checkpoint = None
    max_depth: opt.MaxDepth = None
    offline: opt.Offline = False
    trust_checkpoint: opt.TrustCheckpoint = False
    input_size: opt.InputSize = None
    panorama: opt.Panorama = False
    device: opt.Device = "auto"
    backend: opt.BackendName = "auto"
    precision: opt.Precision = "auto"
    calibration: opt.Calibration = None
    artifacts: opt.Artifacts = None
    shape_policy: opt.ShapePolicy = "strict"
    allow_standin: opt.AllowStandin = False
    batch: opt.Batch = 1
    as_json: opt.Json = False
    quiet: opt.Quiet = False
    verbose: opt.Verbose = False

    def output_spec(self, suffix: str = "") -> "OutputSpec":
        """Return what is written for each picture. suffix: of the one output file that was named, or empty."""
        from depthcli.colormap import color_table
        from depthcli.io.writers import FORMATS, OutputSpec, parse_formats

        if self.grayscale and self.formats:
            raise UsageError("--grayscale and --format contradict each other", "--grayscale means --format gray8")
        default = "npz" if suffix == ".npz" else "color"
        formats = ("gray8",) if self.grayscale else parse_formats(self.formats or (default,))
        color_table(self.colormap)  # an unknown name is an error now, not after the first forward pass
        if suffix:
            if len(formats) > 1:
                raise UsageError("one file cannot hold several formats", "give a folder with -o, or one --format")
            if FORMATS[formats[0]].suffix != suffix:
                raise UsageError(
                    f"{formats[0]} is written as {FORMATS[formats[0]].suffix}, not {suffix}",
                    "name such a file, or a folder with / at its end",
                )
        return OutputSpec(formats, self.colormap)

    def settings(self, formats: Sequence[str]) -> str:
        """Return the options that shape results of these formats as one line, for the manifest."""
        shaping = {
            "encoder": self.encoder,
            "metric": self.metric,
            "model": self.model,
            "checkpoint": self.checkpoint and self.checkpoint.name,
            "max-depth": self.max_depth,
            "input-size": self.input_size,
            "panorama": self.panorama or None,
            "backend": self.backend,
            "precision": self.precision,
            "shape-policy": self.shape_policy if self.shape_policy != "strict" else None,
            "colormap": self.colormap if {"color", "side"} & set(formats) else None,
        }
        return " ".join(f"{name}={value}" for name, value in shaping.items() if value is not None)

    def load(self) -> "DepthEstimator":
        """Return the estimator; may download. What it says of downloads and fallbacks is said with --quiet too."""
        from depthcli.cli.report import say
        from depthcli.estimator import EngineChoice, ModelChoice, open_estimator

        choice = ModelChoice(
            model=self.model,
            encoder=self.encoder,
            metric=self.metric,
            checkpoint=self.checkpoint,
            max_depth=self.max_depth,
            offline=self.offline,
            trust=self.trust_checkpoint,
        )
        engine = EngineChoice(
            self.backend,
            self.device,
            self.precision,
            self.calibration,
            self.artifacts,
            self.shape_policy,
            self.allow_standin,
        )
        return open_estimator(choice, engine, self.input_size, say, self.panorama)


def with_run_options(**defaults: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of RunOptions behind its own; it gets them as one value, `options`.

    defaults: values that differ from those of RunOptions in this command. Typer reads a command's signature, so the
    signature is what is made here.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [item for item in inspect.signature(command).parameters.values() if item.name != "options"]
        shared = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(field.name, field.default),
                annotation=field.type,
            )
            for field in fields(RunOptions)
        ]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            options = RunOptions(**{item.name: values.pop(item.name) for item in shared})
            command(**values, options=options)

        wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own] + shared
        )
        wrapper.__annotations__ = {item.name: item.annotation for item in own + shared}
        return wrapper

    return decorate


def run(
    options: RunOptions, tasks: Sequence["Task"], outputs: "OutputSpec", manifest: Optional["Manifest"] = None
) -> None:
    """Run the job, report it, and leave with its exit code."""
    from depthcli.cli.report import Report, say, stop_signals
    from depthcli.jobs.folder import FolderJob, run_folder

    job = FolderJob(tasks, outputs, options.if_exists, options.batch, options.settings(outputs.formats), manifest)
    report = Report(len(tasks), as_json=options.as_json, quiet=options.quiet, verbose=options.verbose)
    older = _Older(job)

    def load() -> "DepthEstimator":
        stop.at_once = True  # a download need not be finished first
        estimator = options.load()
        stop.at_once = False
        older.now = estimator.weights.sha256
        if options.verbose:
            report.talk(f"model {estimator.row.title}, {estimator.row.licence}; {estimator.engine}")
        return estimator

    with report, stop_signals(options.quiet) as stop:
        try:
            # Closed at once where a second Ctrl-C or a broken pipe ends the loop: what waits to be written is dropped.
            with closing(run_folder(job, load, lambda: stop.asked)) as results:
                for result in results:
                    older.add(result)
                    report.add(result)
        except OutputError as error:  # a full disk, or a manifest that cannot be written: the rest would fare no better
            report.fail(error)
        interrupted = stop.asked and sum(report.counts.values()) < len(tasks)
        report.finish(interrupted)
    if older.count():
        say(
            f"warning: {older.count()} skipped pictures were made with other options or weights; "
            "--if-exists overwrite makes them anew"
        )
    raise typer.Exit(report.exit_code(interrupted))


class _Older:
    """Counts the skipped pictures that were made with other options, or weights other than those loaded now."""

    def __init__(self, job: "FolderJob") -> None:
        self._settings = job.settings
        self._rows = dict(job.manifest.rows) if job.manifest else {}
        self._options = 0
        self._weights: Counter[str] = Counter()
        self.now = ""

    def add(self, result: "Result") -> None:
        row = self._rows.get(result.input, {})
        if result.status != "skipped" or not row.get("settings"):
            return
        if row["settings"] != self._settings:
            self._options += 1
        else:
            self._weights[row.get("weights", "")] += 1

    def count(self) -> int:
        """Return how many there were; weights are compared only where a model was loaded."""
        others = sum(count for sha256, count in self._weights.items() if sha256 != self.now)
        return self._options + (others if self.now else 0)


def show_plan(options: RunOptions, tasks: Sequence["Task"], outputs: "OutputSpec") -> None:
    """Print what a job would do: one line per file, or JSON."""
    import json

    from depthcli.jobs.folder import FolderJob

    job = FolderJob(tasks, outputs, options.if_exists, options.batch)
    for task in tasks:
        paths = job.paths(task)
        action = job.if_exists if job.exists(task) else "write"
        if options.as_json:
            print(json.dumps({"input": task.name, "outputs": [str(path) for path in paths], "action": action}))
        else:
            for path in paths:
                print(f"{action}\t{task.name}\t{path}")
