"""The processes of one training: each has a part of every step's pictures.

torchrun starts them, on one machine or on several, or `started` does, on this machine.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from depthcli.errors import DepthError, EngineError, UsageError
from depthcli.host.cores import compute_threads

T = TypeVar("T")

_START_SECONDS = 300.0  # for the imports of all processes
_END_SECONDS = 20.0  # between the end of the first process and that of the others
_POLL = timedelta(seconds=1)


@dataclass(frozen=True)
class Member:
    """One of several processes that `started` begins. store: a file through which they find each other."""

    rank: int
    count: int
    store: Path


@dataclass(frozen=True)
class Processes:
    """rank: of this process, from 0. count: of all. local: its number on this machine."""

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Return the device of this process: of several GPUs its own one."""
        if self.count == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", self.local)

    def total(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.count == 1:
            return list(numbers)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return [float(number) for number in sums]

    def gathered(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def of_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives in the first process; a DepthError of it is raised in all."""
        found: Any = None
        if self.is_first:
            try:
                found = make()
            except DepthError as error:
                if self.count == 1:
                    raise
                found = error
        first: Any = self.gathered(found)[0]
        if isinstance(first, DepthError):
            raise first
        return cast(T, first)

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the module whose backward pass averages the gradients over all processes."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():
            # torch 2.13 wants another name for this argument, which does something else, and older ones do not know it.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)


@contextmanager
def joined(device: torch.device, member: Optional[Member] = None) -> Iterator[Processes]:
    """Join the other processes, if there are any, with nccl on GPUs and gloo elsewhere.

    member: this process among those of `started`; None: of those of torchrun, or alone.
    """
    if member is None and (int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ):
        yield Processes()
        return
    facts: dict[str, Any] = {}
    if member is None:
        rank, count, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        found = Processes(rank, count, local)
    else:
        found = Processes(member.rank, member.count, member.rank)
        facts = {"store": _store(member), "rank": member.rank, "world_size": member.count}
    if device.type == "cuda":
        torch.cuda.set_device(found.local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **facts)
    try:
        yield found
    finally:
        dist.destroy_process_group()


@contextmanager
def started(count: int, device: torch.device, work: Callable[[Member], None]) -> Iterator[Member]:
    """Start the other processes of a training on this machine; give this one, the first, its place among them.

    work: what each of the others does; it is pickled. On a CPU each gets a part of the cores. The others end with
    this one, however it ends. Raises UsageError for too many, EngineError if one of them dies, and what one raises.
    """
    check_processes(count, device)
    threads = torch.get_num_threads()
    share = max(1, compute_threads() // count)
    with tempfile.TemporaryDirectory(prefix="depthcli-train-") as folder:
        first = Member(0, count, Path(folder, "store"))
        others = [_Other(Member(rank, count, first.store), share, work) for rank in range(1, count)]
        finished = False
        try:
            torch.set_num_threads(share)
            _meet(first, others)
            yield first
            finished = True
        except (RuntimeError, EngineError) as error:  # what a process that lost another one meets
            raise _cause(others) or error from error
        finally:
            torch.set_num_threads(threads)
            for other in others:
                other.close(_END_SECONDS if finished else 0)


def check_processes(count: int, device: torch.device) -> None:
    """Raise UsageError if so many processes cannot train on a device of this machine."""
    if count < 1:
        raise UsageError(f"`processes` must be at least 1, got {count}")
    if count == 1:
        return
    if "RANK" in os.environ:
        raise UsageError("torchrun starts the processes itself", "leave out `processes`")
    if device.type == "mps":
        raise UsageError("several processes do not train on MPS", "leave out `processes`, or use `device` cpu")
    if device.type == "cuda" and count > torch.cuda.device_count():
        raise UsageError(f"{count} processes need {count} GPUs, there are {torch.cuda.device_count()}")


def _meet(first: Member, others: Sequence[_Other]) -> None:
    """Wait until every process is there, as joining would wait for half an hour for one that has died."""
    store = _store(first)
    late = time.monotonic() + _START_SECONDS
    while True:
        with suppress(RuntimeError):  # a time-out
            store.wait([_ready(other.member) for other in others], _POLL)
            return
        if any(other.has_ended for other in others) or time.monotonic() > late:
            raise EngineError("the processes of the training did not all start")


@cache
def _store(member: Member) -> Any:
    """Return the one store of a process: with torch 1.13 a second one that ends would take the file along."""
    return dist.FileStore(str(member.store), member.count)  # type: ignore[attr-defined]


def _ready(member: Member) -> str:
    return f"ready {member.rank}"


class _Other:
    """A process besides the first. It sends the DepthError that ends it, or None."""

    def __init__(self, member: Member, threads: int, work: Callable[[Member], None]) -> None:
        self.member = member
        context = get_context("spawn")  # threads of engines do not survive a fork
        self._connection, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_begin, args=(theirs, member, threads, work), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.exitcode is not None

    def error(self) -> Optional[DepthError]:
        """Return what ended it before the end of the training; None if it only lost another process."""
        self._process.join(_END_SECONDS)
        found: Any = None
        with suppress(EOFError, OSError):
            if self._connection.poll():
                found = self._connection.recv()
        if isinstance(found, DepthError):
            return None if isinstance(found, EngineError) and "torch failed" in found.message else found
        if self._process.exitcode:
            message = f"process {self.member.rank} of {self.member.count} ended with code {self._process.exitcode}"
            return EngineError(message, "the memory may be short; run the same command again to continue")
        return None

    def close(self, seconds: float) -> None:
        """Wait for its end, so many seconds, then kill it."""
        self._process.join(seconds)
        if not self.has_ended:
            self._process.kill()
            self._process.join()
        self._connection.close()


def _cause(others: Sequence[_Other]) -> Optional[DepthError]:
    """Return the first error of another process that is not just the loss of a third."""
    return next((error for error in (other.error() for other in others) if error is not None), None)


def _begin(connection: Connection, member: Member, threads: int, work: Callable[[Member], None]) -> None:
    """Do the work of a process that is not the first."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends Ctrl-C to all; the first process decides
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _store(member).set(_ready(member), "1")
    error: Optional[DepthError] = None
    try:
        work(member)
    except DepthError as found:
        error = found
    except RuntimeError as found:
        error = EngineError(f"torch failed: {found}")
    with suppress(OSError):
        connection.send(error)
    if error is not None:
        os._exit(0)  # without waiting for processes that will not answer; the first one says what happened


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, even killed: nobody waits for it."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
