"""`--scale-from`, `--calibration-from` and `depth calibrate`: metres in every file, and a line that tells of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from depthcli import DepthKind, read_depth, read_shape
from depthcli.choices.metres import MetresChoice
from tests.conftest import TINY, files, photo

NEAR, FAR = 2.0, 11.0


@pytest.fixture
def references(depth) -> tuple[str, ...]:
    """Two distances in a.png, at the pixels with the largest and the smallest number, and the options that say so."""
    photo("a.png")
    assert depth("image", "a.png", "-o", "plain.npz", *TINY).code == 0
    p = read_depth("plain.npz").values.astype(np.float64)
    assert p.min() > 0 and p.max() > 1.5 * p.min()
    places = [f"{int(at % 80)},{int(at // 80)}" for at in (p.argmax(), p.argmin())]
    return tuple(part for place, z in zip(places, (NEAR, FAR)) for part in ("--scale-from", f"z:{place}={z:g}"))


def test_every_file_holds_the_metres_and_what_they_rest_on(depth, references):
    ran = depth("image", "a.png", "-f", "color,gray,npz,exr", *references, *TINY)
    assert ran.code == 0
    assert "a.png: metres: 1/z = " in ran.err and "(line), 2 of 2 points within 10 %" in ran.err
    assert "measured at 2 to 11 m, beyond it is extrapolation" in ran.err and "left-out" not in ran.err
    for path in ran.lines:
        found = read_depth(path)
        assert found.kind is DepthKind.METRIC_DEPTH
        assert found.calibration.sources == references[1::2] and found.calibration.points == 2
        assert np.allclose(found.range, (NEAR, FAR), atol=(FAR - NEAR) / 255)
    assert str(json.loads(str(np.load("a_depth.npz")["meta"]))["units"]) == "m"


def test_the_line_is_left_out_with_quiet_and_in_json_it_is_an_object(depth, references):
    assert depth("image", "a.png", "-q", *references, *TINY).err == ""
    told = json.loads(depth("image", "a.png", "--json", *references, *TINY).lines[0])
    assert told["calibration"]["rule"] == "line" and told["calibration"]["scale"] > 0


def test_a_distance_needs_a_camera_and_an_assumed_one_is_warned_of(depth):
    photo("a.png")
    ran = depth("image", "a.png", "-f", "ply", "--scale-from", "at:5,5=3", *TINY)
    assert (
        ran.code == 0 and "warning: a.png: no focal length is known, and the metres rest on an assumed view" in ran.err
    )
    assert read_shape("a_depth.ply").unit == "arbitrary"
    ran = depth("image", "a.png", "-f", "ply", "--scale-from", "at:5,5=3", "--focal", "80", *TINY)
    assert ran.code == 0 and "warning" not in ran.err
    assert read_shape("a_depth.ply").unit == "m"


def test_max_depth_of_a_relative_model_limits_its_metres(depth, references):
    assert depth("image", "a.png", "-o", "a.npz", "--max-depth", "6", *references, *TINY).code == 0
    found = read_depth("a.npz")
    assert found.range[1] <= 6 and found.calibration.farthest == 6
    assert found.calibration.invalid == (~found.valid).sum() > 0


def test_a_calibration_serves_a_fixed_camera(depth, references):
    ran = depth("calibrate", "a.png", "-o", "c.json", *references, *TINY)
    assert (ran.code, ran.lines) == (0, ["c.json"]) and "metres: 1/z = " in ran.err
    photo("in/b.png")
    assert depth("image", "a.png", "-o", "a.npz", *references, *TINY).code == 0
    assert depth("dir", "in", "-o", "out", "-f", "npz", "--calibration-from", "c.json", *TINY).code == 0
    assert depth("dir", "in", "-o", "again", "-f", "npz", "--calibration-from", "a.npz", *TINY).code == 0
    one, other, again = (read_depth(path) for path in ("a.npz", "out/b_depth.npz", "again/b_depth.npz"))
    assert (one.values == other.values).all() and one.calibration == other.calibration == again.calibration
    assert depth("calibrate", "a.png", *references, *TINY).lines == ["a_calibration.json"]
    told = json.loads(depth("calibrate", "a.png", "--json", *references, *TINY).out)
    assert told["output"] == "a_calibration.json" and told["calibration"]["points"] == 2


def test_metres_are_a_part_of_what_the_results_in_a_folder_share(depth, references):
    photo("in/a.png")
    folder = ("dir", "in", "-o", "out", *TINY)
    assert depth(*folder, *references).code == 0
    assert "1 skipped" in depth(*folder, *references).err
    assert "was made with --scale-from z:" in depth(*folder).error
    ran = depth(*folder, "--scale-from", "z:1,1=3")
    assert ran.code == 2 and "and this run has --scale-from z:1,1=3" in ran.error
    Path("list.csv").write_text("1,1,3\n")
    assert depth("dir", "in", "-o", "out2", "--scale-from", "list.csv", *TINY).code == 0
    Path("list.csv").write_text("1,1,4\n")
    assert depth("dir", "in", "-o", "out2", "--scale-from", "list.csv", *TINY).code == 2


def test_each_picture_of_a_folder_has_its_own_depth_file(depth):
    for name in ("a", "b"):
        photo(f"in/{name}.png")
    Path("lidar").mkdir()
    Path("lidar/a.csv").write_text("1,1,3\n")
    ran = depth("dir", "in", "-o", "out", "-f", "npz", "--scale-from", "lidar", *TINY)
    assert ran.code == 3 and "b.png: lidar has no depth of b.png" in ran.err.replace(
        "error: lidar", "error: b.png: lidar"
    )
    assert read_depth("out/a_depth.npz").values[1, 1] == pytest.approx(3)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--scale-from", "at:1,2"), "'at:1,2' is not a reference"),
        (("--scale-from", "missing.png"), "missing.png does not exist"),
        (("--scale-from", "z:1,1=3", "--scale", "2"), "--scale-from and --scale contradict each other"),
        (("--scale", "2"), "--scale multiplies metres, and the map has relative_disparity"),
        (("--calibration-from", "a.png"), "cannot read a calibration from a.png"),
        (("--calibration-from", "none.json"), "none.json does not exist"),
        (("--scale-from", "z:1,1=3", "--fit", "isotonic"), "--fit isotonic needs 100 points, got 1"),
        (("--scale-from", "z:1,1=3", "--panorama"), "a --panorama has no optical axis"),
        (("--unit-of-colmap", "2"), "--unit-of-colmap is for a reference of --scale-from"),
        (("--scale-from", "z:1,1=3,2,1=300"), "the references contradict each other"),
    ],
)
def test_what_gives_no_metres_is_one_line_and_no_file(depth, options, reason):
    photo("a.png")
    ran = depth("image", "a.png", *options, *TINY)
    assert ran.code == 2 and reason in ran.error and files() == ["a.png"]
    ran = depth(
        "calibrate", "a.png", *(options if options[0] == "--scale-from" and "--scale" not in options else ()), *TINY
    )
    assert ran.code == 2 and not Path("a_calibration.json").exists()


def test_a_calibration_of_another_model_is_refused(depth):
    photo("a.png")
    facts = {"kind": "relative_disparity", "scale": 1, "shift": 0, "model": "vits"}
    Path("c.json").write_text(json.dumps({"schema": "depthcli/1", "calibration": facts}))
    ran = depth("image", "a.png", "--calibration-from", "c.json", *TINY)
    assert ran.code == 2 and "the calibration is for the model vits, and this map has tiny" in ran.error


def test_the_choice_can_be_sent_to_a_worker():
    choice = MetresChoice(("z:1,1=3", "lidar.png"), fit="line")
    assert pickle.loads(pickle.dumps(choice)) == choice
