"""What a reader has to know of the machine before any figure, and a picture to measure with."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Optional

import numpy as np
from PIL import Image

_PACKAGES = ("torch", "openvino", "onnxruntime", "numpy", "opencv-python-headless", "pillow")
# Of the flags of a CPU, those that decide how fast a network is.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "sve",
)


def cpu_model() -> str:
    """Return the CPU's name, or its architecture where the system keeps the name to itself."""
    names = _cpuinfo("model name")
    return names or platform.processor() or platform.machine()


def cpu_flags() -> tuple[str, ...]:
    """Return those of the CPU's flags that decide how fast a network is; empty where the system does not list them."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return tuple(flag for flag in _FLAGS if flag in flags)


def versions() -> dict[str, str]:
    """Return the versions of what computes, where it is installed; nothing is imported."""
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
    """Return the load average of one minute, None where the system has none."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows
        return None


def photograph(width: int, height: int, seed: int = 0) -> bytes:
    """Return the bytes of a JPEG with the spectrum of a photograph: smooth, with a little noise. seed: which one."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    picture += random.normal(0, 4, picture.shape)
    stream = io.BytesIO()
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()
