"""What a command prints: results on stdout, messages on stderr, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Optional

from depthcli.cli.wording import worded
from depthcli.errors import INTERRUPTED, SOME_FAILED, DepthError, OutputError
from depthcli.host.quiet import terminal
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Result

if TYPE_CHECKING:
    from depthcli.jobs.clip_job import Progress

_PLAIN_SECONDS = 10.0  # between two lines of progress without a terminal
_NAMED_FAILURES = 20


def log(line: str) -> None:
    """Write one line to stderr; line breaks inside it are escaped. A full stderr does not stop the work."""
    if sys.stderr is None:  # the process was started with it closed
        return
    try:
        print(_one_line(line), file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _one_line(text: str) -> str:
    return worded(text).replace("\n", "\\n")


def _worded_result(result: Result) -> Result:
    """Return a result whose messages name flags, as all that this command prints."""
    notes, warnings = (tuple(map(worded, lines)) for lines in (result.notes, result.warnings))
    return replace(result, error=worded(result.error), notes=notes, warnings=warnings)


def print_error(error: DepthError) -> None:
    """Write an error and its hint to stderr, one line."""
    log(f"error: {error}")


class Report:
    """Shows a job result by result: paths or JSON on stdout, progress on stderr, counts at the end."""

    def __init__(
        self, total: Optional[int], *, as_json: bool = False, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.counts = {DONE: 0, SKIPPED: 0, FAILED: 0}
        self.failures: list[Result] = []  # the first
        self._codes: set[int] = set()
        self._warned: Counter[str] = Counter()
        self.total = total  # of tasks, about; None as long as it is not known
        self._json = as_json
        self._quiet = quiet
        self._verbose = verbose
        self._started = time.monotonic()
        self._last_plain = self._started
        self._bar: Any = None
        self._bar_task: Any = None

    def __enter__(self) -> Report:
        if not self._quiet and self.total != 1 and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _start_bar()
            self._bar_task = self._bar.add_task("", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def log(self, line: str) -> None:
        """Print a note about the work, unless --quiet was given."""
        if not self._quiet:
            self._stderr(line)

    def add(self, result: Result) -> None:
        """Count one result and show it."""
        from depthcli.io.names import printable

        self.counts[result.status] += 1
        name = printable(result.input)
        if result.status == FAILED:
            self._fail(result)
            self._stderr(f"error: {result.error}" if name in result.error else f"error: {name}: {result.error}")
        if result.calibration and not self._quiet:
            from depthcli.calibration import calibration_of

            self._stderr(f"{name}: {calibration_of(result.calibration).line()}")
        for warning in result.warnings:
            self._warned[warning] += 1
            if self._warned[warning] == 1:  # a folder of a thousand pictures without a camera is one thing to know
                self._stderr(f"warning: {name}: {warning}")
        if self._json:
            self._stdout(_worded_result(result).to_json())
        elif result.status == DONE and not self._quiet:
            for path in result.outputs:
                self._stdout(path)
        if self._verbose and result.status != FAILED:
            notes = f" ({'; '.join(result.notes)})" if result.notes else ""
            self._stderr(f"{name}: {result.status}, {result.ms:.0f} ms{notes}")
        self._show_progress()

    def fail(self, error: DepthError) -> None:
        """Count and show an error that ends the job."""
        self.counts[FAILED] += 1
        result = Result("the job", (), FAILED, error=str(error), code=error.exit_code)
        self._fail(result)
        self._stderr(f"error: {error}")
        if self._json:
            self._stdout(_worded_result(result).to_json())

    def _fail(self, result: Result) -> None:
        self._codes.add(result.code)
        if len(self.failures) < _NAMED_FAILURES:
            self.failures.append(result)

    @property
    def done(self) -> int:
        """Number of results."""
        return sum(self.counts.values())

    @property
    def misses_some(self) -> bool:
        """Whether there are tasks without a result; if their number is not known yet, there are."""
        return self.total is None or self.done < self.total

    def finish(self, interrupted: bool = False) -> None:
        """Print the counts, and the failures once more if there were many."""
        from depthcli.io.names import printable

        seconds = time.monotonic() - self._started
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._json:
            summary = {**self.counts, "total": self.total, "seconds": round(seconds, 3), "interrupted": interrupted}
            self._stdout(json.dumps({"summary": summary}))
        for warning, count in self._warned.items():
            if count > 1:
                self._stderr(f"warning: the same for {count - 1} more: {warning}")
        if self._quiet or (self.total == 1 and not interrupted and not self.counts[SKIPPED]):
            return
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if count)
        rest = 0 if self.total is None else self.total - self.done
        if rest > 0:
            counts = ", ".join(filter(None, [counts, f"{rest} not reached"]))
        self._stderr(f"{counts or 'nothing to do'} in {seconds:.1f} s")
        if interrupted:
            self._stderr("interrupted: run the same command again to continue")
        failed = self.counts[FAILED]
        if failed > 1 and self.done > _NAMED_FAILURES:
            for failure in self.failures:
                self._stderr(f"failed: {printable(failure.input)}")
            if failed > len(self.failures):
                self._stderr(f"and {failed - len(self.failures)} more; see the manifest")

    def exit_code(self, interrupted: bool = False) -> int:
        """Return 0 all done, 3 some failed, 130 interrupted; if nothing was done, the code of all errors or 1."""
        if interrupted:
            return INTERRUPTED
        if not self.counts[FAILED]:
            return 0
        if self.counts[DONE] + self.counts[SKIPPED]:
            return SOME_FAILED
        return next(iter(self._codes)) if len(self._codes) == 1 else 1

    def _show_progress(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar_task, advance=1, total=self.total)
            return
        now = time.monotonic()
        if self._quiet or self._verbose or self.total == 1 or now - self._last_plain < _PLAIN_SECONDS:
            return
        self._last_plain = now
        of = "" if self.total is None else f"/{self.total}"
        left = 0 if self.total is None else (now - self._started) / self.done * max(0, self.total - self.done)
        time_left = f", about {_duration(left)} left" if left else ""
        log(f"{self.done}{of} pictures, {self.counts[FAILED]} failed{time_left}")

    def _stdout(self, line: str) -> None:
        if self._bar is not None and sys.stdout.isatty():
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write stdout: {error.strerror}", "what is done stays done") from error

    def _stderr(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(_one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:
            log(line)


class SceneReport(Report):
    """Shows a scene: a result for each format, and one line about the scene at the end."""

    def _show_progress(self) -> None:
        """Move the bar; without a terminal the notes tell enough."""
        if self._bar is not None:
            super()._show_progress()

    def unread(self, result: Result) -> None:
        """Count and name a picture that is left out of the scene."""
        self.total = (self.total or 0) + 1
        self.add(replace(result, error=f"{result.error}; the scene is made without it"))

    def summary(self, line: str) -> None:
        """Print what became of the scene, in one line."""
        if not self._json:
            self.log(line)


class ClipReport(Report):
    """Shows clips: frames done, speed and time left, as a bar, as lines without a terminal, or as JSON events."""

    _WORDS: ClassVar = {"depth": "depth", "write": "writing"}

    def __enter__(self) -> ClipReport:
        self._clip_bar: Any = None
        self._stage = ("", "")
        self._since, self._at_first, self._shown = 0.0, 0, 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def warn(self, line: str) -> None:
        """Print a warning, also with --quiet."""
        self._stderr(line)

    def add(self, result: Result) -> None:
        """Count one clip's result and show it, with the files of a clip that was read only in part."""
        self.clear()
        super().add(result)
        if result.code == SOME_FAILED and not (self._json or self._quiet):
            for path in result.outputs:
                self._stdout(path)

    def _show_progress(self) -> None:
        """Do nothing: progress counts frames, not clips."""

    def clear(self) -> None:
        """Remove the bar."""
        if self._clip_bar is not None:
            self._clip_bar.stop()
            self._clip_bar = None

    def progress(self, event: Progress) -> None:
        """Show how far a clip is."""
        now = time.monotonic()
        if self._stage != (event.clip, event.stage):
            self.clear()
            self._stage = (event.clip, event.stage)
            # Frames of an earlier run do not count for the speed of this one.
            self._since, self._at_first, self._shown = now, event.frames, now
            return
        fps = (event.frames - self._at_first) / max(now - self._since, 1e-9)
        left = None if event.total is None else max(0.0, (event.total - event.frames) / max(fps, 1e-9))
        if self._json:
            if now - self._shown >= 1:
                self._shown = now
                self._stdout(_progress_json(event, fps, left))
        elif self._quiet:
            return
        elif sys.stderr is not None and sys.stderr.isatty():
            self._show_bar(event, fps)
        elif now - self._shown >= _PLAIN_SECONDS:
            self._shown = now
            of = "" if event.total is None else f"/{event.total}"
            doing = f", {event.doing}" if event.doing else ""
            eta = "" if left is None else f", about {_duration(left)} left"
            log(f"{event.clip}: {self._WORDS[event.stage]}, {event.frames}{of} frames{doing}, {fps:.2f} fps{eta}")

    def _show_bar(self, event: Progress, fps: float) -> None:
        if self._clip_bar is None:
            self._clip_bar = _start_bar("{task.description}", "{task.fields[fps]}")
            text = f"{os.path.basename(event.clip)}: {self._WORDS[event.stage]}"
            self._task = self._clip_bar.add_task(text, total=event.total, fps="")
        self._clip_bar.update(self._task, completed=event.frames, fps=event.doing or f"{fps:.2f} fps")

    def _stderr(self, line: str) -> None:
        if self._clip_bar is not None:
            self._clip_bar.console.print(_one_line(line), markup=False, highlight=False, soft_wrap=True)
        else:
            log(line)


def _progress_json(event: Progress, fps: float, left: Optional[float]) -> str:
    eta = None if left is None else round(left, 1)
    return json.dumps({"event": "progress", **asdict(event), "fps": round(fps, 3), "eta_s": eta})


@dataclass
class Stop:
    """Whether Ctrl-C or SIGTERM came. at_once: set while there is no current file to finish first."""

    asked: bool = False
    at_once: bool = False


@contextmanager
def stop_signals(quiet: bool, unit: str = "file") -> Iterator[Stop]:
    """In this context Ctrl-C and SIGTERM ask to stop after the current unit; a second one stops at once.

    A signal that the process ignored from the start stays ignored, as with nohup or a script's `&`.
    """
    stop = Stop()

    def ask(number: int, _: Optional[FrameType]) -> None:
        if stop.asked or stop.at_once:
            raise KeyboardInterrupt
        stop.asked = True
        if not quiet:  # not printed: the signal may have come in the middle of another print
            os.write(terminal(), f"stopping after the current {unit}; press again to stop at once\n".encode())

    wanted = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_bar(text: str = "", unit: str = "") -> Any:
    """Return a running bar. text, unit: rich fields before the bar and behind the count."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    before, behind = ([TextColumn(words)] if words else [] for words in (text, unit))
    bar = Progress(
        *before,
        BarColumn(),
        MofNCompleteColumn(),
        *behind,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.start()
    return bar


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
