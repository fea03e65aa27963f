"""`depth dir`: a folder of pictures to a folder of results, resumable."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import ADVANCED, flag, grouped, option
from depthcli.cli.options import PictureOptions
from depthcli.cli.parts import PartOptions
from depthcli.cli.running import run, show_plan
from depthcli.errors import UsageError
from depthcli.jobs.failures import NO_LIMIT, FailureLimit
from depthcli.jobs.ray_choice import RayChoice, parse_workers
from depthcli.jobs.shards import WHOLE, Shard


@grouped()
def directory(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="Folder of pictures, with its subfolders, or tars of pictures; also s3:// or gs://."
        ),
    ],
    output: Annotated[
        Optional[str],
        option("Folder for the results, with the same tree. Default: FOLDER_depth.", "-o", "--output", metavar="PATH"),
    ] = None,
    include: Annotated[
        Optional[list[str]], option('Only pictures that match, such as "*.jpg". Repeatable.', metavar="GLOB")
    ] = None,
    exclude: Annotated[Optional[list[str]], option("Skip pictures that match. Repeatable.", metavar="GLOB")] = None,
    dry_run: Annotated[bool, flag("Print what would be written, and write nothing.", "--dry-run", "-n")] = False,
    retries: Annotated[
        Optional[int],
        option(
            "With a store: how often a request that the network spoiled is tried again. Default: for two minutes.",
            panel=ADVANCED,
            metavar="N",
        ),
    ] = None,
    pack: Annotated[
        Optional[str],
        option(
            "tar: a tar of results for each tar of pictures, with the same keys, as webdataset has them.",
            panel=ADVANCED,
            metavar="tar",
        ),
    ] = None,
    engine: Annotated[
        Optional[str],
        option(
            "ray: workers on a Ray cluster do the work, and all see the same folders; --workers MIN:MAX as there is"
            " work. Default: what the cluster has room for.",
            panel=ADVANCED,
            metavar="ray",
        ),
    ] = None,
    ray_address: Annotated[
        str,
        option("With ray: the cluster's address, auto for the one here, local to start one.", panel=ADVANCED),
    ] = "auto",
    cpus_per_worker: Annotated[int, option("With ray: cores of each worker.", panel=ADVANCED, metavar="N")] = 1,
    gpus_per_worker: Annotated[
        float, option("With ray: GPUs of each worker, or a part of one.", panel=ADVANCED, metavar="N")
    ] = 0.0,
    chunk: Annotated[int, option("With ray: pictures that a worker gets at once.", panel=ADVANCED, metavar="N")] = 64,
    *,
    parts: PartOptions,
    options: PictureOptions,
    mix_models: Annotated[
        bool, flag("Allow results of another model or with other options.", "--mix-models", panel=ADVANCED)
    ] = False,
) -> None:
    """Estimate the depth of every picture in a folder.

    depth dir photos                           writes photos_depth/..._depth.png
    depth dir photos -o maps -f gray,npz       two files for each picture, in maps/
    depth dir photos --include "*.jpg" -n      lists what would be written

    Pictures that have all their results are skipped: the same command continues an interrupted run.
    Changed pictures are done again. Unreadable pictures are named, and the others are done.
    manifest.jsonl in the output folder records every result.
    """
    do_folder(
        name,
        output,
        options,
        include=include or (),
        exclude=exclude or (),
        dry_run=dry_run,
        processes=1 if engine else parts.processes(),
        devices=parts.places(options.backend.device, engine),
        cluster=_cluster(engine, parts.workers, ray_address, cpus_per_worker, gpus_per_worker, chunk),
        mix_models=mix_models,
        files_from=parts.files_from,
        shard=parts.part(),
        failures=parts.failures(),
        packs=_packs(pack),
        retries=retries,
    )


def do_folder(
    name: str,
    output: Optional[str],
    options: PictureOptions,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    dry_run: bool = False,
    processes: int = 1,
    devices: Sequence[str] = (),
    mix_models: bool = False,
    files_from: Optional[str] = None,
    shard: Shard = WHOLE,
    failures: FailureLimit = NO_LIMIT,
    packs: bool = False,
    cluster: Optional[RayChoice] = None,
    retries: Optional[int] = None,
    ending: str = "_depth",
) -> None:
    """Do the pictures of a folder, report them, and leave with the exit code.

    The parameters are those of the command. ending: of the folder for results beside it.
    """
    from depthcli.cli.report import log
    from depthcli.io.remote import RemotePlace, is_remote, open_place
    from depthcli.jobs.folder_tasks import FolderSearch, FolderTasks
    from depthcli.jobs.manifests import open_manifest
    from depthcli.jobs.name_list import open_list
    from depthcli.jobs.remote_output import RemoteFolder, check_remote_formats
    from depthcli.jobs.remote_tasks import RemoteTasks, folder_below
    from depthcli.jobs.tar_packing import TarPacking, pack_outputs
    from depthcli.jobs.targets import Target
    from depthcli.jobs.tars import TarSet, TarTasks, are_tars

    tars = TarSet.of(name) if packs or are_tars(name) else None
    if tars is not None and cluster is not None:
        raise UsageError("`engine` ray hands out pictures of folders and stores, not tars", "use `shard` for tars")
    if retries is not None and not 0 <= retries <= 1000:
        raise UsageError(f"`retries` is {retries}", "it may be 0 to 1000")
    if tars is not None and isinstance(tars.base, RemotePlace):
        tars = replace(tars, base=replace(tars.base, retries=retries))
    place = open_place(name, retries) if is_remote(name) and tars is None else None
    if tars is None or (not tars.pattern and not is_remote(name)):
        if place is None:
            _check_folder(name)
    if output is None and (is_remote(name) or (tars and tars.pattern)):
        raise UsageError(f"there is no place beside {name}", "name the folder of the results with -o")
    folder = Path(name) if tars is None or isinstance(tars.base, RemotePlace) else tars.base
    with ExitStack() as stack:
        remote = None
        if output is not None and is_remote(output):
            remote = RemoteFolder(open_place(output, retries), shard)
            stack.callback(remote.close)
        named = str(remote.folder) if remote else f"{beside(folder, ending)}/" if output is None else output
        target = Target.of(named)
        if target.folder is None:
            raise UsageError(f"{target} is not a folder", "depth dir writes a folder; put / at its end if it is one")
        outputs = options.output_spec(target)
        if packs:
            outputs = pack_outputs(outputs)
        elif remote:
            check_remote_formats(outputs.formats)
        manifest = open_manifest(target.folder, shard)
        listed = None if files_from is None else open_list(files_from)
        template = options.output.name_template(outputs.formats)
        search = FolderSearch(folder, target.folder, tuple(include), tuple(exclude), template, shard, listed)
        tasks = FolderTasks(search, manifest.rows, outputs.paths)
        if place is not None:
            skip = folder_below(place, remote.publisher.place) if remote else ""
            tasks = RemoteTasks(search, manifest.rows, outputs.paths, place=place, skip=skip)
        packing = None
        if tars is not None:
            tasks = read = TarTasks(search, manifest.rows, outputs.paths, tars=tars)
            if packs:
                publisher = remote.publisher if remote else None
                settings = options.settings(outputs.formats)
                packing = TarPacking(read, outputs, options.output.if_exists, settings, manifest, publisher)
        tasks.check()
        if dry_run:
            show_plan(options, tasks, outputs, manifest, remote.publisher if remote else None, packing)
            for line in [] if options.report.quiet else tasks.left.lines():
                log(line)
            return
        run(
            options,
            tasks,
            outputs,
            manifest,
            mix_models,
            processes,
            devices,
            failures=failures,
            remote=remote,
            packing=packing,
            cluster=cluster,
        )


def _check_folder(name: str) -> None:
    """Raise UsageError if a name is not that of a folder."""
    from depthcli.jobs.find import refuse_address

    if not name:
        raise UsageError("the folder's name is empty", "is a variable of your script unset?")
    refuse_address(name)
    if not os.path.isdir(name):
        if not os.path.lexists(name):
            raise UsageError(f"{Path(name)} does not exist", "check the path")
        raise UsageError(f"{Path(name)} is not a folder", "for single files use: depth image")


def _cluster(
    engine: Optional[str], workers: Optional[str], address: str, cpus: int, gpus: float, chunk: int
) -> Optional[RayChoice]:
    """Return what is asked of a Ray cluster, None without one. Raises UsageError."""
    if engine is None:
        given = {"ray_address": address != "auto", "cpus_per_worker": cpus != 1, "gpus_per_worker": gpus != 0}
        wrong = next((name for name, is_given in {**given, "chunk": chunk != 64}.items() if is_given), None)
        if wrong:
            raise UsageError(f"`{wrong}` belongs to `engine` ray", "add it")
        return None
    if engine != "ray":
        raise UsageError(f"`engine` is {engine!r}", "there is ray")
    return RayChoice(address, *parse_workers(workers or "auto"), cpus, gpus, chunk)


def _packs(text: Optional[str]) -> bool:
    if text not in (None, "tar"):
        raise UsageError(f"`pack` is {text!r}", "there is tar")
    return text is not None


def beside(folder: Path, ending: str) -> Path:
    """Return FOLDER_depth, for that ending, as the user wrote FOLDER, or resolved if that is `.` or `..`."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    if not named.name:
        raise UsageError(f"there is no place beside {folder}", "name the folder of the results with -o")
    return named.with_name(f"{named.name}{ending}")
