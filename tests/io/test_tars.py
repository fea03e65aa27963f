"""Tars as webdataset groups them, and those that are damaged."""

from __future__ import annotations

import io
import pickle
import sys
import tarfile
from pathlib import Path

import pytest

from depthcli.errors import PictureError
from depthcli.io.tars import LocalTar, TarWriter, read_samples


def make_tar(path: Path, members: dict[str, bytes], **settings) -> LocalTar:
    with tarfile.open(path, "w", **settings) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return LocalTar(path.name, path)


def test_members_are_grouped_by_key_and_the_picture_is_found(tmp_path):
    tar = make_tar(
        tmp_path / "a.tar",
        {
            "__meta__/info.json": b"{}",
            "README": b"",
            "v1.5/a.JPG": b"first",
            "v1.5/a.mask.png": b"mask",
            "v1.5/a.cls": b"7",
            "./b.left.png": b"second",
            "./b.json": b"{}",
            "c/.hidden.jpg": b"",
        },
    )
    samples = read_samples(tar)
    assert [(key, member.read()) for key, member in samples] == [("v1.5/a", b"first"), ("./b", b"second")]
    assert pickle.loads(pickle.dumps(samples[0][1])).read() == b"first"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": b"x"}, "a.tar/a has no picture"),
        ({"a.jpg": b"x", "a.png": b"y"}, "a.tar/a has 2 pictures: jpg, png"),
        ({"a.left.jpg": b"x", "a.right.jpg": b"y", "a.json": b""}, "has 2 pictures: left.jpg, right.jpg"),
    ],
)
def test_a_sample_without_one_picture_says_so_when_it_is_read(tmp_path, members, reason):
    ((_, member),) = read_samples(make_tar(tmp_path / "a.tar", members))
    with pytest.raises(PictureError, match=reason):
        member.read()


def test_a_tar_that_is_cut_anywhere_is_refused(tmp_path):
    whole = make_tar(tmp_path / "a.tar", {f"{n}.jpg": bytes(700) for n in range(3)})
    content = whole.path.read_bytes()
    end = 3 * (512 + 1024)
    for size in [*range(1, end + 1, 97), 512, 1536, end]:
        whole.path.write_bytes(content[:size])
        with pytest.raises(PictureError, match=r"cut short after [123] files|not a tar"):
            read_samples(whole)
    whole.path.write_bytes(content[: end + 512])  # some programs write one block of zeros
    assert len(read_samples(whole)) == 3


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2"])
def test_a_compressed_tar_is_refused_by_name(tmp_path, mode):
    with tarfile.open(tmp_path / "a.tar", mode):
        pass
    with pytest.raises(PictureError, match=r"a\.tar is not a tar \(a compressed one"):
        read_samples(LocalTar("a.tar", tmp_path / "a.tar"))


def test_long_and_foreign_names_come_back(tmp_path):
    names = ["x" * 200 + "/ä€.jpg", "y/" * 120 + "z.png", "n\udcff.jpg"]
    writer = TarWriter(tmp_path / "a.tar")
    for name in names:
        writer.add(name, name.encode("utf-8", "surrogateescape"))
    writer.close()
    samples = read_samples(LocalTar("a.tar", tmp_path / "a.tar"))
    assert [member.name for _, member in samples] == names
    assert [member.read().decode("utf-8", "surrogateescape") for _, member in samples] == names


def test_the_same_members_are_the_same_bytes_and_plain_names_need_no_extension(tmp_path):
    for path in (tmp_path / "a.tar", tmp_path / "b.tar"):
        writer = TarWriter(path)
        writer.add("a/b.jpg", b"x")
        writer.close()
    content = (tmp_path / "a.tar").read_bytes()
    assert content == (tmp_path / "b.tar").read_bytes() and content[156:157] == tarfile.REGTYPE


@pytest.mark.skipif(sys.version_info < (3, 10), reason="webdataset is for Python 3.10 and later")
def test_webdataset_groups_the_same(tmp_path):
    pytest.importorskip("webdataset", reason="only strangers of the test group read our tars")
    from webdataset.tariterators import base_plus_ext

    members = ["a.jpg", "a.b.c.png", "d.e/f.jpg", "d.e/f", "./g.jpg", "h/i.j.k"]
    tar = make_tar(tmp_path / "a.tar", dict.fromkeys(members, b"x"))
    theirs = [base_plus_ext(name)[0] for name in members]
    assert [key for key, _ in read_samples(tar)] == list(dict.fromkeys(filter(None, theirs)))
