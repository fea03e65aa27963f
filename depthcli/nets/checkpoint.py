"""Read the tensors of a checkpoint file, under the key names of the official files.

The result is a state dict of finite numbers or a CheckpointError; nothing in the file is executed. `load_network`
checks whether the tensors fit a network.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Union

import torch

from depthcli.errors import CheckpointError
from depthcli.zoo.rows import ROWS
from depthcli.zoo.verify import digest

State = dict[str, torch.Tensor]

_TORCH = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
# Before this version `weights_only=True` could be made to run code from the file (CVE-2025-32434).
_SAFE_TORCH = (2, 6)
_MMAP_TORCH = (2, 1)
_WRAPPERS = ("model", "state_dict")
_HEAD_BYTES = 512
_MOST_HEADER = 1 << 24  # of a safetensors file; vitg has 0.1 MB
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state(path: Path, sha256: str = "", trust: bool = False) -> State:
    """Return the tensors of a checkpoint on the CPU, in the file's dtypes, by their official key names.

    They are mapped from the file if torch can do that. sha256: expected digest of the file. trust: read an unknown
    pickle (.pth) on a torch too old to do that safely. Raises CheckpointError for everything that is not a checkpoint.
    """
    path = Path(path)
    before = digest(path)
    if sha256 and sha256 != before:
        raise _changed(path)
    form = _form(path)
    if form == "safetensors":
        state = _read_safetensors(path)
    else:
        known = before in {file.sha256 for row in ROWS for file in row.files}
        _refuse_unsafe(path, known or trust)
        if form == "zip" and not known:
            _check_sums(path)
        state = _read_pickle(path, mapped=form == "zip")
    if digest(path) != before:  # free as long as the file's size and time stay
        raise _changed(path)
    state = _unwrap(state, path)
    for key, tensor in state.items():
        if not _is_finite(tensor):
            raise CheckpointError(f"{path} holds NaN or infinity in {key}", "train or export it again")
    if any(key.startswith(_DA3_BACKBONES) for key in state):
        state = remap_da3(state, str(path))
    if any(key.startswith("backbone.embeddings.") for key in state):
        state = remap_transformers(state, str(path))
    return state


def read_pickled(path: Path, trust: bool, allowed: tuple[type, ...] = ()) -> Any:
    """Return the content of a .pth or .safetensors file; nothing in it is executed.

    trust: read it on a torch too old to do that safely. allowed: classes that a .pth may hold beside tensors. Raises
    CheckpointError for everything else.
    """
    form = _form(path)
    if form == "safetensors":
        return _read_safetensors(path)
    _refuse_unsafe(path, trust)
    if form == "zip":
        _check_sums(path)
    scope = getattr(torch.serialization, "safe_globals", None)  # torch 2.5 and newer
    with scope(list(allowed)) if scope and allowed else nullcontext():
        return _read_pickle(path, mapped=form == "zip")


# --- Files ------------------------------------------------------------------------------------------------------------


def _form(path: Path) -> str:
    """Return the format by the content: "safetensors", "zip" (torch.save) or "pickle" (torch.save before 1.6)."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    start = head.lstrip().lower()
    if not head:
        raise CheckpointError(f"{path} is empty", "delete it and fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the file itself", "run `git lfs pull` there")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page, not a checkpoint", "use the file's download link")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip"
    if head.startswith(b"\x80"):
        return "pickle"
    raise CheckpointError(f"{path} is neither a .pth nor a .safetensors file")


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        names = {item.filename.rpartition("/")[2] for item in members}
    except Exception as error:  # the directory of a zip is its end: any error means that the file is cut
        raise _truncated(path) from error
    if "constants.pkl" in names or "data.pkl" not in names:
        raise CheckpointError(f"{path} is a zip file, but not one of weights saved by torch.save")
    # torch.save does not compress; compressed or overlapping members can unpack to any size.
    packed = any(item.compress_type != zipfile.ZIP_STORED for item in members)
    if packed or sum(item.file_size for item in members) > path.stat().st_size:
        raise CheckpointError(f"{path} is compressed, unlike files of torch.save", "load and save it again with torch")


def _read_safetensors(path: Path) -> State:
    from safetensors.torch import load_file

    _check_safetensors(path)
    try:
        return load_file(path, device="cpu")
    except Exception as error:
        raise _unreadable(path, error) from error


def _check_safetensors(path: Path) -> None:
    # Eight bytes with the header's length, the header in JSON, and the tensors one after the other.
    size = path.stat().st_size
    with open(path, "rb") as stream:
        prefix = stream.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if size < 10 or (8 + header_bytes > size and stream.read(1) == b"{"):
            raise _truncated(path)
        if 8 + header_bytes > size:
            raise CheckpointError(f"{path} is not a safetensors file")
        if header_bytes > _MOST_HEADER:
            raise CheckpointError(f"{path} is not a checkpoint: its header has {header_bytes / 1e6:.0f} MB")
        header = stream.read(header_bytes)
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        cut = size < 8 + header_bytes + max(ends, default=0)
    except Exception as error:
        raise CheckpointError(f"{path} is not a safetensors file") from error
    if cut:
        raise _truncated(path)


def _check_sums(path: Path) -> None:
    """Raise CheckpointError for a damaged member of the zip; torch maps the file without a check."""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except Exception as error:
        raise _unreadable(path, error) from error
    if wrong is not None:
        raise CheckpointError(f"{path} is damaged: the check sum of {wrong} does not fit", "fetch it again")


def _refuse_unsafe(path: Path, trusted: bool) -> None:
    if trusted or _TORCH >= _SAFE_TORCH:
        return
    raise CheckpointError(
        f"{path} is not one of the published files, and torch {torch.__version__} cannot read a foreign .pth safely "
        f"(CVE-2025-32434)",
        "use a .safetensors file or torch 2.6, or set `trust` if you know where the file comes from",
    )


def _read_pickle(path: Path, mapped: bool) -> Any:
    options = {"mmap": True} if mapped and _TORCH >= _MMAP_TORCH else {}
    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, **options)
    except Exception as error:  # a damaged file can raise anything in the unpickler
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    # Messages of torch's own unpickler, in three of its versions.
    hint = "save only its state_dict, best as .safetensors"
    forbidden = re.search(r"[Uu]nsupported (?:global: GLOBAL|GLOBAL|class) ([\w.]+)", str(error))
    if forbidden:
        return CheckpointError(
            f"{path} holds more than tensors ({forbidden[1]}), which could run code when read: it was not read", hint
        )
    if "Unsupported operand" in str(error):
        return CheckpointError(f"{path} is damaged, or holds more than torch {torch.__version__} reads safely", hint)
    return CheckpointError(f"{path} is damaged or not a checkpoint ({type(error).__name__})", "fetch it again")


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} changed while it was read", "try again when it is complete")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers are finite in float32 too, by a sum in float64, which is fast and copies nothing."""
    if tensor.dtype is torch.float64:
        tensor = tensor.float()
    return bool(torch.isfinite(tensor.sum(dtype=torch.float64)))


def _truncated(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is truncated: its end is missing", "delete it and fetch it again")


# --- Wrappings and names ----------------------------------------------------------------------------------------------


def _unwrap(state: Any, path: Path) -> State:
    """Return the tensors inside {"model": ...} or {"state_dict": ...}, without the prefix of parallel training."""
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path} holds no tensors by name")
    size = path.stat().st_size
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{path} holds something else than tensors by name: {str(key)[:60]!r}")
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
            kind = ", ".join(str(what) for what in (tensor.dtype, tensor.layout, tensor.device))
            raise CheckpointError(f"{path} is not a plain checkpoint: {key} is {kind}")
        if tensor.numel() * tensor.element_size() > size:  # strides of 0 repeat a few numbers to any size
            raise CheckpointError(f"{path} is damaged: {key} is larger than the file", "fetch it again")
    prefix = re.compile(r"^module\.")
    return {prefix.sub("", key): tensor.detach() for key, tensor in state.items()}


# Files of Depth Anything 3 have every name behind "model.".
_DA3_BACKBONES = ("model.backbone.pretrained.", "model.da3.", "backbone.pretrained.", "da3.")
# The four levels of the ray head share one norm; files of safetensors hold it once, those of torch.save four times.
_SHARED = re.compile(r"(head\.scratch\.output_conv2_aux\.)[123](\.2\.(?:weight|bias))$")


def remap_da3(state: Mapping[str, torch.Tensor], name: str = "the checkpoint") -> State:
    """Return a state dict of Depth Anything 3 without the leading "model." and with its shared norm once.

    Raises CheckpointError if copies of the shared norm differ.
    """
    official = {key[len("model.") :] if key.startswith("model.") else key: value for key, value in state.items()}
    for key in [key for key in official if _SHARED.search(key)]:
        first = official.get(_SHARED.sub(r"\g<1>0\2", key))
        if first is None or not torch.equal(first, official.pop(key)):
            raise CheckpointError(f"{name} holds a norm of its own in {key}, which its network shares with level 0")
    return official


# From the names of transformers to the official ones, applied in order. transformers numbers fusion stages from coarse
# to fine, the official names from fine to coarse; the query's matrix is joined with those of key and value.
_RENAMES: tuple[tuple[re.Pattern[str], Union[str, Callable[[re.Match[str]], str]]], ...] = (
    (re.compile(r"^backbone\.embeddings\.position_embeddings"), "pretrained.pos_embed"),
    (re.compile(r"^backbone\.embeddings\.patch_embeddings\.projection"), "pretrained.patch_embed.proj"),
    (re.compile(r"^backbone\.embeddings\."), "pretrained."),
    (re.compile(r"^backbone\.encoder\.layer\."), "pretrained.blocks."),
    (re.compile(r"^backbone\.layernorm"), "pretrained.norm"),
    (re.compile(r"\.layer_scale([12])\.lambda1"), r".ls\1.gamma"),
    (re.compile(r"\.attention\.attention\.query"), ".attn.qkv"),
    (re.compile(r"\.attention\.output\.dense"), ".attn.proj"),
    (re.compile(r"^neck\.reassemble_stage\.layers\.(\d)\.projection"), r"depth_head.projects.\1"),
    (re.compile(r"^neck\.reassemble_stage\.layers\.(\d)\.resize"), r"depth_head.resize_layers.\1"),
    (re.compile(r"^neck\.convs\.(\d)"), lambda match: f"depth_head.scratch.layer{int(match[1]) + 1}_rn"),
    (
        re.compile(r"^neck\.fusion_stage\.layers\.(\d)"),
        lambda match: f"depth_head.scratch.refinenet{4 - int(match[1])}",
    ),
    (re.compile(r"(refinenet\d)\.projection"), r"\1.out_conv"),
    (re.compile(r"(refinenet\d)\.residual_layer([12])\.convolution"), r"\1.resConfUnit\2.conv"),
    (re.compile(r"^head\.conv1"), "depth_head.scratch.output_conv1"),
    (re.compile(r"^head\.conv2"), "depth_head.scratch.output_conv2.0"),
    (re.compile(r"^head\.conv3"), "depth_head.scratch.output_conv2.2"),
)


def remap_transformers(state: Mapping[str, torch.Tensor], name: str = "the checkpoint") -> State:
    """Return a state dict of transformers (`-hf` repositories) under the official names.

    Unknown names stay, for the strict check. Raises CheckpointError if keys or values of an attention are missing.
    """
    official: State = {}
    for key, tensor in state.items():
        if ".attention.attention.key." in key or ".attention.attention.value." in key:
            continue  # joined with its query
        if ".attention.attention.query." in key:
            parts = [key.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
            try:
                tensor = torch.cat([state[part] for part in parts])
            except (KeyError, RuntimeError) as error:
                raise CheckpointError(f"{name} lacks the keys or values that go with {key}") from error
        official[_official(key)] = tensor
    for key, tensor in _unused(official).items():
        official.setdefault(key, tensor)
    return official


def _official(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = pattern.sub(replacement, key)
    return key


def _unused(state: State) -> State:
    """Return zeros for tensors that official files have and no forward pass reads; transformers may omit them."""
    zeros: State = {}
    if "pretrained.cls_token" in state:
        zeros["pretrained.mask_token"] = torch.zeros_like(state["pretrained.cls_token"][0])
    for conv in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        twin = state.get(f"depth_head.scratch.refinenet4.resConfUnit2.{conv}")
        if twin is not None:
            zeros[f"depth_head.scratch.refinenet4.resConfUnit1.{conv}"] = torch.zeros_like(twin)
    return zeros
