"""`depth manifest`: what the notes about a folder of results say."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from typing import Annotated, Optional

import typer

from depthcli.cli.groups import PlainCommand, PlainGroup, flag
from depthcli.cli.report import log
from depthcli.errors import SOME_FAILED

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, add_completion=False)
Results = Annotated[
    str, typer.Argument(metavar="OUT", help="Folder of results that `depth dir` or `depth video` wrote; also s3://.")
]


@app.callback()
def _root() -> None:
    """Merge notes about results, and find what is missing or damaged."""


@app.command("merge", cls=PlainCommand)
def merge(folder: Results) -> None:
    """Put the rows of all shards into manifest.jsonl, one for each picture.

    Of several rows of a picture the best one stays: done, then skipped, then failed; of equal ones the latest. The
    manifests of shards stay too.
    """
    from depthcli.jobs.manifest import MANIFEST_NAME
    from depthcli.jobs.manifests import merge_manifests
    from depthcli.jobs.result_folder import open_results

    with open_results(folder) as results:
        count, path = merge_manifests(results.folder, results.name), results.folder / MANIFEST_NAME
        if results.publisher is not None:
            results.publisher.put(path)
        print(f"{count} rows in {results.named(path)}")


@app.command("missing", cls=PlainCommand)
def missing(
    folder: Results,
    pictures: Annotated[
        Optional[str],
        typer.Argument(
            metavar="[FOLDER]", help="Folder of the pictures or clips. Default: the one that run.json names."
        ),
    ] = None,
) -> None:
    """List the pictures that lack a result, one on each line.

    depth manifest missing out photos | depth dir photos -o out --files-from -

    Files are looked at, not notes. Exit code 0 if nothing is missing, else 3.
    """
    from depthcli.jobs.manifests import missing_pictures
    from depthcli.jobs.result_folder import open_results

    count = 0
    with open_results(folder) as results:
        for name in missing_pictures(results, pictures):
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
    from depthcli.jobs.result_folder import open_results

    count = 0
    with open_results(folder) as results:
        for path, wrong in damaged_results(results, deep):
            count += 1
            log(f"error: {path} {wrong}")
    raise typer.Exit(SOME_FAILED if count else 0)
