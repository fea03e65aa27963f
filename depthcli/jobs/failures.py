"""How many pictures may fail before a job ends: a wrong folder should not cost a night."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from depthcli.errors import UsageError

_ENOUGH = 100  # results before a share says something


@dataclass(frozen=True)
class FailureLimit:
    """most: number of failures, or None. share: part of all results, from the hundredth on, or None."""

    most: Optional[int] = None
    share: Optional[float] = None

    def exceeded(self, failed: int, done: int) -> bool:
        """Return whether a job should end. done: results, failures included."""
        if self.most is not None and failed > self.most:
            return True
        return self.share is not None and done >= _ENOUGH and failed > self.share * done


NO_LIMIT = FailureLimit()


def parse_failures(text: Optional[str]) -> FailureLimit:
    """Return the limit that "100" or "5%" names; none for None. Raises UsageError."""
    if text is None:
        return NO_LIMIT
    match = re.fullmatch(r"(\d{1,9})|(\d{1,3}(?:\.\d+)?)%", text.strip())
    if match is None or (match[2] and float(match[2]) > 100):
        raise UsageError(f"`max_failures` is {text!r}", "give a number, or a share such as 5%")
    return FailureLimit(most=int(match[1])) if match[1] else FailureLimit(share=float(match[2]) / 100)
