"""Scenes in chunks: the path and the depth of a known walk, resumed to the same bytes, and every number of views."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.choices.clips import FramesChoice
from depthcli.choices.scenes import ChunksChoice, SceneChoice, ViewsChoice
from depthcli.errors import OutputError, UsageError
from depthcli.eval.poses import score_path
from depthcli.geometry.poses import inverted, quaternions_of, square
from depthcli.io.codecs.files import read_depth
from depthcli.io.points.files import read_shape
from depthcli.io.trajectories import read_trajectory, write_intrinsics, write_kitti, write_matrices, write_tum
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Result
from depthcli.jobs.scene import Made, Note, SceneJob, Shot, Step, Unread, run_scene
from depthcli.jobs.scene_inputs import recognise
from depthcli.predict.scene import SceneEstimator
from tests.conftest import environment, tree
from tests.io.video.clips import make_clip
from tests.jobs import walks

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
FORMATS = ("poses", "ply", "glb", "cameras", "transforms", "depth_vis", "depth-npz")


def job(*formats: str, chunk: int = 8, overlap: int | None = None, loops: bool = True, **changes: object) -> SceneJob:
    found = recognise(changes.pop("inputs", ["walk"]))  # type: ignore[arg-type]
    common = {"views": ViewsChoice(input_size=walks.SIZE[0]), "folder": Path("out"), "show": SceneChoice(confidence=0)}
    chunks = ChunksChoice(chunk, overlap, loops)
    return SceneJob(found, formats=formats, chunks=chunks, **{**common, **changes})  # type: ignore[arg-type]


def run(work: SceneJob) -> tuple[dict[str, Result], list[str]]:
    results, notes = {}, []
    for event in run_scene(work, lambda: SceneEstimator(work.model, work.backend, views=work.views)):
        if isinstance(event, Note):
            notes.append(event.text)
        elif not isinstance(event, (Made, Shot, Step)):
            result = event.result if isinstance(event, Unread) else event
            results[result.input] = result
    return results, notes


def path() -> np.ndarray:
    return read_trajectory(Path("out/camera_poses.txt")).extrinsics


def share_of_path(walker: walks.Walker) -> float:
    """Return the error of places as a share of the path's length."""
    score = score_path(path(), walker.truth)
    return score.ate_rmse / score.length


def scale_drift(walker: walks.Walker) -> float:
    """Return by how much the sizes of parts of the path differ, each as long as a chunk."""
    parts = [slice(start, start + 60) for start in range(0, len(walker.truth) - 59, 60)]
    scales = [score_path(path()[part], walker.truth[part]).scale for part in parts]
    return max(scales) / min(scales) - 1


@pytest.mark.slow
def test_a_walk_of_600_views_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds: a shorter walk would have no drift."""
    walker = walks.use_walk(monkeypatch, 600)
    walks.pictures(Path("walk"), 600)
    results, notes = run(job("poses", chunk=60, loops=False))
    assert all(result.status == DONE for result in results.values()) and walker.runs == 19
    assert "600 views in 19 chunks of up to 60, which take 16 MB on disk, in out/chunks" in notes
    open_error = share_of_path(walker)
    open_drift = scale_drift(walker)
    assert open_error < 0.01 and open_drift < 0.01
    run(job("poses", chunk=60, if_exists="overwrite"))  # of the same chunks
    assert walker.runs == 20
    assert share_of_path(walker) < min(0.002, open_error)
    assert scale_drift(walker) < 0.01


def test_a_fifth_of_wrong_depth_bends_the_path_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 200, wrong=0.2)
    walks.pictures(Path("walk"), 200)
    run(job("poses", chunk=40))
    assert share_of_path(walker) < 0.02


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 12, 13])
def test_every_number_of_views_works(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    walker = walks.use_walk(monkeypatch, count)
    walks.pictures(Path("walk"), count)
    results, _ = run(job("poses", "ply", "glb", "html", "transforms", "colmap", "depth-npz", loops=False))
    assert {result.status for result in results.values()} == {DONE}
    found = read_trajectory(Path("out/trajectory_kitti.txt"))
    assert len(found) == count and walker.runs == max(1, -(-(count - 4) // 4))
    assert Path("out/chunks").exists() == (count > 8)


def test_all_files_tell_one_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 30, noise=0.0, bias=0.0)
    walks.pictures(Path("walk"), 30)
    results, _ = run(job(*FORMATS, "colmap"))
    assert {result.status for result in results.values()} == {DONE}
    poses = read_trajectory(Path("out/camera_poses.txt")).extrinsics
    for name in ("cameras.json", "transforms.json", "trajectory_tum.txt", "trajectory_kitti.txt", "sparse/0"):
        assert np.allclose(read_trajectory(Path("out") / name).extrinsics, poses, atol=1e-9), name
    tum = read_trajectory(Path("out/trajectory_tum.txt"))
    assert tum.times is not None and tum.times.tolist() == list(range(30))
    numbers = np.loadtxt("out/intrinsic.txt")
    assert np.allclose(numbers, walks.MATRIX[(0, 1, 0, 1), (0, 1, 2, 2)], atol=1e-4)
    # Points of the cloud lie on the walls and pillars: each is as far from some camera as that one sees.
    depth = read_depth("out/depth/00029_depth.npz")
    assert depth.camera is not None and np.allclose(depth.camera.extrinsics, poses[29], atol=1e-9)
    scale = score_path(poses, walker.truth).scale
    assert np.median(depth.values * scale / walks.traced(walker.truth[29])) == pytest.approx(1, abs=0.01)
    points = np.asarray(read_shape("out/scene.ply").points)
    assert len(points) < 30 * walks.SIZE[0] * walks.SIZE[1] / 2  # views that show the same are thinned
    centres = inverted(poses)[:, :, 3]
    assert (points.min(axis=0) < centres.min(axis=0)).all() and (points.max(axis=0) > centres.max(axis=0)).all()


def test_a_run_that_is_there_is_skipped_and_further_formats_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    run(job(*FORMATS, folder=Path("once")))
    run(job("poses"))
    runs = walker.runs
    assert {result.status for result in run(job("poses"))[0].values()} == {SKIPPED}
    run(job(*FORMATS))
    assert walker.runs == runs
    for name, content in tree("once").items():
        assert name == "manifest.jsonl" or tree("out")[name] == content, name


def test_chunks_of_other_options_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    run(job("poses"))
    with pytest.raises(UsageError, match="chunk"):
        run(job("poses", chunk=6))
    with pytest.raises(UsageError, match=r"out/chunks has chunks of other views, or of other options"):
        run(job("cameras", chunk=6))
    assert run(job("poses", chunk=6, if_exists="overwrite"))[0]["poses"].status == DONE
    Path("mine/chunks").mkdir(parents=True)
    Path("mine/chunks/notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not of this program"):
        run(job("poses", folder=Path("mine")))
    assert Path("mine/chunks/notes.txt").read_text() == "mine"


def test_what_cannot_go_in_chunks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    for name in ("npz", "mini_npz", "glb-mesh", "gs_ply"):
        with pytest.raises(UsageError, match=f"{name} holds all views at once"):
            job(name)
    for wrong in ({"chunk": 1}, {"overlap": 8}, {"overlap": 0}):
        with pytest.raises(UsageError, match="must be"):
            job("poses", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="add `chunk`"):
        ChunksChoice(overlap=3)
    Image.new("RGB", (50, 28)).save("walk/00003.png")
    with pytest.raises(UsageError, match="pictures of several sizes"):
        run(job("poses"))


def test_unreadable_pictures_are_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    Path("walk/00003.png").write_bytes(b"none")
    results, _ = run(job("poses"))
    assert results["00003.png"].status == FAILED and results["poses"].status == DONE
    assert len(read_trajectory(Path("out/camera_poses.txt"))) == 19


def as_nerfstudio(poses: np.ndarray) -> None:
    """Make walk/ a folder of Nerfstudio, with the pictures in images/."""
    Path("walk").rename("images")
    Path("walk").mkdir()
    Path("images").rename("walk/images")
    frames = [
        {"file_path": f"images/{number:05d}.png", "transform_matrix": (square(back[None])[0] @ OPENGL).tolist()}
        for number, back in enumerate(inverted(poses))
    ]
    fx, fy, cx, cy = walks.MATRIX[(0, 1, 0, 1), (0, 1, 2, 2)].tolist()
    width, height = walks.SIZE
    about = {"w": width, "h": height, "fl_x": fx, "fl_y": fy, "cx": cx + 0.5, "cy": cy + 0.5, "frames": frames}
    Path("walk/transforms.json").write_text(json.dumps(about))


def as_colmap(poses: np.ndarray) -> None:
    """Make walk/ a folder of COLMAP."""
    Path("walk").rename("images")
    Path("walk/sparse/0").mkdir(parents=True)
    Path("images").rename("walk/images")
    fx, fy, cx, cy = walks.MATRIX[(0, 1, 0, 1), (0, 1, 2, 2)].tolist()
    size = f"{walks.SIZE[0]} {walks.SIZE[1]}"
    Path("walk/sparse/0/cameras.txt").write_text(f"1 PINHOLE {size} {fx} {fy} {cx + 0.5} {cy + 0.5}\n")
    lines = []
    for number, pose in enumerate(poses):
        x, y, z, w = quaternions_of(pose[None, :, :3])[0].tolist()
        moves = " ".join(map(repr, pose[:, 3].tolist()))
        lines.append(f"{number + 1} {w} {x} {y} {z} {moves} 1 {number:05d}.png\n\n")
    Path("walk/sparse/0/images.txt").write_text("".join(lines))
    Path("walk/sparse/0/points3D.txt").write_text("")


def as_text(poses: np.ndarray, form: str) -> None:
    with Path(form).open("wb") as stream:
        if form == "tum":
            write_tum(poses, range(len(poses)), stream)
        else:
            (write_kitti if form == "kitti" else write_matrices)(poses, stream)


@pytest.mark.parametrize("form", ["nerfstudio", "colmap", "tum", "kitti", "matrices", "matrices and intrinsics"])
def test_given_cameras_are_kept_in_chunks(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    walker = walks.use_walk(monkeypatch, 30, noise=0.0, bias=0.0)
    walks.pictures(Path("walk"), 30)
    poses = None
    if form == "nerfstudio":
        as_nerfstudio(walker.truth)
    elif form == "colmap":
        as_colmap(walker.truth)
    else:
        poses = Path(form.split()[0])
        as_text(walker.truth, poses.name)
    matrix = walks.MATRIX.copy()
    if "intrinsics" in form:
        matrix[0, 0] = 31.0
        with Path("intrinsic.txt").open("wb") as stream:
            write_intrinsics(np.tile(matrix, (30, 1, 1)), stream)
    results, _ = run(job("poses", "depth-npz", poses=poses))
    assert {result.status for result in results.values()} == {DONE}
    assert np.abs(path() - walker.truth).max() < 1e-9
    depths = [read_depth(file) for file in sorted(Path("out/depth").rglob("*.npz"))]
    assert len(depths) == 30
    ratios = [np.median(depth.values / walks.traced(pose)) for depth, pose in zip(depths, walker.truth)]
    assert np.abs(np.array(ratios) - 1).max() < 0.02  # cameras that the stand-in answers are a little off
    assert np.allclose(np.loadtxt("out/intrinsic.txt"), matrix[(0, 1, 0, 1), (0, 1, 2, 2)], atol=1e-4)
    before = walker.runs
    assert {result.status for result in run(job("poses", "depth-npz", poses=poses))[0].values()} == {SKIPPED}
    assert walker.runs == before


def test_poses_that_do_not_fit_the_views_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    as_text(walker.truth[:19], "kitti")
    with pytest.raises(UsageError, match="kitti has 19 poses for 20 views"):
        run(job("poses", poses=Path("kitti")))
    as_text(walker.truth[:19], "tum")
    with pytest.raises(UsageError, match=r"tum has no pose for 00019\.png, at 19"):
        run(job("poses", poses=Path("tum")))
    Path("tum").write_text("0 0 0 0 0 0 0\n")
    with pytest.raises(UsageError, match="tum"):
        run(job("poses", poses=Path("tum")))
    as_text(walker.truth, "kitti")
    Path("intrinsic.txt").write_text("1 2 3\n")
    with pytest.raises(UsageError, match=r"intrinsic\.txt is not fx fy cx cy for each of 20 poses"):
        run(job("poses", poses=Path("kitti")))
    assert not Path("out/camera_poses.txt").exists()


KILLED = """
import os, signal, sys
import pytest
from tests.jobs import test_long_scene as here, walks
from depthcli.host import atomic
walker = walks.use_walk(pytest.MonkeyPatch(), 20)
left = int(sys.argv[1])
real = os.replace
def replace(*names):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*names)
os.replace = replace
here.run(here.job(*here.FORMATS))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, as each run is a Python of its own."""
    walks.use_walk(monkeypatch, 20)
    walks.pictures(Path("walk"), 20)
    run(job(*FORMATS, folder=Path("once")))
    killed = 0
    for files in (1, 3, 2, 7, 4, 1, 9, 5, 12, 6):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(files)], env=environment(), check=False)
        killed += ended.returncode == -signal.SIGKILL
    assert killed == 10
    run(job(*FORMATS))
    found, wanted = tree("out"), tree("once")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if name != "manifest.jsonl" and found[name] != wanted[name]] == []


def test_every_shot_of_a_clip_is_a_scene_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shots of 20 and 12 frames, and of a single one."""
    walker = walks.use_walk(monkeypatch, 33)
    monkeypatch.setattr("depthcli.jobs.scene_views.CutDetector", lambda: Cuts(20, 32))
    make_clip(Path("walk.mp4"), frames=33, size=walks.SIZE)
    real, read = SceneEstimator.read, []

    def numbered(self: SceneEstimator, picture: object, name: str) -> object:
        read.append(name)
        pixels = np.full((walks.SIZE[1], walks.SIZE[0], 3), 128, np.uint8)
        pixels[0, 0] = int(name[:6]), 0, 7
        return real(self, pixels, name)

    monkeypatch.setattr(SceneEstimator, "read", numbered)
    wanted = job("poses", "depth-npz", inputs=["walk.mp4"], frames=FramesChoice(stride=1))
    results, notes = run(wanted)
    assert {result.status for result in results.values()} == {DONE}
    assert notes[0] == "3 shots, each a scene of its own, in out/shot-001 and so on"
    for folder, frames in (("shot-001", range(20)), ("shot-002", range(20, 32)), ("shot-003", range(32, 33))):
        assert len(list(Path("out", folder, "depth").iterdir())) == len(frames)
        found = read_trajectory(Path("out", folder, "camera_poses.txt")).extrinsics
        assert len(found) == len(frames)
        if len(frames) > 1:
            score = score_path(found, walker.truth[frames.start : frames.stop])
            assert score.ate_rmse / score.length < 0.02
    assert {path.name for path in Path("out").iterdir()} == {"shot-001", "shot-002", "shot-003"}
    before = walker.runs, len(read)
    assert {result.status for result in run(wanted)[0].values()} == {SKIPPED}
    assert (walker.runs, len(read)) == before


class Cuts:
    """In the place of a detector: cuts before some frames."""

    def __init__(self, *places: int) -> None:
        self.places, self.number = places, -1

    def is_cut(self, rgb: np.ndarray) -> bool:
        self.number += 1
        return self.number in self.places


def test_frames_of_a_clip_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    walker = walks.use_walk(monkeypatch, 20)
    monkeypatch.setattr(walker, "answers", walker.answers)
    make_clip(Path("walk.mp4"), frames=20, size=walks.SIZE)
    numbers = iter(range(1000))
    real = SceneEstimator.read

    def numbered(self: SceneEstimator, picture: object, name: str) -> object:
        pixels = np.full((walks.SIZE[1], walks.SIZE[0], 3), 128, np.uint8)
        pixels[0, 0] = next(numbers), 0, 7
        return real(self, pixels, name)

    monkeypatch.setattr(SceneEstimator, "read", numbered)
    results, _ = run(job("poses", "depth-npz", inputs=["walk.mp4"], frames=FramesChoice(stride=1)))
    assert {result.status for result in results.values()} == {DONE}
    assert len(list(Path("out/depth").iterdir())) == 20 and len(list(Path("out/images").iterdir())) == 20
    assert share_of_path(walker) < 0.02
