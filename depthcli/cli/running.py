"""Run a folder job from parsed options: what `image` and `dir` have in common."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Union

import typer

from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import MetresChoice
from depthcli.cli.options import (
    BackendOptions,
    ModelOptions,
    NetworkOptions,
    PictureOptions,
    PictureOutput,
    ServerOptions,
)
from depthcli.cli.report import log, stop_signals
from depthcli.errors import DepthError, ModelError, OutputError, UsageError
from depthcli.version import __version__

if TYPE_CHECKING:
    from depthcli.choices.model import BackendChoice, ModelChoice
    from depthcli.cli.report import Report
    from depthcli.io.codecs.outputs import OutputSpec
    from depthcli.jobs.failures import FailureLimit
    from depthcli.jobs.folder_tasks import FolderTasks
    from depthcli.jobs.manifest import Manifest, Result
    from depthcli.jobs.picture_job import FolderJob
    from depthcli.jobs.picture_results import MadeBy
    from depthcli.jobs.ray_choice import RayChoice
    from depthcli.jobs.remote import Client
    from depthcli.jobs.remote_folder import RemotePictures
    from depthcli.jobs.remote_output import Publisher, RemoteFolder
    from depthcli.jobs.run_file import RunFile
    from depthcli.jobs.tar_packing import TarPacking
    from depthcli.jobs.targets import Task
    from depthcli.predict.early import EarlyBackend
    from depthcli.predict.picture import DepthEstimator


def open_model(
    model: ModelOptions,
    backend: BackendOptions,
    network: NetworkOptions,
    preferred: str = "",
    early: Optional[EarlyBackend] = None,
    camera: CameraChoice = CameraChoice(),
    metres: MetresChoice = MetresChoice(),
) -> DepthEstimator:
    """Return the estimator; may download. Notes about downloads and fallbacks are printed with --quiet too.

    preferred: the row that the automatic choice takes instead of looking for the best one. early: see `open_early`.
    """
    from depthcli.predict.picture import DepthEstimator

    choice = model.choice()
    if preferred and choice.is_automatic:
        choice = replace(choice, model=preferred)
    return DepthEstimator(
        choice,
        backend.choice(),
        input_size=network.input_size,
        panorama=network.panorama,
        detail=network.detail,
        camera=camera,
        metres=metres,
        log=log,
        early=early,
    )


@contextmanager
def open_early(options: PictureOptions, inputs: Sequence[str]) -> Iterator[Optional[EarlyBackend]]:
    """Open the backend while the block runs, if all inputs are files, which are likely to be read; else yield None."""
    early = None
    if not options.server.address and all(map(os.path.isfile, inputs)):
        from depthcli.predict.early import EarlyBackend

        with suppress(DepthError):  # told later, in the order of the checks
            early = EarlyBackend(options.model.choice(), options.backend.choice(), options.network.input_size, log)
    try:
        yield early
    finally:
        if early is not None:
            early.close()


def run(
    options: PictureOptions,
    tasks: Union[Sequence[Task], FolderTasks],
    outputs: OutputSpec,
    manifest: Optional[Manifest] = None,
    mix_models: bool = False,
    workers: int = 1,
    devices: Sequence[str] = (),
    early: Optional[EarlyBackend] = None,
    failures: Optional[FailureLimit] = None,
    remote: Optional[RemoteFolder] = None,
    packing: Optional[TarPacking] = None,
    cluster: Optional[RayChoice] = None,
) -> None:
    """Run the job, report it, and leave with its exit code.

    mix_models: allow existing results of other models. workers: processes; 1 is this one. devices: one
    process for each, in place of `workers`. early: see `open_early`. failures: that end the job. remote: takes
    the results. packing: puts them into tars, of `tasks`. cluster: does the
    work.
    """
    from depthcli.jobs.manifest import FAILED
    from depthcli.jobs.picture_job import FolderJob

    if isinstance(tasks, Sequence):
        outputs = outputs.keeping(task.source for task in tasks if isinstance(task.source, Path))
    output, quiet = options.output, options.report.quiet
    folder = None if isinstance(tasks, Sequence) else tasks
    job = FolderJob(
        tasks=tasks,
        outputs=outputs,
        if_exists=output.if_exists,
        batch=options.network.batch,
        settings=options.settings(outputs.formats),
        manifest=manifest,
        keep_alpha=output.keep_alpha,
        digests=manifest is not None,
        remote=remote.publisher if remote else None,
    )
    if packing:  # it looks at the tars itself; the files in them are new
        job = replace(job, tasks=packing, if_exists="overwrite", manifest=None, remote=None)
    report = options.report.report(job.total)
    there = _Existing(job, options, mix_models, early, folder, remote, packing)
    client = open_server(options.server, options.model, options.backend, {"batch": options.network.batch != 1})
    if client is not None:
        client.log = report.log

    def ask() -> RemotePictures:
        assert client is not None
        service = _remote_pictures(client, options, outputs)
        outputs.check_kind(service.model.kind)
        made_by = there.check(service.model.name, service.model.weights or "", service.model.remembered)
        if folder is not None:
            _note_run(folder, outputs, output, made_by, packing)
        if options.report.verbose:
            title, licence = service.model.title, service.model.licence
            report.log(f"model {title}, {licence}; {service.model.description} at {client.address}")
        return service

    def load() -> DepthEstimator:
        stop.at_once = True  # a download need not be finished first
        estimator = there.load()
        try:
            outputs.check_kind(estimator.kind)
        except UsageError:
            estimator.close()
            raise
        stop.at_once = False
        if folder is not None:
            _note_run(folder, outputs, output, there.made_by(estimator), packing)
            if remote:
                remote.put_run()
        if options.report.verbose:
            report.log(f"model {estimator.row.title}, {estimator.row.licence}; {estimator.description}")
        return estimator

    if folder is not None and not quiet:
        threading.Thread(target=_count, args=(folder, report), daemon=True).start()
    with report, client or nullcontext(), packing or nullcontext(), stop_signals(quiet) as stop:
        try:
            # Closed at once if a second Ctrl-C or a broken pipe ends the loop: what waits to be written is dropped.
            places = cluster, workers, devices
            results = _results(job, load, options, *places, lambda: stop.asked, ask if client else None)
            with closing(results), closing(packing.packed(results) if packing else results) as told:
                for result in told:
                    report.add(remote.publisher.named(result) if remote else result)
                    if remote:
                        remote.note()
                    if failures is not None and failures.exceeded(report.counts[FAILED], report.done):
                        raise OutputError(f"{report.counts[FAILED]} pictures failed, more than `max_failures` allows")
        except OutputError as error:  # a full disk, or a manifest that cannot be written: the rest would fail too
            report.fail(error)
        report.total = job.total or report.total
        interrupted = stop.asked and report.misses_some
        report.finish(interrupted)
    for line in [] if quiet else _told_last(job, folder):
        log(line)
    if there.warning:
        log(f"warning: {there.warning}")
    raise typer.Exit(report.exit_code(interrupted))


def _count(folder: FolderTasks, report: Report) -> None:
    """Tell a report how many pictures there are, for the time that is left."""
    with suppress(OSError, DepthError):
        total = folder.count() if folder.total is None else folder.total
        report.total = report.total if total is None else total


def _note_run(
    folder: FolderTasks,
    outputs: OutputSpec,
    output: PictureOutput,
    made_by: tuple[str, str, str],
    packing: Optional[TarPacking],
) -> None:
    """Write run.json; a part leaves that of another."""
    from depthcli.jobs.run_file import RunFile, write_run

    pack = "tar" if packing else ""
    run = RunFile(folder.where, outputs.formats, output.template or "", *made_by, __version__, pack)
    write_run(folder.search.target, run, replaces=not folder.search.is_part or output.if_exists == "overwrite")


def _told_last(job: FolderJob, folder: Optional[FolderTasks]) -> list[str]:
    """Return what is known once all names have been seen."""
    if folder is None:
        shortened = sum(not path.name.startswith(task.stem.name) for task in job.tasks for path in job.paths(task))
    else:
        shortened = folder.shortened
    cut = [f"names too long for the file system, cut and ended with a digest: {shortened}"] if shortened else []
    return cut if folder is None else [*folder.left.lines(), *cut]


def _results(
    job: FolderJob,
    load: Callable[[], DepthEstimator],
    options: PictureOptions,
    cluster: Optional[RayChoice],
    workers: int,
    devices: Sequence[str],
    stop: Callable[[], bool],
    ask: Optional[Callable[[], RemotePictures]],
) -> Generator[Result, None, None]:
    """Return the results of a job, done in this process, in several, or by the service of `ask`."""
    if ask is not None:
        if workers != 1 or devices or cluster:
            name = "engine" if cluster else "devices" if devices else "workers"
            raise UsageError(f"`{name}` is for this machine, and a service does the work", "leave it out, or `server`")
        from depthcli.jobs.remote_folder import run_on_service

        return run_on_service(job, ask, stop)
    from depthcli.jobs.folder import run_folder

    if workers == 1 and not devices and not cluster:
        return run_folder(job, load, stop)
    if cluster:
        from depthcli.jobs.ray_engine import run_on_ray

        def check_here() -> tuple[Callable[[], DepthEstimator], str]:
            with load() as estimator:
                model = options.model.choice()
                model = replace(model, model=estimator.row.name) if model.is_automatic else model
                more = estimator.remembered, options.network, options.camera.choice(), options.metres.choice()
                return partial(_open_quietly, model, options.backend.choice(), *more), estimator.weights.sha256

        return run_on_ray(job, cluster, check_here, stop)
    from depthcli.jobs.workers import run_in_workers

    def check() -> list[Callable[[], DepthEstimator]]:
        with load() as estimator:
            if not estimator.runs_on_cpu and not devices:
                raise UsageError(
                    f"`workers` share a CPU, and this model runs on {estimator.description}", "use `device` cpu"
                )
            # The workers take what was found and checked here. What is remembered counts for this number of threads.
            model = options.model.choice()
            if model.is_automatic:
                model = replace(model, model=estimator.row.name)
        more = estimator.remembered, options.network, options.camera.choice(), options.metres.choice()
        places = [replace(estimator.chosen, device=name) for name in devices] or [estimator.chosen] * workers
        return [partial(_open_quietly, model, place, *more) for place in places]

    return run_in_workers(job, len(devices) or workers, check, stop)


def open_server(
    server: ServerOptions, model: ModelOptions, backend: BackendOptions, more: Mapping[str, bool]
) -> Optional[Client]:
    """Return a client of the service that was asked for, None if this machine does the work.

    more: further settings that only this machine has, and whether they were given. Raises UsageError for all of these.
    """
    if not server.address:
        return None
    from depthcli.jobs.remote import find_server

    local = [name for name, value in vars(backend).items() if value != getattr(BackendOptions, name)]
    local += [name for name, given in more.items() if given]
    local += [name for name in ("checkpoint", "offline", "max_depth", "trust") if getattr(model, name)]
    if local:
        raise UsageError(f"`{local[0]}` is for this machine, and a service does the work", "leave it out, or `server`")
    client = find_server(server.address)
    if server.address == "auto":
        log("no service answers: this machine does the work" if client is None else f"asking {client.address}")
    return client


def _remote_pictures(client: Client, options: PictureOptions, outputs: OutputSpec) -> RemotePictures:
    from depthcli.jobs.remote_folder import RemotePictures, shape_options

    network = options.network
    every = {
        "colormap": outputs.colormap,
        "input_size": network.input_size,
        "panorama": 1 if network.panorama else None,
        "detail": network.detail,
        "keep_alpha": 1 if options.output.keep_alpha else None,
        **shape_options(outputs.shape),
    }
    return RemotePictures.of(
        client,
        options.model.choice(),
        outputs.formats,
        every,
        options.camera.choice(),
        options.metres.choice(),
    )


def _open_quietly(
    model: ModelChoice,
    backend: BackendChoice,
    remembered: Optional[str],
    network: NetworkOptions,
    camera: CameraChoice,
    metres: MetresChoice,
) -> DepthEstimator:
    """Return the estimator of a worker; its notes were printed when the first process loaded the same.

    remembered: of the first process's estimator, for the manifest.
    """
    from depthcli.predict.picture import DepthEstimator

    estimator = DepthEstimator(
        model,
        backend,
        input_size=network.input_size,
        panorama=network.panorama,
        detail=network.detail,
        camera=camera,
        metres=metres,
        log=_ignore,
    )
    estimator.remembered = remembered
    return estimator


def kind_of(inputs: Sequence[str]) -> str:
    """Return the command that takes the inputs: image, dir or video. Raises UsageError for a mixture.

    A folder is of clips if no picture lies in it.
    """
    from depthcli.jobs.find import CLIP, command_for, find_in_folder, refuse_address

    for name in inputs:
        refuse_address(name)
    kinds = {command_for(name) or "image" for name in inputs}
    if len(kinds) > 1 or (kinds == {"dir"} and len(inputs) > 1):
        raise UsageError(
            "pictures, folders and clips are done by a command each", "give one folder, or files of a kind"
        )
    kind = kinds.pop()
    if kind == "dir" and not find_in_folder(Path(inputs[0])) and find_in_folder(Path(inputs[0]), CLIP):
        return "video"
    return kind


def _ignore(line: str) -> None:
    pass


def _first_run(
    folder: Optional[FolderTasks], remote: Optional[RemoteFolder], packs: bool
) -> Optional[tuple[RunFile, str]]:
    """Return the run that began a folder, if that alone tells how its results were made, and what to call it."""
    if folder is None or not (folder.search.is_part or remote or packs):
        return None
    from depthcli.jobs.run_file import read_run

    target = folder.search.target
    found = read_run(target)
    named = remote.publisher.place.url if remote else str(target)
    return None if found is None else (found, f"{named} (by its run.json)")


class _Existing:
    """Compares a run with the existing results: a folder holds those of one model, unless the user mixes them.

    warning: what is mixed. Raises UsageError if the options alone show that they do not match.
    """

    def __init__(
        self,
        job: FolderJob,
        options: PictureOptions,
        mix_models: bool,
        early: Optional[EarlyBackend],
        folder: Optional[FolderTasks],
        remote: Optional[RemoteFolder],
        packing: Optional[TarPacking],
    ) -> None:
        from depthcli.jobs.picture_results import ExistingResults, MadeBy

        self._options, self._mix, self._settings, self._early = options, mix_models, job.settings, early
        replaces = options.output.if_exists == "overwrite"
        first = _first_run(folder, remote, packing is not None)
        self._there = ExistingResults(() if packing else job.every_path(), job.manifest, replaces, first)
        self.warning = ""
        if self._there.made_by and not options.server.address:
            from depthcli.predict.model import known_model

            self._check(MadeBy(*known_model(options.model.choice()), job.settings))

    def load(self) -> DepthEstimator:
        """Return the estimator; the automatic choice takes the model of the existing results."""
        from depthcli.jobs.picture_results import MadeBy

        options = self._options
        preferred = "" if self._mix else self._there.model
        automatic = preferred and options.model.choice().is_automatic
        try:
            estimator = open_model(
                options.model,
                options.backend,
                options.network,
                preferred,
                self._early,
                options.camera.choice(),
                options.metres.choice(),
            )
        except ModelError as error:
            if automatic:
                error.message = f"the existing results were made by {preferred}: {error.message}"
            raise
        try:
            self._check(MadeBy(estimator.row.name, estimator.weights.sha256, self._settings, estimator.remembered))
        except UsageError as error:
            estimator.close()
            if automatic:  # not what was asked for, but what was found
                raise ModelError(error.message, "name their weights with --checkpoint, or add --mix-models") from error
            raise
        return estimator

    def check(self, model: str, weights: str, remembered: Optional[str]) -> tuple[str, str, str]:
        """Return what `made_by` does, for a model elsewhere. Raises UsageError if results would be mixed."""
        from depthcli.jobs.picture_results import MadeBy, made_settings

        self._check(MadeBy(model, weights, self._settings, remembered))
        return model, weights, made_settings(self._settings, remembered)

    def made_by(self, estimator: DepthEstimator) -> tuple[str, str, str]:
        """Return the model, the weights and the settings that the results will have."""
        from depthcli.jobs.picture_results import made_settings

        return estimator.row.name, estimator.weights.sha256, made_settings(self._settings, estimator.remembered)

    def _check(self, wanted: MadeBy) -> None:
        try:
            self._there.check(wanted)
        except UsageError as error:
            if not self._mix:
                raise
            self.warning = f"{error.message} (--mix-models)"


def show_plan(
    options: PictureOptions,
    tasks: Iterable[Task],
    outputs: OutputSpec,
    manifest: Optional[Manifest] = None,
    remote: Optional[Publisher] = None,
    packing: Optional[TarPacking] = None,
) -> None:
    """Print what a job would do: one line per file, or JSON."""
    from depthcli.jobs.picture_job import FolderJob

    job = FolderJob(
        tasks=tasks,
        outputs=outputs,
        if_exists=options.output.if_exists,
        batch=options.network.batch,
        manifest=manifest,
        remote=remote,
    )
    if packing:
        planned: Iterable[tuple[str, Sequence[Path], str]] = (
            (name, [path], action) for name, path, action in packing.actions()
        )
    else:
        planned = ((task.name, job.paths(task), job.action(task)) for task in tasks)
    for name, files, action in planned:
        paths = [remote.address(str(path)) if remote else str(path) for path in files]
        if options.report.as_json:
            print(json.dumps({"input": name, "outputs": paths, "action": action}))
        else:
            for path in paths:
                print(f"{action}\t{name}\t{path}")
