"""From a list to scores: sizes, crops, limits, failures, means, and where saved predictions are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap, Provenance
from depthcli.errors import DiskFullError, EngineError, OutputError, PictureError, UsageError
from depthcli.eval.alignment import Alignment
from depthcli.eval.evaluate import Score, better_than_prior, evaluate, known_truth, mean, report
from depthcli.eval.lists import Entry
from depthcli.eval.metrics import Figures
from depthcli.eval.panels import error_panels
from depthcli.eval.predictions import SavedPredictions, parse_kind
from depthcli.eval.truth import Truth
from depthcli.io.codecs.files import write_depth
from depthcli.io.pictures.images import read_picture
from depthcli.pixels.colormap import color_table
from tests.conftest import photo

DISPARITY, METRES = DepthKind.RELATIVE_DISPARITY, DepthKind.METRIC_DEPTH
RANDOM = np.random.default_rng(7)
# 60 x 80: metres that rise and fall across the picture, not down it.
DEPTH = np.broadcast_to(3 + 2 * np.sin(np.arange(80) / 9), (60, 80)).astype(np.float32)


def entry(name: str = "a", number: int = 1, truth: np.ndarray | None = DEPTH, **facts) -> Entry:
    """An entry whose picture is 80 x 60 and whose truth is written as an NPY in metres."""
    photo(f"{name}.png")
    if truth is not None:
        np.save(f"{name}.npy", truth)
        facts = {"truth": Path(f"{name}.npy"), "format": "depth", **facts}
    return Entry(number, name, f"{name}.png", Path(f"{name}.png"), **facts)


def answer(values: np.ndarray, kind: DepthKind = DISPARITY):
    return lambda entry, picture: DepthMap(values, kind, Provenance(model="m", sha256="ab"))


def score(entry: Entry, values: np.ndarray, kind: DepthKind = DISPARITY, **options) -> Score:
    (found,) = evaluate([entry], answer(values, kind), **options)
    return found


class TestScores:
    def test_the_truth_itself_scaled_and_shifted_is_perfect(self):
        found = score(entry(), 9 / DEPTH - 1)
        figures = found.figures
        assert figures.abs_rel == pytest.approx(0, abs=1e-6) and figures.delta1 == 1
        assert figures.spearman == pytest.approx(1, abs=1e-6) and figures.prior == pytest.approx(0, abs=1e-9)
        assert figures.pairs is None
        assert (found.known, found.elements, found.error) == (4800, 4800, "")
        assert found.alignment.scale == pytest.approx(1 / 9) and found.provenance.model == "m"

    def test_metres_are_compared_as_they_are(self):
        found = score(entry(), DEPTH * 2, METRES)
        assert found.figures.abs_rel == pytest.approx(1) and found.figures.spearman == pytest.approx(1)
        assert found.figures.rmse == pytest.approx(float(np.sqrt((DEPTH.astype(float) ** 2).mean())))
        assert found.alignment == Alignment("none")
        assert score(entry(), DEPTH * 2, METRES, alignment="median").figures.abs_rel == pytest.approx(0, abs=1e-6)

    def test_a_prediction_turned_over_fits_but_is_marked_and_its_rank_is_negative(self):
        found = score(entry(), -1 / DEPTH)
        assert found.figures.abs_rel == pytest.approx(0, abs=1e-6)
        assert found.alignment.turned_over and found.figures.spearman == pytest.approx(-1)

    def test_a_constant_prediction_has_rank_nought(self):
        found = score(entry(), np.ones((60, 80)))
        assert found.figures.spearman == 0 and found.alignment.scale == 0 and found.figures.abs_rel > 0.1

    def test_a_permuted_prediction_is_worse_than_a_constant_at_ranks_and_no_better_at_errors(self):
        permuted = RANDOM.permutation((1 / DEPTH).ravel()).reshape(60, 80)
        found, flat = score(entry(), permuted), score(entry(), np.ones((60, 80)))
        assert abs(found.figures.spearman) < 0.1
        assert found.figures.rmse_log == pytest.approx(flat.figures.rmse_log, rel=0.02)

    def test_a_floor_is_what_its_prior_says(self):
        floor = np.repeat((30 / np.arange(1, 61))[:, None], 80, axis=1)
        found = score(entry(truth=floor), RANDOM.random((60, 80)))
        assert found.figures.prior == pytest.approx(1)
        assert score(entry(truth=floor[::-1]), RANDOM.random((60, 80))).figures.prior == pytest.approx(-1)

    def test_disparity_has_no_errors_in_metres(self):
        found = score(entry(truth=50 / DEPTH, format="disparity"), 1 / DEPTH)
        assert (found.figures.sq_rel, found.figures.rmse) == (None, None)
        assert found.figures.abs_rel == pytest.approx(0, abs=1e-6) and found.figures.spearman == pytest.approx(1)


class TestWhatCounts:
    def test_only_what_is_known_and_inside_crop_and_limits(self):
        truth = np.full((60, 80), 99.0)
        truth[10:30, 20:60] = DEPTH[10:30, 20:60]
        truth[10, 20:30] = np.nan
        truth[11, 20:30] = 50
        prediction = np.where(truth == DEPTH, 1 / DEPTH, RANDOM.random((60, 80)))
        found = score(entry(truth=truth, crop=(10, 20, 30, 60), max_depth=20), prediction)
        assert (found.known, found.elements) == (20 * 40 - 20, 20 * 40)
        assert found.figures.spearman == pytest.approx(1) and found.figures.abs_rel == pytest.approx(0, abs=1e-6)
        assert score(entry(truth=truth, crop=(10, 20, 31, 60), max_depth=200), prediction).figures.spearman < 1

    def test_limits_belong_to_the_truth(self):
        found = score(entry(min_depth=2, max_depth=4), 1 / DEPTH)
        assert found.known == int(((DEPTH >= 2) & (DEPTH <= 4)).sum())

    def test_a_prediction_of_another_size_is_brought_to_the_truths(self):
        ramp = np.linspace(1, 2, 80)[None].repeat(60, axis=0)
        small = np.linspace(1, 2, 20)[None].repeat(15, axis=0)
        assert score(entry(truth=1 / ramp), small).figures.abs_rel == pytest.approx(0, abs=1e-6)
        assert score(entry(truth=(1 / ramp)[::2, ::2]), ramp).figures.abs_rel < 1e-2

    def test_pairs_are_places_in_the_picture(self):
        near, far = (5, 40), (5, 14)
        assert DEPTH[near] < DEPTH[far]
        pairs = ((near, far), (near, far), (far, near), (near, near))
        small = (1 / DEPTH)[::2, ::2]
        for values, kind in ((1 / DEPTH, DISPARITY), (DEPTH, METRES), (small, DISPARITY)):
            found = score(entry(truth=None, pairs=pairs), values, kind)
            assert found.figures == Figures(pairs=0.5) and found.pairs == 4 and found.alignment is None
        assert score(entry(pairs=pairs[:1]), 1 / DEPTH).figures.pairs == 1


@pytest.mark.parametrize(
    ("facts", "values", "code", "message"),
    [
        ({"truth": DEPTH[:, :40]}, DEPTH, 1, "the truth is 40x60 and the picture 80x60"),
        ({}, DEPTH[:30], 1, "the prediction is 80x30"),
        ({"crop": (0, 0, 61, 80)}, DEPTH, 1, "reaches beyond the truth's 60 rows and 80 columns"),
        ({"pairs": (((0, 0), (60, 0)),)}, DEPTH, 1, "leaves the picture of 80x60"),
        ({"pairs": (((0, 80), (0, 0)),)}, DEPTH, 1, "leaves the picture of 80x60"),
        ({"truth": DEPTH * np.nan}, DEPTH, 1, "knows 0 elements"),
        ({"min_depth": 900}, DEPTH, 1, "knows 0 elements"),
    ],
)
def test_what_does_not_fit_together_is_refused(facts, values, code, message):
    found = score(entry(**facts), values)
    assert found.code == code and message in found.error and "\n" not in found.error
    assert found.figures == Figures()


def test_a_failure_does_not_stop_the_others():
    def predict(entry, picture):
        if entry.name == "b":
            raise EngineError("the network's answer\nholds NaN")
        if entry.name == "c":
            raise MemoryError
        return DepthMap(1 / DEPTH, DISPARITY)

    entries = [entry(name, number) for number, name in enumerate("abcde", 1)]
    Path("d.png").unlink()
    found = list(evaluate(entries, predict))
    assert [one.code for one in found] == [0, 5, 1, 1, 0]
    assert found[1].error == "the network's answer holds NaN"
    assert "memory" in found[2].error and "d.png does not exist" in found[3].error


def test_a_truth_that_is_missing_costs_no_forward_pass():
    def never(entry, picture):
        raise AssertionError

    one = entry()
    Path("a.npy").unlink()
    (found,) = evaluate([one], never)
    assert "a.npy does not exist" in found.error


class TestMeans:
    def test_over_the_pictures_that_have_a_figure(self):
        found = mean(
            [
                Score(entry("a"), Figures(abs_rel=0.1, rmse=3, spearman=0.5, prior=0.6)),
                Score(entry("b"), Figures(abs_rel=0.3, spearman=0.9, prior=0.6)),
                Score(entry("c"), error="gone", code=1),
            ]
        )
        assert found == Figures(abs_rel=pytest.approx(0.2), rmse=3, spearman=pytest.approx(0.7), prior=0.6)

    def test_pairs_count_one_by_one(self):
        scores = [Score(entry("a"), Figures(pairs=1.0), pairs=1), Score(entry("b"), Figures(pairs=0.5), pairs=8)]
        assert mean(scores).pairs == pytest.approx(5 / 9)

    def test_of_nothing(self):
        assert mean([]) == Figures()

    def test_better_than_the_prior(self):
        def ranked(spearman, prior):
            return Score(entry(), Figures(spearman=spearman, prior=prior))

        assert better_than_prior([ranked(0.5, 0.4), ranked(0.4, 0.4), ranked(None, 0.1), ranked(0.1, None)]) == (1, 2)


def test_the_report_holds_everything():
    entries = [entry("a"), entry("b", 2, truth=50 / DEPTH, format="disparity"), entry("c", 3)]
    Path("c.png").unlink()
    found = report(list(evaluate(entries, answer(-1 / DEPTH))), "auto", {"model": "m"})
    assert found["schema"] == "depthcli-eval/1" and found["source"] == {"model": "m"}
    assert found["protocol"].startswith("scale-shift: ") and found["align"] == "auto"
    assert found["summary"] == {"done": 2, "failed": 1, "total": 3, "interrupted": False}
    assert (found["pictures_in_mean"]["rmse"], found["pictures_in_mean"]["abs_rel"]) == (1, 2)
    assert (found["better_than_prior"], found["compared_with_prior"]) == (0, 2)
    first, second, third = found["pictures"]
    assert (first["name"], first["picture"], first["entry"]) == ("a", "a.png", 1)
    assert first["turned_over"] is True and first["scale"] == pytest.approx(-1)
    assert (first["known"], first["kind"], first["weights_sha256"]) == (4800, "relative_disparity", "ab")
    assert second["scale"] == pytest.approx(-50) and second["rmse"] is None
    assert third["exit_code"] == 1 and "c.png" in third["error"] and third["abs_rel"] is third["scale"] is None


def test_a_report_of_some_says_that_it_was_interrupted():
    found = report(list(evaluate([entry()], answer(1 / DEPTH))), "auto", {}, total=3)
    assert found["summary"] == {"done": 1, "failed": 0, "total": 3, "interrupted": True}


def test_a_report_of_failures_says_that_nothing_was_aligned():
    found = report(list(evaluate([entry()], answer(DEPTH[:30]))), "auto", {})
    assert found["protocol"].startswith("nothing was aligned")


class TestKnownTruth:
    def test_it_has_its_full_size_and_is_unknown_outside_crop_and_limits(self):
        found = known_truth(entry(crop=(10, 20, 30, 60), min_depth=2, max_depth=4), (80, 60))
        counts = np.zeros(DEPTH.shape, bool)
        counts[10:30, 20:60] = True
        counts &= (DEPTH >= 2) & (DEPTH <= 4)
        assert found.metres and np.array_equal(found.known, counts)
        assert np.array_equal(found.values[counts], DEPTH[counts])

    def test_without_crop_and_limits_it_is_what_the_file_holds(self):
        assert np.array_equal(known_truth(entry(), (160, 120)).values, DEPTH)
        assert known_truth(entry(truth=None), (80, 60)) is None

    def test_another_view_is_refused(self):
        with pytest.raises(PictureError, match="the truth is 80x60 and the picture 60x80"):
            known_truth(entry(), (60, 80))


def test_too_little_memory_has_a_way_out_that_there_is():
    """Whatever predicts: saved predictions have no input size to make smaller."""

    def short(*_):
        raise MemoryError

    (found,) = evaluate([entry()], short)
    assert found.code == 1 and "not enough memory" in found.error
    assert "smaller pictures" in found.error and "--input-size" not in found.error


class TestErrorPictures:
    def test_four_panels_with_the_unknown_in_black(self):
        depth = np.array([[1.0, 2.0, 4.0]])
        grey = np.full((1, 3, 3), 128, np.uint8)
        panels = error_panels(grey, np.array([[1.0, 3.0, 9.0]]), Truth(np.array([[1.0, 2.0, np.nan]]), METRES))
        assert panels.shape == (1, 12, 3) and panels.dtype == np.uint8
        left, prediction, truth, error = np.split(panels[0], 4)
        near, far = color_table("Spectral_r")[[255, 0]]
        assert (left == 128).all()
        assert (truth == [near, far, [0, 0, 0]]).all()
        assert (prediction == [near, far, far]).all()  # farther than the truth's range is its end
        assert (error == [*color_table("plasma")[[0, 255]], [0, 0, 0]]).all()
        same = error_panels(grey, depth, Truth(depth, METRES))
        assert (same[:, 3:6] == same[:, 6:9]).all()

    def test_one_file_for_each_picture_of_the_cropped_size(self):
        entries = [entry(crop=(0, 10, 50, 40)), entry("b", 2, truth=None, pairs=(((0, 0), (1, 1)),))]
        assert not [one.error for one in evaluate(entries, answer(1 / DEPTH), errors=Path("new/out")) if one.error]
        assert [path.name for path in Path("new/out").iterdir()] == ["a_error.png"]
        picture = read_picture(Path("new/out/a_error.png")).rgb
        assert picture.shape == (50, 4 * 30, 3)
        assert (picture[:, :30] == read_picture(Path("a.png")).rgb[:50, 10:40]).all()

    def test_a_full_disk_ends_it(self, monkeypatch):
        def full(*_):
            raise DiskFullError("no space")

        monkeypatch.setattr("depthcli.eval.panels.write_panels", full)
        with pytest.raises(DiskFullError):
            list(evaluate([entry()], answer(1 / DEPTH), errors=Path("out")))


class TestSavedPredictions:
    def read(self, *entries: Entry, kind: DepthKind | None = None) -> DepthMap:
        return SavedPredictions(Path("out"), entries, kind)(entries[0], None)

    @pytest.fixture(autouse=True)
    def out(self):
        Path("out/sub").mkdir(parents=True)

    @pytest.mark.parametrize("name", ["a_depth.npz", "a.npz", "a_depth_gray.png", "a_depth.png", "a.png", "sub/a.npz"])
    def test_our_own_files_say_what_they_hold(self, name):
        format = "color" if name == "a_depth.png" else None
        write_depth(DepthMap(DEPTH, METRES, Provenance(model="mine"), 20), Path("out", name), format)
        source = "sub/a.png" if "/" in name else "a.png"
        found = self.read(Entry(1, "x", source, Path("root", source)))
        assert found.kind is METRES and found.provenance.model == "mine"
        assert np.allclose(found.values, DEPTH, atol=0.01 + 0.02 * (format is not None))

    def test_the_most_exact_one_is_taken(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.png")
        write_depth(DepthMap(DEPTH * 2, METRES), "out/a_depth.npz")
        assert np.array_equal(self.read(entry()).values, DEPTH * 2)

    @pytest.mark.parametrize("name", ["a.npy", "a_depth.npy", "a.pfm", "a.npz"])
    def test_files_of_others_need_their_kind(self, name):
        if name.endswith("npz"):
            np.savez(f"out/{name}", DEPTH)
        elif name.endswith("npy"):
            np.save(f"out/{name}", DEPTH)
        else:
            Path("out", name).write_bytes(b"Pf\n80 60\n-1\n" + DEPTH[::-1].astype("<f4").tobytes())
        found = self.read(entry(), kind=DISPARITY)
        assert found.kind is DISPARITY and np.array_equal(found.values, DEPTH)
        with pytest.raises(OutputError, match="`prediction_kind`"):
            self.read(entry())

    def test_a_kind_that_contradicts_the_file_is_refused(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a.npz")
        with pytest.raises(UsageError, match="says it holds metric_depth"):
            self.read(entry(), kind=DISPARITY)

    def test_a_picture_that_is_no_depth_file_is_refused_whatever_its_kind(self):
        photo("out/a.png")
        with pytest.raises(OutputError, match="does not say what its numbers mean"):
            self.read(entry(), kind=DISPARITY)

    def test_nan_is_no_prediction(self):
        np.save("out/a.npy", np.where(DEPTH > 3, np.nan, DEPTH))
        with pytest.raises(OutputError, match="NaN"):
            self.read(entry(), kind=DISPARITY)

    def test_the_name_of_an_entry_finds_it_too(self):
        write_depth(DepthMap(DEPTH, METRES), "out/named_depth.npz")
        assert self.read(Entry(1, "named", "x/0001.png", Path("x/0001.png"))).kind is METRES

    def test_a_stem_that_two_pictures_share_finds_nothing(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.npz")
        first, second = Entry(1, "one", "x/a.png", Path("x/a.png")), Entry(2, "two", "y/a.png", Path("y/a.png"))
        assert self.read(first).kind is METRES
        with pytest.raises(OutputError, match="out holds no prediction for it"):
            self.read(first, second)

    def test_pictures_that_differ_in_their_suffix_have_files_that_keep_it(self):
        first, second = Entry(1, "a", "a.png", Path("a.png")), Entry(2, "two", "a.jpg", Path("a.jpg"))
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.npz")
        for one, other in ((first, second), (second, first)):
            with pytest.raises(OutputError, match="out holds no prediction for it"):
                self.read(one, other)
        write_depth(DepthMap(DEPTH * 2, METRES), "out/a.png_depth.npz")
        write_depth(DepthMap(DEPTH * 3, METRES), "out/a.jpg_depth.npz")
        assert np.array_equal(self.read(first, second).values, DEPTH * 2)
        assert np.array_equal(self.read(second, first).values, DEPTH * 3)

    def test_below_folders_too(self):
        first, second = (Entry(n, str(n), f"x/a.{end}", Path(f"x/a.{end}")) for n, end in ((1, "png"), (2, "jpg")))
        Path("out/x").mkdir()
        write_depth(DepthMap(DEPTH * 2, METRES), "out/x/a.png_depth.npz")
        assert np.array_equal(self.read(first, second).values, DEPTH * 2)

    def test_where_dir_puts_it_goes_before_a_name(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.npz")
        first, second = Entry(1, "x", "a.png", Path("a.png")), Entry(2, "y", "sub/a.png", Path("sub/a.png"))
        assert self.read(first, second).kind is METRES
        third = Entry(3, "z", "a_depth.png", Path("a_depth.png"))
        assert self.read(first, third).kind is METRES
        for other in (second, third):
            with pytest.raises(OutputError, match="holds no prediction"):
                self.read(other, first)

    def test_two_entries_of_one_picture_share_its_file(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.npz")
        first, second = Entry(1, "x", "a.png", Path("a.png")), Entry(2, "y", "./a.png", Path("./a.png"))
        assert self.read(first, second).kind is self.read(second, first).kind is METRES

    def test_the_picture_itself_is_no_prediction_and_does_not_hide_one(self):
        photo("out/a.png")
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth.png", "color")
        one = Entry(1, "a", "a.png", Path("out/a.png"))
        assert self.read(one).kind is METRES
        Path("out/a_depth.png").unlink()
        with pytest.raises(OutputError, match="holds no prediction"):
            self.read(one)

    def test_a_plain_png_comes_last(self):
        write_depth(DepthMap(DEPTH, METRES), "out/a_depth_side.png", "gray8")
        photo("out/a.png")
        assert self.read(entry()).kind is METRES

    def test_the_first_path_looked_for_is_named(self):
        with pytest.raises(OutputError, match=r"the first file looked for is out/sub/b_depth\.npz"):
            self.read(Entry(1, "x", "sub/b.png", Path("root/sub/b.png")))

    def test_kinds_by_name(self):
        assert parse_kind(None) is None and parse_kind("metric_depth") is METRES
        with pytest.raises(UsageError, match="choose from: relative_disparity, relative_depth, metric_depth"):
            parse_kind("metres")
