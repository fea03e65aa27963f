"""Download weights from the Hugging Face hub, verified.

The hub's library brings locks, temporary names, resuming, the progress bar, and a cache shared with other tools.
"""

from __future__ import annotations

import errno
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote, urlsplit

from depthcli.errors import DownloadError, Log, ModelError
from depthcli.zoo.identify import check_identity
from depthcli.zoo.licences import check_licence
from depthcli.zoo.locate import (
    ASSETS,
    CHECKPOINTS,
    DOWNLOADED,
    HUB,
    AnyPath,
    WeightsFile,
    find,
    how_to_place,
    hub_cache,
    whole_digest,
)
from depthcli.zoo.rows import Channel, ModelRow, ModelTask, Weights, find_row
from depthcli.zoo.verify import SHA256, digest

# Limit for the first request to the hub, with its name look-up and every address of the host.
CONNECT_SECONDS = 4.0
_LOGIN = "the network may need a login first"


def tell(line: str) -> None:
    """Print a line on stderr, apart from results."""
    print(line, file=sys.stderr, flush=True)


def obtain(
    row: ModelRow,
    *,
    checkpoint: AnyPath | None = None,
    offline: bool = False,
    folder: Path = CHECKPOINTS,
    log: Log = tell,
    accept_licence: bool = False,
) -> WeightsFile:
    """Return the row's weights, downloaded into the hub's cache if they are not on this machine.

    accept_licence: of a restricted row. log: takes one line before a download. The progress bar is the hub's.
    Raises LicenceError for a licence that was not accepted, CheckpointError for a file of another model, DownloadError
    for a failed download, ModelError for weights that were never published.
    """
    check_licence(row, accept_licence)
    file = find(row, checkpoint, folder) or _fetch(row, offline, log)
    check_identity(row, file)
    return file


def obtain_auto(
    *, offline: bool = False, folder: Path = CHECKPOINTS, log: Log = tell
) -> tuple[ModelRow, WeightsFile, str | None]:
    """Return vits and its weights if they are here or can be downloaded, else the packaged model and a notice."""
    row = find_row("vits")
    try:
        return row, obtain(row, offline=offline, folder=folder, log=log), None
    except DownloadError as error:
        tiny = find_row("tiny")
        file = find(tiny, folder=folder)
        if file is None:
            raise
        way = how_to_place(row)
        notice = f"using {tiny.name}, the small model in the package: {error.message}; for {row.name}, {way}"
        return tiny, file, notice


def _fetch(row: ModelRow, offline: bool, log: Log) -> WeightsFile:
    if row.weights.channel is Channel.PACKAGE:
        raise ModelError(f"{ASSETS / row.weights.file} is missing from this installation", "reinstall depthcli")
    if row.weights.channel is Channel.UNPUBLISHED:
        raise ModelError(f"{row.title} was never published", how_to_place(row))
    if row.weights.channel is Channel.TRAINED:
        raise ModelError(f"{row.name} has no weights until you train it on your own pictures", how_to_place(row))

    files = [
        fetch_file(weights, row.title, row.licence, offline, log, lambda reason: _failure(row, reason))
        for weights in row.files
    ]
    if len(files) == 1:
        return files[0]
    parts = tuple(file.path for file in files)
    return WeightsFile(parts[0], whole_digest(parts), DOWNLOADED, parts)


def fetch_file(
    weights: Weights, title: str, licence: str, offline: bool, log: Log, fail: Callable[[str], DownloadError]
) -> WeightsFile:
    """Return a file of the hub, downloaded into its cache. title, licence: for the line before a download.

    fail: makes the error for a reason; it says what to do instead. Raises it.
    """
    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        asked = "`offline`" if offline else "HF_HUB_OFFLINE"
        raise fail(f"it is not on this machine and {asked} forbids downloads")
    if hub_cache() is None:
        raise fail("there is no home directory to keep it in (set HOME or HF_HOME)")
    try:
        return _download(weights, title, licence, log, fail)
    except DownloadError:
        raise
    except Exception as error:  # each major version of the hub's library used another HTTP library
        raise fail(_reason(error)) from error


def _download(
    weights: Weights, title: str, licence: str, log: Log, fail: Callable[[str], DownloadError]
) -> WeightsFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    url = hf_hub_url(weights.repo, weights.file, revision=weights.revision)
    # Asked here first: hf_hub_download retries a silent hub for minutes.
    offer = _within(CONNECT_SECONDS, lambda: get_hf_file_metadata(url, timeout=CONNECT_SECONDS))
    if offer.commit_hash is None:  # a hub always names the commit
        raise fail(f"{_hub_host()} does not answer like the hub; {_LOGIN}")
    promised = offer.etag if SHA256.fullmatch(offer.etag or "") else None
    wanted = weights.sha256 or promised
    if promised != wanted and promised is not None:
        raise fail("the hub offers another file under this name than this version expects")

    _check_space(offer.size or weights.bytes or 0, fail)
    size = f"{(offer.size or weights.bytes or 0) / 1e6:.0f} MB"
    log(f"downloading {title}: {weights.file}, {size}, licence {licence}, into {constants.HF_HUB_CACHE}")
    path = Path(hf_hub_download(weights.repo, weights.file, revision=weights.revision))
    file = WeightsFile(path, digest(path), DOWNLOADED)
    if wanted not in (None, file.sha256):
        _remove(path)
        raise fail(f"the downloaded file is not the published one (sha256 {file.sha256}) and was deleted")
    return file


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return call(), or raise TimeoutError after that many seconds.

    A connect timeout counts for each address of a host and excludes the name look-up, so a network that drops packets
    would take many times as long. The abandoned thread is a daemon, which does not delay the exit.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        value, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value


def _remove(path: Path) -> None:
    # In the cache the path links to the blob, perhaps over a second link; one left behind would block a new download.
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))
    for each in chain:
        each.unlink(missing_ok=True)


def _failure(row: ModelRow, reason: str) -> DownloadError:
    hint = how_to_place(row) + (
        "" if row.kind.is_metric or row.task is ModelTask.SCENE else ", or set `encoder` to tiny"
    )
    return DownloadError(f"cannot get {row.weights.file}: {reason}", hint)


def _check_space(size: int, fail: Callable[[str], DownloadError]) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    place = next((folder for folder in (place, *place.parents) if folder.exists()), place)
    with suppress(OSError):
        free = shutil.disk_usage(place).free
        if free < size:
            room = f"{constants.HF_HUB_CACHE} has {free / 1e6:.0f} MB left"
            raise fail(f"it needs {size / 1e6:.0f} MB and {room}")


def _reason(error: BaseException) -> str:
    """Return why a download failed, and what to do about proxies and certificates."""
    from huggingface_hub import constants

    host = _hub_host()
    proxy = next((proxy.rpartition("://")[2].rpartition("@")[2].rstrip("/") for proxy in _proxies()), "")
    while type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ is not None:
        error = error.__cause__
    kind = type(error).__name__
    detail = _without_password(next(iter(str(error).splitlines()), ""))
    status = getattr(getattr(error, "response", None), "status_code", None)
    through = f" through the proxy {proxy}" if proxy else ""
    if status == 407 or (kind == "ProxyError" and "407" in detail):
        return f"the proxy {proxy} needs a name and a password (HTTP 407): HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    if kind == "ProxyError":
        return f"the proxy {proxy} cannot connect to {host} ({detail}); check HTTPS_PROXY and NO_PROXY"
    if status in (401, 403):
        return f"{host} refuses it (HTTP {status}){through}; set a token in HF_TOKEN, or accept the model's terms"
    if status == 404:
        return f"{host} does not have it (HTTP 404)"
    if status == 429:
        return f"{host} had too many requests from this address (HTTP 429): wait, or set a token in HF_TOKEN"
    if status == 511:
        return "the network needs a login first (HTTP 511): open any page in a browser"
    if status is not None:
        return f"{host} answers with HTTP {status}{through}, try again later"
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        why = detail.partition("verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"
        way = "if it is your company's, name its file in SSL_CERT_FILE"
        return f"the certificate of {host}{through} is not accepted: {why}; {way}"
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        place = os.environ.get(variable)
        if place and isinstance(error, (OSError, ValueError)) and not os.path.exists(place):
            return f"{variable} names {place}, which does not exist"
    if _is_errno(error, detail, (errno.ENOSPC, errno.EDQUOT)):
        return f"no space left for it in {constants.HF_HUB_CACHE}"
    if _is_errno(error, detail, (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)):
        return f"{constants.HF_HUB_CACHE} cannot be written to"
    if kind in ("FileMetadataError", "TooManyRedirects", "KeyError"):  # the last for a redirect without an address
        return f"{host}{through} does not answer like the hub; {_LOGIN}"
    if kind in ("UnsupportedProtocol", "MissingSchema", "InvalidSchema"):  # httpx, and requests before hub 1.0
        return f"HF_ENDPOINT={constants.ENDPOINT} is not the address of a hub like {HUB}"
    if proxy and (kind in ("InvalidURL", "InvalidProxyURL") or isinstance(error, (ValueError, ImportError))):
        return f"{proxy} is not a usable proxy ({detail}): HTTPS_PROXY=http://HOST:PORT"
    if "Timeout" in kind:
        return f"{host} does not answer{through}"
    if any(word in kind for word in ("Connect", "Network", "SSL", "ReadError")):
        return f"no connection to {host}{through} ({detail})" + ("; check HTTPS_PROXY and NO_PROXY" if proxy else "")
    if "Consistency check" in detail or "Protocol" in kind:
        return "the transfer was interrupted"
    return f"{kind}: {detail}"


def _is_errno(error: BaseException, detail: str, numbers: tuple[int, ...]) -> bool:
    """Return whether an error has one of these numbers; parts of the hub's library keep only its text."""
    return (isinstance(error, OSError) and error.errno in numbers) or any(
        f"os error {number})" in detail or f"[Errno {number}]" in detail for number in numbers
    )


def _hub_host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def _proxies() -> Iterator[str]:
    """Yield the proxies in the environment that a request to the hub may use, the likeliest first, unchanged."""
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    found = getproxies()
    if not proxy_bypass(urlsplit(constants.ENDPOINT).hostname or ""):
        yield from filter(None, (found.get(scheme) for scheme in (urlsplit(constants.ENDPOINT).scheme, "all")))


def _without_password(text: str) -> str:
    """Return a message without the user names and passwords in the addresses of proxies and of the hub."""
    from huggingface_hub import constants

    for address in (*_proxies(), constants.ENDPOINT):
        user = address.rpartition("://")[2].rpartition("@")[0]
        for secret in filter(None, (user, unquote(user), *user.split(":"), *unquote(user).split(":"))):
            text = text.replace(secret, "***") if len(secret) > 3 else text
    return re.sub(r"//[^/@\s]*@", "//", text)
