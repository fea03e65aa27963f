"""The model and the pictures that are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from depthcli.bench.contenders import MeasuredModel
from depthcli.bench.own_process import Ended, run_alone
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import Log
from depthcli.pixels.preprocess import InputPlan


@dataclass(frozen=True)
class Sample:
    """A model, and pictures with their plans. The network is timed on the first picture.

    folder: for files of the benchmark. choice: of the user. log: receives lines about the progress.
    """

    model: MeasuredModel
    input_size: int
    pictures: Sequence[Path]
    plans: Sequence[InputPlan]
    folder: Path
    choice: ModelChoice
    log: Log

    @property
    def plan(self) -> InputPlan:
        """Plan of the first picture."""
        return self.plans[0]

    def depth(self, command: str, source: Path, target: Path, choice: BackendChoice, *more: str) -> Ended:
        """Run `depth image` or `depth dir` in a separate process."""
        options = self.model.options(choice, self.input_size, self.choice.trust)
        steps = ("--calibration", str(choice.calibration)) if choice.calibration else ()
        files = ("--artifacts", str(choice.artifacts)) if choice.artifacts else ()
        shape = ("--shape-policy", choice.shape_policy) if choice.shape_policy != "strict" else ()
        standin = ("--allow-standin",) if choice.allow_standin else ()
        return run_alone(
            [command, str(source), "-o", str(target), "--quiet", *options, *steps, *files, *shape, *standin, *more]
        )
