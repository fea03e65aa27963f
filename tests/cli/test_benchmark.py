"""`depth eval --protocol`: tables, JSON, models, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from depthcli.cli.benchmark import LAYOUTS, PROTOCOLS
from depthcli.eval import benchmarks, layouts
from depthcli.io.scenes.files import write_scene
from tests.conftest import TINY
from tests.eval import miniatures
from tests.eval.test_benchmarks import MOVED, predicted_clip
from tests.geometry.rooms import room
from tests.predict import rooms


def test_names_are_those_of_the_tables() -> None:
    assert tuple(benchmarks.PROTOCOLS) == PROTOCOLS and tuple(layouts.LAYOUTS) == LAYOUTS


def test_cameras_of_saved_scenes_are_scored(depth) -> None:
    made = miniatures.dtu64(Path("data"))
    names = [f"{number:08d}.png" for number in range(6)]
    write_scene(miniatures.answer(made, names, MOVED), Path("scenes/scan24"), ["npz"])
    words = ("--layout", "dtu64", "data", "--predictions", "scenes")
    ran = depth("eval", "--protocol", "da3-pose", *words)
    assert ran.code == 0 and "AUC3 DA3" in ran.out and "AUC30" in ran.out and "mean of 1" in ran.out
    assert "protocol: da3-pose: at most 100 views" in ran.out and "auc_exact: the area" in ran.out
    ran = depth("eval", "--protocol=da3-pose", *words, "--json", "-")
    found = json.loads(ran.out)
    assert found["scenes"][0]["auc_da3_3"] == 1 and found["summary"]["failed"] == 0
    assert (found["protocol"], found["layout"], found["scenes"][0]["frames"]) == ("da3-pose", "dtu64", 6)


def test_a_model_of_scenes_runs(depth, monkeypatch) -> None:
    rooms.use_room(monkeypatch)
    for number, name in enumerate(rooms.pictures(Path("room"))):
        target = Path(f"data/scan24/image/{number:08d}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(name).read_bytes())
    made = [(view.camera, view.depth.values, view.picture) for view in room().views]
    miniatures.camera_files(Path("data"), made)
    words = ("eval", "--protocol", "da3-pose", "--layout", "dtu64", "data", "--input-size", str(rooms.INPUT))
    ran = depth(*words, "--json", "-")
    (scene,) = json.loads(ran.out)["scenes"]
    assert ran.code == 0 and scene["frames"] == 3 and scene["auc_da3_3"] == 1 and scene["ate_rmse"] < 1e-3


def test_surfaces_are_scored(depth, monkeypatch) -> None:
    monkeypatch.setattr("depthcli.eval.clouds.SAMPLES", 40_000)
    made = miniatures.eth3d(Path("data"))
    names = [f"DSC_0{300 + number}.JPG" for number in range(6)]
    write_scene(miniatures.answer(made, names, MOVED), Path("scenes/pipes"), ["npz"])
    ran = depth("eval", "--protocol", "da3-recon", "--layout", "eth3d", "data", "--predictions", "scenes")
    assert ran.code == 0 and "F-score" in ran.out and "fused into voxels" in ran.out
    row = next(line.split() for line in ran.out.splitlines() if "pipes" in line)
    assert float(row[-1]) > 0.95 and float(row[2]) < 0.05


def test_clips_are_scored_from_files_and_a_failed_one_is_named(depth) -> None:
    made = miniatures.scannet(Path("data"))
    Path("maps").mkdir()
    np.savez("maps/scene0707_00.npz", depth=np.stack([one.values for one in predicted_clip(made)]))
    words = ("eval", "--protocol", "depthcrafter", "--layout", "scannet", "data", "--predictions", "maps")
    ran = depth(*words, "--json", "scores.json")
    assert ran.code == 0 and "TAE %" in ran.out and "one scale and one shift of disparity" in ran.out
    (scene,) = json.loads(Path("scores.json").read_text())["scenes"]
    assert scene["abs_rel"] < 3e-3 and scene["delta1"] == 1 and scene["frames"] == 6
    Path("data/scene0708_00/color").mkdir(parents=True)
    for path in ("color/0.jpg", "depth/0.png", "pose/0.txt", "intrinsic/intrinsic_color.txt"):
        target = Path("data/scene0708_00") / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((Path("data/scene0707_00") / path).read_bytes())
    ran = depth(*words)
    assert ran.code == 3 and "scene0708_00" in ran.err and "mean of 1" in ran.out
    assert depth(*words, "--scene", "scene0707_00").code == 0


def test_a_model_runs_over_clips_of_a_layout_and_of_a_list(depth) -> None:
    miniatures.kitti(Path("data"))
    ran = depth("eval", "--protocol", "depthcrafter", "--layout", "kitti", "data", *TINY, "--offline", "--json", "-")
    (scene,) = json.loads(ran.out)["scenes"]
    assert ran.code == 0 and scene["frames"] == 4 and 0 < scene["abs_rel"] < 2 and scene["opw"] is not None
    pictures = sorted(Path("data/raw_data").rglob("*.png"))[1:]
    truths = sorted(Path("data/val").rglob("*.png"))
    with Path("list.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["picture", "truth", "format", "clip", "max_depth"])
        rows.writerows([one, other, "kitti", "drive", 80] for one, other in zip(pictures, truths))
    ran = depth("eval", "--protocol", "depthcrafter", "list.csv", *TINY, "--offline", "--json", "-")
    (listed,) = json.loads(ran.out)["scenes"]
    assert ran.code == 0 and listed["name"] == "drive" and listed["frames"] == 4
    assert listed["abs_rel"] == pytest.approx(scene["abs_rel"], rel=0.2)  # one pixel less is cut off


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--protocol", "da3", "data"), "unknown --protocol 'da3'"),
        (("--protocol", "da3-pose", "data"), "needs a --layout"),
        (("--protocol", "da3-pose", "--layout", "vkitti", "data"), "no layout is called 'vkitti'"),
        (("--protocol", "da3-pose", "--layout", "kitti", "data"), "kitti has no cameras"),
        (("--protocol", "da3-recon", "--layout", "dtu", "data"), "dtu has no surface"),
        (("--protocol", "depthcrafter", "--layout", "7scenes", "data"), "7scenes is not a data set of depthcrafter"),
        (("--protocol", "depthcrafter", "--layout", "sintel", "data"), "data holds no scene of sintel"),
        (("--protocol", "depthcrafter", "--layout", "sintel", "data", "--predictions", "none"), "is not a folder"),
        (("--protocol", "depthcrafter", "list.json"), "needs clip, truth and max_depth"),
        (("--protocol", "depthcrafter", "--layout", "sintel", "none"), "none is not a folder"),
    ],
)
def test_what_cannot_be_scored_is_one_line(depth, words, reason) -> None:
    Path("data").mkdir()
    Path("list.json").write_text('[{"picture": "a.jpg", "truth": "a.png", "format": "nyu"}]')
    ran = depth("eval", *words)
    assert ran.code == 2 and ran.out == "" and reason in ran.err and ran.err.count("\n") == 1, ran.err
