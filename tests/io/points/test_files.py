"""Files of points and meshes: what each holds, bit by bit, for us and for other programs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import depthcli
from depthcli.camera import Camera, CameraSource, Distortion, LensModel
from depthcli.choices.shapes import ShapeChoice
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import OutputError, UsageError
from depthcli.geometry.solids import Mesh, PointCloud
from depthcli.io.codecs.files import is_cut_short, read_facts, write_depth
from depthcli.io.codecs.formats import may_be_ours
from depthcli.io.codecs.outputs import check_extras
from depthcli.io.points import glb, obj, pcd, ply
from depthcli.jobs.info import examine
from tests.geometry.scenes import camera, metric, small

ALL = ShapeChoice(edges=None, points=None)
JPEG = b"\xff\xd8\xff\xd9"  # begins and ends, and has no picture: bytes that no library changes


NO_LAZ = pytest.mark.skipif(not find_spec("lazrs"), reason="laspy has no wheel for this Python")
LAZ = pytest.param("x.laz", marks=NO_LAZ)


def cloud(axes: str = "opengl") -> PointCloud:
    return depthcli.points(*small(), ShapeChoice(axes=axes, edges=None))


def mesh(axes: str = "opengl") -> Mesh:
    return depthcli.mesh(*small(), ShapeChoice(axes=axes, edges=None))


def shape_for(name: str) -> PointCloud | Mesh:
    if name in ("x.glb", "x.obj"):
        return mesh()
    return cloud({"x.pcd": "opencv", "x.laz": "zup"}.get(name, "opengl"))


FILES = ("x.ply", "x.pcd", LAZ, "points.glb", "x.glb", "x.obj")


def written(name: str) -> Path:
    depthcli.write_shape(shape_for(name), name)
    return Path(name)


# Numbers that are exact in float32 everywhere, so that no processor rounds them otherwise.
EXACT = PointCloud(
    np.arange(12).reshape(4, 3) / 8,
    np.arange(12).reshape(4, 3) * 20,
    np.eye(4, 3),
    "opengl",
    "m",
)
SQUARE = Mesh(
    np.array([[0, 0, -2], [1, 0, -2], [0, -1, -2], [1, -1, -2]]),
    np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]),
    np.array([[0, 2, 3], [0, 3, 1]]),
    JPEG,
    "opengl",
    "m",
    camera(2.0, (2, 2)),
    (2, 2),
)
FACTS = {"schema": "depthcli/1", "source": "fjörd.jpg", "shape": {"camera": {"source": "given"}}}


@pytest.mark.parametrize(
    ("write", "digest"),
    [
        (lambda stream: ply.write_ply(EXACT, stream, FACTS), "3a4f3d09de3f0257"),
        (lambda stream: pcd.write_pcd(EXACT, stream, FACTS), "1643148e2025bf1d"),
        (lambda stream: glb.write_glb(EXACT, stream, FACTS), "66f4213142f579be"),
        (lambda stream: glb.write_glb(SQUARE, stream, FACTS), "e62557d938dc65e7"),
        (lambda stream: obj.write_obj(SQUARE, stream, FACTS, "x.mtl"), "d4153a61794b9335"),
    ],
    ids=["ply", "pcd", "glb of points", "glb", "obj"],
)
def test_the_bytes_of_a_file_stay_what_they_are(write, digest):
    stream = io.BytesIO()
    write(stream)
    assert hashlib.sha256(stream.getvalue()).hexdigest()[:16] == digest


@pytest.mark.parametrize("name", FILES)
def test_a_shape_comes_back(name):
    before, after = shape_for(name), depthcli.read_shape(written(name))
    assert (after.axes, after.unit, type(after)) == (before.axes, "m", type(before))
    assert {**after.facts, "schema": None, "depthcli": None} == {**before.facts, "schema": None, "depthcli": None}
    if isinstance(before, PointCloud):
        assert np.array_equal(after.points, before.points) and np.array_equal(after.colors, before.colors)
        assert name in ("points.glb", "x.laz") or np.array_equal(after.normals, before.normals)
    else:
        assert np.array_equal(after.vertices, before.vertices) and np.array_equal(after.faces, before.faces)
        assert np.abs(after.uv - before.uv).max() < 1e-7
        decoded = [np.asarray(Image.open(io.BytesIO(one.texture))) for one in (before, after)]
        assert np.array_equal(*decoded)


def test_a_mesh_comes_back_with_its_camera_and_lens():
    lens = Distortion(LensModel.FISHEYE, (0.1, 0, 0, 0.01))
    seen_by = camera(10.0, (7, 5), lens)
    depth, rgb = small()
    depthcli.write_shape(depthcli.mesh(replace(depth, camera=seen_by), rgb, ALL), "lens.glb")
    back = depthcli.read_shape("lens.glb")
    assert back.size == (7, 5) and back.camera.source is seen_by.source and back.camera.distortion == lens
    assert np.array_equal(back.camera.intrinsics, seen_by.intrinsics)


@pytest.mark.parametrize("name", FILES)
def test_the_near_pixel_is_red_and_at_its_place(name):
    shape = depthcli.read_shape(written(name))
    place = shape.points if isinstance(shape, PointCloud) else shape.vertices
    forward, wanted = {"x.pcd": (2, (0, -0.19, 1.9)), "x.laz": (1, (0, 1.9, 0.19))}.get(name, (2, (0, 0.19, -1.9)))
    nearest = int(np.argmin(abs(place[:, forward])))
    assert np.allclose(place[nearest], wanted, atol=1e-6)
    if isinstance(shape, PointCloud):
        assert tuple(shape.colors[nearest]) == (255, 0, 0)
        assert tuple(shape.colors[0]) == (0, 0, 0) and tuple(shape.colors[34]) == (0, 120, 120)
    else:
        assert np.allclose(shape.uv[nearest] * (7, 5), (3.5, 1.5))


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is(name):
    path = written(name)
    facts = read_facts(path)
    assert facts["schema"] == "depthcli/1" and facts["source"] == "photo.jpg" and facts["kind"] == "metric_depth"
    camera_facts = facts["shape"]["camera"]
    assert facts["shape"]["unit"] == "m" and camera_facts["source"] == "given"
    assert (camera_facts["fx"], camera_facts["cx"], camera_facts["size"]) == (10, 3, [7, 5])
    with pytest.raises(OutputError, match="no depth map"):
        depthcli.read_depth(path)


def test_text_headers_name_axes_unit_and_camera_for_people():
    head = written("x.ply").read_bytes()[:200].decode()
    assert head.startswith(
        "ply\nformat binary_little_endian 1.0\ncomment axes opengl\ncomment unit m\ncomment camera given\n"
    )
    head = written("x.pcd").read_bytes()[:200].decode()
    assert "# axes opencv\n# unit m\n# camera given\n" in head


def test_an_assumed_camera_never_makes_metres():
    z = np.full((5, 7), 2.0, np.float32)
    for name in ("x.ply", "x.pcd", "points.glb", "x.glb", "x.obj"):
        make = depthcli.points if name in ("x.ply", "x.pcd", "points.glb") else depthcli.mesh
        depthcli.write_shape(make(metric(z, None), np.zeros((5, 7, 3), np.uint8), ALL), name)
        shape = depthcli.read_shape(name)
        assert shape.unit == "arbitrary" and shape.facts["shape"]["camera"]["source"] == "assumed"
        assert b"unit m" not in Path(name).read_bytes()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 3, 11, 100, -1])
def test_a_file_that_is_cut_short_is_one_error(name, kept):
    path = written(name)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OutputError) as found:
        depthcli.read_shape(path)
    assert name in str(found.value) and "\n" not in str(found.value)
    if kept == -1 and name != "x.laz":  # the end of its last table is known only when it is unpacked
        assert is_cut_short(path)


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_not_cut_short(name):
    assert not is_cut_short(written(name)) and may_be_ours(Path(name))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(8))
def test_broken_bytes_are_one_error_or_another_shape(name, seed):
    path = written(name)
    data = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, min(len(data), 1500), 12):
        data[place] = random.integers(256)
    path.write_bytes(bytes(data))
    try:
        depthcli.read_shape(path)
    except OutputError as error:
        assert "\n" not in str(error)
    read_facts(path)


def test_a_format_refuses_a_shape_that_it_cannot_hold():
    for shape, name in ((cloud(), "x.obj"), (mesh(), "x.ply"), (mesh(), "x.pcd"), (cloud(), "x.stl"), (cloud(), "x")):
        with pytest.raises(UsageError):
            depthcli.write_shape(shape, name)
        assert not os.path.exists(name)
    for name in ("x.stl", "none.ply"):
        with pytest.raises(OutputError):
            depthcli.read_shape(name)


def test_nothing_is_left_of_an_obj_that_is_too_large(monkeypatch):
    monkeypatch.setattr(obj, "MOST_VERTICES", 30)
    with pytest.raises(OutputError, match="mesh_size"):
        depthcli.write_shape(mesh(), "x.obj")
    assert os.listdir() == []


def test_an_obj_has_its_material_and_picture_beside_it():
    path = written("x.obj")
    assert sorted(os.listdir()) == ["x.mtl", "x.obj", "x_texture.jpg"]
    assert "mtllib x.mtl\n" in path.read_text() and "map_Kd x_texture.jpg\n" in Path("x.mtl").read_text()
    with Image.open("x_texture.jpg") as picture:
        assert picture.size == (7, 5)
    assert read_facts(Path("x_texture.jpg"))["source"] == "photo.jpg"


def test_a_map_is_written_as_a_shape_in_the_colours_of_depth():
    depth, _ = small()
    for name in ("a.ply", "a.glb", "a.obj", "a.pcd"):
        write_depth(depth, name)
        assert depthcli.read_shape(name).unit == "m"
    write_depth(depth, "a.png", "normal")
    with pytest.raises(OutputError, match="directions"):
        depthcli.read_depth("a.png")


def test_normals_are_colours_in_opengl_axes():
    write_depth(metric(np.full((9, 12), 2.0), camera(10.0, (12, 9))), "wall.png", "normal")
    assert (np.asarray(Image.open("wall.png")) == (128, 128, 255)).all()
    y = (np.arange(40)[:, None] - 19.5) / 40.0 + np.zeros((40, 12))
    floor = np.where(y > 0.1, 1.5 / np.maximum(y, 0.1), 0)
    write_depth(metric(floor, camera(40.0, (12, 40)), y > 0.1), "floor.png", "normal")
    pixels = np.asarray(Image.open("floor.png"))
    assert (pixels[30] == (128, 255, 128, 255)).all() and (pixels[5] == 0).all()


# --- PLY of other programs --------------------------------------------------------------------------------------------

ASCII = """ply
format ascii 1.0
comment by hand
obj_info made for a test
element camera 1
property float focal
element vertex 2
property double x
property float quality
property float y
property float z
property uchar red
property uchar green
property uchar blue
property uchar alpha
element face 1
property list uchar int vertex_indices
end_header
525
1 0.5 2 3 255 0 7 255
-1 0.25 -2 -3.5 1 2 3 0
3 0 1 0
"""


def test_a_foreign_ascii_file_with_other_properties_is_read():
    for text in (ASCII, ASCII.replace("\n", "\r\n")):
        Path("x.ply").write_bytes(text.encode())
        shape = depthcli.read_shape("x.ply")
        assert shape.points.tolist() == [[1, 2, 3], [-1, -2, -3.5]]
        assert shape.colors.tolist() == [[255, 0, 7], [1, 2, 3]]
        assert (shape.axes, shape.unit, dict(shape.facts)) == (None, None, {})
        assert shape.comments == ("by hand", "made for a test")


@pytest.mark.parametrize(("order", "name"), [("<", "little"), (">", "big")])
def test_a_foreign_binary_file_is_read_in_its_order_of_bytes(order, name):
    head = (
        f"ply\nformat binary_{name}_endian 1.0\nelement vertex 2\nproperty short intensity\nproperty float x\nproperty "
        "float y\nproperty double z\nproperty ushort red\nproperty ushort green\nproperty ushort blue\nend_header\n"
    )
    rows = b"".join(struct.pack(order + "h2fd3H", 5, x, 2, 3, 65535, 0, 257) for x in (1.5, -1.5))
    Path("x.ply").write_bytes(head.encode() + rows)
    shape = depthcli.read_shape("x.ply")
    assert shape.points.tolist() == [[1.5, 2, 3], [-1.5, 2, 3]] and shape.colors.tolist() == [[255, 0, 1]] * 2


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("element vertex 2", "element vertex 9000000000", "claims 9000000000 points"),
        ("property float z", "property float w", "no z"),
        ("property float z", "property list uchar int z", "lists"),
        ("property float z", "property half z", "unknown type"),
        ("format ascii 1.0\n", "", "no known format"),
        ("-3.5 1 2 3 0", "-3.5 1 2 3", "more or fewer"),
        ("element vertex", "element corner", "no points"),
        ("1 0.5 2", "one 0.5 2", "float"),
    ],
)
def test_a_broken_ply_is_one_error_with_its_reason(old, new, reason):
    Path("x.ply").write_text(ASCII.replace(old, new))
    with pytest.raises(OutputError, match=reason):
        depthcli.read_shape("x.ply")


def test_a_ply_has_the_nine_properties_that_splatting_wants():
    head = written("x.ply").read_bytes().split(b"end_header")[0].decode()
    named = [line.split()[1:] for line in head.splitlines() if line.startswith("property")]
    assert named == [
        *(["float", name] for name in "x y z nx ny nz".split()),
        *(["uchar", c] for c in ("red", "green", "blue")),
    ]


# --- GLB --------------------------------------------------------------------------------------------------------------


def document(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack_from("<I", data, 12)[0]])


def test_a_glb_has_a_camera_that_sees_what_the_photo_shows():
    found = document(written("x.glb"))
    assert found["cameras"][0]["perspective"] == {
        "yfov": pytest.approx(2 * np.arctan(2.5 / 10)),
        "aspectRatio": 1.4,
        "znear": 0.01,
    }
    assert found["scenes"][0]["extras"]["unit"] == "m" and found["extensionsUsed"] == ["KHR_materials_unlit"]
    assert [set(node) for node in found["nodes"]] == [{"mesh", "name"}, {"camera", "name"}]
    assert all(view["byteOffset"] % 4 == 0 for view in found["bufferViews"])
    assert "COLOR_0" not in found["meshes"][0]["primitives"][0]["attributes"]


def test_grays_survive_linear_light_within_a_level():
    light = glb.linear_of_srgb()
    assert light[0] == 0 and light[255] == 65535 and (np.diff(light.astype(int)) > 0).all()
    level = light[128] / 65535  # by the formula the other way round
    assert abs((1.055 * level ** (1 / 2.4) - 0.055) * 255 - 128) < 0.01
    assert np.array_equal(glb.srgb_of_linear(light), np.arange(256))
    nudged = np.clip(np.stack([light.astype(int) - 8, light.astype(int) + 8]), 0, 65535)
    assert abs(glb.srgb_of_linear(nudged).astype(int) - np.arange(256)).max() <= 1


# --- Strangers --------------------------------------------------------------------------------------------------------


def test_trimesh_reads_the_same_points_and_mesh():
    trimesh = pytest.importorskip("trimesh")
    points, ours = trimesh.load(written("x.ply")), cloud()
    assert np.array_equal(points.vertices, ours.points) and np.array_equal(points.colors[:, :3], ours.colors)
    for name in ("x.glb", "x.obj"):
        (found,) = trimesh.load_scene(written(name), process=False).geometry.values()
        ours = mesh()
        order = np.lexsort(np.round(found.vertices, 6).T), np.lexsort(np.round(ours.vertices, 6).T)
        assert np.array_equal(found.vertices[order[0]].astype(np.float32), ours.vertices[order[1]])
        uv = np.stack([found.visual.uv[:, 0], 1 - found.visual.uv[:, 1]], axis=1)  # from below, as trimesh has it
        assert np.abs(uv[order[0]] - ours.uv[order[1]]).max() < 1e-6
        normals = np.cross(*(found.vertices[found.faces[:, k]] - found.vertices[found.faces[:, 0]] for k in (1, 2)))
        assert len(found.faces) == 48 and (normals[:, 2] > 0).all()  # toward the viewer
        image = found.visual.material
        picture = image.baseColorTexture if name == "x.glb" else image.image
        assert picture.size == (7, 5)
    (found,) = trimesh.load_scene(written("points.glb")).geometry.values()
    assert np.array_equal(found.vertices, cloud().points)


def test_meshio_reads_the_same_points_and_triangles():
    meshio = pytest.importorskip("meshio")
    found, ours = meshio.read(written("x.ply")), cloud()
    assert np.array_equal(found.points, ours.points)
    for names, wanted in ((("red", "green", "blue"), ours.colors), (("nx", "ny", "nz"), ours.normals)):
        read = np.stack([found.point_data[name] for name in names], axis=1)
        assert np.array_equal(read.view(wanted.dtype), wanted)  # it takes uchar for a signed byte
    found, ours = meshio.read(written("x.obj")), mesh()
    assert np.abs(found.points - ours.vertices).max() < 1e-6
    (triangles,) = found.cells
    assert np.array_equal(triangles.data, ours.faces)


def test_pygltflib_reads_the_same_bounds():
    pygltflib = pytest.importorskip("pygltflib")
    scene, ours = pygltflib.GLTF2().load(str(written("points.glb"))), cloud()
    assert scene.accessors[0].min == ours.points.min(axis=0).tolist() and scene.accessors[1].normalized
    scene, ours = pygltflib.GLTF2().load(str(written("x.glb"))), mesh()
    assert len(scene.cameras) == len(scene.images) == 1
    assert [accessor.count for accessor in scene.accessors] == [len(ours.vertices), len(ours.uv), ours.faces.size]


def test_pypcd4_reads_the_same_points():
    pypcd4 = pytest.importorskip("pypcd4")
    found, ours = pypcd4.PointCloud.from_path(written("x.pcd")), shape_for("x.pcd")
    assert np.array_equal(found.numpy(("x", "y", "z")), ours.points)
    assert np.array_equal(found.numpy(("normal_x", "normal_y", "normal_z")), ours.normals)
    assert np.array_equal(found.decode_rgb(found.numpy(("rgb",))), ours.colors)


@NO_LAZ
def test_laspy_reads_places_to_a_twentieth_of_a_millimetre():
    import laspy

    found, ours = laspy.read(written("x.laz")), cloud("zup")
    assert np.abs(np.asarray(found.xyz) - ours.points).max() <= 5.1e-5
    assert np.array_equal(np.stack([found.red, found.green, found.blue], axis=1), ours.colors.astype(np.uint16) * 257)
    assert found.header.point_count == 35 and str(found.header.version) == "1.4"


@NO_LAZ
def test_what_laz_cannot_hold_is_refused():
    far = PointCloud(np.array([[0, 0, 3e5]], np.float32), axes="zup")
    with pytest.raises(UsageError, match="LAZ holds places up to 214748"):
        depthcli.write_shape(far, "far.laz")
    assert not Path("far.laz").exists()
    depthcli.write_shape(PointCloud(np.zeros((0, 3)), axes="zup"), "none.laz")
    assert len(depthcli.read_shape("none.laz").points) == 0


def test_laz_without_its_extra_is_one_line_before_a_model_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "lazrs", None)
    with pytest.raises(UsageError, match=r"LAZ needs laspy.*depthcli\[las\]"):
        check_extras(("ply", "laz"))
    check_extras(("ply",))


def test_a_usdz_holds_its_scene_first_aligned_and_without_compression():
    shape = mesh()
    depthcli.write_shape(shape, "x.usdz")
    with zipfile.ZipFile("x.usdz") as archive:
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == ["depth.usda", "picture.jpg"]
        for entry in entries:
            start = entry.header_offset + 30 + len(entry.filename) + len(entry.extra)
            assert start % 64 == 0 and entry.compress_type == zipfile.ZIP_STORED
        scene, picture = (archive.read(entry).decode("latin-1") for entry in entries)
    assert scene.startswith("#usda 1.0\n") and picture.encode("latin-1") == shape.texture
    numbers = {name: re.search(rf"{name} = \[(.*?)\]", scene)[1] for name in ("points", "faceVertexIndices", "st")}
    points, faces, places = (
        np.array(re.findall(r"[-+.\de]+", text), np.float64).reshape(-1, width)
        for text, width in zip(numbers.values(), (3, 3, 2))
    )
    assert np.array_equal(points.astype(np.float32), shape.vertices) and np.array_equal(faces, shape.faces)
    assert np.abs(places - np.stack([shape.uv[:, 0], 1 - shape.uv[:, 1]], axis=1)).max() < 1e-7
    assert 'upAxis = "Y"' in scene and "metersPerUnit = 1" in scene
    assert read_facts(Path("x.usdz"))["source"] == "photo.jpg" and not is_cut_short(Path("x.usdz"))
    Path("cut.usdz").write_bytes(Path("x.usdz").read_bytes()[:-1])
    assert is_cut_short(Path("cut.usdz")) and read_facts(Path("cut.usdz")) == {}
    with pytest.raises(OutputError, match="not read back"):
        depthcli.read_shape("x.usdz")


def test_the_camera_of_a_usdz_sees_the_picture_off_its_middle():
    seen_by = Camera(np.array([[50.0, 0, 2.5], [0, 40.0, 2.25], [0, 0, 1]]), CameraSource.GIVEN)
    depth, rgb = small()
    depthcli.write_shape(depthcli.mesh(replace(depth, camera=seen_by), rgb, ALL), "x.usdz")
    with zipfile.ZipFile("x.usdz") as archive:
        scene = archive.read("depth.usda").decode()
    said = {name: float(number) for name, number in re.findall(r"float (\w+) = ([-+.\de]+)", scene)}
    # Half an aperture from the middle, moved by the offset, is the edge of the picture: pixel -0.5 or 6.5.
    for side, f, c, length in (("horizontal", 50.0, 2.5, 7), ("vertical", 40.0, 2.25, 5)):
        half, offset = said[f"{side}Aperture"] / 2, said[f"{side}ApertureOffset"]
        edges = sorted(((-0.5 - c) / f, (length - 0.5 - c) / f))
        found = [(sign * half + offset) / said["focalLength"] for sign in (-1, 1)]
        assert found == pytest.approx(edges if side == "horizontal" else [-edges[1], -edges[0]])


def test_usd_reads_the_same():
    usd = pytest.importorskip("pxr.Usd", reason="160 MB, so only where it is there")
    from pxr import UsdGeom

    depthcli.write_shape(mesh(), "x.usdz")
    stage = usd.Stage.Open("x.usdz")
    found, ours = UsdGeom.Mesh(stage.GetPrimAtPath("/depth/mesh")), mesh()
    assert np.array_equal(np.array(found.GetPointsAttr().Get()), ours.vertices)
    assert np.array_equal(np.array(found.GetFaceVertexIndicesAttr().Get()), ours.faces.ravel())


def test_open3d_reads_the_same():
    try:  # 900 MB with its dependencies, so only where it is there, and loads
        import open3d
    except ImportError as error:
        pytest.skip(str(error))
    for name in ("x.ply", "x.pcd"):
        found, ours = open3d.io.read_point_cloud(str(written(name))), shape_for(name)
        assert np.array_equal(np.asarray(found.points), ours.points.astype(np.float64))
        assert np.abs(np.asarray(found.colors) * 255 - ours.colors).max() < 1e-4
        assert np.array_equal(np.asarray(found.normals), ours.normals.astype(np.float64))
    for name in ("x.glb", "x.obj"):
        found = open3d.io.read_triangle_mesh(str(written(name)))
        assert len(found.triangles) == 48 and np.asarray(found.vertices)[:, 2].max() == pytest.approx(-1.9)


VALIDATE = """
let validator; try { validator = require('gltf-validator') } catch { process.exit(9) }
const bytes = new Uint8Array(require('fs').readFileSync(process.argv[1]));
validator.validateBytes(bytes).then(report => console.log(JSON.stringify(report.issues)))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node")
def test_the_validator_of_gltf_has_nothing_to_say():
    """Found if NODE_PATH leads to it: npm install gltf-validator."""
    for name in ("x.glb", "points.glb"):
        ran = subprocess.run(["node", "-e", VALIDATE, str(written(name))], capture_output=True, text=True)
        if ran.returncode == 9:
            pytest.skip("no gltf-validator")
        issues = json.loads(ran.stdout)
        assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"]


def test_a_relative_map_is_written_without_a_unit():
    values = np.linspace(8, 2, 35, dtype=np.float32).reshape(5, 7)
    write_depth(DepthMap(values, DepthKind.RELATIVE_DISPARITY), "r.ply")
    shape = depthcli.read_shape("r.ply")
    assert shape.unit == "arbitrary" and "1 / value" in shape.facts["shape"]["rule"]


def test_gaussians_of_any_program_are_points_in_their_colours(tmp_path: Path) -> None:
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{n}" for n in range(45))]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    rows = np.zeros(2, [(name, "<f4") for name in names])
    rows["x"], rows["f_dc_0"], rows["f_dc_1"] = (1, 2), (np.sqrt(np.pi), 0), (-9, 0)
    head = ["ply", "format binary_little_endian 1.0", "element vertex 2", *(f"property float {n}" for n in names)]
    (tmp_path / "a.ply").write_bytes("\n".join([*head, "end_header", ""]).encode() + rows.tobytes())
    cloud = depthcli.read_shape(tmp_path / "a.ply")
    assert isinstance(cloud, PointCloud) and cloud.normals is None
    assert cloud.points[:, 0].tolist() == [1, 2] and cloud.colors.tolist() == [[255, 0, 128], [128, 128, 128]]
    assert any("3D Gaussians" in line for line in examine(tmp_path / "a.ply").lines())
