"""Run lengths of masks as in COCO: columns one after the other, first the count of zeros, then of ones, and so on.

Compressed, each count from the third on is the difference to the one two places before, in groups of five bits, the
lowest first. A group is the character 48 + its bits, plus 32 if another one follows; the highest bit of the last one is
the sign. (The mask API of COCO, maskApi.c: rleToString.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from depthcli.io.codecs.arrays import check_pixels

_FIRST, _BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10
_MOST_GROUPS = 7  # 35 bits: more than any picture has pixels


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Return {"size": [height, width], "counts": text} of a (H, W) mask."""
    return {"size": list(mask.shape), "counts": compressed(counts_of(mask))}


def decode(found: Any, what: str = "mask") -> np.ndarray:
    """Return the (H, W) bool mask of an RLE, compressed or a list of counts. Raises ValueError for any other value."""
    try:
        height, width = (int(side) for side in found["size"])
        counts = found["counts"]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"the {what} is no RLE: size and counts are wanted") from error
    if min(height, width) < 1:
        raise ValueError(f"the {what} has no size")
    check_pixels(width, height)
    lengths = uncompressed(counts) if isinstance(counts, (str, bytes)) else _whole(counts)
    if any(count < 0 for count in lengths) or sum(lengths) != height * width:
        raise ValueError(f"the counts of the {what} do not add up to its {width}x{height} pixels")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def counts_of(mask: np.ndarray) -> list[int]:
    """Return the lengths of the runs of a (H, W) mask, zeros first."""
    flat = np.asarray(mask, bool).T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def compressed(counts: Sequence[int]) -> str:
    """Return the text of run lengths."""
    text = []
    for place, count in enumerate(counts):
        left = count - counts[place - 2] if place > 2 else count
        while True:
            bits = left & 0x1F
            left >>= _BITS
            more = left != (-1 if bits & _SIGN else 0)
            text.append(chr(_FIRST + bits + (_MORE if more else 0)))
            if not more:
                break
    return "".join(text)


def uncompressed(text: str | bytes) -> list[int]:
    """Return the run lengths of a text. Raises ValueError if it is none."""
    codes = text.encode("ascii", "replace") if isinstance(text, str) else bytes(text)
    counts: list[int] = []
    value = groups = 0
    for code in codes:
        bits = code - _FIRST
        if not 0 <= bits < 64 or groups >= _MOST_GROUPS:
            raise ValueError("the counts are no compressed run lengths")
        value |= (bits & 0x1F) << (_BITS * groups)
        groups += 1
        if bits & _MORE:
            continue
        if bits & _SIGN:
            value -= 1 << (_BITS * groups)
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = groups = 0
    if groups:
        raise ValueError("the counts end in the middle of a number")
    return counts


def _whole(counts: Any) -> list[int]:
    if not isinstance(counts, list) or not all(type(count) is int for count in counts):
        raise ValueError("its counts are neither a text nor a list of whole numbers")
    return counts
