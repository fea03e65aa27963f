"""`depth manifest`: what the notes about a folder of results say."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from depthcli.cli.groups import PlainCommand, PlainGroup, flag
from depthcli.cli.report import log
from depthcli.errors import SOME_FAILED, UsageError

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, add_completion=False)
Results = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results that `depth dir` wrote.")]


@app.callback()
def _root() -> None:
    """Merge notes about results, and find what is missing or damaged."""


@app.command("merge", cls=PlainCommand)
def merge(folder: Results) -> None:
    """Put the rows of all shards into manifest.jsonl, one for each picture.

    Of several rows of a picture the best one stays: done, then skipped, then failed; of equal ones the latest. The
    manifests of shards stay too.
    """
    from depthcli.jobs.manifests import merge_manifests

    print(f"{merge_manifests(_checked(folder))} pictures in {folder / 'manifest.jsonl'}")


@app.command("missing", cls=PlainCommand)
def missing(
    folder: Results,
    pictures: Annotated[
        Optional[Path],
        typer.Argument(metavar="[FOLDER]", help="Folder of the pictures. Default: the one that run.json names."),
    ] = None,
) -> None:
    """List the pictures that lack a result, one on each line.

    depth manifest missing out photos | depth dir photos -o out --files-from -

    Files are looked at, not notes. Exit code 0 if nothing is missing, else 3.
    """
    from depthcli.jobs.manifests import missing_pictures

    count = 0
    for name in missing_pictures(_checked(folder), pictures):
        count += 1
        print(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    raise typer.Exit(SOME_FAILED if count else 0)


@app.command("verify", cls=PlainCommand)
def verify(
    folder: Results,
    deep: Annotated[bool, flag("Compare the sha256 of every file with the noted one.", "--deep")] = False,
) -> None:
    """Open every result that the manifests note, and name those that are missing or damaged.

    Exit code 0 if all are whole, else 3.
    """
    from depthcli.jobs.manifests import damaged_results

    count = 0
    for path, wrong in damaged_results(_checked(folder), deep):
        count += 1
        log(f"error: {path} {wrong}")
    raise typer.Exit(SOME_FAILED if count else 0)


def _checked(folder: Path) -> Path:
    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is not a folder", "name the folder of the results")
    return folder
