"""manifest.jsonl says what became of each picture, and survives being killed in the middle of a line."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from depthcli.errors import OutputError
from depthcli.jobs.manifest import Manifest, Result

PATH = Path("out/manifest.jsonl")
DONE = Result("a.jpg", ("out/a_depth.png",), "done", 12.5, notes=("first of 2 frames",), model="tiny", settings="x=1")
FAILED = Result("b.jpg", (), "failed", error="b.jpg is empty", code=1)


def lines() -> list[dict]:
    return [json.loads(line) for line in PATH.read_bytes().decode().splitlines()]


def test_a_row_says_what_came_in_what_went_out_how_and_how_long():
    Manifest(PATH).add(DONE)
    Manifest(PATH).add(FAILED)
    assert lines() == [
        {
            "input": "a.jpg",
            "outputs": ["a_depth.png"],  # from the manifest's own folder, so that it can be moved
            "status": "done",
            "ms": 12.5,
            "error": "",
            "code": 0,
            "notes": ["first of 2 frames"],
            "warnings": [],
            "model": "tiny",
            "weights": "",
            "settings": "x=1",
            "source": None,
            "files": [],
        },
        {
            "input": "b.jpg",
            "outputs": [],
            "status": "failed",
            "ms": 0.0,
            "error": "b.jpg is empty",
            "code": 1,
            "notes": [],
            "warnings": [],
            "model": "",
            "weights": "",
            "settings": "",
            "source": None,
            "files": [],
        },
    ]


def test_a_row_is_on_disk_as_soon_as_it_is_added():
    manifest = Manifest(PATH)
    manifest.add(DONE)
    assert Manifest(PATH).rows == {"a.jpg": lines()[0]}
    assert "a.jpg" not in manifest.rows  # which are those of earlier runs


def test_the_last_row_of_a_picture_counts():
    manifest = Manifest(PATH)
    manifest.add(Result("a.jpg", (), "failed", error="no"))
    manifest.add(DONE)
    assert Manifest(PATH).rows["a.jpg"]["status"] == "done"


def test_the_last_row_of_a_file_counts_and_those_of_others_are_found_too():
    Manifest(PATH).add(replace(DONE, model="vits"))
    Manifest(PATH).add(replace(DONE, outputs=("out/a_depth.png", "out/a_depth.npz")))
    other = Path("out/manifest-00001-of-00002.jsonl")
    Manifest(other).add(FAILED)
    found = Manifest(other, also=[PATH])
    row, place = found.outputs["out/a_depth.npz"]
    assert (row["model"], place) == ("tiny", 1)
    assert set(found.outputs) == {"out/a_depth.png", "out/a_depth.npz"} and len(found.outputs) == 2
    assert set(found.rows) == {"a.jpg", "b.jpg"} and "c.jpg" not in found.rows


@pytest.mark.parametrize(
    "torn", [b'{"input": "c.jpg", "outp', b'{"input": "c.jpg"}', '{"input": "é'.encode()[:-1], b"7"]
)
def test_a_torn_line_is_passed_over_and_swallows_no_other(torn):
    Manifest(PATH).add(DONE)
    with PATH.open("ab") as stream:
        stream.write(torn)
    Manifest(PATH).add(FAILED)
    assert {"a.jpg", "b.jpg"} <= set(Manifest(PATH).rows) <= {"a.jpg", "b.jpg", "c.jpg"}


@pytest.mark.parametrize("name", ["日本 \u2028 é.jpg", 'a"b\\c\n.jpg', os.fsdecode(b"caf\xe9.jpg")])
def test_any_name_the_disk_can_hold_is_read_back(name):
    Manifest(PATH).add(Result(name, (f"out/{name}",), "done"))
    assert Manifest(PATH).rows[name]["outputs"] == [name]


def test_a_place_that_cannot_be_written_to_is_an_error():
    Path("out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot (read|write) out/manifest\.jsonl: Not a directory"):
        Manifest(PATH).add(DONE)


def test_a_manifest_that_may_not_be_read_is_an_error(as_nobody):
    PATH.parent.mkdir()
    PATH.touch(mode=0)
    with pytest.raises(OutputError, match=r"cannot read out/manifest\.jsonl: Permission denied"):
        Manifest(PATH)
