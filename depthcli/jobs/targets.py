"""Decide where results go: what `output` means, and one path for each result, no two the same."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Optional, Union

from depthcli.errors import UsageError
from depthcli.io.codecs.formats import CLIP_ROWS, CLIPS, STILL_ENDINGS, STILLS, suffix_of
from depthcli.io.codecs.quick_facts import png_facts
from depthcli.io.names import STDIN, fitting_name, printable
from depthcli.io.pictures.files import PICTURE_SUFFIXES
from depthcli.jobs.find import CLIP_SUFFIXES, Input

if TYPE_CHECKING:
    from depthcli.io.remote import RemoteFile
    from depthcli.io.tars import TarMember

BESIDE, FOLDER, FILE, STREAM = "beside", "folder", "file", "stream"
# With these `output` names a file; any other suffix is part of a folder's name, such as maps.v2.
_FILE_SUFFIXES = (
    PICTURE_SUFFIXES
    | CLIP_SUFFIXES
    | frozenset(
        ".bin .csv .dng .dpx .exr .glb .h5 .hdr .htm .html .json .jsonl .jxl .mat .mp3 .npy .npz .nut .obj .pdf .pfm"
        " .ply .psd .pt .pth .raw .rgb .svg .tar .tga .txt .wav .yuv .zip".split()
    )
)
_PICTURE_FIELDS = ("stem", "name", "parent")


@dataclass(frozen=True)
class Target:
    """Where results go. place: BESIDE the inputs, a FOLDER, one FILE, or a STREAM (pipe, device, stdout)."""

    place: str
    path: Path = Path()

    @classmethod
    def of(cls, output: Optional[str]) -> Target:
        """Return what `output` means. Raises UsageError for a name that no file or folder can have."""
        if output is None:
            return cls(BESIDE)
        if not output:
            raise UsageError("`output` is empty", "is a variable of your script unset?")
        try:
            os.lstat(output)
        except ValueError as error:  # a null byte
            raise UsageError(f"`output` {printable(output)} is not a file name", "use another one") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UsageError(f"`output` {output} is too long for a file name", "use a shorter one") from error
        path = Path(output)
        if is_stream(output):
            return cls(STREAM, path)
        if os.path.isdir(output):
            return cls(FOLDER, path)
        ends_as_folder = output.endswith(("/", os.sep))
        if not ends_as_folder and path.suffix.lower() in _FILE_SUFFIXES:
            return cls(FILE, path)
        if os.path.lexists(path):
            raise UsageError(f"{output} is a file, not a folder", "use another `output`")
        return cls(FOLDER, path)

    @property
    def folder(self) -> Path | None:
        """The folder for results, None if they lie beside the inputs."""
        return self.path if self.place == FOLDER else None

    def __str__(self) -> str:
        return "stdout" if str(self.path) == STDIN else str(self.path)

    def check_one(self, inputs: int, noun: str, formats: Sequence[str], suffixes: Mapping[str, str]) -> None:
        """Raise UsageError if a file or stream cannot hold all results. suffixes: of the file of each known format."""
        if inputs != 1:
            raise UsageError(f"{self} cannot hold {inputs} {noun}s", "use a folder as `output`")
        if len(formats) > 1:
            raise UsageError(f"{self} cannot hold several formats", "use a folder as `output`, or one of `formats`")
        wanted, suffix = suffixes[formats[0]], suffix_of(self.path)
        if self.place == STREAM or wanted == suffix:
            return
        able = [name for name, other in suffixes.items() if other == suffix]
        *others, last = dict.fromkeys(filter(None, suffixes.values()))
        if able:
            hint = f"`formats` {' or '.join(able)} gives {suffix}"
        elif wanted:
            named = f"{', '.join(others)} or {last}" if others else last
            hint = f"depth is written as {named}: use `output` {self.path.with_suffix(wanted)}"
        else:
            hint = f"use `output` {self.path.with_suffix('')}"
        raise UsageError(
            f"{formats[0]} is written as {wanted or 'a folder'}, not {suffix}", f"{hint}, or end it with / for a folder"
        )


def is_stream(output: str) -> bool:
    """Return whether `output` is written to as it is, never replaced: stdout, a pipe or a device."""
    if output == STDIN:
        return True
    if re.match(r"/dev/(?!shm/)|/proc/", os.path.abspath(output)):
        return not os.path.isdir(output)
    try:
        mode = os.stat(output).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


# --- Names of results -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NameTemplate:
    """Names of results made from a picture's. start: with the picture's fields; endings: one for each format."""

    start: str
    endings: tuple[str, ...]

    def of(self, picture: Path) -> str:
        """Return the name of a picture's results without their ending."""
        parent = os.path.basename(os.path.dirname(_absolute(picture)))
        return self.start.format(stem=picture.stem, name=picture.name, parent=parent)


def parse_template(template: str, formats: Sequence[str]) -> NameTemplate:
    """Return the names that a `template` such as "{stem}_{format}" gives. Raises UsageError if it cannot be used."""
    fields = ", ".join(f"{{{name}}}" for name in (*_PICTURE_FIELDS, "format"))
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"`template` {template}: {error}", f"fields are {fields}; write {{{{ for a brace") from None
    for literal, name, spec, conversion in parts:
        if any(char in literal for char in ("/", os.sep, "\0")):
            raise UsageError(f"`template` {template} is not the name of a file", "`output` names the folder")
        if name is not None and (name not in (*_PICTURE_FIELDS, "format") or spec or conversion):
            raise UsageError(f"`template` {template} has an unknown field, {{{name}}}", f"fields are {fields}")
    last = max((place for place, part in enumerate(parts) if part[1] in _PICTURE_FIELDS), default=-1)
    head, tail = parts[: last + 1], parts[last + 1 :]
    if not any(part[1] in ("stem", "name") for part in head):
        raise UsageError(f"`template` {template} is the same for all pictures", "put {stem} or {name} into it")
    if any(part[1] == "format" for part in head):
        raise UsageError(f"`template` {template} has {{format}} too early", "put {format} behind the other fields")
    literals = (literal.replace("{", "{{").replace("}", "}}") for literal, *_ in head)
    start = "".join(literal + (f"{{{name}}}" if name else "") for literal, (_, name, *_) in zip(literals, head))
    endings = tuple(
        _with_suffix("".join(literal + (format if name else "") for literal, name, *_ in tail), format)
        for format in formats
    )
    if len(set(endings)) < len(endings):
        raise UsageError(f"`template` {template} gives {' and '.join(formats)} one name", "put {format} into it")
    return NameTemplate(start, endings)


def _with_suffix(ending: str, format: str) -> str:
    """Return an ending with the suffix of its format, which it may have already."""
    wanted, there = STILLS[format].suffix, Path(f"x{ending}").suffix
    if there.lower() in _FILE_SUFFIXES and there.lower() != wanted:
        raise UsageError(f"{format} is written as {wanted}, not {there}", f"leave {there} out of `template`")
    return ending if there.lower() == wanted else ending + wanted


def choose_stems(ways: Sequence[Sequence[Path]], levels: list[int], keeps: set[int]) -> list[Path]:
    """Return one of each input's possible stems, so that no two are the same if possible.

    ways: possible stems of each input, the usual one first. levels: which to begin with; changed. keeps: numbers of the
    inputs that keep their stems, as their results exist.
    """
    while True:
        # More than once, as a stem that keeps its suffix can meet another: a.jpg, a.png and a.jpg.bmp.
        stems = [way[level] for way, level in zip(ways, levels)]
        counts = Counter(stems)
        meeting = [
            number
            for number, stem in enumerate(stems)
            if counts[stem] > 1 and number not in keeps and levels[number] + 1 < len(ways[number])
        ]
        if not meeting:
            return stems
        for number in meeting:
            levels[number] += 1


def refuse_meeting(inputs: Sequence[Input], stems: Sequence[Path], ending: str, hint: str) -> None:
    """Raise UsageError if two inputs would have the same results. ending: of the result to name."""
    first: dict[Path, Union[Path, str]] = {}
    for (source, _), stem in zip(inputs, stems):
        if stem in first:
            raise UsageError(f"{first[stem]} and {source} would both be written to {stem}{ending}", hint)
        first[stem] = source


def refuse_replacing(noun: str, results: Iterable[tuple[str, Iterable[Path]]], sources: Iterable[Path]) -> None:
    """Raise UsageError if a result would replace an input. results: name of an input, and the paths of its results."""
    inputs = set(map(os.path.realpath, sources))
    for name, paths in results:
        for path in paths:
            if os.path.realpath(path) in inputs:
                raise UsageError(f"the result of {name} would replace the {noun} {path}", "use another `output`")


# --- Pictures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """One picture to do. stem: path of its results without ending.

    source: its path, its place in a store or a tar, or the bytes of its file. name: for reports.
    """

    source: Union[Path, bytes, RemoteFile, TarMember]
    name: str
    stem: Path


def plan_pictures(
    pictures: Sequence[Input],
    folder: Path | None,
    rows: Mapping[str, Mapping[str, object]] | None = None,
    template: NameTemplate | None = None,
) -> list[Task]:
    """Return one task per picture. folder: for the results, None puts them beside the pictures.

    Pictures that differ only in suffix keep it in their results' names, so a.jpg and a.png do not collide; those of one
    name get their folders. A picture whose results exist keeps their name. rows: of the manifest, which knows the
    results and names pictures by their relative paths. template: names all results instead.
    Raises UsageError if two pictures would still have the same results.
    """
    targets = _targets(pictures, folder)
    if template is None:
        hint = "give each its own `output`, or give their common folder to `depth dir`"
        stems = _stems(pictures, targets, rows or {})
    else:
        hint = "use {name} in `template`"
        stems = [target.with_name(template.of(Path(source))) for target, (source, _) in zip(targets, pictures)]
    refuse_meeting(pictures, stems, template.endings[0] if template else STILL_ENDINGS[0], hint)
    return [
        Task(Path(source), str(source) if rows is None else relative.as_posix(), stem)
        for (source, relative), stem in zip(pictures, stems)
    ]


def plan_names(pictures: Sequence[Input], folder: Path, template: NameTemplate | None = None) -> list[Path]:
    """Return the stem of each picture's results by the rules of `plan_pictures`, without a look at what is there."""
    targets = [folder / relative for _, relative in pictures]
    if template is None:
        ways = [(target.with_suffix(""), target) for target in targets]
        counts = Counter(short for short, _ in ways)
        stems = choose_stems(ways, [int(counts[short] > 1) for short, _ in ways], set())
    else:
        stems = [target.with_name(template.of(Path(source))) for target, (source, _) in zip(targets, pictures)]
    refuse_meeting(pictures, stems, template.endings[0] if template else STILL_ENDINGS[0], "use {name} in `template`")
    return stems


def _targets(pictures: Sequence[Input], folder: Path | None) -> list[Path]:
    """Return each picture's usual target; those of one name below their own folders."""
    if folder is None:
        return [Path(source) for source, _ in pictures]
    same: dict[Path, list[Path]] = {}
    for source, relative in pictures:
        same.setdefault(relative, []).append(_absolute(Path(source)))
    targets = []
    for source, relative in pictures:
        paths = same[relative]
        if len(paths) > 1:
            with suppress(ValueError):  # on two drives of Windows; then they meet, which is refused
                relative = _absolute(Path(source)).relative_to(os.path.commonpath([each.parent for each in paths]))
        targets.append(folder / relative)
    return targets


def _stems(pictures: Sequence[Input], targets: Sequence[Path], rows: Mapping[str, Mapping[str, object]]) -> list[Path]:
    """Return the stems of results: those in use, else without suffix if no other picture has the same."""
    ways = [(target.with_suffix(""), target) for target in targets]
    counts = Counter(short for short, _ in ways)
    levels = [int(counts[short] > 1) for short, _ in ways]
    results = _Results()
    used: dict[Path, int] = {}
    for number, ((source, relative), (short, target)) in enumerate(zip(pictures, ways)):
        outputs = rows.get(relative.as_posix(), {}).get("outputs")
        stem = _noted_stem(relative, target, outputs) if outputs else results.stem_of(Path(source), target)
        if stem is not None and used.setdefault(stem, number) == number:
            levels[number] = int(stem != short)
    return choose_stems(ways, levels, set(used.values()))


def _noted_stem(relative: Path, target: Path, outputs: object) -> Path | None:
    """Return the stem of a picture's outputs in the manifest; None if a template named them."""
    for stem, place in ((target, relative), (target.with_suffix(""), relative.with_suffix(""))):
        names = tuple(f"{place}{ending}" for ending in STILL_ENDINGS)
        if isinstance(outputs, list) and any(name in names for name in outputs):
            return stem
    return None


class _Results:
    """The existing depth maps, by name and content; each folder is listed once."""

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
        # A result of another picture that still exists, which may not be among those of this run.
        others = (source for source in sources if Path(source).stem == picture.stem)
        return target if any(os.path.lexists(picture.with_name(source)) for source in others) else None

    def _sources(self, stem: Path) -> set[str]:
        """Return the names of the pictures that the results under a stem were made of."""
        if stem.parent not in self._names:
            try:
                self._names[stem.parent] = frozenset(os.listdir(stem.parent))
            except OSError:
                self._names[stem.parent] = frozenset()
        names = self._names[stem.parent]
        found = [f"{stem.name}{ending}" for ending in STILL_ENDINGS if f"{stem.name}{ending}" in names]
        if not found:
            return set()
        facts = (_facts_of(stem.with_name(name)) for name in found if stem.with_name(name).is_file())
        return {str(fact["source"]) for fact in facts if fact.get("source")}


def _facts_of(path: Path) -> Mapping[str, object]:
    facts = png_facts(path) if path.suffix == ".png" else None
    if facts is None:
        from depthcli.io.codecs.files import read_facts  # loads the readers of all formats

        facts = read_facts(path)
    return facts


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError:  # the working folder has been removed
        return path


# --- Clips ------------------------------------------------------------------------------------------------------------


def plan_clips(clips: Sequence[Input], formats: Sequence[str], target: Target) -> list[list[tuple[str, Path]]]:
    """Return (format, path) of each clip's results.

    Clips of one name are told apart by their suffix, or else by their folders; existing results keep their name.
    Raises UsageError if two clips would still become one file, or a result would replace a clip.
    """
    from depthcli.jobs.clip_results import check_name, result_path

    if target.place == FILE:
        known = {**CLIPS, **{name: CLIP_ROWS[name] for name in formats}}
        target.check_one(
            len(clips), "clip", formats, {name: Path(f"x{row.clip}").suffix for name, row in known.items()}
        )
        check_name(target.path)
        planned = [[(formats[0], target.path)]]
    else:
        stems = clip_stems(clips, target.folder)
        refuse_meeting(clips, stems, CLIP_ROWS[formats[0]].clip, "give each its own `output`")
        planned = [[(name, result_path(stem, name)) for name in formats] for stem in stems]
    _refuse_replacing_clips(clips, planned)
    return planned


def plan_stereo_clips(
    clips: Sequence[Input], endings: Sequence[str], target: Target, exact_colors: bool
) -> list[list[tuple[str, Path]]]:
    """Return (format, path) of each clip's films of two eyes.

    endings: of the films without suffix, see views.layouts.Layout. exact_colors: the films keep the colour of each
    pixel. Raises UsageError as `plan_clips`.
    """
    from depthcli.jobs.clip_results import check_name

    suffixes = (".mp4", ".mov", ".mkv")
    suffix = target.path.suffix.lower() if target.place == FILE else suffixes[0]
    format = f"stereo-{suffix[1:]}{'-444' if exact_colors else ''}"
    if target.place == FILE:
        if len(clips) != 1 or len(endings) != 1:
            what = f"{len(clips)} clips" if len(clips) != 1 else "two films, one for each eye"
            raise UsageError(f"{target} cannot hold {what}", "use a folder as `output`")
        if suffix not in suffixes:
            hint = f"use `output` {target.path.with_suffix('.mp4')}, or end it with / for a folder"
            raise UsageError(f"views of a clip are written as .mp4, .mov or .mkv, not {suffix}", hint)
        check_name(target.path)
        planned = [[(format, target.path)]]
    else:
        stems = clip_stems(clips, target.folder)
        refuse_meeting(clips, stems, endings[0] + suffix, "give each its own `output`")
        planned = [
            [
                (format, stem.with_name(fitting_name(stem.parent, stem.name, ending + suffix, spare=len(".json"))))
                for ending in endings
            ]
            for stem in stems
        ]
    _refuse_replacing_clips(clips, planned)
    return planned


def _refuse_replacing_clips(clips: Sequence[Input], planned: Sequence[Sequence[tuple[str, Path]]]) -> None:
    results = ((str(source), [path for _, path in outputs]) for (source, _), outputs in zip(clips, planned))
    refuse_replacing("clip", results, [source for source, _ in clips if isinstance(source, Path)])


def clip_stems(clips: Sequence[Input], folder: Path | None) -> list[Path]:
    """Return the stem of each clip's results. folder: for the results, None puts them beside the clips."""
    from depthcli.jobs.clip_results import is_result_of

    folders = [os.path.dirname(os.path.abspath(source)) for source, _ in clips if isinstance(source, Path)]
    common = os.path.commonpath(folders) if folders and folder is not None else ""
    ways = [_clip_ways(clip, folder, common) for clip in clips]
    levels = [0] * len(clips)
    choose_stems(ways, levels, set())  # of all, so that a name does not depend on which other clips are done
    used: dict[Path, int] = {}
    for number, (source, _) in enumerate(clips):
        for level, stem in enumerate(ways[number]):
            if stem not in used and is_result_of(source, stem):
                used[stem], levels[number] = number, level
                break
    return choose_stems(ways, levels, set(used.values()))


def _clip_ways(clip: Input, folder: Path | None, common: str) -> list[Path]:
    """Return the stems that a clip's results may have, the usual one first. common: folder that all clips are below."""
    source, relative = clip
    below = folder
    if below is None:
        below, relative = Path(source).parent, Path(relative.name)
    whole = isinstance(source, str) or os.path.isdir(source) or not os.path.lexists(source)
    ways = [relative] if whole else [relative.with_suffix(""), relative]
    if common and isinstance(source, Path):
        folders = os.path.relpath(os.path.dirname(os.path.abspath(source)), common)
        if folders != os.curdir:
            ways += [Path(folders) / way.name for way in ways]
    return list(dict.fromkeys(below / way for way in ways))
