"""Depth in the formats of other programs: their numbers, their direction, their invalid value, and the way back."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import OutputError, UsageError
from depthcli.io.codecs.files import is_cut_short, read_depth, read_facts, write_file, write_still
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.codecs.stills import inverse_range, metres_to_codes

METRIC, DISPARITY = DepthKind.METRIC_DEPTH, DepthKind.RELATIVE_DISPARITY
SPOT = (1, 3)  # row and column of the one pixel that is not like the others
HOLE = (4, 6)


def small(kind: DepthKind = METRIC, holes: bool = True) -> DepthMap:
    """A map of 7x5 pixels that no turn and no mirror leaves as it is."""
    values = np.linspace(1, 9, 35, dtype=np.float32).reshape(5, 7)
    values[SPOT] = 0.5
    valid = np.ones((5, 7), bool)
    valid[HOLE] = not holes
    return DepthMap(values, kind, Provenance(model="m", source="a.jpg"), valid=valid)


def written(folder: Path, depth: DepthMap, name: str) -> Path:
    path = folder / f"map{STILLS[name].suffix}"
    write_file(STILLS[name], depth, path, rgb=np.zeros((*depth.values.shape, 3), np.uint8))
    return path


# The step of each format at 9 m, as its codes are rounded.
STEPS = {"npz": 0, "exr": 0, "tiff": 0, "pfm": 0, "npy": 0, "mm": 1e-3, "scannet": 1e-3, "kitti": 1 / 256, "tum": 2e-4}
STEPS.update(sun=1e-3, white=9 / 65534, black=9 / 65534)


@pytest.mark.parametrize("name", STEPS)
def test_metric_depth_comes_back_with_its_holes_where_it_was(name: str, tmp_path: Path) -> None:
    depth = small()
    path = written(tmp_path, depth, name)
    back = read_depth(path)
    assert back.kind is METRIC and back.provenance.source == "a.jpg" and read_facts(path)["units"] == "m"
    assert np.array_equal(back.valid, depth.valid)
    difference = np.abs(back.values - depth.values)[depth.valid]
    assert difference.max() <= STEPS[name] / 2 * 1.0001 + 1e-6 * (STEPS[name] > 0)


@pytest.mark.parametrize("name", ["npz", "exr", "tiff", "pfm", "npy", "white", "black", "3dgs"])
@pytest.mark.parametrize("kind", [DISPARITY, DepthKind.RELATIVE_DEPTH])
def test_relative_depth_comes_back_in_its_direction(name: str, kind: DepthKind, tmp_path: Path) -> None:
    depth = small(kind, holes=False)
    back = read_depth(written(tmp_path, depth, name))
    assert back.kind is kind
    close = STEPS.get(name) == 0
    assert np.allclose(back.values, depth.values, rtol=0 if close else 3e-4, atol=0 if close else 3e-4)


@pytest.mark.parametrize("name", [name for name, row in STILLS.items() if row.scale])
def test_metres_are_not_made_of_relative_depth(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} holds metres, and this depth is relative_disparity .*npz"):
        write_still(STILLS[name], small(DISPARITY), io.BytesIO())


@pytest.mark.parametrize(("name", "scale"), [("mm", 1000), ("scannet", 1000), ("kitti", 256), ("tum", 5000)])
def test_codes_are_metres_by_their_scale_for_opencv_and_pillow(name: str, scale: int, tmp_path: Path) -> None:
    depth = small()
    path = written(tmp_path, depth, name)
    codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), codes)
    assert codes.dtype == np.uint16 and codes[SPOT] == round(0.5 * scale) and codes[HOLE] == 0
    assert np.abs(codes / scale - depth.values)[depth.valid].max() <= 0.5001 / scale


def test_the_bits_of_sun_are_rotated(tmp_path: Path) -> None:
    path = written(tmp_path, small(), "sun")
    codes = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert codes[SPOT] == 500 << 3
    assert np.array_equal((codes >> 3) | (codes << 13), metres_to_codes(small(), 1000))
    far = DepthMap(np.full((1, 1), 60.0), METRIC)
    assert cv2.imread(str(written(tmp_path, far, "sun")), cv2.IMREAD_UNCHANGED)[0, 0] == (60000 << 3) % 65536 + 7


def test_what_is_too_far_has_no_depth_and_is_counted(tmp_path: Path) -> None:
    depth = DepthMap(np.array([[0.0001, 13.107, 13.2, 300.0]], np.float32), METRIC)
    for name, codes in (("tum", [1, 65535, 0, 0]), ("mm", [1, 13107, 13200, 0]), ("kitti", [1, 3355, 3379, 0])):
        path = written(tmp_path, depth, name)
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[0].tolist() == codes
        facts = read_facts(path)
        assert facts["invalid_pixels"] == codes.count(0) and facts["max"] < 300
        (warning,) = OutputSpec((name,)).warnings(depth)
        assert re.match(rf"{codes.count(0)} pixels are beyond the [\d.]+ m that {name} can hold", warning)
    assert OutputSpec(("tum", "exr")).warnings(DepthMap(depth.values[:, :2], METRIC)) == ()


def test_pfm_is_what_opencv_and_pillow_read(tmp_path: Path) -> None:
    path = written(tmp_path, small(), "pfm")
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert values.shape == (5, 7) and values[SPOT] == 0.5 and np.isinf(values[HOLE])
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), values)
    assert path.read_bytes().startswith(b"Pf\n7 5\n-1.0\n")


def test_tiff_is_what_opencv_and_pillow_read(tmp_path: Path) -> None:
    depth = DepthMap(np.random.default_rng(0).random((300, 500), np.float32), METRIC)  # several strips
    path = written(tmp_path, depth, "tiff")
    assert np.array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), depth.values)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), depth.values)
        assert json.loads(image.tag_v2[270])["kind"] == "metric_depth"
    assert np.isnan(cv2.imread(str(written(tmp_path, small(), "tiff")), cv2.IMREAD_UNCHANGED)[HOLE])


def test_tiff_and_exr_are_what_their_own_libraries_read(tmp_path: Path) -> None:
    tifffile, openexr = pytest.importorskip("tifffile"), pytest.importorskip("OpenEXR")
    expected = np.where(small().valid, small().values, np.nan)
    values = tifffile.imread(written(tmp_path, small(), "tiff"))
    assert np.array_equal(values, expected, equal_nan=True)
    channels = openexr.File(str(written(tmp_path, small(), "exr")), separate_channels=True).channels()
    assert np.array_equal(channels["Z"].pixels, expected, equal_nan=True)


def test_npy_is_what_numpy_reads(tmp_path: Path) -> None:
    values = np.load(written(tmp_path, small(), "npy"))
    assert values.dtype == np.float32 and values[SPOT] == 0.5 and np.isnan(values[HOLE])


@pytest.mark.parametrize("name", ["pfm", "npy"])
def test_facts_beside_a_file_count_for_that_file_alone(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, small(), name)
    data = path.read_bytes()
    assert not is_cut_short(path)
    path.write_bytes(data[:-4] + b"1234")
    with pytest.raises(OutputError, match=f"map.{name}.json is about another file"):
        read_depth(path)
    path.write_bytes(data[:-4])
    assert is_cut_short(path) and read_facts(path) == {}
    path.write_bytes(data)
    path.with_name(f"map.{name}.json").write_text("[]")
    assert read_facts(path) == {} and not is_cut_short(path)
    with pytest.raises(OutputError, match="does not say what its numbers mean"):
        read_depth(path)


def test_facts_beside_never_replace_a_file_of_others(tmp_path: Path) -> None:
    (tmp_path / "map.npy.json").write_text("mine")
    with pytest.raises(OutputError, match=r"map\.npy\.json is there and is not of depthcli"):
        written(tmp_path, small(), "npy")
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy.json"]


def test_controlnet_is_inverse_depth_between_its_percentiles(tmp_path: Path) -> None:
    values = np.linspace(1, 20, 100 * 100, dtype=np.float32).reshape(100, 100)
    codes = cv2.imread(str(written(tmp_path, DepthMap(values, METRIC), "controlnet")), cv2.IMREAD_UNCHANGED)
    assert codes.dtype == np.uint8
    lo, hi = np.percentile(1 / values, (1, 99))
    assert np.abs(codes - 255 * np.clip((1 / values - lo) / (hi - lo), 0, 1)).max() <= 1
    assert (codes == 255).mean() == pytest.approx(0.01, abs=0.002) and codes[0, 0] == 255 and codes[-1, -1] == 0
    alike = cv2.imread(str(written(tmp_path, DepthMap(1 / values, DISPARITY), "controlnet")), cv2.IMREAD_UNCHANGED)
    assert np.abs(alike.astype(int) - codes).max() <= 1


def test_black_is_the_negative_of_white(tmp_path: Path) -> None:
    for depth in (small(), small(holes=False)):
        white = cv2.imread(str(written(tmp_path, depth, "white")), cv2.IMREAD_UNCHANGED).astype(int)
        black = cv2.imread(str(written(tmp_path, depth, "black")), cv2.IMREAD_UNCHANGED).astype(int)
        assert white[SPOT] == 65535 and black[SPOT] == 0 and set((white + black).ravel()) == {65535}
        assert depth.valid is None or (white[~depth.valid] == 0).all()  # as far as can be in both


def test_rgbd_is_the_photo_and_as_large_a_gray_map(tmp_path: Path) -> None:
    depth = small(holes=False)
    rgb = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    write_file(STILLS["rgbd"], depth, tmp_path / "a.png", "turbo", rgb)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (5, 14, 3) and np.array_equal(pixels[:, :7], rgb)
    assert (pixels[:, 7:] == pixels[:, 7:, :1]).all() and pixels[SPOT[0], 7 + SPOT[1], 0] == 255
    assert np.abs(read_depth(tmp_path / "a.png").values - depth.values).max() <= 8.5 / 255
    with pytest.raises(UsageError, match="rgbd shows the photo"):
        write_file(STILLS["rgbd"], depth, tmp_path / "b.png")


class TestSplats:
    """3dgs: v / 65535 * scale + offset is inverse depth, with one scale for all maps of a scene."""

    def test_metric_depth_by_the_trainers_arithmetic(self, tmp_path: Path) -> None:
        values = np.geomspace(0.4, 50, 6000, dtype=np.float32).reshape(60, 100)
        depth = DepthMap(values, METRIC)
        lo, hi = inverse_range(depth)
        assert (lo, hi) == (0, pytest.approx(1 / 0.4))
        codes = cv2.imread(str(written(tmp_path, depth, "3dgs")), cv2.IMREAD_UNCHANGED)
        inverse = codes.astype(np.float32) / 65536 * hi  # its trainer divides by 65536
        assert np.abs(inverse * values - 1).max() <= 1.2e-3 and np.median(np.abs(inverse * values - 1)) <= 2e-4

    def test_the_range_of_the_scene_is_that_of_each_map(self) -> None:
        stream = io.BytesIO()
        write_still(STILLS["3dgs"], DepthMap(np.array([[1.0, 2.0]]), METRIC), stream, scene=(0.0, 2.0))
        codes = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert codes.tolist() == [[32768, 16384]]

    def test_a_map_with_holes_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="3dgs cannot mark pixels without depth, and 1 have none"):
            written(tmp_path, small(), "3dgs")
        assert not list(tmp_path.iterdir())


GOLDEN: dict[str, str] = {
    "color": "88d897294bd12125",
    "gray": "f3808990ca938db4",
    "gray8": "48019a080f9712d4",
    "exr": "2f05732fc5aef654",
    "tiff": "bcda94e13a716af8",
    "pfm": "5501dc1b13776ca9",
    "npy": "8da3984c2c1a8285",
    "mm": "50ca8ea3555a217d",
    "scannet": "50ca8ea3555a217d",
    "kitti": "c549a10239fe6c43",
    "tum": "13d75ca0e519f9f6",
    "sun": "4a5ab843acb8ea19",
    "controlnet": "b8dffedfb640016f",
    "3dgs": "0c9af8b1cf540962",
    "white": "b34158dfbb9f3443",
    "black": "539e22c7129f0110",
    "rgbd": "16d29991c83f9b49",
    "side": "addc7732b2d285ad",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of a 7x5 map; without compression, which differs between versions of zlib. NPZ is of numpy."""
    compress, compressobj = zlib.compress, zlib.compressobj
    monkeypatch.setattr(zlib, "compress", lambda data, level: compress(data, 0))
    monkeypatch.setattr(zlib, "compressobj", lambda level, strategy: compressobj(0))
    monkeypatch.setattr("depthcli.io.codecs.facts.__version__", "0")
    stream = io.BytesIO()
    write_still(STILLS[name], small(holes=not STILLS[name].whole), stream, rgb=np.zeros((5, 7, 3), np.uint8))
    assert hashlib.sha256(stream.getvalue()).hexdigest()[:16] == GOLDEN[name]
