"""`depth compile`: files that other programs run, checked before they are there."""

from __future__ import annotations

import dataclasses
import json
import sys
import zipfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from depthcli import read_depth
from depthcli.depthmap import DepthKind
from depthcli.jobs import compile as compiling
from depthcli.nets.build import build_network
from depthcli.zoo import rows as zoo
from depthcli.zoo.rows import NetworkConfig, find_row
from tests.conftest import files, photo
from tests.reference import reference_state

# Those whose engine is here; inf1 has tests of its own.
TARGETS = [name for name, target in compiling.TARGETS.items() if find_spec(target.package) and name != "cpu-standin"]
MODEL = {"torch": ("--encoder", "tiny"), "torchscript": ()}
ON_ITS_SIDE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_gives_what_the_tool_gives_and_says_what_it_is(depth, target, tiny_file):
    ran = depth("compile", "--target", target, "--encoder", "tiny", "--size", "42x56", "-b", 2, "-o", "nets/")
    kind = "_torchscript" if target == "torchscript" else ""
    main = Path(f"nets/tiny_42x56_b2{kind}").with_suffix(compiling.TARGETS[target].suffixes[0])
    assert ran.code == 0 and ran.lines[0] == str(main) and ran.lines[-1] == f"{main}.json"
    assert all(Path(line).is_file() for line in ran.lines) and len(list(Path("nets").iterdir())) == len(ran.lines)
    assert "differs from torch by" in ran.err

    from depthcli.backends import open_backend
    from depthcli.choices.model import BackendChoice
    from depthcli.zoo.locate import WeightsFile
    from depthcli.zoo.rows import find_row
    from depthcli.zoo.verify import digest

    eager = open_backend(find_row("tiny"), WeightsFile(tiny_file, digest(tiny_file), ""), BackendChoice("torch"))
    image = np.random.default_rng(0).standard_normal((2, 3, 42, 56)).astype(np.float32)
    wanted, found = (
        eager.run({"image": image})["depth"],
        import_module(compiling.TARGETS[target].module).run_file(main)(image),
    )
    assert np.abs(found - wanted).max() <= 1e-5 * wanted.max() and wanted.std() > 0

    facts = json.loads(Path(f"{main}.json").read_text())
    assert facts["input"]["shape"] == [2, 3, 42, 56] and facts["output"]["shape"] == [2, 42, 56]
    assert DepthKind(facts["output"]["kind"]) is DepthKind.RELATIVE_DISPARITY and facts["output"]["near_is"] == "high"
    assert facts["weights_sha256"] == digest(tiny_file)
    inside = b"".join(path.read_bytes() for path in main.parent.iterdir() if path.suffix in (".onnx", ".xml", ".pt"))
    assert facts["weights_sha256"].encode() in inside
    files = {Path(line).name: digest(Path(line)) for line in ran.lines[:-1]}
    assert facts["files_sha256"] == files and facts["file_sha256"] == files[main.name]


@pytest.mark.skipif("onnx" not in TARGETS, reason="ONNX Runtime is not installed")
def test_what_answers_otherwise_is_not_kept(depth, monkeypatch):
    wrong = np.ones((1, 42, 42), np.float32)
    monkeypatch.setattr("depthcli.backends.onnx.run_file", lambda path: lambda image: wrong)
    ran = depth("compile", "--target", "onnx", "--encoder", "tiny", "--size", "42x42", "-o", "x.onnx")
    assert ran.code == 5 and "onnxruntime and torch differ by" in ran.error
    assert not list(Path().glob("x.*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--target", "neuron-core"), 2, "unknown --target 'neuron-core'"),
        (("--target", "onnx", "--size", "100x100"), 2, "multiples of 14"),
        (("--target", "onnx", "--size", "large"), 2, "'large' is not a size (give --size as 518x686: height x width)"),
        (("--target", "onnx", "--size", "42x42", "-b", 0), 2, "--batch must be at least 1"),
        (("--target", "onnx", "--size", "42x42", "-o", "x.xml"), 2, "ends in .onnx"),
        (
            ("--target", "torchscript", "--size", "42x42,56x42", "-o", "x.pt"),
            2,
            "2 networks do not fit into one file",
        ),
        (("--target", "torchscript", "--size", "42x42", "--preset", "common"), 2, "exclude each other"),
        (("--target", "torchscript", "--preset", "all"), 2, "unknown --preset 'all'"),
        (("--target", "torchscript", "--from-dir", "nowhere"), 2, "nowhere holds no pictures"),
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


class TestTorchScript:
    """Files that `depth compile` wrote give eager's depth, for the sizes that they were compiled for and no others."""

    def compiled(self, depth, *arguments: object) -> None:
        ran = depth("compile", "--target", "torchscript", "--encoder", "tiny", *arguments)
        assert ran.code == 0, ran.err

    def test_the_folders_pictures_say_which_sizes(self, depth):
        photo("in/a.jpg", (80, 60))
        photo("in/b.jpg", (80, 60))
        photo("in/upright.jpg", (80, 60), exif=ON_ITS_SIDE)
        ran = depth("compile", "--target", "torchscript", "--encoder", "tiny", "--from-dir", "in")
        assert ran.code == 0 and "210x280: 2 pictures" in ran.err and "280x210: 1 picture\n" in ran.err
        names = [Path(line).name for line in ran.lines if line.endswith(".pt")]
        assert names == ["tiny_210x280_torchscript.pt", "tiny_280x210_torchscript.pt"]
        assert {Path(line).parent for line in ran.lines} == {Path("checkpoints/compiled")}

        for backend in ("torch", "torchscript"):
            assert depth("dir", "in", "-o", backend, "-f", "npz", "--backend", backend, *MODEL[backend]).code == 0
        for name in ("a", "upright"):
            eager, other = (read_depth(f"{backend}/{name}_depth.npz") for backend in ("torch", "torchscript"))
            assert np.abs(eager.values - other.values).max() <= 1e-5 * eager.values.max() and eager.values.std() > 0
            assert "torchscript" in other.provenance.backend and other.provenance.sha256 == eager.provenance.sha256

    def test_a_batch_is_filled_up(self, depth):
        self.compiled(depth, "--size", "42x56", "-b", 2)
        for name in "abc":
            photo(f"in/{name}.png", (80, 60))
        options = ("-f", "npz", "--input-size", 42)
        assert depth("dir", "in", "-o", "x", "--backend", "torchscript", "-b", 3, *options).code == 0
        assert depth("dir", "in", "-o", "y", "--backend", "torch", *MODEL["torch"], *options).code == 0
        for name in "abc":
            found, wanted = (read_depth(f"{folder}/{name}_depth.npz").values for folder in "xy")
            assert np.abs(found - wanted).max() <= 1e-5 * wanted.max()

    def test_what_was_not_compiled_is_not_run(self, depth):
        self.compiled(depth, "--size", "42x56")
        photo("tall.png", (60, 80))
        photo("wide.png", (160, 60))
        for name, wanted in (("tall", "56x42"), ("wide", "42x112")):
            ran = depth("image", f"{name}.png", "--backend", "torchscript", "--input-size", 42)
            assert ran.code == 5 and f"wants a network input of {wanted}, there are 42x56" in ran.error
            assert f"--size {wanted}" in ran.error
        stretched = ("--backend", "torchscript", "--input-size", 42, "--shape-policy", "stretch")
        assert depth("image", "tall.png", *stretched).code == 5  # never on its side
        ran = depth("image", "wide.png", *stretched, "--json")
        assert ran.code == 0 and read_depth("wide_depth.png").provenance.input_size == (56, 42)
        assert "instead of 42x112" in str(json.loads(ran.lines[0])["notes"])

    def test_what_does_not_fit_is_said_before_torch_is_there(self, depth, tiny_file):
        photo("a.png", (80, 60))
        self.compiled(depth, "--size", "42x56", "-o", "nets/")
        whole = Path("nets/tiny_42x56_torchscript.pt").read_bytes()
        Path("cut.pt").write_bytes(whole[:5000])
        with zipfile.ZipFile("plain.pt", "w") as archive:
            archive.writestr("plain/data.pkl", b"")
        Path("other.pth").write_bytes(b"another checkpoint")
        for options, code, message in (
            ((), 5, "no network compiled for torchscript in checkpoints"),
            (("--artifacts", "nowhere"), 5, "no network compiled for torchscript in nowhere"),
            (("--artifacts", "cut.pt"), 4, "cut.pt is not a whole compiled network"),
            (("--artifacts", "plain.pt"), 4, "plain.pt has no description"),
            (("--artifacts", "nets", "--encoder", "vits"), 5, "holds networks of tiny, none of vits"),
            (("--artifacts", "nets", "--checkpoint", "other.pth"), 5, "are of another checkpoint"),
            (("--artifacts", "nets", "--precision", "bf16"), 5, "torchscript computes in fp32"),
            (("--artifacts", "nets", "--shape-policy", "crop"), 2, "unknown --shape-policy 'crop'"),
        ):
            ran = depth("image", "a.png", "--backend", "torchscript", *options)
            assert (ran.code, ran.out) == (code, "") and message in ran.error
        ran = depth("image", "a.png", "--encoder", "tiny", "--artifacts", "nets")
        assert ran.code == 2 and "--artifacts needs a compiled network" in ran.error

    def test_a_file_that_is_not_the_one_described_is_refused(self, depth):
        photo("a.png", (80, 60))
        self.compiled(depth, "--size", "42x56", "-o", "nets/")
        path = Path("nets/tiny_42x56_torchscript.pt")
        facts = json.loads(Path(f"{path}.json").read_text())
        Path(f"{path}.json").write_text(json.dumps({**facts, "contents_sha256": "0" * 64}))
        ran = depth("image", "a.png", "--backend", "torchscript", "--artifacts", "nets", "--input-size", 42)
        assert ran.code == 4 and "does not match its .json" in ran.error

    def test_the_file_alone_refuses_a_picture_on_its_side(self, depth):
        import torch

        from depthcli.graphs.jit import quiet_jit

        self.compiled(depth, "--size", "42x56", "-o", "x.pt")
        with quiet_jit():
            network = torch.jit.load("x.pt")
        assert network(torch.zeros(1, 3, 42, 56)).shape == (1, 42, 56)
        with pytest.raises(Exception, match="compiled for an input of"):
            network(torch.zeros(1, 3, 56, 42))


@pytest.mark.slow
def test_an_analysis_says_what_inf1_knows_and_writes_nothing(depth, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_neuron", None)
    network = dataclasses.replace(find_row("vits"), network=NetworkConfig(32, 5, 2, 16, (8, 16, 16, 16), (0, 1, 2, 3)))
    monkeypatch.setitem(zoo._BY_NAME, "vits", network)
    state = build_network(network.network).state_dict()
    shapes = {key: value.shape for key, value in state.items()}
    save_file({key: torch.from_numpy(value) for key, value in reference_state(shapes).items()}, "own.safetensors")
    options = ("--target", "inf1", "--analyze-only", "--size", "42x56,56x42")
    before = files()
    ran = depth("compile", *options, "--encoder", "vits", "--checkpoint", "own.safetensors")
    assert ran.code == 0 and "vits 42x56: no obstacle found" in ran.out and "vits 56x42" in ran.out
    assert "unknown to the converter: none" in ran.out and "aten::linear" in ran.out
    with monkeypatch.context() as patch:
        patch.setattr("depthcli.backends.neuron.analysis.inf1_operators", lambda: frozenset({"aten::linear"}))
        ran = depth("compile", *options, "--encoder", "tiny")
    assert ran.code == 5 and "cannot be compiled for inf1" in ran.out and "aten::_convolution" in ran.out
    # The converters of the newer chips publish no list: they take the graph as one piece, or say what they lack.
    assert depth("compile", "--target", "inf2", "--analyze-only", "--encoder", "tiny", "--size", "42x56").code == 0
    assert files() == before
    for target in ("onnx", "torchscript"):
        ran = depth("compile", "--target", target, "--analyze-only")
        assert ran.code == 2 and "--analyze-only needs --target inf1" in ran.error
