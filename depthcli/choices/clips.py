"""Clips: how they become steady, which frames, and the steps of a diffusion model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Optional

from depthcli.choices.model import BackendChoice
from depthcli.choices.settings import check_batch, check_input_size, require
from depthcli.errors import UsageError

STEADY = ("auto", "on", "off")
OFFLOADS = ("none", "model", "sequential")
LATENT_MULTIPLE = 64  # pixels: sides of a diffusion model's input are multiples of it
MOST_STEPS, MOST_RES = 1000, 8192


@dataclass(frozen=True)
class DiffusionChoice:
    """How a diffusion model makes the depth of a clip; the defaults are those it was published with.

    steps: of denoising. window: frames that are denoised at once. overlap: frames that two windows share; 0 for windows
    that know nothing of each other. guidance: 1 for none; more runs the network twice a step. seed: of the noise.
    max_res: bound of the network input's longer side, pixels. cpu_offload: one of OFFLOADS, what stays in the memory of
    the host while another part runs on the GPU.
    """

    steps: int = 5
    window: int = 110
    overlap: int = 25
    guidance: float = 1.0
    seed: int = 42
    max_res: int = 1024
    cpu_offload: str = "none"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("window", 1), ("overlap", 0), ("seed", 0), ("max_res", LATENT_MULTIPLE)):
            if getattr(self, name) < least:
                raise UsageError(f"`{name}` must be at least {least}, got {getattr(self, name)}")
        for name, most in (("steps", MOST_STEPS), ("seed", (1 << 64) - 1), ("max_res", MOST_RES)):
            if getattr(self, name) > most:
                raise UsageError(f"`{name}` must be at most {most}, got {getattr(self, name)}")
        if self.overlap >= self.window:
            raise UsageError(
                f"`overlap` must be less than `window`, got {self.overlap} of {self.window}", "25 of 110 are usual"
            )
        if not 1 <= self.guidance < math.inf:
            raise UsageError(f"`guidance` must be 1 (none) or more, got {self.guidance:g}")
        require("cpu_offload", self.cpu_offload, OFFLOADS)

    @property
    def settings(self) -> dict[str, Any]:
        """The choices that shape depth, by the names that results note."""
        return {
            "steps": self.steps,
            "window": self.window,
            "overlap": self.overlap,
            "guidance": self.guidance,
            "seed": self.seed,
            "max-res": self.max_res,
        }


@dataclass(frozen=True)
class ClipChoice:
    """How a clip is processed, excluding the model.

    steady: "auto" takes a video model if its weights are here or can be downloaded, else the filter; "on" takes the
    filter behind a picture model; "off" keeps every frame as the picture model answers it.
    exact: align a video model's windows with the official code's arithmetic, at the size of the frames. For
    DepthCrafter the clip job writes the files of the official code; its numbers are the official ones anyway.
    input_size: length of the network input's shorter side in pixels, None for the model's own.
    batch: frames that share a run of a picture model; of a model for scenes, which takes 16 if it is 1.
    panorama: join the left and right edges of the frames.
    scenes: find cuts, and process each shot alone. diffusion: for a diffusion model.
    """

    steady: str = "auto"
    exact: bool = False
    input_size: Optional[int] = None
    backend: BackendChoice = field(default_factory=BackendChoice)
    batch: int = 1
    panorama: bool = False
    scenes: bool = True
    diffusion: DiffusionChoice = field(default_factory=DiffusionChoice)

    def __post_init__(self) -> None:
        check_batch(self.batch)
        check_input_size(self.input_size)
        require("steady", self.steady, STEADY)
        if self.exact and self.steady != "auto":
            raise UsageError("`exact` needs a video model", "leave out `steady`")
        if self.exact and self.panorama:
            raise UsageError("`exact` repeats the official script, which has no `panorama`", "leave out one of them")


@dataclass(frozen=True)
class FramesChoice:
    """Which frames of a clip become the views of a scene; at most one of the first four, by default `fps` 1.

    fps: so many of each second, by the frames' own times. stride: every so manieth. frames: so many in all, evenly.
    motion: whenever the picture has moved by this part of its diagonal. sharp: of the frames around each place that
    `frames` or `motion` gives, the sharpest.
    """

    fps: Optional[float] = None
    stride: Optional[int] = None
    frames: Optional[int] = None
    motion: Optional[float] = None
    sharp: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("fps", "stride", "frames", "motion") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"`{given[0]}` and `{given[1]}` contradict each other", "give one of them")
        for name in given:
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"`{name}` must be more than 0, got {getattr(self, name):g}")
        if self.sharp and not (self.frames or self.motion):
            raise UsageError("`sharp` chooses among frames", "give `frames` or `motion` too")

    @property
    def words(self) -> str:
        """The rule, for people."""
        if self.stride is not None:
            return f"frames {self.stride} apart"
        if self.frames is not None:
            return (
                f"the sharpest frames of {self.frames} stretches"
                if self.sharp
                else f"{self.frames} of its frames, evenly"
            )
        if self.motion is not None:
            return (
                f"a{' sharp' if self.sharp else ''} frame whenever the picture moved by {self.motion:g} of its diagonal"
            )
        return f"frames at {self.fps or 1:g} a second"

    @property
    def settings(self) -> dict[str, Any]:
        """The choice by the names that results note; None for what was left open."""
        return {**vars(self), "sharp": self.sharp or None}
