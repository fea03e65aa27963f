"""Many pictures into files, with an estimator of a dozen lines: the job knows nothing of networks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli import read_depth
from depthcli.depthmap import DepthMap, Origin
from depthcli.errors import DiskFullError, EngineError, ModelError, PictureError, UsageError
from depthcli.io.atomic import atomic_path
from depthcli.io.writers import OutputSpec
from depthcli.jobs.folder import FolderJob, run_folder
from depthcli.jobs.inputs import find_pictures, plan_tasks
from depthcli.jobs.manifest import Manifest, Result
from depthcli.preprocess import plan_input
from depthcli.weights import WeightsFile
from depthcli.zoo import find_row
from tests.conftest import broken, photo, tree


class Fake:
    """Takes the red channel for disparity, and notes what it was asked for."""

    row = find_row("tiny")
    weights = WeightsFile(Path("tiny.safetensors"), "ab" * 32, "package")

    def __init__(self, fails=()):
        self.fails = dict(fails)
        self.batches = []
        self.loaded = 0
        self.closed = 0

    def load(self):
        self.loaded += 1
        return self

    def plan(self, picture):
        return plan_input(*picture.size, 56)

    def estimate_batch(self, pictures):
        names = [Path(picture.name).name for picture in pictures]
        self.batches.append(names)
        for name in names:
            if name in self.fails:
                raise self.fails[name]
        return [DepthMap(p.rgb[..., 0], self.row.kind, Origin(source=Path(p.name).name)) for p in pictures]

    def close(self):
        self.closed += 1


def job(formats=("color",), **options) -> FolderJob:
    relatives = find_pictures(Path("in"))
    tasks = plan_tasks([("in" / relative, relative) for relative in relatives], Path("out"))
    return FolderJob(tasks, OutputSpec(formats), **options)


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

    def test_the_estimator_is_closed_whatever_happens(self):
        photo("in/a.png")
        fake = Fake({"a.png": RuntimeError("a bug")})
        with pytest.raises(RuntimeError):
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
        photo("out/c_depth.png")
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

    def test_counts_as_there_only_when_all_its_files_are(self):
        go(Fake(), formats=("color",))
        assert [r.status for r in go(Fake(), formats=("color", "npz"))] == ["done", "done"]
        assert [r.status for r in go(Fake(), formats=("npz",))] == ["skipped", "skipped"]

    def test_a_picture_is_never_replaced_by_the_result_of_another(self):
        photo("in/a_depth.png")
        pairs = [(path, Path(path.name)) for path in sorted(Path("in").iterdir())]
        with pytest.raises(UsageError, match=r"would replace the picture in/a_depth\.png"):
            FolderJob(plan_tasks(pairs, None), OutputSpec())

    def test_a_link_that_leads_in_a_circle_is_named(self):
        Path("in/loop.png").symlink_to("loop.png")
        assert statuses(go(Fake())) == {"a.png": "done", "b.png": "done", "loop.png": "failed"}

    @pytest.mark.parametrize("options", [{"if_exists": "maybe"}, {"batch": 0}, {"batch": -1}])
    def test_options_that_make_no_sense(self, options):
        with pytest.raises(UsageError):
            job(**options)


class TestEnding:
    @pytest.fixture(autouse=True)
    def pictures(self):
        for name in "abcd":
            photo(f"in/{name}.png")

    def test_stop_ends_after_the_picture_at_hand_and_the_next_run_goes_on(self):
        results = go(Fake(), stop=lambda: Path("out/b_depth.png").exists())
        assert statuses(results) == {"a.png": "done", "b.png": "done"}
        assert [r.status for r in go(Fake())] == ["skipped", "skipped", "done", "done"]

    def test_stop_still_finishes_the_pictures_that_were_read(self):
        answers = iter([False, False, True])
        assert [r.input for r in go(Fake(), stop=lambda: next(answers), batch=4)] == ["a.png", "b.png"]
        assert files() == ["a_depth.png", "b_depth.png"]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
    def test_a_full_disk_ends_the_job_and_leaves_no_partial_file(self):
        fake = Fake()
        results = run_folder(job(), fake.load)
        next(results)
        partial_of(Path("out/b_depth.png")).symlink_to("/dev/full")
        with pytest.raises(DiskFullError, match=r"cannot write out/b_depth\.png: No space left on device"):
            list(results)
        assert [path.name for path in Path("out").iterdir()] == ["a_depth.png"]
        assert fake.closed == 1 and len(fake.batches) == 2

    def test_a_folder_that_is_read_only_is_named_for_each_picture(self, as_nobody):
        Path("out").mkdir(mode=0o500)
        results = go(Fake())
        assert {r.error for r in results} == {f"cannot write out/{n}_depth.png: Permission denied" for n in "abcd"}

    def test_a_folder_that_may_not_be_entered_is_named_for_each_picture(self, as_nobody):
        Path("out").mkdir(mode=0o600)
        assert [r.status for r in go(Fake())] == ["failed"] * 4

    def test_partial_files_of_killed_runs_are_removed_and_those_of_living_ones_are_not(self):
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        killed, living = (partial_of(Path("out/a_depth.png"), pid) for pid in (dead.pid, os.getppid()))
        elsewhere = Path("out/.a_depth.png.elsewhere-1.part")
        for path in (killed, living, elsewhere):
            path.touch()
        go(Fake())
        assert [path.exists() for path in (killed, living, elsewhere)] == [False, True, True]


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


def partial_of(path: Path, pid: int | None = None) -> Path:
    """Return the temporary name that a process, this one where none is given, writes a file under."""
    with atomic_path(path) as partial:
        partial.touch()
    path.unlink()
    return partial.with_name(partial.name.replace(str(os.getpid()), str(pid or os.getpid())))
