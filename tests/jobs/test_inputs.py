"""Which pictures are meant by what was typed, and that no two of them end in one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import PictureError, UsageError
from depthcli.io.images import read_picture
from depthcli.io.writers import FORMATS, OutputSpec, write_depth
from depthcli.jobs.inputs import expand, find_pictures, is_chosen, plan_tasks
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

    def test_links_to_files_are_followed_and_links_to_folders_are_not(self):
        touch("other/a.jpg", "in/b.jpg")
        Path("in/link.jpg").symlink_to("../other/a.jpg")
        Path("in/folder").symlink_to("../other")
        Path("in/self").symlink_to(".")
        assert below("in") == ["b.jpg", "link.jpg"]

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
        write_depth(depth, "in/a" + FORMATS[format].ending, format)
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

    def test_two_pictures_of_one_name_from_two_folders_are_refused(self):
        pairs = [(Path("x/a.jpg"), Path("a.jpg")), (Path("y/a.jpg"), Path("a.jpg"))]
        with pytest.raises(UsageError, match=r"x/a\.jpg and y/a\.jpg would both be written to out/a"):
            plan_tasks(pairs, Path("out"))
        assert len(plan_tasks(pairs, None)) == 2

    def test_no_two_formats_of_any_picture_share_a_file(self):
        names = ["a", "a_depth", "a_depth_gray", "a_depth.x"]
        paths = [path for name in names for path in OutputSpec(tuple(FORMATS)).paths(Path(name))]
        assert len(set(paths)) == len(names) * len(FORMATS)


def test_patterns_take_no_notice_of_case_and_reach_into_folders():
    for name in ("IMG_1.JPG", "raw/b.jpg", "raw/deep/c.png", "day/raw.jpg"):
        photo(f"in/{name}")
    found = [path.as_posix() for path in find_pictures(Path("in")) if is_chosen(path, ["*.jpg"], ["raw"])]
    assert found == ["IMG_1.JPG", "day/raw.jpg"]
    assert not is_chosen(Path("a.jpg"), [], ["*"]) and is_chosen(Path("a.jpg"), [], [".*"])
