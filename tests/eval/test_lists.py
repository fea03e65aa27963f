"""Lists: what an entry says, and how each mistake in one is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from depthcli.errors import UsageError
from depthcli.eval.lists import Entry, read_list

ROW = {"picture": "a/photo.jpg", "truth": "b/photo.png", "format": "nyu"}


def listed(*rows: object, name: str = "list.json") -> Path:
    Path(name).write_text(json.dumps(rows), encoding="utf-8")
    return Path(name)


def test_an_entry_says_everything():
    full = {
        **ROW,
        "name": "büro",
        "scale": 500,
        "invalid": [65535, -1],
        "crop": [45, 41, 471, 601],
        "min_depth": 0.5,
        "max_depth": 10,
        "pairs": [[[1, 2], [3, 4]]],
    }
    (entry,) = read_list(listed(full))
    assert entry == Entry(
        number=1,
        name="büro",
        source="a/photo.jpg",
        picture=Path("a/photo.jpg"),
        truth=Path("b/photo.png"),
        format="nyu",
        scale=500,
        invalid=(65535, -1),
        crop=(45, 41, 471, 601),
        min_depth=0.5,
        max_depth=10,
        pairs=(((1, 2), (3, 4)),),
    )
    assert entry.place == "entry 1 (büro)"


def test_what_is_left_out():
    (entry,) = read_list(listed({**ROW, "invalid": 7, "scale": None}))
    assert (entry.name, entry.scale, entry.invalid, entry.crop, entry.pairs) == ("photo", None, (7,), None, ())


def test_pairs_need_no_truth():
    (entry,) = read_list(listed({"picture": "a.jpg", "pairs": [[[0, 0], [1, 1]], [[2, 2], [3, 3]]]}))
    assert entry.truth is None and len(entry.pairs) == 2


def test_paths_start_from_the_lists_folder_or_the_root():
    Path("lists").mkdir()
    path = listed(ROW, {**ROW, "picture": "/far/b.jpg"}, name="lists/list.json")
    assert [entry.picture for entry in read_list(path)] == [Path("lists/a/photo.jpg"), Path("/far/b.jpg")]
    assert read_list(path)[0].truth == Path("lists/b/photo.png")
    assert read_list(path, Path("."))[0].truth == Path("b/photo.png")
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        read_list(path, Path("nowhere"))


def test_csv_says_the_same_as_json():
    Path("list.csv").write_text(
        "picture,truth,format,scale,crop,invalid,max_depth,pairs\r\n"
        'a/one.jpg,b/one.png,nyu,,"[45, 41, 471, 601]",,10,\r\n'
        'a/two.jpg, b/two.pfm ,disparity,0.5,,"[7, 9]",,"[[[1, 2], [3, 4]]]"\r\n',
        encoding="utf-8-sig",  # as spreadsheets write it
    )
    path = listed(
        {"picture": "a/one.jpg", "truth": "b/one.png", "format": "nyu", "crop": [45, 41, 471, 601], "max_depth": 10},
        {
            "picture": "a/two.jpg",
            "truth": "b/two.pfm",
            "format": "disparity",
            "scale": 0.5,
            "invalid": [7, 9],
            "pairs": [[[1, 2], [3, 4]]],
        },
    )
    assert read_list(Path("list.csv")) == read_list(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"croop": [1]}, "no key is called 'croop'; choose from: picture, "),
        ({"picture": None}, "picture is missing"),
        ({"picture": 3}, "picture is a text, not 3"),
        ({"picture": ""}, "picture is a text"),
        ({"format": None}, "format is missing"),
        ({"format": "exr"}, "no format is called 'exr'; choose from: nyu, "),
        ({"format": "depthcli", "scale": 2}, "scale does not go with depthcli"),
        ({"format": "disparity", "max_depth": 2}, "metres, which disparity has not"),
        ({"scale": 0}, "scale is a number above 0, not 0"),
        ({"scale": "256"}, 'scale is a number, not "256"'),
        ({"scale": True}, "scale is a number, not true"),
        ({"scale": float("nan")}, "scale is a number, not NaN"),
        ({"max_depth": -1}, "max_depth is a number above 0"),
        ({"max_depth": float("inf")}, "max_depth is a number, not Infinity"),
        ({"min_depth": 5, "max_depth": 5}, "min_depth has to be below max_depth"),
        ({"invalid": ["no"]}, 'invalid is a number, not "no"'),
        ({"crop": [1, 2, 3]}, r"crop is \[top, left, bottom, right\], whole numbers from 0"),
        ({"crop": [0, 0, 4.5, 4]}, "whole numbers"),
        ({"crop": [-1, 0, 4, 4]}, "whole numbers"),
        ({"crop": [4, 0, 4, 4]}, "is empty"),
        ({"crop": [0, 9, 4, 4]}, "is empty"),
        ({"pairs": []}, "pairs are"),
        ({"pairs": [[1, 2]]}, "pairs are"),
        ({"pairs": [[[1, 2], [3, -4]]]}, "pairs are"),
        ({"pairs": [[[1, 2]]]}, "pairs are"),
        ({"truth": None}, "neither truth nor pairs"),
        ({"truth": None, "pairs": [[[1, 2], [3, 4]]]}, "format is about a truth, and there is none"),
        ({"name": "a/b"}, "cannot be the name of a file"),
        ({"name": ".."}, "cannot be the name of a file"),
        ({"name": "ü" * 101}, "name has 202 bytes, and 200 are the most"),
        ({"picture": "p" * 201 + ".png", "name": None}, "name has 201 bytes"),
        ({"scale": 10**400}, r"scale is too large a number: 1000.*\.\.\."),
        ({"invalid": [10**400]}, "invalid is too large a number"),
    ],
)
def test_a_mistake_is_named_with_its_place(change, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_list(listed({**ROW, "name": "first"}, {**ROW, **change}))
    text = str(caught.value)
    assert text.startswith("list.json, entry 2") and "\n" not in text


def test_the_place_names_the_picture():
    with pytest.raises(UsageError, match=r"^list.json, entry 1 \(photo\): scale"):
        read_list(listed({**ROW, "scale": -1}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[{]", "a.json is broken"),
        ("a.json", "[]", "a.json holds no entries"),
        ("a.json", '{"picture": "x"}', "a.json holds no entries"),
        ("a.json", '["x"]', 'entry 1: an entry is an object with keys, not "x"'),
        ("a.json", "[" * 100_000, "a.json is broken: it is nested too deeply"),
        ("a.json", '[{"picture": ' + "[" * 100_000, "a.json is broken: it is nested too deeply"),
        ("a.json", '[{"picture": "x", "crop": 1, "crop": 2}]', "the key 'crop' stands 2 times in .*\"x\""),
        ("a.csv", "picture,crop\nx," + "[" * 50_000 + "\n", "a.csv is broken: it is nested too deeply"),
        ("a.csv", "picture,truth, picture\nx,y,z\n", "2 columns are headed 'picture'"),
        ("a.csv", "picture;truth;format\nx;y;nyu\n", "separated by commas, not by semicolons"),
        ("a.csv", "picture\ttruth\nx\ty\n", "separated by commas"),
        ("a.csv", "picture,truth\n", r"a.csv holds no entries \(a CSV is a heading and one line for each\)"),
        ("a.csv", "", r"a.csv holds no entries \(a CSV is a heading and one line for each\)"),
        ("a.csv", "picture,truth\nx\n", "entry 1 has not as many cells as the heading"),
        ("a.csv", "picture,truth\nx,y,z\n", "entry 1 has not as many cells as the heading"),
        ("a.csv", "picture,truth,format,crop\nx,y,nyu,1 2 3 4\n", "entry 1: crop is not a number or array"),
        ("a.csv", "picture,truth,formt\nx,y,nyu\n", "no key is called 'formt'"),
    ],
)
def test_a_broken_list_is_named(name, content, message):
    Path(name).write_text(content)
    with pytest.raises(UsageError, match=message):
        read_list(Path(name))


def test_blanks_around_a_heading_do_not_count():
    Path("a.csv").write_text("picture , truth, format\nx.png,y.png,nyu\n")
    assert read_list(Path("a.csv"))[0].truth == Path("y.png")


def test_bytes_that_are_no_text_and_lists_that_are_not_there():
    Path("a.json").write_bytes(b"\xff\xfe[")
    with pytest.raises(UsageError, match=r"a\.json is broken"):
        read_list(Path("a.json"))
    for name in ("none.json", "."):
        with pytest.raises(UsageError, match="cannot read the list"):
            read_list(Path(name))


def test_two_entries_of_one_name_would_share_their_results():
    with pytest.raises(UsageError, match="2 entries are called photo"):
        read_list(listed(ROW, {**ROW, "picture": "b/photo.png"}))
    assert len(read_list(listed(ROW, {**ROW, "picture": "b/photo.png", "name": "other"}))) == 2


def test_the_list_of_the_benchmark_is_whole():
    entries = read_list(Path(__file__).parents[2] / "benchmarks/pictures.json")
    assert len(entries) == 12 and all(entry.truth for entry in entries)
    assert {entry.crop for entry in entries if entry.format == "nyu"} == {(45, 41, 471, 601)}
