"""Which pictures are meant by what was typed, and that no two of them end in one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import PictureError, UsageError
from depthcli.io.codecs.files import write_depth
from depthcli.io.codecs.formats import STILLS
from depthcli.io.pictures.images import read_picture
from depthcli.jobs.find import (
    LeftOut,
    command_for,
    find_in_folder,
    find_inputs,
    is_chosen,
)
from tests.conftest import photo


def found(*arguments: str) -> list[str]:
    return [str(path) for path, _ in find_inputs(arguments)]


def below(folder: str, include: tuple = (), exclude: tuple = (), **options: object) -> list[str]:
    return [p.as_posix() for p in find_in_folder(Path(folder), **options) if is_chosen(p, include, exclude)]


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
        found = find_in_folder(Path("in"), left=left)
        other = [Path("x/o.jpg")] if "x" in links else []
        assert (found, len(left.links)) == ([Path("a/a.jpg"), *other], len(links) - len(other))

    @pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
    def test_a_folder_that_two_links_lead_to_is_entered_once(self, names):
        touch("in/a.jpg", "x/o.jpg", "x/deep/p.jpg")
        for name, target in zip(names, ("../x", "../x/deep")):
            Path("in", name).symlink_to(target)
        found = find_in_folder(Path("in"))
        assert sorted(path.name for path in found) == ["a.jpg", "o.jpg", "p.jpg"]

    def test_the_folder_of_the_results_is_not_entered_through_a_link_either(self):
        touch("in/a.jpg", "out/a_depth.jpg")
        Path("in/results").symlink_to("../out")
        assert below("in", skip=Path("out")) == ["a.jpg"]

    def test_all_that_is_left_out_is_counted(self):
        touch("in/a.jpg", "in/b.cr2", "in/c.CR2", "in/notes", "in/.hidden.jpg", "in/.git/a.jpg", "in/deep/d.exr")
        touch("in/.depthcli-1-1-1.part", "in/manifest.jsonl")
        depth = DepthMap(np.eye(4, dtype=np.float32), DepthKind.RELATIVE_DISPARITY)
        write_depth(depth, "in/a_depth.png", "gray")
        left = LeftOut()
        assert find_in_folder(Path("in"), left=left) == [Path("a.jpg")]
        assert str(left) == (
            "left out: 1 result of depthcli (a_depth.png), 4 files that are not pictures (.cr2, no suffix, .exr), "
            "2 hidden files or folders"
        )
        assert str(LeftOut()) == ""

    def test_other_files_are_counted_by_their_names_alone(self, monkeypatch):
        """A network disk may take a millisecond to look at one, and there may be more of them than pictures."""
        touch("in/a.jpg", "in/a.xmp", "in/b.xmp")
        looked_at, stat = [], os.stat
        monkeypatch.setattr(
            os, "stat", lambda path, *rest, **options: looked_at.append(path) or stat(path, *rest, **options)
        )
        left = LeftOut()
        assert below("in", left=left) == ["a.jpg"] and str(left) == "left out: 2 files that are not pictures (.xmp)"
        assert not [path for path in looked_at if str(path).endswith(".xmp")]

    def test_nothing_but_what_is_left_out_is_an_error_that_counts_it(self):
        touch("in/a.exr", "in/b.exr")
        with pytest.raises(UsageError, match=r"no picture in in \(left out: 2 files that are not pictures \(\.exr\)\)"):
            find_inputs(["in"])

    def test_patterns_look_at_the_name_and_at_the_relative_path(self):
        touch("in/a.jpg", "in/raw/b.jpg", "in/raw/c.png")
        assert below("in", include=["*.jpg"]) == ["a.jpg", "raw/b.jpg"]
        assert below("in", include=["raw/*"]) == ["raw/b.jpg", "raw/c.png"]
        assert below("in", exclude=["raw/*"]) == ["a.jpg"]
        assert below("in", include=["*.jpg", "*.png"], exclude=["b.*"]) == ["a.jpg", "raw/c.png"]

    def test_the_folder_of_the_results_is_not_entered(self):
        touch("in/a.jpg", "in/out/b.jpg")
        assert below("in", skip=Path("in/../in/out")) == ["a.jpg"]

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
        assert find_inputs(["in"]) == [(Path("in/a.jpg"), Path("a.jpg")), (Path("in/b/c.png"), Path("b/c.png"))]

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
        assert find_inputs(["list.txt"]) == [(Path("in/a.jpg"), Path("a.jpg")), (Path("b c.jpg"), Path("b c.jpg"))]

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
            find_inputs(["list.txt"])

    @pytest.mark.parametrize("name", ["https://example.org/x/y.jpg?size=1", "HTTP://a/b", "s3://bucket/k.png"])
    def test_an_address_is_an_error_with_the_command_that_fetches_it(self, name):
        with pytest.raises(UsageError, match=r"is an address, not a file .download it first: curl -fLo"):
            find_inputs(["a.jpg", name])

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
            assert [path for path, _ in find_inputs(arguments, left=left)] == [Path("a.png")] and len(left.results) == 1
        for arguments in (["a_depth.png", "./a_depth.png"], ["*_depth.png"]):
            with pytest.raises(UsageError, match=r"results? of depthcli"):
                find_inputs(arguments)

    def test_what_stands_for_nothing_is_an_error(self):
        Path("empty").mkdir()
        Path("empty.txt").write_text("\n")
        for argument, message in [
            ("empty", "there is no picture in empty"),
            ("empty.txt", "the list empty.txt names no picture"),
            ("*.jpg", r"no picture matches \*\.jpg"),
        ]:
            with pytest.raises(UsageError, match=message):
                find_inputs([argument])

    def test_a_list_that_may_not_be_read_is_an_error(self, as_nobody):
        Path("list.txt").touch(mode=0)
        with pytest.raises(UsageError, match=r"cannot read the list list\.txt: Permission denied"):
            find_inputs(["list.txt"])


def test_patterns_take_no_notice_of_case_and_reach_into_folders():
    for name in ("IMG_1.JPG", "raw/b.jpg", "raw/deep/c.png", "day/raw.jpg"):
        photo(f"in/{name}")
    found = [path.as_posix() for path in find_in_folder(Path("in")) if is_chosen(path, ["*.jpg"], ["raw"])]
    assert found == ["IMG_1.JPG", "day/raw.jpg"]
    assert not is_chosen(Path("a.jpg"), [], ["*"]) and is_chosen(Path("a.jpg"), [], [".*"])


def test_a_file_in_the_place_of_a_command_gets_the_command_that_takes_it():
    touch("a.dat", "in/a.jpg")
    names = ["in", "a.dat", "missing.jpg", "clip.MP4", "*.jpg", "imag"]
    assert [command_for(name) for name in names] == ["dir", "image", "image", "video", "image", ""]
