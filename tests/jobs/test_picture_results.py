"""By what the results in a folder were made, as the manifest and the files say it."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import UsageError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.manifest import Manifest, Result
from depthcli.jobs.picture_file import PictureFile
from depthcli.jobs.picture_results import ExistingResults, MadeBy, made_settings

PATHS = [Path("out/a_depth.png"), Path("out/b_depth.png")]
TINY = MadeBy("tiny", "ab" * 32, "encoder=tiny input-size=56 precision=auto")


def write(path: Path, maker: MadeBy = TINY) -> None:
    origin = Provenance(model=maker.model, sha256=maker.weights, source="a.jpg")
    depth = DepthMap(np.ones((3, 4), np.float32), DepthKind.RELATIVE_DISPARITY, origin)
    OutputSpec().write(depth, np.empty(0), [path])


def note(name: str, path: Path, maker: MadeBy = TINY) -> None:
    facts = {"model": maker.model, "weights": maker.weights, "settings": maker.settings}
    Manifest(Path("out/manifest.jsonl")).add(Result(name, (str(path),), "done", **facts))


def there(replaces: bool = False, paths: list[Path] = PATHS) -> ExistingResults:
    return ExistingResults(paths, Manifest(Path("out/manifest.jsonl")), replaces)


def test_a_folder_that_is_new_takes_anything() -> None:
    assert there().made_by == {} and there().model == ""
    there().check(TINY)


def test_what_the_manifest_says_counts_as_long_as_the_file_is_there() -> None:
    note("a.jpg", PATHS[0])
    assert there().made_by == {}
    write(PATHS[0])
    assert there().made_by == {TINY: "out/a_depth.png"} and there().model == "tiny"


def test_what_the_files_say_counts_where_there_is_no_manifest() -> None:
    Path("out").mkdir()
    PATHS[0].write_text("mine")
    write(PATHS[1])
    assert there().made_by == {MadeBy("tiny", "ab" * 32): "out/b_depth.png"}
    assert ExistingResults(PATHS, None, False).model == "tiny"


def test_results_of_other_pictures_count_too() -> None:
    write(Path("out/deep/z_depth_gray.png"))
    note("deep/z.jpg", Path("out/deep/z_depth_gray.png"))
    assert there().model == "tiny"


def test_what_is_replaced_does_not_count_and_what_stays_does() -> None:
    for name, path in zip("ab", PATHS):
        write(path)
        note(f"{name}.jpg", path)
    assert there(replaces=True).made_by == {}
    assert there(replaces=True, paths=PATHS[:1]).made_by == {TINY: "out/b_depth.png"}


def test_clips_in_the_same_folder_do_not_count() -> None:
    Path("out").mkdir()
    Path("out/c_depth.mp4").touch()
    note("c.mp4", Path("out/c_depth.mp4"), MadeBy("vda-vits", "cd" * 32))
    assert there().made_by == {}


@pytest.mark.parametrize("row", [{"model": ["tiny"]}, {"model": 7, "weights": None}, {"settings": {}}, {"files": 3}])
def test_rows_that_make_no_sense_are_of_no_use_and_do_no_harm(row: dict) -> None:
    write(PATHS[0], MadeBy())
    Path("out/manifest.jsonl").write_text(json.dumps({"input": "a.jpg", "outputs": ["a_depth.png"], **row}) + "\n")
    there().check(MadeBy("", "", "input-size=56"))


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        (MadeBy("vits", "", ""), "by tiny, and this run would take vits"),
        (MadeBy("tiny", "cd" * 32, ""), "with other weights of tiny (sha256 abababababab, not cdcdcdcdcdcd)"),
        (MadeBy("", "", "input-size=70 precision=auto"), "with `input_size` 56, and this run has `input_size` 70"),
        (MadeBy("tiny", "", "precision=auto"), "with `input_size` 56, and this run has none"),
        (MadeBy("", "", "max-depth=3.0 input-size=56"), "without `max_depth`, and this run has `max_depth` 3.0"),
    ],
)
def test_what_does_not_go_together(wanted: MadeBy, difference: str) -> None:
    write(PATHS[0])
    note("a.jpg", PATHS[0])
    with pytest.raises(UsageError) as raised:
        there().check(wanted)
    assert raised.value.message == f"out/a_depth.png was made {difference}"


@pytest.mark.parametrize(
    "wanted",
    [
        MadeBy(),
        MadeBy("tiny"),
        MadeBy("", "ab" * 32),
        MadeBy("tiny", "ab" * 32, "encoder=auto model=tiny checkpoint=x input-size=56 backend=onnx precision=auto"),
    ],
)
def test_what_goes_together(wanted: MadeBy) -> None:
    """How the model was named, and which engine computes it, makes no other results."""
    write(PATHS[0])
    note("a.jpg", PATHS[0])
    there().check(wanted)


def test_the_digest_is_of_the_whole_content_whatever_holds_it(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    file, held = PictureFile(tmp_path / "a", "a"), PictureFile(content, "a")
    with closing(file):
        assert file.sha256 == held.sha256 and file.file_size == held.file_size == len(content)
        assert held.is_as_noted(file.facts()) and file.is_as_noted(held.facts())
    (tmp_path / "b").write_bytes(content[:-1] + b"x")
    with closing(PictureFile(tmp_path / "b", "b")) as other:
        assert not other.is_as_noted(file.facts())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_and_a_device_have_no_facts(tmp_path: Path) -> None:
    """Opening the one waits for ever, and the other never ends."""
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(OSError, match="is not a file"):
            PictureFile(path, path.name).facts()
        with pytest.raises(OSError, match="is not a file"):
            assert PictureFile(path, path.name).sha256


def test_a_folder_that_was_begun_with_another_backend_by_measurement_is_noticed() -> None:
    options = "backend=auto precision=auto"
    note("a.jpg", PATHS[0], MadeBy("tiny", "ab" * 32, made_settings(options, "onnx")))
    write(PATHS[0])
    for remembered, now in (("", "its fixed order"), ("torch", "torch, measured as the fastest")):
        with pytest.raises(UsageError) as raised:
            there().check(MadeBy("tiny", "ab" * 32, options, remembered))
        difference = f"with `backend` auto by onnx, measured as the fastest, and this run would take {now}"
        assert f"was made {difference}" in str(raised.value)
    for wanted in (
        MadeBy("tiny", "ab" * 32, options, "onnx"),
        MadeBy("tiny", "ab" * 32, options),  # not known yet
        MadeBy("tiny", "ab" * 32, "backend=torch precision=auto"),
    ):
        there().check(wanted)


def test_a_folder_that_was_begun_by_the_fixed_order_notices_a_measurement() -> None:
    note("a.jpg", PATHS[0], MadeBy("tiny", "ab" * 32, made_settings("backend=auto precision=auto", "")))
    write(PATHS[0])
    with pytest.raises(UsageError, match="by its fixed order, and this run would take onnx, measured as the fastest"):
        there().check(MadeBy("tiny", "ab" * 32, "backend=auto precision=auto", "onnx"))
