"""GLB files: glTF 2.0 (Khronos) in one binary file. A mesh has its picture and a camera to look from; points colours.

Nothing is packed or quantised: readers that do not know an extension for that read wrong numbers without an error.
glTF's axes are OpenGL's, and its colours of vertices are linear; 8 bits of linear light would not keep dark grays.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import IO, Any, Optional, Union

import numpy as np

from depthcli.camera import Camera, camera_of
from depthcli.geometry.solids import OPENGL, Mesh, PointCloud, Shape
from depthcli.io.codecs.quick_facts import SCHEMA, TEXT_KEY

MAGIC = b"glTF"
_JSON, _BIN = 0x4E4F534A, 0x004E4942
_FLOAT, _UINT, _USHORT = 5126, 5125, 5123  # of components
_DTYPES = {_FLOAT: "<f4", _UINT: "<u4", _USHORT: "<u2"}
_ARRAY, _ELEMENTS = 34962, 34963  # targets of views
POINTS, LINES, TRIANGLES = 0, 1, 4
_LINEAR, _MIPMAPS, _CLAMP = 9729, 9987, 33071
SAMPLER = {"magFilter": _LINEAR, "minFilter": _MIPMAPS, "wrapS": _CLAMP, "wrapT": _CLAMP}
_NEAR = 0.01
_UNLIT = "KHR_materials_unlit"
_MOST_JSON = 1 << 24


def linear_of_srgb() -> np.ndarray:
    """Return the (256,) uint16 linear light, 65535 for white, of sRGB bytes. Formula: IEC 61966-2-1."""
    level = np.arange(256) / 255
    light = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return np.round(light * 65535).astype(np.uint16)


def srgb_of_linear(light: np.ndarray) -> np.ndarray:
    """Return the nearest sRGB bytes of uint16 linear light, of any shape."""
    table = linear_of_srgb().astype(np.int64)
    return np.searchsorted((table[1:] + table[:-1] + 1) // 2, light, side="right").astype(np.uint8)


def write_glb(shape: Shape, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write a mesh or points; the scene's `extras` hold the facts. Axes are to be OpenGL's."""
    file = Parts()
    nodes: list[dict[str, Any]] = [{"mesh": 0, "name": "depth"}]
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "depthcli"}, "scene": 0}
    if isinstance(shape, Mesh):
        document.update(_mesh(shape, file))
        if shape.camera is not None and shape.size is not None:
            nodes.append({"camera": 0, "name": "camera"})
            document["cameras"] = [perspective(shape.camera, shape.size)]
    else:
        document.update(_points(shape, file))
    extras = {**({TEXT_KEY: facts} if facts else {}), "axes": shape.axes or "unknown", "unit": shape.unit or "unknown"}
    document["scenes"] = [{"nodes": list(range(len(nodes))), "extras": extras}]
    document["nodes"] = nodes
    write_document(document, file, target)


def write_document(document: dict[str, Any], file: Parts, target: IO[bytes]) -> None:
    """Write a glTF document, which lacks only its accessors, views and buffer, and its binary part."""
    document["extensionsUsed"] = [_UNLIT]
    document["accessors"], document["bufferViews"] = file.accessors, file.views
    document["buffers"] = [{"byteLength": file.length}]
    text = json.dumps(document, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    whole = 12 + 8 + len(text) + 8 + file.length
    target.write(struct.pack("<4s2I2I", MAGIC, 2, whole, len(text), _JSON) + text)
    target.write(struct.pack("<2I", file.length, _BIN))
    for part in file.parts:
        target.write(part)


class Parts:
    """The binary part of a file as it grows; every view begins at a multiple of 4."""

    def __init__(self) -> None:
        self.parts: list[Union[bytes, memoryview]] = []
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []
        self.length = 0

    def view(self, content: Union[bytes, memoryview], target: int = 0) -> int:
        """Add bytes; return the number of their view."""
        size = len(content)
        self.views.append(
            {"buffer": 0, "byteOffset": self.length, "byteLength": size, **({"target": target} if target else {})}
        )
        padding = bytes(-size % 4)
        self.parts += [content, padding]
        self.length += size + len(padding)
        return len(self.views) - 1

    def accessor(
        self, rows: np.ndarray, component: int, target: int = _ARRAY, bounds: bool = False, **more: Any
    ) -> int:
        """Add the (N, K) or (N,) numbers of an attribute; return the number of their accessor."""
        rows = np.ascontiguousarray(rows, _DTYPES[component])
        kind = "SCALAR" if rows.ndim == 1 else f"VEC{rows.shape[1]}"
        view = self.view(rows.reshape(-1).view(np.uint8).data, target)
        about: dict[str, Any] = {
            "bufferView": view,
            "componentType": component,
            "count": len(rows),
            "type": kind,
            **more,
        }
        if bounds:
            about.update(min=[float(low) for low in rows.min(axis=0)], max=[float(high) for high in rows.max(axis=0)])
        self.accessors.append(about)
        return len(self.accessors) - 1


def _mesh(mesh: Mesh, file: Parts) -> dict[str, Any]:
    return {
        "meshes": [{"primitives": [triangles(mesh, file)], "name": "depth"}],
        "materials": [material(baseColorTexture={"index": 0})],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [SAMPLER],
        "images": [{"bufferView": file.view(mesh.texture), "mimeType": "image/jpeg", "name": "picture"}],
    }


def triangles(mesh: Mesh, file: Parts, number: int = 0) -> dict[str, Any]:
    """Add a mesh; return its primitive, with so many as its material."""
    attributes = {
        "POSITION": file.accessor(mesh.vertices, _FLOAT, bounds=True),
        "TEXCOORD_0": file.accessor(mesh.uv, _FLOAT),
    }
    faces = file.accessor(mesh.faces.ravel(), _UINT, _ELEMENTS)
    return {"attributes": attributes, "indices": faces, "material": number, "mode": TRIANGLES}


def _points(cloud: PointCloud, file: Parts) -> dict[str, Any]:
    primitive = vertices(cloud.points, cloud.colors, file, POINTS)
    return {"meshes": [{"primitives": [primitive], "name": "depth"}], "materials": [material()]}


def vertices(points: np.ndarray, colors: Optional[np.ndarray], file: Parts, mode: int) -> dict[str, Any]:
    """Add (N, 3) points and their (N, 3) uint8 sRGB colours; return their primitive: points, or ends of lines."""
    if not len(points):
        raise ValueError("GLB cannot hold no points")
    attributes = {"POSITION": file.accessor(points, _FLOAT, bounds=True)}
    if colors is not None:
        light = np.full((len(points), 4), 65535, np.uint16)  # with alpha, as the length must be a multiple of 4
        light[:, :3] = linear_of_srgb()[colors]
        attributes["COLOR_0"] = file.accessor(light, _USHORT, normalized=True)
    return {"attributes": attributes, "material": 0, "mode": mode}


def material(**base: Any) -> dict[str, Any]:
    """Return a material that shows colours as they are."""
    plain = {**base, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    return {"name": "picture", "pbrMetallicRoughness": plain, "doubleSided": True, "extensions": {_UNLIT: {}}}


def perspective(camera: Camera, size: tuple[int, int]) -> dict[str, Any]:
    """Return the glTF camera, in whose middle the axis is: what lies off it, and the lens, stand in the facts."""
    fx, fy = camera.intrinsics[0, 0], camera.intrinsics[1, 1]
    yfov, ratio = 2 * math.atan(size[1] / (2 * fy)), (size[0] / fx) / (size[1] / fy)
    return {
        "type": "perspective",
        "perspective": {"yfov": float(yfov), "aspectRatio": float(ratio), "znear": _NEAR},
        "extras": {"source": camera.source.value},
    }


def read_glb(data: bytes) -> Shape:
    """Return the mesh or the points in a GLB file of depthcli. Raises ValueError, or LookupError, for any other."""
    document, binary = read_document(data)
    extras = document["scenes"][0].get("extras", {})
    (primitive,) = document["meshes"][0]["primitives"]
    if document["asset"].get("generator") != "depthcli" or any("matrix" in node for node in document["nodes"]):
        raise ValueError("it was not written by depthcli")

    attributes = {name: numbers(document, binary, accessor) for name, accessor in primitive["attributes"].items()}
    unit = extras.get("unit") if extras.get("unit") != "unknown" else None
    facts = extras.get(TEXT_KEY, {})
    if primitive["mode"] == POINTS:
        colors = srgb_of_linear(attributes["COLOR_0"][:, :3]) if "COLOR_0" in attributes else None
        return PointCloud(attributes["POSITION"], colors, axes=OPENGL, unit=unit, facts=facts)
    said = facts.get("shape", {}).get("camera")
    return Mesh(
        vertices=attributes["POSITION"],
        uv=attributes["TEXCOORD_0"],
        faces=numbers(document, binary, primitive["indices"]).reshape(-1, 3),
        texture=bytes(_part(document, binary, document["images"][0]["bufferView"])),
        axes=OPENGL,
        unit=unit,
        camera=camera_of(said) if said else None,
        size=tuple(said["size"]) if said else None,
        facts=facts,
    )


def read_glb_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError, LookupError, struct.error."""
    magic, _, _, length, kind = struct.unpack("<4s2I2I", stream.read(20))
    if magic != MAGIC or kind != _JSON or length > _MOST_JSON:
        raise ValueError("it is no GLB file")
    facts = json.loads(stream.read(length))["scenes"][0]["extras"][TEXT_KEY]
    return facts if facts.get("schema") == SCHEMA else {}


def is_glb_cut_short(data: bytes, size: int) -> bool:
    """Return whether a file, of which the first bytes and the size are known, lacks its end."""
    return len(data) < 12 or int(struct.unpack_from("<I", data, 8)[0]) > size


def numbers(document: Mapping[str, Any], binary: memoryview, accessor: int) -> np.ndarray:
    """Return the (N, K) or (N,) numbers of an accessor. Raises ValueError and LookupError for a broken file."""
    about = document["accessors"][accessor]
    width = 1 if about["type"] == "SCALAR" else int(about["type"][-1])
    part = _part(document, binary, about["bufferView"])
    rows = np.frombuffer(part, _DTYPES[about["componentType"]])
    if rows.size != about["count"] * width:
        raise ValueError("a view is not as long as its numbers")
    return rows if width == 1 else rows.reshape(-1, width)


def read_document(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the document of a GLB file and its binary part. Raises ValueError for a broken file."""
    if len(data) < 28 or data[:4] != MAGIC:
        raise ValueError("it is no GLB file")
    version, whole, length, kind = struct.unpack_from("<4I", data, 4)
    if version != 2 or kind != _JSON:
        raise ValueError(f"it is of version {version} of glTF, and 2 is read")
    if whole > len(data) or 28 + length > len(data):
        raise ValueError(f"it should have {whole} bytes and has {len(data)}")
    document = json.loads(data[20 : 20 + length])
    size, kind = struct.unpack_from("<2I", data, 20 + length)
    if kind != _BIN or 28 + length + size > len(data):
        raise ValueError("its binary part is missing or cut short")
    return document, memoryview(data)[28 + length : 28 + length + size]


def _part(document: Mapping[str, Any], binary: memoryview, view: int) -> memoryview:
    about = document["bufferViews"][view]
    start = about["byteOffset"]
    if start < 0 or start + about["byteLength"] > len(binary):
        raise ValueError("a view ends behind the file")
    return binary[start : start + about["byteLength"]]
