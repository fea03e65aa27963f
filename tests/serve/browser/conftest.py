"""A service with clips and galleries, and a browser that opens its page, if there is one: see tests/io/browser.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import depthcli
from tests.conftest import TINY, broken, environment, photo
from tests.geometry.scenes import camera, metric
from tests.io.conftest import browser, visit
from tests.serve.browser.pages import DESK, NET

if TYPE_CHECKING:
    from tests.io.browser import Visit
    from tests.serve.running import Service

__all__ = ["browser", "visit"]


@pytest.fixture(scope="module")
def site(tmp_path_factory, tiny_file, graphs, browser) -> Iterator[Service]:
    from tests.serve.running import running

    folder: Path = tmp_path_factory.mktemp("site")
    make_galleries(folder, tiny_file, graphs)
    limits = ("--max-bytes", "1M", "--clips", "clips", "--gallery", "maps", "--gallery", "da3", "--gallery", "metric")
    with running(folder, tiny_file, *limits, DEPTHCLI_CACHE=str(graphs)) as made:
        yield made


@pytest.fixture
def open_page(visit) -> Iterator[Callable[..., Visit]]:
    """Open the page of a service; at the end, it asked nobody else and complained of nothing but refusals."""
    opened: list[tuple[Service, Visit]] = []

    def open_one(service: Service, place: str = "", **context) -> Visit:
        opened.append((service, visit(f"{service.address}/{place}", wait=False, **{**DESK, **context})))
        return opened[-1][1]

    yield open_one
    for service, there in opened:
        strangers = [url for url in there.requests if not url.startswith((f"{service.address}/", "data:", "blob:"))]
        assert strangers == [] and [text for text in there.complaints if not NET.search(text)] == []


def make_galleries(folder: Path, weights: Path, graphs: Path) -> None:
    """Write the results of three photos, one of which cannot be read, a scene as Depth Anything 3 lays it out, and a
    metric map without depth in its upper third."""
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/tiny.safetensors").symlink_to(weights)
    photo(folder / "photos/a.jpg", (120, 80))
    photo(folder / "photos/b.jpg", (80, 120))
    broken(folder / "photos/c.jpg")
    command = [sys.executable, "-m", "depthcli", "dir", "photos", *TINY, "-o", "maps", "-f", "color,npz,html", "-q"]
    around = {**environment(), "DEPTHCLI_CACHE": str(graphs)}
    assert subprocess.run(command, cwd=folder, env=around, stderr=subprocess.DEVNULL, check=False).returncode == 3
    frame = photo(folder / "da3/group/scene/depth_vis/0000.jpg")
    Image.fromarray(np.full((30, 40, 3), 200, np.uint8)).save(frame)
    photo(folder / "da3/group/scene/scene.jpg")
    (folder / "da3/group/scene/scene.glb").write_bytes(b"glTF")
    z = np.full((60, 80), 2.5, np.float32)
    z[:, 40:] = 4
    made = replace(metric(z, camera(70.0, (80, 60))), valid=np.arange(60)[:, None] >= np.full(80, 20))
    (folder / "metric").mkdir()
    depthcli.write_depth(made, folder / "metric/m_depth.npz")
    row = json.loads((folder / "maps/manifest.jsonl").read_text().splitlines()[0])
    both = np.full((60, 160, 3), 210, np.uint8)
    both[:, 80:] = 20
    Image.fromarray(both).save(folder / "metric/n_depth_side.png")
    depthcli.write_depth(made, folder / "metric/n_depth.npz")
    rows = [
        {**row, "input": "m.jpg", "outputs": ["m_depth.npz"]},
        {**row, "input": "n.jpg", "outputs": ["n_depth.npz", "n_depth_side.png"]},
    ]
    (folder / "metric/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
