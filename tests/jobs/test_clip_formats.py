"""Every format of pictures as a format of frames: each file is read back by the readers of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import read_depth, read_shape
from depthcli.choices.camera import CameraChoice
from depthcli.depthmap import DepthKind
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.io.codecs.files import read_facts
from depthcli.io.codecs.formats import CLIPS, Holds
from depthcli.io.video.reader import frames_of_folder
from depthcli.jobs.clip_results import is_our_map
from depthcli.jobs.manifest import DONE
from tests.conftest import tree
from tests.jobs.test_clip import after, job, run
from tests.jobs.test_clip_metres import FAR, NEAR, Plain, frames, metres

MAPS = [name for name, row in CLIPS.items() if row.folder and not row.spatial and name != "3dgs"]
# Steps of 16 bits; of 8 bits one of them; of metres the scale of the format.
STEPS = {"color": 0.03, "gray8": 0.03, "controlnet": 0.5, "rgbd": 0.03, "kitti": 1 / 256}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip in metres, with a camera, in all formats of maps and some of shapes."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names = (*MAPS, "ply", "pcd", "glb", "obj", "normal")
        facts = {"metres": metres(NEAR, FAR), "cameras": GivenCameras(CameraChoice(focal=60))}
        assert run(job(frames(), names, **facts), Plain()).status == DONE
    return folder / "out"


def files_of(made: Path, name: str) -> list[Path]:
    row = CLIPS[name]
    return sorted((made / f"a{row.clip}").glob(f"frame_*{row.suffix}"))


@pytest.mark.parametrize("name", MAPS)
def test_each_frame_is_the_map_that_a_picture_would_be(made, name):
    found = files_of(made, name)
    assert len(found) == 6
    for index, path in enumerate(found):
        depth = read_depth(path)
        assert depth.kind is DepthKind.METRIC_DEPTH and depth.size == (64, 48)
        assert np.allclose(depth.values[24, [8, 56]], (1, 4), atol=STEPS.get(name, 1e-3))
        assert depth.camera.focal == (60, 60) and depth.calibration.sources == (NEAR, FAR)
        assert read_facts(path)["frame"] == {"index": index, "time": index / 24}


@pytest.mark.parametrize(("name", "scale"), [("mm", 1000), ("scannet", 1000), ("kitti", 256), ("tum", 5000)])
def test_codes_are_metres_times_the_scale_of_the_format(made, name, scale):
    codes = np.asarray(Image.open(files_of(made, name)[2]))
    assert codes[24, [8, 56]].tolist() == [scale, 4 * scale]


@pytest.mark.parametrize("name", ["ply", "pcd", "glb", "obj"])
def test_each_frame_is_a_shape_in_metres_with_the_colours_of_its_frame(made, name):
    shape = read_shape(files_of(made, name)[3])
    points = shape.points if CLIPS[name].holds is Holds.POINTS else shape.vertices
    depths = points[:, 2] * (1 if shape.axes == "opencv" else -1)
    assert shape.unit == "m" and np.isclose(depths.min(), 1, atol=0.01) and np.isclose(depths.max(), 4, atol=0.01)
    if name == "ply":
        assert sorted({int(gray) for gray in shape.colors[:, 0]}) == [50, 200]
    assert shape.facts["frame"]["index"] == 3


def test_what_was_written_is_not_taken_for_frames(made):
    for name in ("tiff", "white", "normal", "rgbd"):
        path = files_of(made, name)[0]
        assert is_our_map(path) and frames_of_folder(path.parent) == []


def test_frames_of_another_run_go_with_what_stands_beside_them(tmp_path):
    source, names = frames(), ("pfm", "obj")
    assert run(job(source, names), Plain()).status == DONE
    from depthcli.io.video.clip import Selection

    shorter = job(source, names, selection=Selection(max_frames=2), if_exists="overwrite")
    assert run(shorter, Plain()).status == DONE
    assert len(list(Path("out/a_depth_pfm").iterdir())) == 4 and len(list(Path("out/a_depth_obj").iterdir())) == 6


def test_the_codes_of_3dgs_have_one_scale_in_all_frames(tmp_path):
    source = frames(levels=((200, 50), (100, 50)))
    assert run(job(source, ("3dgs",)), Plain()).status == DONE
    codes = [np.asarray(Image.open(f"out/a_depth_3dgs/frame_00000{index}.png")).astype(float) for index in range(2)]
    low, high = (json.loads(Path("out/a_depth_3dgs.json").read_text())["encoding"][end] for end in ("lo", "hi"))
    for code, near in zip(codes, (2.0, 1.0)):
        assert np.allclose(low + code[24, [8, 56]] / 65535 * (high - low), (near, 0.5), atol=1e-4)


def test_a_frame_without_a_point_has_no_file_and_takes_no_other_with_it(tmp_path):
    source = frames(levels=((200, 50), (200, 50), (0, 0), (200, 50)))
    result = run(job(source, ("ply", "npz")), Plain())
    assert result.status == DONE and "ply lacks frames, such as 2" in " ".join(result.notes)
    assert [path.stem[-1] for path in sorted(Path("out/a_depth_ply").glob("*.ply"))] == ["0", "1", "3"]
    assert len(list(Path("out/a_depth_npz").iterdir())) == 4


@pytest.mark.parametrize("calls", [8, 10])
def test_shapes_and_their_files_are_the_same_after_a_resumed_run(tmp_path, calls):
    source, names = frames(), ("obj", "glb", "npy")
    assert run(job(source, names, "whole"), Plain()).status == DONE
    assert run(job(source, names, "parts"), Plain(), after(calls)) is None
    assert run(job(source, names, "parts"), Plain()).status == DONE
    assert tree("whole") == tree("parts")
