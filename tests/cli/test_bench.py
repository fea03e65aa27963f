"""`depth bench`: tables for people, JSON for machines, and one way to end for each thing that can go wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from depthcli.backends import BACKENDS
from depthcli.bench import clips, limits, pictures, sample
from depthcli.bench import fastest as fastest_rules
from depthcli.bench.own_process import Ended
from depthcli.host import fastest
from depthcli.host.fastest import Fastest
from tests.conftest import ended, photo

SMALL = ("--size", 56, "--runs", 1, "--warmup", 0, "--picture", "80x60")
TINY = ("--encoder", "tiny", *SMALL)
CLIP = ("--video", "--encoder", "tiny", "--size", 56, "--runs", 1, "--warmup", 0, "--frames", 8, "--backend", "torch")


@pytest.fixture
def bench(depth, monkeypatch):
    """Run the command; what it would start is not started."""
    monkeypatch.setattr(limits, "SIDES", (16,))
    for module in (sample, clips):
        monkeypatch.setattr(module, "run_alone", lambda arguments: Ended(2.0, 123_000_000))
    return lambda *arguments: depth("bench", *arguments)


def rows(ran) -> dict[str, list[dict]]:
    assert ran.code == 0, ran.err
    kinds: dict[str, list[dict]] = {}
    for line in ran.lines:
        row = json.loads(line)
        kinds.setdefault(row["row"], []).append(row)
    return kinds


def test_tables(bench):
    ran = bench(*TINY, "--backend", "torch")
    assert ran.code == 0
    assert ran.lines[0].startswith("depthcli tiny (tiny), its weights, ") and "GFLOP" in ran.lines[0]
    assert ran.lines[1] == "one picture: 80x60 px, network input 70x56 px"
    for title in ("network alone, 1 turn after 0 of warm-up", "one picture, stage by stage, ms", "depth image, "):
        assert any(line.startswith(title) for line in ran.lines)
    cells = [line.split() for line in ran.lines if line.split()[:2] == ["1.00x", "torch"]]
    assert len(cells) == 3 and cells[2][-3:] == ["2.00", "2.00", "123"]
    assert "whole process: torch auto, 1 of 2" in ran.err


def test_json_and_nothing_else(bench):
    found = rows(bench(*TINY, "--backend", "torch", "--json"))
    assert list(found) == ["machine", "network", "roofline", "bandwidth", "limit", "stages", "process", "load"]
    assert found["network"][0]["name"] == "torch" and found["machine"][0]["input_size"] == [70, 56]


def test_the_fastest_is_remembered_in_the_users_cache(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(fastest_rules, "pick_backend", lambda choice: "onnx")
    item = Fastest("tiny", "fp32", "torch", {"torch": 1.0, "onnx": 2.0}, *fastest.here(), "2026-11-29")
    asked = []
    monkeypatch.setattr(pictures, "fastest_of", lambda row, precision, found: asked.append(precision) or item)
    ran = bench(*TINY, "--backend", "torch,onnx", "--remember", "--precision", "fp32")
    assert ran.code == 0 and asked == ["fp32"] and fastest.every() == [item]
    assert "remembered: auto takes torch for tiny here (torch 1.0 ms, onnx 2.0 ms)" in ran.err
    # A benchmark measures what auto takes.
    (network,) = rows(bench(*TINY, "--precision", "fp32", "--device", "cpu", "--json"))["network"]
    assert network["name"] == "torch" and fastest.every() == [item]


def test_remembering_needs_backends_to_compare(bench):
    ran = bench(*TINY, "--remember", "--backend", "torch")
    assert ran.code == 2 and "--remember compares " in ran.error


def test_the_tables_end_with_the_dearest_operators_and_the_limit(bench):
    ran = bench(*TINY, "--backend", "torch", "--profile")
    assert ran.code == 0
    titles = [line for line in ran.lines if line.startswith(("operators of torch fp32", "distance to the limit"))]
    assert len(titles) == 2 and ran.lines.index(titles[0]) < ran.lines.index(titles[1])
    assert sum("convolution" in line for line in ran.lines) > 1
    assert ran.lines[-1].startswith("floor by bytes: ")


def test_a_folder(bench):
    photo("in/a.jpg")
    photo("in/b.jpg")
    options = ("--encoder", "tiny", "--size", 56, "--runs", 1, "--images", "in", "--backend", "torch")
    assert rows(bench(*options, "--json"))["folder"][0]["pictures"] == 2
    ran = bench(*options)
    assert "depth dir, the whole process, 2 pictures, colour" in ran.out
    assert ran.lines[1].startswith("the first of 2 pictures: ")


def test_random_weights_are_named(bench):
    ran = bench("--encoder", "vits", *SMALL, "--backend", "torch")
    assert ran.code == 0 and ran.lines[0].startswith("Depth Anything V2 Small (vits), random weights, ")
    assert sum("not on this machine: random ones" in line for line in ran.err.splitlines()) == 1


def test_backends_are_listed_or_repeated(bench):
    for names in (["torch,auto"], ["torch", "--backend", "auto"]):
        network = rows(bench(*TINY, "--json", "--backend", *names))["network"]
        assert network[0]["name"] == "torch" and network[0]["backend"] == "torch"


def test_an_engine_that_is_not_here_is_a_row(bench, monkeypatch):
    monkeypatch.setitem(BACKENDS, "onnx", "tests.bench.test_pictures:Missing")
    ran = bench(*TINY, "--backend", "torch,onnx")
    assert ran.code == 0
    assert "onnx: no engine of that name is to be had" in ran.lines
    assert any(line.split()[:4] == ["-", "onnx", "auto", "-"] for line in ran.lines)


def test_no_engine_at_all_is_code_5(bench, monkeypatch):
    monkeypatch.setitem(BACKENDS, "onnx", "tests.bench.test_pictures:Missing")
    ran = bench(*TINY, "--backend", "onnx")
    assert ran.code == 5 and ran.err.splitlines()[-1] == "error: no engine of that name is to be had"


@pytest.mark.parametrize(
    "options",
    [
        ("--backend", "nonsense"),
        ("--backend", ","),
        ("--precision", "fp99"),
        ("--device", "abacus"),
        ("--runs", 0),
        ("--warmup", -1),
        ("--size", 3),
        ("--picture", "large"),
        ("--picture", "0x5"),
        ("--images", "nowhere"),
        ("--images", ".", "--picture", "64x48"),
        ("--encoder", "huge"),
        ("--model", "vits", "--encoder", "vits"),
        ("--clip", "clip.mp4"),
        ("--frames", 8),
        ("--video", "--frames", 7),
        ("--video", "--images", "."),
        ("--video", "--picture", "64x48"),
        ("--video", "--peers"),
        ("--video", "--profile"),
        ("--video", "--quality"),
        ("--quality",),
        ("--video", "--cost-per-hour", 1),
        ("--video", "--backend", "torchscript"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_what_makes_no_sense_is_code_2(bench, options):
    ran = bench(*options)
    assert ran.code == 2 and ran.out == "" and ran.err.splitlines()[-1].startswith("error: ")


def test_a_checkpoint_that_is_not_there_is_code_4(bench):
    ran = bench(*TINY, "--checkpoint", "none.safetensors")
    assert ran.code == 4 and "none.safetensors" in ran.error


def test_nothing_is_left_behind(bench):
    before = set(Path().iterdir())
    bench(*TINY, "--backend", "torch")
    assert set(Path().iterdir()) == before


def test_an_interruption_leaves_no_process_and_no_file(start, monkeypatch):
    Path("temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(Path("temporary").resolve()))
    process = start("bench", *TINY, "--backend", "torch")
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"whole process: ")
    process.send_signal(signal.SIGTERM)
    ran = ended(process)
    assert ran.code == 130 and ran.err.splitlines()[-1] == "interrupted"
    assert not list(Path("temporary").glob("depth-bench-*"))


@pytest.mark.slow
def test_it_starts_the_commands_it_times(depth, monkeypatch):
    monkeypatch.setattr(limits, "SIDES", (16,))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    photo("in/a.jpg")
    options = ("--encoder", "tiny", "--size", 56, "--runs", 1, "--warmup", 0, "--images", "in", "--backend", "torch")
    found = rows(depth("bench", *options, "--json"))
    (process,), (folder,) = found["process"], found["folder"]
    assert (process["error"], folder["error"]) == ("", "")
    assert process["again_s"] > 0 and folder["seconds"] > 0 and folder["over_network"] > 1


@pytest.mark.slow
def test_clips(bench):
    ran = bench(*CLIP)
    assert ran.code == 0
    assert ran.lines[:2] == ["depthcli tiny (tiny), its weights", "synthetic clip: 8 frames of 640x360 px"]
    for title in ("depth video, 1 turn; times faster than off, torch fp32", "step by step, ", "steadiness: "):
        assert any(line.startswith(title) for line in ran.lines)
    speed = [line.split() for line in ran.lines if line.split()[1:3] in (["off", "torch"], ["on", "torch"])]
    assert speed[0][0] == "1.00x" and all(line[-3:] == ["2.00", "4.00", "123"] for line in speed)
    assert sum(line.split()[:2] == ["on", "torch"] for line in ran.lines) == 2
    assert "random" not in ran.out and "whole process: on, torch fp32, 1 of 1" in ran.err


def test_a_clip_of_random_weights(bench):
    for number in range(3):
        photo(f"in/{number}.png")
    options = ("--video", "--clip", "in", "--encoder", "vits", "--size", 28, "--runs", 1, "--frames", 8)
    ran = bench(*options, "--warmup", 0, "--backend", "torch")
    assert ran.code == 0, ran.err
    assert "Depth Anything V2 Small (vits), random weights · Video-Depth-Anything Small (vda-vits), ran" in ran.lines[0]
    assert ran.lines[1] == "in clip: 3 frames of 80x60 px"
    assert sum(line.split()[:2] == ["vda", "torch"] for line in ran.lines) == 1  # step by step, and no steadiness
    assert "steadiness:" not in ran.out and "vda-vits has random weights" in ran.lines[-1]


def test_a_clip_on_an_engine_that_is_not_here(bench, monkeypatch):
    monkeypatch.setitem(BACKENDS, "onnx", "tests.bench.test_pictures:Missing")
    photo("in/a.png")
    ran = bench(*CLIP, "--backend", "onnx", "--clip", "in")
    assert ran.code == 0 and "on onnx: no engine of that name is to be had" in ran.lines
    assert any(line.split()[:4] == ["-", "off", "onnx", "auto"] for line in ran.lines)


def test_a_clip_that_cannot_be_read(bench):
    Path("clip.mp4").write_bytes(b"no clip")
    ran = bench(*CLIP, "--clip", "clip.mp4")
    assert ran.code == 1 and "clip.mp4" in ran.err.splitlines()[-1]


@pytest.mark.slow
def test_clips_as_json_by_the_commands_themselves(depth, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = rows(depth("bench", *CLIP, "--json"))
    assert list(found) == ["machine", "video", "load"]
    off, on = found["video"]
    assert (off["steady"], off["error"]) == ("off", "") and (on["steady"], on["error"]) == ("on", "")
    assert off["process_fps"] == pytest.approx(8 / off["process_s"])
    assert off["cut_bleeding"] == 0 and 0 < on["flicker"] < off["flicker"]
