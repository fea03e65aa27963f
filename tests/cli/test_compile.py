"""`depth compile`: files that other programs run, checked before they are there."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind
from depthcli.jobs import compiling

TARGETS = [name for name, target in compiling.TARGETS.items() if find_spec(target.engine)]
RUN = {"onnx": compiling._run_onnx, "openvino": compiling._run_openvino}


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_gives_what_the_tool_gives_and_says_what_it_is(depth, target, tiny_file):
    ran = depth("compile", "--target", target, "--encoder", "tiny", "--size", "42x56", "-b", 2, "-o", "nets/")
    main = Path("nets/tiny_42x56_b2").with_suffix(compiling.TARGETS[target].suffixes[0])
    assert ran.code == 0 and ran.lines[0] == str(main) and ran.lines[-1] == str(main.with_suffix(".json"))
    assert all(Path(line).is_file() for line in ran.lines) and len(list(Path("nets").iterdir())) == len(ran.lines)
    assert "differs from torch by" in ran.err

    from depthcli.backends import EngineChoice, open_backend
    from depthcli.weights import WeightsFile, digest
    from depthcli.zoo import find_row

    eager = open_backend(find_row("tiny"), WeightsFile(tiny_file, digest(tiny_file), ""), EngineChoice("torch"))
    image = np.random.default_rng(0).standard_normal((2, 3, 42, 56)).astype(np.float32)
    wanted, found = eager.run({"image": image})["depth"], RUN[target](main)(image)
    assert np.abs(found - wanted).max() <= 1e-5 * wanted.max() and wanted.std() > 0

    facts = json.loads(main.with_suffix(".json").read_text())
    assert facts["input"]["shape"] == [2, 3, 42, 56] and facts["output"]["shape"] == [2, 42, 56]
    assert DepthKind(facts["output"]["kind"]) is DepthKind.RELATIVE_DISPARITY and facts["output"]["near_is"] == "high"
    assert facts["weights_sha256"] == digest(tiny_file)
    inside = b"".join(path.read_bytes() for path in main.parent.iterdir() if path.suffix in (".onnx", ".xml"))
    assert facts["weights_sha256"].encode() in inside


@pytest.mark.skipif("onnx" not in TARGETS, reason="ONNX Runtime is not installed")
def test_what_answers_otherwise_is_not_kept(depth, monkeypatch):
    monkeypatch.setitem(compiling._RUNNERS, "onnx", lambda path: lambda image: np.ones((1, 42, 42), np.float32))
    ran = depth("compile", "--target", "onnx", "--encoder", "tiny", "--size", "42x42", "-o", "x.onnx")
    assert ran.code == 5 and "answers otherwise than torch" in ran.error
    assert not list(Path().glob("x.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--target", "neuron-core"), 2, "nothing is compiled for 'neuron-core'"),
        (("--target", "onnx", "--size", "100x100"), 2, "multiples of 14"),
        (("--target", "onnx", "--size", "large"), 2, "no size of an input"),
        (("--target", "onnx", "--size", "42x42", "-b", 0), 2, "--batch is at least 1"),
        (("--target", "onnx", "--size", "42x42", "-o", "x.xml"), 2, "written as .onnx"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(depth, monkeypatch, arguments, code, says):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    ran = depth("compile", *arguments, "--encoder", "tiny")
    assert (ran.code, ran.out) == (code, "") and says in ran.error


def test_a_missing_engine_is_named(depth, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = depth("compile", "--target", "onnx", "--encoder", "tiny", "--size", "42x42")
    assert ran.code == 5 and "pip install onnxruntime" in ran.error
