"""`depth info`: what a file is."""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

from pathlib import Path
from typing import Annotated

import typer

from depthcli.cli.groups import flag
from depthcli.errors import SOME_FAILED, DepthError


def info(
    names: Annotated[list[str], typer.Argument(metavar="FILE...", help="Depth files, pictures, films, calibrations.")],
    as_json: Annotated[bool, flag("Print one JSON object per file.", "--json")] = False,
) -> None:
    """Tell what a file is: kind and unit of depth, range, camera, model.

    depth info photo_depth.png                 what its numbers mean, and what made them
    depth info photo.jpg                       its camera, as EXIF tells it
    depth info sparse/0                        the camera of a calibration, for --intrinsics
    """
    from depthcli.cli.report import log
    from depthcli.jobs.info import examine

    failed = False
    for name in names:
        try:
            found = examine(Path(name))
        except DepthError as error:
            log(f"error: {error}")
            failed = True
            continue
        if as_json:
            print(found.to_json())
        else:
            print("\n".join(found.lines()))
    if failed:
        raise typer.Exit(SOME_FAILED)
