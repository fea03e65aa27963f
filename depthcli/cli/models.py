"""`depth models`: list, download, check and locate the models."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from depthcli.cli import options
from depthcli.cli.groups import PlainCommand, PlainGroup, completer, flag, option
from depthcli.cli.report import log, print_error
from depthcli.errors import CheckpointError, ModelError, UsageError

if TYPE_CHECKING:
    from depthcli.zoo.rows import ModelRow

app = typer.Typer(cls=PlainGroup, no_args_is_help=True, add_completion=False)

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...", help="Names from `depth models list`.", autocompletion=completer(options.MODELS)
    ),
]


@app.callback()
def _root() -> None:
    """List, download and check the models.

    depth models list             every model, its licence, and whether it is here
    depth models pull vitb        download its weights
    """


@app.command("list", cls=PlainCommand)
def list_models(as_json: Annotated[bool, flag("Print one JSON object per model.", "--json")] = False) -> None:
    """List every model: purpose, kind of depth, size, licence, and whether it is on this machine."""
    from depthcli.zoo.locate import inventory
    from depthcli.zoo.rows import Channel

    items = inventory()
    if as_json:
        for row, file, size in items:
            facts = {
                "name": row.name,
                "title": row.title,
                "for": _purpose(row),
                "kind": row.kind.value,
                "max_depth": row.max_depth,
                "input_size": row.input_size,
                "bytes": size or None,
                "licence": row.licence,
                "here": file is not None,
                "where": file.where if file else None,
                "path": str(file.path) if file else None,
                "repository": row.weights.repo or None,
                "sha256": row.weights.sha256,
            }
            print(json.dumps(facts))
        return
    absent = {Channel.UNPUBLISHED: "no, never published", Channel.TRAINED: "no, see depth train"}
    rows = [("MODEL", "FOR", "KIND OF DEPTH", "SIZE", "LICENCE", "HERE")]
    for row, file, size in items:
        here = file.where if file else absent.get(row.weights.channel, "no")
        rows.append((row.name, _purpose(row), _kind(row), _megabytes(size), row.licence, here))
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    for line in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _purpose(row: "ModelRow") -> str:
    from depthcli.zoo.rows import ModelTask

    return {ModelTask.PICTURE: "pictures", ModelTask.CLIP: "video", ModelTask.SCENE: "scenes"}[row.task]


def _kind(row: "ModelRow") -> str:
    from depthcli.depthmap import DepthKind

    if not row.kind.is_metric:
        return "disparity, relative" if row.kind is DepthKind.RELATIVE_DISPARITY else "depth, relative"
    if row.canonical_focal is not None:
        return "metres, with focal"
    return "metres" if row.max_depth is None else f"metres, to {row.max_depth:.0f} m"


@app.command("pull", cls=PlainCommand)
def pull(
    names: Names,
    accept_licence: Annotated[
        bool, flag("Accept a licence for some purposes only; asked for once.", "--accept-licence")
    ] = False,
) -> None:
    """Download weights into the Hugging Face cache, verify them, and print their paths."""
    from depthcli.zoo.download import obtain

    for row in _rows(names):
        file = obtain(row, log=log, accept_licence=accept_licence)
        for path in file.parts or (file.path,):
            print(path)


@app.command("verify", cls=PlainCommand)
def verify(
    names: Annotated[
        Optional[list[str]],
        typer.Argument(
            metavar="[MODEL...]", help="Default: every model that is here.", autocompletion=completer(options.MODELS)
        ),
    ] = None,
    checkpoint: Annotated[Optional[Path], option("Check this weights file.", metavar="FILE")] = None,
) -> None:
    """Compare weights on this machine with the published digests."""
    from depthcli.zoo.identify import check_identity
    from depthcli.zoo.locate import find, inventory
    from depthcli.zoo.verify import verify as verify_file

    if checkpoint is not None:
        row = _row_of_file(names, checkpoint)
        todo = [(row, find(row, checkpoint))]
    elif names:
        todo = [(row, find(row)) for row in _rows(names)]
    else:
        todo = [(row, file) for row, file, _ in inventory() if file]
    damaged, code = [], 0
    for row, file in todo:
        try:
            if file is None:
                raise CheckpointError(f"{row.name} is not on this machine", f"depth models pull {row.name}")
            result = verify_file(row, file)
            if result.ok is None:
                check_identity(row, file)
        except ModelError as error:  # of one file; the others are looked at
            print_error(error)
            code = error.exit_code
            continue
        print(f"{row.name}: {result.says}")
        if result.ok is False:
            damaged.append(row.name)
    if code and not damaged:
        raise typer.Exit(code)
    if damaged:
        raise CheckpointError(f"not as published: {', '.join(damaged)}", "delete the file and pull it again")


@app.command("path", cls=PlainCommand)
def path(names: Names) -> None:
    """Print the paths of weights on this machine."""
    from depthcli.zoo.locate import find

    for row in _rows(names):
        file = find(row)
        if file is None:
            raise CheckpointError(f"{row.name} is not on this machine", f"depth models pull {row.name}")
        for path in file.parts or (file.path,):
            print(path)


@app.command("cache", cls=PlainCommand)
def cache(
    clear: Annotated[bool, flag("Remove all; they are made again when needed.", "--clear")] = False,
    forget: Annotated[
        bool, flag("Forget what `depth bench --remember` measured: --backend auto goes by its fixed order.", "--forget")
    ] = False,
    as_json: Annotated[bool, flag("Print one JSON object per network.", "--json")] = False,
) -> None:
    """List or remove the converted networks, which make every start on a CPU quick, and the fastest backends.

    The least recently used are removed when there are too many.
    They are in the user's cache folder, or in $DEPTHCLI_CACHE.
    """
    from datetime import datetime

    from depthcli.host import graph_cache

    _list_fastest(forget, as_json)
    entries = graph_cache.clear() if clear else graph_cache.entries()
    for entry in entries:
        used = datetime.fromtimestamp(entry.used)
        if as_json:
            facts = {"name": entry.name, "bytes": entry.bytes, "used": used.isoformat(timespec="seconds")}
            print(json.dumps({**facts, "path": str(entry.path), "removed": clear}))
        else:
            print(f"{entry.name}  {_megabytes(entry.bytes)}  last used {used:%Y-%m-%d %H:%M}")
    folder = graph_cache.cache_folder()
    if folder is None:
        log(graph_cache.NO_FOLDER)
        return
    total = _megabytes(sum(entry.bytes for entry in entries)) or "0 MB"
    log(
        f"{len(entries)} networks, {total} of {_megabytes(graph_cache.LIMIT_BYTES)}, "
        f"{'removed from' if clear else 'in'} {folder}"
    )


def _list_fastest(forget: bool, as_json: bool) -> None:
    """List, and maybe forget, the backends that were measured as the fastest."""
    from dataclasses import asdict

    from depthcli.host import fastest

    items = fastest.every()
    if forget:
        fastest.forget(items)
    for item in items:
        if as_json:
            print(json.dumps({**asdict(item), "counts": item.counts, "forgotten": forget}))
            continue
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in item.milliseconds.items())
        state = (
            "forgotten"
            if forget
            else "auto takes it"
            if item.counts
            else f"not used here, it is of {item.machine}, {item.versions}"
        )
        print(f"{item.network} {item.precision}: {item.backend}  {times}  measured {item.date[:10]}, {state}")


def _rows(names: list[str]) -> "list[ModelRow]":
    from depthcli.zoo.rows import find_row

    return [find_row(name) for name in names]


def _row_of_file(names: Optional[list[str]], checkpoint: Path) -> "ModelRow":
    from depthcli.zoo.identify import row_for_checkpoint

    if names and len(names) > 1:
        raise UsageError("one --checkpoint is one model")
    row = _rows(names)[0] if names else row_for_checkpoint(checkpoint)
    if row is None:
        raise UsageError(f"{checkpoint} is an unknown model", "name it: depth models verify MODEL --checkpoint FILE")
    return row


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size else ""
