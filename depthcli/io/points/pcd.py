"""PCD files of points, version 0.7 (Point Cloud Library, "The PCD file format"): binary, colours packed in a float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from depthcli.geometry.rays import chunks
from depthcli.geometry.solids import PointCloud
from depthcli.io.points.layout import MOST_HEADER, cloud_of, parse_remarks, remarks

MAGIC = b"# .PCD"
_NORMALS = {"normal_x": "nx", "normal_y": "ny", "normal_z": "nz"}


def write_pcd(cloud: PointCloud, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write points, normals, and colours as `rgb`: 0, red, green and blue in a uint32 that is typed as a float."""
    fields = [*"xyz", *(_NORMALS if cloud.normals is not None else ()), *(["rgb"] if cloud.colors is not None else ())]
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        *(f"# {line}" for line in remarks(cloud.axes, cloud.unit, facts)),
        "VERSION 0.7",
        f"FIELDS {' '.join(fields)}",
        "SIZE" + " 4" * len(fields),
        "TYPE" + " F" * len(fields),
        "COUNT" + " 1" * len(fields),
        f"WIDTH {len(cloud.points)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(cloud.points)}",
        "DATA binary",
        "",
    ]
    target.write("\n".join(lines).encode("ascii"))
    for part in chunks(len(cloud.points)):
        target.write(_rows(cloud, part, len(fields)).reshape(-1).view(np.uint8).data)


def _rows(cloud: PointCloud, part: slice, width: int) -> np.ndarray:
    """Return (N, width) uint32: the bits of all fields, which as floats might lose those of a colour."""
    rows = np.empty((part.stop - part.start, width), "<u4")
    rows[:, :3] = cloud.points[part].astype("<f4").view("<u4")
    if cloud.normals is not None:
        rows[:, 3:6] = cloud.normals[part].astype("<f4").view("<u4")
    if cloud.colors is not None:
        red, green, blue = cloud.colors[part].astype(np.uint32).T
        rows[:, -1] = red << 16 | green << 8 | blue
    return rows


def read_pcd(data: bytes) -> PointCloud:
    """Return the points in a PCD file with binary numbers. Raises ValueError for any other."""
    words, comments, start = _header(data)
    if words.get("DATA") != ["binary"]:
        raise ValueError(f"its numbers are {' '.join(words.get('DATA', ['missing']))}, and only binary ones are read")
    names, counts = words["FIELDS"], [int(count) for count in words.get("COUNT", ["1"] * len(words["FIELDS"]))]
    kinds = [f"<{kind.lower()}{int(size)}" for kind, size in zip(words["TYPE"], words["SIZE"])]
    if not len(names) == len(kinds) == len(counts) == len(set(names)) or min(counts) < 1:
        raise ValueError("its fields, types and counts do not match")
    layout = np.dtype([(name, kind, (count,) if count > 1 else ()) for name, kind, count in zip(names, kinds, counts)])
    number = int(words["POINTS"][0])
    if number < 0 or start + number * layout.itemsize > len(data):
        raise ValueError(f"it claims {number} points and ends before them")
    rows = np.frombuffer(data, layout, number, start) if number else np.empty(0, layout)
    columns = {_NORMALS.get(name, name): rows[name] for name in names}
    if "rgb" in columns:
        packed = np.ascontiguousarray(columns.pop("rgb")).view("<u4")
        columns.update(
            (name, (packed >> shift).astype(np.uint8)) for name, shift in zip(("red", "green", "blue"), (16, 8, 0))
        )
    return cloud_of(columns, comments)


def read_pcd_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError."""
    return parse_remarks(_header(stream.read(MOST_HEADER))[1])[0]


def is_pcd_cut_short(data: bytes, size: int) -> bool:
    """Return whether a file of ours, of which the first bytes and the size are known, lacks its end."""
    try:
        words, _, start = _header(data)
        return start + sum(map(int, words["SIZE"])) * int(words["POINTS"][0]) > size
    except (ValueError, LookupError):
        return True


def _header(data: bytes) -> tuple[dict[str, list[str]], list[str], int]:
    """Return the words behind each keyword, the comments, and where the numbers begin."""
    found = re.match(rb"#.*?\nDATA [a-z_]+\r?\n", data[:MOST_HEADER], re.DOTALL)
    if found is None:
        raise ValueError("it is no PCD file, or its header is cut short")
    lines = found[0].decode("latin-1").splitlines()
    words = {line.split()[0]: line.split()[1:] for line in lines if line.strip() and not line.startswith("#")}
    return words, [line[1:].strip() for line in lines[1:] if line.startswith("#")], found.end()
