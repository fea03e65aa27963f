"""Find the pictures or clips that a user named: files, folders, globs, lists, numbered frames, stdin."""

from __future__ import annotations

import codecs
import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Callable, NamedTuple, Union

from depthcli.choices.source import SourceChoice
from depthcli.errors import UsageError
from depthcli.io.codecs.formats import may_be_ours
from depthcli.io.names import STDIN
from depthcli.io.pictures.files import PICTURE_SUFFIXES, is_picture, may_be_listed
from depthcli.jobs.manifest import is_note
from depthcli.jobs.walk import CLOSED, LINK, WALKED, walk

# Video files that are taken from a folder or a glob; a file that is named is tried whatever its suffix.
CLIP_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv .qt .ts"
    " .vob .webm .wmv .y4m".split()
)
_MARKS = (  # the longer first: UTF-16's mark is the beginning of UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MOST_NAMES = 4  # in one note


class Input(NamedTuple):
    """One picture or clip. source: its path, a pattern of frames, or STDIN.

    relative: path below the folder that was named, or just its name.
    """

    source: Union[Path, str]
    relative: Path


@dataclass(frozen=True)
class InputKind:
    """The differences between pictures and clips in a search.

    takes: whether a file in a folder is an input, by its name. is_result: whether depthcli wrote a file. fetch: command
    that gets the input from an address. frames: pictures in a folder, or of a pattern, are one input.
    """

    noun: str
    takes: Callable[[Path], bool]
    is_result: Callable[[Path], bool]
    fetch: Callable[[str], str]
    frames: bool = False


def _fetch_picture(address: str) -> str:
    name = address.partition("?")[0].rstrip("/").rpartition("/")[2] or "photo.jpg"
    return f"download it first: curl -fLo {shlex.quote(name)} {shlex.quote(address)}"


def _is_map(path: Path) -> bool:
    if not may_be_ours(path) or not os.path.isfile(path):  # opening a pipe would wait for ever
        return False
    from depthcli.io.codecs.files import read_facts

    return bool(read_facts(path))


def _is_clip_result(path: Path) -> bool:
    """Return whether a file is one of our films or maps, beside a sidecar of ours, or in a folder that has one."""
    from depthcli.io.video.film_comment import is_depth_film
    from depthcli.jobs.clip_results import facts_beside, is_our_map

    suffix = path.suffix.lower()
    if suffix in CLIP_SUFFIXES:
        return bool(facts_beside(path)) or (path.is_file() and is_depth_film(path))
    if suffix == ".json":
        return bool(facts_beside(path.with_suffix("")))
    return is_our_map(path) or bool(facts_beside(path)) or bool(facts_beside(path.parent))


PICTURE = InputKind("picture", is_picture, _is_map, _fetch_picture)


def depth_kind(source: SourceChoice) -> InputKind:
    """Return the kind of depth files to convert: maps, and films that hold numbers. source: what wrote them."""
    from depthcli.io.codecs.foreign import suffixes_of  # which photos do not need

    suffixes = suffixes_of(source)

    def takes(path: Path) -> bool:
        from depthcli.io.video.depth_film import has_numbers

        return not path.name.startswith(".") and (path.suffix.lower() in suffixes or has_numbers(path))

    # Results of ours are what is converted.
    return InputKind("depth file", takes, lambda path: False, _fetch_picture)


CLIP = InputKind(
    "clip",
    lambda path: path.suffix.lower() in CLIP_SUFFIXES,
    _is_clip_result,
    lambda address: f"download it, or stream it: ffmpeg -i '{address}' -f yuv4mpegpipe - | depth video -",
    frames=True,
)


@dataclass
class LeftOut:
    """What was found and is not taken.

    results: names of files that depthcli wrote. suffixes: of other files. links: to folders that are walked under
    another name. notes: further lines for the user.
    """

    kind: InputKind = PICTURE
    results: list[str] = field(default_factory=list)
    suffixes: Counter[str] = field(default_factory=Counter)
    folders: int = 0
    hidden: int = 0
    links: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, paths: Iterable[Path]) -> None:
        """Count files that are not inputs."""
        for path in paths:
            if is_note(path.name):
                continue
            if self.kind.is_result(path):
                if path.suffix.lower() != ".json":  # the sidecar of another one
                    self.results.append(path.name)
            else:
                self.suffixes[path.suffix.lower()] += 1

    def add_names(self, names: Iterable[str]) -> None:
        """Count files in a store that are not inputs; they are told by their names alone."""
        self.suffixes.update(Path(name).suffix.lower() for name in names if not is_note(Path(name).name))

    def __str__(self) -> str:
        """One line that names all of it; empty if nothing was left out."""
        noun = self.kind.noun
        others = [suffix or "no suffix" for suffix, _ in self.suffixes.most_common()]
        frames = "; name a file or a folder of frames to take it" if self.kind.frames else ""
        parts = (
            _counted(len(self.results), "result of depthcli", "results of depthcli", sorted(self.results)),
            _counted(
                sum(self.suffixes.values()), f"file that is not a {noun}", f"files that are not {noun}s", others, frames
            ),
            _counted(self.folders, "folder", "folders"),
            _counted(self.hidden, "hidden file or folder", "hidden files or folders"),
            _counted(
                len(self.links), "link to a folder walked elsewhere", "links to folders walked elsewhere", self.links
            ),
        )
        return f"left out: {', '.join(filter(None, parts))}" if any(parts) else ""

    def lines(self) -> list[str]:
        """Return all that a user should know, one line each."""
        return [*self.notes, *filter(None, [str(self)])]


def _counted(count: int, one: str, many: str, names: Sequence[str] = (), more: str = "") -> str:
    if not count:
        return ""
    return f"{count} {one if count == 1 else many}" + (f" ({_listed(names)}{more})" if names else "")


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest


def find_inputs(arguments: Sequence[str], kind: InputKind = PICTURE, left: LeftOut | None = None) -> list[Input]:
    """Return the inputs that the arguments name, in their order, each once.

    A folder stands for the inputs below it; a folder of pictures is one clip if no video lies below it. Our own results
    are left out of folders and globs, and of several arguments, because the shell expands *.png to them too.
    left: filled with what is not taken. Raises UsageError for an argument that names no input.
    """
    left = LeftOut(kind) if left is None else left
    found: dict[str, Input] = {}
    for argument in arguments:
        for item in _expand(argument, kind, left, several=len(arguments) > 1):
            found.setdefault(item.source if isinstance(item.source, str) else os.path.abspath(item.source), item)
    if not found:
        raise UsageError(f"there is no {kind.noun} among these files", f"{left}; name one by itself to take it")
    return list(found.values())


def find_in_folder(
    folder: Path, kind: InputKind = PICTURE, left: LeftOut | None = None, skip: Path | None = None
) -> list[Path]:
    """Return the inputs below a folder as paths relative to it, sorted. Parameters and errors: `find_by_folder`."""
    return sorted(path for paths in find_by_folder(folder, kind, left, skip) for path in paths)


def find_by_folder(
    folder: Path, kind: InputKind = PICTURE, left: LeftOut | None = None, skip: Path | None = None
) -> Iterator[list[Path]]:
    """Yield the inputs of each folder below a folder, itself included, as paths relative to it, sorted.

    Links to folders are followed, each folder once. An unreadable folder is an input, so that it fails by name. skip:
    folder not to enter (the results). left: filled with what is not taken. Raises UsageError if `folder` itself is
    unreadable.
    """
    left = LeftOut(kind) if left is None else left
    for inputs, others in _look_through(folder, kind, left, skip):
        left.add(others)
        yield inputs


def is_chosen(relative: Path, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether patterns such as "*.jpg", "raw" or "raw/*" select a path.

    A pattern matches the relative path, the bare name, or a folder on the way, ignoring case.
    """
    return (not include or _matches(relative, include)) and not _matches(relative, exclude)


def refuse_address(argument: str, kind: InputKind = PICTURE) -> None:
    """Raise UsageError for an address such as https://..."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", argument):
        raise UsageError(f"{argument} is an address, not a file", kind.fetch(argument))


def command_for(name: str) -> str:
    """Return the command that takes a file or folder: dir, video or image; empty for anything else."""
    path = Path(name)
    if os.path.isdir(path):
        return "dir"
    if path.suffix.lower() in CLIP_SUFFIXES:
        return "video"
    return "image" if os.path.exists(path) or path.suffix.lower() in PICTURE_SUFFIXES or glob.has_magic(name) else ""


def _expand(argument: str, kind: InputKind, left: LeftOut, several: bool) -> Iterator[Input]:
    path = Path(argument)
    if not argument:
        raise UsageError(f"an empty argument names no {kind.noun}", "is a variable of your script unset?")
    if argument == STDIN:
        yield Input(STDIN, Path("stdin"))
    elif os.path.isdir(path):  # unlike Path.is_dir it takes a name that is too long for the system
        yield from _inputs_in(path, kind, left)
    elif path.suffix.lower() == ".txt" and os.path.isfile(path):
        for name in _read_list(path, kind):
            yield from _named(name, kind, left, several)
    elif os.path.lexists(path):
        yield from _named(path, kind, left, several)
    else:
        refuse_address(argument, kind)
        yield from _matching(argument, kind, left, several)


def _named(path: Path, kind: InputKind, left: LeftOut, several: bool) -> Iterator[Input]:
    """Yield a named file, unless it is a result of ours among several arguments."""
    if (several or kind.frames) and os.path.isfile(path) and kind.is_result(path):
        if several:
            left.results.append(str(path))
            return
        left.notes.append(f"{path} is a result of depthcli: this makes depth of depth")
    yield Input(path, Path(path.name))


def _matching(argument: str, kind: InputKind, left: LeftOut, several: bool) -> Iterator[Input]:
    """Yield the files of a glob or a pattern of frames; a missing path is yielded itself."""
    path, is_glob = Path(argument), glob.has_magic(argument)
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))] if is_glob else []
    taken = dict.fromkeys(
        match for match in matches if kind.takes(match) and not match.is_dir() and not kind.is_result(match)
    )
    if not taken and kind.frames:
        from depthcli.io.video.reader import frames_of_pattern

        if frames_of_pattern(argument):
            yield Input(path, Path(_name_of_pattern(path)))
            return
        named = [match for match in matches if match.is_dir()]
        for folder in named:
            yield from _inputs_in(folder, kind, left)
        if named:
            return
    rest = [match for match in matches if match not in taken]
    folders = {match for match in rest if match.is_dir() and not kind.is_result(match)}
    left.folders += len(folders)
    left.add(match for match in rest if match not in folders)
    if is_glob and not taken:
        raise UsageError(f"no {kind.noun} matches {argument}", str(left) or "check the path")
    yield from (Input(match, Path(match.name)) for match in taken or [path])


def _name_of_pattern(path: Path) -> str:
    """Return the name for the frames of a pattern: f for f%04d.png, shot for shot/%04d.png."""
    name = re.sub(r"%\d*d|[#*?@]+|\[[^]]*\]", "", path.stem).strip("._- ")
    return name or path.absolute().parent.name


def _inputs_in(folder: Path, kind: InputKind, left: LeftOut) -> list[Input]:
    found = list(_look_through(folder, kind, left))
    inputs = sorted(path for paths, _ in found for path in paths)
    others = [path for _, paths in found for path in paths]
    if not inputs and kind.frames:
        from depthcli.io.video.reader import frames_of_folder

        frames = set(frames_of_folder(folder))
        if frames:
            left.add(path for path in others if path not in frames)
            return [Input(folder, Path(folder.resolve().name))]
    left.add(others)
    if inputs:
        return [Input(folder / relative, relative) for relative in inputs]
    hint = str(left)
    places = sorted({str(path.parent) for path in others if kind.frames and is_picture(path) and not _is_map(path)})
    if places:
        hint = f"there are pictures in {_listed(places)}: name each folder of frames"
    raise UsageError(f"there is no {kind.noun} in {folder}", hint)


def _look_through(
    folder: Path, kind: InputKind, left: LeftOut, skip: Path | None = None
) -> Iterator[tuple[list[Path], list[Path]]]:
    """Yield the inputs of each folder, relative to `folder` and sorted, and paths of other files, not yet counted."""
    if not may_be_listed(folder):
        raise UsageError(f"cannot read the folder {folder}: permission denied", "check its permissions")
    for what, path, names in walk(folder, skip):
        inputs: list[Path] = []
        others: list[Path] = []
        if what == CLOSED:
            inputs.append(path.relative_to(folder))
        elif what == LINK:
            left.links.append(str(path))
        hidden = [name for name in (names if what == WALKED else [path.name]) if name.startswith(".")]
        left.hidden += sum(not name.startswith(".depthcli-") for name in hidden)
        for name in names:
            if name.startswith(".") or is_note(name):
                continue
            file = path / name
            if not kind.takes(file):
                others.append(file)
            elif kind.is_result(file):
                left.results.append(name)
            else:
                inputs.append(file.relative_to(folder))
        yield sorted(inputs), others


def _read_list(path: Path, kind: InputKind) -> list[Path]:
    """Return the paths in a .txt list, one a line; relative ones start at the working folder, ~ is the home.

    UTF-8, or UTF-16 and UTF-32 with a byte order mark, as Windows writes them; other bytes are kept.
    """
    try:
        content = path.read_bytes()
        encoding = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), "")
        text = content.decode(encoding) if encoding else content.decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UsageError(f"cannot read the list {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {path} is damaged: {error.reason}", "save it as UTF-8") from error
    if "\0" in text:
        raise UsageError(f"the list {path} is not text: it holds null bytes", "save it as UTF-8")
    names = [line.strip() for line in text.split("\n") if line.strip()]
    if not names:
        raise UsageError(f"the list {path} names no {kind.noun}", "write one path on each line")
    for name in names:
        refuse_address(name, kind)
    return [Path(os.path.expanduser(name)) for name in names]


def _matches(relative: Path, patterns: Sequence[str]) -> bool:
    paths = [relative, *list(relative.parents)[:-1]]  # the last parent is the folder we started from
    names = {name.lower() for path in paths for name in (path.as_posix(), path.name)}
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)
