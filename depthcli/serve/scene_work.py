"""How the job of a scene is done: the files of `depth scene`. Its network runs beside those of pictures and clips."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Union

from depthcli.errors import (
    SOME_FAILED,
    DepthError,
    DeviceLostError,
    DiskFullError,
    PictureError,
    StoppedError,
    UsageError,
)
from depthcli.host.atomic import atomic_path
from depthcli.io.names import printable
from depthcli.io.pictures.files import is_picture
from depthcli.io.pictures.images import picture_size
from depthcli.io.scenes.files import EXPORTS
from depthcli.jobs.clip_job import Progress
from depthcli.jobs.find import CLIP_SUFFIXES
from depthcli.jobs.manifest import DONE, FAILED, MANIFEST_NAME, Manifest, Result
from depthcli.jobs.scene import SEVERAL_SHOTS, Made, Note, SceneJob, Shot, Step, Unread, run_scene, summary_of
from depthcli.jobs.scene_inputs import SceneInput, SceneSource
from depthcli.predict.scene import METRIC_MODEL, SceneEstimator, check_count, check_scene_model
from depthcli.serve.jobs import SOURCE, JobFile, Outcome
from depthcli.serve.models import Models
from depthcli.serve.scene_query import SceneWish
from depthcli.serve.settings import ServiceSettings
from depthcli.zoo.rows import find_row

TAR = "pictures.tar"
_SCENE, _PICTURES, _NAMES = "scene", "pictures", "pictures.json"  # beside what was sent
_MOST_PICTURES = 10_000
_MOST_MEMBERS = 2 * _MOST_PICTURES  # of a tar; each takes a kilobyte of memory
_MOST_AT_ONCE = 1 << 20  # bytes
_MOST_NAME = 200  # bytes of each part of a picture's name
_HINT = "tar c a.jpg b.jpg | curl --data-binary @- ...; or say that it is a clip: name=walk.mp4"


class SceneWork:
    """Does the jobs of scenes; see `Work`."""

    kind = "scene"
    space = 2  # pictures are unpacked beside what was sent

    def __init__(self, settings: ServiceSettings, models: Models) -> None:
        self._settings, self._models = settings, models

    def wish_of(self, facts: Mapping[str, Any]) -> SceneWish:
        """See `Work`."""
        return SceneWish.of(facts)

    def check(self, wish: SceneWish, source: Path) -> None:
        """See `Work`."""
        row = find_row(wish.model)
        if wish.metres and not row.kind.is_metric and METRIC_MODEL not in self._models.names:
            names = ",".join((*self._models.names, METRIC_MODEL))
            raise UsageError(f"`metres` needs {METRIC_MODEL}, which this service does not have", f"`models` {names}")
        check_scene_model(row.network, row.name, "gs_ply" in wish.formats)
        if source.suffix.lower() in CLIP_SUFFIXES:
            found = _clip(source)
        else:
            found = SceneInput(SceneSource.PICTURES, "", (source, source.with_name("2")), ("1.jpg", "2.jpg"))
        self._job(wish, source, found)

    def receive(self, wish: SceneWish, source: Path) -> tuple[JobFile, ...]:
        """Return the clip as a file of its job, or unpack the pictures.

        Raises PictureError for a tar that cannot be read, and for a picture that is too large; UsageError for one.
        """
        if source.suffix.lower() in CLIP_SUFFIXES:
            return (JobFile(source.name, SOURCE),)
        folder = source.with_name(_PICTURES)
        folder.mkdir()
        names = _unpack(source, folder, self._settings.max_pixels)
        check_count(len(names))
        with atomic_path(source.with_name(_NAMES)) as partial:
            partial.write_text(json.dumps(names), encoding="utf-8")
        source.unlink()
        self._job(wish, source, _pictures(source))  # raises for names that clash
        return ()

    def run(
        self, wish: SceneWish, source: Path, stop: Callable[[], bool]
    ) -> Generator[Union[Progress, Outcome], None, None]:
        """See `Work`."""
        found = _clip(source) if source.suffix.lower() in CLIP_SUFFIXES else _pictures(source)
        job = self._job(wish, source, found)
        made = _Parts(job, source, [JobFile(source.name, SOURCE)] if found.source is SceneSource.CLIP else [])
        try:
            with closing(run_scene(job, lambda: self._load(job, stop))) as events:
                for event in events:
                    if isinstance(event, Step):
                        yield Progress(source.name, event.stage, event.done, event.total)
                    elif isinstance(event, Shot):
                        raise UsageError(*SEVERAL_SHOTS)
                    else:
                        made.add(event)
                    if stop():
                        return
        except StoppedError:  # while the network ran
            return
        except DeviceLostError:
            raise
        except DepthError as error:
            yield made.outcome(error)
            return
        yield made.outcome()

    def drop_idle(self) -> None:
        """See `Work`: models are kept elsewhere."""

    def close(self) -> None:
        """See `Work`: models are kept elsewhere."""

    def _job(self, wish: SceneWish, source: Path, found: SceneInput) -> SceneJob:
        return SceneJob(
            found,
            source.with_name(_SCENE),
            wish.formats,
            replace(self._settings.choice, model=wish.model),
            self._settings.backend,
            wish.views,
            wish.choice,
            wish.show,
            max_views=wish.max_views,
            chunks=wish.chunks,
        )

    @contextmanager
    def _load(self, job: SceneJob, stop: Callable[[], bool]) -> Iterator[SceneEstimator]:
        assert job.model.model is not None
        wanted = {"gaussians": job.wants_gaussians, "features": job.wants_features}
        with self._models.use_scene(job.model.model, job.views, **wanted) as estimator:
            yield estimator.stopped_by(stop)


class _Parts:
    """What has been made of a scene. source: what was sent."""

    def __init__(self, job: SceneJob, source: Path, files: list[JobFile]) -> None:
        self._job, self._source = job, source
        self._files, self._results, self._notes = files, list[Result](), list[str]()
        self._unread: list[Result] = []

    def add(self, event: Union[Note, Unread, Made, Result]) -> None:
        """Take an event of the job."""
        if isinstance(event, Note):
            self._notes.append(self._here(event.text))
        elif isinstance(event, Made):
            self._notes.append(summary_of(event))
        elif isinstance(event, Unread):
            self._unread.append(event.result)
        else:
            self._results.append(event)

    def outcome(self, error: Union[DepthError, None] = None) -> Outcome:
        """Return the outcome. error: that ended the work."""
        done = [result for result in self._results if result.status != FAILED]
        failed = [result for result in (*self._unread, *self._results) if result.status == FAILED]
        files = [*self._files]
        for result in done:
            files += self._files_of(result, {file.name for file in files})
        manifest = Manifest(self._job.folder / MANIFEST_NAME)
        rows = [self._row(result, manifest) for result in (*self._unread, *self._results)]
        lines = [self._line(result) for result in failed]
        if error is not None:
            lines, code = [*lines, self._here(str(error))], error.exit_code
        else:
            code = 0 if not failed else SOME_FAILED if done else failed[0].code
        return Outcome(
            not lines,
            tuple(files),
            "; ".join(lines),
            code,
            tuple(self._notes),
            tuple(dict.fromkeys(warning for result in done for warning in result.warnings)),
            tuple(rows),
        )

    def _line(self, result: Result) -> str:
        error = self._here(result.error)
        return error if result.input in error else f"{result.input}: {error}"

    def _row(self, result: Result, manifest: Manifest) -> dict[str, Any]:
        made_by = manifest.rows.get(result.input, {})  # also of what an earlier run has made
        return {
            "name": result.input,
            "status": DONE if result.status != FAILED else FAILED,
            "error": self._here(result.error),
            "exit_code": result.code,
            "ms": result.ms,
            "warnings": list(result.warnings),
            "model": made_by.get("model", ""),
            "weights_sha256": made_by.get("weights", ""),
        }

    def _files_of(self, result: Result, taken: set[str]) -> list[JobFile]:
        """Return the files of a format: those of one place by themselves, more as a ZIP with their folders."""
        paths = [Path(output) for output in result.outputs]
        alone = len(paths) == 1 or result.input in ("glb", "glb-mesh")
        if alone and result.input in EXPORTS:
            found = []
            for path in paths:
                name = path.name if path.name not in taken else f"{result.input}-{path.name}"
                found.append(JobFile(name, result.input, path.relative_to(self._source.parent).as_posix()))
            return found
        packed = self._source.with_name(f"{result.input}.zip")
        _pack(packed, paths, self._job.folder)
        return [JobFile(packed.name, result.input)]

    def _here(self, text: str) -> str:
        """Return a message that names pictures as they were sent, and files as they are fetched."""
        for name, path in zip(self._job.found.names, self._job.found.paths):
            text = text.replace(str(path), name)
        return text.replace(f"{self._job.folder}{os.sep}", "").replace(f"{self._source.parent}{os.sep}", "")


def scene_file_name(name: str) -> tuple[str, str]:
    """Return under which name a body is kept, and what the scene is called. Raises UsageError for a path.

    name: as it was given; one with the suffix of a clip says that the body is one.
    """
    plain = Path(name or "scene").name
    if plain != (name or "scene") or not plain.isprintable() or plain.startswith(".") or "\\" in plain:
        raise UsageError(f"{name!r} is not the name of a scene", "give a name without a folder")
    if len(plain.encode(errors="replace")) > _MOST_NAME:
        raise UsageError("the name of the scene is too long", f"give one of at most {_MOST_NAME} bytes")
    return (plain, plain) if Path(plain).suffix.lower() in CLIP_SUFFIXES else (TAR, plain)


def _clip(source: Path) -> SceneInput:
    return SceneInput(SceneSource.CLIP, f"{source.name} is a clip, by its suffix", (source,), (source.name,))


def _pictures(source: Path) -> SceneInput:
    """Return the pictures that were unpacked."""
    names = json.loads(source.with_name(_NAMES).read_text(encoding="utf-8"))
    paths = tuple(_place(source.with_name(_PICTURES), number, name) for number, name in enumerate(names))
    return SceneInput(SceneSource.PICTURES, f"{len(names)} pictures were sent", paths, tuple(names))


def _place(folder: Path, number: int, name: str) -> Path:
    """Return where a picture lies: no name that was sent is one of the disk, but for its suffix."""
    return folder / f"{number:06d}{PurePosixPath(name).suffix.lower()}"


def _unpack(packed: Path, folder: Path, most_pixels: int) -> list[str]:
    """Unpack the pictures of a tar into a folder; return their names, in order. Other files are left out."""
    names: dict[str, None] = {}
    with (
        _tar_errors(),
        packed.open("rb") as file,
        tarfile.open(fileobj=_Pieces(file), mode="r:", encoding="utf-8") as archive,  # type: ignore[call-overload]
    ):
        for number, member in enumerate(archive):
            if number == _MOST_MEMBERS:
                raise UsageError(f"the tar has more than {_MOST_MEMBERS} entries", "send the pictures alone")
            if member.isdir() or not is_picture(Path(PurePosixPath(member.name).name)):
                continue
            name = _checked_name(member)
            if name in names:
                raise UsageError(f"{name} is named twice", "give each picture another name")
            if len(names) == _MOST_PICTURES:
                raise UsageError(f"there are more than {_MOST_PICTURES} pictures", "send fewer, or a clip")
            path = _place(folder, len(names), name)
            stream = archive.extractfile(member)
            assert stream is not None
            with stream, path.open("xb") as target:
                _copy(stream, target, member.size, name)
            size = picture_size(path)
            if size is not None and size[0] * size[1] > most_pixels:
                limit = f"this service takes pictures of up to {most_pixels / 1e6:g} megapixels"
                raise PictureError(f"{name} has {size[0]}x{size[1]} pixels", limit)
            names[name] = None
    return list(names)


class _Pieces:
    """A file that is read in pieces: the header of a tar may ask for all of it at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes. Raises TarError for too many."""
        if not 0 <= size <= _MOST_AT_ONCE:
            raise tarfile.ReadError("a header is too long")
        return self._file.read(size)


def _copy(stream: Any, target: Any, size: int, name: str) -> None:
    left = size
    while left:
        piece = stream.read(min(left, _MOST_AT_ONCE))
        if not piece:
            raise PictureError(f"the tar ends within {name}", "send it again")
        try:
            target.write(piece)
        except OSError as error:
            raise DiskFullError(f"cannot write {name}: {error.strerror}") from error
        left -= len(piece)


def _checked_name(member: tarfile.TarInfo) -> str:
    """Return the name of a picture in a tar, as the name of a view. Raises UsageError for one that leads elsewhere."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    name = "/".join(parts)
    wrong = not name.isprintable() or "\\" in name or ".." in parts or member.name.startswith("/")
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None  # which may be of any size
    if wrong or not plain or any(len(part.encode(errors="replace")) > _MOST_NAME for part in parts):
        raise UsageError(f"{printable(member.name)} in the tar is not the name of a picture", "send plain files")
    return name


@contextmanager
def _tar_errors() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise PictureError(f"the body is not a tar of pictures: {error}", _HINT) from error


def _pack(target: Path, paths: Sequence[Path], folder: Path) -> None:
    """Write a ZIP of files, stored, with their places in a folder."""
    with atomic_path(target) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            with suppress(FileNotFoundError), path.open("rb") as data:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
                with archive.open(entry, "w", force_zip64=True) as packed:
                    while piece := data.read(1 << 20):
                        packed.write(piece)
