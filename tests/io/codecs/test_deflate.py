"""With and without ISA-L, files hold the same pixels and need about the same room."""

from __future__ import annotations

import io
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from depthcli.io.codecs import deflate
from depthcli.io.codecs.png import write_png

RAMP = (np.linspace(0, 65535, 300)[:, None] + 40 * np.sin(np.arange(400))).clip(0, 65535).astype(np.uint16)


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch) -> str:
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    return request.param


def test_what_was_packed_comes_back(library):
    for data in (b"", b"a", bytes(range(256)) * 500, np.random.default_rng(0).bytes(100_000)):
        assert zlib.decompress(deflate.packed(data)) == data


def test_a_stream_is_packed_piece_by_piece(library):
    stream = deflate.packer()
    pieces = [stream.compress(RAMP[top : top + 7].tobytes()) for top in range(0, 300, 7)]
    assert zlib.decompress(b"".join([*pieces, stream.flush()])) == RAMP.tobytes()


@pytest.mark.parametrize("pixels", [RAMP, (RAMP >> 8).astype(np.uint8), np.dstack([(RAMP >> 8).astype(np.uint8)] * 3)])
def test_pictures_hold_their_pixels_and_stay_small(library, pixels):
    file = io.BytesIO()
    write_png(pixels, file, {})
    assert (np.asarray(Image.open(file)) == pixels).all()
    assert len(file.getvalue()) < pixels.nbytes / 2
    again = io.BytesIO()
    write_png(pixels, again, {})
    assert again.getvalue() == file.getvalue()
