"""Views of one picture from a depth file: no model, no torch."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from depthcli.errors import OutputError
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.manifest import DONE, SKIPPED, Result
from depthcli.jobs.picture_file import PictureFile
from depthcli.jobs.targets import Task, refuse_replacing


def stereo_of(task: Task, outputs: OutputSpec, depth_file: Path, if_exists: str, settings: str) -> Result:
    """Write the views of a picture from its depth in a file of depthcli.

    if_exists: skip, overwrite or error if all files are there, or one of them. settings: of the result, as one line.
    Raises UsageError if the depth is not of this picture or a file would be replaced, PictureError if the picture
    cannot be read, and OutputError for the depth's file and for the results.
    """
    started = time.perf_counter()
    paths = outputs.paths(task.stem)
    assert isinstance(task.source, Path)
    refuse_replacing("picture", [(task.name, paths)], [task.source])
    refuse_replacing("depth", [(task.name, paths)], [depth_file])
    there = [path for path in paths if os.path.lexists(path)]
    if if_exists == "error" and there:
        raise OutputError(f"{there[0]} is there already")
    texts = tuple(map(str, paths))
    if if_exists == "skip" and len(there) == len(paths):
        return Result(task.name, texts, SKIPPED)
    depth = read_depth(depth_file)
    with closing(PictureFile(task.source, task.name)) as file:
        sha256 = file.sha256
        picture = file.read()
    provenance = replace(depth.provenance, source=file.name, source_sha256=sha256)
    depth = replace(depth.with_provenance(provenance), camera=depth.camera or picture.camera)
    outputs.write(depth, picture.rgb, paths)
    return Result(
        task.name,
        texts,
        DONE,
        round(1000 * (time.perf_counter() - started), 1),
        notes=picture.notes,
        warnings=(*picture.warnings, *outputs.warnings(depth)),
        model=provenance.model,
        weights=provenance.sha256,
        settings=settings,
    )
