"""From parsed options to a folder job that runs: what `image` and `dir` have in common."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import functools
import inspect
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Callable, Optional

import typer

from depthcli.cli import options as opt
from depthcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from depthcli.choices import ModelChoice
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.existing import MadeBy
    from depthcli.jobs.folder import FolderJob
    from depthcli.jobs.manifest import Manifest
    from depthcli.jobs.targets import NameTemplate, Target, Task
    from depthcli.predict.picture import DepthEstimator


@dataclass(frozen=True)
class RunOptions:
    """The options that every command which runs a model has, as the user gave them, in the order of the help."""

    formats: opt.Formats = None
    colormap: opt.Colormap = "Spectral_r"
    grayscale: opt.Grayscale = False
    pred_only: opt.PredOnly = False
    keep_alpha: opt.KeepAlpha = False
    naming: opt.Naming = None
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

    def output_spec(self, target: "Target", pictures: int = 1) -> "OutputSpec":
        """Return what is written for each picture. pictures: how many there are."""
        from depthcli.io.codecs.formats import STILLS, implied_format, parse_formats
        from depthcli.io.codecs.outputs import OneFile, OneStream, OutputSpec
        from depthcli.jobs.targets import FILE, STREAM
        from depthcli.pixels.colormap import color_table

        if self.grayscale and self.formats:
            raise UsageError("--grayscale and --format contradict each other", "--grayscale means --format gray8")
        implied = implied_format(target.path, "color") if target.place == FILE else "color"
        formats = ("gray8",) if self.grayscale else parse_formats(self.formats or (implied,))
        color_table(self.colormap)  # an unknown name is an error now, not after the first forward pass
        if target.place not in (FILE, STREAM):
            template = self.name_template(formats)
            return OutputSpec(formats, self.colormap, template.endings if template else ())
        if self.naming is not None:
            raise UsageError(f"--name does not apply to {target}", "leave out --name, or give a folder with -o")
        target.check_one(pictures, "picture", formats, {name: row.suffix for name, row in STILLS.items()})
        if target.place == FILE:
            return OneFile(formats, self.colormap)
        if self.as_json:
            raise UsageError(f"{target} cannot hold a picture and JSON", "leave out --json, or give -o FILE")
        return OneStream(formats, self.colormap, name=str(target))

    def name_template(self, formats: Sequence[str]) -> "Optional[NameTemplate]":
        """Return the names that --name gives to results; None without it."""
        from depthcli.jobs.targets import parse_template

        return None if self.naming is None else parse_template(self.naming, formats)

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
            "keep-alpha": self.keep_alpha or None,
            "colormap": self.colormap if {"color", "side"} & set(formats) else None,
        }
        return " ".join(f"{name}={value}" for name, value in shaping.items() if value is not None)

    def model_choice(self) -> "ModelChoice":
        """Return what was said about the model."""
        from depthcli.choices import ModelChoice

        return ModelChoice(
            model=self.model,
            encoder=self.encoder,
            metric=self.metric,
            checkpoint=self.checkpoint,
            max_depth=self.max_depth,
            offline=self.offline,
            trust=self.trust_checkpoint,
        )

    def load(self, preferred: str = "") -> "DepthEstimator":
        """Return the estimator; may download. What it says of downloads and fallbacks is said with --quiet too.

        preferred: the row that the automatic choice takes instead of looking for the best one.
        """
        from depthcli.choices import BackendChoice
        from depthcli.cli.report import say
        from depthcli.predict.picture import DepthEstimator

        choice = self.model_choice()
        if preferred and choice.is_automatic:
            choice = replace(choice, model=preferred)
        engine = BackendChoice(
            self.backend,
            self.device,
            self.precision,
            self.calibration,
            self.artifacts,
            self.shape_policy,
            self.allow_standin,
        )
        return DepthEstimator(choice, engine, input_size=self.input_size, panorama=self.panorama, log=say)


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
    options: RunOptions,
    tasks: Sequence["Task"],
    outputs: "OutputSpec",
    manifest: Optional["Manifest"] = None,
    mix_models: bool = False,
) -> None:
    """Run the job, report it, and leave with its exit code.

    mix_models: let results stay beside those of other models or options.
    """
    from depthcli.cli.report import Report, say, stop_signals
    from depthcli.jobs.folder import FolderJob, run_folder

    settings = options.settings(outputs.formats)
    job = FolderJob(
        tasks=tasks,
        outputs=outputs,
        if_exists=options.if_exists,
        batch=options.batch,
        settings=settings,
        manifest=manifest,
        keep_alpha=options.keep_alpha,
    )
    shortened = sum(not path.name.startswith(task.stem.name) for task in tasks for path in job.paths(task))
    if shortened and not options.quiet:
        say(f"names cut with a digest at their end, as they are too long for the file system: {shortened}")
    report = Report(len(tasks), as_json=options.as_json, quiet=options.quiet, verbose=options.verbose)
    there = _Existing(job, options, mix_models)

    def load() -> "DepthEstimator":
        stop.at_once = True  # a download need not be finished first
        estimator = there.load()
        stop.at_once = False
        if options.verbose:
            report.talk(f"model {estimator.row.title}, {estimator.row.licence}; {estimator.description}")
        return estimator

    with report, stop_signals(options.quiet) as stop:
        try:
            # Closed at once where a second Ctrl-C or a broken pipe ends the loop: what waits to be written is dropped.
            with closing(run_folder(job, load, lambda: stop.asked)) as results:
                for result in results:
                    report.add(result)
        except OutputError as error:  # a full disk, or a manifest that cannot be written: the rest would fare no better
            report.fail(error)
        interrupted = stop.asked and sum(report.counts.values()) < len(tasks)
        report.finish(interrupted)
    if there.warning:
        say(f"warning: {there.warning}")
    raise typer.Exit(report.exit_code(interrupted))


class _Existing:
    """Compares a run with the results that are there: a folder holds those of one model, unless the user mixes them.

    warning: what is mixed. Raises UsageError where the options alone tell that they do not go together.
    """

    def __init__(self, job: "FolderJob", options: RunOptions, mix_models: bool) -> None:
        from depthcli.jobs.existing import ExistingResults, MadeBy
        from depthcli.predict.model import known_model

        self._options, self._mix, self._settings = options, mix_models, job.settings
        self._there = ExistingResults(job.every_path(), job.manifest, replaces=job.if_exists == "overwrite")
        self.warning = ""
        if self._there.made_by:
            self._check(MadeBy(*known_model(options.model_choice()), job.settings))

    def load(self) -> "DepthEstimator":
        """Return the estimator; the automatic choice takes the model of the results that are there."""
        from depthcli.errors import ModelError
        from depthcli.jobs.existing import MadeBy

        preferred = "" if self._mix else self._there.model
        automatic = preferred and self._options.model_choice().is_automatic
        try:
            estimator = self._options.load(preferred)
        except ModelError as error:
            if automatic:
                error.message = f"the existing results were made by {preferred}: {error.message}"
            raise
        try:
            self._check(MadeBy(estimator.row.name, estimator.weights.sha256, self._settings))
        except UsageError as error:
            estimator.close()
            if automatic:  # not what was asked for, but what was found
                raise ModelError(error.message, "name their weights with --checkpoint, or add --mix-models") from error
            raise
        return estimator

    def _check(self, wanted: "MadeBy") -> None:
        try:
            self._there.check(wanted)
        except UsageError as error:
            if not self._mix:
                raise
            self.warning = f"{error.message} (--mix-models)"


def show_plan(
    options: RunOptions, tasks: Sequence["Task"], outputs: "OutputSpec", manifest: Optional["Manifest"] = None
) -> None:
    """Print what a job would do: one line per file, or JSON."""
    import json

    from depthcli.jobs.folder import FolderJob

    job = FolderJob(tasks=tasks, outputs=outputs, if_exists=options.if_exists, batch=options.batch, manifest=manifest)
    for task in tasks:
        paths = job.paths(task)
        action = job.action(task)
        if options.as_json:
            print(json.dumps({"input": task.name, "outputs": [str(path) for path in paths], "action": action}))
        else:
            for path in paths:
                print(f"{action}\t{task.name}\t{path}")
