"""The manifests of one folder of results: that of a whole run, and those of shards, each with one writer.

The folder may be in an object store.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import DepthError, UsageError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.files import is_cut_short, read_depth, read_facts
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.remote import RemoteFile, SizeTable, is_remote, open_place
from depthcli.jobs.clip_folder import clip_damage, missing_clips
from depthcli.jobs.folder_tasks import FolderSearch, FolderTasks
from depthcli.jobs.manifest import DONE, FAILED, MANIFEST_NAME, RUN_NAME, SKIPPED, Manifest, read_rows
from depthcli.jobs.picture_file import file_digest
from depthcli.jobs.remote_tasks import RemoteTasks, folder_below
from depthcli.jobs.result_folder import ResultFolder
from depthcli.jobs.run_file import CLIPS, RunFile, read_run
from depthcli.jobs.shards import WHOLE, Shard
from depthcli.jobs.tar_packing import count_rows
from depthcli.jobs.targets import NameTemplate, Task, parse_template
from depthcli.jobs.tars import SUFFIX as TARS
from depthcli.jobs.tars import TarSet, TarTasks, are_tars

_OF_SHARD = re.compile(r"manifest-\d{5}-of-\d{5}\.jsonl")
_RANKS = {FAILED: 0, SKIPPED: 1, DONE: 2}
_PIECE = 10_000  # rows that are sorted at once: about 10 MB


def open_manifest(folder: Path, shard: Shard) -> Manifest:
    """Return the manifest that a run writes, with the rows that all manifests of the folder have of its pictures.

    A part reads its own and that of whole runs: what other numbers of parts noted is looked up in the files.
    """
    own = folder / shard.manifest_name
    others = [folder / MANIFEST_NAME] if shard.count > 1 else shard_manifests(folder)
    return Manifest(own, also=others)


def shard_manifests(folder: Path) -> list[Path]:
    """Return the manifests of shards in a folder, sorted by name."""
    try:
        names = sorted(name for name in os.listdir(folder) if _OF_SHARD.fullmatch(name))
    except OSError:  # not made yet; writing will tell
        return []
    return [folder / name for name in names]


# --- Merge ------------------------------------------------------------------------------------------------------------


def merge_manifests(folder: Path, name: str = "") -> int:
    """Put the rows of all manifests of a folder into manifest.jsonl, one for each input; return their number.

    Of several rows, done counts more than skipped, and that more than failed; then the latest. Sorted by input. Those
    of shards stay. Memory is bounded: sorted pieces are merged from files. name: of the folder, in messages. Raises
    OutputError, UsageError if the folder has none.
    """
    paths = manifests_of(folder, name)
    with tempfile.TemporaryDirectory(prefix="depthcli-merge-") as place, ExitStack() as stack:
        pieces = _sorted_pieces(paths, Path(place))
        streams = [stack.enter_context(piece.open("rb")) for piece in pieces]
        ranked = heapq.merge(*(map(json.loads, stream) for stream in streams), key=lambda item: item[:3])
        count = 0
        with atomic_path(folder / MANIFEST_NAME) as partial, partial.open("wb") as stream:
            for _, same in groupby(ranked, key=lambda item: item[0]):
                *_, best = same
                stream.write(best[3].encode())
                count += 1
    return count


def manifests_of(folder: Path, name: str = "") -> list[Path]:
    """Return all manifests of a folder, the latest last. Raises UsageError if there is none, with the folder's name."""
    paths = [path for path in (folder / MANIFEST_NAME, *shard_manifests(folder)) if path.exists()]
    if not paths:
        raise UsageError(f"{name or folder} has no manifest", "name the folder that `depth dir` wrote")
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns)


def _sorted_pieces(paths: Sequence[Path], place: Path) -> list[Path]:
    """Write [input, rank, number, row as a line] of all rows to files, each sorted."""
    rows = (row for path in paths for row in read_rows(path))
    ranked = (
        [row["input"], _RANKS.get(str(row.get("status")), 0), number, _line(row).decode()]
        for number, row in enumerate(rows)
    )
    pieces: list[Path] = []
    while piece := sorted(islice(ranked, _PIECE), key=lambda item: item[:3]):
        path = place / str(len(pieces))
        with path.open("wb") as stream:
            stream.writelines(map(_line, piece))
        pieces.append(path)
    return pieces


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


# --- Missing and verify -----------------------------------------------------------------------------------------------


def missing_pictures(results: ResultFolder, pictures: Optional[str] = None) -> Iterator[str]:
    """Yield the names of the pictures that lack a result, as they are below their folder.

    pictures: their folder, or its address, by default the one that run.json names. Raises UsageError if it is not known
    what the results are.
    """
    run = read_run(results.folder)
    if run is None:
        raise UsageError(f"{results.name} has no {RUN_NAME}", "name the folder that `depth dir` wrote")
    source = run.input if pictures is None else pictures
    if run.unit == CLIPS:
        yield from missing_clips(source, results.folder, run)
        return
    if run.pack or are_tars(source):
        yield from _missing_tars(results, TarSet.of(source), run)
        return
    for task, paths in _planned(results, source, run):
        if not results.has(paths):
            yield task.name


def _planned(results: ResultFolder, source: str, run: RunFile) -> Iterator[tuple[Task, Sequence[Path]]]:
    """Yield each picture of a folder or of a place in a store, with the paths of its results."""
    template, outputs = _results_of(run)
    search = FolderSearch(Path(source), results.folder, template=template)
    rows = open_manifest(results.folder, WHOLE).rows
    if is_remote(source):
        place = open_place(source)
        skip = folder_below(place, results.publisher.place) if results.publisher else ""
        tasks: FolderTasks = RemoteTasks(search, rows, outputs.paths, place=place, skip=skip)
    elif os.path.isdir(source):
        tasks = FolderTasks(search, rows, outputs.paths)
    else:
        raise UsageError(f"{source} is not a folder", "name the folder of the pictures after that of the results")
    return ((task, outputs.paths(task.stem)) for task in tasks)


def _missing_tars(results: ResultFolder, tars: TarSet, run: RunFile) -> Iterator[str]:
    """Yield the names of the tars that lack their tar of results, or results of a picture."""
    template, outputs = _results_of(run)
    search = FolderSearch(Path(tars.where), results.folder, template=template)
    for name in tars.names(results.folder):
        if run.pack:
            whole = results.has([results.folder / name])
        else:
            tasks = TarTasks(search, {}, outputs.paths, tars=replace(tars, pattern=name))
            whole = all(results.has(outputs.paths(task.stem)) for task in tasks)
        if not whole:
            yield name


def _results_of(run: RunFile) -> tuple[Optional[NameTemplate], OutputSpec]:
    """Return how the results of a run are named."""
    template = parse_template(run.template, run.formats) if run.template else None
    return template, OutputSpec(run.formats, endings=template.endings if template else ())


def damaged_results(results: ResultFolder, deep: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (file, what is wrong) of the results that the manifests of a folder note.

    A file must be there, have the size that was noted, and be whole by its head and end; an object, which is put whole,
    is told by its size. A clip's result must have its sidecar and its number of frames.
    deep: its sha256 must be the noted one too; a file without one is decoded.
    """
    *others, last = manifests_of(results.folder, results.name)
    manifest = Manifest(last, also=others)
    publisher = results.publisher
    sizes = publisher.place.sizes() if publisher else None
    run = read_run(results.folder)
    of_clips = run is not None and run.unit == CLIPS
    for name in manifest.outputs:
        row, place = manifest.outputs[name]
        path = Path(name)
        if of_clips:  # a failed one names what it would have made
            failed = row.get("status") == FAILED and not os.path.lexists(path)
            wrong = "" if failed else clip_damage(path, deep)
        elif publisher is None or sizes is None:
            wrong = _wrong(path, row, place, deep)
        else:
            wrong = _wrong_object(publisher.file(path), sizes, row, place, deep)
        if wrong:
            yield results.named(path), wrong


def _wrong_object(file: RemoteFile, sizes: SizeTable, row: dict[str, Any], place: int, deep: bool) -> str:
    size, noted = sizes.get(file.name), _at(row.get("files"), place)
    if size is None:
        return "is missing"
    if isinstance(noted, list) and noted and noted[0] != size:
        return f"has {size} bytes, not {noted[0]}"
    digest = _at(row.get("digests"), place)
    if deep and digest:
        try:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                return "has other content than was written"
        except DepthError as error:
            return error.message
    return ""


def _wrong(path: Path, row: dict[str, Any], place: int, deep: bool) -> str:
    try:
        size = path.stat().st_size
        noted = _at(row.get("files"), place)
        if isinstance(noted, list) and noted and noted[0] != size:
            return f"has {size} bytes, not {noted[0]}"
        if path.suffix == TARS:
            if not count_rows(path):
                return "is not a tar of results"
        elif is_cut_short(path) or not read_facts(path):
            return "is cut short or not a result"
        digest = _at(row.get("digests"), place)
        if deep and digest and file_digest(path) != digest:
            return "has other content than was written"
        if deep and not digest:  # tars have one
            read_depth(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DepthError as error:
        return error.message
    return ""


def _at(values: Any, place: int) -> Any:
    return values[place] if isinstance(values, list) and place < len(values) else None
