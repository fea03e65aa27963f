"""Damaged files of every format: a short pass of benchmarks/fuzz.py over the readers, and the script itself."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features
from PIL.PngImagePlugin import PngImageFile

from depthcli.choices.source import SourceChoice
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import DepthError, OutputError, PictureError
from depthcli.eval.lists import read_list
from depthcli.eval.truth import read_truth
from depthcli.io.cameras.files import read_cameras
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.foreign import count_maps, read_map
from depthcli.io.codecs.numbers import read_numbers
from depthcli.io.pictures.images import picture_size, read_picture
from depthcli.io.scenes.colmap import read_colmap
from depthcli.io.video.depth_film import DepthFilm
from depthcli.jobs.info import examine
from depthcli.jobs.presets import ColmapScene
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT))
fuzz = importlib.import_module("benchmarks.fuzz")

ROUNDS = 15
GROUPS = ("format-", "shape-", "camera-", "colmap")
HERE = {"heic": find_spec("pillow_heif") is not None, "avif": features.check("avif"), "jp2": features.check("jpg_2000")}
PICTURES = [name for name in fuzz.PICTURES if HERE.get(name, True)]


def outcomes(data: bytes, name: str, read: Callable[[bytes], object]) -> set[str]:
    """What became of damaged copies; anything but an error raised on purpose comes through."""
    found = set()
    for number in range(ROUNDS):
        try:
            read(fuzz.mutate(data, fuzz.source_of(0, name, number)))
            found.add("accepted")
        except DepthError as error:
            assert "\n" not in str(error), str(error)
            found.add("refused")
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_a_damaged_picture_is_read_or_refused_in_a_line(name: str) -> None:
    suffix, options = fuzz.PICTURES[name]
    data = fuzz.picture(suffix, **options)
    size = picture_size(data)
    assert size is not None and sorted(size) == sorted(fuzz.SIZE)

    def read(changed: bytes) -> None:
        picture_size(changed)
        rgb = read_picture(changed, max_pixels=1_000_000).rgb
        assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3

    read(data)
    assert "refused" in outcomes(data, name, read)


def test_the_size_of_a_png_is_known_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of 328 bytes can claim gigabytes."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = BytesIO()
    Image.fromarray(fuzz.scene()).save(stream, "PNG", exif=exif)
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert picture_size(fuzz.picture(".png")) == fuzz.SIZE
    assert picture_size(stream.getvalue()) == fuzz.SIZE[::-1]


@pytest.mark.parametrize("file", [*fuzz.DEPTH_FILES, "a.exr"])
def test_a_damaged_depth_file_is_read_or_refused_in_a_line(file: str) -> None:
    data, path = fuzz.depth_file(file), Path(file)

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        if file.endswith((".npy", ".pfm")):
            values = read_numbers(path)
        else:
            values = read_depth(path).values
        assert values.ndim == 2

    read(data)
    assert "refused" in outcomes(data, file, read)


@pytest.mark.parametrize("name", fuzz.STRANGERS)
def test_a_damaged_file_of_another_program_is_read_or_refused_in_a_line(name: str) -> None:
    file, options = fuzz.STRANGERS[name]
    given = dict(zip(options[::2], options[1::2]))
    choice, data = SourceChoice(given.get("--from"), given.get("--kind")), fuzz.stranger(name)
    Path(file).parent.mkdir(parents=True, exist_ok=True)

    def read(changed: bytes) -> None:
        Path(file).write_bytes(changed)
        for number in range(min(count_maps(Path(file), choice), 4)):
            assert read_map(Path(file), choice, number).values.ndim == 2

    read(data)
    assert "refused" in outcomes(data, name, read)


@pytest.mark.parametrize("name", [*fuzz.FORMATS, *fuzz.SHAPES, *fuzz.CAMERAS, ".bin", ".txt"])
def test_damaged_files_of_a_kind_are_read_or_refused_in_a_line(name: str) -> None:
    """Each file of it in its turn: of some there are several."""
    kind = next(fuzz.KINDS[f"{group}{name}"] for group in GROUPS if f"{group}{name}" in fuzz.KINDS)
    kind.make(Path())
    targets = sorted(path for pattern in kind.targets for path in Path().glob(pattern) if path.is_file())
    found = set()
    for target in targets:
        data = target.read_bytes()

        def read(changed: bytes, target: Path = target) -> None:
            target.write_bytes(changed)
            if name in fuzz.FORMATS:
                read_depth(targets[0])
            elif name in fuzz.SHAPES:
                examine(next(path for path in targets if path.suffix == f".{name.rpartition('.')[2]}"))
            elif name in fuzz.CAMERAS:
                read_cameras(targets[0])
            else:
                ColmapScene(Path("model")).fit(fuzz.depth_map(), "a")
                read_colmap(Path("model"))

        read(data)
        found |= outcomes(data, name, read)
        target.write_bytes(data)
    assert "refused" in found


def test_a_damaged_film_gives_its_maps_or_is_refused_in_a_line() -> None:
    pytest.importorskip("av")
    fuzz._film(Path())
    path = Path("a_depth.mkv")
    data = path.read_bytes()

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        with closing(DepthFilm(path)) as film:
            for number in range(min(film.count, 8)):
                assert film.map(number).size == fuzz.SIZE

    read(data)
    assert "refused" in outcomes(data, "film", read)


@pytest.mark.parametrize("file", ["a_depth.png", "a_depth_gray.png"])
def test_a_header_that_claims_gigabytes_costs_none(file: str) -> None:
    damaged = bytearray(fuzz.depth_file(file))
    damaged[21] = 52  # of the height: 3.4 million rows
    Path(file).write_bytes(fuzz._png_sums(bytes(damaged)))
    with pytest.raises(OutputError, match="claims 40x3407902 pixels"):
        read_depth(file)
    if file == "a_depth_gray.png":
        with pytest.raises(PictureError, match="claims 40x3407902 pixels"):
            read_numbers(Path(file))


def test_a_signalling_nan_is_unknown_without_a_warning() -> None:
    values = np.ones((3, 4), "<f4")
    values.view("<u4")[1, 2] = 0x7F800001
    np.save("a.npy", values)
    truth = read_truth(Path("a.npy"), "disparity")
    assert np.isnan(truth.values[1, 2]) and np.isfinite(truth.values).sum() == 11


def test_numbers_beyond_float32_are_refused_without_a_warning() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        DepthMap(np.full((2, 3), 1e300), DepthKind.METRIC_DEPTH)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_a_damaged_list_is_read_or_refused_in_a_line(suffix: str) -> None:
    path, data = Path(f"list{suffix}"), fuzz.list_text(suffix).encode()

    def read(changed: bytes) -> None:
        path.write_bytes(changed)
        assert read_list(path)

    read(data)
    assert "refused" in outcomes(data, suffix, read)


def test_a_round_is_the_same_each_time_and_differs_from_the_next() -> None:
    data = fuzz.picture(".png")
    again = [fuzz.mutate(data, fuzz.source_of(3, "png", number)) for number in (0, 0, 1)]
    assert again[0] == again[1] != again[2] and again[0] != data


def test_half_of_the_pngs_have_check_sums_that_are_right() -> None:
    data = fuzz.picture(".png")
    damaged = bytearray(data)
    damaged[20] ^= 1  # of the width
    found = fuzz._png_sums(bytes(damaged))
    assert found[:29] == damaged[:29] and found[33:] == data[33:]
    assert int.from_bytes(found[29:33], "big") == zlib.crc32(found[12:29])


def test_even_nothing_can_be_changed() -> None:
    for number in range(50):
        rng = fuzz.source_of(0, "nothing", number)
        for change in fuzz._CHANGES:
            assert isinstance(change(b"", rng), bytes) and isinstance(change(b"a", rng), bytes)


@pytest.mark.parametrize(
    ("answer", "log", "finding"),
    [
        (("", 0), "", ""),
        (("", 1), "error: a.jpg cannot be decoded", ""),
        (("", 1), "", "without a message"),
        (("", 99), "error: odd", "exit code 99"),
        (("", 1), "error: a.jpg: the machine ran out of memory", "more than 4 GB"),
        (("", 0), "lib/x.py:3: UserWarning: odd\n", "printed: lib/x.py:3: UserWarning: odd"),
        (("", 1), "Traceback (most recent call last):\n  File", "printed: Traceback"),
        (("Traceback:\n  depthcli/io/x.py\nKeyError: 3", None), "", "KeyError: 3 depthcli/io/x.py"),
        (("crash: the process ended with -11", None), "", "crash: the process ended with -11"),
    ],
)
def test_what_a_command_should_never_do_is_found(answer, log: str, finding: str) -> None:
    Path("log").write_text(log)
    found, _ = fuzz.judge(answer, Path(), fuzz.KINDS["png"], fuzz.Seed(Path(), "", None))
    assert found == finding or (finding and finding in found)


def test_another_map_is_found_if_it_names_the_same_weights() -> None:
    kind, path = fuzz.KINDS["torchscript"], Path("out/a_depth.npz")
    path.parent.mkdir()
    path.write_bytes(fuzz.depth_file("a_depth.npz"))
    (values, digest), *_ = fuzz._maps(Path(), kind)
    for wanted, finding in (((values, digest), ""), ((values + 1, digest), "another"), ((values + 1, "other"), "")):
        found, outcome = fuzz.judge(("", 0), Path(), kind, fuzz.Seed(Path(), "", [wanted]))
        assert outcome == "accepted" and found.startswith(finding) and bool(found) == bool(finding)


def test_formats_go_by_their_names_and_groups() -> None:
    assert fuzz.chosen("png,mp4") == ["png", "mp4"]
    assert set(fuzz.chosen("pictures")) == set(fuzz.PICTURES) and set(fuzz.chosen("all")) == set(fuzz.KINDS)
    with pytest.raises(SystemExit, match="no format is called 'doc'"):
        fuzz.chosen("doc")


@pytest.mark.slow
def test_the_script_runs_the_command_in_children() -> None:
    argv = [
        sys.executable,
        ROOT / "benchmarks/fuzz.py",
        "--formats",
        "ppm,list.csv",
        "--rounds",
        "1",
        "--children",
        "1",
    ]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines()[-1] == "0 findings in 2 rounds, seed 0"
