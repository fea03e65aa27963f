"""Prepare stdin, stdout and stderr: one may be closed, or have an encoding other than UTF-8."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Union

from depthcli.errors import OutputError, PictureError

_ESCAPES = "depthcli-escapes"


def prepare_streams() -> None:
    """Make every text printable on stdout and stderr, and see that no file gets the number of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # the next file to be opened would be it, and get what libraries print
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES if stream is sys.stdout else "backslashreplace")


def read_stdin() -> bytes:
    """Return all that comes on stdin. Raises PictureError if there is nothing to read from."""
    if sys.stdin is None:
        raise PictureError("there is no stdin: the process was started with it closed", "send the picture to it")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:  # a folder, or a terminal that has gone
        raise PictureError(f"stdin cannot be read: {error.strerror}", "send the picture to it") from error


@contextmanager
def open_stream(output: str) -> Iterator[BinaryIO]:
    """Open stdout, a pipe or a device for bytes; waits for the reader of a pipe. Raises OutputError."""
    if is_stdout(output):
        if sys.stdout is None:
            raise OutputError("there is no stdout: the process was started with it closed", "give -o FILE")
        yield sys.stdout.buffer
        return
    try:
        stream = open(output, "wb")
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror or error}") from error
    try:
        yield stream
    finally:
        with suppress(OSError):  # a complete stream is flushed; the reason for an incomplete one is known
            stream.close()


def is_stdout(output: str) -> bool:
    """Return whether an output is -, or leads to the pipe or file that stdout is, such as /dev/stdout."""
    if output == "-" or os.path.abspath(output) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        return True
    try:
        return sys.stdout is not None and os.path.samestat(os.stat(output), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):
        return False


def _escaped(error: UnicodeError) -> tuple[Union[str, bytes], int]:
    r"""Spell out what a stream cannot hold as \uXXXX, which JSON reads back; bytes of a file's name stay bytes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wide = error.encoding.replace("_", "-").startswith(("utf-16", "utf-32"))
    out = b""
    for char in error.object[error.start : error.end]:
        if "\udc80" <= char <= "\udcff" and not wide:
            out += bytes([ord(char) - 0xDC00])
        else:
            units = char.encode("utf-16-be", "surrogatepass").hex()
            out += "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)).encode()
    return (out.decode() if wide else out), error.end
