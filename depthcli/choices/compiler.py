"""What makes a compiled network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from depthcli.errors import UsageError


@dataclass(frozen=True)
class CompilerChoice:
    """Options of the compilers for AWS's chips.

    fast_math: how to round, one of the chip's ways, or None for its default. workdir: folder for the compiler's files.
    timeout: seconds. allow_cpu_ops: leave operators that cannot be compiled to the CPU, which is slow.
    """

    fast_math: Optional[str] = None
    workdir: Optional[Path] = None
    timeout: int = 4 * 3600
    allow_cpu_ops: bool = False

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise UsageError(f"`timeout` must be at least 1 second, got {self.timeout}")
