"""The processes of one training, as torchrun starts them: each has a part of every step's pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


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

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the module whose backward pass averages the gradients over all processes."""
        if self.count == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the other processes if torchrun started this one, with nccl on GPUs and gloo elsewhere."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield Processes()
        return
    found = Processes(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda":
        torch.cuda.set_device(found.local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield found
    finally:
        dist.destroy_process_group()
