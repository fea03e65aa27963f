"""DepthCrafter's row: its files in two repositories, its licence, and what it cannot do."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from depthcli.choices.clips import ClipChoice, DiffusionChoice
from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.errors import CheckpointError, DownloadError, ModelError, UsageError
from depthcli.zoo import licences
from depthcli.zoo.diffusion import check_diffusion
from depthcli.zoo.download import obtain
from depthcli.zoo.licences import LicenceError, check_licence, check_usable
from depthcli.zoo.locate import find, inventory
from depthcli.zoo.rows import ROWS, find_row
from depthcli.zoo.verify import verify

ROW = find_row("depthcrafter")
CHOSEN = ModelChoice("depthcrafter")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHCLI_CACHE", str(tmp_path / "cache"))


def put(root: str, half: bool = True) -> None:
    for weights in ROW.files:
        name = weights.file if half else weights.file.replace(".fp16.", ".")
        path = Path(root, weights.repo.rpartition("/")[2], name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights.file.encode())


@pytest.mark.parametrize("half", [True, False])
def test_all_files_are_found_in_the_folders_of_their_repositories(half):
    assert find(ROW) is None
    put("checkpoints", half)
    found = find(ROW)
    assert found.path == found.parts[0] == Path("checkpoints/DepthCrafter/diffusion_pytorch_model.safetensors")
    assert len(found.parts) == len(ROW.files) and found.where == "checkpoints/"
    item = next(item for item in inventory() if item.row == ROW)
    assert item.bytes == sum(path.stat().st_size for path in found.parts)
    assert verify(ROW, found).ok is None  # of what is published no digest is known
    # The identity is that of all files.
    found.parts[3].write_text("{}")
    assert find(ROW).sha256 != found.sha256
    found.parts[3].unlink()
    assert find(ROW) is None


def test_a_named_folder_must_hold_them_all():
    put("mine")
    assert find(ROW, "mine").where == "named"
    Path("mine/stable-video-diffusion-img2vid-xt/vae/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"mine has no stable-video-diffusion-img2vid-xt/vae/config\.json"):
        find(ROW, "mine")


def test_the_licence_is_asked_for_once_and_names_what_is_allowed():
    with pytest.raises(LicenceError, match="research and education only, commercial use is not allowed") as refused:
        check_licence(ROW)
    assert refused.value.exit_code == 4 and refused.value.settings == ("accept_licence",)
    check_licence(ROW, accept=True)
    check_licence(ROW)
    with pytest.raises(LicenceError):  # another licence is another question
        check_licence(replace(ROW, licence="nothing at all"))


def test_a_remembered_licence_is_not_taken_from_a_folder_that_everybody_may_write_to(tmp_path):
    check_licence(ROW, accept=True)
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(LicenceError):
        check_licence(ROW)


def test_nothing_is_downloaded_before_the_licence_is_accepted():
    with pytest.raises(LicenceError):
        obtain(ROW)
    with pytest.raises(DownloadError, match="DepthCrafter") as failed:
        obtain(ROW, offline=True, accept_licence=True)
    assert "checkpoints/stable-video-diffusion-img2vid-xt/" in failed.value.hint


def test_only_this_row_is_restricted_and_no_other_needs_a_package():
    assert [row.name for row in ROWS if row.restricted] == ["depthcrafter"]
    for row in ROWS:
        if row != ROW:
            check_usable(row)


def test_missing_packages_are_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(licences.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"needs diffusers and transformers and accelerate .*depthcli\[diffusion\]"):
        check_usable(ROW, accept=True)
    assert importlib.util.find_spec("depthcli") is None


@pytest.mark.parametrize(
    ("clip", "named"),
    [
        (ClipChoice(input_size=518), "input_size"),
        (ClipChoice(panorama=True), "panorama"),
        (ClipChoice(batch=2), "batch"),
        (ClipChoice(backend=BackendChoice("openvino")), "backend"),
        (ClipChoice(steady="on"), "steady"),
        (ClipChoice(steady="off"), "steady"),
    ],
)
def test_what_it_does_not_have_is_refused_before_anything_else(clip, named):
    with pytest.raises(UsageError) as refused:
        check_diffusion(CHOSEN, clip)
    assert named in refused.value.settings


@pytest.mark.parametrize("name", ["steps", "window", "seed"])
def test_its_settings_are_for_it_alone(name):
    with pytest.raises(UsageError, match=f"`{name}` is for `model` depthcrafter"):
        check_diffusion(ModelChoice("vda-vits"), ClipChoice(diffusion=DiffusionChoice(**{name: 30})))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": -1},
        {"steps": 1001},
        {"window": 0},
        {"window": -3},
        {"overlap": -1},
        {"window": 25},
        {"window": 25, "overlap": 26},
        {"overlap": 110},
        {"max_res": 63},
        {"max_res": 0},
        {"max_res": 1 << 20},
        {"seed": -1},
        {"seed": 1 << 64},
        {"guidance": 0.5},
        {"guidance": float("nan")},
        {"guidance": float("inf")},
        {"cpu_offload": "some"},
    ],
)
def test_settings_that_make_no_sense_are_usage_errors(wrong):
    with pytest.raises(UsageError):
        DiffusionChoice(**wrong)


def test_the_ends_of_what_makes_sense_are_allowed():
    DiffusionChoice(steps=1, window=1, overlap=0, max_res=64, seed=(1 << 64) - 1)
    DiffusionChoice(window=26, overlap=25)
