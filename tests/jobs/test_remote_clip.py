"""What a clip is sent with, and what of an answer is refused; the journeys are in tests/serve."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import EngineError, UsageError
from depthcli.io.codecs.formats import CLIPS
from depthcli.jobs.remote_clip import _atomic_frames, _name_for_clips, _unpack

TASKS = {"tiny": "picture", "vits": "picture", "vda-vitb": "clip", "vda-vits": "clip"}


@pytest.mark.parametrize(
    ("model", "steady", "name"),
    [
        ({}, "auto", "vda-vitb"),
        ({"encoder": "vits"}, "auto", "vda-vits"),
        ({"encoder": "vits"}, "on", "vits"),
        ({"encoder": "tiny"}, "auto", "tiny"),
        ({"encoder": "vitl"}, "auto", "vitl"),
        ({}, "off", "tiny"),
        ({"model": "vits"}, "auto", "vits"),
        ({"metric": "indoor"}, "auto", "metric-indoor-vits"),
    ],
)
def test_a_video_model_is_taken_where_one_would_be_taken_here(model, steady, name):
    assert _name_for_clips(ModelChoice(**model), ClipChoice(steady=steady), TASKS) == name


def test_a_file_of_weights_is_for_this_machine():
    with pytest.raises(UsageError, match="`checkpoint`"):
        _name_for_clips(ModelChoice(checkpoint=Path("x.pth")), ClipChoice(), TASKS)


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    for name in ("../x.png", "/x.png", "a/x.png", ".."):
        with zipfile.ZipFile("frames.zip", "w") as archive:
            archive.writestr(name, b"data")
        Path("out").mkdir(exist_ok=True)
        with pytest.raises(EngineError, match="with the name"):
            _unpack(Path("frames.zip"), Path("out"))
    Path("frames.zip").write_bytes(b"PK no archive")
    with pytest.raises(EngineError, match="damaged"):
        _unpack(Path("frames.zip"), Path("out"))
    assert list(Path("out").iterdir()) == []


def test_frames_take_the_place_of_those_of_another_run_and_of_nothing_else(tmp_path):
    out = Path("a_depth_png")
    out.mkdir()
    for name in ("frame_000000.png", "frame_000007.png", "notes.txt"):
        (out / name).write_text("old")
    with _atomic_frames(out, CLIPS["png16"].suffix) as folder:
        (folder / "frame_000000.png").write_text("new")
        assert (out / "frame_000000.png").read_text() == "old"
    assert {path.name: path.read_text() for path in out.iterdir()} == {"frame_000000.png": "new", "notes.txt": "old"}
    assert [path.name for path in Path().iterdir()] == ["a_depth_png"]
