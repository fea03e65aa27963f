"""What is written can be read back: the numbers, and what they mean."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import depthcli
from depthcli.choices.settings import COLORMAPS
from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import DepthError, OutputError, UsageError
from depthcli.io.codecs import png
from depthcli.io.codecs.encode import clamped_pixels
from depthcli.io.codecs.exr import read_exr
from depthcli.io.codecs.files import is_cut_short, read_depth, read_facts, write_depth, write_still
from depthcli.io.codecs.formats import CLIPS, STILLS, implied_format, parse_formats
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.pixels.colormap import to_color, to_gray8, to_gray16

PROVENANCE = Provenance(
    "vits", "Depth Anything V2 Small", "ab" * 32, "Apache-2.0", "torch 2 cpu fp32", (28, 14), "fjörd.jpg"
)
WRITABLE = [name for name in STILLS if name != "laz" or find_spec("lazrs")]  # the extra has no wheel for Python 3.9
RGB = np.random.default_rng(1).integers(0, 255, (23, 31, 3), np.uint8)


def make(kind: DepthKind, scale: float = 7.0) -> DepthMap:
    values = (np.random.default_rng(0).random((23, 31)) * scale + 0.2).astype(np.float32)
    return DepthMap(values, kind, PROVENANCE, 20.0 if kind is DepthKind.METRIC_DEPTH else None)


def ramp(kind: DepthKind) -> DepthMap:
    """A map that has surfaces, for the formats that hold them."""
    values = np.linspace(2, 3, 23 * 31).reshape(23, 31).astype(np.float32)
    return DepthMap(values, kind, PROVENANCE, 20.0 if kind is DepthKind.METRIC_DEPTH else None)


def written(tmp_path: Path, depth: DepthMap, name: str, colormap: str = "Spectral_r") -> Path:
    spec = OutputSpec((name,), colormap)
    (path,) = spec.paths(tmp_path / "photo")
    spec.write(depth, RGB, [path])
    return path


@pytest.mark.parametrize("name", ["npz", "exr"])
@pytest.mark.parametrize("layers", [(), ("sky",), ("confidence",), ("confidence", "sky")])
def test_sky_and_confidence_stay_beside_the_numbers(tmp_path: Path, name: str, layers: tuple[str, ...]) -> None:
    random = np.random.default_rng(7)
    known = {"sky": random.random((23, 31)) > 0.6, "confidence": random.uniform(1, 9, (23, 31)).astype(np.float32)}
    depth = replace(make(DepthKind.RELATIVE_DEPTH), **{layer: known[layer] for layer in layers})
    path = written(tmp_path, depth, name)
    back = read_depth(path)
    assert np.array_equal(back.values, depth.values)
    for layer, content in known.items():
        kept = getattr(back, layer)
        assert np.array_equal(kept, content) and kept.dtype == content.dtype if layer in layers else kept is None
    if name == "npz":
        with np.load(path) as arrays:
            assert set(arrays.files) - {"depth", "meta"} == {"conf" if one == "confidence" else one for one in layers}


def test_other_programs_find_the_sky_in_exr(tmp_path: Path) -> None:
    sky = np.arange(23 * 31).reshape(23, 31) % 5 == 0
    path = written(tmp_path, replace(make(DepthKind.RELATIVE_DEPTH), sky=sky), "exr")
    openexr = pytest.importorskip("OpenEXR")
    with openexr.File(str(path), separate_channels=True) as file:
        assert np.array_equal(file.channels()["sky"].pixels, sky.astype(np.float32))
        assert np.array_equal(file.channels()["Z"].pixels, read_depth(path).values)


def test_a_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, make(DepthKind.RELATIVE_DEPTH), "npz")
    with np.load(path) as arrays:
        np.savez(path, sky=np.zeros((2, 2), bool), **arrays)
    with pytest.raises(OutputError, match=r"sky is \(2, 2\), the depth map \(23, 31\)"):
        read_depth(path)


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize(
    ("name", "steps"),
    [("npz", np.inf), ("exr", np.inf), ("gray", 65535), ("gray8", 255), ("color", 255), ("side", 255)],
)
def test_every_format_gives_the_numbers_back(tmp_path: Path, kind: DepthKind, name: str, steps: float) -> None:
    depth = make(kind)
    back = read_depth(written(tmp_path, depth, name))
    lo, hi = depth.range
    metres = name == "gray" and kind is DepthKind.METRIC_DEPTH
    bound = 0.0005 if metres else (hi - lo) / steps  # millimetres are rounded, codes have their step
    assert np.abs(back.values - depth.values).max() <= bound * 1.001 + 1e-6 * (steps < np.inf)
    assert back.kind is kind
    assert back.provenance == PROVENANCE
    assert back.max_depth == depth.max_depth


@pytest.mark.parametrize("colormap", [*COLORMAPS, "inferno_r"])
def test_every_colour_map_gives_the_numbers_back(tmp_path: Path, colormap: str) -> None:
    depth = make(DepthKind.RELATIVE_DISPARITY)
    back = read_depth(written(tmp_path, depth, "color", colormap))
    lo, hi = depth.range
    assert np.abs(back.values - depth.values).max() <= 3 * (hi - lo) / 255


def test_the_facts_are_in_the_file_for_anyone_to_read(tmp_path: Path) -> None:
    depth = make(DepthKind.RELATIVE_DISPARITY)
    with Image.open(written(tmp_path, depth, "gray")) as image:
        facts = json.loads(image.info["depthcli"])
        assert image.mode == "I;16" and "larger is nearer" in image.info["Description"]
    assert facts["schema"] == "depthcli/1" and facts["depthcli"] == depthcli.__version__
    assert facts["kind"] == "relative_disparity" and facts["near_is"] == "high" and facts["units"] is None
    assert (facts["min"], facts["max"]) == depth.range
    assert (
        facts["model"] == "vits" and facts["weights_sha256"] == "ab" * 32 and facts["weights_licence"] == "Apache-2.0"
    )
    assert facts["size"] == [31, 23] and facts["model_size"] == [28, 14] and facts["source"] == "fjörd.jpg"
    with np.load(written(tmp_path, depth, "npz")) as file:
        arrays = dict(file)
    assert arrays["depth"].dtype == np.float32 and arrays["depth"].shape == (23, 31)
    assert json.loads(str(arrays["meta"]))["kind"] == "relative_disparity"


def test_metric_gray_is_millimetres_and_says_what_it_clamped(tmp_path: Path) -> None:
    values = np.array([[1.2344, 65.535, 65.536, 80.0]], np.float32)
    path = written(tmp_path, DepthMap(values, DepthKind.METRIC_DEPTH, PROVENANCE, 80.0), "gray")
    with Image.open(path) as image:
        assert np.asarray(image).tolist() == [[1234, 65535, 65535, 65535]]
    assert read_facts(path)["encoding"]["clamped_pixels"] == 2


def test_side_is_photo_gap_and_depth(tmp_path: Path) -> None:
    depth = make(DepthKind.METRIC_DEPTH)
    with Image.open(written(tmp_path, depth, "side")) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (23, 31 + 50 + 31, 3)
    assert np.array_equal(pixels[:, :31], RGB)
    assert (pixels[:, 31:81] == 255).all()
    assert np.array_equal(pixels[:, 81:], to_color(depth, "Spectral_r"))


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in WRITABLE:
        row = STILLS[name]
        depth = ramp(DepthKind.METRIC_DEPTH if row.scale else DepthKind.RELATIVE_DISPARITY)
        first = written(tmp_path / "a", depth, name).read_bytes()
        assert written(tmp_path / "b", depth, name).read_bytes() == first, name


@pytest.mark.parametrize("name", ["color", "gray", "gray8", "side"])
def test_pngs_hold_their_pixels_for_any_reader(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = make(DepthKind.RELATIVE_DISPARITY)
    gap = np.full((23, 50, 3), 255, np.uint8)
    color = to_color(depth, "Spectral_r")
    pixels = {"color": color, "gray": to_gray16(depth), "gray8": to_gray8(depth), "side": np.hstack([RGB, gap, color])}
    for band in (1, 500, 1 << 20):  # bytes packed at a time: a row, a few, all
        monkeypatch.setattr(png, "_BAND_BYTES", band)
        path = written(tmp_path, depth, name)
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), pixels[name])
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(found[..., ::-1] if found.ndim == 3 else found, pixels[name])


def masked(kind: DepthKind) -> DepthMap:
    """A map whose left half means nothing, and would be the nearest and the farthest."""
    depth = make(kind)
    values, valid = depth.values.copy(), np.ones(depth.values.shape, bool)
    values[:, :15] = np.where(np.arange(15) % 2, 1000, -1000)
    valid[:, :15] = False
    return DepthMap(values, kind, PROVENANCE, depth.max_depth, valid)


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize(
    ("name", "steps"),
    [("npz", np.inf), ("exr", np.inf), ("gray", 65534), ("gray8", 254), ("color", 255), ("side", 255)],
)
def test_every_format_says_which_pixels_are_invalid(tmp_path: Path, kind: DepthKind, name: str, steps: float) -> None:
    depth = masked(kind)
    path = written(tmp_path, depth, name)
    back = read_depth(path)
    assert back.valid is not None and np.array_equal(back.valid, depth.valid)
    lo, hi = depth.range
    assert 0 < lo < hi < 8
    metres = name == "gray" and kind is DepthKind.METRIC_DEPTH
    bound = 0.0005 if metres else (hi - lo) / steps
    error = np.abs(back.values - depth.values)[depth.valid].max()
    assert error <= bound * 1.001 + 1e-6 * (steps < np.inf)
    if name == "npz":
        with np.load(path) as arrays:
            assert np.isnan(arrays["depth"][:, :15]).all() and not np.isnan(arrays["depth"][:, 15:]).any()
            assert json.loads(str(arrays["meta"]))["invalid_pixels"] == 15 * 23
        return
    if name == "exr":
        assert np.isnan(read_exr(path)[0][:, :15]).all() and read_facts(path)["invalid_pixels"] == 15 * 23
        return
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if name in ("gray", "gray8"):
        assert (pixels[:, :15] == 0).all() and (pixels[:, 15:] > 0).all()
    else:
        left = 0 if name == "color" else 31 + 50
        assert (pixels[:, :left, 3] == 255).all()
        assert (pixels[:, left : left + 15, 3] == 0).all() and (pixels[:, left + 15 :, 3] == 255).all()
        assert np.array_equal(pixels[:, left + 15 :, 2::-1], to_color(depth, "Spectral_r")[:, 15:])


def test_valid_depth_is_never_the_0_that_marks_invalid_pixels(tmp_path: Path) -> None:
    values = np.array([[0.0001, 2.0, 3.0]], np.float32)
    depth = DepthMap(values, DepthKind.METRIC_DEPTH, PROVENANCE, 20.0, np.array([[True, True, False]]))
    with Image.open(written(tmp_path, depth, "gray")) as image:
        assert np.asarray(image).tolist() == [[1, 2000, 0]]


def test_pixels_that_mean_nothing_are_not_clamped_ones(tmp_path: Path) -> None:
    values = np.array([[1, 70, 90]], np.float32)
    depth = DepthMap(values, DepthKind.METRIC_DEPTH, PROVENANCE, 80.0, np.array([[True, True, False]]))
    assert clamped_pixels(depth) == 1


@pytest.mark.parametrize("name", ["npz", "exr", "gray", "gray8", "color"])
def test_a_map_of_nothing_valid_survives(tmp_path: Path, name: str) -> None:
    depth = DepthMap(
        np.ones((2, 3), np.float32), DepthKind.RELATIVE_DISPARITY, PROVENANCE, None, np.zeros((2, 3), bool)
    )
    back = read_depth(written(tmp_path, depth, name))
    assert back.valid is not None and not back.valid.any()


def test_a_flat_map_survives(tmp_path: Path) -> None:
    depth = DepthMap(np.full((2, 3), 1.5, np.float32), DepthKind.RELATIVE_DISPARITY, PROVENANCE)
    for name in ("npz", "exr", "gray", "gray8", "color"):
        assert np.allclose(read_depth(written(tmp_path, depth, name)).values, 1.5), name


def test_foreign_and_broken_files_are_named_in_one_line(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    np.savez(tmp_path / "foreign.npz", other=np.zeros(3))
    whole = written(tmp_path, make(DepthKind.METRIC_DEPTH), "npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:500])
    png = written(tmp_path, make(DepthKind.METRIC_DEPTH), "gray").read_bytes()
    (tmp_path / "cut.png").write_bytes(png[:-400])
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "text.exr").write_text("hello")
    exr = written(tmp_path, make(DepthKind.METRIC_DEPTH), "exr").read_bytes()
    (tmp_path / "cut.exr").write_bytes(exr[:-40])
    for name in ("plain.png", "foreign.npz", "cut.npz", "cut.png", "text.npz", "text.exr", "cut.exr", "missing.npz"):
        with pytest.raises(OutputError) as error:
            read_depth(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_write_depth_goes_by_the_suffix(tmp_path: Path) -> None:
    depth = make(DepthKind.RELATIVE_DISPARITY)
    write_depth(depth, tmp_path / "a.npz")
    write_depth(depth, tmp_path / "a.exr")
    write_depth(depth, tmp_path / "a.png")
    write_depth(depth, tmp_path / "b.png", "color", "turbo")
    for name in ("a.npz", "a.exr"):
        assert np.array_equal(read_depth(tmp_path / name).values, depth.values)
    with Image.open(tmp_path / "a.png") as gray, Image.open(tmp_path / "b.png") as color:
        assert (gray.mode, color.mode) == ("I;16", "RGB")
    with pytest.raises(UsageError, match=r"npz is written as \.npz, not \.png"):
        write_depth(depth, tmp_path / "c.png", "npz")
    with pytest.raises(DepthError, match="photo"):
        write_depth(depth, tmp_path / "c.png", "side")


def test_streams_are_written_too() -> None:
    stream = io.BytesIO()
    write_still(STILLS["gray"], make(DepthKind.RELATIVE_DISPARITY), stream)
    assert stream.getvalue().startswith(b"\x89PNG")


def test_formats_are_named_once_each_in_any_way() -> None:
    assert parse_formats(["color,npz", "gray", "npz"]) == ("color", "npz", "gray")
    with pytest.raises(UsageError, match="choose from: color, gray"):
        parse_formats(["jpeg"])
    with pytest.raises(UsageError, match="no output format"):
        parse_formats([","])


def test_a_format_of_pictures_is_the_same_for_frames_and_has_its_old_name() -> None:
    assert parse_formats(["gray,png16"], CLIPS) == ("png16",)
    assert parse_formats(["png16"]) == ("gray",)
    assert CLIPS["png16"] is STILLS["gray"] and {"color", "gray8", "side", "npz", "exr"} <= set(CLIPS)
    assert len({row.clip for row in CLIPS.values()}) == len(CLIPS)


def test_a_film_is_no_format_of_a_picture() -> None:
    with pytest.raises(UsageError, match=r"mp4 is a film.*color, gray"):
        parse_formats(["mp4"])


def test_every_format_of_pictures_is_one_of_clips_too() -> None:
    assert set(STILLS) - {"far0"} <= {row.name for row in CLIPS.values()}
    assert [name for name, row in STILLS.items() if not row.folder] == ["side", "html"]  # a film and one page there


def test_the_suffix_of_a_file_implies_its_format() -> None:
    assert [implied_format(name, "color") for name in ("a.png", "a.NPZ", "a.exr", "a", "a.PLY", "a.glb")] == [
        *("color", "npz", "exr", "color", "ply", "glb")
    ]


def test_a_file_that_ends_early_is_known_as_such(tmp_path: Path) -> None:
    for name in WRITABLE:
        path = written(tmp_path, ramp(DepthKind.METRIC_DEPTH), name)
        assert not is_cut_short(path)
        path.write_bytes(path.read_bytes()[:-30])
        assert is_cut_short(path), name
