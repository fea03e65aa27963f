"""The spool: the depth of a clip on disk, in shards, while it is made.

Each shard has the maps of some frames, and the newest one a state to resume from. Files appear only when they are
complete, so the next run can resume after any end.

    shard_000000.npz   times (n, 5) int64: time and duration as fractions, and whether a shot begins;
                       codes (n, H, W); ends (n, 2)
    state_first.npz    the state of work that has no shard yet
    state_000000.npz   the state after the shard; removed when the next shard is there
    job.json           what is being made; a spool of anything else is not resumed
    end.json           facts about the whole clip; there when all maps are
    writing.json       the outputs that are being written from the spool
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Optional

import numpy as np

from depthcli.errors import DiskFullError, OutputError
from depthcli.host.atomic import atomic_path, remove_partials, try_lock

_JOB, _LOCK, _END, _WRITING = "job.json", "lock", "end.json", "writing.json"
_CODES = 65535
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MOST_BYTES = 1 << 24  # of maps that wait for a shard: some frames of the usual sizes


@dataclass(frozen=True, eq=False)
class SpooledFrame:
    """The map of one frame. values: (H, W) float32. time, duration: seconds, as in io.video.clip.Frame.

    cut: a shot begins with it. index: of the frame, from 0.
    """

    values: np.ndarray
    time: Fraction
    duration: Fraction
    cut: bool = False
    index: int = 0


class Spool:
    """The spool of one job in a folder, resumed or new; for one process at a time. Closing it keeps the files.

    job: everything that the maps depend on, ready for JSON. exact: maps are kept as float32; otherwise in 16 bits
    between the ends of each map, to 1/131070 of their distance. Raises OutputError if the folder cannot be written or
    another process uses it.

    locked: no other process can open it; False if the file system has no locks. differs: the parts of `job` in which a
    removed earlier spool differed; empty if there was none, or it is resumed.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any], exact: bool) -> None:
        self.folder = folder
        self._exact = exact
        self._text = json.dumps({**job, "exact": exact}, sort_keys=True)
        self._waiting: list[SpooledFrame] = []
        self._bytes = 0
        with _errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._open()
            except BaseException:
                self.close()
                raise

    def _open(self) -> None:
        path = self.folder / _JOB
        self.differs: tuple[str, ...] = ()
        if _text_of(path) != self._text:
            if path.exists():
                self.differs = _differences(spooled_job(self.folder), json.loads(self._text))
            for path in self.folder.glob("[sjew]*"):
                path.unlink()
            _write_text(self.folder / _JOB, self._text)
        remove_partials(self.folder)
        self._counts = list(self._whole_shards())
        self.ended = _read_json(self.folder / _END)

    def _whole_shards(self) -> Iterator[int]:
        """Yield the frames of each shard, up to the first that is missing."""
        number = 0
        while (count := _frames_in(self._shard(number))) is not None:
            yield count
            number += 1

    @property
    def frames(self) -> int:
        """Number of frames in whole shards."""
        return sum(self._counts)

    def state(self) -> Optional[dict[str, np.ndarray]]:
        """Return the state after the last whole shard, or None. Shards of a killed run without a state are removed."""
        while self._counts:
            path = self._state(len(self._counts) - 1)
            with contextlib.suppress(OSError, ValueError):
                return _read_arrays(path)
            self._shard(len(self._counts) - 1).unlink()
            self._counts.pop()
        with contextlib.suppress(OSError, ValueError):
            return _read_arrays(self._state(-1))
        return None

    def add(self, values: np.ndarray, time: Fraction, duration: Fraction, cut: bool = False) -> None:
        """Take the next frame's map (H, W) float32; it is on disk after the next `keep`."""
        self._waiting.append(SpooledFrame(values, time, duration, cut))
        self._bytes += values.nbytes

    @property
    def full(self) -> bool:
        """Whether enough maps wait for a shard."""
        return self._bytes >= _MOST_BYTES

    def keep(self, state: Optional[Mapping[str, np.ndarray]]) -> None:
        """Write the waiting maps as a shard with the state to resume from; None after the last frame.

        If no maps wait, the state takes the place of the one before.

        Raises DiskFullError if the disk is full; earlier shards stay.
        """
        number = len(self._counts)
        if not self._waiting:
            if state is not None:
                self._write(self._state(number - 1), state)
            return
        if state is not None:
            self._write(self._state(number), state)
        times = [
            (*frame.time.as_integer_ratio(), *frame.duration.as_integer_ratio(), frame.cut) for frame in self._waiting
        ]
        codes, ends = zip(*(self._encoded(frame.values) for frame in self._waiting))
        arrays = {"times": np.array(times, np.int64), "codes": np.stack(codes), "ends": np.array(ends, np.float32)}
        self._write(self._shard(number), arrays)
        self._counts.append(len(self._waiting))
        self._waiting, self._bytes = [], 0
        if state is not None:  # otherwise the one before is resumed from until `end` is written
            with contextlib.suppress(FileNotFoundError):
                self._state(number - 1).unlink()

    def end(self, facts: Mapping[str, Any]) -> None:
        """Note that the clip is done; `ended` is `facts` from now on."""
        self.keep(None)
        _write_text(self.folder / _END, json.dumps(facts))
        self.ended = dict(facts)

    def was_writing(self, facts: Mapping[str, Any]) -> bool:
        """Return whether an earlier run began to write exactly these files; note that this one does."""
        path, text = self.folder / _WRITING, json.dumps(facts, sort_keys=True)
        if _text_of(path) == text:
            return True
        _write_text(path, text)
        return False

    def read(self) -> Iterator[SpooledFrame]:
        """Yield all frames in shards. Raises OutputError if a shard is damaged."""
        index = 0
        for number in range(len(self._counts)):
            times, codes, ends = self._arrays(number, "times", "codes", "ends")
            for (a, b, c, d, cut), code, (low, high) in zip(times.tolist(), codes, ends):
                yield SpooledFrame(_decoded(code, low, high), Fraction(a, b), Fraction(c, d), bool(cut), index)
                index += 1

    def times(self) -> tuple[list[Fraction], list[int]]:
        """Return the times of all frames in shards, and the indices of those that begin a shot, without their maps."""
        rows = [row for number in range(len(self._counts)) for row in self._arrays(number, "times")[0].tolist()]
        cuts = [index for index, row in enumerate(rows) if row[4] or not index]
        return [Fraction(a, b) for a, b, *_ in rows], cuts

    def _arrays(self, number: int, *names: str) -> list[np.ndarray]:
        path = self._shard(number)
        try:
            arrays = _read_arrays(path, *names)
            return [arrays[name] for name in names]
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"{path} is damaged", "remove its folder and start again") from error

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Release the folder for other processes."""
        self._lock.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        """Lock the folder for this process; the system releases it however the process ends."""
        self._lock = (self.folder / _LOCK).open("a")
        taken = try_lock(self._lock)
        if taken is False:
            self._lock.close()
            raise OutputError("another process is at work on this clip", f"wait for it; it is in {self.folder}")
        self.locked = taken is True

    def _encoded(self, values: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
        low, high = values.min(), values.max()
        if self._exact:
            return values, (float(low), float(high))
        scale = np.float32(_CODES) / (high - low) if high > low else np.float32(0)
        codes = values - low
        codes *= scale
        np.rint(codes, out=codes)
        return codes.astype(np.uint16), (float(low), float(high))

    def _write(self, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic_path(path) as partial, partial.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type] # numpy takes all names for its own

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard_{number:06d}.npz"

    def _state(self, number: int) -> Path:
        """Return the file of the state after a shard; -1: before the first one."""
        return self.folder / (f"state_{number:06d}.npz" if number >= 0 else "state_first.npz")


def spooled_job(folder: Path) -> dict[str, Any]:
    """Return the `job` of the spool in a folder; empty if there is none, or it cannot be read."""
    return _read_json(folder / _JOB) or {}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    if found.keys() != wanted.keys():  # an earlier version noted other things
        return ("version",)
    return tuple(name for name in wanted if found[name] != wanted[name])


def bytes_per_frame(size: tuple[int, int], exact: bool) -> int:
    """Return the bytes of a map of (width, height) on disk."""
    return size[0] * size[1] * (4 if exact else 2)


def check_disk(folder: Path, need: int) -> int:
    """Return the free bytes where a folder is or will be. Raises DiskFullError if they are fewer than `need`."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if need > free:
        raise DiskFullError(
            f"making the depth takes about {readable(need)} in {place}, and {readable(free)} are free",
            "free some, write to another disk, or use a smaller `input_size`",
        )
    return free


def readable(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def _decoded(codes: np.ndarray, low: np.float32, high: np.float32) -> np.ndarray:
    if codes.dtype == np.float32:
        return codes
    values = codes.astype(np.float32)
    values *= (high - low) / np.float32(_CODES)
    values += low
    return values


def _frames_in(path: Path) -> Optional[int]:
    """Return the number of frames in a shard, None if it is not there or damaged."""
    try:
        return len(_read_arrays(path, "times")["times"])
    except (OSError, ValueError, KeyError):
        return None


def _read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file, all or by name. Raises ValueError or KeyError if it is damaged, and OSError."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in names or file}
    except (OSError, KeyError):
        raise
    except Exception as error:  # the readers of zip and npy have no common class of errors
        raise ValueError(f"{path} is damaged") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # bytes, if a name in it is damaged
        raise ValueError(f"{path} is damaged")
    return arrays


def _text_of(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _read_json(path: Path) -> Optional[dict[str, Any]]:
    with contextlib.suppress(ValueError, TypeError):
        return dict(json.loads(_text_of(path) or ""))
    return None


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in _FULL else OutputError
        raise kind(f"cannot write {folder}: {error.strerror or error}") from error
