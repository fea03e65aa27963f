"""Every error a user can meet, as one tree; each class carries its exit code.

    DepthError                 1   nothing could be done
    ├── UsageError             2   an option or argument makes no sense
    ├── PictureError           1   one input picture cannot be read or is too large
    ├── ClipError              1   a clip cannot be read, or not to its end
    ├── OutputError            1   a result cannot be written or read back
    │   └── DiskFullError      1   nothing more can be written: a job stops here
    ├── ModelError             4   the model or its weights
    │   ├── CheckpointError    4   a file that is not what it should be
    │   └── DownloadError      4   the weights are not here and cannot be fetched
    └── EngineError            5   the device or the backend

The library raises; the command line prints message and hint in one line and exits with `exit_code`. A batch with some
failed files exits with SOME_FAILED.

Messages and hints name a setting by its field in choices.py, in backticks: "`batch` must be at least 1, got 0". What a
user types for it (a flag, a key of a request) is known only to the interface, which words it with `DepthError.worded`.
"""

from __future__ import annotations

import re
from typing import Callable

Log = Callable[[str], None]  # takes one line for the user: a download, a fallback
_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")

SOME_FAILED = 3
INTERRUPTED = 130


class DepthError(Exception):
    """Base of all errors raised on purpose.

    message: one line that names the thing and the reason. hint: one line that names the way out, or empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    @property
    def settings(self) -> tuple[str, ...]:
        """Names of the settings that the message and the hint mention."""
        return tuple(dict.fromkeys(_SETTING.findall(str(self))))

    def worded(self, word: Callable[[str], str]) -> str:
        """Return the line with each setting in backticks replaced by `word(name)`."""
        return word_settings(str(self), word)


class UsageError(DepthError):
    """An option or argument makes no sense."""

    exit_code = 2


class PictureError(DepthError):
    """An input picture cannot be read, is hostile, or is too large to be processed."""


class ClipError(DepthError):
    """A clip cannot be read, or not to its end.

    frames: how many frames were decoded before the error; unlike after a PictureError, their results are good.
    """

    def __init__(self, message: str, hint: str = "", frames: int = 0) -> None:
        super().__init__(message, hint)
        self.frames = frames


class OutputError(DepthError):
    """A result cannot be written, or a depth file cannot be read back."""


class EmptyShapeError(OutputError):
    """No point or triangle is left of a picture or scene; other options may leave some."""


class DiskFullError(OutputError):
    """Nothing more can be written where the results go: going on would only waste work."""


class ModelError(DepthError):
    """Something is wrong with the model or its weights."""

    exit_code = 4


class CheckpointError(ModelError):
    """A checkpoint file is not what it should be: truncated, altered, or of another model."""


class DownloadError(ModelError):
    """The weights are not on this machine and cannot be fetched."""


class EngineError(DepthError):
    """The device or the backend cannot do what was asked."""

    exit_code = 5


class DeviceLostError(EngineError):
    """The device fails again and again: going on would only fail every picture."""


class StoppedError(Exception):
    """Work was asked to stop, and did. Nothing failed, so it is none of the errors above, and nobody is told of it."""


def word_settings(text: str, word: Callable[[str], str]) -> str:
    """Return a text with each setting in backticks replaced by `word(name)`."""
    return _SETTING.sub(lambda found: word(found[1]), text)


def warn(line: str) -> None:
    """Log a line as a warning of "depthcli"; Python prints it to stderr unless a program arranges otherwise."""
    import logging  # here: no start needs it

    logging.getLogger("depthcli").warning(line)


def first_line(error: BaseException) -> str:
    """Return what a foreign error says in its first line, or its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_line(error: BaseException) -> str:
    """The same for those that begin with where they come from, and end with what is wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
