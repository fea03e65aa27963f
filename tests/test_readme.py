"""The README and the documents: their commands run, their options exist, their links lead somewhere.

Transcripts run in a folder with small pictures and a short clip, with the packaged model and no hub in reach.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from depthcli.cli.app import app
from tests.conftest import ROOT, photo
from tests.io.video.clips import make_clip
from tests.test_architecture import ROOMS

README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
MEASURED = [ROOT / "docs/log.md"]  # names options of other times and of other programs
# Their transcripts show what the commands print; elsewhere the inputs are the reader's.
EXECUTED = ("README.md", "docs/stereo.md", "docs/effects.md", "docs/pictures.md", "docs/outputs.md", "docs/models.md")
# Options of other programs that the documents name.
FOREIGN = {
    "--data-binary",  # of curl
    "--address",  # of ray
    "--nproc",
    "--torch-backend",
    "--index-url",
    "--prefer-binary",
    "--extra-index-url",
    "--onnx",
    "--save",
    "--build-arg",
    "--no-healthcheck",
}
NEEDED = {"onnx": "onnx", "openvino": "openvino"}  # targets of `depth compile`: the package that each needs


@dataclass(frozen=True)
class Step:
    """A command of a transcript and the lines printed below it."""

    command: str
    output: tuple[str, ...]


def transcripts(document: Path) -> Iterator[list[Step]]:
    """Yield the steps of each console block."""
    for block in re.findall(r"```console\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL):
        steps: list[Step] = []
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = part.splitlines()
            steps.append(Step(re.sub(r"\s{2,}#.*", "", command), tuple(line for line in output if line)))
        yield steps


def depth_commands(command: str) -> Iterator[list[str]]:
    """Yield the arguments of every `depth` in a shell command, without redirections."""
    words = shlex.split(command.replace("|", " | "), comments=True)
    while words:
        end = words.index("|") if "|" in words else len(words)
        if words[0] == "depth":
            redirected = [i for i, word in enumerate(words[:end]) if word in "<>"]
            yield words[1 : min([end, *redirected])]
        words = words[end + 1 :]


def parse(words: list[str]) -> None:
    """Parse the arguments of `depth` without running it; raises what the command line raises."""
    command = typer.main.get_command(app)
    words = list(words)
    while hasattr(command, "commands") and words and (not words[0].startswith("-") or "--protocol" in words):
        if words[0] not in command.commands and "list" in command.commands:  # of `depth eval`
            words.insert(0, "benchmark" if "--protocol" in words else "list")
        elif words[0] not in command.commands:  # a picture, a clip or a folder in the command's place
            words.insert(0, "video" if words[0].endswith(".mp4") else "image")
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):  # options of a group act while they are parsed: --version, --install-completion
        assert set(words) <= {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    else:
        command.make_context("depth", words)


def inline_commands(document: Path) -> list[str]:
    return re.findall(r"`(depth [^`]+)`", document.read_text(encoding="utf-8").replace("\n", " "))


def in_document(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=in_document)
def test_every_command_of_a_document_parses(document, capsys):
    for step in (step for steps in transcripts(document) for step in steps):
        for words in depth_commands(step.command):
            parse(words)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path not in MEASURED], ids=in_document)
def test_every_command_named_in_a_sentence_parses(document, capsys):
    for command in inline_commands(document):
        for words in depth_commands(command):
            try:
                parse(words)
            except Exception as error:  # a sentence may name `depth dir` without its arguments, or ask for help
                assert type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError", "Exit"), (command, error)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path not in MEASURED], ids=in_document)
def test_every_option_named_in_a_document_exists(document):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", document.read_text(encoding="utf-8")))
    assert named - FOREIGN - set(all_options(typer.main.get_command(app))) == set()


def all_options(command: object) -> Iterator[str]:
    """Yield every option of a command and its subcommands."""
    yield "--help"
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from all_options(child)


@pytest.mark.parametrize("name", EXECUTED)
def test_the_transcripts_of_a_document_are_what_the_commands_print(name, depth, tiny_weights):
    tiny_weights.unlink()  # the packaged weights
    for picture in ("photo.jpg", "coffee.jpg", "rocket.jpg", "photos/coffee.jpg", "photos/rocket.jpg"):
        photo(picture)
    make_clip(Path("clip.mp4"), frames=4)
    if name != "README.md":
        Path("photos/broken.jpg").write_text("no picture")
    code = None
    for step in (step for steps in transcripts(ROOT / name) for step in steps if step.output):
        if step.command == "echo $?":
            assert step.output == (str(code),)
            continue
        (words,) = depth_commands(step.command)
        ran = depth(*words)
        code = ran.code
        needed = NEEDED.get(words[words.index("--target") + 1]) if "--target" in words else None
        if needed and importlib.util.find_spec(needed) is None:
            assert ran.code and needed in ran.error
            continue
        printed = [*map(comparable, ran.lines)]
        shown = [*map(comparable, step.output)]
        assert [line for line in shown if line in printed] == printed
        errors = [*map(comparable, ran.err.splitlines())]
        assert [line for line in shown if line not in printed and line not in errors] == []
        assert ran.code == 0 or any(line.startswith("error: ") for line in shown)


def comparable(line: str) -> str:
    """Return a printed line without what differs between runs: times, tiny differences, why a download failed."""
    line = re.sub(r"(error: cannot get \S+):.*", r"\1", line)
    return re.sub(r"\d+(\.\d+)? s$|\d\.\de[+-]\d\d", "N", line)


@pytest.mark.parametrize("name", ["README.md", "docs/python.md", "docs/stereo.md"])
def test_the_python_of_a_document_runs(name, capsys, one_thread):
    for picture in ("photo.jpg", "photos/rocket.jpg"):
        photo(picture)
    make_clip(Path("clip.mp4"), frames=4)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(code, name, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    pictures = ["photo.jpg", "rocket.jpg"] if "estimator" in code else []
    assert [line.split()[0] for line in printed[:-4]] == pictures
    assert Path("photo.npz").exists() == ("write_depth" in code)


@pytest.mark.parametrize("document", DOCUMENTS, ids=in_document)
def test_every_make_target_of_a_document_exists(document):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|\$ )make ([a-z][a-z0-9-]*)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=in_document)
def test_every_link_of_a_document_leads_somewhere(document):
    for link in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", document.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if heading:
            assert heading in map(anchor, re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)), (
                link
            )


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_readme_stays_short_and_begins_with_what_succeeds():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140
    first = next(step for steps in transcripts(README) for step in steps if step.output)
    assert not first.output[0].startswith("error")


def test_the_readme_lists_every_model():
    from depthcli.zoo.rows import ROWS

    listed = README.read_text(encoding="utf-8")
    assert [row.name for row in ROWS if f"\n{row.name} " not in listed] == []


def test_the_index_of_documents_names_each():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    others = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]
    assert [name for name in others if f"({name})" not in index] == []


def test_every_file_named_in_the_architecture_exists():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*(?:/|\.(?:py|json)))`", text)
    assert len(named) > 30
    places = (ROOT, ROOT / "depthcli", ROOT / "benchmarks")
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_the_architecture_lists_every_room_from_the_ground_up():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z]+)(?:\.py|/)` \|", text.split("## Rooms")[1].split("```")[0], re.MULTILINE)
    assert set(listed) == set(ROOMS) - {"version"}
    assert sorted(listed, key=ROOMS.index) == listed
