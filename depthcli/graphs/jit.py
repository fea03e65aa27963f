"""torch.jit without its deprecation warnings: torch 1.13 does not have its successor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_jit() -> Iterator[None]:
    """Silence deprecation warnings of torch.jit. Not thread-safe: warning filters belong to the process."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # the second since torch 2.14
            warnings.filterwarnings("ignore", r".*torch\.jit\.\w+`? is (deprecated|not supported)", category)
        yield


@contextmanager
def quiet_trace() -> Iterator[None]:
    """The same, and silence the tracer's warnings about sizes that become constants, which is intended."""
    import torch

    with quiet_jit():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        yield
