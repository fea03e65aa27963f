"""One service for all tests of a module that only ask it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# It imports the service itself, which needs Python 3.11; the other modules skip themselves.
collect_ignore = [] if sys.version_info >= (3, 11) else ["test_runner.py"]

if TYPE_CHECKING:
    from tests.serve.running import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory, tiny_file, graphs) -> Iterator[Service]:
    from tests.serve.running import running

    folder: Path = tmp_path_factory.mktemp("service")
    limits = ("--max-bytes", "4M", "--max-megapixels", "2", "--clips", "clips", "--allow-host", "depth.example")
    with running(folder, tiny_file, *limits, DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


@pytest.fixture
def serving(tmp_path, tiny_file):
    """Run a service of its own in a block: with serving("--queue", 2, network=0.1) as service."""
    from tests.serve.running import running

    return lambda *options, **settings: running(tmp_path, tiny_file, *options, **settings)
