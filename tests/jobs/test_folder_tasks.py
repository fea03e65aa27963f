"""The tasks of a folder come folder by folder; their names depend on the folder alone, not on what is chosen of it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from depthcli.errors import UsageError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.jobs.folder_tasks import FolderSearch, FolderTasks
from depthcli.jobs.name_list import open_list
from depthcli.jobs.shards import Shard
from depthcli.jobs.targets import parse_template


@pytest.fixture
def touch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def touch(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return touch


def tasks(**search) -> FolderTasks:
    search = {"folder": Path("in"), "target": Path("out"), **search}
    return FolderTasks(FolderSearch(**search), {}, OutputSpec(("color",)).paths)


def stems(found: FolderTasks) -> dict[str, str]:
    return {task.name: task.stem.as_posix() for task in found}


def test_pictures_of_a_folder_come_before_those_of_the_folders_in_it(touch):
    touch("in/b.jpg", "in/a/2.jpg", "in/c.jpg", "in/a/1.jpg", "in/notes.txt")
    found = tasks()
    assert [task.name for task in found] == ["b.jpg", "c.jpg", "a/1.jpg", "a/2.jpg"]
    assert found.total == found.count() == 4 and "1 file that is not a picture" in str(found.left)


def test_a_name_does_not_depend_on_the_part_or_the_choice(touch):
    touch("in/a.jpg", "in/a.png", "in/b.jpg", "in/d/a.jpg")
    whole = stems(tasks())
    assert whole == {"a.jpg": "out/a.jpg", "a.png": "out/a.png", "b.jpg": "out/b", "d/a.jpg": "out/d/a"}
    for options in ({"include": ("*.png",)}, {"shard": Shard(1, 3)}, {"shard": Shard(2, 3)}, {"shard": Shard(3, 3)}):
        assert stems(tasks(**options)).items() <= whole.items()
    parts = [stems(tasks(shard=Shard(number, 3))) for number in (1, 2, 3)]
    assert {name: stem for part in parts for name, stem in part.items()} == whole
    Path("list.txt").write_text("d/a.jpg\na.png\nin/../a.jpg\n")
    assert stems(tasks(listed=open_list("list.txt"))) == {name: whole[name] for name in ("d/a.jpg", "a.png", "a.jpg")}


def test_a_list_may_name_what_is_missing_but_nothing_elsewhere(touch):
    touch("in/a.jpg")
    Path("list.jsonl").write_text('{"input": "gone.jpg"}\n\n{"input": "a.jpg", "status": "failed"}\n')
    assert list(stems(tasks(listed=open_list("list.jsonl")))) == ["gone.jpg", "a.jpg"]
    for line, message in (
        ("../other.jpg", "other.jpg of the list is not in in"),
        ("{}", "line 1 of the list list.txt names no input"),
        ("a\0b", "line 1 of the list list.txt is not text"),
        ("\n", "the list list.txt names no picture to do"),
    ):
        Path("list.txt").write_text(line)
        with pytest.raises(UsageError, match=message):
            tasks(listed=open_list("list.txt")).check()
    with pytest.raises(UsageError, match="the list gone is not a file"):
        open_list("gone")


def test_an_empty_part_is_no_error_and_an_empty_folder_is(touch):
    touch("in/a.jpg", "empty/notes.txt")
    empty = next(Shard(number, 2) for number in (1, 2) if not Shard(number, 2).has("a.jpg"))
    tasks(shard=empty).check()
    with pytest.raises(UsageError, match=r"no picture in empty \(left out: 1 file"):
        tasks(folder=Path("empty")).check()
    with pytest.raises(UsageError, match="no picture in in that matches"):
        tasks(include=("*.png",)).check()


def test_names_that_meet_are_refused_before_the_first_picture(touch):
    touch("in/a.jpg", "in/z/a.jpg", "in/z/a.png")
    with pytest.raises(UsageError, match=r"would both be written to out/z/a_depth.png"):
        tasks(template=parse_template("{stem}_depth", ["color"])).check()


def test_a_result_never_replaces_a_picture_of_any_folder(touch):
    touch("in/x/a.jpg", "in/y/a_depth.png")
    Path("in/out").mkdir()
    Path("in/out/x").symlink_to("../y")
    with pytest.raises(UsageError, match=r"would replace the picture in/out/x/a_depth.png"):
        tasks(target=Path("in/out")).check()


def test_memory_does_not_grow_with_the_number_of_pictures(touch):
    def peak(folders: int) -> int:
        for number in range(folders):
            touch(*(f"in{folders}/{number:03d}/{name:03d}.jpg" for name in range(50)))
        found = tasks(folder=Path(f"in{folders}"), shard=Shard(1, 2))
        assert sum(1 for _ in found)  # what is made once is made now
        tracemalloc.start()
        count = sum(1 for _ in found)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 20 * folders < count < 30 * folders
        return most

    assert peak(60) < 1.5 * peak(10)
