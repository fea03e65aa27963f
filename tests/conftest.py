"""Every test runs in an empty folder of its own, with no hub in reach; the command `depth` runs in it, or beside it.

The network of these tests has random weights: what the commands do does not depend on how well a model is trained.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; torch reads this when it is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from PIL import Image

from depthcli.jobs.manifest import is_note
from tests.reference import reference_image, reference_state

ROOT = Path(__file__).parents[1]
# The options that make a command quick: the smallest network on a small input.
TINY = ("--encoder", "tiny", "--input-size", "56")


@dataclass(frozen=True)
class Ran:
    """How a command ended. stdout: its bytes."""

    code: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        return self.out[:-1].split("\n") if self.out else []

    @property
    def error(self) -> str:
        """The only line on stderr, which names an error."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line


@pytest.fixture(scope="session", autouse=True)
def signals() -> None:
    """Signals do what they do by default, also if the suite was started to ignore them, as by a script's `&`."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory) -> Path:
    """The cache of converted networks, one for all tests: converting takes half a second."""
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path, graphs):
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHCLI_CACHE", str(graphs))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "PYTHONIOENCODING", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    # The hub's library has read its environment by now.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory) -> Path:
    """The weights of the zoo's row `tiny`, random and always the same."""
    import torch
    from safetensors.torch import save_file

    from depthcli.nets.build import build_network
    from depthcli.zoo.rows import find_row

    shapes = {name: value.shape for name, value in build_network(find_row("tiny").network).state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file({name: torch.from_numpy(value).half() for name, value in reference_state(shapes).items()}, str(path))
    path.chmod(0o644)
    return path


@pytest.fixture
def tiny_weights(tiny_file) -> Path:
    """The same in checkpoints/ of the working folder, where `--encoder tiny` finds them."""
    path = Path("checkpoints/tiny.safetensors")
    path.parent.mkdir()
    path.symlink_to(tiny_file)
    return path


def photo(name: Path | str, size: tuple[int, int] = (80, 60), exif: bytes = b"") -> Path:
    """Make a picture of (width, height) pixels, of the kind its suffix says; folders are made."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(reference_image(size[1], size[0])).save(path, exif=exif)
    return path


def broken(name: Path | str) -> Path:
    """Make half a picture."""
    path = photo(name)
    path.write_bytes(path.read_bytes()[:-500])
    return path


def tree(folder: Path | str) -> dict[str, bytes]:
    """Return every file below a folder with its content, apart from notes about the results."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not is_note(path.name))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def files() -> list[str]:
    """What lies in the working folder, the weights apart."""
    return sorted(path for path in tree(".") if not path.startswith("checkpoints/"))


@pytest.fixture
def one_thread():
    """Torch computes with one thread: many make a small network slow, and other bits than one."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def depth(monkeypatch, capfdbinary, tiny_weights, one_thread):
    """Run the command in this process, as `start` with one thread: depth("image", "a.jpg") -> Ran. stdin: its bytes."""
    from depthcli.cli import app

    def run(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["depth", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.run()
        captured = capfdbinary.readouterr()
        ran = Ran(ended.value.code or 0, captured.out, captured.err.decode())
        assert "Traceback" not in ran.err
        return ran

    return run


def environment() -> dict[str, str]:
    """What a command that is a process of its own finds around it."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(tiny_weights):
    """Start the command as a process of its own, with pipes: start("dir", "photos") -> Popen."""
    started = []

    def run(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "depthcli", *map(str, arguments)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(subprocess.Popen(command, env=environment(), **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> Ran:
    """Wait for a started command."""
    out, err = process.communicate(timeout=120)
    ran = Ran(process.returncode, out or b"", (err or b"").decode())
    assert "Traceback" not in ran.err
    return ran


@pytest.fixture
def as_nobody(tmp_path) -> Iterator[None]:
    """Permissions count in this test, also where the suite is run by root."""
    if os.geteuid():
        yield
        return
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
