"""`depth models`: what there is, what is here, and whether it is what it should be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from depthcli.depthmap import DepthKind
from depthcli.host import fastest
from depthcli.host.fastest import Fastest
from depthcli.zoo.locate import ASSETS
from depthcli.zoo.rows import ROWS, ModelTask
from depthcli.zoo.verify import digest
from tests.conftest import photo


def test_list_shows_every_model_with_its_meaning_licence_and_place(depth):
    ran = depth("models", "list")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.lines] == ["MODEL", *(row.name for row in ROWS)]
    purposes = {ModelTask.PICTURE: "pictures", ModelTask.CLIP: "video", ModelTask.SCENE: "scenes"}
    said = {
        DepthKind.METRIC_DEPTH: "metres",
        DepthKind.RELATIVE_DISPARITY: "disparity, relative",
        DepthKind.RELATIVE_DEPTH: "depth, relative",
    }
    for row, line in zip(ROWS, ran.lines[1:]):
        assert row.licence in line and said[row.kind] in line
        assert line.split()[1] == purposes[row.task]
    assert ran.lines[1].endswith("checkpoints/") and ran.lines[2].endswith("no")


def test_list_as_json(depth):
    rows = [json.loads(line) for line in depth("models", "list", "--json").lines]
    assert [row["name"] for row in rows] == [row.name for row in ROWS]
    assert (rows[0]["here"], rows[0]["path"]) == (True, "checkpoints/tiny.safetensors")
    assert (rows[1]["here"], rows[1]["path"], rows[1]["bytes"]) == (False, None, 99_218_434)


@pytest.mark.parametrize("command", ["path", "pull"])
def test_the_place_of_what_is_here_goes_to_stdout(depth, command):
    ran = depth("models", command, "tiny")
    assert (ran.code, ran.lines, ran.err) == (0, ["checkpoints/tiny.safetensors"], "")


def test_verify_says_what_a_file_holds(depth, tiny_weights):
    ran = depth("models", "verify", "tiny")  # the random weights of the tests, in checkpoints/
    assert ran.code == 4 and digest(tiny_weights) in ran.out and "not the published file" in ran.out
    tiny_weights.unlink()
    for arguments in ((), ("tiny",), ("tiny", "--checkpoint", ASSETS / "tiny.safetensors")):
        ran = depth("models", "verify", *arguments)
        assert ran.code == 0 and "verified, sha256" in ran.out and ran.lines[0].startswith("tiny: ")


def test_verify_goes_on_after_a_model_that_cannot_be_verified(depth, tiny_weights):
    tiny_weights.unlink()
    ran = depth("models", "verify", "vits", "tiny")
    assert ran.code == 4 and ran.error.startswith("error: vits is not on this machine")
    assert len(ran.lines) == 1 and ran.lines[0].startswith("tiny: ")


def test_verify_names_a_damaged_file(depth):
    with Path("checkpoints/depth_anything_v2_vits.pth").open("wb") as file:
        file.truncate(99_218_434)
    ran = depth("models", "verify", "vits")
    assert ran.code == 4 and "depth_anything_v2_vits.pth: not the published file" in ran.out
    assert ran.error == "error: not as published: vits (delete the file and pull it again)"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("path", "vits"), 4, "vits is not on this machine (depth models pull vits)"),
        (("verify", "vits"), 4, "vits is not on this machine"),
        (("pull", "vits"), 4, "cannot get depth_anything_v2_vits.pth"),
        (("pull", "vitg"), 4, "was never published"),
        (("path", "vitt"), 2, "no model is called 'vitt'"),
        (("verify", "--checkpoint", "nowhere.pth"), 4, "there is no checkpoint nowhere.pth"),
        (("verify", "tiny", "vits", "--checkpoint", "x.pth"), 2, "one --checkpoint is one model"),
    ],
)
def test_what_cannot_be_is_one_line(depth, arguments, code, message):
    ran = depth("models", *arguments)
    assert (ran.code, ran.out) == (code, "") and message in ran.error


def test_the_networks_that_are_kept_are_listed_and_cleared(depth, monkeypatch, tmp_path):
    from depthcli.host import graph_cache

    monkeypatch.setenv(graph_cache.FOLDER_VARIABLE, str(tmp_path / "graphs"))
    assert depth("models", "cache").err.startswith("0 networks, 0 MB of 8000 MB, in ")
    for name in ("first", "second"):
        with graph_cache.new_entry(name) as partial:
            (partial / "network.bin").write_bytes(bytes(2_000_000))
    ran = depth("models", "cache")
    assert sorted(line.split()[0] for line in ran.lines) == ["first", "second"] and "2 networks, 4 MB" in ran.err
    (row, _) = (json.loads(line) for line in depth("models", "cache", "--json").lines)
    assert row["bytes"] > 2_000_000 and row["removed"] is False and Path(row["path"]).is_dir()
    ran = depth("models", "cache", "--clear")
    assert ran.code == 0 and len(ran.lines) == 2 and "removed from" in ran.err
    assert depth("models", "cache").lines == [] and not Path(row["path"]).exists()


def test_the_fastest_backends_are_listed_and_forgotten(depth, monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "own"))
    here = Fastest("tiny", "auto", "onnx", {"openvino": 30.0, "onnx": 20.0}, *fastest.here(), "2026-11-29T12:00:00")
    fastest.remember(replace(here, machine="another CPU", network="vits"))
    fastest.remember(here)
    first, second = depth("models", "cache").lines
    assert first == "tiny auto: onnx  openvino 30.0 ms, onnx 20.0 ms  measured 2026-11-29, auto takes it"
    assert second.startswith("vits auto: onnx") and "not used here, it is of another CPU, " in second
    assert [json.loads(line)["counts"] for line in depth("models", "cache", "--json").lines] == [True, False]
    assert depth("models", "cache", "--clear").code == 0 and len(fastest.every()) == 2
    ran = depth("models", "cache", "--forget")
    assert ran.lines[0].endswith("measured 2026-11-29, forgotten") and fastest.every() == []
    assert depth("models", "cache").lines == []


@pytest.mark.parametrize(
    "command",
    [
        ("image", "a.jpg", "-o", "b.png"),
        ("dir", "photos", "-o", "maps"),
        ("eval", "list.json"),
        ("compile", "--target", "torchscript"),
        ("bench",),
        ("image", "a.jpg", "--backend", "torchscript"),
    ],
    ids=" ".join,
)
def test_a_model_for_video_is_refused_where_pictures_are_asked_of_it(depth, command):
    photo("a.jpg")
    photo("photos/a.jpg")
    Path("list.json").write_text(json.dumps([{"picture": "a.jpg", "truth": "a.jpg", "format": "nyu"}]))
    ran = depth(*command, "--model", "vda-metric-vits")
    assert (ran.code, ran.out) == (2, "")
    assert ran.error == "error: vda-metric-vits is a video model (use: depth video)"


def test_a_checkpoint_for_video_says_what_it_is(depth):
    import torch

    from depthcli.nets.build import build_network
    from depthcli.zoo.rows import NetworkConfig

    # Of the width of vits, which with the number of blocks tells its size.
    network = build_network(NetworkConfig(384, 12, 6, 32, (32, 32, 32, 32), (2, 5, 8, 11)), temporal=True)
    torch.save(network.state_dict(), "mine.pth")
    photo("a.jpg")
    for name in ("mine.pth", "video_depth_anything_vits.pth"):
        if name != "mine.pth":
            Path("mine.pth").rename(name)
        ran = depth("image", "a.jpg", "--checkpoint", name, "--trust-checkpoint", "--quiet")
        said = "Video-Depth-Anything Small, is a video model (use: depth video)"
        assert (ran.code, ran.err.splitlines()[-1]) == (2, f"error: {name}, {said}")
    ran = depth("image", "a.jpg", "--checkpoint", name, "--trust-checkpoint", "--encoder", "vits")
    assert ran.code == 4 and "is of Video-Depth-Anything" in ran.error
    Path(name).rename("mine.pth")
    ran = depth("image", "a.jpg", "--checkpoint", "mine.pth", "--trust-checkpoint", "--encoder", "vits")
    assert ran.code == 4 and "mine.pth is of Video-Depth-Anything, a video model (use: depth video)" in ran.error
