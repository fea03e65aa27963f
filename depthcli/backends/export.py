"""Export a network for one batch and input size, and compare it with torch.

A target's module has `export`, which writes a network's files, runs them once and returns an Export, and `run_file`,
which returns a function from (B, 3, H, W) float32 to (B, H, W) float32; to (B, outputs, H, W) for a network with
several outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from depthcli.errors import EngineError

if TYPE_CHECKING:
    import torch

# Bound of the difference between a file's float32 depth and eager torch's, over the maximum; 1.2e-6 to 1.3e-5 measured.
BOUND = 5e-5

Shape = tuple[int, int, int]  # batch, height, width


@dataclass(frozen=True)
class Export:
    """Exported files that were run once.

    facts: the description in the file. proof: facts known only after it was written. difference: of the depth from
    eager float32, over the maximum; for chips, see `device`. seconds: that a chip's compiler took. device: mean
    difference of a run on the chip from float32 on the CPU, over the standard deviation; None without a chip.
    """

    facts: Mapping[str, Any]
    difference: Optional[float] = None
    seconds: Optional[float] = None
    device: Optional[float] = None
    proof: Mapping[str, Any] = field(default_factory=dict)


def example(shape: Shape) -> np.ndarray:
    """Return an input (B, 3, H, W) float32 of noise, always the same."""
    batch, height, width = shape
    return np.random.default_rng(0).standard_normal((batch, 3, height, width)).astype(np.float32)


def compare(network: torch.nn.Module, shape: Shape, run: Callable[[np.ndarray], np.ndarray], package: str) -> float:
    """Return the largest difference of a file's depth from its network's, over the maximum. Limit: BOUND.

    Of several outputs, that of the worst.
    """
    import torch

    from depthcli.graphs.static import joined

    image = example(shape)
    with torch.inference_mode():
        wanted = joined(network(torch.from_numpy(image))).numpy()
    return checked(relative_difference(run(image), wanted), package)


def answers_difference(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Return the largest difference of several arrays over the maximum of each, that of the worst."""
    return max(float(np.abs(one - two).max() / np.abs(two).max()) for one, two in zip(found, wanted))


def checked(difference: float, package: str) -> float:
    """Return a difference over the maximum. Raises EngineError if it is above BOUND."""
    if not difference <= BOUND:
        raise EngineError(
            f"{package} and torch differ by {difference:.1e} of the maximum (bound {BOUND:.0e})",
            "please report this, with the versions of both",
        )
    return difference


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the largest difference over the largest value, of the worst output: (B, H, W) or (B, outputs, H, W)."""
    axes = (0, *range(2, wanted.ndim)) if wanted.ndim == 4 else None
    return float(np.max(np.abs(found - wanted).max(axis=axes) / np.abs(wanted).max(axis=axes)))
