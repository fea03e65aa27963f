"""Where detectors are found, and what is said if they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from depthcli.errors import CheckpointError, DownloadError, UsageError
from depthcli.zoo.detectors import DETECTORS, find_detector, windows_of


def folder(path: str) -> Path:
    Path(path).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (Path(path) / name).write_bytes(b"{}")
    return Path(path)


def test_a_row_is_taken_from_checkpoints_the_cache_or_the_official_file(monkeypatch):
    with pytest.raises(DownloadError):
        find_detector("seg-nano", offline=True)
    Path("checkpoints").mkdir()
    Path("checkpoints/rf-detr-seg-n-ft.pth").write_bytes(b"x")
    assert find_detector("seg-nano").path == Path("checkpoints/rf-detr-seg-n-ft.pth")
    from huggingface_hub import constants

    store = Path(constants.HF_HUB_CACHE) / "models--Roboflow--rf-detr-seg-nano"
    cached = folder(str(store / "snapshots/abc"))
    (store / "refs").mkdir()
    (store / "refs/main").write_text("abc")
    assert find_detector("seg-nano", offline=True).path == cached
    own = folder("checkpoints/rf-detr-seg-nano")
    assert find_detector("seg-nano").path == own and find_detector("seg-nano").is_folder


def test_missing_weights_say_how_to_get_them():
    with pytest.raises(DownloadError) as error:
        find_detector("seg-large", offline=True)
    text = str(error.value)
    assert "RF-DETR Segmentation Large" in text and "`offline` forbids" in text and error.value.exit_code == 4
    assert "Roboflow/rf-detr-seg-large into checkpoints/rf-detr-seg-large/" in text and "`masks`" in text


def test_folders_and_files_by_their_paths():
    assert find_detector(str(folder("mine"))).name == "mine"
    Path("mine/config.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks config\.json"):
        find_detector("mine")
    with pytest.raises(CheckpointError, match=r"no other\.pth"):
        find_detector("other.pth")
    with pytest.raises(UsageError, match="seg-nano, seg-small"):
        find_detector("huge")


def test_windows_are_those_of_the_official_detectors():
    assert [(row.side, row.windows) for row in DETECTORS.values()] == [(312, 1), (384, 2), (432, 2), (504, 2)]
    assert windows_of(312) == 1 and windows_of(500) == 2
