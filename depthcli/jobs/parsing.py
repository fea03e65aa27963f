"""Parse the texts that options take: times, rates, sizes, ranges and lists. Each raises UsageError."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Optional

from depthcli.errors import UsageError


def parse_seconds(text: Optional[str]) -> Optional[Fraction]:
    """Return the seconds of 90, 90.5, 1:30 or 0:01:30.5."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d+)?)", text)
    if match is None:
        raise UsageError(f"{text!r} is not a time", "give seconds, or 1:02:03.5")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


def parse_rate(text: Optional[str]) -> Optional[Fraction]:
    """Return the frames per second of 25, 23.976 or 24000/1001."""
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?|\d+/[1-9]\d*", text) is None or not Fraction(text):
        raise UsageError(f"{text!r} is not a frame rate", "give frames per second, such as 25, 23.976 or 24000/1001")
    return Fraction(text)


def parse_size(text: str, setting: str, example: str) -> tuple[int, int]:
    """Return the two numbers of 640x480. setting, example: named in the error."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(f"{text!r} is not a size", f"give `{setting}` as {example}")
    return int(match[1]), int(match[2])


def parse_range(text: Optional[str]) -> Optional[tuple[float, float]]:
    """Return the two numbers of 0,80."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is not a range", "give `value_range` as 0,80") from None
    return low, high


def parse_list(items: Optional[Sequence[str]]) -> tuple[str, ...]:
    """Return the names of an option that may be repeated and may hold lists with commas."""
    return tuple(name.strip() for item in items or () for name in item.split(",") if name.strip())


def parse_bytes(text: str, setting: str) -> int:
    """Return the bytes of 64M, 1.5G or 1000. setting: named in the error."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a size", f"give `{setting}` as 64M or 20G")
    return int(float(match[1]) * 1024 ** "KMGT".find(match[2].upper()) * 1024) if match[2] else int(float(match[1]))


def parse_duration(text: str, setting: str) -> float:
    """Return the seconds of 90, 30s, 30m, 24h or 7d; infinity for -1. setting: named in the error."""
    if text.strip() == "-1":
        return math.inf
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(f"{text!r} is not a time", f"give `{setting}` as 90s, 30m or 24h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2].lower()]
