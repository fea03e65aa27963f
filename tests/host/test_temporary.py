"""Temporary files that go with the value that names them."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from pathlib import Path

from depthcli.host.temporary import TemporaryFile
from tests.conftest import environment


def test_it_goes_with_the_last_reference_without_a_warning():
    made = TemporaryFile("depthcli-test-", ".tar")
    path, loop = made.path, [made]
    assert path.name.startswith("depthcli-test-") and path.suffix == ".tar" and path.read_bytes() == b""
    loop.append(loop)  # as a traceback does
    del made, loop
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not path.exists()


def test_one_that_was_moved_away_is_no_error():
    made = TemporaryFile("depthcli-test-")
    made.path.unlink()
    del made
    gc.collect()


def test_it_goes_with_the_process():
    code = "from depthcli.host.temporary import TemporaryFile; kept = TemporaryFile('depthcli-test-'); print(kept.path)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert ran.stdout.strip() and not Path(ran.stdout.strip()).exists() and ran.stderr == ""
