"""From what a user typed to the clips that are meant, and the places of their results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Optional, Union

from depthcli.errors import UsageError
from depthcli.io.images import is_picture
from depthcli.io.video import STDIN
from depthcli.io.video_writers import VIDEO_FORMATS, sidecar_of

# What is taken from a folder of clips; a file that is named is tried whatever it is called.
SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv .y4m".split()
)
_ENDINGS = tuple(row.ending for row in VIDEO_FORMATS.values())
Source = Union[Path, str]


def find_clips(arguments: Sequence[str]) -> list[tuple[Source, Path]]:
    """Return the clips that are meant, each with its path below the folder that was named, or its name.

    A folder of pictures is one clip; one with video files in it stands for these. Our own results are left out. Raises
    UsageError where an argument stands for none.
    """
    return [pair for argument in arguments for pair in _clips_of(argument)]


def _clips_of(argument: str) -> list[tuple[Source, Path]]:
    if not argument:
        raise UsageError("an empty argument names no clip", "is a variable of your script unset?")
    if argument == STDIN:
        return [(STDIN, Path("stdin"))]
    path = Path(argument)
    if path.is_dir():
        clips = _clips_below(path)
        if clips:
            return [(clip, clip.relative_to(path)) for clip in clips]
        if any(is_picture(item) for item in path.iterdir()):
            return [(path, Path(path.resolve().name))]
        raise UsageError(f"there is neither a clip nor a frame in {path}")
    if not path.exists() and glob.has_magic(argument):
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        matches = [match for match in matches if match.suffix.lower() in SUFFIXES and not is_our_result(match)]
        if not matches:
            raise UsageError(f"no clip matches {argument}")
        return [(match, Path(match.name)) for match in matches]
    return [(path, Path(path.name))]


def _clips_below(folder: Path) -> list[Path]:
    every = (Path(root, name) for root, _, names in os.walk(folder) for name in names if not name.startswith("."))
    return sorted(path for path in every if path.suffix.lower() in SUFFIXES and not is_our_result(path))


def is_our_result(path: Path) -> bool:
    """Return whether a file is one that we wrote: it has the ending of one, and a sidecar beside it."""
    return path.name.endswith(_ENDINGS) and sidecar_of(path).is_file()


def plan_outputs(
    clips: Sequence[tuple[Source, Path]], formats: Sequence[str], output: Optional[str]
) -> list[list[tuple[str, Path]]]:
    """Return (format, path) of all that each clip becomes.

    output: a folder, or, where it has the ending of the only format, the very file; None for the clips' own folders.
    Clips that differ only in their suffix keep it in the results' names. Raises UsageError where two clips would still
    become one file.
    """
    if output and is_one_file(output, formats):
        if len(clips) > 1:
            raise UsageError(
                f"{len(clips)} clips do not go into the one file {output}", "name a folder with / at its end"
            )
        return [[(formats[0], Path(output))]]
    names = [_place(source, relative, output) for source, relative in clips]
    stems = [name if _is_folder(source) else name.with_suffix("") for name, (source, _) in zip(names, clips)]
    twice = {stem for stem, count in Counter(stems).items() if count > 1}
    stems = [name if stem in twice else stem for name, stem in zip(names, stems)]
    for stem, count in Counter(stems).items():
        if count > 1:
            raise UsageError(f"{count} clips would be written to {stem}{_ENDINGS[0]}", "give each its own -o")
    return [[(name, stem.with_name(f"{stem.name}{VIDEO_FORMATS[name].ending}")) for name in formats] for stem in stems]


def _place(source: Source, relative: Path, output: Optional[str]) -> Path:
    if output:
        return Path(output) / relative
    return Path(relative.name) if source == STDIN else Path(source).parent / relative.name


def _is_folder(source: Source) -> bool:
    return isinstance(source, Path) and source.is_dir()


def is_one_file(output: str, formats: Sequence[str]) -> bool:
    """Return whether an output names a file. Raises UsageError for one that the formats do not go with."""
    suffix = Path(output).suffix.lower()
    if output.endswith(("/", os.sep)) or Path(output).is_dir() or not suffix:
        return False
    wanted = [Path(VIDEO_FORMATS[name].ending).suffix for name in formats]
    if suffix not in {Path(ending).suffix for ending in _ENDINGS}:
        return False  # a folder with a dot in its name
    if len(formats) > 1:
        raise UsageError("one file cannot hold several formats", "give a folder with -o, or one --format")
    if wanted[0] != suffix:
        kind = wanted[0] or "a folder"
        raise UsageError(
            f"{formats[0]} is written as {kind}, not {suffix}", "name such a file, or a folder with / at its end"
        )
    return True
