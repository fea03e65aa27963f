"""What a checkpoint of `depth train` says is believed only if it is whole and this version knows the model."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from depthcli.errors import CheckpointError
from depthcli.zoo.identify import as_trained, check_identity, is_published, row_for_checkpoint
from depthcli.zoo.locate import find
from depthcli.zoo.provenance import provenance_of
from depthcli.zoo.rows import find_row
from depthcli.zoo.trained import KEY, SCHEMA, Trained, read_trained

INDOOR = find_row("metric-indoor-vits")
TRAINED = Trained("metric-indoor-vits", "Apache-2.0", INDOOR.title, "ab" * 32, 392, 7.5, {"pictures": 3})


def write(path: str = "best.safetensors", metadata: object = None, **facts) -> Path:
    metadata = replace(TRAINED, **facts).metadata() if metadata is None else metadata
    header = json.dumps({"__metadata__": metadata}).encode()
    Path(path).write_bytes(struct.pack("<Q", len(header)) + header)
    return Path(path)


def test_model_range_size_and_licence_come_from_the_file():
    path = write()
    assert read_trained(path) == TRAINED and row_for_checkpoint(path).name == INDOOR.name
    row = as_trained(INDOOR, path)
    assert (row.max_depth, row.input_size, row.licence) == (7.5, 392, "Apache-2.0")
    made = provenance_of(row, find(INDOOR, path))
    assert (made.licence, made.model) == ("Apache-2.0", INDOOR.name)
    assert made.model_title == f"best.safetensors, fine-tuned from {INDOOR.title}"


def test_its_name_does_not_make_it_another_model():
    path = write("depth_anything_v2_metric_vkitti_vits.safetensors")
    assert row_for_checkpoint(path).name == INDOOR.name
    assert not is_published(
        find_row("tiny"), find(find_row("tiny"), write("tiny.safetensors", model="tiny", max_depth=None))
    )


@pytest.mark.parametrize("asked", ["vits", "metric-outdoor-vits", "metric-indoor-vitb"])
def test_it_is_not_taken_for_another_model(asked):
    row = find_row(asked)
    with pytest.raises(CheckpointError, match=f"holds metric-indoor-vits, but {asked}|was asked for"):
        check_identity(row, find(row, write()))
    assert as_trained(row, write()) == row


@pytest.mark.parametrize(
    "facts",
    [
        {"model": "vits-of-tomorrow"},
        {"max_depth": None},
        {"max_depth": -1.0},
        {"max_depth": float("nan")},
        {"input_size": 3},
        {"licence": 5},
    ],
)
def test_facts_that_cannot_be_are_not_believed(facts):
    assert read_trained(write(**facts)) is None


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {KEY: "not json"},
        {KEY: json.dumps({"schema": SCHEMA})},
        {KEY: json.dumps({"schema": "depthcli-checkpoint/9", **asdict(TRAINED)})},
        {KEY: "[" * 100_000},
        [1],
    ],
)
def test_another_file_says_nothing(metadata):
    assert read_trained(write(metadata=metadata)) is None


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"\xff" * 64, b"{}" * 40])
def test_a_broken_file_says_nothing(content):
    Path("a.safetensors").write_bytes(content)
    assert read_trained(Path("a.safetensors")) is None and read_trained(Path("missing")) is None
