"""What the shell completes: commands, options and the values of options, without loading a library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.cli import compile as compile_command
from depthcli.cli import eval as eval_command
from depthcli.cli import options, video
from tests.conftest import environment

CODE = """
import os, sys
from depthcli.cli.app import app
for words in {lines!r}:
    words = ["depth", *words]
    os.environ.update(_DEPTH_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))
    try:
        app(prog_name="depth")
    except SystemExit:
        print("end of", words)
print(*sys.modules)
"""


def complete(*lines: list[str]) -> tuple[list[list[str]], set[str]]:
    """Return what bash gets for each line, and the modules that were loaded for all of them."""
    code = CODE.format(lines=list(lines))
    out = subprocess.run([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, check=True, text=True)
    found: list[list[str]] = [[]]
    for line in out.stdout.splitlines():
        if line.startswith("end of "):
            found.append([])
        elif line:
            found[-1].append(line)
    return found[:-1], set(found[-1][0].split())


CASES = (
    (["im"], ["image"]),
    (["image", "--for"], ["--format"]),
    (["image", "-f", "gr"], ["gray", "gray8"]),
    (["image", "-f", "color,n"], ["color,npz", "color,npy", "color,normal"]),
    (["video", "a.mp4", "--format", "ff"], ["ffv1"]),
    (["image", "--colormap", "inf"], ["inferno", "inferno_r"]),
    (["dir", "--encoder", "t"], ["tiny"]),
    (["image", "--metric", ""], ["indoor", "outdoor"]),
    (["image", "-m", "vda-metric-vitl"], ["vda-metric-vitl"]),
    (["image", "--backend", "o"], ["openvino", "onnx"]),
    (["bench", "--backend", "torch,a"], ["torch,auto", "torch,all"]),
    (["image", "--precision", "f"], ["fp32", "fp16"]),
    (["video", "--steady", "o"], ["on", "off"]),
    (["dir", "--if-exists", "s"], ["skip"]),
    (["image", "-d", "c"], ["cpu", "cuda"]),
    (["image", "--shape-policy", ""], ["strict", "stretch"]),
    (["video", "--pipe", "g"], ["gray16le"]),
    (["video", "--scene", ""], ["auto", "off"]),
    (["compile", "--target", "inf"], ["inf1", "inf2"]),
    (["eval", "--align", "m"], ["median"]),
    (["models", "pull", "vitb"], ["vitb"]),
    (["photo.jpg", "--pan"], ["--panorama"]),
    (["clip.mp4", "--stea"], ["--steady"]),
    (["photos", "--incl"], ["--include"]),
    # Nothing, so that the shell completes paths.
    (["image", "ph"], []),
    (["image", "-o", "o"], []),
    (["image", "--checkpoint", "ch"], []),
    (["dir", "ph"], []),
)


def test_commands_options_and_choices_complete_without_a_library():
    Path("photos").mkdir()
    found, modules = complete(*(line for line, _ in CASES))
    assert {" ".join(line): values for (line, _), values in zip(CASES, found)} == {
        " ".join(line): values for line, values in CASES
    }
    assert not modules & {"torch", "numpy", "cv2", "PIL", "av"}


def test_what_completes_is_what_there_is():
    from depthcli.eval.alignment import ALIGNMENTS
    from depthcli.jobs.clip_stream import PIPES
    from depthcli.jobs.compile import TARGETS
    from depthcli.zoo.rows import ENCODERS, ROWS

    assert set(options.MODELS) == {row.name for row in ROWS}
    assert set(options.ENCODERS) == set(ENCODERS)
    assert set(video.PIPES) == set(PIPES)
    assert set(eval_command.ALIGNMENTS) == set(ALIGNMENTS)
    assert set(compile_command.TARGETS) == set(TARGETS)


@pytest.mark.parametrize("option", ["--install-completion", "--show-completion"])
def test_completion_can_be_installed(depth, option):
    assert option in depth("--help").out
