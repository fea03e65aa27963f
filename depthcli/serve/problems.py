"""Errors of the library as answers: application/problem+json (RFC 9457), with the exit code of the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional

from fastapi import Request
from fastapi.responses import Response

from depthcli.errors import (
    ClipError,
    DepthError,
    DiskFullError,
    EmptyShapeError,
    EngineError,
    ModelError,
    OutputError,
    PictureError,
    UsageError,
)

PROBLEM = "application/problem+json"
# The first class that an error is of decides.
_STATUS: tuple[tuple[type[DepthError], int], ...] = (
    (UsageError, 400),
    (PictureError, 422),
    (ClipError, 422),
    (EmptyShapeError, 422),
    (DiskFullError, 507),
    (OutputError, 500),
    (ModelError, 500),
    (EngineError, 500),
)


class Refusal(DepthError):  # noqa: N818 - it is an answer
    """An answer of the service itself. status: of HTTP. headers: further ones."""

    def __init__(
        self, status: int, message: str, hint: str = "", exit_code: int = 1, headers: Optional[Mapping[str, str]] = None
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.exit_code = exit_code
        self.headers = dict(headers or {})


class BusyError(Refusal):
    """The service has as much to do as it accepts."""

    def __init__(self, message: str, seconds: float = 1.0) -> None:
        headers = {"Retry-After": str(max(1, round(seconds)))}
        super().__init__(503, message, "try again later", EngineError.exit_code, headers)


def status_of(error: DepthError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, Refusal):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem_json(status: int, title: str, hint: str, exit_code: int, request_id: str) -> bytes:
    """Return the body of a problem."""
    body = {"title": title, "hint": hint, "status": status, "exit_code": exit_code, "request_id": request_id}
    return json.dumps(body).encode()


def problem_of(error: DepthError, request: Request) -> Response:
    """Return the answer for an error."""
    status = status_of(error)
    request_id = request.scope.get("state", {}).get("request_id", "")
    body = problem_json(status, error.message, error.hint, error.exit_code, request_id)
    headers: dict[str, Any] = error.headers if isinstance(error, Refusal) else {}
    return Response(body, status, headers, PROBLEM)
