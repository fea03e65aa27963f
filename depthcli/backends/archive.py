"""TorchScript archives: sealed with a description and a digest, and checked before torch reads them.

A TorchScript file is a zip of code, pickles and tensors. Its code may call any operator of torch, and some of these
open files. So its members are read with zipfile, compared with the digest and with what the exporter writes, and copied
to an archive in memory, which torch reads. The digest finds damaged and mixed-up files. A forger can compute it; the
list of operators protects against forged files.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from depthcli.errors import CheckpointError

# The description's name in an archive, and its key for the digest of all other members.
EXTRA_FILE = "depthcli.json"
DIGEST = "contents_sha256"
_MOST_DESCRIPTION = 1 << 16  # bytes; usually 3 KB
_MOST_CODE = 1 << 20  # of one file; usually 10 KB
_MOST_UNPACKED = 1 << 28  # of all compressed members

_PICKLES = ("data.pkl", "constants.pkl")
_TENSORS = ("data/", "constants/", ".data/", "version", "byteorder")

# Operators of our graphs, in every torch from 1.13 on. None of them opens a file.
_OPERATORS = frozenset(
    "_convolution add cat gelu hardtanh_ layer_norm linear list matmul mul ne permute relu relu_ reshape "
    "reciprocal scaled_dot_product_attention select sigmoid silu size slice softmax softplus squeeze to transpose "
    "upsample_bilinear2d".split()
)
_BUILTINS = frozenset(("getattr", "str", "ops.prim.RaiseException"))
# The wrappers of AWS's compilers also call these: lists of tensors, and operators left to the CPU on request.
_CHIP_OPERATORS = _OPERATORS | frozenset("__getitem__ append contiguous detach len unsqueeze".split())
_CHIP_BUILTINS = _BUILTINS | {"annotate", "unchecked_cast", "ops.prim.NumToTensor", "ops.prim.data"}
_CHIP_FORWARD = re.compile(r"ops\.neuron\.forward\w*")
_METHOD = re.compile(r"(?!(?:torch|ops|__torch__|CONSTANTS)\.)\w+\.forward\d*")
# Statements and expressions of a traced network's code: no loops, no operators, no nested functions.
_SYNTAX = (
    *(ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.AnnAssign, ast.Return),
    *(ast.Expr, ast.If, ast.Pass, ast.Name, ast.Attribute, ast.Constant, ast.Call, ast.List, ast.Tuple, ast.Dict),
    *(ast.Subscript, ast.UnaryOp, ast.USub, ast.Load, ast.Store),
)
# Code that Python and TorchScript may parse differently (comments, escapes, long strings, prefixes of strings), and
# nesting without brackets, which a parser does not count.
_STRING = re.compile(rb'(?<![\w"])"[^"\n\\]*"(?![\w"])')
_AMBIGUOUS = re.compile(rb"[^\n -~]|[\"#'\\;]|[-+~]\s*[-+~]|\bnot\s+not\b|[^\n]{10001}|(?:\.\s*\w+\s*){65}")

# Opcodes of a pickle by the size of their argument, or by the format of its length.
_PLAIN = {**dict.fromkeys(b"().]}NaetsuRbQ\x81\x85\x86\x87\x88\x89", 0), **dict.fromkeys(b"\x80Kqh", 1)}
_PLAIN.update({ord("M"): 2, **dict.fromkeys(b"Jrj", 4), ord("G"): 8})
_COUNTED = {ord("X"): "<I", 0x8D: "<Q", 0x8A: "<B"}
_GLOBAL = ord("c")
_GLOBALS = re.compile(
    r"torch\.jit\._pickle build_\w+|torch\._utils _rebuild_tensor_v2|collections OrderedDict|torch \w+Storage"
    r"|__torch__(?!\.torch\.classes\b)[\w.]* \w+"
)
_CHIP_GLOBALS = re.compile(r"__torch__\.torch\.classes\.neuron \w+")
_CHIP_CLASSES = re.compile(r"__torch__\.torch\.classes(\.neuron(\.\w+)?)?")


def seal(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Add a description to an archive of torch.jit.save; return it with the digest of the other members."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        sealed = {**facts, DIGEST: _digest(facts, ((item.filename, archive.read(item)) for item in members))}
    root = members[0].filename.partition("/")[0]
    with zipfile.ZipFile(path, "a") as archive:  # the other members stay where they are
        archive.writestr(f"{root}/extra/{EXTRA_FILE}", json.dumps(sealed))
    return sealed


def read_description(path: Path) -> dict[str, Any]:
    """Return the description in an archive. Raises CheckpointError for a damaged file or one without description."""
    with _opened(path) as archive:
        return _description(path, archive)


def verified(path: Path, chip: bool) -> tuple[dict[str, Any], io.BytesIO]:
    """Return an archive's description and a checked copy for torch.jit.load.

    chip: the file is for an AWS chip, and may hold what their compilers write.
    Raises CheckpointError for a member that was changed or may be harmful.
    """
    with _opened(path) as archive:
        facts = _description(path, archive)
        members = [item for item in archive.infolist() if not item.is_dir()]
        names = [item.filename for item in members]
        root = names[0].partition("/")[0]
        unpacked = sum(item.file_size for item in members if item.compress_type != zipfile.ZIP_STORED)
        if len(set(names)) < len(names) or any(not name.startswith(f"{root}/") for name in names):
            raise _damaged(path)
        if unpacked > _MOST_UNPACKED:
            raise _foreign(path, "it unpacks to an unusual size")
        copy = io.BytesIO()
        with zipfile.ZipFile(copy, "w") as target:
            found = _digest(facts, _checked(path, archive, members, target, chip))
    if found != facts.get(DIGEST):
        raise CheckpointError(f"{path} is damaged: it is not what was compiled", "copy it again, or compile it again")
    copy.seek(0)
    return facts, copy


def _checked(
    path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], target: zipfile.ZipFile, chip: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield all members, for the digest, and copy those that torch needs to `target` after a check."""
    for item in members:
        place = item.filename.partition("/")[2]
        if place == f"extra/{EXTRA_FILE}":
            continue
        content = archive.read(item)
        yield item.filename, content
        if place.startswith("code/") and place.endswith(".py"):
            _check_code(path, place, content, chip)
        elif place in _PICKLES:
            _check_pickle(path, place, content, chip)
        elif not place.startswith(_TENSORS):
            continue  # not needed by torch: debug files and example inputs
        target.writestr(item.filename, content)


def _digest(facts: dict[str, Any], members: Iterator[tuple[str, bytes]]) -> str:
    """Return the sha256 in hex of a description, without its digest, and of all other members in order."""
    stated = {key: value for key, value in facts.items() if key != DIGEST}
    hasher = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for name, content in members:
        hasher.update(f"\n{name} {len(content)}\n".encode())
        hasher.update(content)
    return hasher.hexdigest()


def _description(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    members = [item for item in archive.infolist() if item.filename.endswith(f"/extra/{EXTRA_FILE}")]
    if len(members) != 1:
        raise CheckpointError(f"{path} has no description", "write such files with depth compile")
    if members[0].file_size > _MOST_DESCRIPTION:
        raise _foreign(path, "its description is too long")
    facts = json.loads(archive.read(members[0]), parse_constant=_no_number)
    if not isinstance(facts, dict):
        raise _damaged(path)
    return facts


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; every error of a damaged one becomes a CheckpointError."""
    try:
        if not os.path.isfile(path):  # opening a pipe would block
            raise CheckpointError(f"{path} is not a file" if path.exists() else f"{path} does not exist")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, LookupError),
        *(NotImplementedError, RuntimeError, RecursionError, OverflowError),
    ) as error:
        raise _damaged(path) from error


# --- Code and pickles -------------------------------------------------------------------------------------------------


def _check_code(path: Path, place: str, text: bytes, chip: bool) -> None:
    """Raise CheckpointError for code that torch does not write for a trace, or that calls an unlisted operator."""
    if len(text) > _MOST_CODE or _AMBIGUOUS.search(_STRING.sub(b"text", text)):
        raise _foreign(path, f"{place} is not written as torch writes a traced network")
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _foreign(path, f"{place} is not the code of a network") from error
    for node in nodes:
        if not isinstance(node, _SYNTAX):
            raise _foreign(path, f"{place} holds {type(node).__name__}")
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.decorator_list:
            raise _foreign(path, f"{place} holds a decorator")
        if isinstance(node, ast.ClassDef) and (node.keywords or [_dotted(base) for base in node.bases] != ["Module"]):
            raise _foreign(path, f"{place} defines a class that is not a module")
        if isinstance(node, ast.Attribute) and ".classes" in (name := f"{_dotted(node)}"):
            if not (chip and _CHIP_CLASSES.fullmatch(name)):
                raise _foreign(path, f"{place} uses {name}")
        if isinstance(node, ast.Call) and not _may_be_called(_dotted(node.func), chip):
            raise _foreign(path, f"it calls {_dotted(node.func) or 'what it computes'}")


def _may_be_called(name: Optional[str], chip: bool) -> bool:
    if name is None:
        return False
    operators, builtins = (_CHIP_OPERATORS, _CHIP_BUILTINS) if chip else (_OPERATORS, _BUILTINS)
    operator = name[len("torch.") :] if name.startswith("torch.") else None
    return bool(
        operator in operators or name in builtins or _METHOD.fullmatch(name) or (chip and _CHIP_FORWARD.fullmatch(name))
    )


def _dotted(node: ast.AST) -> Optional[str]:
    """Return "a.b.c" for such an expression, else None."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _check_pickle(path: Path, place: str, content: bytes, chip: bool) -> None:
    """Raise CheckpointError for a pickle with opcodes or names that torch does not write for a network.

    pickletools would fail at strings of AWS's compilers that are not text.
    """
    position = 0
    try:
        while position < len(content):
            code = content[position]
            position += 1
            if code in _PLAIN:
                position += _PLAIN[code]
            elif code in _COUNTED:
                form = _COUNTED[code]
                position += struct.calcsize(form) + struct.unpack_from(form, content, position)[0]
            elif code == _GLOBAL:
                end = content.index(b"\n", content.index(b"\n", position) + 1)
                name = content[position:end].decode("ascii").replace("\n", " ")
                if not (_GLOBALS.fullmatch(name) or (chip and _CHIP_GLOBALS.fullmatch(name))):
                    raise _foreign(path, f"{place} names {name}")
                position = end + 1
            else:
                raise _foreign(path, f"{place} holds the opcode {code}")
    except (struct.error, ValueError) as error:
        raise _damaged(path) from error
    if position != len(content):
        raise _damaged(path)


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is not a whole compiled network", "copy it again, or compile it again")


def _foreign(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} was not loaded, as depth compile writes no such files: {why}", "compile it again")
