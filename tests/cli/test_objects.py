"""`depth objects` from the command line: masks and depth from files, and from models."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli import DepthKind, DepthMap, read_depth, write_depth
from depthcli.io.masks import rle
from tests.conftest import TINY, broken, environment, photo, tree
from tests.io.video.clips import make_clip
from tests.nets.test_rf_detr import save_detector

SIZE = (80, 60)
FILES = ("--masks", "masks", "--depth", "maps")


def labels(name: str, right: int = 60) -> None:
    """Write two objects: 1 at the left, 2 at the right."""
    numbers = np.zeros(SIZE[::-1], np.uint8)
    numbers[20:50, 10:30], numbers[10:40, 40:right] = 1, 2
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(name)


def flat(name: str, kind: DepthKind = DepthKind.METRIC_DEPTH) -> None:
    """Write depth of 2 m at the left and 4 m at the right."""
    values = np.full(SIZE[::-1], 4, np.float32)
    values[:, :35] = 2
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    write_depth(DepthMap(values if kind.is_metric else 1 / values, kind), name)


@pytest.fixture
def files():
    """A picture, its masks with names, and metres."""
    photo("a.png")
    labels("masks/a.png")
    Path("masks/labels.json").write_text('{"1": "person", "2": "car"}')
    flat("maps/a_depth.npz")


def wait_until(happened, process: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)


def document(name: str = "a_objects.json") -> dict:
    return json.loads(Path(name).read_bytes())


class TestFiles:
    def test_the_json_of_a_picture(self, depth, files):
        ran = depth("objects", "a.png", *FILES, "--focal", "100")
        assert (ran.code, ran.lines, ran.err) == (0, ["a_objects.json", "a_objects.png"], "")
        found = document()
        assert len(found.pop("made_from")) == 16
        assert found.pop("depthcli") and found["picture"].pop("sha256") and found["masks"].pop("digest")
        for row in found["objects"]:
            row["mask"] = [int(side) for side in np.argwhere(rle.decode(row["mask"]))[[0, -1]].ravel()]
        assert found == json.loads((Path(__file__).parent / "objects_golden.json").read_text())

    def test_it_needs_no_torch_and_no_network(self, files):
        code = (
            "import sys; from depthcli.cli import app; sys.argv = sys.argv[1:]\n"
            "try: app.run()\nexcept SystemExit as end: assert not end.code, end.code\n"
            "print(*sorted({'torch', 'transformers', 'openvino', 'av'} & set(sys.modules)))"
        )
        command = [sys.executable, "-c", code, "depth", "objects", "a.png", *FILES, "-f", "overlay,masks,mattes,exr"]
        ran = subprocess.run([*command, "-q"], env=environment(), capture_output=True, text=True)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "\n", "")

    def test_every_format(self, depth, files):
        ran = depth("objects", "a.png", *FILES, "-f", "overlay,masks,mattes,exr", "-o", "out")
        names = ["objects.json", "objects.png", "masks.png", "mattes", "objects.exr"]
        assert ran.code == 0 and ran.lines == [f"out/a_{name}" for name in names]
        numbers = np.asarray(Image.open("out/a_masks.png")).astype(int)
        assert np.unique(numbers).tolist() == [0, 1, 2] and numbers[30, 15] == 1 and numbers[30, 50] == 2
        assert sorted(path.name for path in Path("out/a_mattes").iterdir()) == ["000_person.png", "001_car.png"]
        matte = np.asarray(Image.open("out/a_mattes/001_car.png")).astype(int)
        assert (np.unique(matte).tolist(), (matte > 0).sum()) == ([0, 65535], 600)
        assert (read_depth("out/a_objects.exr").values == read_depth("maps/a_depth.npz").values).all()
        overlay = np.asarray(Image.open("out/a_objects.png"))
        assert overlay.shape == (60, 80, 3) and (overlay[30, 15] != overlay[55, 5]).any()

    def test_mattes_of_an_earlier_run_go(self, depth, files):
        depth("objects", "a.png", *FILES, "-f", "mattes")
        Path("a_mattes/000_mine.png").write_bytes(b"not of depthcli")
        depth("objects", "a.png", *FILES, "-f", "mattes", "--classes", "car")
        assert sorted(path.name for path in Path("a_mattes").iterdir()) == ["000_car.png", "000_mine.png"]

    def test_an_exr_has_depth_and_ids_for_strangers(self, depth, files):
        exr = pytest.importorskip("OpenEXR", reason="has no wheel for Python 3.9")
        depth("objects", "a.png", *FILES, "-f", "exr")
        with exr.File("a_objects.exr", separate_channels=True) as file:
            channels = file.channels()
            assert set(channels) == {"R", "G", "B", "Z", "id"}
            assert channels["Z"].pixels[30, 15] == 2 and channels["id"].pixels[30, 15] == 1

    def test_a_table_and_coco_of_all_pictures(self, depth, files):
        photo("in/b.png"), photo("in/a.png")
        labels("masks/b.png", right=70)
        flat("maps/b.npz")
        ran = depth("objects", "in", *FILES, "--csv", "all.csv", "--coco", "all.json")
        assert (
            ran.code == 0 and ran.lines[-2:] == ["all.csv", "all.json"] and Path("in_objects/b_objects.png").is_file()
        )
        rows = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
        assert [(row["picture"], row["label"], row["distance"]) for row in rows] == [
            *(("a.png", "person", "2.0"), ("a.png", "car", "4.0"), ("b.png", "person", "2.0"), ("b.png", "car", "4.0"))
        ]
        coco = json.loads(Path("all.json").read_bytes())
        assert [row["name"] for row in coco["categories"]] == ["person", "car"]
        assert [row["bbox"] for row in coco["annotations"]][3] == [40, 10, 30, 30]
        again = depth("objects", "in", "--masks", "all.json", "--depth", "maps", "-o", "again", "--csv", "again.csv")
        assert again.code == 0 and Path("again.csv").read_bytes() == Path("all.csv").read_bytes()

    def test_our_json_is_taken_as_masks(self, depth, files):
        depth("objects", "a.png", *FILES)
        before = document()["objects"]
        assert depth("objects", "a.png", "--masks", "a_objects.json", "--depth", "maps", "-o", "again").code == 0
        assert document("again/a_objects.json")["objects"] == before

    def test_json_on_stdout_is_a_line_for_each_picture(self, depth, files):
        ran = depth("objects", "a.png", *FILES, "-o", "-")
        assert [json.loads(line)["picture"]["path"] for line in ran.lines] == ["a.png"]
        assert not Path("a_objects.json").exists()

    def test_depth_of_another_size_is_brought_to_the_picture_s(self, depth, files):
        values = np.full((30, 40), 4, np.float32)
        values[:, :17] = 2
        write_depth(DepthMap(values, DepthKind.METRIC_DEPTH), "half.npz")
        depth("objects", "a.png", "--masks", "masks", "--depth", "half.npz", "--focal", "100", "-o", "half")
        depth("objects", "a.png", *FILES, "--focal", "100")
        places = [
            [row["position"] for row in document(name)["objects"]] for name in ("half/a_objects.json", "a_objects.json")
        ]
        assert places[0] == places[1]

    def test_millimetres_and_distances_along_rays(self, depth, files):
        Image.fromarray(np.full(SIZE[::-1], 2500, np.uint16)).save("mm.png")
        options = ("--masks", "masks", "--depth", "mm.png", "--from", "mm", "--focal", "100")
        assert depth("objects", "a.png", *options).code == 0
        assert [row["distance"] for row in document()["objects"]] == [2.5, 2.5]
        assert depth("objects", "a.png", *options, "--depth-is", "ray").code == 0
        rows = document()["objects"]
        assert all(row["distance"] < 2.5 and row["range"] == pytest.approx(2.5, abs=0.02) for row in rows)

    def test_relative_depth_gives_order_and_says_so(self, depth, files):
        flat("maps/a_depth.npz", DepthKind.RELATIVE_DISPARITY)
        ran = depth("objects", "a.png", *FILES, "--focal", "100")
        assert ran.code == 0 and "order alone, no metres" in ran.err
        found = document()
        assert [row["label"] for row in found["objects"]] == ["person", "car"]
        assert {row[name] for row in found["objects"] for name in ("distance", "range", "width", "p5")} == {None}
        ran = depth("objects", "a.png", *FILES, "--require-metric", "-o", "none")
        assert ran.code == 2 and "--metric" in ran.error and not Path("none").exists()

    def test_no_object_is_no_error(self, depth, files):
        Image.new("L", SIZE).save("masks/a.png")
        ran = depth(
            "objects", "a.png", *FILES, "-f", "overlay,masks,mattes,exr", "--csv", "all.csv", "--coco", "c.json"
        )
        assert ran.code == 0 and document()["objects"] == []
        assert len(Path("all.csv").read_text().splitlines()) == 1
        assert json.loads(Path("c.json").read_bytes())["annotations"] == []


class TestRuns:
    def test_a_folder_is_done_beside_it_and_again_only_what_changed(self, depth, files):
        photo("in/a.png"), photo("in/b.png")
        labels("masks/b.png")
        flat("maps/b.npz")
        assert depth("objects", "in", *FILES).code == 0
        before = tree("in_objects")
        assert "2 skipped" in depth("objects", "in", *FILES).err and tree("in_objects") == before
        photo("in/b.png", size=(82, 60))
        ran = depth("objects", "in", *FILES)
        assert ran.code == 3 and "82x60" in ran.err  # its masks are of the old picture

    def test_other_settings_make_results_anew(self, depth, files):
        photo("in/a.png")
        depth("objects", "in", *FILES)
        assert depth("objects", "in", *FILES, "--classes", "car").code == 0
        assert [row["label"] for row in document("in_objects/a_objects.json")["objects"]] == ["car"]

    def test_changed_masks_and_depth_are_noticed_picture_by_picture(self, depth, files):
        photo("in/a.png"), photo("in/b.png")
        labels("masks/b.png")
        flat("maps/b.npz")
        depth("objects", "in", *FILES)
        labels("masks/b.png", right=70)
        assert "1 skipped" in depth("objects", "in", *FILES).err
        assert document("in_objects/b_objects.json")["objects"][1]["area"] == 900
        flat("maps/a_depth.npz", DepthKind.RELATIVE_DISPARITY)
        assert "1 skipped" in depth("objects", "in", *FILES).err
        assert document("in_objects/a_objects.json")["depth"]["kind"] == "relative_disparity"
        assert "2 skipped" in depth("objects", "in", *FILES).err

    def test_results_are_not_taken_for_pictures_or_depth(self, depth, files):
        depth("objects", "a.png", *FILES, "-f", "overlay,masks")
        ran = depth("objects", ".", *FILES, "-o", "out")
        assert "results of depthcli" in ran.err and Path("out/a_objects.json").is_file()
        ran = depth("objects", "a.png", "--masks", "masks", "--depth", "a_objects.png")
        assert ran.code == 1 and "is not a depth map" in ran.error

    def test_a_broken_picture_does_not_stop_the_others(self, depth, files):
        photo("in/a.png"), broken("in/c.png")
        ran = depth("objects", "in", *FILES)
        assert ran.code == 3 and "in_objects/a_objects.json" in ran.lines and "c.png" in ran.err

    def test_masks_and_depth_of_a_model(self, depth, files):
        ran = depth("objects", "a.png", "--masks", "masks", *TINY)
        assert ran.code == 0 and document()["depth"]["model"] == "tiny"
        assert {row["rank"] for row in document()["objects"]} == {0, 1}
        found = [row["distance"] for row in document()["objects"]]
        assert found == [None, None]


class TestClips:
    """Frames of a folder: three pictures in which the left object moves to the right."""

    @pytest.fixture
    def clip(self):
        for number in range(3):
            photo(f"clip/f{number}.png")
            numbers = np.zeros(SIZE[::-1], np.uint8)
            numbers[20:50, 10 + number : 30 + number], numbers[10:40, 40:60] = 7, 2
            Path("masks").mkdir(exist_ok=True)
            Image.fromarray(numbers).save(f"masks/{number}.png")
            flat(f"maps/{number}.npz")
        make_clip("clip.mp4", frames=3, size=SIZE)

    def lines(self, name: str = "clip_objects.jsonl") -> list[dict]:
        return [json.loads(line) for line in Path(name).read_text().splitlines()]

    def test_a_line_for_each_frame_and_a_film(self, depth, clip):
        ran = depth("objects", "clip.mp4", *FILES, "--track", "--csv", "all.csv")
        assert (ran.code, ran.lines) == (0, ["clip_objects.jsonl", "clip_objects.mp4", "all.csv"]), ran.err
        found = self.lines()
        assert [row["frame"] for row in found] == [0, 1, 2] and found[1]["time"] > 0
        assert [[(row["track"], row["label"]) for row in line["objects"]] for line in found] == [
            [(0, "object 7"), (1, "object 2")]
        ] * 3
        assert [row["smooth_distance"] for row in found[2]["objects"]] == [2, 4]
        with av.open("clip_objects.mp4") as film:
            assert sum(1 for _ in film.decode(video=0)) == 3
        assert len(Path("all.csv").read_text().splitlines()) == 7

    def test_labels_and_exr_are_folders_with_the_numbers_of_tracks(self, depth, clip):
        depth("objects", "clip.mp4", *FILES, "--track", "-f", "masks,exr")
        assert sorted(path.name for path in Path("clip_masks").iterdir()) == [f"00000{n}.png" for n in range(3)]
        assert np.asarray(Image.open("clip_masks/000002.png"))[30, 20] == 1
        assert read_depth("clip_objects_exr/000002.exr").values[30, 20] == 2

    def test_its_lines_are_masks_for_another_run(self, depth, clip):
        depth("objects", "clip.mp4", *FILES, "--track", "-f", "json")
        depth("objects", "clip.mp4", "--masks", "clip_objects.jsonl", "--depth", "maps", "-f", "json", "-o", "again")
        first, again = self.lines(), self.lines("again/clip_objects.jsonl")
        for one, two in zip(first, again):
            for row, other in zip(one["objects"], two["objects"]):
                assert {**row, "smooth_distance": None} == {**other, "smooth_distance": None}

    def test_depth_of_a_model_and_again_nothing(self, depth, clip):
        ran = depth("objects", "clip.mp4", "--masks", "masks", "--steady", "off", *TINY)
        assert ran.code == 0 and "order alone" in ran.err
        assert [len(line["objects"]) for line in self.lines()] == [2, 2, 2]
        assert "1 skipped" in depth("objects", "clip.mp4", "--masks", "masks", "--steady", "off", *TINY).err

    def test_frames_that_lack_depth_end_it_without_files(self, depth, clip):
        Path("maps/2.npz").unlink()
        ran = depth("objects", "clip.mp4", *FILES)
        assert ran.code == 2 and "2 maps" in ran.error and not list(Path().glob("clip_objects*"))
        assert depth("objects", "clip.mp4", *FILES, "--max-frames", "2").code == 0 and len(self.lines()) == 2

    def test_the_same_clip_again_is_skipped_and_another_one_is_not(self, depth, clip):
        options = (*FILES, "-f", "masks", "--track")
        assert depth("objects", "clip.mp4", *options).code == 0
        before = tree(".")
        assert "1 skipped" in depth("objects", "clip.mp4", *options).err and tree(".") == before
        assert depth("objects", "clip.mp4", *options, "--csv", "all.csv").code == 0  # of what is there
        assert len(Path("all.csv").read_text().splitlines()) == 7
        ran = depth("objects", "clip.mp4", *options, "--classes", "object 2")
        assert ran.code == 0 and [len(line["objects"]) for line in self.lines()] == [1] * 3
        assert depth("objects", "clip.mp4", *options, "--max-frames", "2").code == 0 and len(self.lines()) == 2
        assert sorted(path.name for path in Path("clip_masks").iterdir()) == ["000000.png", "000001.png"]
        Image.new("L", SIZE).save("masks/1.png")
        assert depth("objects", "clip.mp4", *options).code == 0
        assert [len(line["objects"]) for line in self.lines()] == [2, 0, 2]
        make_clip("clip.mp4", frames=2, size=SIZE)  # another version of it
        assert depth("objects", "clip.mp4", *options).code == 0 and len(self.lines()) == 2
        assert sorted(path.name for path in Path("clip_masks").iterdir()) == ["000000.png", "000001.png"]

    def test_results_of_another_clip_are_not_replaced(self, depth, clip):
        assert depth("objects", "clip.mp4", *FILES, "-f", "json", "-o", "out").code == 0
        before = tree("out")
        Path("b").mkdir()
        make_clip("b/clip.mp4", frames=2, size=SIZE)
        ran = depth("objects", "b/clip.mp4", *FILES, "-f", "json", "-o", "out")
        assert ran.code != 0 and "is of another clip, clip.mp4" in ran.error and tree("out") == before
        assert depth("objects", "b/clip.mp4", *FILES, "-f", "json", "-o", "out", "--if-exists", "overwrite").code == 0
        assert len(self.lines("out/clip_objects.jsonl")) == 2

    def test_moved_together_they_are_still_its_results(self, depth, clip):
        depth("objects", "clip.mp4", *FILES, "-f", "json")
        Path("moved").mkdir()
        for name in ("clip.mp4", "clip_objects.jsonl"):
            Path(name).rename(Path("moved") / name)
        assert "1 skipped" in depth("objects", "moved/clip.mp4", *FILES, "-f", "json").err

    def test_killed_and_started_again_it_gives_the_same_bytes(self, depth, start, clip):
        make_clip("clip.mp4", frames=60, size=SIZE)
        for number in range(60):
            for name in ("masks/{}.png", "maps/{}.npz"):
                Path(name.format(number)).write_bytes(Path(name.format(number % 3)).read_bytes())
        options = (*FILES, "--track", "-f", "overlay,masks,exr")
        assert depth("objects", "clip.mp4", *options, "-o", "whole").code == 0
        for _ in range(3):
            process = start("objects", "clip.mp4", *options, "-o", "killed")
            wait_until(lambda: len(list(Path().glob("killed/.depthcli-*/0000*.png"))) >= 5, process)
            process.kill()
            process.wait()
            assert not [path for path in Path("killed").iterdir() if not path.name.startswith(".")]
        assert depth("objects", "clip.mp4", *options, "-o", "killed").code == 0
        whole, killed = tree("whole"), tree("killed")
        assert len(whole) == 123 and list(whole) == list(killed)
        assert all(whole[name] == killed[name] for name in whole)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("clip.mp4", "-f", "mattes"), "mattes is of pictures"),
            (("clip.mp4", "--scale-from", "at:1,1=2"), "--scale-from is of one picture"),
            (("clip/f0.png", "--track"), "for clips"),
            (("clip/f0.png", "--max-frames", "2"), "for clips"),
        ],
    )
    def test_nonsense_is_one_line(self, depth, clip, arguments, message):
        ran = depth("objects", *arguments, *FILES)
        assert ran.code == 2 and message in ran.error


class TestDetector:
    def test_a_picture_a_folder_and_a_clip(self, depth, files):
        save_detector("hub")
        options = ("--detector", "hub", "--depth", "maps", "--threshold", "0", "--overlap", "1")
        for name in ("in/a.png", "in/b.png"):
            photo(name)
        flat("maps/b.npz")
        assert depth("objects", "in", *options).code == 0
        found = document("in_objects/a_objects.json")
        assert found["masks"]["source"] == "hub" and found["masks"]["trim"] >= 3 and found["objects"]
        scores = [row["score"] for row in found["objects"]]
        assert all(0 <= score <= 1 for score in scores)
        assert "2 skipped" in depth("objects", "in", *options).err
        save_detector("hub", num_queries=5)
        assert "skipped" not in depth("objects", "in", *options).err
        make_clip("clip.mp4", frames=2, size=SIZE)
        assert depth("objects", "clip.mp4", *options, "--track").code == 0
        ran = depth("objects", "a.png", *options, "--classes", "person")
        assert ran.code == 2 and "knows no class 'person'" in ran.error

    def test_weights_that_are_not_here(self, depth, files):
        ran = depth("objects", "a.png", "--depth", "maps", "--detector", "seg-nano")
        assert ran.code == 4 and "into checkpoints/rf-detr-seg-nano/" in ran.error and "--masks" in ran.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--masks", "none"), "none does not exist"),
        (("--masks", "masks", "--detector", "seg-nano"), "--masks are made already"),
        (("--masks", "masks", "--depth", "maps", "--metric", "indoor"), "no model runs"),
        (("--masks", "masks", "--from", "mm"), "--depth"),
        (("--masks", "masks", "--depth", "nowhere"), "nowhere does not exist"),
        ((*FILES, "--sort", "size"), "--sort"),
        ((*FILES, "--threshold", "2"), "--threshold must be 0 to 1"),
        ((*FILES, "-f", "gray"), "--format"),
        ((*FILES, "-o", "x.json"), "not a folder"),
        ((*FILES, "--csv", "masks"), "is a folder"),
        ((*FILES, "--colormap", "x"), "no colour map"),
        ((*FILES, "--fov", "200"), "--fov"),
    ],
)
def test_nonsense_is_one_line(depth, files, arguments, message):
    ran = depth("objects", "a.png", *arguments)
    assert ran.code in (1, 2) and message in ran.error
    assert not Path("a_objects.json").exists() and not Path("a_objects.png").exists()
