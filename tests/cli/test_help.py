"""The options and arguments of every command: none is lost, and each one is explained by `--help`."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import typer.main

from depthcli.cli import app

MODEL = "--checkpoint --encoder --metric --model --trust-checkpoint -m "
WEIGHTS = MODEL + "--max-depth --offline "
RUN = "--backend --device --precision -d "
SIZED = RUN + "--calibration --input-size "
COMPILED = "--allow-standin --artifacts --shape-policy "
REPORT = "--json --quiet --verbose -q -v "
RESULTS = "--batch --colormap --format --grayscale --if-exists --output --panorama -b -f -o "
CAMERA = "--f35 --focal --fov --intrinsics "
METRES = "--cloud-to-camera --fit --scale-from --unit-of-colmap "
PICTURES = (
    "--detail --calibration-from --scale "
    + METRES
    + CAMERA
    + WEIGHTS
    + SIZED
    + COMPILED
    + REPORT
    + RESULTS
    + "--keep-alpha --name --pred-only --preset "
)
SHAPE = "--axes --edges --farthest --mesh-size --points "
PICTURES += SHAPE
SERVER = " --server"

PLAIN = WEIGHTS + SIZED + COMPILED + REPORT

SCENE = (
    "--checkpoint --model --offline --trust-checkpoint -m --output -o --fps --frames --motion --sharp --stride "
    + RUN
    + REPORT
)

OPTIONS = {
    "": "--version",
    "image": PICTURES + SERVER,
    "dir": PICTURES
    + SERVER
    + " --chunk --cpus-per-worker --devices --dry-run --engine --exclude --files-from --gpus-per-worker"
    " --include --max-failures --mix-models --pack --ray-address --retries --shard"
    " --shard-count --shard-offset --workers -n",
    "video": PLAIN + RESULTS + METRES + CAMERA + SHAPE + "--calibration-from --end --exact --fps --max-frames"
    " --mix-models --pipe --range --rate --scale --scene --size --start --steady --stride"
    " --accept-licence --cpu-offload --guidance --max-res --overlap --seed --steps --window"
    " --devices --files-from --max-failures --shard --shard-count --shard-offset --workers" + SERVER,
    "scene": SCENE
    + "--format -f --if-exists --input-size --align-to-input-scale --no-align-to-input-scale --confidence"
    " --chunk --overlap --loops --no-loops --edges"
    " --max-views --mesh-size --metres --mixed --model-folder --no-show-cameras --points --poses --ray-pose"
    " --reference --resize --seed --show-cameras --sparse-points" + SERVER,
    "auto": SCENE,
    "stereo": "--detail --batch -b " + WEIGHTS + SIZED + COMPILED + REPORT + "--border --depth --end --exact --fill"
    " --fps --if-exists --layout --max-frames --mix-models --no-tags --output --panorama --rate --scene --screen --size"
    " --start --steady --strength --stride --swap --tags --view -o",
    "objects": WEIGHTS + SIZED + COMPILED + REPORT + CAMERA + METRES + "--calibration-from --classes --coco --colormap"
    " --csv --depth --depth-is --detail --detector --format --from --if-exists --kind --masks --max-objects --output"
    " --overlap --require-metric --scale --sort --threshold --track --trim-px -f -o --end --exact --fps --max-frames"
    " --rate --scene --size --start --steady --stride",
    "effect": "",
    **{
        f"effect {name}": f"--batch -b --detail --if-exists --output -o --panorama {PLAIN} {own}"
        for name, own in {
            "blur": "--focus --strength",
            "fog": "--visibility",
            "cut": "--farther-than --keep-nearest",
            "parallax": "--seconds --strength",
        }.items()
    },
    "eval": "",
    "eval poses": "--align --json",
    "eval cloud": "--json --threshold --voxel",
    "eval benchmark": WEIGHTS + SIZED + COMPILED + "--json --layout --prediction-kind --predictions --protocol --scene",
    "eval list": "--detail "
    + WEIGHTS
    + SIZED
    + COMPILED
    + "--align --errors --json --prediction-kind --predictions --root",
    "bench": MODEL + SIZED + COMPILED + "--clip --cost-per-hour --duration --frames --images --json --peers --picture"
    " --profile --quality --remember --runs --size --video --warmup",
    "convert": "--calibration-from --scale "
    + METRES
    + CAMERA
    + SHAPE
    + REPORT
    + "--colormap --depth-is --fill --format --from --if-exists --kind"
    " --output --photo --preset --size -f -o",
    "info": "--json",
    "calibrate": "--detail --input-size --json --output --quiet -o -q " + METRES + CAMERA + WEIGHTS + RUN + COMPILED,
    "compile": WEIGHTS
    + "--allow-cpu-ops --analyze-only --batch --detector --fast-math --from-dir --out --output --preset"
    " --self-test --size --target --timeout --workdir -b -o",
    "train": WEIGHTS + "--accumulate --batch --check --clip --device --ema --epochs --every --freeze --head-lr"
    " --input-size --limit --loss --lr --masks --no-augment --output --patience --precision --processes --quiet --root"
    " --schedule --seed --tensorboard --truth-format --truth-scale --val --wandb --warmup --weight-decay -b -d -o -q",
    "serve": RUN
    + COMPILED
    + "--calibration --input-size --checkpoint --detector --offline --max-depth --trust-checkpoint --models"
    " --keep-alive --check"
    " --host --port --uds --token-file --no-token --allow-host --no-page --root-path --queue --max-bytes"
    " --max-megapixels --drain --clips --max-clip-bytes --keep --disk --gallery",
    "models": "",
    "models list": "--json",
    "models pull": "--accept-licence",
    "models verify": "--checkpoint",
    "models path": "",
    "models cache": "--clear --forget --json",
    "manifest": "",
    "manifest merge": "",
    "manifest missing": "",
    "manifest verify": "--deep",
    "neuron": "",
    "neuron doctor": "",
}
ARGUMENTS = {
    "image": ["FILE..."],
    "dir": ["FOLDER"],
    "video": ["CLIP..."],
    "scene": ["INPUT..."],
    "auto": ["INPUT..."],
    "stereo": ["IN..."],
    "objects": ["IN..."],
    **{f"effect {name}": ["FILE..."] for name in ("blur", "fog", "cut", "parallax")},
    "convert": ["FILE..."],
    "info": ["FILE..."],
    "calibrate": ["FILE"],
    "eval list": ["LIST"],
    "eval poses": ["PREDICTED", "TRUTH"],
    "eval cloud": ["PREDICTED", "TRUTH"],
    "eval benchmark": ["TRUTH"],
    "train": ["DATA..."],
    "manifest merge": ["OUT"],
    "manifest missing": ["OUT", "[FOLDER]"],
    "manifest verify": ["OUT"],
    "serve": ["[URL]"],
    "models pull": ["MODEL..."],
    "models verify": ["[MODEL...]"],
    "models path": ["MODEL..."],
}
COMPLETION = {"--install-completion", "--show-completion"}


def commands(command: Any = None, name: str = "") -> dict[str, Any]:
    """Return {name: command} of the command line, the groups included; the command `depth` itself is ''."""
    command = command or typer.main.get_command(app.app)
    found = {name: command}
    for word, below in getattr(command, "commands", {}).items():
        found.update(commands(below, f"{name} {word}".strip()))
    return found


def options(parameter: Any) -> set[str]:
    """Return the spellings of an option, none for an argument."""
    return {name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("-")}


def test_these_are_all_commands():
    assert set(commands()) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_command_keeps_its_options_and_arguments(name):
    parameters = commands()[name].params
    assert set().union(*map(options, parameters)) - COMPLETION == set(OPTIONS[name].split())
    assert [one.metavar for one in parameters if not options(one)] == ARGUMENTS.get(name, [])


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_in_the_help_with_its_sentence(monkeypatch, capsys, name, flag):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(sys, "argv", ["depth", *name.split(), flag])
    with pytest.raises(SystemExit) as ended:
        app.run()
    out, err = capsys.readouterr()
    assert (ended.value.code or 0, err) == (0, "") and "Usage: " in out
    heads = {line: re.findall(r"(?<!\S)--?[\w-]+", line[:80].replace(",", " ")) for line in out.splitlines()}
    lines = {option: line for line, found in heads.items() for option in found}
    assert {*OPTIONS[name].split(), "--help", "-h"} <= set(lines)
    assert all("." in lines[option] for option in OPTIONS[name].split())
    assert all(metavar in out for metavar in ARGUMENTS.get(name, []))


def test_the_help_of_image_is_two_screens_with_its_examples_first_and_rare_options_last(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["depth", "image", "--help"])
    with pytest.raises(SystemExit):
        app.run()
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 78
    order = (
        "depth image photo.jpg ",
        "─ Arguments ─",
        "─ Options ─",
        "─ Model and speed ─",
        "─ Camera ─",
        "─ Metres ─",
        "─ 3D ─",
        "─ Advanced ─",
    )
    places = [out.index(text) for text in order]
    assert places == sorted(places)
    rare = "--trust-checkpoint --allow-standin --shape-policy --artifacts --calibration --max-depth --pred-only"
    assert all(out.index(option + " ") > places[-1] for option in rare.split())


def test_commands_stand_in_the_order_of_need():
    assert list(commands()[""].commands) == [
        "image",
        "dir",
        "video",
        "scene",
        "auto",
        "stereo",
        "objects",
        "effect",
        "convert",
        "info",
        "calibrate",
        "compile",
        "bench",
        "eval",
        "train",
        "manifest",
        "serve",
        "models",
        "neuron",
    ]


def test_the_list_of_commands_says_what_each_command_says_of_itself():
    group = commands()[""]
    first = {name: " ".join(command.help.split("\n\n")[0].split()) for name, command in group.commands.items()}
    assert dict(group.commands.sentences()) == first


@pytest.mark.parametrize(("name", "columns"), [("image", 50), ("image", 80), ("", 60), ("models verify", 200)])
def test_boxes_are_as_wide_as_the_terminal(monkeypatch, capsys, name, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["depth", *name.split(), "--help"])
    with pytest.raises(SystemExit):
        app.run()
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines if line[:1] in tuple("╭│╰")} == {columns}
    assert max(map(len, lines)) <= columns and not any("\x1b" in line for line in lines)
