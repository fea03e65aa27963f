"""Which pictures are meant by what was typed, and that no two of them end in one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import PictureError, UsageError
from depthcli.io.codecs.files import write_depth
from depthcli.io.codecs.formats import STILLS
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures.images import read_picture
from depthcli.jobs.inputs import (
    LeftOut,
    command_for,
    expand,
    find_pictures,
    is_chosen,
    is_device,
    means_file,
    parse_name,
    plan_tasks,
)
from tests.conftest import photo


def found(*arguments: str) -> list[str]:
    return [str(path) for path, _ in expand(arguments)]


def below(folder: str, include: tuple = (), exclude: tuple = (), **options: object) -> list[str]:
    return [p.as_posix() for p in find_pictures(Path(folder), **options) if is_chosen(p, include, exclude)]


def stems(*names: str, output: str | None = "out") -> list[str]:
    pairs = [(Path("in") / name, Path(name)) for name in names]
    return [task.stem.as_posix() for task in plan_tasks(pairs, Path(output) if output else None)]


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


class TestFolders:
    def test_pictures_are_found_at_every_depth_and_sorted(self):
        touch("in/c.JPG", "in/b/z.png", "in/b/a.webp", "in/a.tiff")
        assert below("in") == ["a.tiff", "b/a.webp", "b/z.png", "c.JPG"]

    def test_what_is_no_picture_is_passed_over(self):
        touch(
            "in/a.txt", "in/a", "in/clip.mp4", "in/.hidden.jpg", "in/._a.jpg", "in/.git/a.jpg", "in/a.npz", "in/b.jpg"
        )
        Path("in/folder.jpg").mkdir()
        assert below("in") == ["b.jpg"]

    def test_a_picture_that_cannot_be_read_is_taken_up_so_that_it_is_named(self):
        touch("in/empty.jpg")
        Path("in/dangling.jpg").symlink_to("nowhere.jpg")
        Path("in/loop.jpg").symlink_to("loop.jpg")
        assert below("in") == ["dangling.jpg", "empty.jpg", "loop.jpg"]

    def test_links_are_followed_to_files_and_to_folders(self):
        touch("other/a.jpg", "other/deep/c.jpg", "in/b.jpg", "in/real/d.jpg")
        Path("in/link.jpg").symlink_to("../other/a.jpg")
        Path("in/folder").symlink_to("../other")
        assert below("in") == ["b.jpg", "folder/a.jpg", "folder/deep/c.jpg", "link.jpg", "real/d.jpg"]

    @pytest.mark.parametrize(
        "links",
        [
            {"self": "."},
            {"up": ".."},
            {"a/up": ".."},
            {"a/top": "../.."},
            {"z": "a"},
            {"A": "a"},
            {"x": "../other", "y": "../other"},
            {"x": "../other", "../other/back": "../in"},
            {"x": "../other", "../other/up": ".."},
            {"x": "../other", "../other/self": "."},
        ],
        ids=str,
    )
    def test_no_folder_is_entered_twice_and_what_is_not_is_counted(self, links):
        touch("in/a/a.jpg", "other/o.jpg", "elsewhere/e.jpg")
        for name, target in links.items():
            Path("in", name).symlink_to(target)
        left = LeftOut()
        found = find_pictures(Path("in"), left=left)
        other = [Path("x/o.jpg")] if "x" in links else []
        assert (found, left.links) == ([Path("a/a.jpg"), *other], len(links) - len(other))

    @pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
    def test_a_folder_that_two_links_lead_to_is_entered_once(self, names):
        touch("in/a.jpg", "x/o.jpg", "x/deep/p.jpg")
        for name, target in zip(names, ("../x", "../x/deep")):
            Path("in", name).symlink_to(target)
        found = find_pictures(Path("in"))
        assert sorted(path.name for path in found) == ["a.jpg", "o.jpg", "p.jpg"]

    def test_the_folder_of_the_results_is_not_entered_through_a_link_either(self):
        touch("in/a.jpg", "out/a_depth.jpg")
        Path("in/results").symlink_to("../out")
        assert below("in", leave_out=Path("out")) == ["a.jpg"]

    def test_all_that_is_left_out_is_counted(self):
        touch("in/a.jpg", "in/b.cr2", "in/c.CR2", "in/notes", "in/.hidden.jpg", "in/.git/a.jpg", "in/deep/d.exr")
        touch("in/.depthcli-1-1-1.part", "in/manifest.jsonl")
        depth = DepthMap(np.eye(4, dtype=np.float32), DepthKind.RELATIVE_DISPARITY)
        write_depth(depth, "in/a_depth.png", "gray")
        left = LeftOut()
        assert find_pictures(Path("in"), left=left) == [Path("a.jpg")]
        assert str(left) == (
            "left out: 1 depth map made by depth, 4 files that are not pictures (.cr2, no suffix, .exr), "
            "2 hidden files or folders"
        )
        assert str(LeftOut()) == ""

    def test_nothing_but_what_is_left_out_is_an_error_that_counts_it(self):
        touch("in/a.exr", "in/b.exr")
        with pytest.raises(UsageError, match=r"no picture in in \(left out: 2 files that are not pictures \(\.exr\)\)"):
            expand(["in"])

    def test_patterns_look_at_the_name_and_at_the_relative_path(self):
        touch("in/a.jpg", "in/raw/b.jpg", "in/raw/c.png")
        assert below("in", include=["*.jpg"]) == ["a.jpg", "raw/b.jpg"]
        assert below("in", include=["raw/*"]) == ["raw/b.jpg", "raw/c.png"]
        assert below("in", exclude=["raw/*"]) == ["a.jpg"]
        assert below("in", include=["*.jpg", "*.png"], exclude=["b.*"]) == ["a.jpg", "raw/c.png"]

    def test_the_folder_of_the_results_is_not_entered(self):
        touch("in/a.jpg", "in/out/b.jpg")
        assert below("in", leave_out=Path("in/../in/out")) == ["a.jpg"]

    @pytest.mark.parametrize("format", ["color", "gray", "gray8"])
    def test_a_depth_picture_of_ours_is_left_out_and_one_of_others_is_not(self, format):
        photo("in/mine_depth.png")
        depth = DepthMap(np.eye(4, dtype=np.float32), DepthKind.RELATIVE_DISPARITY)
        write_depth(depth, "in/a" + STILLS[format].still, format)
        assert below("in") == ["mine_depth.png"]

    def test_a_pipe_is_not_waited_for(self):
        Path("in").mkdir()
        os.mkfifo("in/a_depth.png")
        assert below("in") == ["a_depth.png"]

    def test_a_folder_that_may_not_be_read_is_taken_up_so_that_it_is_named(self, as_nobody):
        touch("in/a.jpg", "in/closed/a.jpg")
        Path("in/closed").chmod(0)
        try:
            assert below("in") == ["a.jpg", "closed"]
            with pytest.raises(PictureError, match="in/closed is a folder that may not be read: permission denied"):
                read_picture("in/closed")
            with pytest.raises(UsageError, match="cannot read the folder in/closed: permission denied"):
                below("in/closed")
        finally:
            Path("in/closed").chmod(0o700)


class TestArguments:
    def test_files_come_in_the_order_given_and_each_once(self):
        touch("b.jpg", "a.jpg")
        assert found("b.jpg", "a.jpg", "./b.jpg", os.path.abspath("a.jpg")) == ["b.jpg", "a.jpg"]

    def test_a_file_that_is_missing_is_taken_up_so_that_it_is_named(self):
        assert found("nowhere.jpg") == ["nowhere.jpg"]

    def test_a_folder_stands_for_its_pictures(self):
        touch("in/a.jpg", "in/b/c.png")
        assert expand(["in"]) == [(Path("in/a.jpg"), Path("a.jpg")), (Path("in/b/c.png"), Path("b/c.png"))]

    def test_a_glob_stands_for_the_pictures_that_match(self):
        touch("a.jpg", "b.jpg", "b.txt", "in/deep/c.jpg")
        assert found("?.*") == ["a.jpg", "b.jpg"]
        assert found("**/*.jpg") == ["a.jpg", "b.jpg", "in/deep/c.jpg"]

    def test_a_file_whose_name_looks_like_a_glob_is_that_file(self):
        touch("a[1].jpg", "a1.jpg")
        assert found("a[1].jpg") == ["a[1].jpg"]

    @pytest.mark.parametrize(
        "text", ["in/a.jpg\n\nb c.jpg\n", "in/a.jpg\r\nb c.jpg\r\n", "\ufeffin/a.jpg\n  b c.jpg  "]
    )
    def test_a_list_names_one_picture_on_each_line(self, text):
        Path("list.txt").write_bytes(text.encode())
        assert expand(["list.txt"]) == [(Path("in/a.jpg"), Path("a.jpg")), (Path("b c.jpg"), Path("b c.jpg"))]

    def test_a_list_may_hold_any_name_the_disk_can(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/ann")
        Path("list.txt").write_bytes("日本.jpg\n~/a.jpg\n".encode() + b"caf\xe9.jpg\n")
        assert found("list.txt") == ["日本.jpg", "/home/ann/a.jpg", os.fsdecode(b"caf\xe9.jpg")]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
    def test_a_list_may_be_unicode_of_any_width_with_its_mark(self, encoding):
        text = "a.jpg\r\n日本.jpg\r\n"
        mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
        Path("list.txt").write_bytes((mark + text).encode(encoding))
        assert found("list.txt") == ["a.jpg", "日本.jpg"]

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"a\0.\0j\0p\0g\0", "holds null bytes"),
            (b"\x89PNG\0\0", "holds null bytes"),
            (b"\xff\xfea", "is damaged: truncated data"),
            (b"\xff\xfe\0\xd8a\0", "is damaged: illegal"),
            (b"a.jpg\nhttps://example.org/b.jpg\n", "is an address"),
        ],
    )
    def test_a_list_that_is_none_is_an_error(self, content, reason):
        Path("list.txt").write_bytes(content)
        with pytest.raises(UsageError, match=reason):
            expand(["list.txt"])

    @pytest.mark.parametrize("name", ["https://example.org/x/y.jpg?size=1", "HTTP://a/b", "s3://bucket/k.png"])
    def test_an_address_is_an_error_with_the_command_that_fetches_it(self, name):
        with pytest.raises(UsageError, match=r"is an address, not a file .download it first: curl -fLo"):
            expand(["a.jpg", name])

    def test_a_name_too_long_for_the_system_is_taken_up_so_that_it_is_named(self):
        name = "x" * 300 + ".jpg"
        assert found(name) == [name]
        with pytest.raises(PictureError, match="name too long"):
            read_picture(name)

    def test_own_maps_among_several_files_are_counted(self):
        photo("a.png")
        depth = DepthMap(np.eye(4, dtype=np.float32), DepthKind.RELATIVE_DISPARITY)
        write_depth(depth, "a_depth.png", "gray")
        for arguments in (["a.png", "a_depth.png"], ["*.png"], ["."]):
            left = LeftOut()
            assert [path for path, _ in expand(arguments, left)] == [Path("a.png")] and left.maps == 1
        for arguments in (["a_depth.png", "./a_depth.png"], ["*_depth.png"]):
            with pytest.raises(UsageError, match="made by depth"):
                expand(arguments)

    def test_what_stands_for_nothing_is_an_error(self):
        Path("empty").mkdir()
        Path("empty.txt").write_text("\n")
        for argument, message in [
            ("empty", "there is no picture in empty"),
            ("empty.txt", "the list empty.txt names no picture"),
            ("*.jpg", r"no picture matches \*\.jpg"),
        ]:
            with pytest.raises(UsageError, match=message):
                expand([argument])

    def test_a_list_that_may_not_be_read_is_an_error(self, as_nobody):
        Path("list.txt").touch(mode=0)
        with pytest.raises(UsageError, match=r"cannot read the list list\.txt: Permission denied"):
            expand(["list.txt"])


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
        pairs = [(Path(name), Path(Path(name).name)) for name in pictures]
        assert [task.stem for task in plan_tasks(pairs, Path("out"))] == [Path("out", name) for name in wanted]
        assert len({task.stem for task in plan_tasks(pairs, None)}) == len(pairs)

    def test_two_pictures_for_one_place_are_refused(self):
        pairs = [(Path("x/a.jpg"), Path("a.jpg")), (Path("y/a.jpg"), Path("a.jpg")), (Path("z.jpg"), Path("x/a.png"))]
        pairs.append((Path("w.jpg"), Path("x/a.jpg")))
        with pytest.raises(UsageError, match="would both be written to out/x/a"):
            plan_tasks(pairs, Path("out"))

    def test_no_two_formats_of_any_picture_share_a_file(self):
        names = ["a", "a_depth", "a_depth_gray", "a_depth.x"]
        paths = [path for name in names for path in OutputSpec(tuple(STILLS)).paths(Path(name))]
        assert len(set(paths)) == len(names) * len(STILLS)


def test_patterns_take_no_notice_of_case_and_reach_into_folders():
    for name in ("IMG_1.JPG", "raw/b.jpg", "raw/deep/c.png", "day/raw.jpg"):
        photo(f"in/{name}")
    found = [path.as_posix() for path in find_pictures(Path("in")) if is_chosen(path, ["*.jpg"], ["raw"])]
    assert found == ["IMG_1.JPG", "day/raw.jpg"]
    assert not is_chosen(Path("a.jpg"), [], ["*"]) and is_chosen(Path("a.jpg"), [], [".*"])


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
        pairs = [(Path("in", name), Path(name)) for name in sorted(names)]
        return [task.stem.name for task in plan_tasks(pairs, Path("out"), rows)]

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
        ("template", "formats", "wanted"),
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
    def test_a_template_gives_the_name(self, template, formats, wanted):
        name = parse_name(template, formats)
        (task,) = plan_tasks([(Path("day 1/IMG.1.JPG"), Path("d/IMG.1.JPG"))], Path("out"), name=name)
        paths = OutputSpec(tuple(formats), endings=name.endings).paths(task.stem)
        assert [path.as_posix() for path in paths] == [f"out/d/{name}" for name in wanted]

    @pytest.mark.parametrize(
        ("template", "formats", "reason"),
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
    def test_what_cannot_be_a_name_is_refused(self, template, formats, reason):
        with pytest.raises(UsageError, match=reason):
            parse_name(template, formats)

    def test_two_pictures_of_one_stem_are_refused(self):
        pairs = [(Path("in/a.jpg"), Path("a.jpg")), (Path("in/a.png"), Path("a.png"))]
        with pytest.raises(UsageError, match=r"a\.jpg and in/a\.png would both be written to out/a\.png .use {name}"):
            plan_tasks(pairs, Path("out"), name=parse_name("{stem}", ["gray"]))
        assert len(plan_tasks(pairs, Path("out"), name=parse_name("{name}", ["gray"]))) == 2


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
    ("output", "file"),
    [
        ("out.png", True),
        ("out.JPG", True),
        ("out.tiff", True),
        ("out.exr", True),
        ("new/out.npz", True),
        ("maps.v2", False),
        ("2024.11.28", False),
        ("out", False),
        ("out.png/", False),
        ("there.png", False),
        ("pipe", False),
    ],
)
def test_what_o_means(output, file):
    Path("there.png").mkdir()
    os.mkfifo("pipe")
    assert means_file(output) is file and is_device(output) is (output == "pipe")


def test_a_file_in_the_place_of_a_command_gets_the_command_that_takes_it():
    touch("a.dat", "in/a.jpg")
    names = ["in", "a.dat", "missing.jpg", "clip.MP4", "*.jpg", "imag"]
    assert [command_for(name) for name in names] == ["dir", "image", "image", "video", "image", ""]
