"""`depth video --model depthcrafter` before any network is loaded."""

from __future__ import annotations

import pytest

from tests.io.video.clips import make_clip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--overlap", "110"), "--overlap must be less than --window, got 110 of 110"),
        (("--window", "10"), "--overlap must be less than --window, got 25 of 10"),
        (("--steps", "0"), "--steps must be at least 1, got 0"),
        (("--max-res", "10"), "--max-res must be at least 64, got 10"),
        (("--input-size", "518"), "--input-size is not for depthcrafter"),
        (("--steady", "on"), "--steady is not for depthcrafter"),
        (("--backend", "onnx"), "--backend is not for depthcrafter"),
        (("--exact", "-f", "ffv1"), "DepthCrafter's own script does not write ffv1"),
        (("--exact", "-o", "-"), "--exact writes depth from 0 to 1 over the whole clip, -o - does not"),
        (("--exact", "--range", "0,1"), "--range does not"),
        (("--exact", "--steady", "off"), "--steady"),
        (("--steps", "-1"), "--steps must be at least 1, got -1"),
        (("--steps", "1001"), "--steps must be at most 1000, got 1001"),
        (("--window", "0", "--overlap", "0"), "--window must be at least 1, got 0"),
        (("--window", "-3"), "--window must be at least 1, got -3"),
        (("--overlap", "-1"), "--overlap must be at least 0, got -1"),
        (("--overlap", "111"), "--overlap must be less than --window, got 111 of 110"),
        (("--max-res", "0"), "--max-res must be at least 64, got 0"),
        (("--max-res", "-64"), "--max-res must be at least 64, got -64"),
        (("--max-res", "8193"), "--max-res must be at most 8192, got 8193"),
        (("--guidance", "0.5"), "--guidance must be 1 (none) or more, got 0.5"),
        (("--guidance", "nan"), "--guidance must be 1 (none) or more, got nan"),
        (("--guidance", "inf"), "--guidance must be 1 (none) or more, got inf"),
        (("--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--cpu-offload", "all"), "--cpu-offload 'all'"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(depth, tmp_path, options, said):
    make_clip(tmp_path / "a.mp4", frames=2)
    ran = depth("video", "a.mp4", "--model", "depthcrafter", *options)
    assert ran.code == 2 and said in ran.error


def test_without_its_licence_or_its_packages_it_ends_in_one_line(depth, monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "cache"))
    make_clip(tmp_path / "a.mp4", frames=2)
    monkeypatch.setattr("depthcli.zoo.licences.importlib.util.find_spec", lambda name: object())
    ran = depth("video", "a.mp4", "--model", "depthcrafter")
    assert ran.code == 4 and "research and education only" in ran.error and "--accept-licence" in ran.error
    monkeypatch.setattr("depthcli.zoo.licences.importlib.util.find_spec", lambda name: None)
    ran = depth("video", "a.mp4", "--model", "depthcrafter", "--accept-licence")
    assert ran.code == 4 and "pip install 'depthcli[diffusion]'" in ran.error


def test_its_options_are_for_it_alone(depth, tmp_path):
    make_clip(tmp_path / "a.mp4", frames=2)
    ran = depth("video", "a.mp4", "--encoder", "tiny", "--steps", "3")
    assert ran.code == 2 and "--steps is for --model depthcrafter" in ran.error
