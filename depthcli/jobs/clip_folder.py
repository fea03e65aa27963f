"""The clips of a folder that are done in parts: by shards, from a list, and the notes that their results have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from depthcli.errors import UsageError, first_line
from depthcli.io.video.film_comment import count_frames
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.clip_results import facts_beside
from depthcli.jobs.find import CLIP, Input, LeftOut, find_inputs
from depthcli.jobs.manifest import Manifest
from depthcli.jobs.name_list import NameList
from depthcli.jobs.picture_results import MadeBy, difference
from depthcli.jobs.run_file import CLIPS, RunFile, read_run, write_run
from depthcli.jobs.shards import Shard
from depthcli.jobs.targets import Target, plan_clips
from depthcli.version import __version__


@dataclass(frozen=True)
class ClipFolder:
    """A folder of clips, and that of their results.

    source: the folder, as it was named. target: of the results. formats: of each clip. shard: the part to do.
    """

    source: str
    target: Path
    formats: Sequence[str]
    shard: Shard

    def manifest(self) -> Manifest:
        """Return the manifest that this part writes."""
        return Manifest(self.target / self.shard.manifest_name)

    def note(self, job: ClipJob, model: str, weights: str, replaces: bool) -> None:
        """Write run.json; a part leaves that of another. Raises UsageError if that is of other options.

        job: any of the clips. model, weights: the row and the sha256. replaces: results of other options are allowed.
        """
        run = RunFile(self.source, tuple(self.formats), "", model, weights, job.settings_text, __version__, unit=CLIPS)
        first = read_run(self.target) if self.shard.count > 1 and not replaces else None
        if first is not None:
            different = difference(
                MadeBy(first.model, first.weights, first.settings), MadeBy(model, weights, run.settings)
            )
            if not different and first.settings != run.settings:
                different = f"with {first.settings}, and this part has {run.settings}"
            if different:
                hint = "set `if_exists` to overwrite or `mix_models`, or choose another `output`"
                raise UsageError(f"{self.target} (by its run.json) was made {different}", hint)
        write_run(self.target, run, replaces=replaces or self.shard.count == 1)


def listed_clips(found: Sequence[Input], names: NameList, folder: Path) -> list[Input]:
    """Return the clips that a list names, in its order, each once; one that is not there fails by its name.

    found: all clips of the folder. A name is a path below the folder, or as a manifest has it. Raises UsageError for a
    clip that is elsewhere.
    """
    below = {item.relative.as_posix(): item for item in found}
    by_path = {os.path.abspath(item.source): item for item in found}
    chosen: dict[Path, Input] = {}
    for name in names:
        relative = os.path.normpath(name)
        item = below.get(Path(relative).as_posix()) or by_path.get(os.path.abspath(name))
        if item is None:
            if os.path.isabs(name) or relative.split(os.sep)[0] == os.pardir:
                raise UsageError(f"{name} of the list is not in {folder}", "name the folder that all are below")
            item = Input(folder / relative, Path(relative))
        chosen.setdefault(item.relative, item)
    if not chosen:
        raise UsageError(f"the list {names.name} names no clip", "write a path on each line")
    return list(chosen.values())


def missing_clips(source: str, target: Path, run: RunFile) -> Iterator[str]:
    """Yield the clips of a folder that lack a result, by their paths below it. Raises UsageError."""
    if not os.path.isdir(source):
        raise UsageError(f"{source} is not a folder", "name the folder of the clips after that of the results")
    found = find_inputs([source], CLIP, LeftOut(CLIP))
    for item, outputs in zip(found, plan_clips(found, run.formats, Target.of(f"{target}/"))):
        if not all(facts_beside(path) and os.path.lexists(path) for _, path in outputs):
            yield item.relative.as_posix()


def clip_damage(path: Path, deep: bool) -> str:
    """Return what is wrong with a film or a folder of frames that a clip became, "" if nothing is.

    It must have the sidecar that ends it, and its number of frames; deep: they are decoded, those of a film.
    """
    if not os.path.lexists(path):
        return "is missing"
    facts = facts_beside(path)
    if not facts:
        return "is not finished"
    wanted = facts["video"].get("frames")
    try:
        if path.is_dir():
            found = sum(not name.startswith(".") for name in os.listdir(path))
        elif path.suffix in (".mp4", ".mkv", ".mov"):
            found = count_frames(path, decode=deep)
        else:
            return ""
    except Exception as error:  # whatever a decoder raises
        return f"cannot be read: {first_line(error)}"
    return "" if found == wanted else f"has {found} frames, not {wanted}"
