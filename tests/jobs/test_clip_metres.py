"""Metres for clips: one fit for each shot, from references at frames, the same however often a run was ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import read_depth, read_shape
from depthcli.choices.camera import CameraChoice
from depthcli.choices.metres import MetresChoice
from depthcli.choices.model import ModelChoice
from depthcli.errors import UsageError
from depthcli.io.cameras.pictures import GivenCameras
from depthcli.jobs.clip_job import ClipJob
from depthcli.jobs.manifest import DONE, FAILED
from depthcli.predict.clip_metres import ClipMetres
from depthcli.predict.metres import Metres
from depthcli.zoo.rows import find_row
from tests.conftest import tree
from tests.jobs.test_clip import GRID, Fake, after, job, run

SIZE = (64, 48)
NEAR, FAR = "z:8,24=1", "z:56,24=4"  # of `frames`: 1/z = p / 2


class Plain(Fake):
    """Its map is the brightness of the frame by 100, and nothing else."""

    exact = False

    def postprocess(self, answer):
        return answer


def frames(folder: str = "shot", levels: Sequence[tuple[int, int]] = ((200, 50),) * 6, flip: bool = False) -> str:
    """Frames with a bright left half and a dark right one; a pair of levels for each frame."""
    Path(folder).mkdir()
    for index, (left, right) in enumerate(levels):
        gray = np.full(SIZE[::-1], left, np.uint8)
        gray[:, SIZE[0] // 2 :] = right
        Image.fromarray(gray[:, ::-1] if flip else gray).convert("RGB").save(f"{folder}/{index:02d}.png")
    return folder


def metres(*references: str, **more) -> ClipMetres:
    return ClipMetres(MetresChoice(references, **more))


def values(name: str = "npz") -> list[np.ndarray]:
    return [read_depth(path).values for path in sorted(Path(f"out/a_depth_{name}").glob("frame_*.*[!n]"))]


CUT = ((200, 50),) * 6 + ((20, 240),) * 6  # two shots


def test_metres_are_those_of_the_references_in_every_frame(tmp_path):
    said: list[str] = []
    result = run(job(frames(), ("npz", "exr", "mm", "kitti"), metres=metres(NEAR, FAR)), Plain(), said=said)
    assert result.status == DONE and sum("metres: 1/z = 0.5 p" in line for line in said) == 1
    for name, step in (("npz", 1e-5), ("exr", 1e-5)):
        for depth in values(name):
            assert np.allclose(depth[24, 8], 1, atol=step) and np.allclose(depth[24, 56], 4, atol=step)
    for name in ("mm", "kitti"):
        depth = read_depth(Path(f"out/a_depth_{name}/frame_000005.png"))
        assert abs(depth.values[24, 56] - 4) <= 1 / 256 and depth.kind.unit == "m"
        assert depth.calibration.sources == (NEAR, FAR) and depth.calibration.rule == "line"
    facts = json.loads(Path("out/a_depth_npz.json").read_text())
    assert facts["units"] == "m" and np.isclose(facts["calibration"]["scale"], 0.5) and np.isclose(facts["max"], 4)


def test_a_mirrored_clip_has_mirrored_metres(tmp_path):
    run(job(frames(), metres=metres(NEAR, FAR)), Plain())
    plain = values()
    run(job(frames("mirror", flip=True), folder="out2", metres=metres("z:55,24=1", "z:7,24=4")), Plain())
    mirrored = [read_depth(path).values for path in sorted(Path("out2/a_depth_npz").glob("*.npz"))]
    assert all(np.allclose(one[:, ::-1], other, atol=1e-4) for one, other in zip(plain, mirrored))


def test_a_cut_gives_two_fits_and_each_is_printed_once(tmp_path):
    said: list[str] = []
    choice = metres(NEAR, FAR, "z:8,24=10@6", "z:56,24=2@8")
    result = run(job(frames(levels=CUT), ("npz", "mp4"), metres=choice), Plain(), said=said)
    assert result.status == DONE
    assert [line.split("metres")[0] for line in said if "metres:" in line] == [
        *("shot: frames 0 to 5: ", "shot: frames 6 to 11: ")
    ]
    depths = values()
    assert all(np.allclose(depth[24, [8, 56]], (1, 4), atol=1e-4) for depth in depths[:6])
    assert all(np.allclose(depth[24, [8, 56]], (10, 2), atol=1e-3) for depth in depths[6:])
    shots = json.loads(Path("out/a_depth.mp4.json").read_text())["shots"]
    assert [shot["frames"] for shot in shots] == [[0, 5], [6, 11]]
    assert read_depth("out/a_depth_npz/frame_000011.npz").calibration.sources == ("z:8,24=10@6", "z:56,24=2@8")


def test_a_shot_without_a_reference_is_refused_and_its_depth_is_kept(tmp_path):
    wanted = job(frames(levels=CUT), metres=metres(NEAR, FAR))
    result = run(wanted, Plain())
    assert (result.status, result.code) == (FAILED, 2)
    assert "shot: the shot of the frames 6 to 11 has no reference" in result.error and "@6" in result.error
    assert not Path("out/a_depth_npz").exists()
    again = Plain()
    more = metres(NEAR, FAR, "z:8,24=10@6", "z:56,24=2@6")
    assert run(job("shot", metres=more), again).status == DONE and not again.log  # the network is not run again


@pytest.mark.parametrize("calls", [3, 9, 14, 20])
def test_a_run_that_was_ended_and_resumed_gives_the_same_bytes(tmp_path, calls):
    source, formats = frames(levels=CUT), ("npz", "mm", "ply", "pfm", "color", "mp4")
    choice = metres(NEAR, FAR, "z:8,24=10@6", "z:56,24=2@8")
    facts = {"metres": choice, "cameras": GivenCameras(CameraChoice(focal=60))}
    assert run(job(source, formats, "whole", **facts), Plain()).status == DONE
    assert run(job(source, formats, "parts", **facts), Plain(), after(calls)) is None
    assert run(job(source, formats, "parts", **facts), Plain()).status == DONE
    whole, parts = tree("whole"), tree("parts")
    assert whole.keys() == parts.keys() and [name for name in whole if whole[name] != parts[name]] == []


def test_without_a_camera_no_cloud_has_the_unit_m(tmp_path):
    source = frames()
    run(job(source, ("ply",), "guessed", metres=metres(NEAR, FAR)), Plain())
    run(job(source, ("ply",), "known", metres=metres(NEAR, FAR), cameras=GivenCameras(CameraChoice(focal=60))), Plain())
    units = [read_shape(f"{folder}/a_depth_ply/frame_000003.ply").unit for folder in ("guessed", "known")]
    assert units == ["arbitrary", "m"]


def test_distances_along_the_ray_need_a_camera_and_say_so_if_it_is_assumed(tmp_path):
    source = frames()
    result = run(job(source, folder="guessed", metres=metres("at:8,24=1")), Plain())
    assert any("rest on an assumed view" in line for line in result.warnings)
    cameras = GivenCameras(CameraChoice(focal=32))
    assert run(job(source, metres=metres("at:8,24=1"), cameras=cameras), Plain()).warnings == ()
    ray = np.array([(8 - 31.5) / 32, (24 - 23.5) / 32, 1])
    assert np.isclose(values()[3][24, 8], 1 / np.linalg.norm(ray), atol=1e-4)


def test_a_relative_clip_has_one_scale_in_all_its_clouds(tmp_path):
    run(job(frames(levels=((200, 50), (100, 50))), ("ply",)), Plain())
    nearest = []
    for index in range(2):
        cloud = read_shape(f"out/a_depth_ply/frame_{index:06d}.ply")
        assert cloud.unit == "arbitrary"
        nearest.append(float(-cloud.points[:, 2].max()))
    assert np.isclose(nearest[1] / nearest[0], 2, atol=0.05)


def test_a_guess_gives_no_metres_and_no_millimetres(tmp_path):
    source = frames()
    assert run(job(source, metres=metres("range:1,10")), Plain()).status == DONE
    depth = read_depth("out/a_depth_npz/frame_000000.npz")
    assert depth.kind.value == "relative_depth" and np.isclose(depth.values[24, 8], 1, atol=1e-4)
    for choice in (metres("range:1,10"), None):
        with pytest.raises(UsageError, match="mm holds metres, and this depth is relative_d"):
            run(job(source, ("mm",), "other", metres=choice), Plain())


def test_what_is_beyond_max_depth_has_no_depth_and_is_the_farthest_of_a_film(tmp_path):
    model = ModelChoice(max_depth=3)
    source = frames(levels=((200, 50),) * 3 + ((160, 50),) * 3)
    result = run(job(source, ("npz", "color", "mp4"), metres=metres(NEAR, FAR), model=model), Plain())
    assert "50 % of the pixels have no depth" in result.notes[-1]
    depth = read_depth("out/a_depth_npz/frame_000002.npz")
    assert depth.valid[24, 8] and not depth.valid[24, 56] and depth.calibration.invalid > 0
    assert np.asarray(Image.open("out/a_depth_color/frame_000002.png"))[24, [8, 56], 3].tolist() == [255, 0]
    import av

    with av.open("out/a_depth.mp4") as film:
        shown = next(film.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert shown[24, 56, 2] > shown[24, 56, 0] and shown[24, 8, 0] > shown[24, 8, 2]  # blue is far, red is near


def test_a_folder_of_depth_files_is_measured_in_the_frames_of_their_names(tmp_path):
    source = frames(levels=CUT)
    Path("lidar").mkdir()
    for index, (left, right) in ((0, (1000, 4000)), (7, (10000, 2000)), (9, (10000, 2000))):
        depth = np.zeros(SIZE[::-1], np.uint16)
        depth[24, 8], depth[24, 56] = left, right
        Image.fromarray(depth).save(f"lidar/{index:02d}.png")
    assert run(job(source, metres=metres("lidar")), Plain()).status == DONE
    found = [read_depth(f"out/a_depth_npz/frame_{index:06d}.npz") for index in (3, 11)]
    assert np.allclose(found[0].values[24, [8, 56]], (1, 4), atol=1e-4) and found[0].calibration.points == 2
    assert np.allclose(found[1].values[24, [8, 56]], (10, 2), atol=1e-3) and found[1].calibration.points == 4


def test_one_factor_and_a_saved_calibration_hold_for_all_shots(tmp_path):
    source = frames(levels=CUT)
    assert run(job(source, folder="first", metres=metres(NEAR, FAR, "z:8,24=10@6", "z:56,24=2@6")), Plain()).code == 0
    kept = ClipMetres(MetresChoice(calibration_from=Path("first/a_depth_npz/frame_000000.npz")))
    assert run(job(source, metres=kept), Plain()).status == DONE
    assert np.allclose(values()[11][24, 56], 2 / 2.4, atol=1e-3)
    metric = Plain(find_row("metric-indoor-vits"))
    assert run(job(source, folder="scaled", metres=ClipMetres(MetresChoice(scale=2.0))), metric).status == DONE
    assert np.allclose(read_depth("scaled/a_depth_npz/frame_000000.npz").values[24, 8], 4, atol=1e-3)
    result = run(job(source, folder="none", metres=ClipMetres(MetresChoice(scale=2.0))), Plain())
    assert (result.status, result.code) == (FAILED, 2) and "`scale` multiplies metres" in result.error


@pytest.mark.parametrize(
    ("references", "reason"),
    [
        (("z:8,24=1@99",), "names a frame that is not there"),
        (("z:99,24=1",), "outside of the 64x48 picture"),
        (("z:8,24=1", "z:56,24=0.5"), "contradict"),
        (("missing.npz",), "does not exist"),
        (("range:1,10@3",), "is of a whole shot"),
    ],
)
def test_references_that_make_no_sense_are_refused_in_one_line(tmp_path, references, reason):
    try:
        result = run(job(frames(), metres=metres(*references, fit="line" if len(references) == 2 else "auto")), Plain())
        assert (result.status, result.code) == (FAILED, 2) and "\n" not in result.error
        said = result.error
    except UsageError as error:
        said = str(error)
    assert reason in said and not Path("out/a_depth_npz").exists()


def test_a_picture_has_no_frames_to_name():
    with pytest.raises(UsageError, match="names a frame, and a picture has none"):
        Metres(MetresChoice(("z:8,24=1@3",)))


def test_numbers_of_a_folders_frames_are_those_of_their_names(tmp_path):
    Path("shot").mkdir()
    for index in range(1001, 1004):
        gray = np.full(SIZE[::-1], 200, np.uint8)
        gray[:, SIZE[0] // 2 :] = 50
        Image.fromarray(gray).convert("RGB").save(f"shot/f.{index}.png")
    assert run(job("shot", metres=metres(f"{NEAR}@1002", f"{FAR}@1003")), Plain()).status == DONE
    assert read_depth("out/a_depth_npz/frame_001002.npz").calibration.points == 2


def test_more_clouds_than_a_hundred_are_asked_for_on_purpose(tmp_path):
    from depthcli.io.video.clip import Selection

    source = frames(levels=((200, 50),) * 101)
    with pytest.raises(UsageError, match="101 frames, and each would become a file of ply"):
        run(job(source, ("ply",)), Plain())
    assert run(job(source, ("ply",), selection=Selection(stride=50)), Plain()).status == DONE
    assert len(list(Path("out/a_depth_ply").glob("*.ply"))) == 3


def test_the_settings_name_the_references(tmp_path):
    wanted: ClipJob = job("shot", metres=metres(NEAR, FAR))
    assert f"scale-from={NEAR}+{FAR}" in wanted.settings_text and GRID
