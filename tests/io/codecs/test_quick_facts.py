"""The quick reader of a PNG's facts agrees with the whole one, and leaves everything else to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind, DepthMap
from depthcli.io.codecs.files import read_facts, write_depth
from depthcli.io.codecs.quick_facts import png_facts


@pytest.mark.parametrize("format", ["color", "gray", "png16"])
def test_our_files_are_read_by_their_first_bytes(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.png"
    values = np.arange(600, dtype=np.float32).reshape(20, 30)
    write_depth(DepthMap(values, DepthKind.RELATIVE_DISPARITY), path, format)
    found = png_facts(path)
    assert found and found == read_facts(path)


@pytest.mark.parametrize("cut", [0, 4, 20, 33, 40, 50, 60])
def test_a_file_that_is_cut_or_foreign_is_left_to_others(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.png"
    write_depth(DepthMap(np.ones((4, 5), np.float32), DepthKind.RELATIVE_DISPARITY), path, "gray")
    data, facts = path.read_bytes(), read_facts(path)
    path.write_bytes(data[:cut])
    assert png_facts(path) is None
    path.write_bytes(data[:cut] + b"\xff" * 8 + data[cut + 8 :])
    assert png_facts(path) in (None, facts)  # planning asks whose it is, not whether it is whole
    assert png_facts(tmp_path / "missing.png") is None
