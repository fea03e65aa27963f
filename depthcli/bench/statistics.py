"""Statistics of repeated times.

Machines are shared and their clocks vary, so contenders are measured in turns (each once, again and again), and a ratio
is the median of the turns' ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def p90(values: Sequence[float]) -> float:
    """Return the 90th percentile, interpolated linearly."""
    return float(np.percentile(values, 90))


def spread(values: Sequence[float]) -> float:
    """Return the distance from the first to the third quartile as a share of the median."""
    first, middle, third = np.percentile(values, (25, 50, 75))
    return float((third - first) / middle)


def times_faster(reference: Sequence[float], values: Sequence[float]) -> float:
    """Return how many times faster `values` are than `reference`: the median of the ratios, turn by turn."""
    return median([before / after for before, after in zip(reference, values)])
