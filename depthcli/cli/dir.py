"""`depth dir`: a folder of pictures to a folder of results, resumable."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import ADVANCED, flag, grouped, option
from depthcli.cli.options import PictureOptions
from depthcli.cli.running import run, show_plan
from depthcli.errors import UsageError


@grouped()
def directory(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of pictures, with its subfolders.")],
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
        mix_models=mix_models,
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
    mix_models: bool = False,
    ending: str = "_depth",
) -> None:
    """Do the pictures of a folder, report them, and leave with the exit code.

    The parameters are those of the command. ending: of the folder for results beside it.
    """
    from depthcli.cli.report import log
    from depthcli.jobs.find import Input, LeftOut, find_in_folder, is_chosen, refuse_address
    from depthcli.jobs.manifest import MANIFEST_NAME, Manifest
    from depthcli.jobs.targets import Target, plan_pictures

    if not name:
        raise UsageError("the folder's name is empty", "is a variable of your script unset?")
    refuse_address(name)
    folder = Path(name)
    if not os.path.isdir(folder):
        if not os.path.lexists(folder):
            raise UsageError(f"{folder} does not exist", "check the path")
        raise UsageError(f"{folder} is not a folder", "for single files use: depth image")
    target = Target.of(f"{beside(folder, ending)}/" if output is None else output)
    if target.folder is None:
        raise UsageError(f"{target} is not a folder", "depth dir writes a folder; put / at its end if it is one")
    outputs = options.output_spec(target)
    left = LeftOut()
    every = find_in_folder(folder, left=left, skip=target.folder)
    manifest = Manifest(target.folder / MANIFEST_NAME)
    template = options.output.name_template(outputs.formats)
    chosen = [relative for relative in every if is_chosen(relative, include, exclude)]
    # Without --name all pictures get names, so that each keeps its own whatever the patterns are.
    pictures = [Input(folder / relative, relative) for relative in (chosen if template else every)]
    wanted = {relative.as_posix() for relative in chosen}
    tasks = [task for task in plan_pictures(pictures, target.folder, manifest.rows, template) if task.name in wanted]
    if not tasks:
        matching = " that matches" if every and (include or exclude) else ""
        raise UsageError(f"there is no picture in {folder}{matching}", "" if matching else str(left))
    for line in [] if options.report.quiet else left.lines():
        log(line)
    if dry_run:
        show_plan(options, tasks, outputs, manifest)
        return
    run(options, tasks, outputs, manifest, mix_models, processes)


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
