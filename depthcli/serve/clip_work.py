"""How the job of a clip is done: the films of `depth video`, whose runs of the network let pictures go first."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

from depthcli.camera import Camera
from depthcli.choices.model import ModelChoice
from depthcli.errors import DepthError, Log, UsageError, first_line
from depthcli.io.codecs.encode import Look
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.names import fitting_name, sidecar_of
from depthcli.jobs.clip import run_clip
from depthcli.jobs.clip_job import ClipJob, Progress
from depthcli.jobs.find import CLIP_SUFFIXES, Input
from depthcli.jobs.manifest import DONE, Result
from depthcli.jobs.targets import Target, plan_clips
from depthcli.predict.clip import open_clip_predictor
from depthcli.predict.clip_predictors import ClipPredictor, FrameByFrame
from depthcli.predict.picture import open_cameras, open_clip_metres
from depthcli.serve.clip_query import ClipWish
from depthcli.serve.jobs import SOURCE, JobFile, Outcome, packed_folder
from depthcli.serve.models import Models
from depthcli.serve.runner import Runner
from depthcli.serve.settings import ServiceSettings
from depthcli.zoo.rows import ModelTask, find_row

_MOST_NAME = 150  # bytes, with room for the endings of results


class ClipWork:
    """Does the jobs of clips; see `Work`."""

    kind = "clip"
    space = 1

    def __init__(self, settings: ServiceSettings, models: Models, runner: Runner, log: Log) -> None:
        self._settings, self._models, self._runner, self._log = settings, models, runner, log

    def wish_of(self, facts: Mapping[str, Any]) -> ClipWish:
        """See `Work`."""
        wish = ClipWish.of(facts)
        if not all(name in CLIPS for name in wish.formats):
            raise UsageError("it has formats that are not known any more")
        return wish

    def check(self, wish: ClipWish, source: Path) -> None:
        """See `Work`."""
        self._plan(source, wish)

    def receive(self, wish: ClipWish, source: Path) -> tuple[JobFile, ...]:
        """Return the clip as a file of its job."""
        return (JobFile(source.name, SOURCE),)

    def run(
        self, wish: ClipWish, source: Path, stop: Callable[[], bool]
    ) -> Generator[Union[Progress, Outcome], None, None]:
        """See `Work`."""
        with (
            self._models_of(wish) as load,
            closing(run_clip(self._plan(source, wish), load, stop)) as events,
        ):
            for event in events:
                yield event if isinstance(event, Progress) else self._outcome(event, wish, source)

    def drop_idle(self) -> None:
        """See `Work`: nothing is kept."""

    def close(self) -> None:
        """See `Work`: nothing is kept."""

    def _outcome(self, result: Result, wish: ClipWish, source: Path) -> Outcome:
        """Return what has become of a clip, with its files; those of one format of many frames as a ZIP."""
        files = [JobFile(source.name, SOURCE)]
        done, error, code = result.status == DONE, result.error, result.code
        try:
            for format, path in self._plan(source, wish).outputs:
                if path.is_dir():
                    files.append(JobFile(packed_folder(path).name, format))
                elif path.is_file():
                    files.append(JobFile(path.name, format))
                if sidecar_of(path).is_file():
                    files.append(JobFile(sidecar_of(path).name, "json"))
        except (OSError, DepthError) as broken:
            done, error, code = False, f"cannot pack the frames: {first_line(broken)}", 1
        place = str(source.parent) + os.sep
        return Outcome(
            done,
            tuple(files),
            error.replace(place, ""),
            code,
            tuple(note.replace(place, "") for note in result.notes),
            tuple(warning.replace(place, "") for warning in result.warnings),
        )

    @contextmanager
    def _models_of(self, wish: ClipWish) -> Iterator[Callable[[], ClipPredictor]]:
        """Give what makes the predictor of a clip, whose runs of the network take their turn with the pictures."""
        opened: list[ClipPredictor] = []
        row = find_row(wish.model)
        try:
            if row.task is ModelTask.CLIP:

                def load() -> ClipPredictor:
                    choice, how = replace(self._settings.choice, model=wish.model), wish.choice(self._settings.backend)
                    opened.append(open_clip_predictor(choice, how, self._log, wish.metres.is_given))
                    return _InTurn(opened[0], self._runner)

                yield load
            else:
                with self._models.use(wish.model) as estimator:
                    variant = estimator.variant(input_size=wish.input_size, panorama=wish.panorama)
                    frames = FrameByFrame(variant, wish.steady != "off", wish.batch)
                    yield lambda: _InTurn(frames, self._runner)
        finally:
            for predictor in opened:
                predictor.close()

    def _plan(self, source: Path, wish: ClipWish) -> ClipJob:
        (outputs,) = plan_clips([Input(source, Path(source.name))], wish.formats, Target.of(None))
        return ClipJob(
            source,
            outputs,
            model=ModelChoice(model=wish.model),
            clip=wish.choice(self._settings.backend),
            look=Look(wish.colormap, wish.limits),
            selection=wish.selection(),
            if_exists="skip",
            cameras=open_cameras(wish.camera, wish.panorama),
            metres=open_clip_metres(wish.metres, wish.panorama),
            solid=wish.shape,
            noted=wish.noted,
        )


class _InTurn:
    """A predictor whose network runs in the runner's thread, when no picture waits."""

    def __init__(self, predictor: ClipPredictor, runner: Runner) -> None:
        self._predictor, self._runner = predictor, runner
        self.row, self.weights, self.warnings = predictor.row, predictor.weights, predictor.warnings
        self.description, self.exact = predictor.description, predictor.exact
        self.map_size = (0, 0)
        self.prepare, self.postprocess = predictor.prepare, predictor.postprocess
        self.state, self.restore, self.close = predictor.state, predictor.restore, predictor.close
        self.reached = predictor.reached

    def begin(self, size: tuple[int, int], camera: Optional[Camera] = None, frames: Optional[int] = None) -> Any:
        """See ClipPredictor."""
        plan = self._predictor.begin(size, camera, frames)
        self.map_size, self.row, self.warnings = self._predictor.map_size, self._predictor.row, self._predictor.warnings
        return plan

    def feed(self, prepared: Any, cut: bool) -> Any:
        """See ClipPredictor."""
        return self._runner.call(lambda: self._predictor.feed(prepared, cut))

    def advance(self) -> Any:
        """See ClipPredictor."""
        return self._runner.call(self._predictor.advance)

    def finish(self) -> Any:
        """See ClipPredictor."""
        return self._runner.call(self._predictor.finish)


def plain_clip_name(name: str) -> str:
    """Return the name of a clip's file. Raises UsageError for one that is no clip, or leads elsewhere."""
    plain = Path(name or "clip.mp4").name
    if plain != (name or "clip.mp4") or not plain.isprintable() or plain.startswith(".") or "\\" in plain:
        raise UsageError(f"{name!r} is not the name of a file", "give a name without a folder")
    if Path(plain).suffix.lower() not in CLIP_SUFFIXES:
        raise UsageError(f"{name!r} is not the name of a clip", "its suffix tells, such as .mp4")
    if len(plain.encode(errors="replace")) > _MOST_NAME:
        suffix = Path(plain).suffix
        return fitting_name(Path(), Path(plain).stem[:40], suffix)
    return plain
