"""Which pictures are meant, and where the result of each goes."""

from __future__ import annotations

import codecs
import errno
import glob
import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Union

from depthcli.errors import UsageError
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.formats import STILL_ENDINGS, STILLS
from depthcli.io.pictures.images import PICTURE_SUFFIXES, is_picture, may_be_listed, printable
from depthcli.jobs.folders import CLOSED, HIDDEN, WALKED, walk
from depthcli.jobs.manifest import MANIFEST_NAME

# What -o may end with to mean a file; anything else behind a dot is part of a folder's name, such as maps.v2.
_FILE_SUFFIXES = PICTURE_SUFFIXES | frozenset(
    ".avi .bin .csv .dng .exr .glb .h5 .hdr .json .jsonl .jxl .m4v .mat .mkv .mov .mp4 .npy .npz .obj .pdf .pfm .ply"
    " .psd .pt .pth .raw .svg .tga .txt .webm .zip".split()
)
_MARKS = (  # the longer first, as one begins like another
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NAMED_SUFFIXES = 5
_PICTURE_FIELDS = ("stem", "name", "parent")


@dataclass(frozen=True)
class Task:
    """One picture to do.

    source: where it is, or the bytes of its file; name: how it is called in reports; stem: output path without ending.
    """

    source: Union[Path, bytes]
    name: str
    stem: Path


@dataclass
class LeftOut:
    """Counts what was found and is not taken for a picture: suffixes of other files, our maps, hidden files, links."""

    suffixes: Counter[str] = field(default_factory=Counter)
    maps: int = 0
    hidden: int = 0
    links: int = 0

    def __str__(self) -> str:
        """One line that names all of it; empty if there is nothing."""
        others = sum(self.suffixes.values())
        named = [suffix or "no suffix" for suffix, _ in self.suffixes.most_common(_NAMED_SUFFIXES)]
        named += ["..."] * (len(self.suffixes) > _NAMED_SUFFIXES)
        parts = (
            (self.maps, "depth map made by depth", "depth maps made by depth", ""),
            (others, "file that is not a picture", "files that are not pictures", f" ({', '.join(named)})"),
            (self.hidden, "hidden file or folder", "hidden files or folders", ""),
            (self.links, "link to a folder that is entered anyway", "links to folders that are entered anyway", ""),
        )
        said = [f"{count} {one if count == 1 else many}{which}" for count, one, many, which in parts if count]
        return f"left out: {', '.join(said)}" if said else ""


def find_pictures(folder: Path, leave_out: Path | None = None, left: LeftOut | None = None) -> list[Path]:
    """Return the pictures below a folder, as paths relative to it, sorted.

    leave_out: a folder not to enter (where the results go). left: counts what is there and not taken up: hidden files,
    files that are not pictures, depth pictures that depthcli wrote. Links to folders are followed, each folder once,
    and under its own name if it has one below `folder`; none that leads back up. A folder that may not be read stands
    in the list itself, to fail by name. Raises UsageError if the folder itself may not be read.
    """
    if not may_be_listed(folder):
        raise UsageError(f"cannot read the folder {folder}: permission denied")
    left = LeftOut() if left is None else left
    found: list[Path] = []
    for kind, path, names in walk(folder, leave_out):
        if kind == WALKED:
            left.hidden += sum(map(_is_hidden, names))
            found += [picture.relative_to(folder) for picture in _pictures_of(path, names, left)]
        elif kind == CLOSED:
            found.append(path.relative_to(folder))
        elif kind == HIDDEN:
            left.hidden += _is_hidden(path.name)
        else:
            left.links += 1
    return sorted(found)


def _is_hidden(name: str) -> bool:
    """Return whether a name is hidden, and not one of our temporary files."""
    return name.startswith(".") and not name.startswith(".depthcli-")


def _pictures_of(folder: Path, names: Iterable[str], left: LeftOut) -> Iterator[Path]:
    """Yield the pictures among the files of a folder, and count the others."""
    for name in names:
        path = folder / name
        if name.startswith(".") or name == MANIFEST_NAME:
            continue
        if _is_our_output(path):
            left.maps += 1
        elif is_picture(path):
            yield path
        else:
            left.suffixes[path.suffix.lower()] += 1


def is_chosen(relative: Path, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a picture is wanted by patterns such as "*.jpg", "raw" or "raw/*".

    A pattern fits a relative path, a bare name, or a folder on the way; case does not count (IMG_1.JPG).
    """
    return (not include or _matches(relative, include)) and not _matches(relative, exclude)


def expand(arguments: Sequence[str], left: LeftOut | None = None) -> list[tuple[Path, Path]]:
    """Return (path, path below the output folder) for files, folders, globs and .txt lists, in the order given.

    A picture that is named twice is done once. Depth pictures that depthcli wrote are left out where several arguments
    are given, as `*.png` names them too. left: counts what is left out. Raises UsageError for an argument that stands
    for nothing.
    """
    left = LeftOut() if left is None else left
    pairs: dict[Path, tuple[Path, Path]] = {}
    for argument in arguments:
        for path, relative in _expand_one(argument, left):
            if len(arguments) > 1 and _is_our_output(path):
                left.maps += 1
                continue
            pairs.setdefault(_absolute(path), (path, relative))
    if not pairs:
        raise UsageError("there is no picture among these files", str(left))
    return list(pairs.values())


def check_no_address(argument: str) -> None:
    """Raise UsageError for the address of a page or a file on the web."""
    if re.match("(https?|ftp|s3|gs)://", argument, re.IGNORECASE):
        name = argument.partition("?")[0].rstrip("/").rpartition("/")[2] or "photo.jpg"
        hint = f"download it first: curl -fLo {shlex.quote(name)} {shlex.quote(argument)}"
        raise UsageError(f"{argument} is an address, not a file", hint)


def command_for(name: str) -> str:
    """Return the command that takes a file or a folder; empty for what is neither."""
    from depthcli.jobs.clip_inputs import SUFFIXES

    path = Path(name)
    if os.path.isdir(path):
        return "dir"
    if path.suffix.lower() in SUFFIXES:
        return "video"
    return "image" if os.path.exists(path) or path.suffix.lower() in PICTURE_SUFFIXES or glob.has_magic(name) else ""


def check_output(output: str) -> None:
    """Raise UsageError for an -o that no file or folder can have: before the work, not after."""
    if not output:
        raise UsageError("-o is empty", "is a variable of your script unset?")
    try:
        os.lstat(output)
    except ValueError as error:  # a null byte
        raise UsageError(f"-o {printable(output)} is not a file name", "use another -o") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"-o {output} is too long for a file name", "use a shorter one") from error


def means_file(output: str) -> bool:
    """Return whether -o means a file, by a suffix that is known; not a folder that is there or ends with /."""
    if output.endswith(("/", os.sep)) or os.path.isdir(output):
        return False
    return Path(output).suffix.lower() in _FILE_SUFFIXES


def is_device(output: str) -> bool:
    """Return whether there is a pipe or a device of that name, such as /dev/null: it is written to, never replaced."""
    try:
        mode = os.stat(output).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@dataclass(frozen=True)
class ResultName:
    """How results are called, as --name says it. before: with the fields of a picture; endings: one for each format."""

    before: str
    endings: tuple[str, ...]

    def of(self, picture: Path) -> str:
        """Return the name of a picture's results without their ending."""
        parent = os.path.basename(os.path.dirname(_absolute(picture)))
        return self.before.format(stem=picture.stem, name=picture.name, parent=parent)


def parse_name(template: str, formats: Sequence[str]) -> ResultName:
    """Return what a template such as "{stem}_{format}" says for these formats. Raises UsageError if it cannot be."""
    fields = ", ".join(f"{{{name}}}" for name in (*_PICTURE_FIELDS, "format"))
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"--name {template}: {error}", f"fields are {fields}; write {{{{ for a brace") from None
    for literal, name, spec, conversion in parts:
        if any(char in literal for char in ("/", os.sep, "\0")):
            raise UsageError(f"--name {template} is not the name of a file", "-o names the folder")
        if name is not None and (name not in (*_PICTURE_FIELDS, "format") or spec or conversion):
            raise UsageError(f"--name {template} has an unknown field, {{{name}}}", f"fields are {fields}")
    last = max((place for place, part in enumerate(parts) if part[1] in _PICTURE_FIELDS), default=-1)
    head, tail = parts[: last + 1], parts[last + 1 :]
    if not any(part[1] in ("stem", "name") for part in head):
        raise UsageError(f"--name {template} is the same for all pictures", "put {stem} or {name} into it")
    if any(part[1] == "format" for part in head):
        raise UsageError(f"--name {template} has {{format}} too early", "put {format} behind the other fields")
    literals = (literal.replace("{", "{{").replace("}", "}}") for literal, *_ in head)
    before = "".join(literal + (f"{{{name}}}" if name else "") for literal, (_, name, *_) in zip(literals, head))
    endings = tuple(
        _with_suffix("".join(literal + (format if name else "") for literal, name, *_ in tail), format)
        for format in formats
    )
    if len(set(endings)) < len(endings):
        raise UsageError(f"--name {template} gives {' and '.join(formats)} one name", "put {format} into it")
    return ResultName(before, endings)


def _with_suffix(ending: str, format: str) -> str:
    """Return the end of a result's name with the suffix of its format, which may stand there already."""
    wanted, there = STILLS[format].suffix, Path(f"x{ending}").suffix
    if there.lower() in _FILE_SUFFIXES and there.lower() != wanted:
        raise UsageError(f"{format} is written as {wanted}, not {there}", f"leave {there} out of --name")
    return ending if there.lower() == wanted else ending + wanted


def plan_tasks(
    pairs: Iterable[tuple[Path, Path]],
    output: Path | None,
    noted: Mapping[str, Mapping[str, object]] | None = None,
    name: ResultName | None = None,
) -> list[Task]:
    """Return one task per (path, relative path). output: the folder for results; beside each picture where None.

    Pictures that differ only in their suffix keep it in the result's name, so `a.jpg` and `a.png` never collide; but
    what has a result keeps its name, whatever comes later. Pictures of one name are told apart by their folders.
    noted: rows of the manifest, which knows the results; name: how they are called, in place of all that.
    Raises UsageError if two pictures would still be written to one place.
    """
    pairs = list(pairs)
    targets = _targets(pairs, output)
    if name is None:
        stems = _stems(pairs, targets, noted or {})
    else:
        stems = [target.with_name(name.of(path)) for target, (path, _) in zip(targets, pairs)]
    tasks: dict[Path, Task] = {}
    for (path, relative), stem in zip(pairs, stems):
        if stem in tasks:
            ending = name.endings[0] if name else STILL_ENDINGS[0]
            raise UsageError(
                f"{tasks[stem].source!s} and {path} would both be written to {stem}{ending}",
                "use {name} in --name" if name else "give each its own -o, or give their common folder to `depth dir`",
            )
        tasks[stem] = Task(path, relative.as_posix() if output is not None else str(path), stem)
    return list(tasks.values())


def _targets(pairs: Sequence[tuple[Path, Path]], output: Path | None) -> list[Path]:
    """Return where each picture would lie if it were its own result; those of one name below their own folders."""
    if output is None:
        return [path for path, _ in pairs]
    same: dict[Path, list[Path]] = {}
    for path, relative in pairs:
        same.setdefault(relative, []).append(_absolute(path))
    targets = []
    for path, relative in pairs:
        paths = same[relative]
        if len(paths) > 1:
            with suppress(ValueError):  # on two drives of Windows: then they meet in one place, which is refused
                relative = _absolute(path).relative_to(os.path.commonpath([each.parent for each in paths]))
        targets.append(output / relative)
    return targets


def _stems(
    pairs: Sequence[tuple[Path, Path]], targets: Sequence[Path], noted: Mapping[str, Mapping[str, object]]
) -> list[Path]:
    """Return the names of results without their ending: those in use, and for the others those that are free."""
    there = _Results()
    stems = []
    taken: set[Path] = set()
    for (path, relative), target in zip(pairs, targets):
        row = noted.get(relative.as_posix())
        outputs = row.get("outputs") if row else None
        stem = _noted_stem(relative, target, outputs) if outputs else there.stem_of(path, target)
        if stem is not None and stem in taken:
            stem = None
        if stem is not None:
            taken.add(stem)
        stems.append(stem)
    shorts = [target.with_suffix("") for target in targets]
    shared = {short for short, count in Counter(shorts).items() if count > 1}
    while True:
        names = [kept or (target if short in shared else short) for kept, short, target in zip(stems, shorts, targets)]
        # More than once, as a name that keeps its suffix can meet another: `a.jpg`, `a.png` and `a.jpg.bmp`.
        again = {name for name, count in Counter(names).items() if count > 1} - shared
        if not again:
            return names
        shared |= again


def _noted_stem(relative: Path, target: Path, outputs: object) -> Path | None:
    """Return the stem that the manifest's outputs of a picture have; None if they were called by --name."""
    for stem, place in ((target, relative), (target.with_suffix(""), relative.with_suffix(""))):
        names = tuple(f"{place}{ending}" for ending in STILL_ENDINGS)
        if isinstance(outputs, list) and any(name in names for name in outputs):
            return stem
    return None


class _Results:
    """The depth maps that are there, as far as their names and their own facts tell; each folder is looked at once."""

    def __init__(self) -> None:
        self._names: dict[Path, frozenset[str]] = {}

    def stem_of(self, picture: Path, target: Path) -> Path | None:
        """Return the stem under which a picture has a result, or the long one if the short one is another's."""
        short = target.with_suffix("")
        sources = self._sources(short)
        if printable(picture.name) in sources:
            return short
        if printable(picture.name) in self._sources(target):
            return target
        # A result of another picture that is still there, which may not be among those of this run.
        others = (source for source in sources if Path(source).stem == picture.stem)
        return target if any(os.path.lexists(picture.with_name(source)) for source in others) else None

    def _sources(self, stem: Path) -> set[str]:
        """Return the names of the pictures that the results of a stem were made of."""
        if stem.parent not in self._names:
            try:
                self._names[stem.parent] = frozenset(os.listdir(stem.parent))
            except OSError:
                self._names[stem.parent] = frozenset()
        names = self._names[stem.parent]
        found = [f"{stem.name}{ending}" for ending in STILL_ENDINGS if f"{stem.name}{ending}" in names]
        facts = (read_facts(stem.with_name(name)) for name in found if stem.with_name(name).is_file())
        return {str(fact["source"]) for fact in facts if fact.get("source")}


def _expand_one(argument: str, left: LeftOut) -> Iterator[tuple[Path, Path]]:
    if not argument:
        raise UsageError("an empty argument names no picture", "is a variable of your script unset?")
    check_no_address(argument)
    path = Path(argument)
    if os.path.isdir(path):  # unlike Path.is_dir it takes a name that is too long for the system
        found = find_pictures(path, left=left)
        if not found:
            raise UsageError(f"there is no picture in {path}", str(left))
        yield from ((path / relative, relative) for relative in found)
    elif path.suffix.lower() == ".txt" and os.path.isfile(path):
        listed = _read_list(path)
        if not listed:
            raise UsageError(f"the list {path} names no picture", "write one path on each line")
        yield from ((picture, Path(picture.name)) for picture in listed)
    elif not os.path.exists(path) and glob.has_magic(argument):
        every = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        matches = [match for match in every if is_picture(match) and not _is_our_output(match)]
        if not matches:
            hint = "what matches is a folder, no picture, or a depth map made by depth" if every else "check the path"
            raise UsageError(f"no picture matches {argument}", hint)
        left.maps += sum(map(_is_our_output, every))
        yield from ((match, Path(match.name)) for match in matches)
    else:
        yield path, Path(path.name)


def _read_list(path: Path) -> list[Path]:
    """Return the paths in a .txt list, one on each line; relative ones start where the command runs, ~ is the home.

    UTF-8, or UTF-16 and UTF-32 with their mark, as Windows writes them; bytes that are neither are names all the same.
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
    for name in names:
        check_no_address(name)
    return [Path(os.path.expanduser(name)) for name in names]


def _matches(relative: Path, patterns: Sequence[str]) -> bool:
    paths = [relative, *list(relative.parents)[:-1]]  # the last parent is the folder we started from
    names = {name.lower() for path in paths for name in (path.as_posix(), path.name)}
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns for name in names)


def _is_our_output(path: Path) -> bool:
    kinds = (".png", ".npz")
    return (
        path.suffix.lower() in kinds and os.path.isfile(path) and bool(read_facts(path))
    )  # a pipe would wait for ever


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError:  # the working folder has been removed
        return path
