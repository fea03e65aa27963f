"""Places in object stores: objects appear whole, and what a network does to requests is tried again."""

from __future__ import annotations

from dataclasses import replace

import fsspec
import pytest

from depthcli.errors import OutputError, PictureError, UsageError
from depthcli.io import remote
from depthcli.io.remote import RemotePlace, is_remote, open_place
from tests.io.flaky_store import FlakyStore


@pytest.fixture
def place(monkeypatch) -> RemotePlace:
    FlakyStore.reset()
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: waits.append(seconds))
    waits: list[float] = []
    found = open_place("flaky://bucket/photos/")
    for name in ("b/2.jpg", "b/c/3.jpg", "a.jpg", "notes.txt", "out/a_depth.png"):
        found.store.pipe_file(found.key(name), name.encode())
    FlakyStore.calls.clear()
    return found


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("s3://bucket/photos", True),
        ("gs://bucket", True),
        ("memory://x", True),
        ("https://example.org/a.jpg", False),
        ("file:///a", False),
        ("photos", False),
        ("C:\\photos", False),
        ("a://b", False),
    ],
)
def test_an_address_of_a_store_is_told_from_a_path_and_a_page(name, wanted):
    assert is_remote(name) == wanted


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3:///", "names no bucket"),
        ("flaky://bucket/../other", "has a step up in it"),
        ("nothing://bucket/x", "is no address that can be opened"),
    ],
)
def test_an_address_that_names_nothing_is_refused(url, message):
    with pytest.raises(UsageError, match=message):
        open_place(url)


def test_a_missing_package_is_one_line_with_the_command(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(UsageError, match=r"s3://b/x needs s3fs, which is not installed .pip install 'depthcli\[s3\]'"):
        open_place("s3://b/x")


class TestListing:
    def test_folders_come_from_the_outermost_with_their_files_sorted(self, place):
        found = [(below, [file.name for file in files]) for below, files in place.folders(skip="out")]
        assert found == [("", ["a.jpg", "notes.txt"]), ("b", ["b/2.jpg"]), ("b/c", ["b/c/3.jpg"])]
        (first, _) = next(iter(place.folders()))[1]
        assert (first.size, str(first)) == (5, "flaky://bucket/photos/a.jpg") and first.changed > 0

    def test_names_are_those_of_all_files_in_one_listing(self, place):
        names = place.names()
        assert "b/c/3.jpg" in names and "out/a_depth.png" in names and "b/3.jpg" not in names
        assert open_place("flaky://bucket/none").names().hashes.size == 0

    def test_a_place_that_is_not_there_is_named(self):
        with pytest.raises(UsageError, match="flaky://bucket/none does not exist, or is empty"):
            list(open_place("flaky://bucket/none").folders())


class TestTransport:
    @pytest.mark.parametrize("error", ["500", "429", "timeout", "reset"])
    def test_an_error_of_the_network_is_tried_again(self, place, error):
        FlakyStore.plan[:] = [error, error]
        assert place.file("a.jpg").read() == b"a.jpg"
        FlakyStore.plan[:] = [error]
        place.put("new.txt", b"whole")
        FlakyStore.plan[:] = [error, error, error]
        assert "new.txt" in place.names()
        assert place.get("new.txt") == b"whole"

    def test_one_that_stays_is_told_with_the_address_and_leaves_nothing(self, place):
        FlakyStore.plan[:] = ["500"] * 100
        with pytest.raises(OutputError, match=r"cannot write flaky://bucket/photos/x.png: the server answered 500"):
            place.put("x.png", b"1")
        assert 8 <= len(FlakyStore.calls) < 100
        FlakyStore.plan.clear()
        assert place.get("x.png") is None
        FlakyStore.plan[:] = ["timeout"] * 100
        with pytest.raises(PictureError, match=r"flaky://bucket/photos/a.jpg cannot be read: TimeoutError"):
            place.file("a.jpg").read()

    @pytest.mark.parametrize("retries", [0, 3])
    def test_as_often_as_asked(self, place, retries):
        FlakyStore.plan[:] = ["500"] * 20
        with pytest.raises(OutputError):
            replace(place, retries=retries).put("x", b"")
        assert len(FlakyStore.calls) == retries + 1

    def test_what_no_try_can_mend_is_not_tried_again(self, place):
        with pytest.raises(PictureError, match="there is no such bucket or file"):
            place.file("none.jpg").read()
        assert len(FlakyStore.calls) == 1

    @pytest.mark.parametrize(
        ("part", "wanted"), [(1.0, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]), (0.25, [0.125, 0.25, 0.5, 1, 2, 4] + [7.5] * 15)]
    )
    def test_waits_are_random_and_last_two_minutes(self, place, monkeypatch, part, wanted):
        waits: list[float] = []
        monkeypatch.setattr(remote.time, "sleep", waits.append)
        monkeypatch.setattr(remote.random, "uniform", lambda low, high: part * high)
        FlakyStore.plan[:] = ["500"] * 100
        with pytest.raises(OutputError):
            place.put("x", b"")
        assert waits == wanted and sum(waits) >= 120
