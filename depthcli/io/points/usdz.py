"""USDZ files of a mesh (openusd.org, "Usdz File Format Specification"): text, the picture and a camera in one archive.

The scene is a .usda text, which needs no library and which viewers of augmented reality take too. Axes are OpenGL's, y
up, and the unit is the metre, so a shape without a unit is as large as its numbers in metres.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import IO, Any

import numpy as np

from depthcli.camera import Camera
from depthcli.geometry.solids import Mesh
from depthcli.io.codecs.quick_facts import TEXT_KEY, parse_facts

END = b"PK\x05\x06" + bytes(4)  # begins the last record of an archive, which has no comment
END_BYTES = 22
_SCENE, _PICTURE = "depth.usda", "picture.jpg"  # the scene has to be the first
_ALIGNED = 64  # bytes: data begins at a multiple, so that it can be mapped
_PADDING_FIELD = 0x1986  # of a ZIP header; readers skip fields that they do not know
_FOCAL = 50.0  # millimetres; only its ratio to the aperture counts
_BLOCK = 1 << 14  # rows that are formatted at a time


def write_usdz(mesh: Mesh, target: IO[bytes], facts: Mapping[str, Any]) -> None:
    """Write a mesh, in OpenGL's axes, with its picture and, if it is known, its camera."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((_SCENE, _scene(mesh, facts)), (_PICTURE, mesh.texture)):
            entry = zipfile.ZipInfo(name)  # of 1980, so that the bytes do not change from day to day
            begin = target.tell() + 30 + len(name) + 4
            padding = -begin % _ALIGNED
            entry.extra = _PADDING_FIELD.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)
            archive.writestr(entry, content)


def read_usdz_facts(stream: IO[bytes]) -> dict[str, Any]:
    """Return the facts in a file, empty if they are not ours. Raises ValueError, LookupError, zipfile.BadZipFile."""
    with zipfile.ZipFile(stream) as archive, archive.open(_SCENE) as scene:
        for line in scene:
            key, _, text = line.decode("ascii").strip().partition(" = ")
            if key == f"string {TEXT_KEY}":
                return parse_facts(json.loads(text))
            if key.startswith("def "):
                break
    return {}


def _scene(mesh: Mesh, facts: Mapping[str, Any]) -> bytes:
    text = BytesIO()

    def line(words: str) -> None:
        text.write(f"{words}\n".encode("ascii"))

    line("#usda 1.0\n(")
    if facts:
        line(f"    customLayerData = {{\n        string {TEXT_KEY} = {json.dumps(json.dumps(facts))}\n    }}")
    line('    defaultPrim = "depth"\n    metersPerUnit = 1\n    upAxis = "Y"\n)\n\ndef Xform "depth"\n{')
    line('    def Mesh "mesh" (\n        prepend apiSchemas = ["MaterialBindingAPI"]\n    )\n    {')
    line('        uniform bool doubleSided = 1\n        uniform token subdivisionScheme = "none"')
    line("        rel material:binding = </depth/material>")
    places = mesh.vertices if len(mesh.vertices) else np.zeros((1, 3), np.float32)
    corners = np.stack([places.min(axis=0), places.max(axis=0)])
    uv = np.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1].astype(np.float64)], axis=1)
    for name, form, rows, more in (
        ("float3[] extent", "(%.9g, %.9g, %.9g)", corners, ""),
        ("int[] faceVertexCounts", "%d", np.full((len(mesh.faces), 1), 3), ""),
        ("int[] faceVertexIndices", "%d, %d, %d", mesh.faces, ""),
        ("point3f[] points", "(%.9g, %.9g, %.9g)", mesh.vertices, ""),
        ("texCoord2f[] primvars:st", "(%.9g, %.9g)", uv, ' (\n            interpolation = "vertex"\n        )'),
    ):
        text.write(f"        {name} = [".encode("ascii"))
        _write_rows(text, form, rows)
        line(f"]{more}")
    line(f"    }}\n{_MATERIAL}")
    if mesh.camera is not None and mesh.size is not None:
        line(_camera(mesh.camera, mesh.size))
    line("}")
    return text.getvalue()


def _write_rows(text: IO[bytes], form: str, rows: np.ndarray) -> None:
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        joined = ", ".join([form] * len(block)) % tuple(block.ravel().tolist())
        text.write((", " if start else "").encode("ascii") + joined.encode("ascii"))


# The photo shines by itself: lights of a scene would shade it a second time.
_MATERIAL = f"""    def Material "material"
    {{
        token outputs:surface.connect = </depth/material/surface.outputs:surface>

        def Shader "surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor = (0, 0, 0)
            color3f inputs:emissiveColor.connect = </depth/material/texture.outputs:rgb>
            float inputs:roughness = 1
            token outputs:surface
        }}

        def Shader "texture"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{_PICTURE}@
            token inputs:sourceColorSpace = "sRGB"
            float2 inputs:st.connect = </depth/material/places.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
            float3 outputs:rgb
        }}

        def Shader "places"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}
    }}
"""


def _camera(camera: Camera, size: tuple[int, int]) -> str:
    """Return the camera of the picture, which unlike glTF's can look past its middle. A lens stands in the facts."""
    (fx, fy), (cx, cy), (width, height) = camera.focal, camera.center, size
    return f"""    def Camera "camera"
    {{
        float2 clippingRange = (0.01, 1000000)
        float focalLength = {_FOCAL:.9g}
        float horizontalAperture = {_FOCAL * width / fx:.9g}
        float horizontalApertureOffset = {_FOCAL * ((width - 1) / 2 - cx) / fx:.9g}
        token projection = "perspective"
        float verticalAperture = {_FOCAL * height / fy:.9g}
        float verticalApertureOffset = {_FOCAL * (cy - (height - 1) / 2) / fy:.9g}
    }}"""
