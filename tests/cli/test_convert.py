"""`depth convert`: from the files of any program to those of another, with the numbers and the holes they have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from depthcli.camera import CameraSource, Distortion, LensModel, pinhole
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.files import read_depth, read_facts, write_depth
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.presets import PRESETS

METRIC, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
SIZE = (40, 30)
CAMERA = pinhole(SIZE, 35.0, CameraSource.GIVEN)


def metres(holes: bool = True) -> np.ndarray:
    """Depth up to 8 m with a hole, exact in millimetres, in 1/5000 m and, but for rounding, in 1/256 m."""
    z = np.round(np.linspace(1, 8, 1200), 3).reshape(30, 40)
    z[3, 5] = 0.25
    z[10:14, 20:23] = np.where(holes, 0, z[10:14, 20:23])
    return z


def stored(path: str, scale: float = 1000, holes: bool = True) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(place), np.round(metres(holes) * scale).astype(np.uint16))
    return place


def ours(path: str, kind: DepthKind = METRIC, camera: bool = False, holes: bool = True) -> Path:
    z = metres(holes).astype(np.float32)
    depth = DepthMap(z, kind, Provenance("m", source="a.jpg"), valid=z > 0, camera=CAMERA if camera else None)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_depth(depth, path)
    return Path(path)


def test_sky_and_confidence_go_along_between_formats_that_hold_them(depth):
    z = metres(holes=False).astype(np.float32)
    sky, sure = z > 7, (1 + z).astype(np.float32)
    write_depth(DepthMap(z, METRIC, confidence=sure, sky=sky), "a.npz")
    assert depth("convert", "a.npz", "-o", "b.exr").code == 0
    assert depth("convert", "b.exr", "-o", "c.npz").code == 0
    back = read_depth(Path("c.npz"))
    assert np.array_equal(back.sky, sky) and np.array_equal(back.confidence, sure)
    assert depth("convert", "c.npz", "--size", "80x60", "-o", "d.npz").code == 0
    assert np.array_equal(read_depth(Path("d.npz")).sky, np.kron(sky, np.ones((2, 2), bool)))
    assert depth("convert", "a.npz", "-o", "e.tiff").code == 0  # has no place for them
    assert read_depth(Path("e.tiff")).sky is None


EXACT = {"npz", "exr", "tiff", "pfm", "npy"}
CODES = {"mm": 1000, "scannet": 1000, "kitti": 256, "tum": 5000, "sun": 1000}


@pytest.mark.parametrize("to", [*sorted(EXACT), *CODES])
@pytest.mark.parametrize("source", ["mm", "kitti", "tum", "sun"])
def test_a_strangers_codes_keep_their_metres_and_holes_in_every_format(depth, source, to):
    codes = np.round(metres() * CODES[source]).astype(np.uint16)
    cv2.imwrite("in.png", (codes << 3) | (codes >> 13) if source == "sun" else codes)
    target = f"out{STILLS[to].suffix}"
    ran = depth("convert", "in.png", "--from", source, "-f", to, "-o", target)
    assert (ran.code, ran.lines) == (0, [target])
    assert "12 of 1200 pixels have no depth (1.00%)" in ran.err
    back = read_depth(Path(target))
    assert back.kind is METRIC and np.array_equal(back.valid, metres() > 0)
    bound = 0.5 / CODES[source] + 0.5 / CODES.get(to, np.inf)
    assert np.abs(back.values - metres())[back.valid].max() <= bound * 1.001 + 1e-6


@pytest.mark.parametrize("name", [*sorted(EXACT), *CODES, "white", "black", "controlnet"])
def test_info_knows_what_was_written(depth, name):
    ours("a.npz")
    target = f"b{STILLS[name].suffix}"
    depth("convert", "a.npz", "-f", name, "-o", target)
    told = depth("info", target)
    assert told.code == 0 and "depth map by depthcli" in told.out and "metric_depth" in told.out
    assert "invalid  1.00%" in told.out


@pytest.mark.parametrize("middle", sorted(EXACT))
def test_the_way_there_and_back_gives_the_same_codes(depth, middle):
    stored("in.png")
    between = f"a{STILLS[middle].suffix}"
    depth("convert", "in.png", "--from", "mm", "-o", between)
    assert depth("convert", between, "-f", "mm", "-o", "back.png").code == 0
    assert np.array_equal(cv2.imread("back.png", -1), cv2.imread("in.png", -1))


def test_files_of_ours_say_what_they_are(depth):
    ours("a.npz")
    assert depth("convert", "a.npz", "-o", "b.exr").code == 0
    facts = read_facts(Path("b.exr"))
    assert (facts["kind"], facts["source"], facts["model"]) == ("metric_depth", "a.jpg", "m")
    assert facts["converted"]["source"] == "a.npz" and len(facts["converted"]["source_sha256"]) == 64
    assert "camera" not in facts


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (
            "in.png",
            [],
            "in.png does not say what its numbers mean (if another program wrote it, give --from, such as mm)",
        ),
        ("in.npy", [], "in.npy does not say what its numbers mean (if another program wrote it, give --kind)"),
        ("no.png", ["--from", "mm"], "no.png does not exist"),
        ("gray8.png", ["--from", "kitti"], "it has 8 bits, as a preview has, where the format has 16"),
        ("cut.png", ["--from", "mm"], "cannot read numbers from cut.png"),
        ("text.exr", ["--kind", "metric_depth"], "it is not an OpenEXR file"),
        ("relative.npz", ["-f", "mm"], "mm holds metres, and this depth is relative_disparity"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_no_file(depth, name, arguments, says):
    data = stored("in.png").read_bytes()
    Path("cut.png").write_bytes(data[: len(data) // 2])
    np.save("in.npy", metres())
    cv2.imwrite("gray8.png", np.ones((4, 4), np.uint8))
    Path("text.exr").write_text("no")
    ours("relative.npz", DISPARITY)
    ran = depth("convert", name, *(arguments if "-f" in arguments else [*arguments, "-f", "npz"]), "-o", "out/")
    assert ran.code in (2, 3) and says in ran.err and len(ran.err.splitlines()) == 1
    assert not [path for path in Path("out").glob("*") if path.name != "manifest.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in.png", "--from", "mm"], "there is no place for the results"),
        (["in.png", "--from", "mm", "-o", "out/"], "no format is given"),
        (["in.png", "--from", "what", "-o", "a.exr"], "unknown --from 'what' (choose from: mm, "),
        (
            ["in.png", "--from", "mm", "--kind", "relative_depth", "-o", "a.exr"],
            "mm holds metric_depth, not relative_depth",
        ),
        (["in.png", "--from", "mm", "--size", "3", "-o", "a.exr"], "--size is '3'"),
        (["in.png", "--from", "mm", "--preset", "word", "-o", "out"], "no preset is called 'word'"),
        (["in.png", "--from", "mm", "-f", "exr,npz", "-o", "a.exr"], "a.exr cannot hold several formats"),
        (["in.png", "--from", "mm", "-f", "npz", "-o", "a.exr"], "npz is written as .npz, not .exr"),
        (["in.png", "--from", "mm", "-o", "in.png", "-f", "tum"], "would replace"),
        (["in.png", "--from", "mm", "--photo", "no", "-o", "a.exr"], "no does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_written(depth, arguments, says):
    data = stored("in.png").read_bytes()
    there = set(Path().iterdir())
    ran = depth("convert", *arguments)
    assert ran.code == 2 and says in ran.err and len(ran.err.splitlines()) == 1
    assert set(Path().iterdir()) == there and Path("in.png").read_bytes() == data


class TestFolders:
    def test_the_tree_stays_and_the_same_command_does_what_is_missing(self, depth):
        for name in ("scans/a.png", "scans/left/a.png", "scans/left/b.png"):
            stored(name)
        command = ["convert", "scans", "--from", "mm", "-f", "exr,npy", "-o", "out"]
        assert depth(*command).code == 0
        made = {str(path) for path in Path("out").rglob("*.*") if path.suffix in (".exr", ".npy")}
        assert made == {f"out/{stem}{end}" for stem in ("a", "left/a", "left/b") for end in (".exr", ".npy")}
        Path("out/left/a.npy").unlink()
        again = depth(*command)
        assert again.lines == ["out/left/a.exr", "out/left/a.npy"] and "1 done, 2 skipped" in again.err
        stored("scans/a.png", 500)
        assert depth(*command).lines == ["out/a.exr", "out/a.npy"]

    def test_a_killed_run_goes_on_without_its_manifest(self, depth):
        stored("scans/a.png")
        command = ["convert", "scans", "--from", "mm", "-f", "exr,npy,mm,tiff", "-o", "out"]
        depth(*command)
        Path("out/manifest.jsonl").unlink()
        ran = depth(*command)
        assert (ran.code, ran.lines) == (0, []) and "1 skipped" in ran.err

    def test_one_bad_file_does_not_stop_the_others(self, depth):
        for name in ("scans/a.png", "scans/c.png"):
            stored(name)
        Path("scans/b.png").write_bytes(b"no")
        ran = depth("convert", "scans", "--from", "mm", "-f", "exr", "-o", "out")
        assert ran.code == 3 and ran.lines == ["out/a.exr", "out/c.exr"] and "b.png" in ran.err

    def test_other_options_do_not_mix(self, depth):
        stored("scans/a.png")
        command = ["convert", "scans", "--from", "mm", "-f", "exr", "-o", "out"]
        depth(*command)
        ran = depth(*command, "--fill")
        assert ran.code == 2 and "out/a.exr was converted with other options" in ran.err
        assert depth(*command, "--fill", "--if-exists", "overwrite").code == 0
        assert read_depth(Path("out/a.exr")).valid is None

    def test_a_foreign_file_is_not_replaced(self, depth):
        stored("scans/a.png")
        Path("out").mkdir()
        Path("out/a.exr").write_text("mine")
        ran = depth("convert", "scans", "--from", "mm", "-f", "exr", "-o", "out")
        assert ran.code == 3 and "out/a.exr is there and is not a depth map" in ran.err
        assert Path("out/a.exr").read_text() == "mine"


class TestChanges:
    def test_metric_depth_changes_its_size_by_the_nearest_pixel(self, depth):
        stored("in.png")
        depth("convert", "in.png", "--from", "mm", "--size", "80x60", "--focal", "35", "-o", "a.npz")
        large = read_depth(Path("a.npz"))
        assert large.size == (80, 60) and set(large.values[large.valid]) <= set(np.float32(metres().ravel()))
        assert np.array_equal(large.values[::2, ::2][large.valid[::2, ::2]], np.float32(metres()[metres() > 0]))
        assert large.valid.mean() == (metres() > 0).mean()
        assert large.camera.focal == (70, 70) and large.camera.center == (39.5, 29.5)

    def test_holes_are_filled_by_their_nearest_neighbours_if_asked(self, depth):
        stored("in.png")
        ran = depth("convert", "in.png", "--from", "mm", "--fill", "-o", "a.npz")
        assert "12 of 1200 pixels had no depth and were filled" in ran.err
        full = read_depth(Path("a.npz"))
        assert full.valid is None and full.values[11, 20] == np.float32(metres()[11, 19])
        assert np.array_equal(full.values[metres() > 0], np.float32(metres())[metres() > 0])

    def test_distances_along_rays_become_depth(self, depth):
        u, v = np.meshgrid(np.arange(40) - 19.5, np.arange(30) - 14.5)
        np.save("ray.npy", 3 * np.sqrt((u / 35) ** 2 + (v / 35) ** 2 + 1))  # a wall at 3 m
        command = ["convert", "ray.npy", "--kind", "metric_depth", "--depth-is", "ray", "-o", "a.npz"]
        without = depth(*command)
        assert without.code == 2 and "--depth-is ray needs the camera" in without.err
        assert depth(*command, "--focal", "35").code == 0
        assert np.abs(read_depth(Path("a.npz")).values - 3).max() < 1e-5

    def test_a_photo_gives_colours_and_its_camera(self, depth):
        Path("photos").mkdir()
        stored("scans/a.png")
        cv2.imwrite("photos/a.png", np.full((60, 80, 3), (0, 0, 200), np.uint8))
        ran = depth("convert", "scans", "--from", "mm", "-f", "rgbd", "--photo", "photos", "-o", "out")
        assert ran.code == 0
        picture = cv2.imread("out/a.png")
        assert picture.shape == (30, 80, 3) and (picture[:, :40] == (0, 0, 200)).all()
        shutil.move("photos/a.png", "photos/b.png")
        ran = depth("convert", "scans", "--from", "mm", "-f", "rgbd", "--photo", "photos", "-o", "out2")
        assert ran.code == 2 and "photos has no picture for a.png" in ran.err


class TestStrangers:
    def test_vda_has_many_maps_in_one_file(self, depth):
        maps = np.random.default_rng(0).random((3, 30, 40)).astype(np.float16)
        np.savez_compressed("clip.npz", depths=maps)
        command = ["convert", "clip.npz", "--from", "vda", "--kind", "relative_disparity"]
        ran = depth(*command, "-f", "exr", "-o", "out")
        assert ran.lines == [f"out/clip_000{number}.exr" for number in range(3)]
        for number, values in enumerate(maps):
            assert np.array_equal(read_depth(Path(f"out/clip_000{number}.exr")).values, values.astype(np.float32))
        assert "cannot hold 3 maps" in depth(*command, "-o", "a.exr").err

    def test_da3_has_its_camera(self, depth):
        matrix = np.array([[35, 0, 20], [0, 36, 15], [0, 0, 1]])
        z = metres(holes=False).astype(np.float32)
        np.savez("a.npz", depth=z[None], conf=z[None], intrinsics=matrix[None])
        assert depth("convert", "a.npz", "--from", "da3", "--kind", "metric_depth", "-o", "b.exr").code == 0
        back = read_depth(Path("b.exr"))
        assert np.array_equal(back.values, z) and back.camera.focal == (35, 36)
        assert back.camera.center == (19.5, 14.5)  # its principal point is half the sides

    def test_exr_of_other_libraries(self, depth):
        openexr = pytest.importorskip("OpenEXR")
        z = np.where(metres() > 0, metres(), 1e10).astype(np.float32)  # as Blender marks the background
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        for name in ("Z", "ViewLayer.Depth.Z", "Y"):
            openexr.File(header, {name: z}).write("in.exr")
            assert depth("convert", "in.exr", "--kind", "metric_depth", "-o", "a.npz").code == 0
            back = read_depth(Path("a.npz"))
            assert np.array_equal(back.valid, metres() > 0)
            assert np.array_equal(back.values[back.valid], z[back.valid])

    def test_an_exr_in_colours_is_no_depth(self, depth):
        """As points.exr of MoGe, whose R is x."""
        openexr = pytest.importorskip("OpenEXR")
        z = metres(False).astype(np.float32)
        header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
        for blue, code in ((z, 0), (z + 1, 3)):
            openexr.File(header, {"R": z, "G": z, "B": blue}).write("in.exr")
            ran = depth("convert", "in.exr", "--from", "moge", "--kind", "metric_depth", "-o", "a.npz")
            assert ran.code == code and ("its R, G and B differ" in ran.err) == bool(code)

    @pytest.mark.parametrize("unit", [None, "0.001"])
    def test_moge_writes_logarithms(self, depth, unit):
        z = np.where(metres() > 0, metres(), np.nan)
        z[0, 0] = np.inf
        near, far = np.nanmin(z), z[np.isfinite(z)].max()
        shares = np.log(np.nan_to_num(z, nan=1, posinf=1) / near) / np.log(far / near)
        codes = np.where(np.isfinite(z), 1 + np.round(shares * 65533), np.where(np.isinf(z), 65535, 0))
        texts = PngInfo()
        for key, text in (("near", str(near)), ("far", str(far)), *([("unit", unit)] if unit else [])):
            texts.add_text(key, text)
        Image.fromarray(codes.astype(np.uint16)).save("in.png", pnginfo=texts)
        command = ["convert", "in.png", "--from", "moge", "--kind", "metric_depth", "-o", "a.npz"]
        assert depth(*command).code == 0
        back = read_depth(Path("a.npz"))
        assert np.array_equal(back.valid, np.isfinite(z))
        assert np.abs(back.values / (z * float(unit or 1)) - 1)[back.valid].max() < 1e-4
        stored("in.png")
        assert "lacks the texts near and far" in depth(*command).err

    def test_codes_of_splats_without_their_scene_are_disparity(self, depth):
        cv2.imwrite("in.png", np.array([[0, 65535]], np.uint16))
        assert depth("convert", "in.png", "--from", "3dgs", "-o", "a.npz").code == 0
        back = read_depth(Path("a.npz"))
        assert back.kind is DISPARITY and back.values.tolist() == [[0, 1]]
        Path("scene/sparse/0").mkdir(parents=True)
        Path("scene/depths").mkdir()
        shutil.move("in.png", "scene/depths/a.png")
        for text, says in (("{}", "has no scale and offset of a"), ("[", "cannot read"), ('{"a": 1}', "cannot read")):
            Path("scene/sparse/0/depth_params.json").write_text(text)
            ran = depth("convert", "scene/depths/a.png", "--from", "3dgs", "-o", "b.npz")
            assert ran.code and says in ran.err and len(ran.err.splitlines()) == 1

    def test_points_are_no_depth_map(self, depth):
        Path("a.ply").write_text("ply")
        ran = depth("convert", "a.ply", "-f", "exr", "-o", "a.exr")
        assert ran.code and "a.ply holds points or a mesh, and no depth map" in ran.err

    def test_shades_are_disparity(self, depth):
        cv2.imwrite("in.png", np.array([[0, 255]], np.uint8))
        for name, values in (("white", [[0, 1]]), ("black", [[1, 0]])):
            depth("convert", "in.png", "--from", name, "-o", "a.npz")
            back = read_depth(Path("a.npz"))
            assert back.kind is DISPARITY and back.values.tolist() == values


class TestPresets:
    @pytest.mark.parametrize("name", PRESETS)
    def test_each_writes_its_files(self, depth, name):
        ours("scans/a.npz", camera=True, holes=False)
        Path("photos").mkdir()
        cv2.imwrite("photos/a.jpg", np.zeros((30, 40, 3), np.uint8))
        ran = depth("convert", "scans", "--preset", name, "--photo", "photos", "-o", "out")
        assert ran.code == 0, ran.err
        made = {str(path.relative_to("out")) for path in Path("out").rglob("*.*")} - {"manifest.jsonl"}
        assert made == {
            "nuke": {"a.exr"},
            "blender": {"a.exr", "a.glb"},
            "3dgs": {"depths/a.png", "sparse/0/depth_params.json"},
            "nerfstudio": {"depths/a.png", "transforms.json"},
            "ngp": {"depths/a.png", "transforms.json"},
            "ros": {"a.png", "a_camera_info.yaml"},
            "kitti": {"a.png", "a_calib.txt"},
            "tum": {"a.png", "a_camera.txt"},
            "scannet": {"a.png", "a_camera.txt"},
            "facebook": {"a.jpg", "a_depth.png"},
            "nuke-far0": {"a.exr"},
            "lookingglass": {"a.png", "a_qs8x6a1.33.png"},
            "vr": {"a_LRF_Full_SBS.png"},
        }.get(name, {"a.png"})

    @pytest.mark.parametrize(
        ("name", "file"),
        [
            *(("ros", "a_camera_info.yaml"), ("kitti", "a_calib.txt"), ("tum", "a_camera.txt")),
            *(("nerfstudio", "transforms.json"), ("ngp", "transforms.json")),
        ],
    )
    def test_the_camera_beside_is_that_of_the_map(self, depth, name, file):
        ours("a.npz", camera=True)
        depth("convert", "a.npz", "--preset", name, "-o", "out")
        camera = read_cameras(Path("out") / file).cameras[0].camera
        assert np.allclose(camera.intrinsics, CAMERA.intrinsics, atol=1e-9)

    def test_all_maps_of_a_splat_scene_have_one_scale(self, depth):
        near, far = np.full((4, 6), 0.5, np.float32), np.full((4, 6), 4.0, np.float32)
        for name, z in (("near", near), ("far", far)):
            write_depth(DepthMap(z, METRIC), f"{name}.npz")
        ran = depth("convert", "near.npz", "far.npz", "--preset", "3dgs", "-o", "scene")
        assert ran.code == 0
        params = json.loads(Path("scene/sparse/0/depth_params.json").read_text())
        assert params == {"near": {"scale": 2, "offset": 0}, "far": {"scale": 2, "offset": 0}}
        for name, z in (("near", near), ("far", far)):
            inverse = cv2.imread(f"scene/depths/{name}.png", -1) / 65536 * params[name]["scale"]
            assert np.abs(inverse * z - 1).max() < 1e-3

    def test_relative_maps_of_a_splat_scene_share_their_range_and_are_fitted_later(self, depth):
        for name, values in (("a", [[0.0, 1.0]]), ("b", [[1.0, 4.0]])):
            write_depth(DepthMap(np.array(values), DISPARITY), f"{name}.npz")
        ran = depth("convert", "a.npz", "b.npz", "--preset", "3dgs", "-o", "scene")
        assert ran.code == 0 and "give the COLMAP model of the scene as --intrinsics" in ran.err
        assert cv2.imread("scene/depths/a.png", -1).tolist() == [[0, 16384]]
        assert cv2.imread("scene/depths/b.png", -1).tolist() == [[16384, 65535]]

    @pytest.mark.parametrize("kind", [METRIC, DISPARITY])
    def test_a_splat_scene_is_fitted_to_the_points_of_its_colmap_model(self, depth, kind):
        """What the trainer makes of file and scale is 1 / z in the unit of the model, here 4 to a metre."""
        rng, lines, points, pictures = np.random.default_rng(0), [], [], {}
        for number, name in enumerate(("a", "left/b"), 1):
            z = 2 + np.add.outer(np.linspace(0, 3, 30), np.linspace(0, 1 + number, 40))  # in metres
            pictures[name] = 4 * z
            seen = []
            for x, y in zip(rng.integers(0, 40, 60).tolist(), rng.integers(0, 30, 60).tolist()):
                points.append(f"{len(points) + 1} 0 0 {float(4 * z[y, x])!r} 0 0 0 0 1 0")
                seen.append(f"{2 * x + 1} {2 * y + 1} {len(points)}")  # the pictures are twice as large as the maps
            lines += [f"{number} 1 0 0 0 0 0 0 1 {name}.jpg", " ".join(seen)]
            values = z if kind is METRIC else (1 / z - 0.02) / 3
            Path(f"maps/{name}").parent.mkdir(parents=True, exist_ok=True)
            item = DepthMap(values.astype(np.float32), kind, Provenance("m", source=f"{Path(name).name}.jpg"))
            write_depth(item, f"maps/{name}_depth.npz")
        Path("model").mkdir()
        Path("model/cameras.txt").write_text("1 PINHOLE 80 60 70 70 40 30\n")
        Path("model/images.txt").write_text("\n".join(lines) + "\n")
        Path("model/points3D.txt").write_text("\n".join(points) + "\n")
        ran = depth("convert", "maps", "--preset", "3dgs", "--intrinsics", "model", "-o", "scene")
        assert ran.code == 0 and "warning" not in ran.err, ran.err
        params = json.loads(Path("scene/sparse/0/depth_params.json").read_text())
        assert set(params) == {"a", "left/b"}
        for name, z in pictures.items():
            codes = cv2.imread(f"scene/depths/{name}.png", -1)
            inverse = codes / 65536 * params[name]["scale"] + params[name]["offset"]  # as the trainer divides
            assert np.abs(inverse * z - 1).max() < 2e-3
            cv2.imwrite(f"scene/depths/{name}.png", codes)  # a file of others, which the file of the scene explains
            assert depth("convert", f"scene/depths/{name}.png", "--from", "3dgs", "-o", "back.npz").code == 0
            back = read_depth(Path("back.npz"))
            assert back.kind is DepthKind.RELATIVE_DEPTH and np.abs(back.values / z - 1).max() < 2e-3

    def test_maps_that_a_model_cannot_fit_are_counted(self, depth):
        Path("model").mkdir()
        Path("model/cameras.txt").write_text("1 PINHOLE 40 30 35 35 20 15\n")
        Path("model/images.txt").write_text("1 1 0 0 0 0 0 0 1 a.jpg\n5 5 1\n")
        Path("model/points3D.txt").write_text("1 0 0 2 0 0 0 0 1 0\n")
        ours("maps/a.npz", holes=False)
        command = ("convert", "maps", "--preset", "3dgs", "--intrinsics", "model")
        ran = depth(*command, "-o", "scene")
        assert ran.code == 0 and "1 maps see too few points that agree with them" in ran.err
        assert json.loads(Path("scene/sparse/0/depth_params.json").read_text()) == {"a": {"scale": 0, "offset": 0}}
        Path("model/points3D.txt").unlink()
        ran = depth(*command, "-o", "other")
        assert ran.code == 2 and "cannot read the COLMAP model model: it lacks points3D.txt" in ran.err

    def test_a_given_transforms_json_keeps_its_poses_and_gains_the_depth(self, depth):
        pose = np.eye(4).tolist()
        frame = {"file_path": "images/a.jpg", "transform_matrix": pose}
        shared = {"fl_x": 35, "fl_y": 35, "cx": 20, "cy": 15, "w": 40, "h": 30}
        Path("transforms.json").write_text(json.dumps({**shared, "frames": [frame, {**frame, "file_path": "b.jpg"}]}))
        stored("a.png")
        command = [
            "convert",
            "a.png",
            "--from",
            "mm",
            "--preset",
            "ngp",
            "--intrinsics",
            "transforms.json",
            "-o",
            "out",
        ]
        assert depth(*command).code == 0
        made = json.loads(Path("out/transforms.json").read_text())
        assert made["integer_depth_scale"] == 0.001 and made["enable_depth_loading"] is True
        assert made["frames"][0] == {**frame, "depth_path": "depths/a.png"} and "depth_path" not in made["frames"][1]
        assert made["fl_x"] == 35

    def test_a_fisheye_is_named_above_the_frames_where_nerfstudio_looks_for_it(self, depth):
        lens = Distortion(LensModel.FISHEYE, (0.1, 0.0, 0.0, 0.0))
        for name, camera in (("a", CAMERA), ("b", replace(CAMERA, distortion=lens))):
            write_depth(DepthMap(metres(False), METRIC, camera=camera), f"{name}.npz")
        assert depth("convert", "b.npz", "--preset", "nerfstudio", "-o", "out").code == 0
        made = json.loads(Path("out/transforms.json").read_text())
        assert made["camera_model"] == "OPENCV_FISHEYE" and made["frames"][0]["k1"] == 0.1
        assert read_cameras(Path("out/transforms.json")).cameras[0].camera.distortion == lens
        ran = depth("convert", "a.npz", "b.npz", "--preset", "nerfstudio", "-o", "both")
        assert ran.code == 2 and "one model of cameras, and some of these are fisheyes" in ran.err

    def test_nuke_may_have_its_depth_inverted(self, depth):
        ours("a.npz", camera=True)
        assert depth("convert", "a.npz", "--preset", "nuke-far0", "-o", "out").code == 0
        back = read_depth(Path("out/a.exr"))
        z = metres().astype(np.float32)
        assert back.kind is DISPARITY and back.valid is None and back.camera.focal == CAMERA.focal
        assert np.array_equal(back.values == 0, z == 0)
        assert np.allclose(back.values[z > 0], 1 / z[z > 0], rtol=1e-6)

    @pytest.mark.parametrize("name", ["facebook", "lookingglass", "vr"])
    def test_what_shows_the_photo_asks_for_it(self, depth, name):
        ours("a.npz")
        ran = depth("convert", "a.npz", "--preset", name, "-o", "out")
        assert ran.code == 2 and f"{name} wants the photo beside its depth (name it with --photo)" in ran.err
        assert not Path("out").exists()

    def test_options_that_are_given_win(self, depth):
        ours("a.npz")
        depth("convert", "a.npz", "--preset", "nuke", "-f", "tiff", "-o", "out")
        assert {path.name for path in Path("out").iterdir()} == {"a.tiff", "manifest.jsonl"}

    def test_files_of_others_beside_the_maps_are_not_replaced(self, depth):
        ours("a.npz", camera=True)
        command = ["convert", "a.npz", "--preset", "kitti", "-o", "out"]
        Path("out").mkdir()
        Path("out/a_calib.txt").write_text("mine")
        ran = depth(*command)
        assert ran.code == 3 and "out/a_calib.txt is there and is another file" in ran.err
        assert Path("out/a_calib.txt").read_text() == "mine" and not Path("out/a.png").exists()
        assert depth(*command, "--if-exists", "overwrite").code == 0

    def test_a_transforms_json_is_replaced_only_if_it_was_made_here(self, depth):
        ours("a.npz", camera=True)
        command = ["convert", "a.npz", "--preset", "nerfstudio"]
        assert depth(*command, "-o", "out").code == depth(*command, "-o", "out").code == 0
        shutil.copytree("out", "given")
        given = Path("given/transforms.json").read_bytes()
        Path("given/manifest.jsonl").unlink()
        for more in ((), ("--intrinsics", "given/transforms.json", "--if-exists", "overwrite")):
            ran = depth(*command, *more, "-o", "given")
            assert ran.code == 2 and "given/transforms.json" in ran.err
        assert Path("given/transforms.json").read_bytes() == given

    def test_the_photo_itself_stays_where_it_is(self, depth):
        ours("a.npz", holes=False)
        Path("photos").mkdir()
        cv2.imwrite("photos/a.jpg", np.zeros((60, 80, 3), np.uint8))
        photo = Path("photos/a.jpg").read_bytes()
        command = ["convert", "a.npz", "--preset", "facebook", "--photo", "photos", "-o", "photos"]
        assert depth(*command, "--if-exists", "overwrite").code == 0
        assert Path("photos/a.jpg").read_bytes() == photo and Path("photos/a_depth.png").exists()


def test_relative_depth_becomes_metres_by_what_was_measured(depth):
    z = metres(holes=False)
    stored("measured.png", holes=False)
    p = (0.5 / z).astype(np.float32) - np.float32(0.02)  # 1 / z = 2 p + 0.04
    write_depth(DepthMap(p, DISPARITY, Provenance("m", source="a.jpg")), "relative.npz")
    ran = depth("convert", "relative.npz", "--scale-from", "measured.png", "-f", "mm", "-o", "out.png")
    assert (ran.code, ran.lines) == (0, ["out.png"])
    codes = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
    assert np.abs(codes / 1000 - z).max() < 0.002
    calibration = read_facts(Path("out.png"))["calibration"]
    assert (calibration["scale"], calibration["shift"]) == pytest.approx((2, 0.04), rel=1e-2)


def test_a_converted_folder_notes_the_references_of_its_metres(depth):
    for name in ("a", "b"):
        ours(f"maps/{name}.npz", DISPARITY, holes=False)
    assert depth("convert", "maps", "-f", "npz", "-o", "out", "--scale-from", "z:5,3=2").code == 0
    ran = depth("convert", "maps", "-f", "npz", "-o", "out", "--scale-from", "z:5,3=3")
    assert ran.code == 2 and "was converted with other options" in ran.error and "scale-from=z:5,3=2" in ran.error
