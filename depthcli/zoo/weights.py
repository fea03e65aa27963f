"""Where a model's weights are: found on this machine, or fetched from the Hugging Face hub and verified. No torch here.

Looked for in this order: the file that was named, ./checkpoints/, the package, the hub's own cache, then the hub. The
cache is shared with every other tool; the hub's library brings its locks, temporary names, resuming and progress bar.
Reading the tensors out of the file is `nets/checkpoint.py`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import unquote, urlsplit

from depthcli.errors import CheckpointError, DownloadError, ModelError
from depthcli.zoo.rows import NETWORKS, ROWS, ModelRow, find_row

# The places a file can come from, as they are printed.
NAMED = "--checkpoint"
FOLDER = "checkpoints/"
PACKAGE = "package"
CACHE = "Hugging Face cache"
DOWNLOADED = "downloaded"

CHECKPOINTS = Path("checkpoints")
ASSETS = Path(__file__).parents[1] / "assets"
# The first question to the hub gets this long in all, name look-up and every address of the host included.
CONNECT_SECONDS = 4.0
HUB = "https://huggingface.co"
# What `transformers` calls its file in every repository.
TRANSFORMERS_FILE = "model.safetensors"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20

Talk = Callable[[str], object]
AnyPath = Union[str, Path]


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights on this machine.

    sha256: of its content, empty where it was not computed (`inventory`). where: the place it was found in, as printed.
    """

    path: Path
    sha256: str
    where: str


class InventoryItem(NamedTuple):
    """One model of the zoo: its file here or None, and the bytes it takes or would take (0 where not published)."""

    row: ModelRow
    file: Optional[WeightsFile]
    bytes: int


@dataclass(frozen=True)
class Verification:
    """What hashing a file has shown.

    ok: True where it is the published file, False where it is not, None where no digest is published to compare with.
    sha256: of its content. says: one line for people.
    """

    ok: Optional[bool]
    sha256: str
    says: str


def tell(line: str) -> None:
    """Print a line where it does not mix with results: on stderr."""
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# On this machine
# ---------------------------------------------------------------------------------------------------------------------


def find(row: ModelRow, checkpoint: AnyPath | None = None, folder: Path = CHECKPOINTS) -> WeightsFile | None:
    """Return the row's weights if they are on this machine, without the network, else None.

    checkpoint: this file and no other, or a folder in the layout of transformers.
    Raises CheckpointError where the named file does not exist or a file of the cache is not the published one.
    """
    located = _locate(row, checkpoint, folder)
    if located is None:
        return None
    path, where = located
    file = WeightsFile(path, digest(path), where)
    if where == CACHE and path.name == row.weights.file and row.weights.sha256 not in (None, file.sha256):
        raise CheckpointError(
            f"{path} is damaged: its sha256 is not that of the published file", "delete it, it is then fetched again"
        )
    return file


def digest(path: Path) -> str:
    """Return the sha256 of a file's content in hex; computed once per file and process.

    Blobs of the hub's cache are named by their sha256, but the name only repeats what some server once said, and a
    hundred megabytes take a tenth of a second, less than loading them: so the content is read, always.
    """
    try:
        stat = path.stat()
        return _digest(path.absolute(), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error


def inventory(folder: Path = CHECKPOINTS) -> list[InventoryItem]:
    """Return every model of the zoo with its file on this machine. Nothing is hashed, so sha256 is empty."""
    items = []
    for row in ROWS:
        located = _locate(row, None, folder)
        if located is None:
            items.append(InventoryItem(row, None, row.weights.bytes or 0))
        else:
            path, where = located
            items.append(InventoryItem(row, WeightsFile(path, "", where), path.stat().st_size))
    return items


def verify(row: ModelRow, file: WeightsFile) -> Verification:
    """Hash a file and compare it with what the zoo knows of the row, or with the name the hub's cache gave it."""
    sha256 = digest(file.path)
    blob = file.path.resolve().name
    wanted = row.weights.sha256 if file.path.name == row.weights.file else None
    if wanted is None and file.where in (CACHE, DOWNLOADED) and _SHA256.fullmatch(blob):
        wanted = blob
    if wanted is None:
        return Verification(None, sha256, f"{file.path}: no digest is published for it; its sha256 is {sha256}")
    if sha256 == wanted:
        return Verification(True, sha256, f"{file.path}: verified, sha256 {sha256}")
    return Verification(False, sha256, f"{file.path}: not the published file; its sha256 is {sha256}, not {wanted}")


@cache
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def _locate(row: ModelRow, checkpoint: AnyPath | None, folder: Path) -> tuple[Path, str] | None:
    if checkpoint is not None:
        return _named(checkpoint), NAMED
    for path, where in _places(row, folder):
        if os.path.isfile(path):  # unlike Path.is_file it takes a folder that may not be entered for an empty one
            return path, where
    return None


def _named(checkpoint: AnyPath) -> Path:
    path = Path(os.path.expanduser(checkpoint))  # which, unlike Path.expanduser, leaves an unknown ~user as it is
    if path.is_dir():
        path = path / TRANSFORMERS_FILE
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}", "--checkpoint takes a .pth or .safetensors file")
    return path


def _places(row: ModelRow, folder: Path) -> Iterator[tuple[Path, str]]:
    official = Path(row.weights.file)
    yield folder / official, FOLDER
    yield folder / official.with_suffix(".safetensors"), FOLDER
    if row.packaged:
        yield ASSETS / official, PACKAGE
    if row.downloadable:
        # What transformers would call its form of the model; of those for video there is none.
        twins = [] if row.temporal else [_transformers_repo(row)]
        yield from ((folder / twin.rpartition("/")[2] / TRANSFORMERS_FILE, FOLDER) for twin in twins)
        yield from ((path, CACHE) for path in _cached(row.weights.repo, row.weights.revision, row.weights.file))
        yield from ((path, CACHE) for twin in twins for path in _cached(twin, "main", TRANSFORMERS_FILE))


def _transformers_repo(row: ModelRow) -> str:
    # The official metric repositories are named after their data sets, their transformers twins after the scene.
    return row.weights.repo.replace("-Hypersim-", "-Indoor-").replace("-VKITTI-", "-Outdoor-") + "-hf"


def _cached(repo: str, revision: str, name: str) -> Iterator[Path]:
    cache = _hub_cache()
    if cache is None:
        return
    store = cache / f"models--{repo.replace('/', '--')}"
    if not _COMMIT.fullmatch(revision):
        try:
            revision = (store / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return
    yield store / "snapshots" / revision / name


def _hub_cache() -> Path | None:
    """Return the hub's cache; None where there is no home for it, as in a container of a user that has no name."""
    # Only the constants: the rest of the hub's library takes half a second to import, for a path that is documented.
    from huggingface_hub import constants

    folder = os.path.expanduser(constants.HF_HUB_CACHE)
    homeless = os.environ.get("HOME") == "" or not os.path.isabs(os.path.expanduser("~"))
    named = any(map(os.environ.get, ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME")))
    return None if homeless and not named else Path(folder)


# ---------------------------------------------------------------------------------------------------------------------
# From the hub
# ---------------------------------------------------------------------------------------------------------------------


def obtain(
    row: ModelRow,
    *,
    checkpoint: AnyPath | None = None,
    offline: bool = False,
    folder: Path = CHECKPOINTS,
    talk: Talk = tell,
) -> WeightsFile:
    """Return the row's weights, downloaded into the hub's cache where they are not on this machine.

    talk: takes one line that says what is about to be downloaded. The progress bar is the hub's, on stderr.
    Raises CheckpointError for a file that is of another model, DownloadError where nothing can be fetched, ModelError
    where there is nothing to fetch.
    """
    file = find(row, checkpoint, folder) or _fetch(row, offline, talk)
    check_identity(row, file)
    return file


def obtain_auto(
    *, offline: bool = False, folder: Path = CHECKPOINTS, talk: Talk = tell
) -> tuple[ModelRow, WeightsFile, str | None]:
    """Return vits and its weights if they are here or can be downloaded, else the packaged model and a notice."""
    row = find_row("vits")
    try:
        return row, obtain(row, offline=offline, folder=folder, talk=talk), None
    except DownloadError as error:
        tiny = find_row("tiny")
        file = find(tiny, folder=folder)
        if file is None:
            raise
        notice = f"using {tiny.name}, the small model of the package: {error.message}; for {row.name}, {_way(row)}"
        return tiny, file, notice


def _fetch(row: ModelRow, offline: bool, talk: Talk) -> WeightsFile:
    if row.packaged:
        raise ModelError(f"{ASSETS / row.weights.file} is missing from this installation", "reinstall depthcli")
    if not row.downloadable:
        raise ModelError(f"{row.title} was never published", f"put your own {row.weights.file} into {CHECKPOINTS}/")

    from huggingface_hub import constants

    if offline or constants.HF_HUB_OFFLINE:
        asked = "--offline" if offline else "HF_HUB_OFFLINE"
        raise _failure(row, f"it is not on this machine and {asked} forbids to fetch it")
    if _hub_cache() is None:
        raise _failure(row, "there is no home directory to keep it in (set HOME or HF_HOME)")
    try:
        return _download(row, talk)
    except DownloadError:
        raise
    except Exception as error:  # the hub's HTTP library was another one in each of its major versions
        raise _failure(row, _reason(error)) from error


def _download(row: ModelRow, talk: Talk) -> WeightsFile:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    weights = row.weights
    url = hf_hub_url(weights.repo, weights.file, revision=weights.revision)
    # Asked first by ourselves: hf_hub_download would try a silent hub again and again, for minutes.
    offer = _within(CONNECT_SECONDS, lambda: get_hf_file_metadata(url, timeout=CONNECT_SECONDS))
    if offer.commit_hash is None:  # every answer of a hub names the commit
        raise _failure(row, f"what answers at {_hub_host()} is not the hub; perhaps the network wants a login first")
    promised = offer.etag if _SHA256.fullmatch(offer.etag or "") else None
    wanted = weights.sha256 or promised
    if promised != wanted and promised is not None:
        raise _failure(row, "the hub offers another file under this name than the one this version knows")

    _check_space(row, offer.size or weights.bytes or 0)
    size = f"{(offer.size or weights.bytes or 0) / 1e6:.0f} MB"
    talk(f"downloading {row.title}: {weights.file}, {size}, licence {row.licence}, into {constants.HF_HUB_CACHE}")
    path = Path(hf_hub_download(weights.repo, weights.file, revision=weights.revision))
    file = WeightsFile(path, digest(path), DOWNLOADED)
    if wanted not in (None, file.sha256):
        _remove(path)
        raise _failure(row, f"what arrived is not the published file (sha256 {file.sha256}) and was deleted")
    return file


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return call(), or raise TimeoutError after that many seconds.

    A connect timeout counts for each address of a host and not for the name look-up, so a network that swallows packets
    would hold the user up many times as long. The thread is left behind; as a daemon it keeps nobody waiting.
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
    # In the cache the path is a link to the blob, perhaps over a second link; any left behind would be in the way.
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))
    for each in chain:
        each.unlink(missing_ok=True)


def _failure(row: ModelRow, reason: str) -> DownloadError:
    hint = _way(row) if row.metric else f"{_way(row)}, or use --encoder tiny"
    return DownloadError(f"cannot get {row.weights.file}: {reason}", hint)


def _way(row: ModelRow) -> str:
    return f"put {row.weights.file} from {HUB}/{row.weights.repo} into {CHECKPOINTS}/"


def _check_space(row: ModelRow, size: int) -> None:
    """Raise DownloadError where a file of that size does not fit into the hub's cache."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    place = next((folder for folder in (place, *place.parents) if folder.exists()), place)
    with suppress(OSError):
        free = shutil.disk_usage(place).free
        if free < size:
            raise _failure(
                row, f"{constants.HF_HUB_CACHE} has {free / 1e6:.0f} MB left, and it has {size / 1e6:.0f} MB"
            )


def _reason(error: BaseException) -> str:
    """Return in a few words why a download failed, and what to do about proxies and certificates."""
    from huggingface_hub import constants

    host, proxy = _hub_host(), _proxy()
    while type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__ is not None:
        error = error.__cause__
    kind = type(error).__name__
    detail = _without_password(next(iter(str(error).splitlines()), ""))
    status = getattr(getattr(error, "response", None), "status_code", None)
    through = f" through the proxy {proxy}" if proxy else ""
    if status == 407 or (kind == "ProxyError" and "407" in detail):
        return f"the proxy {proxy} wants a name and a password (HTTP 407): HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
    if kind == "ProxyError":
        return f"the proxy {proxy} makes no connection to {host} ({detail}); check HTTPS_PROXY and NO_PROXY"
    if status in (401, 403):
        way = "it may need a token in HF_TOKEN, or consent on the model's page"
        return f"{host} refuses it (HTTP {status}){through}; {way}"
    if status == 404:
        return f"{host} does not have it (HTTP 404)"
    if status == 429:
        return f"{host} has had too many requests from here (HTTP 429), wait, or set a token in HF_TOKEN"
    if status == 511:
        return "the network wants a login first (HTTP 511): open any page in a browser"
    if status is not None:
        return f"{host} answers with HTTP {status}{through}, try again later"
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        why = detail.partition("verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"
        return (
            f"the certificate of {host}{through} is not accepted: {why}; if it is your company's, name its certificate "
            "file in SSL_CERT_FILE"
        )
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        place = os.environ.get(variable)
        if place and isinstance(error, (OSError, ValueError)) and not os.path.exists(place):
            return f"{variable} names {place}, which does not exist"
    if _is_errno(error, detail, (errno.ENOSPC, errno.EDQUOT)):
        return f"no space left for it in {constants.HF_HUB_CACHE}"
    if _is_errno(error, detail, (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)):
        return f"{constants.HF_HUB_CACHE} cannot be written to"
    if kind in ("FileMetadataError", "TooManyRedirects", "KeyError"):  # the last for a redirect to nowhere
        return f"what answers at {host}{through} is not the hub; perhaps the network wants a login first"
    if kind in ("UnsupportedProtocol", "MissingSchema", "InvalidSchema"):  # of httpx, and of requests before hub 1.0
        return f"HF_ENDPOINT={constants.ENDPOINT} is not the address of a hub, such as {HUB}"
    if proxy and (kind in ("InvalidURL", "InvalidProxyURL") or isinstance(error, (ValueError, ImportError))):
        return f"{proxy} is not a proxy that can be used ({detail}): HTTPS_PROXY=http://HOST:PORT"
    if "Timeout" in kind:
        return f"{host} does not answer{through}"
    if any(word in kind for word in ("Connect", "Network", "SSL", "ReadError")):
        return f"no connection to {host}{through} ({detail})" + ("; check HTTPS_PROXY and NO_PROXY" if proxy else "")
    if "Consistency check" in detail or "Protocol" in kind:
        return "the transfer broke off"
    return f"{kind}: {detail}"


def _is_errno(error: BaseException, detail: str, numbers: tuple[int, ...]) -> bool:
    """Return whether an error is one of the system's; parts of the hub's library give only its text."""
    return (isinstance(error, OSError) and error.errno in numbers) or any(
        f"os error {number})" in detail or f"[Errno {number}]" in detail for number in numbers
    )


def _hub_host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]


def _proxies() -> Iterator[str]:
    """Yield the proxies of the environment that the hub may be reached through, the likeliest first, as they are."""
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    found = getproxies()
    if not proxy_bypass(urlsplit(constants.ENDPOINT).hostname or ""):
        yield from filter(None, (found.get(scheme) for scheme in (urlsplit(constants.ENDPOINT).scheme, "all")))


def _proxy() -> str:
    """Return the proxy to the hub without the user's name and password, "" where there is none."""
    return next((proxy.rpartition("://")[2].rpartition("@")[2].rstrip("/") for proxy in _proxies()), "")


def _without_password(text: str) -> str:
    """Return a message without what names a user in the addresses of proxies and of the hub."""
    from huggingface_hub import constants

    for address in (*_proxies(), constants.ENDPOINT):
        user = address.rpartition("://")[2].rpartition("@")[0]
        for secret in filter(None, (user, unquote(user), *user.split(":"), *unquote(user).split(":"))):
            text = text.replace(secret, "***") if len(secret) > 3 else text
    return re.sub(r"//[^/@\s]*@", "//", text)


# ---------------------------------------------------------------------------------------------------------------------
# What a file says it is
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Claim:
    """What a file's name or its config.json says; None where it says nothing.

    family: the kind of model it is of, "" where that is not said. scene: "" for relative depth, else "indoor",
    "outdoor", or "metric" where the scene is not said.
    """

    family: str = ""
    encoder: Optional[str] = None
    scene: Optional[str] = None

    @property
    def row(self) -> ModelRow | None:
        """The row of the zoo, where the claim is complete and there is such a row."""
        claim = (self.family, self.encoder, self.scene)
        return next((row for row in ROWS if (_family(row), row.encoder, _scene(row)) == claim), None)


_V2, _VIDEO = "Depth Anything V2", "Video-Depth-Anything"
# All of these are searched in names in lower case with "-" for "_".
_FOREIGN = (
    (re.compile(r"depth-?anything-?v?3|(^|-)da3"), "Depth Anything 3"),
    (
        re.compile(r"^liheyoung|depth-?anything-(v1|vit[sbl]14|metric-depth|(small|base|large)(-hf)?$)"),
        "Depth Anything V1",
    ),
)
_ENCODER = re.compile(r"(?:^|-)(?:vit([sblg])|(small|base|large|giant))(?=-|$)")
_CLIPS = re.compile(r"(metric-)?video-?depth-?anything")
_METRIC = re.compile(r"metric-(hypersim|indoor|vkitti|outdoor)")
_SCENES = {"hypersim": "indoor", "indoor": "indoor", "vkitti": "outdoor", "outdoor": "outdoor"}
# A fine-tune may be called anything, so only the published names, whole, say that a file is of a relative model.
_RELATIVE = re.compile(
    r"(depth-anything--)?(depth-anything-v2|video-depth-anything)-(vit[sblg]|small|base|large|giant)(-hf|-fp16|-fp32)?"
)


def check_identity(row: ModelRow, file: WeightsFile) -> None:
    """Raise CheckpointError where a file is known, or says of itself, to be of another model than `row`.

    Tensor names and shapes cannot tell: the first Depth Anything and the metric models have those of the relative V2
    models, load without a complaint and give a wrong picture.
    """
    sha256 = file.sha256 or digest(file.path)
    if file.where == PACKAGE or sha256 == row.weights.sha256:
        return
    owner = _owner(sha256)
    if owner is not None:
        _demand_same(file.path, owner, row)
        return
    if file.path.name == row.weights.file and file.path.stat().st_size == row.weights.bytes:
        raise CheckpointError(
            f"{file.path} is damaged: it has the name and size of the published file, but another content",
            "delete it and fetch it again, or give it another name if it is your own",
        )
    claim = _read_config(file.path) or _read_name(file.path)
    if claim.family not in ("", _family(row)):
        hint = "use: depth video" if claim.family == _VIDEO else _way(row)
        raise CheckpointError(f"{file.path} is of {claim.family}, not of {_family(row)}", hint)
    if claim.row is not None:
        _demand_same(file.path, claim.row, row)
    if claim.scene == "" and row.metric:
        raise CheckpointError(f"{file.path} is a relative model, but metric depth was asked for", "leave out --metric")
    if claim.scene and (not row.metric or claim.scene not in ("metric", _scene(row))):
        asked = f"{_scene(row)} metric depth" if row.metric else "relative depth"
        hint = f"use --metric {claim.scene if claim.scene != 'metric' else 'indoor or --metric outdoor'}"
        raise CheckpointError(f"{file.path} is a metric model ({claim.scene}), but {asked} was asked for", hint)


def is_published(row: ModelRow, file: WeightsFile) -> bool:
    """Return whether a file holds the weights the row speaks of, so that title and licence are the row's too."""
    if row.packaged or row.weights.sha256 is None:
        return file.where in (CACHE, DOWNLOADED, PACKAGE) or file.path.name == row.weights.file
    return file.where in (CACHE, DOWNLOADED) or file.sha256 == row.weights.sha256


def row_for_checkpoint(path: AnyPath) -> ModelRow | None:
    """Return the row a file is for, by its content or an official name, or None where neither tells.

    Raises CheckpointError where there is no such file.
    """
    path = _named(path)
    owner = _owner(digest(path))
    if owner is not None:
        return owner
    return (_read_config(path) or _read_name(path)).row


def _owner(sha256: str) -> ModelRow | None:
    return next((row for row in ROWS if row.weights.sha256 == sha256), None)


def _read_name(path: Path) -> _Claim:
    """Return what the file's name says, or where that says nothing, the repository or folder it lies in."""
    repositories = [part[len("models--") :] for part in path.parts if part.startswith("models--")]
    for name in (path.stem, *repositories, path.absolute().parent.name):
        name = name.lower().replace("_", "-")
        size, metric, clips = _ENCODER.search(name), _METRIC.search(name), _CLIPS.search(name)
        encoder = f"vit{size.group(1) or size.group(2)[0]}" if size else None
        if clips:
            return _Claim(_VIDEO, encoder, "metric" if clips.group(1) else "" if _RELATIVE.fullmatch(name) else None)
        for pattern, family in _FOREIGN:
            if pattern.search(name):
                return _Claim(family)
        if metric:
            return _Claim(_V2, encoder, _SCENES[metric.group(1)])
        if _RELATIVE.fullmatch(name):
            return _Claim(_V2, encoder, "")
    return _Claim()


def _read_config(path: Path) -> _Claim | None:
    """Return what the config.json that transformers writes beside its weights says, or None where there is none."""
    if path.stem not in ("model", "pytorch_model"):
        return None
    try:
        config = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
        taps, width = config["backbone_config"]["out_indices"], config["backbone_config"]["hidden_size"]
        scene = ""
        if config.get("depth_estimation_type") == "metric":
            scene = {20.0: "indoor", 80.0: "outdoor"}.get(float(config["max_depth"]), "metric")
        last_four = taps == list(range(taps[-1] - 3, taps[-1] + 1))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    encoder = next((name for name, size in NETWORKS.items() if getattr(size, "embed_dim", None) == width), None)
    # The layouts of V1 and V2 are the same but for the blocks the head reads: the last four are V1's.
    return _Claim("Depth Anything V1" if last_four else _V2, encoder, scene)


def _demand_same(path: Path, found: ModelRow, asked: ModelRow) -> None:
    if found.name != asked.name:
        option = f"--metric {_scene(found)}" if found.metric else "no --metric"
        way = f"--model {found.name}" if found.temporal else f"--encoder {found.encoder} and {option}"
        raise CheckpointError(f"{path} holds {found.name}, but {asked.name} was asked for", f"use {way}")


def _family(row: ModelRow) -> str:
    return _VIDEO if row.temporal else _V2


def _scene(row: ModelRow) -> str:
    """Return "indoor" or "outdoor" for a metric row, "metric" for one of any scene, "" for a relative one."""
    if row.temporal:
        return "metric" if row.metric else ""
    return row.name.split("-")[1] if row.metric else ""
