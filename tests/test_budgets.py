"""What a start may load, how much memory one picture may take, and what an installation consists of.

Nothing is timed: time and memory come from these numbers. Whoever raises one of them decides so.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import depthcli
from tests.conftest import environment, photo

PACKAGE = Path(depthcli.__file__).parent
# What a start does not need. Typer's usage errors and the progress bar load Rich; numbers with a point load pydantic.
NEVER = {"torch", "av", "scipy", "onnxruntime", "huggingface_hub", "safetensors", "rich", "pydantic"}
LIBRARIES = {"numpy", "cv2", "PIL", "openvino"}  # of one picture

# Modules that are loaded: ours, and all. The slack is for other versions of Python and of the libraries.
MOST_FOR_IMPORT = (1, 35)
MOST_FOR_HELP = (10, 150)
MOST_FOR_PICTURE = (104, 560)
MOST_FOR_CLIENT = (46, 280)
MOST_MEGABYTES = 200  # of the resident peak for one small picture through tiny; 165 on an EPYC
MOST_PACKAGE_MEGABYTES = 11
RUN = "from depthcli.cli import app\ntry:\n    app.run()\nexcept SystemExit as end:\n    assert not end.code, end.code"


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def loaded(code: str, *arguments: str) -> tuple[set[str], int]:
    """Return the modules that `code` loads beyond those of Python's start, and its peak of memory in MB."""
    program = (
        f"import sys; before = set(sys.modules)\n{code}\nnames = sorted(set(sys.modules) - before)\n"
        "import json, re\n"  # not ru_maxrss, which counts the memory of the process that forked this one
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024\n"
        "print(json.dumps([names, peak]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment(), stdout=subprocess.PIPE, check=True, text=True
    )
    names, peak = json.loads(ran.stdout.splitlines()[-1])
    return set(names), peak


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def check_number(names: set[str], most: tuple[int, int]) -> None:
    own = [name for name in names if name.partition(".")[0] == "depthcli"]
    assert len(own) <= most[0], sorted(own)
    assert len(names) <= most[1], sorted(tops(names))


def test_the_import_loads_no_library():
    names, _ = loaded("import depthcli")
    assert not tops(names) & (NEVER | LIBRARIES | {"typer"})
    check_number(names, MOST_FOR_IMPORT)


@pytest.mark.parametrize("flag", ["--help", "-h", "--version"])
def test_help_loads_no_command_and_no_library(flag):
    names, _ = loaded(RUN, flag)
    assert not tops(names) & (NEVER | LIBRARIES)
    commands = ("image", "dir", "video", "compile", "bench", "eval", "models", "neuron", "options", "running")
    assert not names & {f"depthcli.cli.{name}" for name in commands}
    check_number(names, MOST_FOR_HELP)


def test_one_picture_from_the_cache_loads_four_libraries_and_stays_small(monkeypatch, tmp_path):
    pytest.importorskip("openvino")
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "own"))  # which no other test clears
    photo("a.png")
    arguments = ("image", "a.png", "--encoder", "tiny", "--backend", "openvino")
    loaded(RUN, *arguments)  # the first run converts the network
    names, peak = loaded(RUN, *arguments)
    assert not tops(names) & NEVER and tops(names) >= LIBRARIES
    check_number(names, MOST_FOR_PICTURE)
    assert peak <= MOST_MEGABYTES


def test_a_client_loads_no_library(tmp_path, tiny_file):
    """What `--server` saves is the start: planning, sending and writing need no NumPy, and no reader of pictures."""
    if sys.version_info < (3, 11):
        pytest.skip("the service needs Python 3.11")
    from tests.serve.running import running

    photo("a.jpg")
    with running(tmp_path, tiny_file) as service:
        for _ in range(2):  # the second time it looks at the result that is there, whose picture it is
            Path("a_depth.npz").unlink(missing_ok=True)
            names, _ = loaded(RUN, "image", "a.jpg", "-f", "color,npz", "--server", service.address)
            assert Path("a_depth.npz").exists()
            assert not tops(names) & (NEVER | LIBRARIES | {"tarfile"})
            check_number(names, MOST_FOR_CLIENT)


def test_the_package_stays_small():
    """Three quarters are the weights of tiny."""
    sizes = {
        path.relative_to(PACKAGE).as_posix(): path.stat().st_size
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert sum(sizes.values()) / 1e6 <= MOST_PACKAGE_MEGABYTES, sorted(sizes, key=lambda name: -sizes[name])[:10]
    page = {".html", ".css", ".js", ".svg", ".jpg"}
    assert {Path(name).suffix for name in sizes} <= {".py", ".safetensors", ".txt", ".typed", *page}


def test_these_are_all_packages_that_an_installation_brings():
    project = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    block = project.partition("\ndependencies = [\n")[2].partition("\n]\n")[0]
    required = set(re.findall(r'^  "([\w-]+)', block, re.MULTILINE))
    assert required == {
        "av",
        "huggingface-hub",
        "imageio-ffmpeg",
        "numpy",
        "opencv-python-headless",
        "openvino",
        "pillow",
        "platformdirs",
        "rich",
        "safetensors",
        "torch",
        "typer",
    }
