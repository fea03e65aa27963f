"""`depth image`: pictures in by any way they can be named, files out where they are wanted."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthcli import DepthEstimator, DepthKind, read_depth
from depthcli.io.codecs.files import read_facts
from depthcli.io.pictures import tiff
from depthcli.pixels.colormap import color_table, to_gray8
from tests.conftest import TINY, broken, ended, files, photo, tree
from tests.io.pictures import tiffs
from tests.reference import reference_state


@pytest.fixture
def metric_row(monkeypatch, tiny_weights):
    """A metric row of a very small network, with random weights in checkpoints/."""
    import torch
    from safetensors.torch import save_file

    from depthcli.nets.build import build_network
    from depthcli.zoo import rows as zoo

    network = zoo.NetworkConfig(16, 4, 2, 8, (8, 8, 8, 8), (0, 1, 2, 3), position_grid=4)
    row = zoo.ModelRow(
        name="small-rooms",
        title="Small rooms",
        family=zoo.DEPTH_ANYTHING_V2,
        encoder="small",
        network=network,
        kind=DepthKind.METRIC_DEPTH,
        files=(zoo.Weights("", "small.safetensors", channel=zoo.Channel.UNPUBLISHED),),
        licence="",
        max_depth=20.0,
    )
    shapes = {name: value.shape for name, value in build_network(network).state_dict().items()}
    weights = {name: torch.from_numpy(value) for name, value in reference_state(shapes).items()}
    save_file(weights, "checkpoints/small.safetensors")
    monkeypatch.setitem(zoo._BY_NAME, row.name, row)
    return row.name


def _written_by_two(depth):
    """Ask for two pictures in one pipe that has a reader."""
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return depth("image", "a.jpg", "b.jpg", "-o", "pipe", *TINY)
    finally:
        os.close(reader)


class TestWhereResultsGo:
    def test_beside_the_picture_and_the_path_to_stdout(self, depth):
        photo("in/a.jpg")
        ran = depth("image", "in/a.jpg", *TINY)
        assert (ran.code, ran.lines, ran.err) == (0, ["in/a_depth.png"], "")
        assert read_depth("in/a_depth.png").size == (80, 60)

    def test_into_a_folder_that_is_made(self, depth):
        photo("in/a.jpg")
        photo("b.png")
        ran = depth("image", "in/a.jpg", "b.png", "-o", "new/out", *TINY)
        assert ran.lines == ["new/out/a_depth.png", "new/out/b_depth.png"]
        assert sorted(tree("new")) == ["out/a_depth.png", "out/b_depth.png"]

    @pytest.mark.parametrize(
        ("name", "options"),
        [("new/x.png", ()), ("X.PNG", ("-f", "gray")), ("x.npz", ()), ("x.exr", ()), ("x.npz", ("-f", "npz"))],
    )
    def test_into_the_very_file_that_is_named(self, depth, name, options):
        photo("a.jpg")
        assert depth("image", "a.jpg", "-o", name, *options, *TINY).lines == [name]
        assert files() == sorted(["a.jpg", name])
        assert read_depth(name).size == (80, 60)

    @pytest.mark.parametrize("name", ["x.png", "new.png/", "v1.2/"])
    def test_a_folder_that_is_there_or_ends_with_a_slash_may_be_called_like_a_file(self, depth, name):
        photo("a.jpg")
        Path("x.png").mkdir()
        assert depth("image", "a.jpg", "-o", name, *TINY).code == 0
        assert depth("image", "-", "-o", name, *TINY, stdin=Path("a.jpg").read_bytes()).code == 0
        assert sorted(tree(name)) == ["a_depth.png", "stdin_depth.png"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("b.jpg", "-o", "x.png"), "x.png cannot hold 2 pictures"),
            (("-o", "x.png", "-f", "color,gray"), "x.png cannot hold several formats"),
            (("-o", "x.png", "-f", "npz"), "npz is written as .npz, not .png"),
            (("-o", "x.jpg"), "color is written as .png, not .jpg (depth is written as .png"),
            (("-o", "x.jpg"), ": use -o x.png, or end it with / for a folder)"),
            (
                ("-o", "new/x.hdr"),
                "color is written as .png, not .hdr (depth is written as .png, .npz, .exr, .tiff, ",
            ),
            (("-f", "mp4"), "mp4 is a film, which only clips become (choose from: color, gray,"),
            (("-o", "x.TIFF", "-f", "npz"), "npz is written as .npz, not .tiff"),
            (("-o", "x.png", "--name", "{stem}"), "--name does not apply to x.png"),
            (("-o", "-", "--name", "{stem}"), "--name does not apply to stdout"),
            (("--name", "{stem}", "-f", "gray,color"), "gives gray and color one name"),
            (("-o", "x" * 300), "is too long for a file name (use a shorter one)"),
            (("-o", "x" * 300 + ".png"), "is too long for a file name (use a shorter one)"),
            (("--name", "{picture}"), "fields are {stem}, {name}, {parent}, {format}"),
            (("https://example.org/c.jpg",), "is an address, not a file (download it first: curl -fLo c.jpg"),
            (("-o", "a.jpg/"), "a.jpg/ is a file, not a folder"),
        ],
    )
    def test_a_place_that_cannot_hold_the_results_is_refused_and_nothing_is_written(self, depth, options, message):
        photo("a.jpg")
        photo("b.jpg")
        ran = depth("image", "a.jpg", *options, *TINY)
        assert ran.code == 2 and files() == ["a.jpg", "b.jpg"]
        assert message in ran.error

    def test_the_picture_itself_is_never_replaced(self, depth):
        before = photo("a.png").read_bytes()
        ran = depth("image", "a.png", "-o", "a.png", *TINY)
        assert ran.code == 2 and "would replace the picture a.png" in ran.error
        assert Path("a.png").read_bytes() == before

    def test_two_pictures_of_one_name_go_into_folders_of_their_own(self, depth):
        photo("s10/v1.jpg")
        photo("s20/v1.jpg")
        ran = depth("image", "s10/v1.jpg", "s20/v1.jpg", "-o", "out", *TINY)
        assert ran.lines == ["out/s10/v1_depth.png", "out/s20/v1_depth.png"]

    def test_a_dot_in_a_name_makes_no_file_of_a_folder(self, depth):
        photo("a.jpg")
        assert depth("image", "a.jpg", "-o", "maps.v2", *TINY).lines == ["maps.v2/a_depth.png"]
        assert depth("dir", ".", "-o", "maps.2", *TINY).lines == ["maps.2/a_depth.png"]

    def test_a_pipe_is_written_to_and_stays_a_pipe(self, depth):
        photo("a.jpg")
        os.mkfifo("pipe")
        reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            ran = depth("image", "a.jpg", "-o", "pipe", *TINY)
            content = os.read(reader, 1 << 20)
        finally:
            os.close(reader)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
        assert Image.open(io.BytesIO(content)).size == (80, 60) and files() == ["a.jpg"] and Path("pipe").is_fifo()
        ran = _written_by_two(depth)
        assert ran.code == 2 and "pipe cannot hold 2 pictures" in ran.error

    def test_names_by_a_template(self, depth):
        photo("in/IMG_1.JPG")
        assert depth("image", "in/IMG_1.JPG", "--name", "{stem}", *TINY).lines == ["in/IMG_1.png"]
        ran = depth("image", "in", "-o", "out", "--name", "{stem}_{format}", "-f", "gray,npz", *TINY)
        assert ran.lines == ["out/IMG_1_gray.png", "out/IMG_1_npz.npz"]
        assert depth(
            "image", "-", "-o", "new", "--name", "{stem}", *TINY, stdin=Path("in/IMG_1.JPG").read_bytes()
        ).lines

    def test_a_name_too_long_for_the_disk_is_cut_and_it_is_said_once(self, depth):
        photo(f"{'深' * 82}.png")
        first, second = (depth("image", f"{'深' * 82}.png", *TINY) for _ in range(2))
        assert first.lines == second.lines and Path(first.lines[0]).is_file() and first.code == 0
        assert len(first.err.splitlines()) == 1 and "too long for the file system" in first.err
        assert depth("image", f"{'深' * 82}.png", "-q", *TINY).err == ""

    def test_what_is_left_out_is_counted(self, depth):
        photo("in/a.jpg")
        Path("in/b.cr2").touch()
        assert depth("image", "in", *TINY).err == "left out: 1 file that is not a picture (.cr2)\n"
        ran = depth("image", "in", *TINY)
        assert "left out: 1 result of depthcli (a_depth.png), 1 file that is not a picture (.cr2)" in ran.err
        assert depth("image", "in", "-q", *TINY).err == ""

    def test_a_and_a_of_another_suffix_do_not_collide(self, depth):
        photo("a.jpg")
        photo("a.png")
        assert depth("image", "a.jpg", "a.png", *TINY).lines == ["a.jpg_depth.png", "a.png_depth.png"]


class TestWhatComesIn:
    def test_files_folders_globs_and_lists_in_one_command(self, depth):
        for name in ("a.jpg", "in/deep/b.png", "c1.webp", "c2.bmp", "d e.tif"):
            photo(name)
        Path("list.txt").write_bytes(b"d e.tif\r\n")
        ran = depth("image", "a.jpg", "in", "c?.*", "list.txt", "-o", "out", *TINY)
        assert ran.code == 0
        assert sorted(tree("out")) == [f"{n}_depth.png" for n in ("a", "c1", "c2", "d e", "deep/b")]

    def test_a_second_run_over_the_same_glob_takes_no_result_for_a_picture(self, depth):
        photo("a.png")
        assert depth("image", "*.png", *TINY).lines == depth("image", "*.png", *TINY).lines == ["a_depth.png"]

    @pytest.mark.parametrize("name", ["日本 ü.jpg", "-a.jpg", "a\u2028b.jpg", os.fsdecode(b"caf\xe9.jpg")])
    def test_any_name_the_disk_can_hold(self, depth, name):
        photo(f"in/{name}")
        ran = depth("image", f"in/{name}", *TINY)
        assert ran.code == 0
        assert os.fsdecode(ran.stdout.rstrip(b"\n")) == f"in/{Path(name).stem}_depth.png"
        assert json.loads(depth("image", f"in/{name}", "--json", *TINY).lines[0])["input"] == f"in/{name}"

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("nowhere.jpg", "does not exist"),
            ("~/a.jpg", "does not exist"),
            ("empty.jpg", "is empty"),
            ("broken.jpg", "is truncated"),
            ("page.jpg", "not a picture but a web page"),
            ("loop.jpg", "too many levels of symbolic links"),
        ],
    )
    def test_a_picture_that_cannot_be_read_is_named_with_the_reason_and_the_way_out(self, depth, name, reason):
        Path("empty.jpg").touch()
        broken("broken.jpg")
        Path("page.jpg").write_text("<!doctype html>")
        Path("loop.jpg").symlink_to("loop.jpg")
        before = files()
        ran = depth("image", name, *TINY)
        assert (ran.code, ran.out) == (1, "")
        assert ran.error.startswith(f"error: {name}") and reason in ran.error and ran.error.endswith(")")
        assert files() == before

    def test_a_line_break_in_a_name_breaks_no_message(self, depth):
        Path("a\nb.jpg").touch()
        assert r"a\nb.jpg is empty" in depth("image", "a\nb.jpg", *TINY).error

    def test_the_rest_goes_on_and_the_code_says_that_some_failed(self, depth):
        photo("a.jpg")
        photo("c.jpg")
        ran = depth("image", "a.jpg", "b.jpg", "c.jpg", *TINY)
        assert (ran.code, ran.lines) == (3, ["a_depth.png", "c_depth.png"])
        assert ran.err.splitlines()[0].startswith("error: b.jpg does not exist")
        assert ran.err.splitlines()[-1].startswith("2 done, 1 failed in ")

    @pytest.mark.parametrize("argument", ["*.jpg", "empty", "empty.txt"])
    def test_what_stands_for_no_picture_is_an_error_of_use(self, depth, argument):
        Path("empty").mkdir()
        Path("empty.txt").touch()
        ran = depth("image", argument, *TINY)
        assert ran.code == 2 and argument in ran.error and "no picture" in ran.error


class TestPipes:
    def test_from_stdin_to_stdout_come_the_bytes_of_the_file_and_nothing_else(self, depth):
        photo("stdin.jpg")
        depth("image", "stdin.jpg", "-o", "x.png", *TINY)
        ran = depth("image", "-", "-o", "-", *TINY, stdin=Path("stdin.jpg").read_bytes())
        assert (ran.code, ran.err) == (0, "")
        assert np.array_equal(Image.open(io.BytesIO(ran.stdout)), Image.open("x.png"))

    def test_with_real_pipes(self, start):
        with photo("a.jpg").open("rb") as picture:
            ran = ended(start("image", "-", "-o", "-", "-f", "npz", *TINY, stdin=picture))
        assert ran.code == 0
        assert np.load(io.BytesIO(ran.stdout))["depth"].shape == (60, 80)

    def test_a_file_to_stdout_and_stdin_to_a_file(self, depth):
        picture = photo("a.jpg").read_bytes()
        assert depth("image", "a.jpg", "-o", "-", "-f", "gray8", *TINY).stdout.startswith(b"\x89PNG")
        assert depth("image", "-", "-o", "x.npz", *TINY, stdin=picture).lines == ["x.npz"]
        assert depth("image", "-", "-o", "y.npz", "-q", *TINY, stdin=picture).lines == []
        assert np.array_equal(read_depth("x.npz").values, read_depth("y.npz").values)

    def test_talk_about_the_model_keeps_out_of_stdout(self, depth):
        picture = photo("a.jpg").read_bytes()
        ran = depth("image", "-", "-o", "-", "--input-size", "56", stdin=picture)
        assert ran.stdout.startswith(b"\x89PNG") and ran.err.startswith("using tiny, the small model")

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [(("-",), 2), (("-", "a.jpg", "-o", "-"), 2), (("a.jpg", "-o", "-", "-f", "color,npz"), 2)],
    )
    def test_one_picture_and_one_format_fit_through_a_pipe(self, depth, arguments, code):
        photo("a.jpg")
        ran = depth("image", *arguments, *TINY)
        assert (ran.code, ran.out) == (code, "") and ran.error

    @pytest.mark.parametrize(("stdin", "reason"), [(b"", "is empty"), (b"hello", "is not a picture")])
    def test_bad_bytes_are_an_error_and_leave_stdout_empty(self, depth, stdin, reason):
        ran = depth("image", "-", "-o", "-", *TINY, stdin=stdin)
        assert (ran.code, ran.out) == (1, "") and reason in ran.error


class TestFormats:
    @pytest.fixture
    def truth(self, tiny_weights):
        """What the model itself says."""
        with DepthEstimator("tiny", input_size=56) as estimator:
            return estimator.estimate(photo("a.jpg"))

    @pytest.mark.parametrize(
        ("format", "name", "modes", "steps"),
        [
            ("color", "a_depth.png", ["RGB"], 255),
            ("gray8", "a_depth_gray8.png", ["L"], 255),
            ("side", "a_depth_side.png", ["RGB"], 255),
            ("gray", "a_depth_gray.png", ["I;16", "I"], 65535),
        ],
    )
    def test_every_picture_gives_the_numbers_of_the_model_back(self, depth, truth, format, name, modes, steps):
        assert depth("image", "a.jpg", "-f", format, *TINY).lines == [name]
        with Image.open(name) as picture:
            assert picture.mode in modes
        back = read_depth(name)
        lo, hi = truth.range
        assert np.abs(back.values - truth.values).max() <= 0.51 * (hi - lo) / steps
        content = hashlib.sha256(Path("a.jpg").read_bytes()).hexdigest()
        assert (back.kind, back.provenance) == (truth.kind, replace(truth.provenance, source_sha256=content))

    def test_npz_holds_them_exactly(self, depth, truth):
        depth("image", "a.jpg", "-f", "npz", *TINY)
        assert np.array_equal(read_depth("a_depth.npz").values, truth.values)

    def test_several_at_once_separated_by_commas_or_repeated(self, depth, truth):
        names = ["a_depth.png", "a_depth_gray.png", "a_depth_gray8.png", "a_depth_side.png", "a_depth.npz"]
        assert depth("image", "a.jpg", "-f", "color,gray,gray8", "-f", "side,npz", *TINY).lines == names
        assert files() == sorted(["a.jpg", *names])

    def test_colour_is_the_table_laid_over_gray(self, depth, truth):
        depth("image", "a.jpg", "-f", "color,gray8", *TINY)
        gray, color = np.asarray(Image.open("a_depth_gray8.png")), np.asarray(Image.open("a_depth.png"))
        assert np.array_equal(gray, to_gray8(truth))
        assert np.array_equal(color, color_table("Spectral_r")[gray])
        depth("image", "a.jpg", "--colormap", "inferno", *TINY)
        assert np.array_equal(np.asarray(Image.open("a_depth.png")), color_table("inferno")[gray])

    def test_side_shows_the_photo_and_the_colours(self, depth, truth):
        depth("image", "a.jpg", "-f", "side,color", *TINY)
        side = np.asarray(Image.open("a_depth_side.png"))
        assert side.shape == (60, 80 + 50 + 80, 3)
        assert np.array_equal(side[:, :80], Image.open("a.jpg"))
        assert np.array_equal(side[:, 130:], Image.open("a_depth.png"))

    def test_the_options_of_the_official_scripts_are_taken(self, depth):
        photo("a.jpg")
        assert depth("image", "a.jpg", "--pred-only", *TINY).lines == ["a_depth.png"]
        assert depth("image", "a.jpg", "--pred-only", "--grayscale", *TINY).lines == ["a_depth_gray8.png"]

    def test_every_file_says_what_its_numbers_mean(self, depth):
        photo("in/a.jpg")
        depth("image", "in/a.jpg", *TINY)
        facts = read_facts(Path("in/a_depth.png"))
        assert facts["kind"] == "relative_disparity" and facts["near_is"] == "high" and facts["units"] is None
        assert (facts["model"], facts["source"], facts["model_size"]) == ("tiny", "a.jpg", [70, 56])
        assert len(facts["weights_sha256"]) == 64 and " cpu " in facts["engine"]

    def test_the_same_command_gives_the_same_bytes(self, depth):
        photo("a.jpg")
        depth("image", "a.jpg", "-o", "x", "-f", "color,npz", *TINY)
        depth("image", "a.jpg", "-o", "y", "-f", "color,npz", *TINY)
        assert tree("x") == tree("y")


class TestModelOptions:
    @pytest.fixture(autouse=True)
    def picture(self):
        photo("a.jpg")

    def test_a_model_is_named_by_its_row_or_its_file(self, depth, tiny_file):
        depth("image", "a.jpg", "-o", "x.npz", *TINY)
        for options in (("--model", "tiny"), ("--encoder", "tiny", "--model", tiny_file)):
            depth("image", "a.jpg", "-o", "y.npz", *options, "--input-size", 56)
            assert np.array_equal(read_depth("x.npz").values, read_depth("y.npz").values)

    def test_without_a_word_the_packaged_model_stands_in_and_says_so(self, depth):
        ran = depth("image", "a.jpg", "--input-size", 56)
        assert ran.code == 0 and ran.lines == ["a_depth.png"]
        assert "using tiny" in ran.err and "checkpoints/" in ran.err and len(ran.err.splitlines()) == 1

    def test_metric_models_answer_in_metres_up_to_max_depth(self, depth, metric_row):
        for options, top in (((), 20), (("--max-depth", 5), 5)):
            depth("image", "a.jpg", "-m", metric_row, "-o", "x.npz", "-f", "npz", "--input-size", 56, *options)
            found = read_depth("x.npz")
            assert found.kind is DepthKind.METRIC_DEPTH and found.max_depth == top
            assert 0 < found.range[0] < found.range[1] < top

    def test_input_size_is_what_the_network_sees(self, depth):
        depth("image", "a.jpg", "--encoder", "tiny", "--input-size", 98)
        assert read_depth("a_depth.png").provenance.input_size == (126, 98)
        assert read_depth("a_depth.png").size == (80, 60)

    @pytest.mark.parametrize("options", [("-d", "cpu"), ("--backend", "auto"), ("--precision", "auto"), ("-b", 2)])
    def test_options_that_name_the_default_change_nothing(self, depth, options):
        depth("image", "a.jpg", "-o", "x", *TINY)
        assert depth("image", "a.jpg", "-o", "y", *options, *TINY).code == 0
        assert tree("x") == tree("y")

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--encoder", "vitz"), 2, "no encoder is called 'vitz' (choose from: vits, vitb, vitl, vitg, tiny)"),
            (("--encoder", "tiny", "--metric", "indoor"), 4, "make them: depth train"),
            (("--encoder", "vits", "--metric", "space"), 2, "--metric is indoor or outdoor"),
            (("--encoder", "tiny", "--model", "vits"), 2, "--model names the whole model"),
            (("--model", "vitsss"), 2, "did you mean: vits"),
            (("--encoder", "tiny", "--max-depth", "3"), 2, "--max-depth needs --metric"),
            (("--encoder", "tiny", "--input-size", "13"), 2, "--input-size must be at least 14, got 13"),
            (("--encoder", "tiny", "--batch", "0"), 2, "--batch must be at least 1, got 0"),
            (("--encoder", "tiny", "--format", "jpg"), 2, "no output format is called 'jpg'"),
            (("--encoder", "tiny", "--format", "npz", "--grayscale"), 2, "contradict each other"),
            (("--encoder", "tiny", "--colormap", "jet"), 2, "no colour map is called 'jet'"),
            (("--encoder", "tiny", "--if-exists", "ask"), 2, "choose from: skip, overwrite, error"),
            (("--encoder", "tiny", "--device", "gpu"), 2, "unknown --device 'gpu'"),
            (("--encoder", "tiny", "--backend", "tpu"), 2, "unknown --backend 'tpu'"),
            (("--encoder", "tiny", "--precision", "int4"), 2, "unknown --precision 'int4'"),
            (("--encoder", "vits"), 4, "cannot get depth_anything_v2_vits.pth"),
            (("--metric", "outdoor"), 4, "cannot get depth_anything_v2_metric_vkitti_vits.pth"),
            (("--encoder", "vitg"), 4, "was never published"),
            (("--checkpoint", "nowhere.pth"), 4, "there is no checkpoint nowhere.pth"),
            (("--encoder", "vits", "--checkpoint", "checkpoints/tiny.safetensors"), 4, "use --encoder tiny"),
            (("--encoder", "tiny", "--device", "cuda:99"), 5, "CUDA"),
            (("--encoder", "tiny", "-d", "cpu", "--precision", "fp16"), 5, "half precision does not run on the CPU"),
        ],
    )
    def test_what_cannot_be_is_one_line_that_says_why_and_the_way_out(self, depth, options, code, message):
        ran = depth("image", "a.jpg", *options)
        assert (ran.code, ran.out) == (code, "")
        assert message in ran.error
        assert ran.error.endswith(")") or "must be" in ran.error  # which says the way out too
        assert files() == ["a.jpg"]

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"])
    def test_a_damaged_checkpoint_is_named(self, depth, content):
        for name in ("mine.pth", "mine.safetensors", "mine.jpg"):
            Path(name).write_bytes(content)
            ran = depth("image", "a.jpg", *TINY, "--checkpoint", name)
            assert (ran.code, ran.out) == (4, "") and name in ran.error


class TestReport:
    def test_json_is_one_object_for_each_picture_and_one_that_sums_up(self, depth):
        photo("a.jpg")
        ran = depth("image", "a.jpg", "b.jpg", "--json", *TINY)
        done, failed, last = (json.loads(line) for line in ran.lines)
        assert (done["input"], done["outputs"], done["status"]) == ("a.jpg", ["a_depth.png"], "done")
        assert (failed["input"], failed["status"]) == ("b.jpg", "failed") and "does not exist" in failed["error"]
        assert {key: last["summary"][key] for key in ("done", "skipped", "failed", "total", "interrupted")} == {
            "done": 1,
            "skipped": 0,
            "failed": 1,
            "total": 2,
            "interrupted": False,
        }

    def test_quiet_says_nothing_but_errors(self, depth):
        photo("a.jpg")
        ran = depth("image", "a.jpg", "b.jpg", "-q", *TINY)
        assert (ran.code, ran.out) == (3, "") and "b.jpg does not exist" in ran.error

    def test_quiet_or_not_a_coarser_model_is_never_taken_in_silence(self, depth):
        photo("a.jpg")
        ran = depth("image", "a.jpg", "-q", "--input-size", 56)
        assert ran.code == 0 and ran.err.startswith("using tiny")

    def test_verbose_says_what_was_done_to_each_picture(self, depth):
        Image.new("RGBA", (80, 60), (255, 0, 0, 128)).save("a.png")
        ran = depth("image", "a.png", "-v", *TINY)
        assert ran.lines == ["a_depth.png"]
        assert "model depthcli tiny, Apache-2.0; " in ran.err and " cpu " in ran.err
        assert "a.png: done" in ran.err and "alpha composited on black" in ran.err


class TestHonesty:
    def test_own_weights_bear_neither_the_title_nor_the_licence_of_published_ones(self, depth):
        import shutil

        shutil.copy("checkpoints/tiny.safetensors", "mine.safetensors")
        photo("a.jpg")
        depth("image", "a.jpg", "--checkpoint", "mine.safetensors", "--encoder", "tiny", "--input-size", 56)
        origin = read_depth("a_depth.png").provenance
        assert (origin.model, origin.licence) == ("tiny", "") and "mine.safetensors" in origin.model_title

    def test_a_folder_of_a_models_name_does_not_hide_the_model(self, depth):
        Path("tiny").mkdir()
        photo("a.jpg")
        assert depth("image", "a.jpg", "--model", "tiny", "--input-size", 56).code == 0

    def test_clamped_metres_are_said_whatever_the_verbosity(self, depth, metric_row):
        photo("a.jpg")
        command = ("image", "a.jpg", "-m", metric_row, "--max-depth", 5000, "-f", "gray", "--input-size", 56)
        for ran in (depth(*command, "-q"), depth(*command, "-o", "-")):
            assert ran.code == 0 and "warning: " in ran.err and "65.535 m" in ran.err

    @pytest.mark.parametrize("arguments", [("image", ""), ("image", "a.jpg", "-o", ""), ("dir", "")])
    def test_an_empty_name_is_not_the_current_folder(self, depth, arguments):
        photo("a.jpg")
        ran = depth(*arguments)
        assert ran.code == 2 and "unset" in ran.error
        assert tree(".").keys() == {"a.jpg", "checkpoints/tiny.safetensors"}


def cut_out(path: str) -> None:
    """A picture whose left third is transparent."""
    rgba = np.random.default_rng(0).integers(0, 256, (60, 80, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[:, :26, 3] = 0
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(rgba).save(path)


class TestAlpha:
    def test_transparent_pixels_are_invalid_in_every_format_on_request(self, depth):
        cut_out("in/a.png")
        formats = "color,gray,gray8,side,npz"
        ran = depth("image", "in/a.png", "-o", "out/", "-f", formats, "--keep-alpha", *TINY)
        assert ran.code == 0 and len(ran.lines) == 5
        for path in ran.lines:
            valid = read_depth(path).valid
            assert valid is not None and not valid[:, :26].any() and valid[:, 26:].all(), path
        assert depth("image", "in/a.png", "-o", "plain/", *TINY).code == 0
        assert read_depth("plain/a_depth.png").valid is None

    def test_stdout_too(self, depth):
        cut_out("in/a.png")
        ran = depth("image", "in/a.png", "-o", "-", "--keep-alpha", *TINY)
        with Image.open(io.BytesIO(ran.stdout)) as image:
            assert image.mode == "RGBA" and image.getpixel((0, 0))[3] == 0

    def test_it_shapes_results_and_is_not_mixed_with_results_made_without_it(self, depth):
        cut_out("in/a.png")
        assert depth("dir", "in", "-o", "out", *TINY).code == 0
        ran = depth("dir", "in", "-o", "out", "--keep-alpha", *TINY)
        assert ran.code == 2 and "was made without --keep-alpha" in ran.err
        assert depth("dir", "in", "-o", "out", "--keep-alpha", "--if-exists", "overwrite", *TINY).code == 0
        ran = depth("dir", "in", "-o", "out", *TINY)
        assert ran.code == 2 and "was made with --keep-alpha, and this run has none" in ran.err


class TestWhatIsToldOfAPicture:
    def test_16_bits_that_were_spread_are_a_warning_once(self, depth):
        values = np.random.default_rng(0).integers(29108, 30248, (60, 80)).astype(np.uint16)
        Image.fromarray(values).save("thermal.png")
        ran = depth("image", "thermal.png", *TINY)
        assert ran.code == 0 and ran.err.count("warning: thermal.png: nearly all of its 16-bit values") == 1
        said = json.loads(depth("image", "thermal.png", "--json", *TINY).lines[0])
        assert len(said["warnings"]) == 1
        ran = depth("image", "thermal.png", "-o", "-", *TINY)
        assert "warning: thermal.png: nearly all of its 16-bit values" in ran.err

    def test_colours_of_floats_are_read_and_the_rule_is_told(self, depth):
        light = np.random.default_rng(0).random((60, 80, 3)).astype(np.float32)
        Path("light.tif").write_bytes(tiffs.write(light, tiff.RGB))
        ran = depth("image", "light.tif", "-v", *TINY)
        assert ran.code == 0 and "taken for linear light" in ran.err

    def test_what_c_libraries_say_is_told_of_its_file_and_only_where_that_is_asked_for(self, start):
        fax = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8) * 255
        Image.fromarray(noise).convert("1").save(fax, "TIFF", compression="group4")
        damaged = bytearray(fax.getvalue())
        middle = tiff.read_page(fax).one(tiff.Tag.STRIP_OFFSETS, 0) + 40
        damaged[middle : middle + 3] = b"\xff\xff\xff"  # libtiff goes on, and complains
        Path("in").mkdir()
        Path("in/fax.tif").write_bytes(damaged)
        photo("in/photo.jpg")
        ran = ended(start("dir", "in", "-o", "out", *TINY))
        assert "fax" not in ran.err.lower() and "code word" not in ran.err
        ran = ended(start("dir", "in", "-o", "again", "-v", *TINY))
        told = [line for line in ran.err.splitlines() if "Fax" in line]
        assert told and all(line.startswith("fax.tif: ") for line in told)
        assert all(line.startswith(("fax.tif", "photo.jpg", "model", "2 done")) for line in ran.err.splitlines())
