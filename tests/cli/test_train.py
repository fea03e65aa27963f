"""`depth train` in the terminal: tables before and after, one line for each error, and files that tell the rest."""

from __future__ import annotations

import json
import signal
import sys
import time
import types
from pathlib import Path

import pytest

from depthcli.choices.model import ModelChoice
from depthcli.jobs.train import TrainJob, train
from depthcli.train.settings import TrainChoice
from tests.conftest import ended, files
from tests.train.rgbd import write_list

TINY = ("--encoder", "tiny", "--input-size", "28", "--device", "cpu")


def test_a_try_with_few_pictures_ends_with_tables_and_a_model(depth):
    write_list(8)
    ran = depth("train", "list.json", "-o", "run", *TINY, "--limit", 6, "--batch", 2)
    assert ran.code == 0
    assert "6 pictures, 100% of the depth known" in ran.err and "5 to train, 1 to validate" in ran.err
    assert "licence of the result: Apache-2.0" in ran.err
    assert {"before", "after", "range"} <= {line.split()[0] for line in ran.lines if line.strip()}
    assert ran.lines[-1] == "run/best.safetensors" and "--checkpoint run/best.safetensors" in ran.err
    names = [
        "best.safetensors",
        "curve.png",
        "data.png",
        "groups.csv",
        "last.pt",
        "log.csv",
        "scores.csv",
        "settings.json",
    ]
    assert [name for name in files() if name.startswith("run/")] == [f"run/{n}" for n in (*names, "validation.png")]
    assert depth("train", "list.json", "-o", "run", *TINY, "--limit", 6, "--batch", 2, "-q").err == ""


def test_a_check_writes_the_sheet_and_trains_nothing(depth):
    write_list(3)
    ran = depth("train", "list.json", "-o", "run", *TINY, "--check")
    assert (ran.code, ran.out) == (0, "") and "look at run/data.png" in ran.err
    assert [name for name in files() if name.startswith("run/")] == ["run/data.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("list.json", "-o", "list.json", *TINY), 2, "list.json is a file, not a folder (use another -o)"),
        (("list.json", "-o", "run", *TINY, "--val", "2"), 2, "a share from 0 to below 1"),
        (("list.json", "-o", "run", *TINY, "--val", "missing"), 2, "neither a list"),
        (("list.json", "-o", "run", *TINY, "--masks", "missing"), 2, "--masks is a folder of label pictures"),
        (("list.json", "-o", "run", *TINY, "--loss", "silog"), 2, "--loss silog does not fit relative_disparity"),
        (("list.json", "-o", "run", *TINY, "--precision", "fp16"), 5, "half precision trains on CUDA only"),
        (("list.json", "-o", "run", *TINY, "--max-depth", "5"), 2, "relative model without metres"),
        (("list.json", "-o", "run", *TINY, "--processes", "0"), 2, "--processes must be at least 1, got 0"),
        (("list.json", "-o", "run", *TINY, "--epochs", "0"), 2, "--epochs must be at least 1, got 0"),
        (("list.json", "-o", "run", "--model", "vda-vits"), 2, "is a video model"),
        (("list.json", "-o", "run", "--model", "da3-mono", "--offline"), 4, "DA3MONO-LARGE"),
        (("photos", "-o", "run", *TINY), 2, "photos has no images/train"),
    ],
)
def test_what_makes_no_sense_is_one_line(depth, arguments, code, reason):
    write_list(3)
    Path("photos").mkdir()
    ran = depth("train", *arguments)
    assert ran.code == code and ran.out == ""
    assert reason in ran.err.splitlines()[-1] and ran.err.splitlines()[-1].startswith("error: ")


def test_ctrl_c_ends_after_a_step_and_the_same_command_goes_on(start):
    """It starts processes, as a signal reaches no test in this one."""
    write_list(6)
    command = ("train", "list.json", "-o", "run", *TINY, "--batch", "1", "--epochs", "30", "--patience", "0")
    process = start(*command)
    while process.poll() is None and not Path("run/log.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    ran = ended(process)
    assert ran.code == 130 and "run the same command again to continue" in ran.err
    assert Path("run/last.pt").exists() and "Traceback" not in ran.err
    again = start(*command)
    lines = iter(again.stderr.readline, b"")
    assert any(b"going on after step" in line for line in lines)


def test_trackers_get_every_number(depth, monkeypatch):
    """A stand-in takes what Weights & Biases would, as it needs an account."""
    sent = []
    run = types.SimpleNamespace(
        log=lambda numbers, step: sent.append((step, numbers)), finish=lambda: sent.append("end")
    )
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **facts: run))
    write_list(4)
    assert depth("train", "list.json", "-o", "run", *TINY, "--limit", 4, "--batch", 3, "--wandb", "mine").code == 0
    steps = [item[0] for item in sent[:-1]]
    assert steps == [0, 1, 1] and sent[-1] == "end"
    assert sent[1][1]["train/loss"] > 0 and "val/abs_rel" in sent[2][1] and "val abs_rel/2-5 m" in sent[2][1]


def test_tensorboard_files_hold_every_number_once_also_after_an_interruption(depth):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write_list(5)
    job = TrainJob(
        [Path("list.json")],
        Path("run"),
        ModelChoice(encoder="tiny"),
        TrainChoice(epochs=2, batch=2, input_size=28),
        device="cpu",
        tensorboard=True,
    )
    stops = iter([False, True])
    assert train(job, stop=lambda: next(stops)).interrupted
    assert not train(job).interrupted
    found = events.EventAccumulator("run/tensorboard").Reload()
    assert [item.step for item in found.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [item.step for item in found.Scalars("val/abs_rel")] == [0, 2, 4]
    with open("run/log.csv") as stream:
        losses = [float(line.split(",")[2]) for line in stream.readlines()[1:]]
    assert [item.value for item in found.Scalars("train/loss")] == pytest.approx(losses, rel=1e-6)


def test_without_an_account_weights_and_biases_stays_offline(depth, monkeypatch):
    """A stand-in for the package, which would ask for a key here, or send."""
    given = {}

    def init(**facts):
        given.update(facts)
        return types.SimpleNamespace(log=lambda numbers, step: None, finish=lambda: None)

    library = types.SimpleNamespace(init=init, api=types.SimpleNamespace(api_key=None))
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    write_list(4)
    ran = depth("train", "list.json", "-o", "run", *TINY, "--limit", 4, "--wandb", "mine")
    assert ran.code == 0 and given["mode"] == "offline" and "wandb sync run/wandb/offline-run-*" in ran.err

    def fail(**facts):
        raise RuntimeError("no space")

    library.init = fail
    ran = depth("train", "list.json", "-o", "other", *TINY, "--limit", 4, "--wandb", "mine")
    assert ran.code == 2 and ran.err.splitlines()[-1].startswith("error: Weights & Biases does not start: no space")


@pytest.mark.parametrize(("flags", "module"), [(("--wandb", "mine"), "wandb"), (("--tensorboard",), "tensorboard")])
def test_a_missing_tracker_is_one_line_with_its_install_command(depth, monkeypatch, flags, module):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    write_list(4)
    ran = depth("train", "list.json", "-o", "run", *TINY, *flags)
    assert ran.code == 2 and f"--{module} needs its package" in ran.err and "pip install" in ran.err


def test_the_result_is_compiled_as_any_model(depth):
    pytest.importorskip("openvino", reason="no wheels for this Python or machine")
    write_list(4)
    assert depth("train", "list.json", "-o", "run", *TINY, "--limit", 4).code == 0
    ran = depth(
        "compile", "--target", "openvino", "--checkpoint", "run/best.safetensors", "--size", "28x42", "-o", "out"
    )
    assert ran.code == 0, ran.err
    (facts,) = Path("out").glob("*.json")
    assert "fine-tuned from depthcli tiny" in json.dumps(json.loads(facts.read_text()))
