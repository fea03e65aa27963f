"""torch.jit without its warnings: it is deprecated, and what torch would have in its place torch 1.13 does not know."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_jit() -> Iterator[None]:
    """Within this context the use of torch.jit is not warned of. Not for threads: warnings belong to the process."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # the second since torch 2.14
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+`? is (deprecated|not supported)", category)
        yield


@contextmanager
def quiet_trace() -> Iterator[None]:
    """The same, and no word about sizes read as plain numbers while a graph is traced, which is what we want."""
    import torch

    with quiet_jit():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
