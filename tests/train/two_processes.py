"""Twenty steps, alone or as one of several processes: python -m tests.train.two_processes OUT BATCH.

In float32 two runs whose sums are rounded differently drift apart, as AdamW makes steps of one size out of gradients
that are almost 0: a wrong share of a process would be seen in float64 only, unless both add the same numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from depthcli.eval.lists import read_list
from depthcli.train.loop import Feed, Trainer
from depthcli.train.parallel import Processes, joined
from depthcli.train.samples import Sampler
from depthcli.train.settings import TrainChoice
from depthcli.zoo.rows import find_row
from tests.train.rgbd import network

STEPS = 20


def weights(
    batch: int,
    accumulate: int = 1,
    steps: int = STEPS,
    dtype: torch.dtype = torch.float64,
    processes: Processes = Processes(),
) -> dict[str, torch.Tensor]:
    """Return the weights after the training; all processes get the same."""
    row = find_row("tiny").with_input_size(28)
    choice = TrainChoice(batch=batch, accumulate=accumulate, lr=1e-4, ema=0, input_size=28)
    trainer = Trainer(network(row).to(dtype), row, choice, steps, processes)
    sampler = Sampler(read_list(Path("list.json")), row, (28, 42), True, 0)
    with Feed(sampler, choice, steps, processes) as feed:
        for step in range(steps):
            trainer.step(feed.samples(step))
    return {name: tensor.detach().clone() for name, tensor in trainer.network.state_dict().items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as processes:
        for dtype, start in ((torch.float64, "double"), (torch.float32, "single")):
            found = weights(int(sys.argv[2]), dtype=dtype, processes=processes)
            if processes.is_first:
                save_file(found, f"{start}-{sys.argv[1]}")
