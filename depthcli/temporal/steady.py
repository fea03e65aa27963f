"""A filter that steadies the depth of one shot: a common scale for all frames, and an average along the motion.

Maps of single frames flicker: scale and shift of the whole map change, and each place is noisy. A gain and a shift per
frame undo the first, an average over the past the second. The average follows the flow, and skips places that were
hidden, or that changed in brightness or depth more than usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np

from depthcli.temporal.flow import Motion, find_motion, small_gray, warp

_COARSE = 4  # pixels of the flow per pixel of the grid on which scales are compared, without detail
_GAINS = (0.8, 1.25)  # limits of a frame's gain
_HOMEWARD = 0.15  # share of the way back to the network's own scale that each frame takes
_COMMON = 0.1  # least share of the picture seen in both frames, or the last scale is kept
_TRUSTED = 0.7  # least trust of a coarse pixel that counts as seen in both
_STRAY = 4.5  # median deviations (3 sigma) beyond which a pixel is left out

_MEMORY = 12.0  # frames: the past has a weight of at most 12/13
_SURPRISE = 5.0  # times the usual change of a place, at which the past's weight falls to 1/e
_SURPRISE_RANGE = (0.01, 0.25)  # limits of that change, as a share of the contrast
_USUAL = 0.9  # decay: the usual change is a mean over about 10 frames
_PATCH = 5  # side of the box over which a change is averaged, in the flow's pixels
_NEIGHBOURS = 9  # side of the box over which the usual change is averaged
_GRAIN = 3  # side of the box over which distrust spreads
_TINY = 1e-12


@dataclass(frozen=True)
class _Scale:
    """gain * depth + shift: from the numbers of a frame to those of the shot."""

    gain: float = 1.0
    shift: float = 0.0

    def of(self, depth: np.ndarray) -> np.ndarray:
        return depth * np.float32(self.gain) + np.float32(self.shift)


@dataclass(frozen=True, eq=False)
class _Past:
    """The state of a shot. (h, w) is the size of the flow, (H, W) that of the depth.

    gray: (h, w) uint8, the last frame. level: its coarse map in the shot's scale, not averaged.
    out: (H, W) float32, its steady map. count: (h, w) float32, number of frames averaged at each place.
    usual: (h, w) float32, usual change of each place; change: of the whole map. gain, shift: scale of the last frame.
    """

    gray: np.ndarray
    level: np.ndarray
    out: np.ndarray
    count: np.ndarray
    usual: np.ndarray
    change: float
    gain: float
    shift: float


class SteadyFilter:
    """Steadies the depth of one shot, map by map. Make a new one after a cut.

    metric: the maps are in metres, so their scale is kept, and only noise is averaged.
    Relative maps get a gain from 0.8 to 1.25 and a shift, and have no value below 0. The gain is the ratio of the
    spreads of two equally noisy maps, because noise biases a least-squares gain, or one towards the averaged past, to
    small values, and contrast fades. Each frame goes 15 % of the way back to the network's scale, against drift.
    """

    def __init__(self, *, metric: bool = False) -> None:
        self._metric = metric
        self._past: _Past | None = None

    def feed(self, rgb: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Return the steady (H, W) float32 map of the next frame. Raises ValueError if a size changes.

        rgb: (H', W', 3) uint8, the frame. depth: (H, W) float32, finite, of any size with the frame's aspect.
        """
        depth = depth.astype(np.float32, copy=False)
        gray = small_gray(rgb)
        size = (gray.shape[1], gray.shape[0])
        small = cv2.resize(depth, size, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(small, (size[0] // _COARSE, size[1] // _COARSE), interpolation=cv2.INTER_AREA)
        past = self._past
        if past is None:
            zeros = np.zeros(gray.shape, np.float32)
            self._past = _Past(gray, coarse, depth.copy(), zeros + 1, zeros, 0.0, 1.0, 0.0)
            return depth.copy()
        if past.out.shape != depth.shape:
            raise ValueError(f"the maps of a shot need one size, got {past.out.shape} and {depth.shape}")
        motion = find_motion(past.gray, gray)
        trust = motion.seen * motion.alike
        scale = _Scale() if self._metric else _scale_of(coarse, past, motion, trust)
        level = scale.of(coarse)
        moved = warp(past.out, motion, cv2.INTER_CUBIC)  # linear interpolation would blur more with every frame
        step = scale.of(small)
        step -= cv2.resize(moved, size, interpolation=cv2.INTER_AREA)
        step = np.abs(cv2.blur(step, (_PATCH, _PATCH)))
        change = _mean_change(past.change, step, trust)
        usual = warp(past.usual, motion)
        tolerance = _tolerance(usual, change, level)
        count = warp(past.count, motion) * trust * cv2.exp(-step / tolerance)
        np.minimum(count, _MEMORY, out=count)
        out = _blend(scale.of(depth), moved, _unspeckled(count / (count + 1)))
        if not self._metric:
            np.maximum(out, 0, out=out)
        usual = _USUAL * usual + (1 - _USUAL) * np.minimum(step, 3 * tolerance)
        self._past = _Past(gray, level, out, count + 1, usual, change, scale.gain, scale.shift)
        return out.copy()

    def state(self) -> dict[str, np.ndarray]:
        """Return the state to restore from; empty before the first frame."""
        past = self._past
        return {} if past is None else {field.name: np.array(getattr(past, field.name)) for field in fields(past)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a `state`, with the same bits."""
        if not state:
            self._past = None
            return
        gray, level, out, count, usual = (np.array(state[name]) for name in ("gray", "level", "out", "count", "usual"))
        change, gain, shift = (float(state[name]) for name in ("change", "gain", "shift"))
        self._past = _Past(gray, level, out, count, usual, change, gain, shift)


def _scale_of(coarse: np.ndarray, past: _Past, motion: Motion, trust: np.ndarray) -> _Scale:
    """Return the scale of a frame, from the places visible in the previous one too."""
    size = (coarse.shape[1], coarse.shape[0])
    common = cv2.resize(trust, size, interpolation=cv2.INTER_AREA) > _TRUSTED
    fitted = _Scale(past.gain, past.shift)
    if common.mean() >= _COMMON:
        wanted = warp(past.level, motion, cv2.INTER_CUBIC)
        fitted = _fit(coarse[common].astype(np.float64), wanted[common].astype(np.float64), fitted)
    gain = float(np.clip(fitted.gain ** (1 - _HOMEWARD), *_GAINS))
    # Shifts of different gains cannot be compared, so the shift is taken at the median of the map.
    middle = float(np.median(coarse))
    there = (1 - _HOMEWARD) * (fitted.gain * middle + fitted.shift) + _HOMEWARD * middle
    return _Scale(gain, there - gain * middle)


def _fit(values: np.ndarray, wanted: np.ndarray, otherwise: _Scale) -> _Scale:
    """Return the scale that gives (N,) `values` the mean and standard deviation of `wanted`, without outliers.

    Outliers are found by a first fit of median and median deviation. `otherwise` is returned for flat values.
    """
    middle, aim = np.median(values), np.median(wanted)
    spread, spread_aim = np.median(np.abs(values - middle)), np.median(np.abs(wanted - aim))
    if min(spread, spread_aim) <= _TINY:  # more than half of the values are equal, as in sky
        spread, spread_aim = values.std(), wanted.std()
    if min(spread, spread_aim) <= _TINY:
        return otherwise
    miss = np.abs((values - middle) * (spread_aim / spread) - (wanted - aim))
    kept = miss <= _STRAY * np.median(miss) + _TINY
    values, wanted = values[kept], wanted[kept]
    if values.std() <= _TINY:
        return otherwise
    gain = float(np.clip(wanted.std() / values.std(), *_GAINS))
    return _Scale(gain, float(wanted.mean() - gain * values.mean()))


def _mean_change(before: float, step: np.ndarray, trust: np.ndarray) -> float:
    """Return the mean over about 10 frames of the median change at trusted places."""
    comparable = trust > _TRUSTED
    if not comparable.any():
        return before
    now = float(np.median(step[comparable]))
    return _USUAL * before + (1 - _USUAL) * now if before else now


def _tolerance(usual: np.ndarray, change: float, level: np.ndarray) -> np.ndarray:
    """Return (h, w) float32 > 0: the change at which the past's weight falls to 1/e."""
    low, high = np.percentile(level, (2, 98))
    near = cv2.blur(usual, (_NEIGHBOURS, _NEIGHBOURS))
    least, most = (float(share * (high - low) + _TINY) for share in _SURPRISE_RANGE)
    return np.clip(np.float32(_SURPRISE) * np.maximum(near, np.float32(change)), least, most).astype(np.float32)


def _unspeckled(weight: np.ndarray) -> np.ndarray:
    """Return the weight eroded and smoothed: the depth must not show the flow's speckles at small moving objects."""
    return cv2.blur(cv2.erode(weight, np.ones((_GRAIN, _GRAIN), np.uint8)), (_PATCH, _PATCH))


def _blend(now: np.ndarray, past: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return now + weight * (past - now). weight: (h, w), of the past."""
    weight = cv2.resize(weight, (now.shape[1], now.shape[0]), interpolation=cv2.INTER_LINEAR)
    past = past - now
    past *= weight
    past += now
    return past
