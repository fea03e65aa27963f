"""The house rules: who may import whom, what a light import loads, and which names are public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import depthcli
from depthcli.errors import DepthError

PACKAGE = Path(depthcli.__file__).parent

# From the ground up. A module imports only from rooms above its own line, and inside its own room.
ROOMS = (
    "version",
    "errors",
    "choices",
    "kinds",
    "camera",
    "calibration",
    "depthmap",
    "scene",
    "zoo",
    "pixels",
    "geometry",
    "views",
    "host",
    "io",
    "nets",
    "graphs",
    "backends",
    "temporal",
    "predict",
    "objects",
    "eval",
    "train",
    "jobs",
    "bench",
    "serve",
    "cli",
)
LEVEL = {room: level for level, room in enumerate(ROOMS)}
MAY_IMPORT_TORCH = (
    "nets/",
    "graphs/",
    "train/",
    "backends/torch_eager.py",
    "backends/diffusion.py",
    "backends/torchscript.py",
    "backends/onnx.py",
    "backends/torch_nodes.py",
    "bench/limits.py",
    "bench/other_forms.py",
    "bench/peers.py",
    "backends/export.py",
    "backends/openvino.py",
    "backends/neuron/",
    "jobs/compile.py",
)


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__")]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Every module a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in modules()} == set(LEVEL)


def test_imports_point_downward() -> None:
    # `depth.points()` and `depth.mesh()` hand a map to the room of shapes, for the sake of who writes them.
    exceptions = {"depthmap.py": {"depthcli.geometry.shapes", "depthcli.geometry.solids"}}
    upward = []
    for path in modules():
        room = room_of(path)
        named = exceptions.get(path.name, set())
        allowed = {name for name in imports_of(path) if name in named or name.rpartition(".")[0] in named}
        for name in imports_of(path) - allowed:
            parts = name.split(".")
            if parts[0] == "depthcli" and len(parts) > 1 and parts[1] in LEVEL and parts[1] != room:
                if LEVEL[parts[1]] >= LEVEL[room]:
                    upward.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not upward


def test_torch_stays_in_nets_and_its_engines() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(name.split(".")[0] == "torch" for name in imports_of(path))
        and not path.relative_to(PACKAGE).as_posix().startswith(MAY_IMPORT_TORCH)
    ]
    assert not found


def test_libav_is_loaded_in_one_place() -> None:
    """Where what it prints is turned off, and its absence is said in one line."""
    found = [path.name for path in modules() if any(name.split(".")[0] == "av" for name in imports_of(path))]
    assert found == ["libav.py"]


def test_a_second_program_is_started_in_one_place() -> None:
    """Where what is given to it can never be an option or an address, and where it is ended."""
    found = [path.name for path in modules() if "imageio_ffmpeg" in imports_of(path)]
    assert found == ["ffmpeg_program.py"]


def test_the_command_line_knows_no_network_and_no_engine() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("depthcli.")}
        assert not rooms & {"nets", "backends"}, path.name


def test_nobody_leaves_the_process_or_prints_but_the_command_line() -> None:
    for path in modules():
        if room_of(path) in ("cli", "zoo"):  # zoo.download.tell is the default `log` of a download
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit", "quit"), f"{path.name}:{node.lineno}"


def test_light_import_and_help_load_nothing_heavy() -> None:
    for statement in ("import depthcli", "import depthcli.cli.app", "import depthcli.zoo.rows"):
        code = f"import sys; {statement}; print(*sorted(sys.modules))"
        loaded = set(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        )
        assert not loaded & {"torch", "cv2", "PIL", "av", "imageio_ffmpeg", "huggingface_hub", "safetensors"}, statement
        if "zoo" not in statement:
            assert "numpy" not in loaded, statement
        if "cli" not in statement:
            assert "typer" not in loaded


def test_public_names() -> None:
    assert sorted(depthcli.__all__) == depthcli.__all__
    assert set(depthcli.__all__) == set(depthcli._HOMES)
    for name in depthcli.__all__:
        assert getattr(depthcli, name) is not None


def test_every_module_says_what_it_is() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path.name


def messages_of(path: Path) -> list[tuple[int, str]]:
    """Return (line, text) of every string of more than one word that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if " " in node.value
    ]


def test_below_the_command_line_no_message_names_a_flag() -> None:
    """Whoever uses Python or a service has no flags: a message names the setting in backticks."""
    flag = re.compile(
        r"(?<![\w-])(--(?!upgrade|extra-index-url|data-binary)[a-z]|-[of]\b(?! yuv4mpegpipe))"
    )  # pip, curl, ffmpeg
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in modules()
        if room_of(path) != "cli"
        for line, text in messages_of(path)
        if flag.search(text)
    ]
    assert not found, "\n".join(found)


def test_every_setting_that_a_message_names_has_a_flag() -> None:
    from depthcli.cli.wording import flags

    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in modules()
        for line, text in messages_of(path)
        for name in DepthError(text).settings
        if name not in flags()
    ]
    assert not found, "\n".join(found)


def test_nobody_probes_a_backend() -> None:
    """What a backend can do is in its traits."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("hasattr", "getattr")
            ):
                assert not re.search(r"backend\b", ast.unparse(node.args[0])), f"{path.name}:{node.lineno}"
