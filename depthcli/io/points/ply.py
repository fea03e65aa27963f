"""PLY files of points (Greg Turk, "The PLY Polygon File Format"): binary ones written, any read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Optional

import numpy as np

from depthcli.geometry.rays import chunks
from depthcli.geometry.solids import PointCloud
from depthcli.io.points.layout import MOST_HEADER, cloud_of, parse_remarks, remarks

MAGIC = b"ply"
_END = b"end_header"
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}


@dataclass(frozen=True)
class _Element:
    """One kind of row. properties: (name, type) each; a type is empty for a list. lists: (type of count, of items)."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]
    lists: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Header:
    """What stands before the numbers. order: of bytes, empty for text. comments: without their keyword."""

    order: str
    elements: tuple[_Element, ...]
    comments: tuple[str, ...]
    length: int

    def rows_before_points(self) -> tuple[_Element, list[_Element]]:
        """Return the element of the points and those before it. Raises ValueError without one."""
        for place, element in enumerate(self.elements):
            if element.name == "vertex":
                return element, list(self.elements[:place])
        raise ValueError("it has no points")


def write_ply(cloud: PointCloud, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write points, their normals and sRGB colours, little endian; comments name axes, unit and camera."""
    layers: list[tuple[Sequence[str], str, np.ndarray]] = [("xyz", "float", cloud.points)]
    if cloud.normals is not None:
        layers.append((("nx", "ny", "nz"), "float", cloud.normals))
    if cloud.colors is not None:
        layers.append((("red", "green", "blue"), "uchar", cloud.colors))
    fields = [(name, kind) for names, kind, _ in layers for name in names]
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {line}" for line in remarks(cloud.axes, cloud.unit, facts)]
    lines += [
        f"element vertex {len(cloud.points)}",
        *(f"property {kind} {name}" for name, kind in fields),
        "end_header",
        "",
    ]
    target.write("\n".join(lines).encode("ascii"))
    for part in chunks(len(cloud.points)):
        rows = np.empty(part.stop - part.start, [(name, "<" + _TYPES[kind]) for name, kind in fields])
        for names, _, layer in layers:
            for name, column in zip(names, layer[part].T):
                rows[name] = column
        target.write(rows.view(np.uint8).data)


def read_ply(data: bytes) -> PointCloud:
    """Return the points in a PLY file, text or binary, with whatever other properties. Raises ValueError."""
    header = _header(data)
    points, before = header.rows_before_points()
    if any(not kind for element in (*before, points) for _, kind in element.properties):
        raise ValueError("it has lists among or before its points")
    read = _text_columns if not header.order else _binary_columns
    return cloud_of(read(data, header, points, before), header.comments)


def read_ply_triangles(data: bytes) -> Optional[tuple[np.ndarray, np.ndarray]]:
    """Return the (N, 3) float64 vertices and (M, 3) triangles of a binary PLY file; None if it has no faces.

    Faces of more corners become fans. Raises ValueError for a broken file, and for faces in text or before the points.
    """
    header = _header(data)
    names = [element.name for element in header.elements]
    if "face" not in names or not header.elements[names.index("face")].count:
        return None
    points, before = header.rows_before_points()
    between = header.elements[names.index("vertex") + 1 : names.index("face")]
    if not header.order or any(not kind for element in (*before, points, *between) for _, kind in element.properties):
        raise ValueError("its faces are text, or stand behind lists; a binary PLY with points and faces is read")
    columns = _binary_columns(data, header, points, before)
    vertices = np.stack([np.asarray(columns[name], np.float64) for name in "xyz"], axis=1)
    start = header.length + sum(_width(element) * element.count for element in (*before, points, *between))
    return vertices, _faces(data, start, header, header.elements[names.index("face")], len(vertices))


def _faces(data: bytes, start: int, header: _Header, faces: _Element, vertices: int) -> np.ndarray:
    """Return (M, 3) triangles. Faces are quick to read if all have three corners and no other list."""
    lists = [place for place, (_, kind) in enumerate(faces.properties) if not kind]
    if len(lists) != 1 or faces.properties[lists[0]][0] not in ("vertex_indices", "vertex_index"):
        raise ValueError("its faces have other lists than that of their corners")
    counts, corners = (header.order + kind for kind in faces.lists[0])
    fields: list[tuple[Any, ...]] = [(name, header.order + kind) for name, kind in faces.properties if kind]
    fields[lists[0] : lists[0]] = [("corners of a face", counts), ("a corner of it", corners, 3)]
    layout = np.dtype(fields)
    if start + layout.itemsize * faces.count <= len(data):
        rows = np.frombuffer(data, layout, faces.count, start)
        if (rows["corners of a face"] == 3).all():
            return _checked_faces(rows["a corner of it"].astype(np.int64), vertices)
    found: list[tuple[int, int, int]] = []
    place, count_type, corner_type = start, np.dtype(counts), np.dtype(corners)
    ahead = sum(np.dtype(kind).itemsize for _, kind in faces.properties[: lists[0]])
    behind = sum(np.dtype(kind).itemsize for _, kind in faces.properties[lists[0] + 1 :])
    for _ in range(faces.count):
        place += ahead
        (count,) = np.frombuffer(data, count_type, 1, place)
        one = np.frombuffer(data, corner_type, int(count), place + count_type.itemsize).astype(np.int64)
        found.extend((one[0], one[k], one[k + 1]) for k in range(1, len(one) - 1))
        place += count_type.itemsize + int(count) * corner_type.itemsize + behind
    return _checked_faces(np.array(found, np.int64).reshape(-1, 3), vertices)


def _checked_faces(faces: np.ndarray, vertices: int) -> np.ndarray:
    if faces.size and not 0 <= faces.min() <= faces.max() < vertices:
        raise ValueError("a face has a corner that is not there")
    return faces


def read_ply_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError."""
    return parse_remarks(_header(stream.read(MOST_HEADER)).comments)[0]


def is_ply_cut_short(data: bytes, size: int) -> bool:
    """Return whether a file of ours, of which the first bytes and the size are known, lacks its end."""
    try:
        header = _header(data)
    except ValueError:
        return True
    return header.length + sum(_width(element) * element.count for element in header.elements) > size


def _header(data: bytes) -> _Header:
    found = re.match(rb"ply\r?\n.*?\nend_header\r?\n", data[:MOST_HEADER], re.DOTALL)
    if found is None:
        raise ValueError("it is no PLY file, or its header is cut short")
    order, elements, comments = None, [], []
    for line in found[0].decode("latin-1").splitlines()[1:-1]:
        key, _, text = line.strip().partition(" ")
        words = text.split()
        if key == "format" and words[:1] and words[0] in _ORDERS:
            order = _ORDERS[words[0]]
        elif key in ("comment", "obj_info"):
            comments.append(text)
        elif key == "element" and len(words) == 2 and words[1].isdecimal():
            elements.append(_Element(words[0], int(words[1]), ()))
        elif key == "property" and elements and len(words) >= 2:
            if words[0] != "list" and words[0] not in _TYPES:
                raise ValueError(f"it has numbers of an unknown type, {words[0]}")
            last = elements[-1]
            kind, lists = _TYPES.get(words[0], ""), last.lists
            if not kind:
                if len(words) != 4 or not {words[1], words[2]} <= set(_TYPES):
                    raise ValueError(f"its header has a list that is none: {line.strip()[:60]}")
                lists = (*lists, (_TYPES[words[1]], _TYPES[words[2]]))
            elements[-1] = _Element(last.name, last.count, (*last.properties, (words[-1], kind)), lists)
        elif key:
            raise ValueError(f"its header has a line that is none: {line.strip()[:60]}")
    if order is None:
        raise ValueError("its header names no known format")
    return _Header(order, tuple(elements), tuple(comments), found.end())


def _width(element: _Element) -> int:
    return sum(np.dtype(kind).itemsize for _, kind in element.properties if kind)


def _binary_columns(
    data: bytes, header: _Header, points: _Element, before: Sequence[_Element]
) -> dict[str, np.ndarray]:
    names = [name for name, _ in points.properties]
    if len(set(names)) < len(names):
        raise ValueError("two of its properties have one name")
    start = header.length + sum(_width(element) * element.count for element in before)
    if start + _width(points) * points.count > len(data):
        raise ValueError(f"it claims {points.count} points and ends before them")
    layout = np.dtype([(name, header.order + kind) for name, kind in points.properties])
    rows = np.frombuffer(data, layout, points.count, start) if points.count else np.empty(0, layout)
    return {name: rows[name] for name in names}


def _text_columns(data: bytes, header: _Header, points: _Element, before: Sequence[_Element]) -> dict[str, np.ndarray]:
    skipped = sum(element.count for element in before)
    lines = [line for line in data[header.length :].splitlines() if line.strip()][skipped : skipped + points.count]
    if len(lines) < points.count:
        raise ValueError(f"it claims {points.count} points and has {len(lines)}")
    numbers = np.array(b" ".join(lines).split(), np.float64)
    if numbers.size != points.count * len(points.properties):
        raise ValueError("a line of its points has more or fewer numbers than properties")
    table = numbers.reshape(points.count, len(points.properties))
    return {name: column.astype(kind) for (name, kind), column in zip(points.properties, table.T)}
