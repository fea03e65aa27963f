"""`depth dir`: a folder of pictures to a folder of results, resumable."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli import options as opt
from depthcli.cli.running import RunOptions, run, show_plan, with_run_options
from depthcli.errors import UsageError


@with_run_options()
def directory(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder; its sub-folders are entered.")],
    output: Annotated[
        Optional[str],
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results, made if need be; the tree is mirrored. Default: FOLDER_depth.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = None,
    include: Annotated[
        Optional[list[str]],
        typer.Option(help='Take only pictures that match, such as "*.jpg" or "day1/*". Repeatable.'),
    ] = None,
    exclude: Annotated[Optional[list[str]], typer.Option(help="Leave out pictures that match. Repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print what would be written, and do nothing.")
    ] = False,
    mix_models: Annotated[
        bool,
        typer.Option(
            "--mix-models",
            help="Let results stay beside those of another model or with other options, which is an error otherwise.",
            rich_help_panel=opt.OUTPUT_PANEL,
        ),
    ] = False,
    *,
    options: RunOptions,
) -> None:
    """Estimate the depth of every picture below a folder.

    Pictures whose files are all there are skipped, so the same command goes on after an interruption; one that was
    replaced meanwhile is done again. A picture that cannot be read is named and the rest goes on. manifest.jsonl in the
    output folder notes what became of each. A folder holds the results of one model.

    Examples: depth dir photos · depth dir photos -o maps -f gray,npz --include "*.jpg"
    """
    from depthcli.cli.report import say
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
    target = Target.of(f"{_beside(folder)}/" if output is None else output)
    if target.folder is None:
        raise UsageError(f"{target} is not a folder", "depth dir writes a folder; put / at its end if it is one")
    outputs = options.output_spec(target)
    left = LeftOut()
    every = find_in_folder(folder, left=left, skip=target.folder)
    manifest = Manifest(target.folder / MANIFEST_NAME)
    template = options.name_template(outputs.formats)
    chosen = [relative for relative in every if is_chosen(relative, include or (), exclude or ())]
    # Without --name all pictures get names, so that each keeps its own whatever the patterns are.
    pictures = [Input(folder / relative, relative) for relative in (chosen if template else every)]
    wanted = {relative.as_posix() for relative in chosen}
    tasks = [task for task in plan_pictures(pictures, target.folder, manifest.rows, template) if task.name in wanted]
    if not tasks:
        matching = " that matches" if every and (include or exclude) else ""
        raise UsageError(f"there is no picture in {folder}{matching}", "" if matching else str(left))
    for line in [] if options.quiet else left.lines():
        say(line)
    if dry_run:
        show_plan(options, tasks, outputs, manifest)
        return
    run(options, tasks, outputs, manifest, mix_models)


def _beside(folder: Path) -> Path:
    """Return FOLDER_depth, as the user wrote FOLDER where that has a name of its own; `.` and `..` have none."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    if not named.name:
        raise UsageError(f"there is no place beside {folder}", "say with -o where the results go")
    return named.with_name(f"{named.name}_depth")
