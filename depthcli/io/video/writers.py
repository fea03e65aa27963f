"""Write clips in any format, frame by frame.

    with video_writer(ClipOutput("mp4", path, size, Timing.of(clip.info, selection), facts)) as writer:
        for frame in ...:
            writer.write(pixels, frame.time)

The same frames give the same bytes on any number of cores, so that a resumed job ends with the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Callable

from depthcli.errors import OutputError
from depthcli.host.atomic import atomic_path
from depthcli.io.codecs.formats import Format, Holds
from depthcli.io.names import sidecar_of
from depthcli.io.video.boxes import TAGGED, tag_film
from depthcli.io.video.clip_output import ClipOutput, FrameWriter, write_sidecar
from depthcli.io.video.clip_page import PageWriter
from depthcli.io.video.crafter_files import ArrayWriter, CrafterFolder
from depthcli.io.video.encodings import ENCODINGS
from depthcli.io.video.ffmpeg_program import find_program
from depthcli.io.video.film_ffmpeg import ProgramFilm
from depthcli.io.video.film_libav import LibavFilm
from depthcli.io.video.frame_files import FolderWriter
from depthcli.io.video.libav import has_av


@contextmanager
def video_writer(output: ClipOutput) -> Iterator[FrameWriter]:
    """Write one clip; the film and its sidecar appear when the block ends without an error.

    In a folder each file appears when it is complete, and the sidecar at the end. The sidecar `<path>.json` holds the
    facts, and under `video` the kind of file and how its codes become numbers again.

    Raises OutputError if it cannot be written or has no frame.
    """
    with _opening(output.row)(output) as writer:
        yield writer


@contextmanager
def _open_film(output: ClipOutput) -> Iterator[FrameWriter]:
    path, encoding = output.path, ENCODINGS[output.format]
    _clear(path)
    kind = LibavFilm if has_av() or not find_program() else ProgramFilm
    with atomic_path(path) as partial:
        writer = kind(output, encoding, partial)
        try:
            yield writer
            if not writer.count:
                raise OutputError(f"cannot write {path}: no frame came")
            writer.encode_held()
            writer.finish()
            if output.packing is not None and encoding.container in TAGGED:
                writer.notes.extend(filter(None, [tag_film(partial, output.packing, output.half_sphere)]))
        finally:
            writer.close()
    described = {**encoding.described(writer.shape), "duration": float(writer.length)}
    write_sidecar(output, writer.count, described, writer.notes)


@contextmanager
def _open_array(output: ClipOutput) -> Iterator[FrameWriter]:
    _clear(output.path)
    with atomic_path(output.path) as partial, partial.open("wb") as stream:
        writer = ArrayWriter(output, stream)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
    write_sidecar(output, len(writer.times), {"times": writer.times, "duration": writer.length}, writer.notes)


@contextmanager
def _open_page(output: ClipOutput) -> Iterator[FrameWriter]:
    _clear(output.path)
    writer = PageWriter(output)
    yield writer
    with atomic_path(output.path) as partial, partial.open("wb") as stream:
        writer.finish(stream)
    write_sidecar(output, writer.count, writer.described, writer.notes)


def _opening(row: Format) -> Callable[[ClipOutput], AbstractContextManager[FrameWriter]]:
    """Return what opens a writer of such a format."""
    if row.folder:
        return _open_folder
    if row.page:
        return _open_page
    return _open_array if row.holds is Holds.VALUES else _open_film


def _clear(path: Path) -> None:
    """Remove the sidecar of a file that is made anew: without it, no file is taken for whole. Raises OutputError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"cannot write {path}: it is a pipe, a device or a folder", "use another `output`")
    sidecar_of(path).unlink(missing_ok=True)


@contextmanager
def _open_folder(output: ClipOutput) -> Iterator[FrameWriter]:
    # While frames of one run lie beside those of another, no sidecar says that the folder is whole.
    sidecar_of(output.path).unlink(missing_ok=True)
    writer = (CrafterFolder if output.format == CrafterFolder.FORMAT else FolderWriter)(output)
    yield writer
    writer.remove_others()
    if not writer.times:
        raise OutputError(f"cannot write {output.path}: no frame came")
    write_sidecar(output, len(writer.times), {"times": writer.times, "duration": writer.length}, writer.notes)
