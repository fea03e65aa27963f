"""How a job of a service is followed, and the tar of pictures that is made while it is sent."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from depthcli.errors import EngineError, PictureError
from depthcli.jobs.remote_jobs import Waits
from depthcli.jobs.remote_scene import _Member, _place, _Tar


def test_a_place_in_the_queue_is_told_once_and_when_it_changes() -> None:
    waits = Waits()
    lines = [waits.line({"ahead": ahead}) for ahead in (0, 2, 2, 1, 0, 0)]
    assert lines == ["", "waits for 2 jobs before it", "", "waits for 1 job before it", "", ""]
    assert waits.line({}) == "", "an older service does not tell it"


def test_questions_become_rarer() -> None:
    waits = Waits()
    seconds = [waits.seconds() for _ in range(10)]
    assert seconds[0] == 0.05 and seconds == sorted(seconds) and seconds[-1] == 0.5


@pytest.mark.parametrize("size", [1, 512, 700, 100_000, -1])
def test_a_tar_is_read_in_any_pieces(size: int) -> None:
    Path("a").write_bytes(b"1" * 513)
    Path("b").write_bytes(b"2" * 7_000)
    members = [_Member("Küche/ü.png", Path("a")), _Member("x" * 150 + "/b.png", Path("b")), _Member("none.png", None)]
    made, whole = _Tar(members), b""
    while piece := made.read(size):
        whole += piece
    assert len(whole) == made.size
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {members[0].name: b"1" * 513, members[1].name: b"2" * 7_000, "none.png": b""}
    assert list(found) == [member.name for member in members]


def test_a_picture_that_changes_while_it_is_sent_is_named() -> None:
    Path("a.png").write_bytes(b"1" * 500)
    made = _Tar([_Member("a.png", Path("a.png"))])
    Path("a.png").write_bytes(b"1" * 100)
    with pytest.raises(PictureError, match=r"a\.png became shorter"):
        while made.read(100):
            pass


def test_a_file_that_was_not_asked_for_is_refused() -> None:
    with pytest.raises(EngineError, match="not asked for"):
        _place({"scene.glb": Path("out/scene.glb")}, "../scene.glb")
