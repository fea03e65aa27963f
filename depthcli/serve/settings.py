"""What a service may do, and for whom. Imports no web library, so that settings are checked before one is loaded."""

from __future__ import annotations

import ipaddress
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from depthcli.choices.model import BackendChoice, ModelChoice
from depthcli.choices.settings import check_input_size
from depthcli.errors import UsageError

PORT = 7373
TOKEN_VARIABLE = "DEPTH_TOKEN"
OLDEST_PYTHON = (3, 11)  # older ones have no Starlette with the fixes that a service needs


@dataclass(frozen=True)
class ServiceSettings:
    """How a service listens, what it loads, and its limits. Raises UsageError for an open door that was not asked for.

    host, port: where it listens; port 0 takes a free one. uds: path of a unix socket instead. token: that requests must
    bring; empty for none. no_token: other machines may come without one. hosts: further names of this machine.
    models: names of rows, the default one first; empty for the automatic choice. choice: where their weights are.
    detector: finds objects, as of `depth objects`; None for none.
    queue: pictures that may wait. max_bytes: of a picture's file. max_pixels: of a picture. keep_alive: seconds that a
    model other than the first stays loaded without a request; infinity for ever. drain: seconds to finish what was
    accepted. clips: folder of clips and scenes and their results; None for neither. max_clip_bytes: of a clip's file,
    or of the pictures of a scene. keep: seconds that their results are kept. disk: bytes that all of them may take.
    galleries: folders of results to show. page: whether the web page is there. root_path: the path under which a proxy
    shows the service.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    uds: Optional[Path] = None
    token: str = field(default="", repr=False)
    no_token: bool = False
    hosts: Sequence[str] = ()
    models: Sequence[str] = ()
    choice: ModelChoice = field(default_factory=ModelChoice)
    backend: BackendChoice = field(default_factory=BackendChoice)
    input_size: Optional[int] = None
    detector: Optional[str] = None
    queue: int = 64
    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    keep_alive: float = 1800.0
    drain: float = 60.0
    clips: Optional[Path] = None
    max_clip_bytes: int = 8 << 30
    keep: float = 24 * 3600.0
    disk: int = 20 << 30
    galleries: Sequence[Path] = ()
    page: bool = True
    root_path: str = ""

    def __post_init__(self) -> None:
        check_input_size(self.input_size)
        if not 0 <= self.port <= 65535:
            raise UsageError(f"`port` must be 0 to 65535, got {self.port}")
        if not (self.uds or self.token or self.no_token or is_loopback(self.host)):
            raise UsageError(
                f"{self.host} can be reached from other machines, and no token protects it",
                f"`token_file` or the variable {TOKEN_VARIABLE} gives one, `no_token` does without",
            )
        if self.token and self.no_token:
            raise UsageError("there is a token, and `no_token` was asked for", "leave out one of them")
        for name in ("queue", "max_bytes", "max_pixels", "max_clip_bytes", "disk"):
            if getattr(self, name) < 1:
                raise UsageError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for name in ("drain", "keep"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"`{name}` must be a time, got {getattr(self, name)}")
        if self.choice.checkpoint is not None and len(self.models) > 1:
            raise UsageError("`checkpoint` is the file of one model", "give one name to `models`")
        if self.root_path and not self.root_path.startswith("/"):
            raise UsageError(f"`root_path` must begin with /, got {self.root_path}")
        for folder in self.galleries:
            if not os.path.isdir(folder):
                raise UsageError(f"`gallery` {folder} is not a folder", "name a folder of results")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a service that listens on an address or a name."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: Optional[Path]) -> str:
    """Return the token in a file, or that of the environment; empty if there is none. Raises UsageError."""
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot read the token in {file}: {reason}", "write it there, on one line") from error
    if len(token) < 8 or not token.isascii() or not token.isprintable():
        raise UsageError(f"the token in {file} must be 8 or more printable ASCII characters", "openssl rand -hex 24")
    return token


def check_installed() -> None:
    """Raise UsageError if this Python is too old for a service, or its packages are not installed."""
    if sys.version_info < OLDEST_PYTHON:
        wanted, here = (".".join(map(str, version[:2])) for version in (OLDEST_PYTHON, sys.version_info))
        raise UsageError(f"the service needs Python {wanted} or newer, and this is {here}", "use a newer Python")
    try:
        import fastapi  # noqa: F401
        import fastapi_offline  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the service needs {error.name}", 'pip install "depthcli[serve]"') from error
