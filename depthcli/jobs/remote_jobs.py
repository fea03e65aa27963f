"""Jobs of a service: their states, and how long to wait between two questions about one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DONE, CANCELLED = "done", "cancelled"  # states of a job
ALIVE, ENDED = ("queued", "running", DONE), (DONE, "failed", CANCELLED)
_FIRST_LOOK, _NEXT_LOOK = 0.05, 0.5  # seconds between two questions about a job


class Waits:
    """How one job is followed."""

    def __init__(self) -> None:
        self._wait, self._ahead = _FIRST_LOOK, 0

    def seconds(self) -> float:
        """Return how long to wait before the next question: longer and longer, up to half a second."""
        now, self._wait = self._wait, min(_NEXT_LOOK, 1.5 * self._wait)
        return now

    def line(self, about: Mapping[str, Any]) -> str:
        """Return a line about the place of a job in the queue, "" if it has none or there is nothing new to tell."""
        ahead = int(about.get("ahead", 0))
        if ahead == self._ahead:
            return ""
        self._ahead = ahead
        return f"waits for {ahead} job{'s' * (ahead > 1)} before it" if ahead else ""
