"""The scene job: files whole, skipped, continued, and never replaced without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import read_depth, read_scene
from depthcli.choices.clips import FramesChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.scenes import SceneChoice, ViewsChoice
from depthcli.errors import OutputError, PictureError, UsageError
from depthcli.io.cameras.files import read_cameras
from depthcli.io.scenes.files import EXPORTS, write_scene
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Result
from depthcli.jobs.scene import Made, Note, SceneJob, Step, Unread, run_scene
from depthcli.jobs.scene_inputs import recognise
from depthcli.predict.scene import SceneEstimator
from tests.conftest import environment, tree
from tests.geometry.rooms import PICTURE, SIZE, room
from tests.io.video.clips import make_clip, number
from tests.predict import rooms

VIEWS = ViewsChoice(input_size=rooms.INPUT)
SHOW = SceneChoice(confidence=0)
# Those that can stand beside each other; gs_ply and feat_vis hold what only a run of the network gives.
TOGETHER = tuple(name for name in EXPORTS if name not in ("glb-mesh", "colmap-txt", "gs_ply", "feat_vis"))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return rooms.use_room(monkeypatch)


def job(*formats: str, inputs: tuple[str, ...] = ("room",), **changes: object) -> SceneJob:
    if inputs == ("room",) and not Path("room").exists():
        rooms.pictures(Path("room"))
    common = {"views": VIEWS, "show": SHOW, "folder": Path("out")}
    return SceneJob(recognise(inputs), formats=formats, **{**common, **changes})  # type: ignore[arg-type]


def run(work: SceneJob) -> dict[str, Result]:
    """Do a job; return its results by format, and those of pictures by their names."""
    found: dict[str, Result] = {}
    for event in run_scene(work, load(work)):
        if isinstance(event, (Result, Unread)):
            result = event.result if isinstance(event, Unread) else event
            found[result.input] = result
        else:
            assert isinstance(event, (Note, Made, Step))
    return found


def load(work: SceneJob):  # type: ignore[no-untyped-def]
    return lambda: SceneEstimator(
        work.model, work.backend, views=work.views, gaussians=work.wants_gaussians, features=work.wants_features
    )


def statuses(found: dict[str, Result]) -> dict[str, str]:
    return {name: result.status for name, result in found.items()}


def test_every_format_is_written_and_what_the_files_say_is_the_room() -> None:
    found = run(job(*TOGETHER, "depth-npz", "depth-ply", "depth-exr"))
    assert set(statuses(found).values()) == {DONE}
    scene = read_scene("out/exports/npz/results.npz")
    moved = rooms.NETWORK.inverse().extrinsics(scene.extrinsics)
    assert np.allclose(moved, room().extrinsics, atol=1e-5)
    for name in ("cameras.json", "transforms.json", "sparse/0"):
        for stored, view in zip(read_cameras(Path("out") / name).cameras, scene.views):
            assert stored.pose is not None and np.allclose(stored.pose, view.extrinsics, atol=1e-6)
    for number_ in range(3):
        depth = read_depth(f"out/depth/{number_}_depth.npz")
        assert depth.size == PICTURE and depth.provenance.source == f"{number_}.png"
        assert depth.camera is not None and depth.camera.extrinsics is not None
        assert np.allclose(depth.camera.intrinsics, room().views[number_].picture_camera.intrinsics, atol=1e-4)
    for path, file in tree("out").items():
        assert file, path


def test_what_is_there_is_skipped_and_loads_nothing(opened: list[str]) -> None:
    run(job("npz", "glb"))
    before = tree("out")
    opened.clear()
    found = run(job("npz", "glb"))
    assert statuses(found) == {"npz": SKIPPED, "glb": SKIPPED} and opened == []
    assert found["glb"].outputs == ("out/scene.glb", "out/scene.jpg")
    assert tree("out") == before


def test_further_formats_come_from_the_npz_file_and_are_the_same(opened: list[str]) -> None:
    every = tuple(name for name in TOGETHER if name != "npz")
    run(job("npz", *every, "depth-npz", folder=Path("once")))
    run(job("npz"))
    opened.clear()
    assert set(statuses(run(job("npz", *every, "depth-npz"))).values()) == {SKIPPED, DONE} and opened == []
    assert tree("out") == tree("once")


def test_features_are_pictures_of_the_views_and_run_the_network_again(opened: list[str]) -> None:
    run(job("npz"))
    opened.clear()
    assert statuses(run(job("npz", "feat_vis"))) == {"npz": SKIPPED, "feat_vis": DONE} and opened == ["da3-base"]
    assert sorted(path.name for path in Path("out/feat_vis").iterdir()) == ["0000.jpg", "0001.jpg", "0002.jpg"]
    with Image.open("out/feat_vis/0000.jpg") as image:
        colors = np.asarray(image).astype(int)
    assert colors.shape == (SIZE[1], SIZE[0], 3)
    assert np.abs(colors[0, 0] - colors[0, -1]).max() > 50 < np.abs(colors[0, 0] - colors[-1, 0]).max()
    with pytest.raises(OutputError, match="the scene has no features"):
        write_scene(read_scene("out/exports/npz/results.npz"), "again", ["feat_vis"])


def test_changed_and_added_pictures_are_done_again() -> None:
    run(job("npz"))
    Image.fromarray(np.zeros((PICTURE[1], PICTURE[0], 3), np.uint8)).save("room/1.png")
    assert statuses(run(job("npz"))) == {"npz": DONE}
    Path("room/2.png").unlink()
    assert statuses(run(job("npz"))) == {"npz": DONE} and len(read_scene("out/exports/npz/results.npz").views) == 2


def test_a_scene_of_other_options_is_not_replaced() -> None:
    run(job("npz", "glb"))
    before = tree("out")
    for change, reason in (
        ({"views": replace(VIEWS, ray_pose=True)}, "made without `ray_pose`"),
        ({"model": ModelChoice(model="da3-large")}, "by da3-base, and this run would take da3-large"),
        ({"max_views": 2}, "made without `max_views`"),
        ({"show": SceneChoice(confidence=70)}, "glb in out was made with `confidence` 0"),
        ({"backend": BackendChoice(precision="bf16")}, "with `precision` auto"),
    ):
        with pytest.raises(UsageError, match=reason):
            run(job("npz", "glb", **change))
    assert tree("out") == before
    assert statuses(run(job("npz", if_exists="overwrite", max_views=2))) == {"npz": DONE}


def test_files_of_others_stay() -> None:
    Path("out").mkdir()
    for name in ("scene.glb", "notes.txt"):
        Path("out", name).write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"out/scene\.glb is there already"):
        run(job("npz", "glb"))
    assert tree("out") == {"scene.glb": b"mine", "notes.txt": b"mine"}
    run(job("glb", if_exists="overwrite"))
    assert Path("out/notes.txt").read_bytes() == b"mine" and Path("out/scene.glb").read_bytes() != b"mine"
    with pytest.raises(OutputError, match="is there already"):
        run(job("glb", "npz", if_exists="error"))


def test_pictures_are_never_replaced() -> None:
    rooms.pictures(Path("room"))
    with pytest.raises(UsageError, match=r"scene\.jpg would be taken for a picture of room"):
        job("npz", folder=Path("room"))
    Path("room/0.png").rename("room/scene.jpg")
    names = ("room/scene.jpg", "room/1.png")
    with pytest.raises(UsageError, match=r"the result of glb would replace the picture room/scene\.jpg"):
        job("glb", inputs=names, folder=Path("room"), if_exists="overwrite")
    assert statuses(run(job("npz", inputs=names, folder=Path("room")))) == {"npz": DONE}


def test_a_file_that_was_changed_is_made_again() -> None:
    run(job("npz", "cameras"))
    whole = Path("out/cameras.json").read_bytes()
    Path("out/cameras.json").write_bytes(b"{}")
    assert statuses(run(job("npz", "cameras"))) == {"npz": SKIPPED, "cameras": DONE}
    assert Path("out/cameras.json").read_bytes() == whole


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_done() -> None:
    work = job("npz", "cameras")
    Path("room/2.png").write_bytes(Path("room/2.png").read_bytes()[:300])
    found = run(work)
    assert statuses(found) == {"npz": DONE, "cameras": DONE, "2.png": FAILED} and "2.png" in found["2.png"].error
    assert read_scene("out/exports/npz/results.npz").facts["left_out"] == ["2.png"]
    again = run(work)
    assert statuses(again) == {"npz": SKIPPED, "cameras": SKIPPED, "2.png": FAILED}
    assert again["2.png"].error == found["2.png"].error
    rooms.pictures(Path("room"))
    assert set(run(work)) == set(run(work)) == {"npz", "cameras"}
    Path("room/2.png").write_bytes(b"")
    Path("room/1.png").write_bytes(b"")
    with pytest.raises(UsageError, match="one picture has no pose"):
        run(work)


def test_a_format_that_cannot_be_made_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """No surface is left of depth that jumps at every pixel."""
    noise = np.where(np.indices((3, *SIZE[::-1])).sum(axis=0) % 2, 1, 9).astype(np.float32)
    plain = rooms.answers
    monkeypatch.setattr(rooms, "answers", lambda inputs: {**plain(inputs), "depth": noise})
    found = run(job("npz", "glb", "ply", "cameras"))
    assert statuses(found) == {"npz": DONE, "glb": FAILED, "ply": FAILED, "cameras": DONE}
    assert "no point of the scene is left (use a smaller `confidence`" in found["glb"].error


KILLED = """
import os, signal, sys, pytest
from pathlib import Path
from tests.jobs.test_scene import TOGETHER, job, run
from tests.predict import rooms
from depthcli.host.atomic import temporary_path
from depthcli.io.scenes import files

def die(scene, folder, choice):
    temporary_path(folder).write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)

rooms.use_room(pytest.MonkeyPatch())
row = files.EXPORTS[sys.argv[1]]
files.EXPORTS[sys.argv[1]] = files.Export(row.what, row.paths, die)
run(job(*TOGETHER, "depth-npz"))
"""


@pytest.mark.slow  # a process of its own
@pytest.mark.parametrize("at", ["npz", "transforms"])
def test_a_killed_run_is_continued_and_ends_with_the_same_files(at: str, opened: list[str]) -> None:
    run(job(*TOGETHER, "depth-npz", folder=Path("whole")))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, at], env=environment(), stderr=subprocess.PIPE, timeout=120, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-500:]
    left = tree("out")
    assert any(name.endswith(".part") for name in left) and len(left) < len(tree("whole"))
    opened.clear()
    found = run(job(*TOGETHER, "depth-npz"))
    assert tree("out") == tree("whole")
    assert (statuses(found)["npz"], opened) == ((DONE, ["da3-base"]) if at == "npz" else (SKIPPED, []))


def test_posed_folders_give_their_cameras() -> None:
    write_scene(room(), Path("room"), ["colmap"])
    rooms.pictures(Path("room/images/left"))
    found = run(job("cameras", "npz"))
    assert set(statuses(found).values()) == {DONE}
    scene = read_scene("out/exports/npz/results.npz")
    assert scene.facts["cameras"] == "given" and [view.name for view in scene.views] == [
        f"left/{number_}.png" for number_ in range(3)
    ]
    assert np.allclose(scene.extrinsics, room().extrinsics, atol=1e-12)


def test_cameras_can_come_from_another_place() -> None:
    work = job("npz")
    run(replace(work, folder=Path("first"), formats=("cameras",)))
    found = replace(work, poses=Path("first/cameras.json"))
    run(found)
    assert read_scene("out/exports/npz/results.npz").facts["cameras"] == "given"
    with pytest.raises(UsageError, match=r"made with `poses` cameras\.json"):
        run(work)


def test_a_lens_in_a_colmap_folder_is_refused_before_pictures_are_read() -> None:
    write_scene(room(), Path("room"), ["colmap-txt"])
    rooms.pictures(Path("room/images/left"))
    Path("room/sparse/0/cameras.txt").write_text(
        "".join(f"{n} SIMPLE_RADIAL 336 224 300 168 112 0.1\n" for n in (1, 2, 3))
    )
    with pytest.raises(UsageError, match="has a lens, which the network does not know"):
        run(job("npz"))
    assert not Path("out/exports").exists()


def test_too_many_views_are_refused_with_how_many_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    from depthcli.host.memory import check_scene_memory
    from depthcli.pixels.preprocess import InputPlan
    from depthcli.zoo.rows import find_row
    from tests.fake_backend import FakeBackend

    def check(self: object, plan: object, batch: int, further: object = ()) -> None:
        check_scene_memory(find_row("da3-base").network, InputPlan((504, 378), (504, 378)), batch, 16_000_000_000)

    monkeypatch.setattr(FakeBackend, "check", check)
    work = job("npz")
    for number_ in range(3, 300):
        Path(f"room/{number_}.png").symlink_to("0.png")
    with pytest.raises(
        PictureError, match=r"300 views of 504x378 as network input need about \d+\.\d GB.*`max_views` \d+ would fit"
    ):
        run(job("npz"))
    assert statuses(run(replace(work, max_views=3, found=recognise(["room"])))) == {"npz": DONE}
    names = [view.name for view in read_scene("out/exports/npz/results.npz").views]
    assert names == ["0.png", "150.png", "299.png"]


def clip_job(*formats: str, **changes: object) -> SceneJob:
    if not Path("clip.mp4").exists():
        make_clip(Path("clip.mp4"), frames=30, size=PICTURE)
    return job(*formats, inputs=("clip.mp4",), **changes)


def test_frames_of_a_clip_are_kept_where_files_name_them() -> None:
    found = run(clip_job("transforms", "depth-npz", frames=FramesChoice(frames=3)))
    assert statuses(found) == {"images": DONE, "transforms": DONE, "depth-npz": DONE}
    names = [stored.name for stored in read_cameras(Path("out/transforms.json")).cameras]
    assert names == ["images/000000.png", "images/000014.png", "images/000029.png"]
    for name in names:
        assert number(np.asarray(Image.open(Path("out") / name))) == int(Path(name).stem)
    assert read_depth("out/depth/000014_depth.npz").size == PICTURE
    assert set(statuses(run(clip_job("transforms", "depth-npz", frames=FramesChoice(frames=3)))).values()) == {SKIPPED}


def test_frames_are_no_files_where_nothing_names_them() -> None:
    assert list(run(clip_job("npz", frames=FramesChoice(stride=10)))) == ["npz"]
    names = [view.name for view in read_scene("out/exports/npz/results.npz").views]
    assert names == ["000000.png", "000010.png", "000020.png"] and not Path("out/images").exists()


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (FramesChoice(fps=2), ["000000.png", "000012.png", "000024.png"]),
        (FramesChoice(), ["000000.png", "000024.png"]),
        (FramesChoice(frames=3, sharp=True), None),
        (FramesChoice(motion=1e-6), None),
    ],
)
def test_rules_for_frames(choice: FramesChoice, names: object) -> None:
    run(clip_job("npz", frames=choice, max_views=3))
    found = [view.name for view in read_scene("out/exports/npz/results.npz").views]
    assert len(found) >= 2 and (names is None or found == names)


def test_a_clip_of_one_frame_is_no_scene() -> None:
    with pytest.raises(UsageError, match=r"frames at 0\.1 a second gives 1 view of clip\.mp4"):
        run(clip_job("npz", frames=FramesChoice(fps=0.1)))


def test_jobs_that_make_no_sense_are_refused() -> None:
    for formats, changes, reason in (
        (("usd",), {}, "not written as usd"),
        (("exr",), {}, r"depth-exr gives one for each view"),
        (("depth-jpg",), {}, "no depth file is called depth-jpg"),
        ((), {}, "no output format"),
        (("glb", "glb-mesh"), {}, "to the same place"),
        (("npz",), {"max_views": 1}, "`max_views` must be at least 2"),
        (("npz",), {"frames": FramesChoice(fps=2)}, "`fps` chooses frames of a clip"),
        (("npz",), {"inputs": ("room/0.png",)}, "one picture has no pose"),
        (("npz",), {"if_exists": "ask"}, "unknown `if_exists`"),
    ):
        rooms.pictures(Path("room"))
        with pytest.raises(UsageError, match=reason):
            job(*formats, **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"mm holds metres.*`metres` makes metres"):
        run(job("depth-mm"))
    assert statuses(run(job("depth-mm", views=replace(VIEWS, metres=True)))) == {"depth-mm": DONE}
    for values, reason in (
        ({"fps": 1, "stride": 2}, "contradict each other"),
        ({"fps": 0}, "`fps` must be more than 0"),
        ({"sharp": True}, "`sharp` chooses among frames"),
    ):
        with pytest.raises(UsageError, match=reason):
            FramesChoice(**values)  # type: ignore[arg-type]
