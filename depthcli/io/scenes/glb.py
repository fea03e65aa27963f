"""GLB files of a scene: points of all views, or a mesh per view, and the cameras, as people look at them.

The world is turned and moved for that (`show_transform`); the scene's extras have the transform, under the name that
Depth Anything 3 gives it too, and the cameras; of more than 300 views 300 of them, evenly. Each camera is a glTF camera
to look through, and lines around its view.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from depthcli.camera import Camera, camera_of
from depthcli.choices.scenes import SceneChoice
from depthcli.geometry.poses import inverted, square
from depthcli.geometry.scene_meshes import scene_meshes
from depthcli.geometry.scene_points import frusta, frustum_size, scene_cloud, show_transform, shown
from depthcli.geometry.solids import OPENGL, Mesh
from depthcli.io.codecs.quick_facts import TEXT_KEY
from depthcli.io.points import glb
from depthcli.io.scenes.cameras import scene_facts
from depthcli.scene import Scene

_TRANSFORM = "hf_alignment"
_MOST_CAMERAS = 300
_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class SceneShape:
    """What a GLB file of a scene holds.

    points: (N, 3) float64 in the world of the cameras, of the points or of all vertices. colors: (N, 3) uint8, empty
    for meshes. transform: (4, 4) float64, from the world to the file. names, cameras, sizes: of the pictures, with
    poses. lines: (V, 16, 3) float64 ends of the lines around each view, in the world.
    """

    points: np.ndarray
    colors: np.ndarray
    transform: np.ndarray
    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    sizes: tuple[tuple[int, int], ...]
    lines: np.ndarray


def write_scene_glb(scene: Scene, target: IO[bytes], choice: SceneChoice = SceneChoice(), meshes: bool = False) -> None:
    """Write points, or meshes with pictures. Raises OutputError if nothing is left."""
    file = glb.Parts()
    document: dict[str, Any] = {"asset": {"version": "2.0", "generator": "depthcli"}, "scene": 0}
    if meshes:
        surfaces = scene_meshes(scene, choice)
        places = np.concatenate([surface.vertices for surface in surfaces]).astype(np.float64)
        transform = show_transform(scene, places)
        document.update(_surfaces(surfaces, transform, file))
    else:
        cloud = scene_cloud(scene, choice)
        places = np.asarray(cloud.points, np.float64)
        transform = show_transform(scene, places)
        points = glb.vertices(shown(transform, places).astype(np.float32), cloud.colors, file, glb.POINTS)
        document.update(meshes=[{"primitives": [points], "name": "points"}], materials=[glb.material()])
    nodes = [{"mesh": number, "name": mesh["name"]} for number, mesh in enumerate(document["meshes"])]
    told = _with_cameras(scene)
    if choice.cameras:
        _add_cameras(document, nodes, told, transform, frustum_size(shown(transform, places)), file)
    facts = {**scene_facts(told), **({} if told is scene else {"views": len(scene.views)})}
    extras = {TEXT_KEY: facts, _TRANSFORM: transform.tolist(), "axes": OPENGL, "unit": scene.unit}
    document["scenes"] = [{"nodes": list(range(len(nodes))), "extras": extras}]
    document["nodes"] = nodes
    glb.write_document(document, file, target)


def _with_cameras(scene: Scene) -> Scene:
    """Return the scene, or of very many views some, evenly: no viewer shows thousands of cameras."""
    count = len(scene.views)
    if count <= _MOST_CAMERAS:
        return scene
    chosen = np.linspace(0, count - 1, _MOST_CAMERAS).round().astype(int)
    return Scene(tuple(scene.views[number] for number in chosen.tolist()), scene.facts)


def _surfaces(surfaces: list[Mesh], transform: np.ndarray, file: glb.Parts) -> dict[str, Any]:
    found: dict[str, Any] = {"meshes": [], "materials": [], "textures": [], "images": [], "samplers": [glb.SAMPLER]}
    for number, mesh in enumerate(surfaces):
        places = shown(transform, mesh.vertices).astype(np.float32)
        moved = Mesh(places, mesh.uv, mesh.faces, mesh.texture, axes=OPENGL, unit=mesh.unit)
        found["meshes"].append({"primitives": [glb.triangles(moved, file, number)], "name": f"view {number}"})
        found["materials"].append(glb.material(baseColorTexture={"index": number}))
        found["textures"].append({"source": number, "sampler": 0})
        found["images"].append({"bufferView": file.view(mesh.texture), "mimeType": "image/jpeg"})
    return found


def _add_cameras(
    document: dict[str, Any],
    nodes: list[dict[str, Any]],
    scene: Scene,
    transform: np.ndarray,
    size: float,
    file: glb.Parts,
) -> None:
    plain = len(document["materials"])
    document["materials"].append(glb.material())
    document["cameras"] = []
    for number, (view, lines) in enumerate(zip(scene.views, frusta(scene, size))):
        rgb = np.array(colorsys.hsv_to_rgb((number + 0.5) / len(scene.views), 0.85, 0.95))
        ends = shown(transform, lines.reshape(-1, 3)).astype(np.float32)
        colors = np.repeat((rgb * 255).astype(np.uint8)[None], len(ends), axis=0)
        primitive = {**glb.vertices(ends, colors, file, glb.LINES), "material": plain}
        nodes.append({"mesh": len(document["meshes"]), "name": f"camera {number} lines"})
        document["meshes"].append({"primitives": [primitive], "name": f"camera {number}"})
        # glTF's cameras look along -z, with y up.
        place = transform @ square(inverted(view.extrinsics[None]))[0] @ _TO_OPENGL
        nodes.append({"camera": number, "name": view.name, "matrix": place.T.ravel().tolist()})
        document["cameras"].append(glb.perspective(view.camera, view.depth.size))


def read_scene_glb(data: bytes) -> SceneShape:
    """Return what a GLB file of a scene holds. Raises ValueError, LookupError and TypeError for any other file."""
    document, binary = glb.read_document(data)
    extras = document["scenes"][0]["extras"]
    transform = np.array(extras[_TRANSFORM], np.float64)
    back = np.linalg.inv(transform)
    points, colors, lines = [], [], []
    for mesh in document["meshes"]:
        (primitive,) = mesh["primitives"]
        attributes = primitive["attributes"]
        places = shown(back, glb.numbers(document, binary, attributes["POSITION"]))
        if primitive["mode"] == glb.LINES:
            lines.append(places)
            continue
        points.append(places)
        if "COLOR_0" in attributes:
            colors.append(glb.srgb_of_linear(glb.numbers(document, binary, attributes["COLOR_0"])[:, :3]))
    about = extras[TEXT_KEY]["cameras"]
    return SceneShape(
        points=np.concatenate(points),
        colors=np.concatenate(colors) if colors else np.empty((0, 3), np.uint8),
        transform=transform,
        names=tuple(facts["name"] for facts in about),
        cameras=tuple(camera_of(facts) for facts in about),
        sizes=tuple((int(facts["size"][0]), int(facts["size"][1])) for facts in about),
        lines=np.stack(lines) if lines else np.empty((0, 16, 3)),
    )
