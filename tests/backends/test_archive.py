"""Compiled networks as files: damaged ones are refused, foreign ones are never handed to a framework."""

from __future__ import annotations

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from depthcli.backends.archive import DIGEST, EXTRA_FILE, read_description, seal, verified
from depthcli.backends.artifact import SCHEMA, open_artifact, read_artifact
from depthcli.errors import CheckpointError
from depthcli.graphs.jit import quiet_jit, quiet_trace
from depthcli.graphs.static import guarded, trace
from depthcli.nets.build import build_network
from depthcli.zoo.rows import LiteConfig, NetworkConfig

HEIGHT, WIDTH = 28, 42
FACTS = {
    "schema": SCHEMA,
    "target": "torchscript",
    "versions": {"torch": torch.__version__},
    "model": "vits",
    "max_depth": None,
    "weights_sha256": "0" * 64,
    "input": {"shape": [1, 3, HEIGHT, WIDTH]},
}
SMALL = NetworkConfig(48, 4, 3, 16, (8, 16, 24, 32), (0, 1, 2, 3))


@pytest.fixture(scope="module")
def network() -> bytes:
    """A sealed file of a small network."""
    torch.manual_seed(0)
    graph = guarded(trace(build_network(SMALL, metric=True).eval(), 1, HEIGHT, WIDTH), 1, HEIGHT, WIDTH)
    return sealed(graph)


@pytest.fixture
def path(network, tmp_path) -> Path:
    path = tmp_path / "net.pt"
    path.write_bytes(network)
    return path


def sealed(graph: torch.jit.ScriptModule, facts: dict[str, object] = FACTS) -> bytes:
    path = Path("sealed.pt").absolute()
    with quiet_jit():
        torch.jit.save(graph, str(path))
    seal(path, facts)
    content = path.read_bytes()
    path.unlink()
    return content


def answer(path: Path) -> np.ndarray:
    with quiet_jit(), torch.inference_mode():
        network = torch.jit.load(open_artifact(read_artifact(path)))
        return network(torch.linspace(-2, 2, 3 * HEIGHT * WIDTH).reshape(1, 3, HEIGHT, WIDTH)).numpy()


def remade(path: Path, change: Callable[[str, bytes], bytes], facts: dict[str, object] = FACTS) -> Path:
    """Write the archive anew with changed members, sealed with a digest that fits."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(EXTRA_FILE)}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    seal(path, facts)
    return path


def with_line(path: Path, line: str) -> Path:
    """Put a line of code into the forward function of the network."""
    first = b"    traced = self.traced\n"
    changed = []

    def change(name: str, content: bytes) -> bytes:
        # By content: in a process that has traced before, torch 1.13 gives the module's file another name.
        if not name.endswith(".py") or first not in content:
            return content
        changed.append(name)
        return content.replace(first, f"    {line}\n".encode() + first)

    there = remade(path, change)
    assert len(changed) == 1
    return there


def test_what_was_written_is_loaded_and_the_plain_file_is_too(path) -> None:
    with quiet_jit():
        plain = torch.jit.load(str(path))
    wanted = plain(torch.linspace(-2, 2, 3 * HEIGHT * WIDTH).reshape(1, 3, HEIGHT, WIDTH))
    assert np.array_equal(answer(path), wanted.detach().numpy()) and np.ptp(answer(path)) > 0


@pytest.mark.parametrize(
    "config, metric",
    [
        (LiteConfig(64), False),
        (SMALL, True),
        (NetworkConfig(48, 4, 3, 16, (8, 16, 24, 32), (0, 1, 2, 3), swiglu=True), False),
    ],
)
@pytest.mark.parametrize("guard", [True, False])
def test_every_network_that_is_exported_is_known(config, metric, guard, tmp_path) -> None:
    graph = trace(build_network(config, metric).eval(), 2, HEIGHT, WIDTH)
    path = tmp_path / "x.pt"
    path.write_bytes(sealed(guarded(graph, 2, HEIGHT, WIDTH) if guard else graph))
    facts, content = verified(path, chip=False)
    assert facts[DIGEST] and len(content.getvalue()) > 1000


@pytest.mark.slow
def test_a_flipped_bit_is_an_error_or_changes_nothing(path, network) -> None:
    wanted, seeded, refused = answer(path), random.Random(0), 0
    size = len(network)
    places = [seeded.randrange(size) for _ in range(60)]
    places += [seeded.randrange(200) for _ in range(20)] + [size - 1 - seeded.randrange(4000) for _ in range(60)]
    for place in places:
        damaged = bytearray(network)
        damaged[place] ^= 1 << seeded.randrange(8)
        path.write_bytes(damaged)
        try:
            found = answer(path)
        except CheckpointError:
            refused += 1
        else:
            assert np.array_equal(found, wanted), f"byte {place}"
    assert refused > 60


@pytest.mark.parametrize("kept", [0, 1, 21, 22, 1000, 0.5, 0.9, -1, -22, -100])
def test_a_file_cut_short_is_refused(path, network, kept) -> None:
    path.write_bytes(network[: int(len(network) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match="whole compiled network"):
        read_artifact(path)


def test_weights_of_another_file_are_refused_though_every_check_sum_fits(path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = max((name for name in members if "/data/" in name), key=lambda name: len(members[name]))
    members[name] = bytes(reversed(members[name]))
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    with pytest.raises(CheckpointError, match="not what was compiled"):
        open_artifact(read_artifact(path))


def test_a_description_that_was_edited_is_refused(path) -> None:
    artifact = read_artifact(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith(EXTRA_FILE))
    members[name] = members[name].replace(b'"vits"', b'"vitb"')
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    assert read_artifact(path).model == "vitb" != artifact.model
    with pytest.raises(CheckpointError, match="not what was compiled"):
        open_artifact(read_artifact(path))


def test_a_file_replaced_after_it_was_chosen_is_refused(path) -> None:
    artifact = read_artifact(path)
    remade(path, lambda name, content: content, {**FACTS, "weights_sha256": "1" * 64})
    with pytest.raises(CheckpointError, match=r"does not match its \.json"):
        open_artifact(artifact)


def test_a_file_without_a_description_is_refused(path, tmp_path) -> None:
    with quiet_trace():
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(path))
    with pytest.raises(CheckpointError, match="has no description"):
        read_artifact(path)
    os.mkfifo(tmp_path / "pipe.pt")
    for name, says in (("pipe.pt", "is not a file"), ("none.pt", "does not exist"), (".", "is not a file")):
        with pytest.raises(CheckpointError, match=says):
            read_artifact(tmp_path / name)


def test_a_script_that_writes_a_file_is_not_run(tmp_path) -> None:
    class Writer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, 0] + torch.from_file("made_by_a_network", True, 42)

    with quiet_jit():
        graph = torch.jit.script(Writer())
    path = tmp_path / "writer.pt"
    path.write_bytes(sealed(graph))
    with pytest.raises(CheckpointError, match=r"calls torch\.from_file"):
        open_artifact(read_artifact(path))
    assert not Path("made_by_a_network").exists()


@pytest.mark.parametrize(
    "line, says",
    [
        ('y = torch.from_file("x", True, 1)', r"calls torch\.from_file"),
        ("y = torch.save(x)", r"calls torch\.save"),
        ('y = ops.aten.from_file("x", True, 1)', r"calls ops\.aten\.from_file"),
        ("y = ops.neuron.forward_v2(x)", r"calls ops\.neuron"),
        ("f = torch.from_file\n    y = f(x)", "calls f"),
        ("y = x.from_file(x)", r"calls x\.from_file"),
        ("y = torch.zeros([1000000000000])", r"calls torch\.zeros"),
        ("y = (self.traced)(x)", r"calls self\.traced"),
        ("y = torch.forward(x)", r"calls torch\.forward"),
        ("y = [torch.from_file][0](x)", "calls what it computes"),
        ("y : __torch__.torch.classes.evil.Thing = x", r"uses __torch__\.torch\.classes"),
        ("while True:\n      pass", "holds While"),
        ("for i in x:\n      pass", "holds For"),
        ("import os", "holds Import"),
        ("y = x + x", "holds BinOp"),
        ("y = [i for i in x]", "holds ListComp"),
        ("with x:\n      pass", "holds With"),
        ("y = lambda z: z", "holds Lambda"),
        ("y = x # torch.relu(x)", "not written"),
        ('y = "a\\" + torch.from_file("', "not written"),
        ('y = r"a"', "not written"),
        ('y = """a"""', "not written"),
        ("y = 'a'", "not written"),
        ("y = x; z = y", "not written"),
        ("y = " + "-" * 100_000 + "1", "not written"),
        ("y = " + "(" * 5000 + "x" + ")" * 5000, "not"),
        ("y = x" + ".a" * 4000, "not written"),
        ("y = " + "[" * 150 + "torch.from_file(x)" + "]" * 150, "calls|not the code"),
    ],
)
def test_code_that_is_not_a_traced_networks_is_refused(path, line, says) -> None:
    with_line(path, line)
    with pytest.raises(CheckpointError, match=says):
        open_artifact(read_artifact(path))


def test_what_compilers_for_chips_write_is_let_through_for_chips_alone(path) -> None:
    with_line(path, "y = ops.neuron.forward_v2([x], x)")
    assert verified(path, chip=True)
    with pytest.raises(CheckpointError, match="calls ops"):
        verified(path, chip=False)
    with_line(path, 'y = torch.from_file("x", True, 1)')
    with pytest.raises(CheckpointError, match="calls torch"):
        verified(path, chip=True)


class Evil:
    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, ("made_by_a_pickle",)


@pytest.mark.parametrize("name", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize(
    "content",
    [
        *(pickle.dumps(Evil(), protocol) for protocol in (0, 2, 4)),
        b"\x80\x02c__torch__.torch.classes.evil\nThing\n.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02X\xff\xff\xff\x7f.",
        b"\x80\x02cno end",
        b"\x80\x02",
        b"",
    ],
)
def test_pickles_that_name_anything_else_are_refused(path, name, content) -> None:
    remade(path, lambda member, old: content if member.endswith(f"/{name}") else old)
    if len(content) < 3 and name == "constants.pkl":
        assert verified(path, chip=False)  # harmless: torch itself says that it is none
    else:
        try:
            answer(path)
        except (CheckpointError, RuntimeError):
            pass
        else:
            raise AssertionError("it was loaded")
    assert not Path("made_by_a_pickle").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"shape": [1, 3, 10**12, 10**12]}},
        {"input": {"shape": [10**30, 3, 28, 42]}},
        {"input": {"shape": [1, 3, 28.0, 42]}},
        {"input": {"shape": ["1", "3", "28", "42"]}},
        {"input": {"shape": [1, 3, 28, True]}},
        {"input": {"shape": [1, 3, 27, 42]}},
        {"input": {"shape": [0, 3, 28, 42]}},
        {"input": {"shape": [1, 3, -28, 42]}},
        {"input": {"shape": [1, 3, 28]}},
        {"input": {"shape": 7}},
        {"input": []},
        {"model": "x" * 5000},
        {"model": ["vits"]},
        {"model": "unknown"},
        {"model": "vda-vits"},
        {"model": "vits\nvitb"},
        {"max_depth": float("nan")},
        {"max_depth": float("inf")},
        {"max_depth": -1},
        {"max_depth": 20.0},
        {"max_depth": "20"},
        {"max_depth": 10**400},
        {"versions": {"torch": "latest"}},
        {"versions": {"torch": 2.13}},
        {"versions": {"numpy": "1"}},
        {"versions": []},
        {"versions": {"torch": "2.1", **{str(number): "1" for number in range(1000)}}},
        {"compiler": {"args": [["a"]]}},
        {"compiler": "none"},
        {"weights_sha256": None},
        {"target": 5},
        {"schema": "depthcli-network/1"},
        {"schema": [[]]},
        {"note": "x" * 100_000},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_description_of_what_cannot_be_is_one_error(path, change) -> None:
    remade(path, lambda name, content: content, {**FACTS, **change})
    with pytest.raises(CheckpointError) as caught:
        read_artifact(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, '{"a":' * 10_000, "9" * 60_000, "[]", "null", "", "\xff", '{"schema": NaN}', "{" + " " * 70_000],
)
def test_a_description_that_is_no_json_object_is_one_error(path, text) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"net/extra/{EXTRA_FILE}", text.encode("latin-1"))
    with pytest.raises(CheckpointError):
        read_description(path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(path) -> None:
    facts = read_description(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"net/extra/{EXTRA_FILE}", json.dumps(facts))
        archive.writestr("net/data/0", bytes(1 << 20))
    content = bytearray(path.read_bytes())
    for entry in (content.rfind(b"PK\x01\x02") + 24,):  # the size that the table of contents states
        content[entry : entry + 4] = b"\xf0\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="unusual size"):
        verified(path, chip=False)


def test_two_members_of_one_name_are_refused(path, recwarn) -> None:
    with zipfile.ZipFile(path) as archive:
        name = archive.namelist()[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"another")
    with pytest.raises(CheckpointError, match="whole compiled network"):
        verified(path, chip=False)
    assert all("Duplicate name" in str(warning.message) for warning in recwarn)
