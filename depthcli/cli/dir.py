"""`depth dir`: a folder of pictures to a folder of results, resumable."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.choices import BackendChoice
from depthcli.cli.groups import ADVANCED, flag, grouped, option
from depthcli.cli.options import PictureOptions
from depthcli.cli.running import run, show_plan
from depthcli.errors import UsageError
from depthcli.jobs.failures import NO_LIMIT, FailureLimit, parse_failures
from depthcli.jobs.parsing import parse_list
from depthcli.jobs.shards import WHOLE, Shard, parse_shard


@grouped()
def directory(
    name: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder of pictures, with its subfolders; also s3:// or gs://.")
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
    workers: Annotated[
        str,
        option(
            "Processes that share the CPU's cores: a number, or auto (one per NUMA node). Default: 1.",
            panel=ADVANCED,
            metavar="N",
        ),
    ] = "1",
    devices: Annotated[
        Optional[str],
        option("A process on each of these devices, such as cuda:0,cuda:1.", panel=ADVANCED, metavar="A,B"),
    ] = None,
    files_from: Annotated[
        Optional[str],
        option(
            "Only the pictures in a list of paths below FOLDER: text, .jsonl, or - for stdin.",
            panel=ADVANCED,
            metavar="FILE",
        ),
    ] = None,
    shard: Annotated[
        Optional[str],
        option(
            "Only part I of N, told by the names: for N machines that share the work. auto: as a scheduler says.",
            panel=ADVANCED,
            metavar="I/N",
        ),
    ] = None,
    shard_offset: Annotated[
        int, option("With --shard auto: add this to the scheduler's number.", panel=ADVANCED, metavar="N")
    ] = 0,
    shard_count: Annotated[
        Optional[int], option("With --shard auto: the number of all parts.", panel=ADVANCED, metavar="N")
    ] = None,
    max_failures: Annotated[
        Optional[str],
        option("End the run when more pictures fail: a number, or a share such as 5%.", panel=ADVANCED, metavar="N"),
    ] = None,
    *,
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
        processes=_processes(workers),
        devices=_devices(devices, workers, options.backend.device),
        mix_models=mix_models,
        files_from=files_from,
        shard=_shard(shard, shard_offset, shard_count),
        failures=parse_failures(max_failures),
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
    ending: str = "_depth",
) -> None:
    """Do the pictures of a folder, report them, and leave with the exit code.

    The parameters are those of the command. ending: of the folder for results beside it.
    """
    from depthcli.cli.report import log
    from depthcli.io.remote import is_remote, open_place
    from depthcli.jobs.folder_tasks import FolderSearch, FolderTasks
    from depthcli.jobs.manifests import open_manifest
    from depthcli.jobs.name_list import open_list
    from depthcli.jobs.remote_output import RemoteFolder, check_remote_formats
    from depthcli.jobs.remote_tasks import RemoteTasks, folder_below
    from depthcli.jobs.targets import Target

    place = open_place(name) if is_remote(name) else None
    if place is None:
        _check_folder(name)
    elif output is None:
        raise UsageError(f"there is no place beside {name}", "name the folder of the results with -o")
    folder = Path(name)
    with ExitStack() as stack:
        remote = None
        if output is not None and is_remote(output):
            remote = RemoteFolder(open_place(output), shard)
            stack.callback(remote.close)
        named = str(remote.folder) if remote else f"{beside(folder, ending)}/" if output is None else output
        target = Target.of(named)
        if target.folder is None:
            raise UsageError(f"{target} is not a folder", "depth dir writes a folder; put / at its end if it is one")
        outputs = options.output_spec(target)
        if remote:
            check_remote_formats(outputs.formats)
        manifest = open_manifest(target.folder, shard)
        listed = None if files_from is None else open_list(files_from)
        template = options.output.name_template(outputs.formats)
        search = FolderSearch(folder, target.folder, tuple(include), tuple(exclude), template, shard, listed)
        tasks = FolderTasks(search, manifest.rows, outputs.paths)
        if place is not None:
            skip = folder_below(place, remote.publisher.place) if remote else ""
            tasks = RemoteTasks(search, manifest.rows, outputs.paths, place=place, skip=skip)
        tasks.check()
        if dry_run:
            show_plan(options, tasks, outputs, manifest, remote.publisher if remote else None)
            for line in [] if options.report.quiet else tasks.left.lines():
                log(line)
            return
        run(options, tasks, outputs, manifest, mix_models, processes, devices, failures=failures, remote=remote)


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


def _shard(text: Optional[str], offset: int, count: Optional[int]) -> Shard:
    if text is not None:
        return parse_shard(text, os.environ, offset, count)
    if offset or count is not None:
        raise UsageError("`shard_offset` and `shard_count` belong to `shard` auto", "add it")
    return WHOLE


def _devices(text: Optional[str], workers: str, device: str) -> tuple[str, ...]:
    """Return the devices that have a process each. Raises UsageError."""
    if text is None:
        return ()
    if workers != "1" or device != "auto":
        raise UsageError("`devices` says how many processes there are, and where", "leave out `workers` and `device`")
    names = parse_list([text])
    for name in names:
        BackendChoice(device=name)  # an unknown one is an error now
        if name == "auto":
            raise UsageError("`devices` names the devices themselves", "such as cuda:0,cuda:1")
    return names


def _processes(workers: str) -> int:
    """Return how many processes --workers asks for; more than the cores only make each other wait."""
    from depthcli.host.cores import numa_nodes, usable_cores

    if workers == "auto":
        return numa_nodes()
    if not workers.isdecimal() or not 1 <= int(workers) <= usable_cores():
        raise UsageError(f"`workers` must be 1 to {usable_cores()} (the usable cores) or auto, got {workers}")
    return int(workers)


def beside(folder: Path, ending: str) -> Path:
    """Return FOLDER_depth, for that ending, as the user wrote FOLDER, or resolved if that is `.` or `..`."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    if not named.name:
        raise UsageError(f"there is no place beside {folder}", "name the folder of the results with -o")
    return named.with_name(f"{named.name}{ending}")
