"""From what a user typed to the clips that are meant, and the places of their results."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

from depthcli.errors import Log, UsageError
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.pictures.images import PICTURE_SUFFIXES, is_picture, may_be_listed
from depthcli.io.video.film_comment import is_depth_film
from depthcli.io.video.reader import STDIN, frames_of_folder, frames_of_pattern
from depthcli.jobs.clip_results import (
    Source,
    check_name,
    facts_beside,
    is_our_map,
    is_result_of,
    result_path,
)
from depthcli.jobs.folders import ABOVE, CLOSED, WALKED, walk
from depthcli.jobs.manifest import MANIFEST_NAME

# What is taken from a folder of clips; a file that is named is tried whatever it is called.
SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv .qt .ts"
    " .vob .webm .wmv .y4m".split()
)
_ENDINGS = tuple(row.clip for row in CLIPS.values())
# With these, -o names a file, whether or not there is a format for it.
_FILE_SUFFIXES = (
    SUFFIXES
    | PICTURE_SUFFIXES
    | frozenset(".csv .dpx .exr .hdr .json .jsonl .mp3 .nut .npy .npz .pfm .raw .rgb .tar .txt .wav .yuv .zip".split())
)
_SHOWN = 3  # names in a note


def find_clips(arguments: Sequence[str], talk: Log = lambda line: None) -> list[tuple[Source, Path]]:
    """Return the clips that are meant, each with its path below the folder that was named, or its name.

    A folder of pictures is one clip; one with video files in it, or below it, stands for these. Our own results are
    left out there, and where several arguments are given, as *.mp4 names them too. A clip that is named twice is done
    once. talk: takes a line for what is left out. Raises UsageError where an argument stands for none.
    """
    pairs: dict[str, tuple[Source, Path]] = {}
    ours: list[Path] = []
    for argument in arguments:
        for source, relative in _clips_of(argument, talk):
            if source == Path(argument) and os.path.isfile(source) and is_our_result(Path(source)):
                ours.append(Path(source))
                if len(arguments) > 1:
                    continue
            pairs.setdefault(source if isinstance(source, str) else os.path.abspath(source), (source, relative))
    if ours and len(arguments) > 1:
        talk(f"left out {_counted(len(ours), 'result')} of depthcli ({_listed(list(map(str, ours)))})")
    elif ours:
        talk(f"{ours[0]} is a result of depthcli: this makes depth of depth")
    if not pairs:
        raise UsageError("there are only results of depthcli among these files", "name one by itself to take it")
    return list(pairs.values())


def _clips_of(argument: str, talk: Log) -> list[tuple[Source, Path]]:
    if not argument:
        raise UsageError("an empty argument names no clip", "is a variable of your script unset?")
    if argument == STDIN:
        return [(STDIN, Path("stdin"))]
    path = Path(argument)
    if os.path.isdir(path):
        return _clips_in(path, talk)
    if os.path.lexists(path):
        return [(path, Path(path.name))]
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", argument):
        way = f"ffmpeg -i '{argument}' -f yuv4mpegpipe - | depth video - -o out.mp4"
        raise UsageError(f"{argument} is an address, and clips are read from files", f"download it, or: {way}")
    if glob.has_magic(argument):
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
        clips = [match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()]
        kept = dict.fromkeys(match for match in clips if not is_our_result(match))
        if kept:
            _tell_left_out(argument, [match for match in matches if match not in kept], talk)
            return [(match, Path(match.name)) for match in kept]
    if frames_of_pattern(argument):
        return [(path, Path(_name_of_pattern(path)))]
    if glob.has_magic(argument):
        folders = [match for match in matches if match.is_dir()]
        if folders:
            return [pair for folder in folders for pair in _clips_in(folder, talk)]
        raise UsageError(f"no clip matches {argument}")
    return [(path, Path(path.name))]


def _name_of_pattern(path: Path) -> str:
    """Return what to call the frames of a pattern: f%04d.png is f, and shot/%04d.png is shot."""
    name = re.sub(r"%\d*d|[#*?@]+|\[[^]]*\]", "", path.stem).strip("._- ")
    return name or path.absolute().parent.name


def _clips_in(folder: Path, talk: Log) -> list[tuple[Source, Path]]:
    if not may_be_listed(folder):
        raise UsageError(f"cannot read the folder {folder}: permission denied", "check its permissions")
    clips: list[Path] = []
    rest: list[Path] = []
    for path in _below(folder, talk):
        is_clip = path.is_dir() or (path.suffix.lower() in SUFFIXES and not is_our_result(path))
        (clips if is_clip else rest).append(path)
    if clips:
        _tell_left_out(str(folder), rest, talk)
        return [(clip, clip.relative_to(folder)) for clip in sorted(clips)]
    frames = set(frames_of_folder(folder))
    if frames:
        _tell_left_out(str(folder), [path for path in rest if path not in frames], talk)
        return [(folder, Path(folder.resolve().name))]
    hint = ""
    places = sorted({str(path.parent) for path in rest if is_picture(path) and not is_our_map(path)})
    if places:
        hint = f"there are pictures in {_listed(places)}: name each folder of frames"
    elif rest and all(map(_is_ours, rest)):
        hint = "there are only results of depthcli in it"
    raise UsageError(f"there is neither a clip nor a frame in {folder}", hint)


def _below(folder: Path, talk: Log) -> Iterator[Path]:
    """Yield the files below a folder, and the folders that may not be read, which fail by name.

    Links to folders are followed, each folder once: not into one that holds the folder itself. Hidden files and
    folders are left out.
    """
    for kind, path, names in walk(folder):
        if kind == WALKED:
            yield from (path / name for name in names if not name.startswith("."))
        elif kind == CLOSED:
            yield path
        elif kind == ABOVE:
            talk(f"{path} is not followed: it is a link to a folder that holds it")


def _tell_left_out(where: str, paths: Sequence[Path], talk: Log) -> None:
    """Say what of a folder, or of the matches of a pattern, is not taken."""
    results: list[str] = []
    pictures: list[Path] = []
    folders: list[Path] = []
    others: list[Path] = []
    for path in sorted(paths):
        if _is_ours(path):
            results.append(path.name)
        else:
            (pictures if is_picture(path) else folders if path.is_dir() else others).append(path)
    results = [name for name in results if not name.endswith((".json", ".jsonl"))]
    suffixes = Counter(path.suffix.lower() or path.name for path in others).most_common()
    parts = [
        f"{_counted(len(results), 'result')} of depthcli ({_listed(results)})" if results else "",
        f"{_counted(len(pictures), 'picture')} (name frames or an animation by itself)" if pictures else "",
        _counted(len(folders), "folder") if folders else "",
        f"{_listed([f'{count} {suffix}' for suffix, count in suffixes])} (name a file to try it)" if suffixes else "",
    ]
    if any(parts):
        talk(f"{where}: left out {'; '.join(filter(None, parts))}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_ours(path: Path) -> bool:
    """Return whether a file is a result, one of a folder of results, or what describes them."""
    if path.name == MANIFEST_NAME:
        return True
    if path.suffix.lower() == ".json":
        return bool(facts_beside(path.with_suffix("")))
    return is_our_map(path) or is_our_result(path) or bool(facts_beside(path.parent))


def is_our_result(path: Path) -> bool:
    """Return whether a video file is one that we wrote, by its sidecar or the comment in it, not by its name."""
    if path.suffix.lower() not in SUFFIXES:
        return bool(facts_beside(path))
    return bool(facts_beside(path)) or (path.is_file() and is_depth_film(path))  # a pipe would wait for ever


# --- Where the results go ---------------------------------------------------------------------------------------------


def plan_outputs(
    clips: Sequence[tuple[Source, Path]], formats: Sequence[str], output: Optional[str]
) -> list[list[tuple[str, Path]]]:
    """Return (format, path) of all that each clip becomes.

    output: a folder, or, where it has the ending of the only format, the very file; None for the clips' own folders.
    Clips that would have one name are told apart by their suffix, or else by the folders they come from; a clip whose
    results are there keeps their name. Raises UsageError where two clips would still become one file.
    """
    if output is not None and is_one_file(output, formats):
        if len(clips) > 1:
            raise UsageError(
                f"{len(clips)} clips do not go into the one file {output}", "name a folder with / at its end"
            )
        check_name(Path(output))
        planned = [[(formats[0], Path(output))]]
    else:
        planned = [[(name, result_path(stem, name)) for name in formats] for stem in _stems(clips, output)]
    sources = {os.path.realpath(source) for source, _ in clips if isinstance(source, Path)}
    for outputs, (source, _) in zip(planned, clips):
        for _, path in outputs:
            if os.path.realpath(path) in sources:
                raise UsageError(f"the result of {source} would replace the clip {path}", "use another -o")
    return planned


def _stems(clips: Sequence[tuple[Source, Path]], output: Optional[str]) -> list[Path]:
    """Return the path of each clip's results without ending, no two the same."""
    folders = [os.path.dirname(os.path.abspath(source)) for source, _ in clips if isinstance(source, Path)]
    common = os.path.commonpath(folders) if folders and output is not None else ""
    names = [_names(source, relative, output, common) for source, relative in clips]
    chosen = [0] * len(clips)
    owned: dict[Path, int] = {}  # by the clip whose results are there
    for number, (source, _) in enumerate(clips):
        for level, stem in enumerate(names[number]):
            if stem not in owned and is_result_of(source, stem):
                owned[stem], chosen[number] = number, level
                break
    keeps = set(owned.values())
    while True:
        stems = [ways[level] for ways, level in zip(names, chosen)]
        twice = {stem for stem, count in Counter(stems).items() if count > 1}
        moved = False
        for number, stem in enumerate(stems):
            if stem in twice and number not in keeps and chosen[number] + 1 < len(names[number]):
                chosen[number] += 1
                moved = True
        if not moved:
            break
    for stem, count in Counter(stems).items():
        if count > 1:
            raise UsageError(f"{count} clips would be written to {stem}{_ENDINGS[0]}", "give each its own -o")
    return stems


def _names(source: Source, relative: Path, output: Optional[str], common: str) -> list[Path]:
    """Return the paths without ending that a clip's results may have, the usual one first.

    common: the folder that all clips are below, if results go into one folder.
    """
    if output is None:
        below, relative = Path(source).parent, Path(relative.name)
    else:
        below = Path(output)
    whole = isinstance(source, str) or os.path.isdir(source) or not os.path.lexists(source)
    ways = [relative] if whole else [relative.with_suffix(""), relative]
    if common and isinstance(source, Path):
        with_folders = os.path.relpath(os.path.dirname(os.path.abspath(source)), common)
        if with_folders != os.curdir:
            ways += [Path(with_folders) / way.name for way in ways]
    return list(dict.fromkeys(below / way for way in ways))


def is_one_file(output: str, formats: Sequence[str]) -> bool:
    """Return whether an output names a file. Raises UsageError for one that the formats do not go with."""
    if not output:
        raise UsageError("-o is empty", "is a variable of your script unset?")
    suffix = Path(output).suffix.lower()
    is_folder = output.endswith(("/", os.sep))
    if os.path.isfile(output.rstrip("/" + os.sep)) and (is_folder or suffix not in _FILE_SUFFIXES):
        raise UsageError(f"{output} is a file, not a folder", "use another -o")
    if is_folder or os.path.isdir(output):
        return False
    if suffix not in _FILE_SUFFIXES:
        return False  # a folder, perhaps with a dot in its name
    wanted = [Path(CLIPS[name].clip).suffix for name in formats]
    if len(formats) > 1:
        raise UsageError("one file cannot hold several formats", "give a folder with -o, or one --format")
    if wanted[0] != suffix:
        kind = wanted[0] or "a folder"
        able = [name for name, row in CLIPS.items() if Path(row.clip).suffix == suffix]
        way = f"-f {' or '.join(able)} writes such a file, " if able else ""
        hint = f"{way}-o {output}/ is a folder of that name"
        raise UsageError(f"{formats[0]} is written as {kind}, not {suffix}", hint)
    return True


def is_stream(output: Optional[str]) -> bool:
    """Return whether -o names something that is written to as it is, and not a file or a folder: a pipe or a device."""
    if not output or output == STDIN:
        return output == STDIN
    if re.match(r"/dev/(?!shm/)|/proc/", os.path.abspath(output)):
        return True
    return os.path.exists(output) and not (os.path.isfile(output) or os.path.isdir(output))


def is_stdout(output: str) -> bool:
    """Return whether -o names the stdout of this process."""
    return output == STDIN or os.path.abspath(output) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
