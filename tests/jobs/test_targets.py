"""Where results go: what an output means, and that no two results end in one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import UsageError
from depthcli.io.codecs.files import write_depth
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.find import Input
from depthcli.jobs.targets import FILE, FOLDER, STREAM, Target, parse_template, plan_pictures

SUFFIXES = {name: row.suffix for name, row in STILLS.items()}


def stems(*names: str, output: str | None = "out") -> list[str]:
    inputs = [Input(Path("in") / name, Path(name)) for name in names]
    return [task.stem.as_posix() for task in plan_pictures(inputs, Path(output) if output else None)]


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


class TestPlaces:
    def test_the_tree_is_mirrored(self):
        assert stems("a.jpg", "b/a.jpg") == ["out/a", "out/b/a"]

    def test_without_an_output_folder_results_lie_beside_the_pictures(self):
        assert stems("a.jpg", "b/a.jpg", output=None) == ["in/a", "in/b/a"]

    def test_pictures_that_differ_in_their_suffix_only_keep_it(self):
        assert stems("a.jpg", "a.png", "b.png") == ["out/a.jpg", "out/a.png", "out/b"]

    def test_nor_does_a_kept_suffix_collide(self):
        assert stems("a.jpg", "a.jpg.bmp", "a.png") == ["out/a.jpg", "out/a.jpg.bmp", "out/a.png"]

    def test_dots_in_a_name_are_kept(self):
        assert stems("v1.2.jpg", "v1.3.jpg") == ["out/v1.2", "out/v1.3"]

    @pytest.mark.parametrize(
        ("pictures", "wanted"),
        [
            (("x/a.jpg", "y/a.jpg"), ["x/a", "y/a"]),
            (("p/x/q/a.jpg", "p/y/q/a.jpg", "b.jpg"), ["x/q/a", "y/q/a", "b"]),
            (("a.jpg", "x/a.jpg"), ["a", "x/a"]),
            (("x/a.jpg", "y/a.jpg", "y/a.png"), ["x/a", "y/a", "a"]),
            (("x/a.jpg", "y/a.png"), ["a.jpg", "a.png"]),
        ],
    )
    def test_pictures_of_one_name_are_told_apart_by_their_folders(self, pictures, wanted):
        inputs = [Input(Path(name), Path(Path(name).name)) for name in pictures]
        assert [task.stem for task in plan_pictures(inputs, Path("out"))] == [Path("out", name) for name in wanted]
        assert len({task.stem for task in plan_pictures(inputs, None)}) == len(inputs)

    def test_two_pictures_for_one_place_are_refused(self):
        inputs = [(Path("x/a.jpg"), Path("a.jpg")), (Path("y/a.jpg"), Path("a.jpg")), (Path("z.jpg"), Path("x/a.png"))]
        inputs.append((Path("w.jpg"), Path("x/a.jpg")))
        with pytest.raises(UsageError, match="would both be written to out/x/a"):
            plan_pictures(inputs, Path("out"))

    def test_no_two_formats_of_any_picture_share_a_file(self):
        names = ["a", "a_depth", "a_depth_gray", "a_depth.x"]
        paths = [path for name in names for path in OutputSpec(tuple(STILLS)).paths(Path(name))]
        assert len(set(paths)) == len(names) * len(STILLS)


class TestNamesThatStay:
    """What has a result keeps its name, with and without a manifest."""

    def result(self, name: str, source: str) -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        depth = DepthMap(
            np.eye(4, dtype=np.float32), DepthKind.RELATIVE_DISPARITY, provenance=Provenance(source=source)
        )
        write_depth(depth, name, "gray")

    def stems(self, *names: str, rows: dict | None = None) -> list[str]:
        touch(*(f"in/{name}" for name in names))
        inputs = [(Path("in", name), Path(name)) for name in sorted(names)]
        return [task.stem.name for task in plan_pictures(inputs, Path("out"), rows)]

    def test_a_newcomer_gets_its_suffix_and_nothing_else_changes(self):
        self.result("out/a_depth.png", "a.jpg")
        assert self.stems("a.jpg", "a.png") == ["a", "a.png"]
        self.result("out/a.png_depth.png", "a.png")
        assert self.stems("a.bmp", "a.jpg", "a.png") == ["a.bmp", "a", "a.png"]

    def test_a_picture_that_is_left_alone_keeps_its_suffix(self):
        self.result("out/a.png_depth_gray.png", "a.png")
        assert self.stems("a.png") == ["a.png"]

    def test_a_result_of_another_picture_is_not_replaced_while_that_is_there(self):
        self.result("out/a_depth.png", "a.jpg")
        touch("in/a.jpg")
        assert self.stems("a.png") == ["a.png"]
        Path("in/a.jpg").unlink()
        assert self.stems("a.png") == ["a"]

    def test_the_manifest_is_believed_without_a_look_at_the_files(self):
        def rows(**outputs):
            return {name.replace("_", "."): {"outputs": [output]} for name, output in outputs.items()}

        assert self.stems("a.jpg", "a.png", rows=rows(a_jpg="a_depth.npz")) == ["a", "a.png"]
        assert self.stems("a.jpg", rows=rows(a_jpg="a.jpg_depth_side.png")) == ["a.jpg"]
        assert self.stems("a.jpg", rows=rows(a_jpg="maps of a.png")) == ["a"]
        assert self.stems("a.jpg", "a.png", rows={"a.jpg": {"outputs": []}, "a.png": {}}) == ["a.jpg", "a.png"]

    def test_a_name_that_two_claim_goes_to_one(self):
        self.result("out/a_depth.png", "a.jpg")
        self.result("out/a_depth_gray.png", "a.png")
        assert self.stems("a.jpg", "a.png") == ["a", "a.png"]

    def test_files_of_others_change_no_name(self):
        touch("out/a_depth.png", "out/b.jpg_depth.png")
        assert self.stems("a.jpg", "b.jpg") == ["a", "b"]


class TestNaming:
    @pytest.mark.parametrize(
        ("text", "formats", "wanted"),
        [
            ("{stem}", ["gray"], ["IMG.1.png"]),
            ("{stem}.png", ["gray"], ["IMG.1.png"]),
            ("{name}", ["gray"], ["IMG.1.JPG.png"]),
            ("{stem}.v2", ["npz"], ["IMG.1.v2.npz"]),
            ("{parent}-{stem}_{format}", ["gray", "npz"], ["day 1-IMG.1_gray.png", "day 1-IMG.1_npz.npz"]),
            ("{stem}", ["gray", "npz"], ["IMG.1.png", "IMG.1.npz"]),
            ("x{{{stem}}}", ["color"], ["x{IMG.1}.png"]),
        ],
    )
    def test_a_template_gives_the_name(self, text, formats, wanted):
        template = parse_template(text, formats)
        (task,) = plan_pictures([(Path("day 1/IMG.1.JPG"), Path("d/IMG.1.JPG"))], Path("out"), template=template)
        paths = OutputSpec(tuple(formats), endings=template.endings).paths(task.stem)
        assert [path.as_posix() for path in paths] == [f"out/d/{name}" for name in wanted]

    @pytest.mark.parametrize(
        ("text", "formats", "reason"),
        [
            ("{stems}", ["gray"], "unknown field, {stems} .fields are {stem}, {name}, {parent}, {format}"),
            ("{}", ["gray"], "unknown field, {}"),
            ("{stem:>9}", ["gray"], "unknown field"),
            ("{stem!r}", ["gray"], "unknown field"),
            ("{stem.suffix}", ["gray"], "unknown field"),
            ("{stem", ["gray"], "expected '}'"),
            ("depth", ["gray"], "is the same for all pictures"),
            ("{format}", ["gray"], "is the same for all pictures"),
            ("", ["gray"], "is the same for all pictures"),
            ("d/{stem}", ["gray"], "not the name of a file"),
            ("{stem}", ["gray", "color"], "gives gray and color one name .put {format}"),
            ("{format}{stem}", ["gray"], "put {format} behind"),
            ("{stem}.jpg", ["gray"], r"gray is written as \.png, not \.jpg"),
            ("{stem}.png", ["npz"], r"npz is written as \.npz, not \.png"),
        ],
    )
    def test_what_cannot_be_a_name_is_refused(self, text, formats, reason):
        with pytest.raises(UsageError, match=reason):
            parse_template(text, formats)

    def test_two_pictures_of_one_stem_are_refused(self):
        inputs = [(Path("in/a.jpg"), Path("a.jpg")), (Path("in/a.png"), Path("a.png"))]
        with pytest.raises(UsageError, match=r"a\.jpg and in/a\.png would both be written to out/a\.png .use {name}"):
            plan_pictures(inputs, Path("out"), template=parse_template("{stem}", ["gray"]))
        assert len(plan_pictures(inputs, Path("out"), template=parse_template("{name}", ["gray"]))) == 2


class TestLongNames:
    @pytest.mark.parametrize("stem", ["x" * 251, "深" * 82, "a" * 246, "é" * 123])
    @pytest.mark.parametrize("format", STILLS)
    def test_a_name_too_long_for_the_disk_ends_in_a_digest(self, tmp_path, stem, format):
        path, again = (OutputSpec((format,)).paths(tmp_path / "new" / stem)[0] for _ in range(2))
        assert path == again and path.name.endswith(STILLS[format].still) and stem[:40] == path.name[:40]
        path.parent.mkdir()
        path.touch()
        other = OutputSpec((format,)).paths(tmp_path / "new" / (stem[:-1] + "y"))[0]
        assert other != path and len(os.fsencode(path.name)) <= 255

    @pytest.mark.parametrize("ending", ["y" * 240 + ".png", "y" * 247 + ".png", "y" * 300 + ".png"])
    def test_an_ending_that_leaves_no_room_is_for_the_disk_to_refuse(self, tmp_path, ending):
        path = OutputSpec(("color",), endings=(ending,)).paths(tmp_path / ("x" * 20))[0]
        assert path.name.endswith(ending)
        if len(ending) > 246:
            with pytest.raises(OSError, match="too long"):
                path.touch()

    def test_a_name_that_fits_stays(self, tmp_path):
        stem = "x" * 245
        assert OutputSpec().paths(tmp_path / stem)[0].name == f"{stem}_depth.png"


@pytest.mark.parametrize(
    ("output", "place"),
    [
        ("out.png", FILE),
        ("out.JPG", FILE),
        ("out.tiff", FILE),
        ("out.exr", FILE),
        ("new/out.npz", FILE),
        ("maps.v2", FOLDER),
        ("2024.11.28", FOLDER),
        ("out", FOLDER),
        ("out.png/", FOLDER),
        ("there.png", FOLDER),
        ("pipe", STREAM),
        ("-", STREAM),
        ("/dev/null", STREAM),
        ("/dev/shm", FOLDER),
    ],
)
def test_what_an_output_means(output, place):
    Path("there.png").mkdir()
    os.mkfifo("pipe")
    target = Target.of(output)
    assert (target.place, target.folder) == (place, Path(output) if place == FOLDER else None)
