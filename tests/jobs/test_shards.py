"""A shard is told by a picture's name, the same on every machine, or by what a scheduler says."""

from __future__ import annotations

import pytest

from depthcli.errors import UsageError
from depthcli.jobs.shards import Shard, name_hash, parse_shard

NAMES = [f"day {n % 7}/IMG_{n:04d}.jpg" for n in range(2000)]


def test_every_picture_belongs_to_one_part_and_parts_are_alike():
    parts = [[name for name in NAMES if Shard(number, 8).has(name)] for number in range(1, 9)]
    assert sorted(name for part in parts for name in part) == sorted(NAMES)
    assert all(200 < len(part) < 300 for part in parts)


def test_the_hash_of_a_name_is_the_same_everywhere_and_in_both_forms_of_an_accent():
    assert name_hash("a/b.jpg") == 0x67ED673B4D9FCCAE
    assert name_hash("caf\u00e9.jpg") == name_hash("cafe\u0301.jpg") != name_hash("cafe.jpg")
    assert name_hash("caf\udce9.jpg")  # a name that is not UTF-8


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "16"}, Shard(7, 16)),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "16"}, Shard(1, 16)),
        # A step inside a task of an array has numbers of its own, which are not meant.
        (
            {
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_COUNT": "4",
            },
            Shard(3, 4),
        ),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, Shard(4, 4)),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, Shard(1, 10)),
        ({"CLOUD_RUN_TASK_INDEX": "9", "CLOUD_RUN_TASK_COUNT": "10"}, Shard(10, 10)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard(2, 2)),
    ],
)
def test_auto_reads_what_schedulers_say(variables, shard):
    assert parse_shard("auto", variables) == shard


def test_an_indexed_job_tells_the_part_only_and_an_array_may_be_cut():
    assert parse_shard("auto", {"JOB_COMPLETION_INDEX": "4"}, count=32) == Shard(5, 32)
    with pytest.raises(UsageError, match=r"JOB_COMPLETION_INDEX tells the part and not the number.*`shard_count`"):
        parse_shard("auto", {"JOB_COMPLETION_INDEX": "4"})
    second = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "1000"}
    assert parse_shard("auto", second, offset=1000, count=1500) == Shard(1001, 1500)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0/4", {}, "is part 0 of 4, which is not there .parts are 1 to 4"),
        ("5/4", {}, "is part 5 of 4"),
        ("1/0", {}, "asks for 0 parts"),
        ("3", {}, "such as 3/16, or auto"),
        ("-1/4", {}, "such as 3/16, or auto"),
        ("1/4", {"offset": 2}, "belong to `shard` auto"),
        ("auto", {}, "`shard` auto finds none of SLURM_ARRAY_TASK_ID"),
    ],
)
def test_a_shard_that_is_not_there_is_refused(text, options, message):
    with pytest.raises(UsageError, match=message):
        parse_shard(text, {}, **options)
