"""A process that frees memory in many threads gives it back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from depthcli.host import allocator
from tests.conftest import environment

# Blocks of all sizes up to 512 kB from eight threads, most of them freed, with a few that stay between them.
_PROGRAM = """
import random, re, sys, threading
from depthcli.host import allocator

def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

if "hold" in sys.argv:
    allocator.hold_little()
kept, lock = [], threading.Lock()

def work(number):
    rng = random.Random(number)
    blocks = [b"x" * rng.randrange(1000, 512000) for _ in range(100)]
    with lock:
        kept.extend(blocks[::20])

before = resident()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if "give" in sys.argv:
    allocator.give_back()
print(resident() - before - sum(map(len, kept)) / 1e6)
"""


def _beyond_what_is_kept(*steps: str) -> float:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *steps], env=environment(), stdout=subprocess.PIPE, check=True, text=True
    )
    return float(ran.stdout)


@pytest.mark.skipif(not allocator.is_known(), reason="glibc alone is told")
def test_freed_blocks_between_kept_ones_go_back_to_the_system():
    assert _beyond_what_is_kept() > 30  # MB: what would stay
    assert _beyond_what_is_kept("hold", "give") < 15


def test_where_it_is_not_known_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.is_known()
    allocator.hold_little()
    allocator.give_back()
