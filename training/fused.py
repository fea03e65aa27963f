"""The compiled form of the ray loop: built once with the machine's C++ compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_name("nearest.cpp")
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-shared", "-fPIC")


def build() -> ctypes.CDLL:
    """The compiled loop; raises OSError or CalledProcessError where no g++ is at hand."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"depth-training-{digest}.so"
    if not library.exists():
        partial = library.with_suffix(".partial.so")
        try:
            subprocess.run(["g++", *_FLAGS, "-o", str(partial), str(_SOURCE)], check=True)
        except FileNotFoundError as error:
            raise FileNotFoundError("there is no g++ to compile the ray loop; --plain goes without") from error
        partial.replace(library)
    return ctypes.CDLL(str(library))


def call(library: ctypes.CDLL, tensors: list, sizes: list, near: float) -> None:
    """Run the loop over contiguous float32 tensors of the CPU; the last two are changed in place."""
    for tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.is_contiguous() or tensor.device.type != "cpu":
            raise ValueError("the compiled loop takes contiguous float32 tensors of the CPU")
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    library.nearest_of_things(*pointers, *map(ctypes.c_int64, sizes), ctypes.c_float(near))
