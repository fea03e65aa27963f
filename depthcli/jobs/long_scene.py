"""More views than fit at once: chunks that overlap, one after the other, and their files put together into one scene.

Each chunk is a scene of its own, in a file below the results. The end of each one and the beginning of the next are the
same views, which tell how the two lie; where a place is seen again, a scene of both ends closes the path. What is
written then is read from the files chunk by chunk, so memory grows with a chunk, and with a few numbers for each view.

    chunks/about.json   what they were made of
    chunks/00000.npz    the scene of a chunk     chunks/00000-descriptors.npy    what its views look like
    chunks/loop-00007-00000.npy                  the transform between two chunks, or nothing if they show two places
"""

from __future__ import annotations

import json
import shutil
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Callable, Optional

import numpy as np

from depthcli.choices.scenes import ChunksChoice
from depthcli.errors import EngineError, OutputError, UsageError
from depthcli.geometry.chunk_plan import WINDOW, Chunk, Loop, alike, plan_chunks, plan_loops, thinned
from depthcli.geometry.pose_graph import Link, close_loops, matrices, transforms
from depthcli.geometry.scene_join import fit_views, moved_view, show_one_place, sketch_table
from depthcli.geometry.sim3 import IDENTITY, Sim3
from depthcli.host.atomic import atomic_path, remove_partials
from depthcli.io.scenes.files import read_scene
from depthcli.io.scenes.npz import write_npz
from depthcli.io.video.spool import check_disk, readable
from depthcli.predict.scene import Cameras, ReadView, SceneEstimator
from depthcli.scene import Scene, View
from depthcli.temporal.selection import evenly

FOLDER, ABOUT = "chunks", "about.json"
_PIXEL_BYTES = 4 + 4 + 3 + 1  # depth, confidence, picture and sky
_LEAST_PIXELS = 4  # of a view in the sketch of all views
_MOST_SHOWN = 200  # views of a page
_PATIENCE = 5.0  # seconds between two lines of progress

Log = Callable[[str], None]


@dataclass(frozen=True)
class Chunks:
    """The files of the chunks of a scene. facts: what they are made of, ready for JSON; other ones are not used."""

    folder: Path
    plan: tuple[Chunk, ...]
    facts: tuple[tuple[str, str], ...]

    def scene_path(self, number: int) -> Path:
        """Return the file of a chunk's scene."""
        return self.folder / f"{number:05d}.npz"

    def descriptors_path(self, number: int) -> Path:
        """Return the file of a chunk's descriptors."""
        return self.folder / f"{number:05d}-descriptors.npy"

    def loop_path(self, loop: Loop) -> Path:
        """Return the file of the transform between two chunks."""
        return self.folder / f"loop-{loop.later:05d}-{loop.earlier:05d}.npy"

    def begin(self, overwrite: bool) -> None:
        """Make the folder ready. Raises UsageError if it has chunks of something else, and they are to stay."""
        about = json.dumps(dict(self.facts), indent=1) + "\n"
        path = self.folder / ABOUT
        if path.is_file() and path.read_text("utf-8") != about:
            if not overwrite:
                raise UsageError(
                    f"{self.folder} has chunks of other views, or of other options",
                    "`if_exists` overwrite makes all anew, or use another `output`",
                )
            shutil.rmtree(self.folder)
        elif self.folder.exists() and not path.is_file() and any(self.folder.iterdir()):
            raise OutputError(f"{self.folder} is there already, and is not of this program", "use another `output`")
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partials(self.folder)
        _write(path, lambda stream: _put(stream, about.encode()))

    @property
    def first_missing(self) -> int:
        """Number of the first chunk that is not there; as many as there are chunks if all are."""
        missing = (number for number in range(len(self.plan)) if not self.scene_path(number).is_file())
        return next(missing, len(self.plan))

    def scene(self, number: int) -> Scene:
        """Return the scene of a chunk."""
        return read_scene(self.scene_path(number))

    def own(self, number: int) -> slice:
        """Return which views of a chunk are not those of the next one too."""
        chunk = self.plan[number]
        if number + 1 == len(self.plan):
            return slice(0, len(chunk))
        return slice(0, self.plan[number + 1].start - chunk.start)


@dataclass(frozen=True, eq=False)
class Joined:
    """worlds: the transform of each chunk to the world of the first. loops: number of those that closed."""

    worlds: tuple[Sim3, ...]
    loops: int


@dataclass(frozen=True, eq=False)
class LongScene:
    """Chunks in one world. edges: limit of pixels between surfaces. pixels: of all views together, in the sketches."""

    chunks: Chunks
    joined: Joined
    edges: Optional[float] = None
    pixels: int = 1_000_000

    def views(self) -> Iterator[View]:
        """Yield all views in the first chunk's world, each once: from the later of two chunks that have it."""
        for number, world in enumerate(self.joined.worlds):
            for view in self.chunks.scene(number).views[self.chunks.own(number)]:
                yield moved_view(view, world)

    @cached_property
    def sketch(self) -> Scene:
        """All views with some of their pixels, for what shows the whole: clouds, cameras, COLMAP."""
        return self._sketch(self.views(), self.chunks.plan[-1].stop)

    def overview(self) -> Scene:
        """Return some of the views, evenly, with more of their pixels: a page cannot show thousands."""
        count = self.chunks.plan[-1].stop
        chosen = set(evenly(count, _MOST_SHOWN))
        return self._sketch((view for number, view in enumerate(self.views()) if number in chosen), len(chosen))

    def _sketch(self, views: Iterable[View], count: int) -> Scene:
        facts = dict(self.chunks.scene(0).facts)
        facts.update(chunks=len(self.chunks.plan), loops=self.joined.loops, reference=None)
        return Scene(sketch_table(views, count, max(_LEAST_PIXELS, self.pixels // count), self.edges), facts)


def chunks_of(names: Sequence[str], choice: ChunksChoice, folder: Path, digest: str, *made_by: str) -> Chunks:
    """Return the chunks of views below a folder. digest: of the inputs. made_by: model and options."""
    assert choice.chunk is not None
    plan = tuple(plan_chunks(len(names), choice.chunk, choice.shared))
    facts = {
        "inputs": digest,
        "views": f"{len(names)}, {names[0]} to {names[-1]}",
        "made by": " ".join(made_by),
        "chunks": f"{len(plan)} of {choice.chunk} that share {choice.shared}",
    }
    return Chunks(folder / FOLDER, plan, tuple(facts.items()))


def check_space(chunks: Chunks, size: tuple[int, int]) -> str:
    """Return a line on the disk that the chunks take. size: (width, height) of maps. Raises DiskFullError."""
    left = sum(len(chunk) for chunk in chunks.plan[chunks.first_missing :])
    whole = sum(len(chunk) for chunk in chunks.plan)
    each = size[0] * size[1] * _PIXEL_BYTES
    check_disk(chunks.folder, left * each)
    chunk = chunks.plan[0]
    return (
        f"{chunks.plan[-1].stop} views in {len(chunks.plan)} chunks of up to {len(chunk)}, which take "
        f"{readable(whole * each)} on disk, in {chunks.folder}"
    )


def make_chunks(
    chunks: Chunks,
    views: Iterable[ReadView],
    estimator: SceneEstimator,
    cameras: Callable[[Chunk], Optional[Cameras]],
) -> Iterator[str]:
    """Run the network over the chunks that are not there, and write them; yield lines of progress.

    views: from the first one of the first chunk that is not there. cameras: the known ones of a chunk's views.
    """
    first = chunks.first_missing
    started = told = time.perf_counter()
    held: deque[ReadView] = deque()
    source = iter(views)
    for number in range(first, len(chunks.plan)):
        chunk = chunks.plan[number]
        while len(held) < len(chunk):
            held.append(next(source))
        found = estimator.run_described(list(held), cameras(chunk))
        if found.descriptors is not None:
            descriptors = found.descriptors.astype(np.float32)
            _write(chunks.descriptors_path(number), lambda stream, it=descriptors: np.save(stream, it))  # type: ignore[misc]
        _write(chunks.scene_path(number), lambda stream, it=found.scene: write_npz(it, stream))  # type: ignore[misc]
        for _ in range(chunks.own(number).stop):
            held.popleft()
        done = number + 1 - first
        if time.perf_counter() - told > _PATIENCE or number + 1 == len(chunks.plan):
            told = time.perf_counter()
            left = (told - started) / done * (len(chunks.plan) - first - done)
            yield f"{number + 1} of {len(chunks.plan)} chunks" + (f", about {left:.0f} s left" if left else "")


def join_chunks(chunks: Chunks, estimator: Callable[[], SceneEstimator], loops: bool, log: Log) -> Joined:
    """Return how the chunks lie. estimator: opens the network, if a loop needs it.

    Raises EngineError if the views that two chunks share do not tell how they lie.
    """
    steps = []
    before, took = chunks.scene(0), 0.0
    if before.facts.get("world") == "given":  # all are in the world of the cameras
        return Joined((IDENTITY,) * len(chunks.plan), 0)
    for number in range(1, len(chunks.plan)):
        after = chunks.scene(number)
        started = time.perf_counter()
        steps.append(_step(before, after, chunks, number))
        took += time.perf_counter() - started
        before = after
    log(f"{len(chunks.plan)} chunks are fitted to each other, in {took:.1f} s")
    links = list(_links(chunks, estimator, log)) if loops else []
    return Joined(tuple(close_loops(steps, links).worlds), len(links))


def _step(before: Scene, after: Scene, chunks: Chunks, number: int) -> Sim3:
    shared = chunks.plan[number - 1].stop - chunks.plan[number].start
    try:
        return fit_views(after.views[:shared], before.views[-shared:])
    except ValueError as error:
        names = f"{after.views[0].name} to {after.views[shared - 1].name}"
        raise EngineError(
            f"chunks {number} and {number + 1} do not fit each other at {names}: {error}", "use a larger `overlap`"
        ) from error


def _links(chunks: Chunks, estimator: Callable[[], SceneEstimator], log: Log) -> Iterator[Link]:
    """Yield the links between chunks that show one place again."""
    paths = [chunks.descriptors_path(number) for number in range(len(chunks.plan))]
    if len(paths) < 3:  # neighbours are fitted already
        return
    if not all(path.is_file() for path in paths):
        log("this network gives nothing to find places by that are seen again: no loop is closed")
        return
    window = min(WINDOW, max(1, len(chunks.plan[0]) // 2))
    pairs = thinned(alike(_Descriptors(chunks)))
    found = [one for one in plan_loops(pairs, chunks.plan, window) if one.later - one.earlier > 1]
    for number, loop in enumerate(found):
        path = chunks.loop_path(loop)
        if not path.is_file():
            transform = _close(chunks, loop, estimator())
            content = np.zeros((0, 4, 4)) if transform is None else matrices([transform])
            _write(path, lambda stream, it=content: np.save(stream, it))  # type: ignore[misc]
            log(f"{number + 1} of {len(found)} places that look alike are compared")
        content = np.load(path)
        if len(content):
            yield Link(loop.later, loop.earlier, transforms(content)[0])


class _Descriptors:
    """The descriptors of all views as rows, read from the files of their chunks: all of a long clip take megabytes."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._starts = [chunk.start for chunk in chunks.plan]

    def __len__(self) -> int:
        return self._chunks.plan[-1].stop

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return rows `start` to `stop` - 1, of the later of two chunks that have one."""
        parts, row = [], rows.start
        while row < rows.stop:
            number = bisect_right(self._starts, row) - 1
            start = self._starts[number]
            stop = min(rows.stop, start + self._chunks.own(number).stop)
            parts.append(np.load(self._chunks.descriptors_path(number))[row - start : stop - start])
            row = stop
        return np.concatenate(parts)


def _close(chunks: Chunks, loop: Loop, estimator: SceneEstimator) -> Optional[Sim3]:
    """Return the transform from the later chunk to the earlier one by a scene of both ends; None for two places."""
    ends = []
    for number, window in ((loop.later, loop.later_window), (loop.earlier, loop.earlier_window)):
        start = chunks.plan[number].start
        ends.append(chunks.scene(number).views[window.start - start : window.stop - start])
    later, earlier = ends
    joint = estimator.run_again([*later, *earlier]).views
    if not show_one_place(joint[: len(later)], joint[len(later) :]):
        return None
    try:
        of_later, of_earlier = fit_views(joint[: len(later)], later), fit_views(joint[len(later) :], earlier)
    except ValueError:
        return None
    return of_earlier @ of_later.inverse()


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        write(stream)


def _put(stream: IO[bytes], content: bytes) -> None:
    stream.write(content)
