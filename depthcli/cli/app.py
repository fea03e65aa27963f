"""The command `depth`: its subcommands, and the place where errors become one line and an exit code.

Nothing heavy is imported here: `depth --help` must answer at once.
"""

# No `from __future__ import annotations` here: on Python 3.9 Typer cannot evaluate annotations that are strings.

import contextlib
import errno
import os
import sys
from typing import Annotated, Any

import typer

from depthcli.cli.groups import LazyCommands, PlainGroup
from depthcli.cli.streams import prepare_streams
from depthcli.errors import INTERRUPTED, DepthError, EngineError, first_line
from depthcli.host.quiet import own_descriptor_2
from depthcli.version import __version__

DEBUG_VARIABLE = "DEPTHCLI_DEBUG"


# In the order a person needs them. The sentences are the first of each command's docstring.
_COMMANDS = {
    "image": ("depthcli.cli.image:image", "Estimate the depth of pictures."),
    "dir": ("depthcli.cli.dir:directory", "Estimate the depth of every picture in a folder."),
    "video": (
        "depthcli.cli.video:video",
        "Estimate the depth of clips: steady, with the clip's size, times and sound.",
    ),
    "scene": (
        "depthcli.cli.scene:scene",
        "Estimate depth and cameras of the pictures of one place: clouds, meshes, COLMAP.",
    ),
    "auto": ("depthcli.cli.auto:auto", "Take what is named for a picture or a scene, and say which."),
    "stereo": (
        "depthcli.cli.stereo:stereo",
        "Turn pictures and clips into 3D: two eyes, in the layout of your player.",
    ),
    "objects": ("depthcli.cli.objects:objects", "Tell how far each object is: masks joined with depth."),
    "effect": ("depthcli.cli.effect:app", "Change pictures by their depth: blur, fog, cut, parallax."),
    "convert": ("depthcli.cli.convert:convert", "Convert depth files between formats, without a model."),
    "info": ("depthcli.cli.info:info", "Tell what a file is: kind and unit of depth, range, camera, model."),
    "calibrate": (
        "depthcli.cli.calibrate:calibrate",
        "Find the scale and shift that make metres of a model's depth, by what was measured.",
    ),
    "compile": (
        "depthcli.cli.compile:compile_command",
        "Compile a model to a file for other programs, or for --backend torchscript and neuron.",
    ),
    "bench": (
        "depthcli.cli.bench:bench",
        "Measure speed and memory of the backends; with --video, speed and steadiness of clips.",
    ),
    "eval": ("depthcli.cli.eval:app", "Score a model, or saved predictions, against measured depth."),
    "train": ("depthcli.cli.train:train", "Fine-tune a model on pictures with measured depth."),
    "manifest": ("depthcli.cli.manifest:app", "Merge notes about results, and find what is missing or damaged."),
    "serve": ("depthcli.cli.serve:serve", "Keep a model loaded and answer over HTTP, with a web page."),
    "models": ("depthcli.cli.models:app", "List, download and check the models."),
    "neuron": ("depthcli.cli.neuron:app", "Check this machine for AWS Inferentia."),
}


def _log(line: str) -> None:
    from depthcli.cli.report import log  # loaded if there is something to report

    log(line)


class DepthGroup(PlainGroup):
    """The command `depth`: runs files without a command, and turns errors into one line on stderr and an exit code."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.commands = LazyCommands(_COMMANDS)  # type: ignore[assignment]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises typer.Exit with the exit code of an expected error."""
        try:
            return super().invoke(ctx)
        except DepthError as error:
            _log(f"error: {error}")
            raise typer.Exit(error.exit_code) from error
        except BrokenPipeError:
            raise  # the reader has left, which is not an error of this program
        except OSError as error:
            _log(f"error: {_system_error(error)}")
            raise typer.Exit(1) from error
        except (MemoryError, ImportError) as error:  # a memory limit stops the loader of libraries too
            if os.environ.get(DEBUG_VARIABLE):
                raise
            reason, hint = "not enough memory", "use a smaller `input_size`"
            if isinstance(error, ImportError):
                reason, hint = f"a package does not load: {error}", "install it again"
            shown = EngineError(reason, f"{hint}, or raise the limit: ulimit -v")
            _log(f"error: {shown}")
            raise typer.Exit(EngineError.exit_code) from error
        except KeyboardInterrupt:
            _log("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that was named; `depth photo.jpg` is `depth image photo.jpg`."""
        if self.get_command(ctx, args[0]) is None:
            command = _guess(args[0]) if ctx.resilient_parsing else _command_for(args[0])
            args = [command, *args] if command else args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=DepthGroup,
    name="depth",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"depthcli {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, metavar="", help="Print the version.")
    ] = False,
) -> None:
    """Turn pictures and video into depth, with Depth Anything V2 and 3 and Video-Depth-Anything.

    depth photo.jpg                            writes photo_depth.png beside it
    depth photo.jpg --metric indoor -f npz     metres, as numbers
    depth photos                               a folder of pictures, into photos_depth/
    depth clip.mp4                             a steady depth film with the clip's sound
    depth scene photos                         depth, cameras and points of one place
    """


def run() -> None:
    """Run the command line; raises SystemExit with its exit code.

    An unexpected error is one line too; with DEPTHCLI_DEBUG set it keeps its traceback.
    """
    prepare_streams()
    try:
        app()
    except Exception as error:
        if isinstance(error, OSError) or os.environ.get(DEBUG_VARIABLE):
            raise
        hint = f"set {DEBUG_VARIABLE}=1 for the traceback, and please report it"
        _log(f"error: unexpected {type(error).__name__}: {first_line(error)} ({hint})")
        raise SystemExit(1) from error


def _command_for(name: str) -> str:
    """Return the command for a file or a folder, empty for any other word. Raises UsageError for an address."""
    from depthcli.jobs.find import command_for, refuse_address

    refuse_address(name)
    return command_for(name)


def _guess(name: str) -> str:
    """Return the command for a file or a folder while the shell completes, without loading a library."""
    if os.path.isdir(name):
        return "dir"
    import mimetypes

    kind = (mimetypes.guess_type(name)[0] or "").partition("/")[0]
    return {"video": "video", "image": "image"}.get(kind, "")


def _system_error(error: OSError) -> str:
    """Return what the system refused, and for which file."""
    name = error.filename if isinstance(error.filename, (str, os.PathLike)) else ""
    if error.errno == errno.ENOENT and not name:
        try:
            os.getcwd()
        except OSError:
            return "the working folder has been removed (change to another one)"
    return f"{os.fspath(name)}: {error.strerror}" if name and error.strerror else first_line(error)


def main() -> None:
    """Run the command line as the process `depth`, and exit without closing the backends.

    That saves a tenth of the time of one picture; everything that has to be closed is closed by its own block.
    """
    own_descriptor_2()
    try:
        run()
    except OSError as error:  # not even the version or a help can be printed
        _log(f"error: {_system_error(error)}")
        os._exit(1)
    except SystemExit as end:
        with contextlib.suppress(OSError, ValueError):  # Python reports what cannot be flushed
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # None if the process was started with it closed
                    stream.flush()
            if end.code is None or isinstance(end.code, int):
                os._exit(end.code or 0)
        raise
