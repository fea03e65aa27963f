"""The command `depth`: its subcommands, and the border where errors become one line and an exit code.

Nothing heavy is imported here: `depth --help` must answer at once.
"""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import contextlib
import errno
import gc
import os
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from depthcli.cli import bench as bench_command
from depthcli.cli import compile as compile_command
from depthcli.cli import dir as dir_command
from depthcli.cli import eval as eval_command
from depthcli.cli import image as image_command
from depthcli.cli import models, neuron
from depthcli.cli import video as video_command
from depthcli.cli.report import say, say_error
from depthcli.cli.streams import prepare_streams
from depthcli.errors import INTERRUPTED, DepthError, EngineError, UsageError, first_line
from depthcli.host.quiet import own_descriptor_2
from depthcli.version import __version__

DEBUG_VARIABLE = "DEPTHCLI_DEBUG"


class _Border(TyperGroup):
    """Turns an error raised on purpose into one line on stderr and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DepthError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise  # the reader has left; that is no error of ours
        except OSError as error:
            say(f"error: {_system_error(error)}")
            raise typer.Exit(1) from error
        except (MemoryError, ImportError) as error:  # a limit of memory stops the loader of libraries too
            if os.environ.get(DEBUG_VARIABLE):
                raise
            reason, way_out = "not enough memory", "use a smaller --input-size"
            if isinstance(error, ImportError):
                reason, way_out = f"a package does not load: {error}", "install it anew"
            say_error(EngineError(reason, f"{way_out}, or raise the limit: ulimit -v"))
            raise typer.Exit(EngineError.exit_code) from error
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that was named; a file in its place gets the command that takes it."""
        if self.get_command(ctx, args[0]) is None:
            _refuse_file(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Border,
    name="depth",
    help="Pictures and video to depth, with Depth Anything V2.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"depthcli {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Pictures and video to depth, with Depth Anything V2."""


app.command("image")(image_command.image)
app.command("dir")(dir_command.directory)
app.command("video")(video_command.video)
app.command("eval")(eval_command.evaluate)
app.command("bench")(bench_command.bench)
app.command("compile")(compile_command.compile_command)
app.add_typer(models.app, name="models")
app.add_typer(neuron.app, name="neuron")


def run() -> None:
    """Run the command line; raises SystemExit with its exit code.

    An error that nobody foresaw is one line too; with DEPTHCLI_DEBUG set it keeps its traceback.
    """
    prepare_streams()
    try:
        app()
    except Exception as error:
        if isinstance(error, OSError) or os.environ.get(DEBUG_VARIABLE):
            raise
        say(f"error: {_unexpected(error)}")
        raise SystemExit(1) from error


def _refuse_file(name: str) -> None:
    """Raise UsageError if what stands in a command's place is a file, a folder or an address."""
    from depthcli.jobs.find import command_for, refuse_address

    refuse_address(name)
    command = command_for(name)
    if command:
        raise UsageError(f"{name} is not a command", f"use: depth {command} {shlex.quote(name)}")


def _system_error(error: OSError) -> str:
    """Return what the system refused, and for which file."""
    name = error.filename if isinstance(error.filename, (str, os.PathLike)) else ""
    if error.errno == errno.ENOENT and not name:
        try:
            os.getcwd()
        except OSError:
            return "the working folder has been removed (change to another one)"
    return f"{os.fspath(name)}: {error.strerror}" if name and error.strerror else first_line(error)


def _unexpected(error: Exception) -> str:
    place = f"set {DEBUG_VARIABLE}=1 to see where, and please report it"
    return f"unexpected {type(error).__name__}: {first_line(error)} ({place})"


def main() -> None:
    """Be the process `depth`: run the command line, and leave without taking the engines apart.

    That takes a tenth of the time of one picture, and all that has to be closed is closed by its own block.
    """
    # Looking for cycles among what imports leave behind costs torch's import a sixth of its time, and finds none.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    own_descriptor_2()
    try:
        run()
    except OSError as error:  # where not even the version or a help can be printed
        say(f"error: {_system_error(error)}")
        os._exit(1)
    except SystemExit as end:
        with contextlib.suppress(OSError, ValueError):  # what cannot be flushed is left to Python, which says so
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # as it is where the process was started with it closed
                    stream.flush()
            if end.code is None or isinstance(end.code, int):
                os._exit(end.code or 0)
        raise
