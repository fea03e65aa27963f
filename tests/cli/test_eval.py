"""`depth eval`: a list in; a table, JSON and error pictures out; one way to end for each thing that can go wrong."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import DepthEstimator, DepthKind, DepthMap, write_depth
from depthcli.eval.metrics import Figures
from depthcli.version import __version__
from depthcli.zoo import rows as zoo
from tests.conftest import TINY, photo

# Disparity of a room: a floor that comes nearer downwards, and a box on its left.
TRUTH = np.repeat(np.linspace(0.1, 1, 60)[:, None], 80, axis=1)
TRUTH[20:50, 10:30] = 1.2
HEADINGS = "picture known AbsRel SqRel RMSE RMSElog log10 SILog delta1 delta2 delta3 Spearman prior edgeF1".split()


def room(names: str = "a", **facts: object) -> Path:
    """Write pictures with one truth in millimetres, and the list of them."""
    rows = []
    for name in names:
        photo(f"in/{name}.png")
        Image.fromarray(np.round(1000 / TRUTH).astype(np.uint16)).save(f"in/{name}_truth.png")
        rows.append({"picture": f"{name}.png", "truth": f"{name}_truth.png", "format": "nyu", **facts})
    return listed(*rows)


def listed(*rows: dict) -> Path:
    Path("in").mkdir(exist_ok=True)
    path = Path("in/list.json")
    path.write_text(json.dumps(rows))
    return path


def predicted(values: np.ndarray, *names: str, kind: DepthKind = DepthKind.RELATIVE_DISPARITY) -> None:
    """Write saved predictions into out/."""
    Path("out").mkdir(exist_ok=True)
    for name in names:
        write_depth(DepthMap(values, kind), f"out/{name}_depth.npz")


def row(ran, name: str) -> dict[str, str]:
    """The cells of one line of the table, by heading."""
    headings = next(line.split() for line in ran.lines if "AbsRel" in line)
    (cells,) = (line.split() for line in ran.lines if line.split()[:1] == [name])
    cells = [cell for cell in cells if cell != "!"]
    return dict(zip(headings, cells))


def test_whatever_a_library_raises_for_one_picture_fails_that_one_by_name(depth, monkeypatch):
    from depthcli.eval import evaluate

    real = evaluate.read_picture

    def read(path):
        if Path(path).name == "b.png":
            raise IndexError("odd bytes")
        return real(path)

    monkeypatch.setattr(evaluate, "read_picture", read)
    predicted(3 * TRUTH - 0.2, "a", "b", "c")
    ran = depth("eval", room("abc"), "--predictions", "out", "--json", "-")
    assert ran.code == 3 and "error: entry 2 (b): unexpected IndexError: odd bytes" in ran.err
    assert [bool(picture["error"]) for picture in json.loads(ran.out)["pictures"]] == [False, True, False]


class TestTable:
    def test_saved_predictions_that_are_right(self, depth):
        predicted(3 * TRUTH - 0.2, "a", "b")
        ran = depth("eval", room("ab"), "--predictions", "out")
        assert ran.code == 0 and ran.err.startswith("2 done in ")
        assert next(line for line in ran.lines if "AbsRel" in line).split() == HEADINGS
        cells = row(ran, "a")
        assert (cells["AbsRel"], cells["delta1"], cells["Spearman"], cells["known"]) == (
            "0.000",
            "1.000",
            "1.000",
            "100%",
        )
        assert row(ran, "b") == {**cells, "picture": "b"}
        assert any(line.split()[:3] == ["mean", "of", "2"] for line in ran.lines)
        assert not any(line.split()[:1] == ["over"] for line in ran.lines)
        assert 'above that of "lower in the picture is nearer" (prior) on 2 of 2 pictures' in ran.out
        assert ran.lines[-1].startswith("protocol: scale-shift: scale and shift fitted")
        assert "negative scale" not in ran.out

    def test_a_narrow_terminal_cuts_no_figure_off(self, depth, monkeypatch):
        monkeypatch.setenv("COLUMNS", "40")
        predicted(TRUTH, "a")
        assert (
            next(line for line in depth("eval", room(), "--predictions", "out").lines if "AbsRel" in line).split()
            == HEADINGS
        )

    def test_a_prediction_that_runs_against_the_truth_is_marked(self, depth):
        predicted(-TRUTH, "a")
        ran = depth("eval", room(), "--predictions", "out")
        assert row(ran, "a")["Spearman"] == "-1.000"
        assert any(line.split()[:2] == ["a", "!"] for line in ran.lines)
        assert any(line.startswith("! negative scale") for line in ran.lines)
        assert "on 0 of 1 pictures" in ran.out

    def test_figures_nobody_has_take_no_column(self, depth):
        photo("in/a.png")
        predicted(TRUTH, "a")
        path = listed({"picture": "a.png", "pairs": [[[59, 79], [0, 79]], [[0, 79], [59, 79]]]})
        ran = depth("eval", path, "--predictions", "out")
        assert ran.code == 0 and "AbsRel" not in ran.out
        assert next(line.split() for line in ran.lines if line.split()[:1] == ["a"]) == ["a", "-", "0.500"]
        assert ran.lines[-1] == "protocol: nothing was aligned (point pairs need no alignment)"
        assert not any(line.split()[:1] == ["over"] for line in ran.lines)

    def test_metres_and_alignments(self, depth):
        predicted(2 / TRUTH, "a", kind=DepthKind.METRIC_DEPTH)
        path = room()
        for options, method, error in (((), "none", "1.000"), (("--align", "median"), "median", "0.000")):
            ran = depth("eval", path, "--predictions", "out", *options)
            assert row(ran, "a")["AbsRel"] == error and ran.lines[-1].startswith(f"protocol: {method}: ")

    def test_metres_meet_disparity_by_their_median(self, depth):
        room()
        np.savez("in/b.npz", TRUTH)
        photo("in/b.png")
        predicted(2 / TRUTH, "a", "b", kind=DepthKind.METRIC_DEPTH)
        rows = json.loads(Path("in/list.json").read_text())
        path = listed(*rows, {"picture": "b.png", "truth": "b.npz", "format": "disparity"})
        ran = depth("eval", path, "--predictions", "out")
        assert (row(ran, "a")["AbsRel"], row(ran, "b")["AbsRel"]) == ("1.000", "0.000")
        assert row(ran, "b")["RMSE"] == "-" != row(ran, "a")["RMSE"]
        over = row(ran, "over")  # it has no cell of what is known
        assert list(over.values())[:4] == ["over", "2", "1", "1"]
        assert "median (pictures: 1): " in ran.lines[-1] and "none (pictures: 1): " in ran.lines[-1]
        ran = depth("eval", path, "--predictions", "out", "--align", "none")
        assert ran.code == 3 and "entry 2 (b): a truth in disparity has no unit" in ran.err

    def test_csv_and_root(self, depth):
        room()
        predicted(TRUTH, "a")
        Path("list.csv").write_text("picture,truth,format\na.png,a_truth.png,nyu\n")
        assert row(depth("eval", "list.csv", "--root", "in", "--predictions", "out"), "a")["AbsRel"] == "0.000"

    def test_files_of_others_with_their_kind(self, depth):
        Path("out").mkdir()
        np.save("out/a.npy", TRUTH.astype(np.float32))
        path = room()
        ran = depth("eval", path, "--predictions", "out", "--prediction-kind", "relative_disparity")
        assert ran.code == 0 and row(ran, "a")["Spearman"] == "1.000"
        ran = depth("eval", path, "--predictions", "out")
        assert ran.code == 1 and "entry 1 (a)" in ran.error and "--prediction-kind" in ran.error


class TestModel:
    def test_it_is_asked_for_each_picture(self, depth, tiny_weights):
        ran = depth("eval", room("ab"), *TINY, "--json", "scores.json")
        assert ran.code == 0 and row(ran, "a")["AbsRel"]
        scores = json.loads(Path("scores.json").read_text())
        with DepthEstimator("tiny", input_size=56) as estimator:
            disparity = estimator.estimate("in/a.png").values.astype(float).ravel()
            sha256, engine = estimator.weights.sha256, estimator.description
        # The fit by another way: numpy's own, around the mean.
        truth = np.round(1000 / TRUTH).ravel() / 1000
        columns = np.stack([disparity - disparity.mean(), np.ones(disparity.size)], axis=1)
        (scale, middle), *_ = np.linalg.lstsq(columns, 1 / truth, rcond=None)
        shift = middle - scale * disparity.mean()
        aligned = 1 / np.maximum(scale * disparity + shift, 1 / truth.max())
        first = scores["pictures"][0]
        assert (first["scale"], first["shift"]) == (pytest.approx(scale), pytest.approx(shift))
        assert first["abs_rel"] == pytest.approx((abs(aligned - truth) / truth).mean())
        assert scores["source"] == {
            "list": "list.json",
            "model": "tiny",
            "kind": "relative_disparity",
            "weights": "tiny.safetensors",
            "weights_sha256": sha256,
            "engine": engine,
            "input_size": 56,
        }

    def test_the_packaged_weights_are_scored(self, depth, tiny_weights):
        tiny_weights.unlink()
        scores = json.loads(depth("eval", room(), *TINY, "--json", "-").out)
        assert scores["source"]["weights_sha256"] == zoo.find_row("tiny").weights.sha256
        assert 0 < scores["mean"]["abs_rel"] < 10 and -1 <= scores["mean"]["spearman"] <= 1

    def test_an_alignment_that_does_not_fit_the_model_is_one_error(self, depth):
        ran = depth("eval", room("ab"), *TINY, "--align", "none")
        assert (ran.code, ran.out) == (2, "") and "relative_disparity has no unit" in ran.error


class TestFiles:
    def test_json_has_everything_in_one_shape(self, depth):
        predicted(TRUTH, "a")
        path = room("ab")
        ran = depth("eval", path, "--predictions", "out", "--json", "-")
        found = json.loads(ran.out)
        assert ran.code == 3
        assert {key: type(value).__name__ for key, value in found.items()} == {
            "schema": "str",
            "depthcli": "str",
            "source": "dict",
            "align": "str",
            "protocol": "str",
            "mean": "dict",
            "pictures_in_mean": "dict",
            "better_than_prior": "int",
            "compared_with_prior": "int",
            "summary": "dict",
            "pictures": "list",
        }
        names = list(asdict(Figures()))
        assert list(found["mean"]) == list(found["pictures_in_mean"]) == names
        assert found["depthcli"] == __version__
        assert found["source"] == {"list": "list.json", "predictions": "out"}
        about = "entry name picture kind model weights_sha256 align scale shift turned_over known elements pair_count"
        for picture in found["pictures"]:
            assert list(picture) == [*about.split(), *names, "error", "exit_code"]
        assert [picture["exit_code"] for picture in found["pictures"]] == [0, 1]

    def test_json_into_a_file_beside_the_table(self, depth):
        predicted(TRUTH, "a")
        ran = depth("eval", room(), "--predictions", "out", "--json", "new/scores.json")
        assert "protocol: " in ran.out
        assert json.loads(Path("new/scores.json").read_text())["mean"]["abs_rel"] == pytest.approx(0, abs=1e-3)

    def test_error_pictures(self, depth):
        predicted(TRUTH, "a")
        path = room(crop=[10, 0, 50, 80])
        assert depth("eval", path, "--predictions", "out", "--errors", "look/here").code == 0
        with Image.open("look/here/a_error.png") as picture:
            assert picture.size == (4 * 80, 40)


class TestFailures:
    def test_one_that_fails_is_named_and_the_rest_goes_on(self, depth):
        predicted(TRUTH, "a", "b", "c")
        path = room("abc")
        Path("in/b.png").write_bytes(b"no picture")
        ran = depth("eval", path, "--predictions", "out")
        error, counts = ran.err.splitlines()
        assert ran.code == 3 and "entry 2 (b)" in error and "b.png is not a picture" in error
        assert counts.startswith("2 done, 1 failed")
        assert any(line.split()[:3] == ["mean", "of", "2"] for line in ran.lines)

    def test_all_failed_ends_as_their_errors_say(self, depth):
        path = room("ab")
        for name in ("a", "b"):
            Path(f"in/{name}_truth.png").unlink()
        ran = depth("eval", path, *TINY)
        assert (ran.code, ran.out) == (1, "")
        assert [line.split(":")[0] for line in ran.err.splitlines()[:2]] == ["error", "error"]

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--align", "best"), 2, "unknown --align 'best' (choose from: auto, scale-shift, median, none)"),
            (("--root", "nowhere"), 2, "nowhere is not a folder"),
            (("--predictions", "nowhere"), 2, "nowhere is not a folder"),
            (("--prediction-kind", "metric_depth"), 2, "--prediction-kind needs --predictions"),
            (("--predictions", "in", "--prediction-kind", "metres"), 2, "no kind of depth is called 'metres'"),
            (("--predictions", "in", "--encoder", "tiny"), 2, "--predictions are made already"),
            (("--json", ""), 2, "--json is empty"),
            (("--json", "in"), 2, "in is a folder, not a file"),
            (("--errors", "in/list.json"), 2, "in/list.json is a file, not a folder"),
            (("--errors", "in/list.json/look", "--encoder", "vits"), 1, "cannot write into in/list.json/look: "),
            (("--json", "in/list.json/look.json", "--encoder", "vits"), 1, "cannot write into in/list.json: "),
            (("--encoder", "vitz"), 2, "no encoder is called 'vitz'"),
            (("--encoder", "vits"), 4, "cannot get depth_anything_v2_vits.pth"),
            (("--encoder", "tiny", "--device", "cuda:99"), 5, "CUDA"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, depth, options, code, message):
        ran = depth("eval", room(), *options)
        assert (ran.code, ran.out) == (code, "") and message in ran.error

    @pytest.mark.parametrize("rows", [[], [{"picture": "a.png"}], [{"picture": "a.png", "truht": "b.png"}]])
    def test_a_bad_list_is_wrong_usage(self, depth, rows):
        ran = depth("eval", listed(*rows), *TINY)
        assert (ran.code, ran.out) == (2, "") and "in/list.json" in ran.error

    def test_a_list_that_is_not_there(self, depth):
        ran = depth("eval", "none.json", *TINY)
        assert (ran.code, ran.out) == (2, "") and "none.json" in ran.error


class TestInterruption:
    """Ctrl-C keeps what is scored already."""

    def run(self, depth, monkeypatch, happen, *options: str):
        from depthcli.eval.predictions import SavedPredictions

        read = SavedPredictions.__call__

        def call(self, entry, picture):
            if entry.name == "b":
                happen()
            return read(self, entry, picture)

        monkeypatch.setattr(SavedPredictions, "__call__", call)
        predicted(TRUTH, "a", "b", "c")
        return depth("eval", room("abc"), "--predictions", "out", *options)

    def test_the_picture_at_hand_is_finished(self, depth, monkeypatch):
        ran = self.run(depth, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT), "--json", "new/scores.json")
        assert ran.code == 130 and row(ran, "a") and row(ran, "b")
        assert "interrupted: 2 of 3 pictures" in ran.lines
        assert "interrupted: 2 of 3 pictures" in ran.err and "1 not reached" in ran.err
        found = json.loads(Path("new/scores.json").read_text())
        assert found["summary"] == {"done": 2, "failed": 0, "total": 3, "interrupted": True}

    def test_at_once(self, depth, monkeypatch):
        def happen():
            raise KeyboardInterrupt

        ran = self.run(depth, monkeypatch, happen, "--json", "-")
        found = json.loads(ran.out)
        assert ran.code == 130 and "interrupted: 1 of 3 pictures" in ran.err
        assert found["summary"]["interrupted"] is True and [one["name"] for one in found["pictures"]] == ["a"]
