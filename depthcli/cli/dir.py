"""`depth dir`: a folder of pictures to a folder of results, resumable."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

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
        Optional[Path],
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
    from depthcli.jobs.inputs import find_pictures, is_chosen, plan_tasks
    from depthcli.jobs.manifest import MANIFEST_NAME, Manifest

    if not name:
        raise UsageError("the folder's name is empty", "is a variable of your script unset?")
    folder = Path(name)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "for single files use: depth image")
    target = output or _beside(folder)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file, not a folder")
    outputs = options.output_spec()
    every = find_pictures(folder, leave_out=target)
    # Names are given before the patterns choose, so that a picture keeps its output name whatever the patterns are.
    tasks = plan_tasks(((folder / relative, relative) for relative in every), target)
    tasks = [task for task in tasks if is_chosen(Path(task.name), include or (), exclude or ())]
    if not tasks:
        raise UsageError(f"there is no picture in {folder}" + (" that matches" if include or exclude else ""))
    manifest = Manifest(target / MANIFEST_NAME)
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
