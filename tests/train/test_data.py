"""Lists, folders and TUM sequences become entries; parts do not mix; nonsense is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli.errors import UsageError
from depthcli.eval.lists import read_list
from depthcli.train.check import check_data, write_contact_sheet
from depthcli.train.data import DataSet, TruthFormat, read_data
from depthcli.zoo.rows import find_row
from tests.train.rgbd import write_list, write_pair

TINY, INDOOR = find_row("tiny"), find_row("metric-indoor-vits")
MM = TruthFormat("realsense")


def names(entries) -> list[str]:
    return [entry.name for entry in entries]


def read(*sources: str, truth_format: TruthFormat = MM, **options) -> DataSet:
    return read_data([Path(source) for source in sources], truth_format, **options)


def split(folder: str, first: int, count: int, layout: str = "{part}/{kind}") -> None:
    part = "valid" if first else "train"
    for number in range(first, first + count):
        kinds = (layout.format(part=part, kind=kind) for kind in ("images", "depth"))
        write_pair(*(Path(folder, kind, f"{number}.png") for kind in kinds), number)


class TestSources:
    @pytest.mark.parametrize("layout", ["{part}/{kind}", "{kind}/{part}"])
    def test_folders_in_the_layout_of_detectors_have_their_own_parts(self, layout):
        split("set", 0, 3, layout)
        split("set", 7, 2, layout)
        found = read("set")
        assert names(found.train) == ["0", "1", "2"] and names(found.val) == ["7", "8"]
        assert {entry.format for entry in found.train} == {"scannet"}

    def test_a_folder_to_validate_on_may_have_that_part_alone(self):
        split("one", 0, 3)
        split("two", 7, 2)
        found = read("one", val=Path("two"))
        assert len(found.train) == 3 and names(found.val) == ["7", "8"]

    def test_labels_without_depth_are_refused(self):
        split("set", 0, 2)
        Path("set/train/depth").rename("set/train/labels")
        with pytest.raises(UsageError, match="has no folder depth"):
            read("set")

    def test_a_folder_of_images_and_depth_is_divided_here(self):
        for number in range(10):
            write_pair(Path(f"set/images/{number}.png"), Path(f"set/depth/{number}.png"), number)
        found = read("set")
        assert len(found.train) == 9 and names(found.val) == ["9"]

    def test_a_picture_without_depth_is_left_out_and_noted(self):
        split("set", 0, 3)
        Path("set/train/depth/1.png").unlink()
        found = read("set", val=0.0)
        assert names(found.train) == ["0", "2"] and "1 pictures" in found.notes[0]

    def test_depth_that_does_not_say_its_unit_needs_a_format(self):
        split("set", 0, 2)
        with pytest.raises(UsageError, match="truth_format"):
            read("set", truth_format=TruthFormat())
        with pytest.raises(UsageError, match="choose from: nyu"):
            TruthFormat("millimeters")

    def test_our_own_files_say_what_they_are(self):
        from depthcli.depthmap import DepthKind, DepthMap
        from depthcli.io.codecs.files import write_depth
        from tests.conftest import photo

        photo("set/images/a.png")
        write_depth(DepthMap(np.full((60, 80), 2, np.float32), DepthKind.METRIC_DEPTH), Path("set/depth/a_depth.npz"))
        (entry,) = read("set", truth_format=TruthFormat(), val=0.0).train
        assert entry.format == "depthcli"

    def test_a_tum_sequence_pairs_what_is_nearest_in_time(self):
        for folder in ("rgb", "depth"):
            Path("tum", folder).mkdir(parents=True)
        Path("tum/rgb.txt").write_text("# seconds file\n1.00 rgb/a.png\n1.10 rgb/b.png\n1.50 rgb/c.png\n")
        Path("tum/depth.txt").write_text("1.015 depth/A.png\n1.005 depth/B.png\n1.11 depth/C.png\n")
        found = read("tum", val=0.0).train
        pairs = [(entry.picture.name, entry.truth.name, entry.format) for entry in found]
        assert pairs == [("a.png", "B.png", "tum"), ("b.png", "C.png", "tum")]
        Path("tum/associations.txt").write_text("1.5 depth/A.png 1.5 rgb/c.png\n")
        (entry,) = read("tum", val=0.0).train
        assert (entry.picture.name, entry.truth.name) == ("c.png", "A.png")

    def test_a_folder_of_another_layout_is_refused(self):
        Path("photos").mkdir()
        for source in ("photos", "missing", "list.txt"):
            with pytest.raises(UsageError, match=r"docs/train\.md"):
                read(source)


class TestParts:
    def test_the_last_of_each_folder_validate(self):
        """Neighbouring frames of a clip are alike: a random choice would score what was trained on."""
        rows = [
            {"picture": f"{clip}/{n}.png", "truth": "d.png", "format": "nyu", "name": f"{clip}{n}"}
            for clip, count in (("a", 10), ("b", 20), ("c", 2))
            for n in range(count)
        ]
        Path("list.json").write_text(json.dumps(rows))
        assert names(read("list.json").val) == ["a9", "b18", "b19"]
        assert names(read("list.json", val=0.5).val)[-2:] == ["b19", "c1"]
        assert not read("list.json", val=0.0).val

    def test_two_pictures_are_enough(self):
        assert [len(part) for part in (read(str(write_list(2))).train, read("list.json").val)] == [1, 1]

    def test_a_list_to_validate_on_must_be_another(self):
        write_list(4)
        write_list(2, "val.json", first=10)
        assert len(read("list.json", val=Path("val.json")).val) == 2
        with pytest.raises(UsageError, match=r"0\.png is used to train and to validate"):
            read("list.json", val=Path("list.json"))

    def test_a_limit_counts_all_pictures_and_spreads_over_them(self):
        write_list(30)
        found = read("list.json", limit=10, val=0.5)
        assert len(found.train) == 8 and len(found.val) == 2
        assert found.train[-1].name > "12" and found.digest != read("list.json", val=0.5).digest

    def test_an_entry_without_a_truth_is_refused(self):
        Path("list.json").write_text('[{"picture": "a.png", "pairs": [[[1, 1], [2, 2]]]}]')
        with pytest.raises(UsageError, match=r"entry 1 \(a\) has no truth"):
            read("list.json")


def check(row=TINY, **facts):
    """Check two pairs, with these facts in their list."""
    rows = json.loads(write_list(2).read_text())
    Path("list.json").write_text(json.dumps([{**item, **facts} for item in rows]))
    return check_data(read_list(Path("list.json")), row)


class TestCheck:
    def test_it_says_units_shares_and_ranges(self):
        found = check()
        assert (found.pictures, found.unit, found.known) == (2, "m", 1.0)
        assert 1 <= found.low < found.middle < found.high <= 5 and found.sizes == ((84, 56),)
        assert "2 pictures, 100% of the depth known" in found.line

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"scale": 1}, "looks like millimetres read as metres"),
            ({"scale": 1e6}, "looks like metres read as millimetres"),
            ({"scale": 50}, "beyond 20 m, the largest of metric-indoor-vits"),
            ({"invalid": list(range(900, 5100))}, "no picture has a known depth"),
            ({"format": "disparity"}, "a metric model needs metres"),
            ({"truth": "rgb/0.png"}, "cannot be used"),
            ({"truth": "depth/7.png"}, "2 of 2 pictures cannot be used: entry 1"),
            ({"crop": [0, 0, 57, 84]}, "reaches beyond the truth"),
        ],
    )
    def test_nonsense_is_refused_with_its_reason(self, facts, reason):
        with pytest.raises(UsageError, match=reason):
            check(INDOOR, **facts)

    def test_depth_of_one_number_is_refused(self):
        write_list(2)
        for number in range(2):
            Image.fromarray(np.full((56, 84), 1000, np.uint16)).save(f"depth/{number}.png")
        with pytest.raises(UsageError, match="are these masks"):
            check_data(read_list(Path("list.json")), TINY)

    def test_what_may_be_right_is_a_warning(self):
        write_list(3)
        Image.fromarray(np.zeros((56, 84), np.uint16)).save("depth/1.png")
        found = check_data(read_list(Path("list.json")), find_row("metric-outdoor-vits"))
        assert "fewer than 10 known elements, which do not count: entry 2 (1)" in found.warnings[0]
        assert "far below" in found.warnings[1]

    def test_the_contact_sheet_shows_pictures_above_their_depth(self):
        entries = read_list(write_list(25))
        write_contact_sheet(entries, Path("data.png"))
        with Image.open("data.png") as sheet:
            assert sheet.size == (4 * 240, 5 * 2 * 160)
