"""Facts about the machine that belong to every measurement."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Optional

_PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
# CPU flags that matter for the speed of networks.
_FLAGS = tuple("avx2 avx512f avx512_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_int8 asimd bf16 sve".split())


def cpu_model() -> str:
    """Return the CPU's name, or its architecture if the name is unknown."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return the CPU's flags that matter for networks; empty if the system does not list them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return tuple(flag for flag in _FLAGS if flag in flags)


def versions() -> dict[str, str]:
    """Return the versions of installed packages that compute; nothing is imported."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(rf"^{re.escape(key)}\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def load_average() -> Optional[float]:
    """Return the load average of one minute, or None if unknown."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows
        return None
