"""Memory and the time to the first picture do not grow with the number of names; benchmarks/million.py has a million.

A tenth of them here, in the same processes: a list of their paths alone would take 130 MB.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
COUNT, MOST_MB, MOST_SECONDS = 100_000, 24.0, 5.0
STEPS = ("the first picture", "all pictures", "shard 3/16", "counting", "opening a manifest", "merging two manifests")


def test_a_list_a_shard_a_manifest_and_ray_take_no_more_memory_for_more_names():
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/million.py"), "--names", str(COUNT)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    found = {
        name.strip(): (float(seconds), float(grown))
        for name, seconds, grown in re.findall(r"([a-z][a-zA-Z0-9/ ]+?) +([\d.]+) s +(-?[\d.]+) MB", ran.stdout)
    }
    print(ran.stdout)
    assert found.keys() >= set(STEPS)
    assert all(grown <= MOST_MB for _, grown in found.values()), ran.stdout
    assert found["the first picture"][0] <= MOST_SECONDS
    waited = re.search(r"([\d.]+) s after a worker was there", ran.stdout)  # if Ray is here
    assert waited is None or float(waited[1]) <= MOST_SECONDS
    assert f"{COUNT} all pictures" in ran.stdout and f"{COUNT} merging" in ran.stdout
