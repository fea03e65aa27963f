"""Objects of pictures: the detector of a service, and the way of a picture through it and through the depth model.

The detector runs in the runner's thread, between the pictures. What it answers for a depth map that is kept stays with
that map, so that another threshold runs no network.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np
from fastapi import Request

from depthcli.choices.objects import OBJECT_FILES, ObjectsChoice
from depthcli.choices.settings import DEFAULT_COLORMAP, noted
from depthcli.depthmap import DepthMap
from depthcli.errors import DepthError, EngineError, Log, PictureError, UsageError, first_line
from depthcli.host.memory import free_memory
from depthcli.io.names import fitting_name
from depthcli.jobs.objects import MadeFrom, check_metric, digest_of, given_weights, measured, warnings_of
from depthcli.objects.files import ENDINGS, json_text, write_objects
from depthcli.objects.sources import Answers, Detector
from depthcli.serve.admission import Room
from depthcli.serve.answers import ZIP_TYPE, Body, media_type_of, packed, stem_of
from depthcli.serve.metrics import Metrics
from depthcli.serve.models import Models
from depthcli.serve.objects_query import ChoiceQuery, ObjectsQuery
from depthcli.serve.pictures import Pictures, Timing, Work
from depthcli.serve.results import Result, Results
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings

_WAIT_SECONDS = 60.0  # to the detector, and for the memory of masks
_SHARE = 0.125  # of the memory that is free at the start, for masks


@dataclass(frozen=True, eq=False)
class Found:
    """The objects of a picture as an answer. depth: that they were measured on. about: see Result."""

    body: Body
    depth: DepthMap
    about: dict[str, Any]
    timing: Timing


def mask_bytes() -> float:
    """Return the most bytes for the masks of all requests together."""
    free = free_memory()
    return math.inf if free is None else free * _SHARE


class ObjectFinder:
    """Finds objects for requests; without a detector it refuses them. It belongs to the event loop; `load` it before.

    `close` it in the end.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        models: Models,
        pictures: Pictures,
        runner: Runner,
        results: Results,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._settings, self._models, self._pictures, self._runner = settings, models, pictures, runner
        self._results, self._metrics, self._log = results, metrics, log
        self._detector: Optional[Detector] = None
        self._made_from = ""
        self._most = mask_bytes()
        self._masks = Room(self._most)

    def load(self) -> None:
        """Load the detector, if one is named. Raises UsageError, ModelError or EngineError."""
        settings = self._settings
        if settings.detector is None:
            return
        self._detector = Detector(
            settings.detector,
            choice=ObjectsChoice(),
            backend=settings.backend,
            offline=settings.choice.offline,
            trust=settings.choice.trust,
            log=self._log,
        )
        self._made_from = digest_of(given_weights(settings.detector, settings.choice.checkpoint))
        self._metrics.loaded.labels(self._detector.facts["source"]).set(1)

    @property
    def ready(self) -> bool:
        """Whether a detector is loaded, or none is wanted."""
        return self._settings.detector is None or self._detector is not None

    def describe(self) -> Optional[dict[str, Any]]:
        """Return what clients may know of the detector, JSON-ready; None without one."""
        if self._detector is None:
            return None
        facts = self._detector.facts
        return {
            "name": facts["source"],
            "engine": facts["engine"],
            "digest": facts["digest"],
            "classes": list(self._detector.classes.values()),
            "formats": {name: _WHAT[name] for name in OBJECT_FILES},
        }

    def close(self) -> None:
        """Free the detector."""
        if self._detector is not None:
            self._detector.close()

    async def of_picture(self, request: Request, query: ObjectsQuery) -> Found:
        """Return the objects of the picture of a request. Raises as `Pictures.estimate`."""

        def begin() -> Work[Found]:
            formats, detector = query.formats, self._variant(query)
            name = self._models.check(query.model)
            return lambda body, until: self._work(body, query, formats, detector, name, until)

        return await self._pictures.admit(request, query, begin)

    async def of_kept(self, name: str, result: Result, query: ChoiceQuery, formats: tuple[str, ...]) -> Found:
        """Return the objects of a depth map that is kept under a name. Raises DepthError."""
        detector, timing, until = self._variant(query), Timing(), time.monotonic() + _WAIT_SECONDS
        sha256 = result.depth.provenance.source_sha256
        # The command's files do not name it.
        depth = result.depth.with_provenance(replace(result.depth.provenance, source_sha256=""))
        with self._pictures.places.one():
            answers = result.answers
            if not answers:
                answers = await self._detect(detector, result.rgb, until, timing)
                self._results.add_answers(name, answers)
            made = self._made(result.name, sha256, query, result.settings)
            body = await self._measure(detector, answers, depth, query, formats, made, timing)
        about = {**result.about, "warnings": [*result.about["warnings"], *warnings_of(depth)]}
        return Found(body, depth, about, timing)

    async def _work(
        self, body: bytes, query: ObjectsQuery, formats: tuple[str, ...], detector: Detector, name: str, until: float
    ) -> Found:
        timing, pictures = Timing(), self._pictures
        async with pictures.read(body, query, name, until, timing) as (estimator, prepared):
            picture = prepared.picture
            detecting = asyncio.ensure_future(self._detect(detector, picture.rgb, until, timing))
            try:
                answer = await pictures.run(estimator, prepared, until, timing)
                answers = await detecting
            finally:
                detecting.cancel()
                with suppress(asyncio.CancelledError, Exception):  # its error was raised, or another one is
                    await detecting
            depth = await pictures.write(lambda: estimator.finish(prepared, answer))
            made = self._made(query.name, hashlib.sha256(body).hexdigest(), query, query.settings(name, self._settings))
            answered = await self._measure(detector, answers, depth, query, formats, made, timing)
        pictures.count(depth)
        about = {
            "notes": list(picture.notes),
            "warnings": [*picture.warnings, *warnings_of(depth)],
            "remembered": estimator.remembered,
        }
        return Found(answered, depth, about, timing)

    def _variant(self, query: ChoiceQuery) -> Detector:
        """Return the detector with the choice of a request. Raises UsageError."""
        if self._detector is None:
            raise UsageError("this service finds no objects", "start it with `detector`, such as seg-small")
        return self._detector.variant(query.choice)

    def _made(self, name: str, sha256: str, query: ChoiceQuery, depth: Any) -> MadeFrom:
        """Return what the JSON notes: the line of a command with the options of the service and of the request."""
        colormap = None if query.colormap == DEFAULT_COLORMAP else query.colormap
        settings = {**query.choice.settings, "detector": self._settings.detector, **depth, "colormap": colormap}
        return MadeFrom(name, sha256, noted(settings), self._made_from)

    async def _detect(self, detector: Detector, rgb: np.ndarray, until: float, timing: Timing) -> Answers:
        """Return the answers of the detector, in its turn."""
        prepared = await self._pictures.write(lambda: detector.prepare(rgb))
        waiting = self._runner.submit_pass(detector.facts["source"], lambda: detector.run(prepared), until)
        try:
            answers, _, seconds = await asyncio.wrap_future(waiting)
        finally:
            waiting.cancel()
        timing.stages["detector"] = seconds
        found: Answers = answers
        return found

    async def _measure(
        self,
        detector: Detector,
        answers: Any,
        depth: DepthMap,
        query: ChoiceQuery,
        formats: tuple[str, ...],
        made: MadeFrom,
        timing: Timing,
    ) -> Body:
        """Return the files of the objects."""
        check_metric(depth, made.name or "the picture", query.choice)  # before masks are made
        need = detector.count(answers) * depth.values.size
        if need > self._most:
            what = f"{detector.count(answers)} masks of {depth.size[0]}x{depth.size[1]} pixels take {need / 1e9:.1f} GB"
            raise UsageError(what, "raise `threshold`, or send a smaller picture")
        async with self._masks.taken(need, _WAIT_SECONDS):
            with timing.of("write"):
                return await self._pictures.write(
                    lambda: _answer(detector, answers, depth, query.choice, formats, made, query.colormap)
                )


_WHAT = {
    "json": "what was measured, with masks as run lengths",
    "overlay": "outlines and distances over the depth's colours",
    "masks": "16-bit numbers of objects",
    "mattes": "a 16-bit matte for each object",
    "exr": "depth and numbers of objects for compositors",
}


def _answer(
    detector: Detector,
    answers: Any,
    depth: DepthMap,
    choice: ObjectsChoice,
    formats: tuple[str, ...],
    made: MadeFrom,
    colormap: str,
) -> Body:
    """Return the files of a picture's objects: one, or a ZIP. Raises DepthError, whatever a writer raises."""
    try:
        found = detector.finish(np.empty(0), answers, depth.size)
        objects, document = measured(detector, found, depth, choice, made)
        stem = stem_of(made.name)
        names = {format: fitting_name(Path(), stem, ENDINGS[format]) for format in formats}
        if formats == ("json",):
            text = json_text(document).encode("utf-8", "backslashreplace")
            return Body(text, "application/json", names["json"], depth.size)
        with tempfile.TemporaryDirectory(prefix="depthcli-") as folder:
            paths = {format: Path(folder) / format for format in formats}
            write_objects(objects, document, paths, colormap)
            files = [entry for format, path in paths.items() for entry in _entries(path, names[format])]
    except DepthError:
        raise
    except MemoryError:
        raise EngineError("not enough memory", "raise `threshold`, or send a smaller picture") from None
    except Exception as error:
        raise PictureError(f"{type(error).__name__}: {first_line(error)}") from error
    if len(formats) == 1 and formats[0] != "mattes":
        return Body(files[0][1], media_type_of(files[0][0]), files[0][0], depth.size)
    return Body(packed(files), ZIP_TYPE, f"{stem}_objects.zip", depth.size)


def _entries(path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a file, or of the files in a folder; a folder without any is not written at all."""
    if path.is_file():
        yield name, path.read_bytes()
    elif path.is_dir():
        for item in sorted(path.iterdir()):
            yield f"{name}/{item.name}", item.read_bytes()
