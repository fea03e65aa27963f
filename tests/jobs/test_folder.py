"""Many pictures into files, with an estimator of a dozen lines: the job knows nothing of networks."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from depthcli import read_depth
from depthcli.depthmap import DepthMap, Provenance
from depthcli.errors import DiskFullError, EngineError, ModelError, OutputError, PictureError, UsageError
from depthcli.io.codecs.outputs import OutputSpec
from depthcli.io.pictures import images
from depthcli.io.pictures.images import picture_size, read_picture
from depthcli.jobs import folder, picture_file, picture_job
from depthcli.jobs.find import Input, find_in_folder
from depthcli.jobs.folder import run_folder, thread_counts
from depthcli.jobs.manifest import Manifest, Result
from depthcli.jobs.picture_job import FolderJob
from depthcli.jobs.pipeline import Lane
from depthcli.jobs.targets import Task, plan_pictures
from depthcli.pixels.preprocess import plan_input
from depthcli.predict.picture import Prepared
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import InputPolicy, find_row
from tests.conftest import broken, photo, tree
from tests.faults import failing


class Fake:
    """Takes the red channel for disparity, and notes what it was asked for.

    fails: what the network raises for a picture. at: what is called meanwhile, by the picture's name, or "load".
    """

    row = find_row("tiny")
    remembered = ""
    best_batch = 1
    mixes_sizes = False
    weights = WeightsFile(Path("tiny.safetensors"), "ab" * 32, "package")

    def __init__(self, fails=()):
        self.fails = dict(fails)
        self.batches = []
        self.rechecks = []
        self.loaded = 0
        self.closed = 0
        self.at = {}

    def load(self):
        self.loaded += 1
        self.at.get("load", bool)()
        return self

    def prepare(self, picture):
        return Prepared(picture, plan_input(*picture.size, InputPolicy(56)), picture.rgb[..., 0].astype(np.float32))

    def run(self, batch, recheck=False):
        self.rechecks.append(recheck)
        names = [Path(item.picture.name).name for item in batch]
        self.batches.append(names)
        for name in names:
            self.at.get(name, bool)()
            if name in self.fails:
                raise self.fails[name]
        return [item.image for item in batch]

    def finish(self, prepared, output):
        assert not prepared.image.size  # not held while files are written
        origin = Provenance(self.row.name, sha256=self.weights.sha256, source=Path(prepared.picture.name).name)
        return DepthMap(output, self.row.kind, origin)

    def close(self):
        self.closed += 1


@dataclass(frozen=True)
class Hooked(OutputSpec):
    """Calls what `at` has for a file before it is written."""

    at: dict = field(default_factory=dict)

    def write(self, depth, rgb, paths):
        self.at.get(paths[0].name, bool)()
        super().write(depth, rgb, paths)


MANIFEST = Path("out/manifest.jsonl")
listening: list = []  # an audit hook cannot be removed
sys.addaudithook(lambda event, arguments: [listen(event, arguments) for listen in listening] and None)


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the pictures whose reading has begun."""
    names = []

    def read(source, name=None, **options):
        names.append(Path(name).name)
        return read_picture(source, name, **options)

    monkeypatch.setattr(images, "read_picture", read)
    return names


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def until(condition) -> None:
    """Wait for what must happen meanwhile."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def job(formats=("color",), **options) -> FolderJob:
    relatives = find_in_folder(Path("in"))
    tasks = plan_pictures([Input("in" / relative, relative) for relative in relatives], Path("out"), {})
    return FolderJob(tasks=tasks, outputs=OutputSpec(formats), **options)


def go(fake: Fake, stop=lambda: False, **options) -> list[Result]:
    return list(run_folder(job(**options), fake.load, stop))


def statuses(results: list[Result]) -> dict[str, str]:
    return {result.input: result.status for result in results}


def files() -> list[str]:
    return sorted(tree("out"))


class TestWork:
    def test_one_result_for_each_picture_in_order(self):
        for name in ("c.png", "a.png", "b/d.png"):
            photo(f"in/{name}")
        results = go(Fake(), settings="x=1")
        assert [(r.input, r.status, r.outputs) for r in results] == [
            ("a.png", "done", ("out/a_depth.png",)),
            ("b/d.png", "done", ("out/b/d_depth.png",)),
            ("c.png", "done", ("out/c_depth.png",)),
        ]
        assert all(r.ms > 0 and r.model == "tiny" and r.settings == "x=1" for r in results)
        assert files() == ["a_depth.png", "b/d_depth.png", "c_depth.png"]

    def test_every_format_is_written_for_every_picture(self):
        photo("in/a.png", (20, 10))
        (result,) = go(Fake(), formats=("npz", "gray8"))
        assert result.outputs == ("out/a_depth.npz", "out/a_depth_gray8.png")
        assert all(read_depth(path).size == (20, 10) for path in result.outputs)

    def test_a_bad_picture_is_named_and_the_rest_goes_on(self):
        photo("in/a.jpg")
        broken("in/b.jpg")
        photo("in/c.jpg")
        results = go(Fake())
        assert statuses(results) == {"a.jpg": "done", "b.jpg": "failed", "c.jpg": "done"}
        assert results[1].outputs == () and results[1].error.startswith("in/b.jpg is truncated")
        assert "\n" not in results[1].error
        assert files() == ["a_depth.png", "c_depth.png"]

    @pytest.mark.parametrize("error", [PictureError("too\nlarge"), EngineError("out of memory"), MemoryError()])
    def test_a_picture_the_engine_cannot_take_fails_alone(self, error):
        photo("in/a.png")
        photo("in/b.png")
        results = go(Fake({"a.png": error}))
        assert statuses(results) == {"a.png": "failed", "b.png": "done"}
        assert "\n" not in results[0].error and results[0].error

    def test_a_result_that_cannot_be_written_fails_alone(self):
        photo("in/a.png")
        photo("in/b.png")
        Path("out/a_depth.png").mkdir(parents=True)
        results = go(Fake(), if_exists="overwrite")
        assert statuses(results) == {"a.png": "failed", "b.png": "done"}
        assert results[0].error == "cannot write out/a_depth.png: Is a directory"
        assert not list(Path("out").glob(".*"))

    @pytest.mark.parametrize("stage", ["read", "prepare", "run", "finish", "write", "look up"])
    @pytest.mark.parametrize("batch", [1, 3])
    def test_whatever_a_library_raises_fails_that_picture_by_name(self, monkeypatch, stage, batch):
        """A bug of Pillow, of an engine or of ours, in any stage and any thread."""
        for name in "abc":
            photo(f"in/{name}.png")

        class Error(Exception):  # of no class that anybody knows
            pass

        def guarded(call, name_of):
            def guard(*arguments, **options):
                if Path(name_of(*arguments)).name.startswith("b"):
                    raise Error("out of\nluck")
                return call(*arguments, **options)

            return guard

        fake, outputs = Fake(), OutputSpec()
        if stage == "read":
            monkeypatch.setattr(images, "read_picture", guarded(read_picture, lambda source, name, **rest: name))
        elif stage == "look up":
            found = guarded(picture_job.find_results, lambda *rest: rest[2])
            monkeypatch.setattr(picture_job, "find_results", found)
        elif stage == "run":
            fake.fails["b.png"] = Error("out of\nluck")
        elif stage == "write":
            outputs = Hooked(at={"b_depth.png": guarded(bool, lambda: "b")})
        else:
            names = {"prepare": lambda picture: picture.name, "finish": lambda item, output: item.picture.name}
            monkeypatch.setattr(fake, stage, guarded(getattr(fake, stage), names[stage]))
        results = list(run_folder(FolderJob(tasks=job().tasks, outputs=outputs, batch=batch), fake.load))
        assert [(r.input, r.status, r.error) for r in results] == [
            ("a.png", "done", ""),
            ("b.png", "failed", "Error: out of"),
            ("c.png", "done", ""),
        ]
        assert files() == ["a_depth.png", "c_depth.png"] and fake.closed == 1

    def test_the_estimator_is_closed_whatever_happens(self):
        photo("in/a.png")
        fake = Fake({"a.png": KeyboardInterrupt()})
        with pytest.raises(KeyboardInterrupt):
            go(fake)
        assert (fake.loaded, fake.closed) == (1, 1)

    def test_a_model_that_does_not_load_is_raised(self):
        photo("in/a.png")

        def load():
            raise ModelError("no weights")

        with pytest.raises(ModelError):
            list(run_folder(job(), load))
        assert not Path("out").exists()


class TestBatches:
    def test_neighbours_of_one_input_size_share_a_run(self):
        for name, size in {"a": (80, 60), "b": (80, 60), "c": (160, 120), "d": (60, 80), "e": (60, 80)}.items():
            photo(f"in/{name}.png", size)
        fake = Fake()
        results = go(fake, batch=2)
        assert fake.batches == [["a.png", "b.png"], ["c.png"], ["d.png", "e.png"]]
        assert [result.input for result in results] == ["a.png", "b.png", "c.png", "d.png", "e.png"]

    def test_the_results_are_those_of_one_by_one(self):
        for number in range(5):
            photo(f"in/{number}.png", (80 + number, 60))
        go(Fake(), batch=1)
        one_by_one = tree("out")
        go(Fake(), batch=3, if_exists="overwrite")
        assert tree("out") == one_by_one

    def test_a_picture_that_fails_does_not_take_its_batch_with_it(self):
        for name in "abc":
            photo(f"in/{name}.png")
        results = go(Fake({"b.png": EngineError("NaN")}), batch=3)
        assert [(r.input, r.status) for r in results] == [("a.png", "done"), ("b.png", "failed"), ("c.png", "done")]

    def test_results_stay_in_order_around_pictures_that_need_no_run(self):
        for name in "abcd":
            photo(f"in/{name}.png")
        broken("in/b.png")
        list(run_folder(replace(job(), tasks=job().tasks[2:3]), Fake().load))
        assert [r.status for r in go(Fake(), batch=4)] == ["done", "failed", "skipped", "done"]


class TestWhatIsThere:
    @pytest.fixture(autouse=True)
    def pictures(self):
        for name in "ab":
            photo(f"in/{name}.png")

    def test_is_skipped_without_loading_the_model(self):
        go(Fake())
        before = tree("out")
        fake = Fake()
        assert statuses(go(fake)) == {"a.png": "skipped", "b.png": "skipped"}
        assert fake.loaded == 0 and tree("out") == before

    def test_is_made_anew_on_demand(self):
        Path("out").mkdir()
        Path("out/a_depth.png").write_bytes(b"old")
        assert statuses(go(Fake(), if_exists="overwrite")) == {"a.png": "done", "b.png": "done"}
        assert read_depth("out/a_depth.png").size == (80, 60)

    def test_is_an_error_on_demand_and_stays_as_it_is(self):
        Path("out").mkdir()
        Path("out/a_depth.png").write_bytes(b"old")
        results = go(Fake(), if_exists="error")
        assert statuses(results) == {"a.png": "failed", "b.png": "done"}
        assert results[0].error == "out/a_depth.png is there already"
        assert Path("out/a_depth.png").read_bytes() == b"old"

    def test_is_an_error_on_demand_also_where_only_one_of_its_files_is_there(self):
        go(Fake(), formats=("color",))
        before = tree("out")
        results = go(Fake(), formats=("color", "npz"), if_exists="error")
        assert [r.error for r in results] == [f"out/{name}_depth.png is there already" for name in "ab"]
        assert tree("out") == before

    def test_counts_as_there_only_when_all_its_files_are(self):
        go(Fake(), formats=("color",))
        assert [r.status for r in go(Fake(), formats=("color", "npz"))] == ["done", "done"]
        assert [r.status for r in go(Fake(), formats=("npz",))] == ["skipped", "skipped"]

    def test_a_picture_is_never_replaced_by_the_result_of_another(self):
        photo("in/a_depth.png")
        pairs = [Input(path, Path(path.name)) for path in sorted(Path("in").iterdir())]
        with pytest.raises(UsageError, match=r"would replace the picture in/a_depth\.png"):
            FolderJob(tasks=plan_pictures(pairs, None), outputs=OutputSpec())

    def test_a_link_that_leads_in_a_circle_is_named(self):
        Path("in/loop.png").symlink_to("loop.png")
        assert statuses(go(Fake())) == {"a.png": "done", "b.png": "done", "loop.png": "failed"}

    @pytest.mark.parametrize("options", [{"if_exists": "maybe"}, {"batch": 0}, {"batch": -1}])
    def test_options_that_make_no_sense(self, options):
        with pytest.raises(UsageError):
            job(**options)


class TestWhatFits:
    """A file under a result's name is reused only where it is the map of this very picture."""

    @pytest.fixture(params=["manifest", "no manifest"])
    def again(self, request):
        """Runs the job: again(formats=...) -> {name: status or error}; with the manifest or without."""

        def run(**options) -> dict[str, str]:
            manifest = Manifest(Path("out/manifest.jsonl")) if request.param == "manifest" else None
            return {r.input: r.error or r.status for r in go(Fake(), manifest=manifest, **options)}

        for name in "ab":
            photo(f"in/{name}.bmp", (40, 30))
        run(formats=("color", "npz"))
        assert run(formats=("color", "npz")) == {"a.bmp": "skipped", "b.bmp": "skipped"}
        return run

    @pytest.mark.parametrize("formats", [("color",), ("npz",), ("npz", "color")])
    def test_a_picture_of_another_size_is_done_again(self, again, formats):
        photo("in/a.bmp", (60, 30))
        assert again(formats=formats) == {"a.bmp": "done", "b.bmp": "skipped"}
        assert all(read_depth(path).size == (60, 30) for path in OutputSpec(formats).paths(Path("out/a")))
        assert again(formats=formats) == {"a.bmp": "skipped", "b.bmp": "skipped"}

    @pytest.mark.parametrize("times", ["new", "kept"])
    def test_a_picture_of_the_same_size_is_done_again(self, again, times):
        """Also where it was put there with the time of the old one, as by `cp -p` and by unpacking."""
        path = Path("in/a.bmp")
        before, content = path.stat(), bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        if times == "kept":
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert again() == {"a.bmp": "done", "b.bmp": "skipped"}

    def test_pictures_that_changed_places_are_done_again(self, again):
        photo("in/b.bmp", (40, 31))
        again()
        os.rename("in/a.bmp", "in/c")
        os.rename("in/b.bmp", "in/a.bmp")
        os.rename("in/c", "in/b.bmp")
        assert again() == {"a.bmp": "done", "b.bmp": "done"}

    @pytest.mark.parametrize("how", ["touched", "copied", "moved there and back", "linked"])
    def test_a_picture_of_the_same_content_is_not(self, again, how):
        before = tree("out")
        for path in list(Path("in").iterdir()):
            if how == "touched":
                os.utime(path)
            elif how == "linked":
                os.link(path, "another")
                os.unlink("another")
            else:
                path.rename("other")
                (shutil.copy if how == "copied" else os.rename)("other", path)
        assert again() == {"a.bmp": "skipped", "b.bmp": "skipped"} and tree("out") == before

    def test_a_picture_that_was_touched_is_read_once_and_known_then(self, again, monkeypatch, request):
        os.utime("in/a.bmp")
        again()
        if request.node.callspec.params["again"] == "manifest":
            monkeypatch.setattr(
                picture_file.PictureFile, "sha256", property(lambda self: pytest.fail("it was read again"))
            )
            assert again() == {"a.bmp": "skipped", "b.bmp": "skipped"}

    def test_results_that_were_copied_without_their_times_are_known(self, again):
        shutil.copytree("out", "copied", copy_function=shutil.copyfile)
        shutil.rmtree("out")
        os.rename("copied", "out")
        assert again() == {"a.bmp": "skipped", "b.bmp": "skipped"}

    @pytest.mark.parametrize("damage", ["empty", "cut", "gone", "end is gone"])
    @pytest.mark.parametrize("format", ["color", "npz"])
    def test_what_was_cut_short_is_done_again(self, again, format, damage):
        (path,) = OutputSpec((format,)).paths(Path("out/a"))
        whole = path.read_bytes()
        content = {"empty": b"", "cut": whole[: len(whole) * 9 // 10], "end is gone": whole[:-1]}
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(content[damage])
        assert again(formats=(format,)) == {"a.bmp": "done", "b.bmp": "skipped"}
        assert path.read_bytes() == whole

    @pytest.mark.parametrize("foreign", ["text", "picture", "array", "folder", "pipe"])
    @pytest.mark.parametrize("formats", [("color",), ("npz",), ("color", "gray")])
    def test_what_somebody_else_put_there_is_named_and_stays(self, again, formats, foreign):
        path = OutputSpec(formats).paths(Path("out/a"))[0]
        path.unlink()
        if foreign == "folder":
            path.mkdir()
        elif foreign == "pipe":
            os.mkfifo(path)
        elif foreign == "picture":
            photo("other.png").rename(path)
        elif foreign == "array":
            np.savez("other.npz", depth=np.ones((3, 4), np.float32))
            os.rename("other.npz", path)
        else:
            path.write_text("mine")
        before = path.lstat()[:7], path.lstat().st_mtime_ns
        for _ in range(2):
            said = again(formats=formats)
            reason = "is not a file" if foreign in ("folder", "pipe") else "is not a depth map of this tool"
            assert said["a.bmp"].startswith(f"{path} is there and {reason} (")
            assert said["b.bmp"] in ("done", "skipped")
        assert (path.lstat()[:7], path.lstat().st_mtime_ns) == before and not list(Path("out").glob(".*"))

    @pytest.mark.parametrize("format", ["color", "npz"])
    def test_maps_of_other_pictures_are_named_and_stay(self, again, format):
        photo("in/b.bmp", (40, 31))
        again(formats=(format,))
        first, second = (OutputSpec((format,)).paths(Path("out", name))[0] for name in "ab")
        shutil.copy(second, first)
        for _ in range(2):
            said = again(formats=(format,))
            assert said == {
                "a.bmp": f"{first} is there and is a map of another picture, b.bmp (`if_exists` overwrite replaces it)",
                "b.bmp": "skipped",
            }
        assert first.read_bytes() == second.read_bytes()
        assert again(formats=(format,), if_exists="overwrite") == {"a.bmp": "done", "b.bmp": "done"}

    def test_a_picture_that_was_renamed_with_its_results_is_not_done_again(self, again):
        os.rename("in/a.bmp", "in/c.bmp")
        os.rename("out/a_depth.png", "out/c_depth.png")
        assert again() == {"b.bmp": "skipped", "c.bmp": "skipped"}

    def test_a_picture_that_is_gone_is_named_though_its_result_is_there(self, again):
        tasks = job().tasks
        os.unlink("in/a.bmp")
        first, second = run_folder(FolderJob(tasks=tasks, outputs=OutputSpec()), Fake().load)
        assert first.error.startswith("in/a.bmp does not exist") and second.status == "skipped"

    def test_a_link_to_a_result_is_a_result(self, again):
        os.rename("out/a_depth.png", "elsewhere.png")
        Path("out/a_depth.png").symlink_to("../elsewhere.png")
        assert again() == {"a.bmp": "skipped", "b.bmp": "skipped"}
        photo("in/a.bmp", (60, 30))
        assert again() == {"a.bmp": "done", "b.bmp": "skipped"}
        assert Path("out/a_depth.png").is_symlink() and read_depth("elsewhere.png").size == (60, 30)

    @pytest.mark.parametrize("row", ["none", "old"])
    def test_results_of_earlier_versions_are_known_by_name_size_and_age(self, again, row):
        """Whose files and rows say nothing about the content."""
        path = Path("out/a_depth.png")
        depth = read_depth(path)
        OutputSpec().write(depth.with_provenance(Provenance(source="a.bmp")), np.empty(0), [path])
        if row == "old":
            rows = [json.dumps({"input": "a.bmp", "outputs": ["a_depth.png"], "status": "done", "model": "tiny"})]
        Path("out/manifest.jsonl").write_text("\n".join(rows) if row == "old" else "")
        assert again() == {"a.bmp": "skipped", "b.bmp": "skipped"}
        Path("out/manifest.jsonl").unlink()
        future = path.stat().st_mtime_ns + 10**9
        os.utime("in/a.bmp", ns=(future, future))
        assert again() == {"a.bmp": "done", "b.bmp": "skipped"}
        OutputSpec().write(depth.with_provenance(Provenance(source="a.bmp")), np.empty(0), [path])
        photo("in/a.bmp", (60, 30))
        os.utime("in/a.bmp", (0, 0))
        assert again() == {"a.bmp": "done", "b.bmp": "skipped"}

    def test_the_file_of_a_picture_is_opened_once(self):
        """For its size, its digest and its pixels; pictures that are known to be done are not opened."""
        for name in "ab":
            photo(f"in/{name}.jpg")  # a PNG is opened before, to tell pictures from maps
        opened = []

        def listen(event: str, arguments: tuple) -> None:
            if event == "open" and str(arguments[0]).startswith("in/"):
                opened.append(str(arguments[0]))

        listening.append(listen)
        try:
            assert [r.status for r in go(Fake(), manifest=Manifest(MANIFEST))] == ["done", "done"]
            assert sorted(opened) == ["in/a.jpg", "in/b.jpg"]
            assert [r.status for r in go(Fake(), manifest=Manifest(MANIFEST))] == ["skipped", "skipped"]
            assert len(opened) == 2
        finally:
            listening.clear()

    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("most", [1, 64])
    def test_no_file_stays_open(self, monkeypatch, batch, most):
        for name in "abcdef":
            photo(f"in/{name}.png")
        opened = []
        as_it_was = picture_file.open_picture_file

        def open_file(path, name):
            opened.append(as_it_was(path, name))
            return opened[-1]

        monkeypatch.setattr(picture_file, "open_picture_file", open_file)
        monkeypatch.setattr(folder, "_MOST_OPEN", most)
        for stop in (lambda: True, lambda: False):
            go(Fake(), stop=stop, batch=batch)
            assert all(file.closed for file in opened)
        assert opened

    def test_a_picture_that_is_replaced_while_it_is_read_does_not_look_done(self, monkeypatch):
        photo("in/a.png")

        def read(source, name=None, **options):
            photo("other.png", (30, 20)).replace("in/a.png")
            return read_picture(source, name, **options)

        with monkeypatch.context() as patch:
            patch.setattr(images, "read_picture", read)
            assert [r.status for r in go(Fake())] == ["done"]
        assert [r.status for r in go(Fake())] == ["done"]
        assert [r.status for r in go(Fake())] == ["skipped"]

    def test_a_picture_that_is_replaced_before_it_is_read_does_not_look_done(self, monkeypatch):
        photo("in/a.png")

        def size(source):
            photo("other.png", (30, 20)).replace("in/a.png")  # the file that was replaced is open already
            return picture_size(source)

        with monkeypatch.context() as patch:
            patch.setattr(images, "picture_size", size)
            assert [r.status for r in go(Fake(), manifest=Manifest(MANIFEST))] == ["done"]
        assert [r.status for r in go(Fake(), manifest=Manifest(MANIFEST))] == ["done"]
        assert read_depth("out/a_depth.png").size == (30, 20)
        assert [r.status for r in go(Fake(), manifest=Manifest(MANIFEST))] == ["skipped"]

    def test_a_picture_that_another_machine_has_replaced_since_it_was_opened_is_read_anew(self, monkeypatch):
        class Stale(io.BytesIO):
            def read(self, *_: object) -> bytes:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

        photo("in/a.png")
        files = [Stale(), open("in/a.png", "rb")]
        monkeypatch.setattr(picture_file, "open_picture_file", lambda path, name: files.pop(0))
        assert [r.status for r in go(Fake())] == ["done"] and not files

    def test_what_a_plan_says_is_what_is_done(self, again):
        photo("in/b.bmp", (60, 30))
        Path("out/c_depth.png").write_text("mine")
        for name in "cd":
            photo(f"in/{name}.bmp")
        plan = job()
        assert [plan.action(task) for task in plan.tasks] == ["skip", "overwrite", "error", "write"]
        assert [r.status for r in go(Fake())] == ["skipped", "done", "failed", "done"]


class TestEnding:
    @pytest.fixture(autouse=True)
    def pictures(self):
        for name in "abcd":
            photo(f"in/{name}.png")

    def test_stop_ends_after_the_picture_at_hand_and_the_next_run_goes_on(self):
        fake = Fake()
        results = go(fake, stop=lambda: ["b.png"] in fake.batches)
        assert statuses(results) == {"a.png": "done", "b.png": "done"}
        assert files() == ["a_depth.png", "b_depth.png"]
        assert [r.status for r in go(Fake())] == ["skipped", "skipped", "done", "done"]

    def test_stop_still_finishes_a_batch_that_is_in_the_network(self):
        fake = Fake()
        results = go(fake, stop=lambda: bool(fake.batches), batch=3)
        assert [r.input for r in results] == ["a.png", "b.png", "c.png"]
        assert files() == ["a_depth.png", "b_depth.png", "c_depth.png"]

    def test_stop_before_the_first_picture_reads_nothing_and_loads_nothing(self, reads):
        fake = Fake()
        assert go(fake, stop=lambda: True) == []
        assert (fake.loaded, reads, files()) == (0, [], [])

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
    def test_a_full_disk_ends_the_job_and_leaves_no_partial_file(self, monkeypatch, code):
        monkeypatch.setattr(folder, "usable_cores", lambda: 2)  # one writer
        fake, disk = Fake(), ExitStack()
        outputs = Hooked(at={"b_depth.png": lambda: disk.enter_context(failing("write", code))})
        results = run_folder(FolderJob(tasks=job().tasks, outputs=outputs), fake.load)
        assert next(results).input == "a.png"
        with disk, pytest.raises(DiskFullError, match=rf"cannot write out/b_depth\.png: {os.strerror(code)}"):
            list(results)
        assert not list(Path("out").glob(".*")) and files() == ["a_depth.png"]
        assert fake.closed == 1

    def test_a_folder_that_is_read_only_is_named_for_each_picture(self, as_nobody):
        Path("out").mkdir(mode=0o500)
        results = go(Fake())
        assert {r.error for r in results} == {f"cannot write out/{n}_depth.png: Permission denied" for n in "abcd"}

    def test_a_folder_that_may_not_be_entered_is_named_for_each_picture(self, as_nobody):
        Path("out").mkdir(mode=0o600)
        assert [r.status for r in go(Fake())] == ["failed"] * 4

    def test_partial_files_of_killed_runs_are_removed_and_those_of_others_are_not(self):
        script = (
            "import os; from pathlib import Path; from depthcli.host.atomic import temporary_path\n"
            "temporary_path(Path('out')).touch(); os._exit(1)"
        )
        Path("out").mkdir()
        subprocess.run([sys.executable, "-c", script], check=False)
        (killed,) = Path("out").iterdir()
        elsewhere = Path(f"out/.depthcli-{'0' * 24}-12345678.part")
        elsewhere.touch()
        go(Fake())
        assert [path.exists() for path in (killed, elsewhere)] == [False, True]


class TestOverlap:
    """Readers and writers: two of the former, three of the latter, as on a machine with six cores."""

    @pytest.fixture(autouse=True)
    def pictures(self, monkeypatch):
        monkeypatch.setattr(folder, "usable_cores", lambda: 6)
        for name in "abcdef":
            photo(f"in/{name}.png")

    @pytest.fixture
    def many(self) -> list[Task]:
        return [Task(Path("in/a.png"), f"{n}.png", Path(f"out/{n}")) for n in range(100)]

    def hooked(self, fake, at, **options) -> list[Result]:
        return list(run_folder(FolderJob(tasks=job().tasks, outputs=Hooked(at=at), **options), fake.load))

    @pytest.mark.parametrize(("cores", "counts"), [(1, (1, 1)), (2, (1, 1)), (6, (2, 3)), (64, (21, 32))])
    def test_threads_follow_from_the_cores(self, monkeypatch, cores, counts):
        monkeypatch.setattr(folder, "usable_cores", lambda: cores)
        assert thread_counts(single=False) == counts

    def test_one_picture_needs_no_thread(self):
        before, seen = threading.active_count(), []
        fake = Fake()
        fake.at = {name: lambda: seen.append(threading.active_count()) for name in ("load", "a.png")}
        tasks = job().tasks[:1]
        at = {"a_depth.png": lambda: seen.append(threading.active_count())}
        (result,) = run_folder(FolderJob(tasks=tasks, outputs=Hooked(at=at)), fake.load)
        assert result.status == "done" and seen == [before] * 3

    def test_memory_is_checked_again_before_a_run_unless_there_is_only_one_picture(self):
        fake = Fake()
        list(run_folder(FolderJob(tasks=job().tasks[:1], outputs=OutputSpec()), fake.load))
        go(fake)
        assert fake.rechecks == [False] + [True] * 5

    def test_a_second_interrupt_while_it_ends_leaves_nothing_behind(self, many, monkeypatch):
        fake = Fake()
        close = Lane.close

        def interrupted(lane: Lane) -> None:
            close(lane)
            raise KeyboardInterrupt

        monkeypatch.setattr(Lane, "close", interrupted)
        results = run_folder(FolderJob(tasks=many, outputs=OutputSpec()), fake.load)
        next(results)
        with pytest.raises(KeyboardInterrupt):
            results.close()
        assert fake.closed == 1

    def test_the_next_pictures_are_read_while_the_model_loads_and_while_one_is_in_the_network(self, reads):
        fake = Fake()
        fake.at = {"load": lambda: until(lambda: "b.png" in reads), "a.png": lambda: until(lambda: "d.png" in reads)}
        assert [r.status for r in go(fake)] == ["done"] * 6

    def test_the_network_goes_on_while_a_picture_is_written(self):
        fake = Fake()
        results = self.hooked(fake, {"a_depth.png": lambda: until(lambda: ["b.png"] in fake.batches)})
        assert [r.status for r in results] == ["done"] * 6

    def test_results_keep_the_order_though_the_first_is_written_last(self):
        at = {"a_depth.png": lambda: until(Path("out/c_depth.png").exists)}
        assert [r.input for r in self.hooked(Fake(), at)] == [f"{name}.png" for name in "abcdef"]

    def test_waiting_is_not_counted_as_work(self):
        fake = Fake()
        fake.at["b.png"] = lambda: time.sleep(1)  # c has been read by then, a may wait to be yielded
        first, second, third, *_ = go(fake)
        assert second.ms >= 1000 > max(first.ms, third.ms)

    def test_no_model_is_loaded_where_no_picture_can_be_read(self):
        for name in "abcdef":
            broken(f"in/{name}.png")
        fake = Fake()
        assert [r.status for r in go(fake)] == ["failed"] * 6
        assert fake.loaded == 0

    def test_the_files_are_those_of_one_at_a_time(self):
        for number in range(12):
            photo(f"in/{number}.jpg", (90 + number, 70))
        fake, work = Fake(), job(("color", "npz", "side"))
        for task in work.tasks:
            prepared = fake.prepare(read_picture(task.source))
            (output,) = fake.run([prepared])
            depth = fake.finish(replace(prepared, image=np.empty(0)), output)
            depth = depth.with_provenance(replace(depth.provenance, source_sha256=sha256(task.source)))
            work.outputs.write(depth, prepared.picture.rgb, OutputSpec(work.outputs.formats).paths(task.stem))
        expected = tree("out")
        assert len(expected) == 54
        assert {r.status for r in go(Fake(), formats=("color", "npz", "side"), if_exists="overwrite")} == {"done"}
        assert tree("out") == expected

    @pytest.mark.parametrize("batch", [1, 4])
    def test_few_pictures_are_read_ahead_of_the_network(self, many, reads, batch):
        ahead = 2 + batch
        fake = Fake()

        def blocked() -> None:
            in_network = batch * len(fake.batches)
            until(lambda: len(reads) >= min(100, in_network + ahead))
            assert len(reads) <= in_network + ahead

        fake.at["a.png"] = blocked
        results = list(run_folder(FolderJob(tasks=many, outputs=OutputSpec(), batch=batch), fake.load))
        assert {r.status for r in results} == {"done"} and len(reads) == 100

    def test_few_pictures_wait_to_be_written(self, many):
        fake = Fake()

        def blocked() -> None:
            until(lambda: len(fake.batches) == 3 + 1)
            time.sleep(0.05)
            assert len(fake.batches) == 3 + 1

        results = list(run_folder(FolderJob(tasks=many, outputs=Hooked(at={"0_depth.png": blocked})), fake.load))
        assert {r.status for r in results} == {"done"} and len(results) == 100

    def test_pictures_are_let_go_when_they_are_written(self, many, monkeypatch):
        alive, most, fake = weakref.WeakSet(), [], Fake()

        def read(source, name=None, **options):
            picture = read_picture(source, name, **options)
            alive.add(picture)
            return picture

        monkeypatch.setattr(images, "read_picture", read)
        fake.at["a.png"] = lambda: most.append(len(alive))
        for _ in run_folder(FolderJob(tasks=many, outputs=OutputSpec()), fake.load):
            pass
        assert max(most) <= (2 + 1) + 1 + (3 + 1)
        assert not alive

    @pytest.mark.parametrize(("room", "most"), [(0.5, 1), (1, 1), (2, 2), (3.9, 3)])
    def test_huge_pictures_do_not_add_up(self, many, monkeypatch, room, most):
        """room: how many of these pictures the memory that is for pictures holds."""
        self.give_room(monkeypatch, room)
        begun, written, found = [], [], []

        def read(source, name=None, **options):
            begun.append(name)
            found.append(len(begun) - len(written))
            return read_picture(source, name, **options)

        monkeypatch.setattr(images, "read_picture", read)
        at = {f"{n}_depth.png": lambda: written.append(1) for n in range(100)}
        results = list(run_folder(FolderJob(tasks=many, outputs=Hooked(at=at)), Fake().load))
        assert [r.status for r in results] == ["done"] * 100
        assert max(found) <= most

    def test_a_batch_is_read_together_however_huge_its_pictures(self, monkeypatch):
        self.give_room(monkeypatch, 0.5)
        fake = Fake()
        assert [r.status for r in go(fake, batch=4)] == ["done"] * 6
        assert [len(batch) for batch in fake.batches] == [4, 2]

    def give_room(self, monkeypatch, pictures: float) -> None:
        monkeypatch.setattr(folder, "free_memory", lambda: int(pictures * 80 * 60 * 27 / 0.25) + 1)

    def test_a_picture_that_a_reader_finds_no_memory_for_is_prepared_between_two_runs(self):
        class Short(Fake):
            def prepare(self, picture):
                if threading.current_thread() is not threading.main_thread():
                    raise PictureError("needs 9 GB and 8 GB are free")
                return super().prepare(picture)

        assert [r.status for r in go(Short())] == ["done"] * 6

    def test_a_picture_that_finds_no_memory_beside_those_being_written_is_tried_again_after_them(self):
        writing, let_go, written = threading.Event(), threading.Event(), threading.Event()

        def write() -> None:
            writing.set()
            let_go.wait(20)
            written.set()

        def run() -> None:
            writing.wait(20)
            if not written.is_set():
                let_go.set()
                raise PictureError("needs 9 GB and 8 GB are free")

        fake = Fake()
        fake.at["b.png"] = run
        assert [r.status for r in self.hooked(fake, {"a_depth.png": write})] == ["done"] * 6

    @pytest.mark.parametrize("error", [EngineError("NaN"), MemoryError()])
    @pytest.mark.parametrize("stage", ["prepare", "finish"])
    def test_a_picture_that_fails_before_or_after_the_network_fails_alone(self, monkeypatch, stage, error):
        fake = Fake()
        as_it_was = getattr(fake, stage)

        def fail(item, *rest):
            if "c.png" in (getattr(item, "picture", item).name)[-5:]:
                raise error
            return as_it_was(item, *rest)

        monkeypatch.setattr(fake, stage, fail)
        assert [r.status for r in go(fake, batch=2)] == ["done", "done", "failed", "done", "done", "done"]

    def test_a_writer_that_fails_takes_no_other_picture_with_it(self):
        def fail() -> None:
            raise OutputError("permission denied")

        results = self.hooked(Fake(), {"c_depth.png": fail})
        assert [r.status for r in results] == ["done", "done", "failed", "done", "done", "done"]

    def test_a_full_disk_is_told_after_the_results_before_it_and_ends_the_work(self, many):
        full = threading.Event()

        def fail() -> None:
            full.set()
            raise DiskFullError("no space")

        # The second of three writers is still at work when the third finds the disk full.
        at = {"1_depth.png": lambda: until(full.is_set), "2_depth.png": fail}
        fake, found = Fake(), []
        with pytest.raises(DiskFullError):
            for result in run_folder(FolderJob(tasks=many, outputs=Hooked(at=at)), fake.load):
                found.append(result.input)
        assert found == ["0.png", "1.png"]
        assert len(fake.batches) <= 10 and not list(Path("out").glob(".*"))

    def test_a_manifest_that_cannot_be_written_ends_the_work(self, many):
        fake, disk = Fake(), ExitStack()
        fake.at["load"] = lambda: disk.enter_context(failing("write", errno.EIO, where="manifest.jsonl"))
        manifest = Manifest(Path("out/manifest.jsonl"))
        with disk, pytest.raises(OutputError, match=r"cannot write out/manifest\.jsonl: Input/output error"):
            list(run_folder(FolderJob(tasks=many, outputs=OutputSpec(), manifest=manifest), fake.load))
        assert len(fake.batches) <= 10 and fake.closed == 1

    def test_a_manifest_that_may_not_be_written_is_named_before_the_work(self, many):
        manifest = Manifest(Path("out/manifest.jsonl"))
        Path("out/manifest.jsonl").mkdir(parents=True)  # meanwhile
        fake = Fake()
        with pytest.raises(OutputError, match=r"cannot write out/manifest\.jsonl: Is a directory"):
            list(run_folder(FolderJob(tasks=many, outputs=OutputSpec(), manifest=manifest), fake.load))
        assert not fake.loaded and files() == []

    def test_stop_begins_nothing_new(self, many, reads):
        fake = Fake()
        results = list(
            run_folder(FolderJob(tasks=many, outputs=OutputSpec()), fake.load, lambda: len(fake.batches) == 5)
        )
        assert [r.input for r in results] == [f"{n}.png" for n in range(5)]
        assert len(tree("out")) == 5 and len(reads) <= 5 + 3

    def test_a_job_that_is_left_ends_with_what_is_being_written(self, many):
        fake, leaving = Fake(), threading.Event()
        at = {f"{n}_depth.png": lambda: until(leaving.is_set) for n in (1, 2, 3)}
        results = run_folder(FolderJob(tasks=many, outputs=Hooked(at=at)), fake.load)
        assert next(results).input == "0.png"
        threading.Timer(0.1, leaving.set).start()
        results.close()
        assert fake.closed == 1 and len(fake.batches) <= 5
        assert set(tree("out")) <= {f"{n}_depth.png" for n in range(4)}

    def test_an_interrupt_leaves_nothing_behind(self, many):
        fake = Fake()

        def interrupt() -> None:
            if len(fake.batches) == 10:
                raise KeyboardInterrupt

        fake.at["a.png"] = interrupt
        with pytest.raises(KeyboardInterrupt):
            list(run_folder(FolderJob(tasks=many, outputs=OutputSpec()), fake.load))
        assert fake.closed == 1 and len(fake.batches) == 10
        assert len(tree("out")) < 10 and not list(Path("out").glob(".*"))


class TestFaults:
    """Of the disk the results go to, with one writer: a.png is done, then the disk fails."""

    @pytest.fixture(autouse=True)
    def pictures(self, monkeypatch):
        monkeypatch.setattr(folder, "usable_cores", lambda: 2)
        for name in "abc":
            photo(f"in/{name}.png")

    def run(self, call: str, code: int, formats: tuple[str, ...], times: float = float("inf")) -> list[Result]:
        disk = ExitStack()
        name = OutputSpec(formats).paths(Path("b"))[0].name
        where = "_depth" if call == "replace" else ".part"  # not the manifest
        outputs = Hooked(formats, at={name: lambda: disk.enter_context(failing(call, code, times=times, where=where))})
        results = []
        with disk:
            for result in run_folder(
                FolderJob(tasks=job().tasks, outputs=outputs, manifest=Manifest(MANIFEST)), Fake().load
            ):
                results.append(result)
                if result.input == "b.png":
                    disk.close()
        return results

    @pytest.mark.parametrize("formats", [("color",), ("npz",), ("gray", "npz")])
    @pytest.mark.parametrize("call", ["write", "fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EXDEV])
    def test_a_file_that_cannot_be_written_fails_alone(self, call, code, formats):
        results = self.run(call, code, formats, times=1)
        assert statuses(results) == {"a.png": "done", "b.png": "failed", "c.png": "done"}
        reason = os.strerror(code)
        assert results[1].error == f"cannot write {OutputSpec(formats).paths(Path('out/b'))[0]}: {reason}"
        assert not list(Path("out").glob(".*"))
        assert [r.status for r in go(Fake(), formats=formats)] == ["skipped", "done", "skipped"]

    @pytest.mark.parametrize("formats", [("color",), ("npz",)])
    @pytest.mark.parametrize("call", ["write", "fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
    def test_a_disk_that_takes_nothing_more_ends_the_job_and_the_next_run_goes_on(self, call, code, formats):
        with pytest.raises(DiskFullError, match=os.strerror(code)):
            self.run(call, code, formats)
        assert not list(Path("out").glob(".*"))
        assert len(tree("out")) == 1
        assert [r.status for r in go(Fake(), formats=formats)] == ["skipped", "done", "done"]

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADF, errno.ENOTSUP])
    def test_a_disk_without_fsync_is_a_disk(self, code):
        assert {r.status for r in self.run("fsync", code, ("color", "npz"))} == {"done"}
        assert len(tree("out")) == 6

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP])
    def test_a_system_without_locks_is_a_system(self, code):
        with failing("flock", code):
            assert {r.status for r in go(Fake())} == {"done"}

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
    def test_a_manifest_that_can_be_written_no_more_ends_the_job_and_the_files_are_known(self, code):
        fake, disk = Fake(), ExitStack()
        fake.at["b.png"] = lambda: disk.enter_context(failing("write", code, where="manifest"))
        with disk, pytest.raises(OutputError, match=rf"cannot write out/manifest\.jsonl: {os.strerror(code)}"):
            list(run_folder(job(manifest=Manifest(MANIFEST)), fake.load))
        done = tree("out")
        results = go(Fake(), manifest=Manifest(MANIFEST))
        assert [r.status for r in results if f"{r.input[0]}_depth.png" in done] == ["skipped"] * len(done)


class TestManifest:
    @pytest.fixture(autouse=True)
    def pictures(self):
        photo("in/a.png")
        broken("in/b.png")

    def run(self, **options) -> list[dict]:
        path = Path("out/manifest.jsonl")
        go(Fake(), manifest=Manifest(path), **options)
        rows = Manifest(path).rows
        return [rows[name] for name in ("a.png", "b.png")]

    def test_says_what_became_of_each_picture(self):
        done, failed = self.run(settings="x=1")
        assert (done["status"], done["outputs"], done["settings"]) == ("done", ["a_depth.png"], "x=1")
        assert failed["status"] == "failed" and "in/b.png is truncated" in failed["error"]

    def test_keeps_how_a_skipped_picture_was_made(self):
        self.run(settings="x=1")
        done, _ = self.run(settings="x=2")
        assert (done["status"], done["settings"]) == ("done", "x=1")

    def test_goes_on_after_half_a_line(self):
        self.run()
        path = Path("out/manifest.jsonl")
        path.write_bytes(path.read_bytes()[:40])
        done, failed = self.run()
        assert (done["status"], failed["status"]) == ("skipped", "failed")
