"""An engine that sleeps, for tests of clusters: it needs hardly any core, and nothing of it has to be loaded."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tests.jobs.test_folder import Fake

SECONDS = 0.5


class Sleeping(Fake):
    """Sleeps for each picture; ends its process at a picture of the name killer.png."""

    def run(self, batch, recheck=False):
        if any(Path(item.picture.name).name == "killer.png" for item in batch):
            os._exit(1)
        time.sleep(SECONDS * len(batch))
        return super().run(batch, recheck)


@dataclass(frozen=True)
class LoadTogether:
    """Makes the engine when `count` processes want it, so that all begin at the same time; each leaves a file."""

    folder: Path
    count: int

    def __call__(self) -> Sleeping:
        (self.folder / f"{os.getpid()}").touch()
        while len(os.listdir(self.folder)) < self.count:
            time.sleep(0.01)
        return Sleeping()
