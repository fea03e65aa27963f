"""What lies in deploy/: its commands are commands of depth, and its scripts do with exit codes what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from depthcli.cli.app import app
from depthcli.jobs.shards import Shard, parse_shard
from depthcli.serve.settings import PORT
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
SLURM = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "2"}


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def documents(name: str) -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with other packages, and not with all versions of them")
    return list(yaml.safe_load_all(text_of(name)))


def options_of(arguments: list[str]) -> dict[str, Any]:
    """Return what depth understands under a command line; an unknown option ends the test."""
    name, *rest = arguments
    command = typer.main.get_command(app).get_command(None, name)
    with command.make_context(name, list(rest)) as context:
        return context.params


def stand_in(name: str, *lines: str) -> None:
    """Put a program into ./bin that notes its arguments, one on each line, and does some lines of shell."""
    Path("bin").mkdir(exist_ok=True)
    program = Path("bin", name)
    program.write_text("\n".join(["#!/bin/bash", f'printf "%s\\n" "$@" >> {name}.calls', *lines]) + "\n")
    program.chmod(0o755)


def run(script: str, *arguments: str, **variables: str) -> int:
    environment = {"PATH": f"{Path('bin').resolve()}:/usr/bin:/bin", **variables}
    return subprocess.run(
        ["bash", str(DEPLOY / script), *arguments], env=environment, stderr=subprocess.DEVNULL
    ).returncode


@pytest.mark.parametrize(
    ("code", "starts", "requeued"),
    [(0, 0, False), (3, 0, False), (4, 0, False), (130, 0, True), (5, 2, True), (130, 20, False)],
)
def test_a_slurm_task_that_was_stopped_goes_back_to_the_queue(code: int, starts: int, requeued: bool) -> None:
    stand_in("srun", f"exit {code}")
    stand_in("scontrol")
    ended = run("slurm-array.sh", "in put", "out", "-f", "npz", **SLURM, SLURM_RESTART_COUNT=str(starts))
    assert ended == code
    assert Path("scontrol.calls").exists() == requeued
    if requeued:
        assert Path("scontrol.calls").read_text().split() == ["requeue", "7_3"]
    called = Path("srun.calls").read_text().splitlines()
    assert called == ["depth", "dir", "in put", "-o", "out", "--shard", "auto", "--quiet", "-f", "npz"]
    assert options_of(called[1:])["shard"] == "auto"


def test_a_slurm_task_can_run_in_a_container_and_in_a_second_array() -> None:
    stand_in("srun")
    more = ["--shard-count", "2000", "--shard-offset", "1000"]
    assert run("slurm-array.sh", "in", "out", *more, **SLURM, DEPTH="apptainer run depth.sif") == 0
    called = Path("srun.calls").read_text().splitlines()
    assert called[:4] == ["apptainer", "run", "depth.sif", "dir"]
    assert parse_shard("auto", {**SLURM, "SLURM_ARRAY_TASK_MIN": "1"}, 1000, 2000) == Shard(1003, 2000)


def test_a_step_is_told_to_stop_before_its_time_is_up() -> None:
    directives = re.findall(r"^#SBATCH (--\S+)", text_of("slurm-array.sh"), re.MULTILINE)
    assert {"--requeue", "--signal=TERM@60", "--array=1-256%64"} <= set(directives)


def test_batch_is_asked_for_an_array_with_the_words_of_depth() -> None:
    stand_in("aws")
    assert run("aws-batch.sh", "queue", "16", 's3://b/in "put\\', "s3://b/out", "-f", "gray") == 0
    calls = Path("aws.calls").read_text().splitlines()
    assert calls[:4] == ["batch", "register-job-definition", "--cli-input-json", f"file://{DEPLOY}/aws-batch-job.json"]
    command = json.loads(calls[calls.index("--container-overrides") + 1])["command"]
    assert command == ["dir", 's3://b/in "put\\', "-o", "s3://b/out", "--shard", "auto", "--quiet", "-f", "gray"]
    assert options_of(command)["shard"] == "auto"
    assert calls[calls.index("--array-properties") + 1] == "size=16"
    assert calls[calls.index("--job-definition") + 1] == json.loads(text_of("aws-batch-job.json"))["jobDefinitionName"]


@pytest.mark.parametrize("script", ["slurm-array.sh", "aws-batch.sh"])
def test_a_script_without_arguments_says_what_it_wants(script: str) -> None:
    assert run(script) == 2


def test_an_indexed_job_has_as_many_parts_as_completions() -> None:
    (job,) = documents("k8s-job.yaml")
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    options = options_of(container["args"])
    assert options["shard"] == "auto" and options["shard_count"] == spec["completions"] == 64
    last = parse_shard("auto", {"JOB_COMPLETION_INDEX": "63"}, 0, options["shard_count"])
    assert last == Shard(64, 64)
    fails = [rule for rule in spec["podFailurePolicy"]["rules"] if rule["action"] == "FailIndex"]
    assert fails[0]["onExitCodes"]["values"] == [2, 3, 4, 5]  # 130, stopped in time, is tried again


def serving_containers() -> list[tuple[str, list[str]]]:
    (compose,) = documents("compose.yaml")
    deployment = documents("k8s-serve.yaml")[0]
    return [
        ("compose.yaml", compose["services"]["depthcli"]["command"]),
        ("k8s-serve.yaml", deployment["spec"]["template"]["spec"]["containers"][0]["args"]),
    ]


def test_services_that_others_reach_want_a_token_and_know_their_name() -> None:
    for name, arguments in serving_containers():
        options = options_of(arguments)
        assert options["host"] == "0.0.0.0" and options["token_file"] is not None, name
        assert not options["no_token"] and "depthcli" in options["allow_host"], name


def test_compose_publishes_to_this_machine_only() -> None:
    service = documents("compose.yaml")[0]["services"]["depthcli"]
    assert service["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]


def test_pods_have_the_image_s_user_or_another_that_is_not_root() -> None:
    assert "USER 10001" in text_of("Dockerfile") and f"EXPOSE {PORT}" in text_of("Dockerfile")
    for name in ("k8s-serve.yaml", "k8s-job.yaml"):
        pod = documents(name)[0]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/cache", "/tmp"} <= mounted  # what depth writes to


def test_whoever_stops_a_service_waits_for_longer_than_it_drains() -> None:
    drain = options_of(["serve"])["drain"]
    assert drain == "60s"
    pod = documents("k8s-serve.yaml")[0]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 60 + 5
    assert documents("compose.yaml")[0]["services"]["depthcli"]["stop_grace_period"] == "90s"
    assert "TimeoutStopSec=90" in text_of("depthcli.service")


def test_the_unit_starts_a_service_that_only_this_machine_reaches() -> None:
    unit = text_of("depthcli.service")
    (line,) = re.findall(r"^ExecStart=/opt/depthcli/bin/depth (.*)$", unit, re.MULTILINE)
    options = options_of(line.replace("%d", "/run/credentials").replace("%S", "/var/lib").split())
    assert options["host"] == "127.0.0.1" and options["offline"]
    assert "LoadCredential=token:" in unit and "DynamicUser=yes" in unit and "IPAddressDeny=any" in unit


def test_the_image_is_made_of_pins_with_hashes() -> None:
    dockerfile = text_of("Dockerfile")
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", dockerfile, re.MULTILINE)
    assert 'ENTRYPOINT ["depth"]' in dockerfile and "--require-hashes -r requirements/build.txt" in dockerfile
    pins = (ROOT / "requirements/image.txt").read_text(encoding="utf-8")
    development = (ROOT / "requirements/dev.txt").read_text(encoding="utf-8")
    named = set(re.findall(r"^(\S+==\S+) ", pins, re.MULTILINE))
    assert {name.partition("==")[0] for name in named} >= {"torch", "openvino", "fastapi", "s3fs", "pillow-heif"}
    assert named <= set(re.findall(r"^(\S+==\S+) ", development, re.MULTILINE))  # what the suite ran with
    assert not any(name.startswith(("pytest==", "ruff==", "mypy==")) for name in named)
    kept = [line for line in text_of("Dockerfile.dockerignore").splitlines() if line.startswith("!")]
    assert all((ROOT / line[1:]).exists() for line in kept)


def test_every_file_says_how_it_was_checked() -> None:
    files = [
        path for path in DEPLOY.iterdir() if path.suffix in (".sh", ".yaml", ".service") or path.name == "Dockerfile"
    ]
    assert len(files) >= 7
    for path in files:
        if path.name != "check.sh":
            assert "make deploy-check" in path.read_text(encoding="utf-8"), path
            assert "Not shown: " in path.read_text(encoding="utf-8"), path
    assert all(os.access(path, os.X_OK) for path in DEPLOY.glob("*.sh"))
