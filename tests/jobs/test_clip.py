"""One clip through one model: a map for every frame at its time, and the same bytes however often it was ended."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from depthcli.choices.clips import ClipChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import DeviceLostError, DiskFullError, EngineError, UsageError
from depthcli.io.codecs.encode import Look
from depthcli.io.codecs.files import read_depth
from depthcli.io.codecs.formats import CLIPS
from depthcli.io.video.clip import Selection
from depthcli.jobs import clip as module
from depthcli.jobs.clip import check_models, run_clip
from depthcli.jobs.clip_job import ClipJob, Progress
from depthcli.jobs.clip_results import CHANGED, SAME, ClipFiles
from depthcli.jobs.clip_results import _pieces as pieces
from depthcli.jobs.clip_stream import stream_clip
from depthcli.jobs.manifest import DONE, FAILED, SKIPPED, Result
from depthcli.pixels.postprocess import resize_bilinear
from depthcli.pixels.preprocess import InputPlan
from depthcli.predict.clip_predictors import AtOnce, FrameByFrame, WindowByWindow
from depthcli.temporal.windows import WINDOW
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import find_row
from tests.conftest import tree
from tests.fake_backend import FakeBackend
from tests.faults import failing
from tests.io.video.clips import RATE, SIZE, make_clip, number, scene
from tests.io.video.test_extras import noisy, rich_clip, timecode_of
from tests.io.video.test_writers import packets

WEIGHTS = WeightsFile(Path("fake.pth"), "0" * 64, "here")
GRID = (8, 6)  # (width, height) of the maps of these fakes


class Fake(AtOnce):
    """A model whose map is the brightness of the frame: near is bright. log: what it was asked, in order."""

    exact = False
    description = "fake 1 cpu fp32"
    map_size = GRID
    warnings = ()

    def __init__(self, row=None) -> None:
        self.row, self.weights = row or find_row("vits"), WEIGHTS
        self.log: list[tuple[int, bool]] = []
        self.settled = 0

    def begin(self, size, camera=None, frames=None):
        self.settled = 0
        return InputPlan(size, (14 * GRID[0], 14 * GRID[1]))

    def prepare(self, rgb):
        small = Image.fromarray(rgb).convert("F").resize(GRID, Image.Resampling.BOX)
        return number(rgb), np.asarray(small, np.float32) / 100

    def feed(self, prepared, cut):
        index, values = prepared
        self.log.append((index, cut))
        return [values]

    def finish(self):
        return []

    def postprocess(self, answer):
        self.settled += 1
        return answer + np.float32(self.settled % 3)  # as if it remembered what came before

    def state(self):
        return lambda: {"settled": np.array(self.settled)}

    def restore(self, state):
        self.settled = int(state["settled"])

    def close(self):
        pass


class Backend(FakeBackend):
    """A backend for clips whose map is the mean of its frame's channels, a little that of its neighbours."""

    def __init__(self) -> None:
        super().__init__(best_batch=2, encode=self._encode, decode=self._decode)
        self.encoded = 0

    def _encode(self, inputs):
        self.encoded += len(inputs["image"])
        return {"features": [image.mean(axis=0) + 3 for image in inputs["image"]]}

    def _decode(self, inputs):
        assert len(inputs["features"]) == WINDOW
        stack = np.stack(inputs["features"])
        return {"depth": np.maximum(stack + 0.01 * stack.mean(axis=0), 0).astype(np.float32)}


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """A shard every few frames."""
    monkeypatch.setattr("depthcli.io.video.spool._MOST_BYTES", 5 * 4 * GRID[0] * GRID[1])


def job(source: Path | str = "a.mp4", formats: tuple[str, ...] = ("npz",), folder: str = "out", **facts) -> ClipJob:
    endings = {name: CLIPS[name].clip for name in formats}
    outputs = [(name, Path(folder) / f"a{ending}") for name, ending in endings.items()]
    return ClipJob(source, outputs, **facts)


def run(clip_job: ClipJob, predictor=None, stop=lambda: False, said: list[str] | None = None) -> Result | None:
    """Run to the end and return the result, None where it was stopped."""
    predictor = predictor or Fake()
    events = list(run_clip(clip_job, lambda: predictor, stop, (said if said is not None else []).append))
    assert all(isinstance(event, Progress) for event in events[:-1])
    return events[-1] if events and isinstance(events[-1], Result) else None


def depths(folder: str = "out") -> list[np.ndarray]:
    return [read_depth(path).values for path in sorted(Path(folder, "a_depth_npz").glob("*.npz"))]


def after(calls: int):
    """Return a `stop` that says True from the given call on."""
    counted = iter(range(10_000))
    return lambda: next(counted) >= calls


# --- What comes out ---------------------------------------------------------------------------------------------------


def test_every_frame_becomes_a_map_of_the_clips_size(tmp_path):
    make_clip(Path("a.mp4"), frames=12)
    result = run(job())
    assert result is not None and (result.status, result.error, result.model) == (DONE, "", "vits")
    found = depths()
    assert len(found) == 12
    for index, values in enumerate(found):
        small = Fake().prepare(scene(index))[1] + np.float32((index + 1) % 3)
        assert values.shape == SIZE[::-1]
        assert np.abs(values - resize_bilinear(small, SIZE)).max() < 0.06  # the codec's
    assert not list(Path("out").glob(".*"))  # neither spool nor partial file


def test_numbers_are_exact_where_a_format_holds_them(tmp_path):
    for index in range(3):
        Path("frames").mkdir(exist_ok=True)
        Image.fromarray(scene(index)).save(f"frames/{index}.png")
    assert run(job("frames", ("npz", "exr", "ffv1"))).status == DONE
    wanted = [resize_bilinear(Fake().prepare(scene(i))[1] + np.float32((i + 1) % 3), SIZE) for i in range(3)]
    assert all(np.array_equal(found, values) for found, values in zip(depths(), wanted))


def test_sixteen_bits_are_true_to_the_range_that_the_sidecar_names(tmp_path):
    make_clip(Path("a.mp4"), frames=4)
    run(job(formats=("ffv1", "npz")))
    facts = json.loads(Path("out/a_depth.mkv.json").read_text())
    lo, hi = facts["encoding"]["lo"], facts["encoding"]["hi"]
    with av.open("out/a_depth.mkv") as video:
        codes = [frame.to_ndarray(format="gray16le").astype(np.float64) for frame in video.decode(video=0)]
    for code, values in zip(codes, depths()):
        inside = (values > lo) & (values < hi)
        assert inside.mean() > 0.8
        assert np.abs(lo + code / 65535 * (hi - lo) - values)[inside].max() <= (hi - lo) / 65535


def test_frames_of_png16_are_read_back_as_pictures_are(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    run(job(formats=("png16", "npz")))
    code = json.loads(Path("out/a_depth_png.json").read_text())["encoding"]
    for path, values in zip(sorted(Path("out/a_depth_png").glob("*.png")), depths()):
        depth = read_depth(path)
        assert np.abs(depth.values - np.clip(values, code["lo"], code["hi"])).max() <= (code["hi"] - code["lo"]) / 65535
        assert depth.kind.value == "relative_disparity"


def test_metric_depth_is_in_millimetres_and_its_colours_in_the_named_range(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    row = find_row("metric-indoor-vits")
    assert run(job(formats=("png16", "npz", "mp4"), look=Look(range=(0.0, 4.0))), Fake(row)).status == DONE
    for path, values in zip(sorted(Path("out/a_depth_png").glob("*.png")), depths()):
        assert np.abs(read_depth(path).values - values).max() <= 0.0006
        assert np.asarray(Image.open(path)).max() == round(float(values.max()) * 1000)
    facts = json.loads(Path("out/a_depth.mp4.json").read_text())
    assert (facts["encoding"]["lo"], facts["encoding"]["hi"], facts["units"]) == (0, 4, "m")


def test_times_rate_and_sound_are_the_clips(tmp_path):
    make_clip(Path("a.mp4"), frames=24, sound="aac", rate=Fraction(24))
    assert run(job(formats=("mp4", "side"))).status == DONE
    for name in ("a_depth.mp4", "a_depth_side.mp4"):
        with av.open(f"out/{name}") as video:
            assert len(video.streams.audio) == 1 and video.streams.video[0].average_rate == 24
            times = [frame.pts * frame.time_base for frame in video.decode(video=0)]
        assert times == [Fraction(index, 24) for index in range(24)]


def test_a_rate_that_varies_is_kept(tmp_path):
    times = [Fraction(n, 30) for n in (0, 1, 2, 6, 7, 12)]
    make_clip(Path("a.mp4"), frames=6, times=times, time_base=Fraction(1, 30), rate=Fraction(30))
    run(job(formats=("mp4",)))
    with av.open("out/a_depth.mp4") as video:
        assert [frame.pts * frame.time_base for frame in video.decode(video=0)] == times


def test_side_shows_each_frame_beside_its_own_depth(tmp_path):
    make_clip(Path("a.mp4"), frames=6)
    run(job(formats=("side",)))
    with av.open("out/a_depth_side.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [number(frame[:, : SIZE[0]]) for frame in frames] == list(range(6))
    assert frames[0].shape == (SIZE[1], 2 * SIZE[0], 3)


def test_frames_of_a_folder_keep_their_numbers(tmp_path):
    Path("shot").mkdir()
    for index in (1001, 1002, 1004, 1010):
        Image.fromarray(scene(index % 10)).save(f"shot/v2.{index}.png")
    run(job("shot", ("npz",), selection=Selection(start=Fraction(1, 24))))
    names = sorted(path.name for path in Path("out/a_depth_npz").iterdir())
    assert names == ["frame_001002.npz", "frame_001004.npz", "frame_001010.npz"]
    Image.fromarray(scene(5)).save("shot/v2.1005.png")
    run(job("shot", ("npz",)))
    assert len(list(Path("out/a_depth_npz").iterdir())) == 5


def test_a_selection_is_what_is_run(tmp_path):
    make_clip(Path("a.mp4"), frames=12, rate=Fraction(12))
    fake = Fake()
    run(job(formats=("mp4",), selection=Selection(start=Fraction(1, 4), stride=2, max_frames=3)), fake)
    assert [index for index, _ in fake.log] == [3, 5, 7]
    with av.open("out/a_depth.mp4") as video:
        assert video.streams.video[0].average_rate == 6 and len(list(video.decode(video=0))) == 3


def test_a_new_shot_is_told_to_the_model(tmp_path):
    Path("frames").mkdir()
    for index in range(8):
        shot = np.random.default_rng(index // 4).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(shot).resize((64, 48), Image.Resampling.NEAREST).save(f"frames/{index}.png")
    for scenes, cuts in ((True, [4]), (False, [])):
        fake = Fake()
        run(job("frames", folder=f"out-{scenes}", clip=ClipChoice(scenes=scenes)), fake)
        assert [place for place, (_, cut) in enumerate(fake.log) if cut] == cuts


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_what_could_be_read_of_a_damaged_clip_is_done_and_said(tmp_path):
    make_clip(Path("whole.mkv"), frames=40, options={"crf": "4", "preset": "ultrafast", "g": "4"})
    whole = Path("whole.mkv").read_bytes()
    Path("a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    result = run(job("a.mkv", ("mp4", "npz")))
    assert (result.status, result.code) == (FAILED, 3) and "the depth of what could be read is there" in result.error
    with av.open("out/a_depth.mp4") as video:
        done = len(list(video.decode(video=0)))
    assert 0 < done < 40 and len(depths()) == done
    facts = json.loads(Path("out/a_depth.mp4.json").read_text())
    assert "truncated" in facts["damage"] and facts["min"] < facts["max"]


@pytest.mark.parametrize("where", ["video", "audio"])
def test_a_damaged_clip_keeps_its_sound(tmp_path, where):
    make_clip(Path("a.ts"), frames=48, sound="aac", rate=Fraction(24), container="mpegts")
    noisy(Path("a.ts"), where, 3)
    result = run(job("a.ts", ("mp4", "ffv1")))
    assert (result.status, result.code) in ((FAILED, 3), (DONE, 0))
    for path in ("out/a_depth.mp4", "out/a_depth.mkv"):
        assert max(time for time, _ in packets(Path(path))) == pytest.approx(2, abs=0.1)
    assert ".part" not in result.error + "".join(result.notes)


def test_what_a_film_cannot_hold_is_named_once(tmp_path):
    rich_clip(Path("a.mkv"), subtitles=True)
    said = []
    result = run(job("a.mkv", ("mp4", "side", "hevc10", "prores")), said=said)
    notes = [f"{name} cannot hold subrip subtitles, which were left out" for name in ("mp4", "mov")]
    assert list(result.notes) == notes
    assert [line for line in said if "subtitles" in line] == [f"a.mkv: {note}" for note in notes]
    assert {timecode_of(path) for path in Path("out").glob("*.m*[4v]")} == {"01:00:00:00"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_device_is_no_place_for_results(tmp_path):
    os.mkfifo("pipe.mp4")
    for place in ("pipe.mp4", "/dev/null", "/dev/null/a.mp4"):
        with pytest.raises(UsageError, match="is not a file or folder"):
            ClipJob("a.mp4", [("mp4", Path(place))])


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_clip_fails_before_a_model_is_loaded(tmp_path, content):
    Path("a.mp4").write_bytes(content)

    def load():
        raise AssertionError("not needed")

    (result,) = run_clip(job(), load)
    assert result.status == FAILED and result.code == 1 and "a.mp4" in result.error
    assert not Path("out").exists()


def test_a_selection_beyond_the_end_says_so_and_leaves_nothing(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    result = run(job(selection=Selection(start=60)))
    assert result.status == FAILED and "a.mp4 has no frame that was asked for" in result.error
    assert tree("out") == {} and not list(Path("out").glob(".*"))


def test_an_answer_that_is_broken_fails_the_clip_and_keeps_what_came_before(tmp_path):
    make_clip(Path("a.mp4"), frames=12)

    class Broken(Fake):
        def postprocess(self, answer):
            if self.settled == 7:
                raise EngineError("the network's answer holds NaN or infinity", "use --precision fp32")
            return super().postprocess(answer)

    assert "NaN" in run(job(), Broken()).error
    said: list[str] = []
    fake = Fake()
    assert run(job(), fake, said=said).status == DONE
    assert len(fake.log) < 12 and any("resumed after frame" in line for line in said)


def test_a_full_disk_is_raised_and_the_work_goes_on_later(tmp_path, monkeypatch):
    make_clip(Path("a.mp4"), frames=12)
    with monkeypatch.context() as patch:

        def full(path, need):
            raise DiskFullError("making the depth takes about 3 GB", "free some")

        patch.setattr(module, "check_disk", full)
        with pytest.raises(DiskFullError):
            run(job())
    assert run(job()).status == DONE


def test_what_is_there_is_not_done_again(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    assert run(job(formats=("mp4",))).status == DONE
    assert run(job(formats=("mp4",))) == Result("a.mp4", ("out/a_depth.mp4",), SKIPPED)
    assert "made with other options" in run(job(formats=("mp4",), look=Look("turbo"))).warnings[0]
    assert run(job(formats=("mp4",), if_exists="error")).error == "out/a_depth.mp4 is there already"
    assert run(job(formats=("mp4", "ffv1"), if_exists="error")).status == FAILED
    assert run(job(formats=("mp4", "ffv1"))).status == DONE  # a format more
    with pytest.raises(UsageError, match="would replace the clip"):
        ClipJob(Path("a.mp4"), [("mp4", Path("a.mp4"))])


def test_a_result_of_another_clip_or_of_nobody_is_not_taken_for_ones_own(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    Path("other").mkdir()
    make_clip(Path("other/a.mp4"), frames=4)  # of the same name
    assert run(job(formats=("mp4",))).status == DONE
    for formats in (("mp4",), ("mp4", "ffv1")):
        assert "is of another clip, a.mp4" in run(job("other/a.mp4", formats)).error
    assert run(job("other/a.mp4", ("mp4",), if_exists="overwrite")).status == DONE
    Path("out/a_depth.mp4.json").unlink()  # as a stranger's file
    content = Path("out/a_depth.mp4").read_bytes()
    assert "does not say what it was made of" in run(job(formats=("mp4",))).error
    assert Path("out/a_depth.mp4").read_bytes() == content


def test_a_clip_that_has_changed_is_done_anew(tmp_path):
    make_clip(Path("a.mp4"), frames=3)
    assert run(job()).status == DONE
    make_clip(Path("a.mp4"), frames=5)
    assert run(job()).status == DONE and len(depths()) == 5
    make_clip(Path("a.mp4"), frames=2)
    assert run(job()).status == DONE and len(depths()) == 2  # and none of the longer one is left


def test_a_clip_that_changes_during_the_work_is_no_result(tmp_path):
    make_clip(Path("a.mp4"), frames=12)
    events = run_clip(job(formats=("mp4", "side")), Fake)
    for _ in range(5):
        next(events)
    make_clip(Path("new.mp4"), frames=6)
    Path("new.mp4").replace("a.mp4")
    *_, result = events
    assert result.status == FAILED and "has changed while it was read" in result.error
    assert not list(Path("out").glob("*.mp4"))
    assert run(job(formats=("mp4", "side"))).status == DONE


def touch(path: Path | str) -> None:
    """Give a file another time of change, as backup and sync tools do."""
    os.utime(path, ns=(1, 1))


def make_frames(folder: Path | str, count: int, first: int = 0) -> None:
    Path(folder).mkdir(exist_ok=True)
    for index in range(first, first + count):
        Image.fromarray(scene(index)).save(f"{folder}/{index:02}.png")


def change_during(clip_job: ClipJob, change, predictor=None) -> Result:
    """Run a job, with a change of the world after the fifth frame."""
    predictor = predictor or Fake()
    events = run_clip(clip_job, lambda: predictor)
    for _ in range(5):
        next(events)
    change()
    *_, result = events
    return result


def grow(path: str) -> None:
    with open(path, "ab") as stream:
        stream.write(b"\0" * 500)


def test_a_clip_that_is_touched_during_the_work_is_done(tmp_path):
    make_clip(Path("a.mp4"), frames=12)
    assert run(replace(job(formats=FORMATS), outputs=job(formats=FORMATS, folder="whole").outputs)).status == DONE
    result = change_during(job(formats=FORMATS), lambda: touch("a.mp4"))
    assert (result.status, result.warnings) == (DONE, ())
    assert tree("out") == tree("whole")
    touch("a.mp4")
    assert run(job(formats=FORMATS)).status == SKIPPED


def test_what_comes_into_a_folder_of_frames_and_is_no_frame_does_not_count(tmp_path):
    make_frames("shot", 12)
    result = change_during(job("shot", folder="shot"), lambda: Path("shot/notes.txt").write_text("of today"))
    assert (result.status, result.warnings) == (DONE, ())
    assert run(job("shot", folder="shot")).status == SKIPPED  # though its results are in it now
    for path in Path("shot").glob("*.png"):
        touch(path)
    assert run(job("shot", folder="shot")).status == SKIPPED
    touch("shot/03.png")
    Image.fromarray(scene(30)).save("shot/03.png")
    assert run(job("shot", folder="shot")).status == DONE


def test_frames_that_are_still_coming_are_made_by_the_next_run(tmp_path):
    make_frames("shot", 8)
    result = change_during(job("shot"), lambda: make_frames("shot", 4, first=8))
    assert result.status == DONE and "has grown since it was opened" in result.warnings[0] and len(depths()) == 8
    assert run(job("shot")).status == DONE and len(depths()) == 12
    assert run(job("shot")).status == SKIPPED


def test_a_file_that_grows_is_done_as_far_as_it_was_and_again_later(tmp_path):
    make_clip(Path("a.mkv"), frames=12)
    result = change_during(job("a.mkv"), lambda: grow("a.mkv"))
    assert result.status == DONE and "has grown since it was opened" in result.warnings[0] and len(depths()) == 12
    fake = Fake()
    run(job("a.mkv"), fake)
    assert len(fake.log) == 12


@pytest.mark.parametrize("piece", [0, 12345, 200_000, 399_999])
def test_a_change_of_one_byte_of_a_small_part_is_another_content(tmp_path, piece):
    Path("a").write_bytes(bytes(range(256)) * 1600)
    before = ClipFiles.of(Path("a"))
    identity = before.identity
    assert before.compare() == SAME
    data = bytearray(Path("a").read_bytes())
    places = [start for start, length in pieces(len(data)) if start <= piece < start + length]
    data[piece] ^= 255
    Path("a").write_bytes(data)
    touch("a")
    assert before.compare() == (CHANGED if places else SAME)
    assert (ClipFiles.of(Path("a")).identity != identity) == bool(places)


def test_a_clip_that_goes_during_the_work_loses_nothing(tmp_path):
    make_clip(Path("a.mp4"), frames=12, sound="aac")
    result = change_during(job(formats=("mp4",)), lambda: Path("a.mp4").rename("b.mp4"))
    assert result.status == DONE and result.warnings == ("the clip is gone since it was read, so there is no sound",)
    Path("b.mp4").rename("a.mp4")
    assert run(job(formats=("mp4",))).status == SKIPPED
    result = change_during(job(formats=("side",)), lambda: Path("a.mp4").rename("b.mp4"))
    assert result.status == FAILED and "a.mp4 is gone" in result.error and "is kept" in result.error
    Path("b.mp4").rename("a.mp4")
    fake = Fake()
    assert run(job(formats=("side",)), fake).status == DONE and fake.log == []


def test_a_folder_of_frames_that_goes_during_the_work_goes_on_under_another_name(tmp_path):
    make_frames("shot", 20)
    assert run(job("shot", folder="whole")).status == DONE
    result = change_during(job("shot"), lambda: Path("shot").rename("moved"))
    assert result.status == FAILED and result.code == 1 and "shot is gone" in result.error
    said: list[str] = []
    fake = Fake()
    assert run(job("moved"), fake, said=said).status == DONE
    assert "resumed after frame" in "".join(said) and 0 < len(fake.log) < 20
    assert tree("out/a_depth_npz").keys() == tree("whole/a_depth_npz").keys()
    assert all(np.array_equal(new, old) for new, old in zip(depths(), depths("whole")))


def test_results_that_move_with_their_clip_are_its_own(tmp_path):
    Path("clips").mkdir()
    make_clip(Path("clips/a.mp4"), frames=8)
    assert run(job(Path("clips/a.mp4"), folder="clips/out")).status == DONE
    assert run(job(Path("clips/a.mp4"), folder="clips/whole"), stop=after(6)) is None
    Path("clips").rename("moved")
    assert run(job(Path("moved/a.mp4"), folder="moved/out")).status == SKIPPED
    said: list[str] = []
    assert run(job(Path("moved/a.mp4"), folder="moved/whole"), said=said).status == DONE
    assert "resumed after frame" in "".join(said)
    assert tree("moved/whole") == tree("moved/out")
    make_clip(Path("moved/a.mp4"), frames=5)  # it changes, and is still what these results are of
    assert run(job(Path("moved/a.mp4"), folder="moved/out")).status == DONE and len(depths("moved/out")) == 5


def as_made_before(path: str, source: Path) -> None:
    """Write a sidecar's `made_of` as the versions before did."""
    files = sorted(item for item in source.iterdir() if item.is_file()) if source.is_dir() else [source]
    facts = [(item.name, item.stat().st_size, item.stat().st_mtime_ns) for item in files]
    place, what = os.fsencode(os.path.realpath(source)), repr(facts).encode()
    old = {"name": source.name, **{k: sha256(v).hexdigest()[:16] for k, v in (("place", place), ("what", what))}}
    Path(path).write_text(json.dumps({**json.loads(Path(path).read_text()), "made_of": old}))


def test_sidecars_of_earlier_versions_are_understood(tmp_path):
    Path("clips").mkdir()
    make_clip(Path("clips/a.mp4"), frames=4)
    mine = job(Path("clips/a.mp4"))
    assert run(mine).status == DONE
    as_made_before("out/a_depth_npz.json", Path("clips/a.mp4"))
    assert run(mine).status == SKIPPED
    Path("clips").rename("moved")
    moved = job(Path("moved/a.mp4"))
    assert run(moved).status == SKIPPED
    Path("moved").rename("clips")
    touch("clips/a.mp4")
    assert run(mine).status == DONE  # it cannot be told from a change
    as_made_before("out/a_depth_npz.json", Path("clips/a.mp4"))
    Path("other").mkdir()
    make_clip(Path("other/a.mp4"), frames=5)
    assert "is of another clip, a.mp4" in run(job(Path("other/a.mp4"))).error


@pytest.mark.parametrize("sidecar", ["{}", "[]", "{", '{"made_of": 3}', '{"made_of": {"name": 1}}'])
def test_a_sidecar_that_is_none_of_ours_is_not_read_as_one(tmp_path, sidecar):
    make_clip(Path("a.mp4"), frames=3)
    run(job(formats=("mp4",)))
    Path("out/a_depth.mp4.json").write_text(sidecar)
    assert "does not say what it was made of" in run(job(formats=("mp4",))).error


class OddError(Exception):
    """Of a library that raises what it likes."""


@pytest.mark.parametrize(
    "error", [OddError("a lens of glass"), ValueError("bad\nlines"), RuntimeError(), OSError(5, "eye oh")]
)
@pytest.mark.parametrize("place", ["prepare", "feed", "postprocess", "begin", "finish"])
def test_whatever_a_library_raises_fails_the_clip_by_name(tmp_path, place, error):
    make_clip(Path("a.mp4"), frames=6)

    class Breaks(Fake):
        pass

    def broken(self, *_):
        raise error

    setattr(Breaks, place, broken)
    result = run(job(), Breaks())
    assert (result.status, result.code) == (FAILED, 1)
    assert "a.mp4" in result.error and type(error).__name__ in result.error and "\n" not in result.error
    assert run(job()).status == DONE


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, DiskFullError("full"), DeviceLostError("gone")])
def test_what_ends_every_clip_is_raised(tmp_path, error):
    make_clip(Path("a.mp4"), frames=6)

    class Breaks(Fake):
        def feed(self, prepared, cut):
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        run(job(), Breaks())


def test_a_model_that_does_not_load_is_raised_whatever_it_raises(tmp_path):
    make_clip(Path("a.mp4"), frames=6)

    def load():
        raise OddError("no such driver")

    with pytest.raises(OddError):
        list(run_clip(job(), load))


def test_results_of_two_models_are_not_mixed_unasked(tmp_path):
    make_clip(Path("a.mp4"), frames=6)
    make_clip(Path("b.mp4"), frames=6)
    other = Fake(find_row("vitb"))
    assert run(job()).status == DONE
    jobs = [job(), ClipJob("b.mp4", [("npz", Path("out/b_depth_npz"))])]
    check_models(jobs, Fake())
    with pytest.raises(UsageError, match=r"a_depth_npz was made by vits, and this run would take vitb.*`mix_models`"):
        check_models(jobs, other)
    check_models([replace(each, if_exists="overwrite") for each in jobs], other)
    assert run(jobs[1], stop=after(4)) is None
    with pytest.raises(UsageError, match=r"unfinished depth in out/\.b\.depthcli-spool was made by vits"):
        check_models(jobs[1:], other)
    other.row, other.weights = find_row("vits"), replace(WEIGHTS, sha256="1" * 64)
    with pytest.raises(UsageError, match="was made with other weights of vits"):
        check_models(jobs[:1], other)


def test_a_damaged_clip_stays_a_failure_until_it_is_whole(tmp_path):
    make_clip(Path("whole.mkv"), frames=40)
    whole = Path("whole.mkv").read_bytes()
    Path("a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    for _ in range(2):
        assert run(job("a.mkv")).code == 3
    Path("a.mkv").write_bytes(whole)
    assert run(job("a.mkv")).status == DONE and len(depths()) == 40


def test_a_sidecar_never_lies_beside_another_file(tmp_path, monkeypatch):
    make_clip(Path("a.mp4"), frames=3)
    run(job(formats=("mp4",)))
    old = Path("out/a_depth.mp4").read_bytes()

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("depthcli.host.atomic.os.fsync", lambda descriptor: killed(descriptor))
        with pytest.raises(KeyboardInterrupt):
            run(job(formats=("mp4",), look=Look("turbo"), if_exists="overwrite"))
    assert Path("out/a_depth.mp4").read_bytes() == old or not Path("out/a_depth.mp4").exists()
    assert run(job(formats=("mp4",), look=Look("turbo"), if_exists="overwrite")).status == DONE
    assert "colormap=turbo" in Path("out/a_depth.mp4.json").read_text()


def test_metres_that_sixteen_bits_cannot_hold_are_warned_of(tmp_path):
    make_clip(Path("a.mp4"), frames=2)

    class Far(Fake):
        def postprocess(self, answer):
            return super().postprocess(answer) + np.float32(70)

    result = run(job(formats=("ffv1",)), Far(find_row("metric-outdoor-vits")))
    assert "was clamped in ffv1" in result.warnings[0]
    assert run(job(formats=("exr",)), Far(find_row("metric-outdoor-vits"))).warnings == ()


# --- Interrupted and resumed ------------------------------------------------------------------------------------------

FORMATS = ("mp4", "side", "ffv1", "npz")


def same_files(predictor_of, frames: int, stops: Iterator[int]) -> int:
    """Run once through, and once with stops; return how often that was stopped. The files are the same."""
    make_clip(Path("a.mp4"), frames=frames)
    whole = replace(job(formats=FORMATS), outputs=job(formats=FORMATS, folder="whole").outputs)
    assert run(whole, predictor_of()).status == DONE
    stopped = 0
    while run(job(formats=FORMATS), predictor_of(), after(next(stops))) is None:
        stopped += 1
        assert tree("out").keys().isdisjoint({"a_depth.mp4", "a_depth.mkv"})
    assert tree("out") == tree("whole")
    return stopped


def test_stopped_again_and_again_it_ends_with_the_same_bytes(tmp_path):
    assert same_files(Fake, 30, iter([1, 4, 9, 11, 3, 17, 8, 25, 1000])) >= 4


def test_sequences_go_on_file_by_file(tmp_path):
    make_clip(Path("a.mp4"), frames=20)
    assert run(job(formats=("exr", "mp4")), stop=after(32)) is None  # 20 in the network and 12 written
    there = {path: path.stat().st_mtime_ns for path in Path("out/a_depth_exr").iterdir()}
    assert 5 < len(there) < 20
    assert run(job(formats=("exr", "mp4"))).status == DONE
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())
    assert len(list(Path("out/a_depth_exr").iterdir())) == 20
    whole = ClipJob("a.mp4", [("exr", Path("whole/a_depth_exr")), ("mp4", Path("whole/a_depth.mp4"))])
    run(whole)
    assert tree("out") == tree("whole")
    # Other options: nothing of what is there may stay.
    assert run(job(formats=("exr",), if_exists="overwrite"), stop=after(32)) is None
    assert run(job(formats=("exr",), look=Look(range=(0.0, 1.0)), if_exists="overwrite")).status == DONE
    facts = json.loads(Path("out/a_depth_exr.json").read_text())
    assert "range=(0.0, 1.0)" in facts["settings"]


def test_so_does_a_model_for_windows_of_frames(tmp_path):
    def predictor():
        return WindowByWindow(find_row("vda-vits").with_input_size(28), WEIGHTS, Backend(), exact=False)

    assert same_files(predictor, 60, iter([10, 40, 5, 25, 1000])) >= 3


def test_a_model_for_windows_gives_a_map_per_frame_and_encodes_each_once(tmp_path):
    make_clip(Path("a.mp4"), frames=45)
    backend = Backend()
    run(job(), WindowByWindow(find_row("vda-vits").with_input_size(28), WEIGHTS, backend, exact=True))
    found = depths()
    assert len(found) == 45 and backend.encoded == 45
    means = [float(values.mean()) for values in found]
    assert means == sorted(means)  # the band of every frame is brighter than the one before


def test_shots_shorter_than_a_window_are_kept_too(tmp_path):
    Path("frames").mkdir()
    for index in range(60):
        shot = np.random.default_rng(index // 12).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(shot).resize((64, 48), Image.Resampling.NEAREST).save(f"frames/{index:02}.png")

    def predictor():
        return WindowByWindow(find_row("vda-vits").with_input_size(28), WEIGHTS, Backend(), exact=False)

    whole = replace(job("frames"), outputs=job("frames", folder="whole").outputs)
    assert run(whole, predictor()).status == DONE
    assert run(job("frames"), predictor(), after(40)) is None
    assert len(list(Path("out").glob(".*/shard_*"))) >= 2  # of shots, none of which filled a window
    said: list[str] = []
    assert run(job("frames"), predictor(), said=said).status == DONE
    assert "resumed after frame 36" in "".join(said)
    assert tree("out") == tree("whole")


def test_touched_moved_and_joined_by_files_between_the_runs_it_goes_on_to_the_same_bytes(tmp_path):
    make_clip(Path("a.mp4"), frames=20)
    make_frames("shot", 20)
    for source in ("a.mp4", "shot"):
        clip = job(source, FORMATS[-1:] if source == "shot" else FORMATS, folder=f"out-{source}")
        assert (
            run(replace(clip, outputs=job(source, clip_formats(clip), folder=f"whole-{source}").outputs)).status == DONE
        )
        changes = iter([lambda: touch("a.mp4"), lambda: touch("shot/02.png"), lambda: Path("shot/x.txt").touch()])
        for stop in (4, 7, 5):
            assert run(clip, stop=after(stop)) is None
            next(changes)()
        said: list[str] = []
        assert run(clip, said=said).status == DONE
        assert "resumed after frame" in "".join(said) and "is not used" not in "".join(said)
        assert tree(f"out-{source}") == tree(f"whole-{source}")


def clip_formats(clip: ClipJob) -> tuple[str, ...]:
    return tuple(name for name, _ in clip.outputs)


def test_work_of_another_kind_begins_anew_and_says_in_what_it_differs(tmp_path):
    make_clip(Path("b.mp4"), frames=9)
    for change, words in (
        (lambda fake: (job(clip=ClipChoice(scenes=False)), fake), "other options"),
        (lambda fake: (job(selection=Selection(stride=2)), fake), "other options"),
        (lambda fake: (job(clip=ClipChoice(steady="off")), fake), "other options"),
        (lambda fake: (job(), Fake(find_row("vitb"))), "another model"),
        (lambda fake: (replace(job(), source="b.mp4"), fake), "other frames"),
        (lambda fake: (job(formats=("mp4",)), fake), "other options"),
    ):
        make_clip(Path("a.mp4"), frames=12)
        assert run(job(if_exists="overwrite"), stop=after(10)) is None
        said: list[str] = []
        changed, fake = change(Fake())
        assert run(replace(changed, if_exists="overwrite"), fake, said=said).status == DONE
        assert any(f"what was left of a run with {words} is not used" in line for line in said), said
        assert len(fake.log) >= 5


@pytest.mark.parametrize(
    "choices",
    [
        {"model": ModelChoice(encoder="vits")},
        {"clip": ClipChoice(backend=BackendChoice(precision="exact"))},
        {"model": ModelChoice(model="vits"), "clip": ClipChoice(backend=BackendChoice("torch"))},
    ],
)
def test_other_words_for_the_same_model_go_on(tmp_path, choices):
    make_clip(Path("a.mp4"), frames=12)
    assert run(job(), stop=after(10)) is None
    said: list[str] = []
    assert run(job(**choices), said=said).status == DONE
    assert any("resumed after frame" in line for line in said)


def test_an_engine_that_differs_begins_anew(tmp_path):
    make_clip(Path("a.mp4"), frames=12)
    assert run(job(), stop=after(10)) is None
    other = Fake()
    other.description = "fake 2 gpu fp16"
    said: list[str] = []
    assert run(job(), other, said=said).status == DONE
    assert any("of a run with another backend is not used" in line for line in said)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_disk_without_locks_is_said_and_worked_on(tmp_path, code):
    make_clip(Path("a.mp4"), frames=4)
    said: list[str] = []
    with failing("flock", code, where="depthcli-spool"):
        assert run(job(), said=said).status == DONE
    assert said.count(module.NO_LOCKS) == 1


def test_the_spool_of_a_stream_has_a_name_for_it_alone(tmp_path):
    streams = [ClipJob("-", [("npz", Path("out/stdin_depth_npz"))]) for _ in range(2)]
    first, second = (stream.spool_folder for stream in streams)
    assert first != second and first == streams[0].spool_folder and first.parent == Path("out")
    assert str(os.getpid()) not in first.name.split("-")


# --- Streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pipe", "value_range"), [("y4m", None), ("rgb24", (0.0, 3.0)), ("gray16le", None)])
def test_a_stream_gives_every_frame_in_order(tmp_path, pipe, value_range):
    make_clip(Path("a.mp4"), frames=40)
    target = io.BytesIO()
    events = list(stream_clip(job(formats=(), look=Look(range=value_range)), pipe, Fake, target))
    assert isinstance(events[-1], Result) and events[-1].status == DONE
    data = target.getvalue()
    if pipe == "y4m":
        assert data.startswith(f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F{RATE.numerator}:{RATE.denominator}".encode())
        assert data.count(b"FRAME\n") == 40
    else:
        bytes_per_pixel = {"rgb24": 3, "gray16le": 2}[pipe]
        assert len(data) == 40 * SIZE[0] * SIZE[1] * bytes_per_pixel


def test_a_stream_of_a_damaged_clip_gives_all_that_could_be_read(tmp_path):
    make_clip(Path("whole.mkv"), frames=40)
    whole = Path("whole.mkv").read_bytes()
    Path("a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    target = io.BytesIO()
    *_, result = stream_clip(job("a.mkv", ()), "rgb24", Fake, target)
    assert result.code == 3 and "truncated" in result.error
    run(job("a.mkv"))
    assert len(target.getvalue()) == len(depths()) * SIZE[0] * SIZE[1] * 3 > 0


def test_a_stream_of_y4m_has_one_rate_whatever_the_clips(tmp_path):
    times = [Fraction(n, 30) for n in (0, 1, 2, 6, 7, 12)]
    make_clip(Path("a.mp4"), frames=6, times=times, time_base=Fraction(1, 30), rate=Fraction(30))
    target = io.BytesIO()
    *_, result = stream_clip(job(formats=()), "y4m", Fake, target)
    assert result.status == DONE and target.getvalue().count(b"FRAME\n") >= 6


def test_a_frame_by_frame_model_takes_what_depth_image_takes(tmp_path, tiny_weights, one_thread):
    from depthcli.predict.picture import DepthEstimator

    Path("frames").mkdir()
    for index in range(2):
        Image.fromarray(scene(index)).save(f"frames/{index}.png")
    with DepthEstimator("tiny", "torch", input_size=56) as estimator:
        wanted = [estimator.estimate(f"frames/{index}.png").values for index in range(2)]
        run(job("frames"), FrameByFrame(estimator, steady=False))
        assert all(np.array_equal(found, values) for found, values in zip(depths(), wanted))
        run(job("frames", folder="batched"), FrameByFrame(estimator, steady=False, batch=2))
    for found, values in zip(depths("batched"), wanted):
        assert np.abs(found - values).max() <= 1e-6 * values.max()
