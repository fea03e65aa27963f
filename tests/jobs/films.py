"""Clips, and results of clips, as small files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from depthcli.io.codecs.formats import CLIPS, Holds
from depthcli.io.codecs.quick_facts import SCHEMA
from depthcli.io.video.clip_output import ClipOutput, Timing
from depthcli.io.video.writers import video_writer
from depthcli.jobs.clip_results import ClipFiles
from tests.io.video.clips import SIZE, make_clip

FACTS = {"schema": SCHEMA, "model": "vits", "encoding": {"lo": 0.0, "hi": 1.0}}


def film(path: Path | str, format: str = "mp4", made_of: Path | None = None) -> Path:
    """Make a result of a clip as the clip job does; its content is of no matter here."""
    path = Path(path)
    holds = CLIPS[format].holds
    dtype = {Holds.COLOR: np.uint8, Holds.VALUES: np.float32}.get(holds, np.uint16)
    shape = (48, 64, 3) if holds is Holds.COLOR else (48, 64)
    facts = {"name": "x"} if made_of is None else ClipFiles.of(made_of).made_of(path.parent)
    timing = Timing(Fraction(24), Fraction(1, 24))
    with video_writer(ClipOutput(format, path, SIZE, timing, FACTS, made_of=facts)) as writer:
        for index in range(2):
            writer.write(np.full(shape, index, dtype), Fraction(index, 24))
    return path


def clip(path: Path | str) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return make_clip(Path(path), frames=2)
