import json
import os
import pickle
import random
import re
import struct
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from depthcli.errors import CheckpointError
from depthcli.nets import checkpoint
from depthcli.nets.build import build_network, load_network
from depthcli.nets.checkpoint import read_state, remap_transformers
from depthcli.zoo.rows import DEPTH_ANYTHING_V2, Channel, DepthKind, ModelRow, NetworkConfig, Weights
from depthcli.zoo.verify import digest

CONFIG = NetworkConfig(16, 4, 2, 8, (8, 16, 24, 32), (0, 1, 2, 3), position_grid=2)
FILES = (Weights("", "small.pth", channel=Channel.UNPUBLISHED),)
ROW = ModelRow("small", "a small one", DEPTH_ANYTHING_V2, "small", CONFIG, DepthKind.RELATIVE_DISPARITY, FILES, "none")


@pytest.fixture(scope="module")
def official():
    torch.manual_seed(0)
    state = build_network(CONFIG).state_dict()
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture
def trusted(monkeypatch):
    """As on a torch that reads every .pth safely; what such a torch does is the same for all of them."""
    monkeypatch.setattr(checkpoint, "_SAFE_TORCH", (1, 13))


@pytest.fixture
def old_torch(monkeypatch):
    monkeypatch.setattr(checkpoint, "_SAFE_TORCH", (99, 0))


def to_transformers(state):
    """The official names turned into those of `-hf` repositories, key by key as their converter does it."""
    renamed = {}
    for key, tensor in state.items():
        if ".attn.qkv." in key:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3)):
                layer, kind = re.fullmatch(r"pretrained\.blocks\.(\d+)\.attn\.qkv\.(\w+)", key).groups()
                name = f"backbone.encoder.layer.{layer}.attention.attention.{part}.{kind}"
                renamed[name] = piece.contiguous()
            continue
        for old, new in (
            ("pretrained.cls_token", "backbone.embeddings.cls_token"),
            ("pretrained.mask_token", "backbone.embeddings.mask_token"),
            ("pretrained.pos_embed", "backbone.embeddings.position_embeddings"),
            ("pretrained.patch_embed.proj", "backbone.embeddings.patch_embeddings.projection"),
            ("pretrained.blocks.", "backbone.encoder.layer."),
            ("pretrained.norm", "backbone.layernorm"),
            (".attn.proj.", ".attention.output.dense."),
            (".ls1.gamma", ".layer_scale1.lambda1"),
            (".ls2.gamma", ".layer_scale2.lambda1"),
            ("depth_head.scratch.refinenet4.", "neck.fusion_stage.layers.0."),
            ("depth_head.scratch.refinenet3.", "neck.fusion_stage.layers.1."),
            ("depth_head.scratch.refinenet2.", "neck.fusion_stage.layers.2."),
            ("depth_head.scratch.refinenet1.", "neck.fusion_stage.layers.3."),
            (".out_conv.", ".projection."),
            (".resConfUnit1.conv", ".residual_layer1.convolution"),
            (".resConfUnit2.conv", ".residual_layer2.convolution"),
            ("depth_head.scratch.layer1_rn", "neck.convs.0"),
            ("depth_head.scratch.layer2_rn", "neck.convs.1"),
            ("depth_head.scratch.layer3_rn", "neck.convs.2"),
            ("depth_head.scratch.layer4_rn", "neck.convs.3"),
            ("depth_head.scratch.output_conv1", "head.conv1"),
            ("depth_head.scratch.output_conv2.0", "head.conv2"),
            ("depth_head.scratch.output_conv2.2", "head.conv3"),
        ):
            key = key.replace(old, new)
        key = re.sub(r"depth_head\.projects\.(\d)", r"neck.reassemble_stage.layers.\1.projection", key)
        key = re.sub(r"depth_head\.resize_layers\.(\d)", r"neck.reassemble_stage.layers.\1.resize", key)
        renamed[key] = tensor
    return renamed


def assert_equal(state, expected):
    assert set(state) == set(expected)
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key


def refused(path, trust=True):
    """Return the message with which a file is refused: one line that begins with its path."""
    with pytest.raises(CheckpointError) as caught:
        read_state(path, trust=trust)
    assert "\n" not in str(caught.value)
    assert str(path) in caught.value.message
    return str(caught.value)


class TestLayouts:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize(
        "wrap",
        [
            lambda state: state,
            lambda state: {"model": state},
            lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"step": 7}},
            lambda state: {"module." + key: tensor for key, tensor in state.items()},
            lambda state: {"model": {"module." + key: tensor for key, tensor in state.items()}},
            to_transformers,
        ],
        ids=["bare", "model", "state_dict", "module", "model and module", "transformers"],
    )
    def test_pickles(self, official, path, wrap, zipped, trusted):
        torch.save(wrap(official), path, _use_new_zipfile_serialization=zipped)
        assert_equal(read_state(path), official)

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
    @pytest.mark.parametrize("wrap", [lambda state: state, to_transformers], ids=["official", "transformers"])
    def test_safetensors_under_any_name(self, official, tmp_path, wrap, name):
        save_file(wrap(official), str(tmp_path / name), metadata={"format": "pt"})
        assert_equal(read_state(tmp_path / name), official)

    def test_the_network_takes_them(self, official, path, trusted):
        torch.save({"model": official}, path)
        network = load_network(ROW, read_state(path), str(path))
        assert_equal(network.state_dict(), official)

    def test_half_precision_stays_as_it_is(self, official, path, trusted):
        torch.save({key: tensor.half() for key, tensor in official.items()}, path)
        assert {tensor.dtype for tensor in read_state(path).values()} == {torch.float16}

    def test_parameters_become_tensors_without_gradients(self, official, path, trusted):
        torch.save({key: torch.nn.Parameter(tensor) for key, tensor in official.items()}, path)
        state = read_state(path)
        assert_equal(state, official)
        assert not any(tensor.requires_grad for tensor in state.values())


class TestTransformers:
    def test_every_name_is_another_there(self, official):
        renamed = to_transformers(official)
        assert not set(renamed) & set(official)
        assert_equal(remap_transformers(renamed), official)

    def test_the_tensors_nobody_reads_may_be_missing(self, official):
        renamed = to_transformers(official)
        del renamed["backbone.embeddings.mask_token"]
        for key in [key for key in renamed if key.startswith("neck.fusion_stage.layers.0.residual_layer1.")]:
            del renamed[key]
        state = remap_transformers(renamed)
        assert {key: tensor.shape for key, tensor in state.items()} == {k: v.shape for k, v in official.items()}
        filled = [key for key in state if not torch.equal(state[key], official[key])]
        assert all("mask_token" in key or "refinenet4.resConfUnit1" in key for key in filled)

    def test_a_missing_value_matrix(self, official):
        renamed = to_transformers(official)
        del renamed["backbone.encoder.layer.2.attention.attention.value.weight"]
        with pytest.raises(CheckpointError, match="small lacks the keys or values"):
            remap_transformers(renamed, "small")

    def test_unknown_names_stay_for_the_strict_check(self, official):
        state = remap_transformers({**to_transformers(official), "head.extra": torch.zeros(1)})
        with pytest.raises(CheckpointError, match=r"also holds head\.extra"):
            load_network(ROW, state)


class TestRefusals:
    def test_missing(self, path):
        assert "cannot be read: No such file" in refused(path)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:715fad\nsize 99218434\n", "git-lfs pointer"),
            (b"<!DOCTYPE html>\n<html>Not found</html>", "is a web page"),
            (b"\n <HTML><body>503", "is a web page"),
            (b"Entry not found", "neither a .pth nor a .safetensors"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a .pth nor a .safetensors"),
        ],
    )
    def test_what_is_no_checkpoint_at_all(self, path, content, reason):
        path.write_bytes(content)
        assert reason in refused(path)

    def test_a_picture_called_safetensors(self, tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        assert "is not a safetensors file" in refused(path)

    def test_a_zip_of_something_else(self, path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
        assert "not one of weights" in refused(path)

    def test_torchscript(self, path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", b"")
            archive.writestr("net/constants.pkl", b"")
        assert "not one of weights" in refused(path)

    @pytest.mark.parametrize(
        "content",
        [
            [1, 2],
            {},
            {"model": {}},
            {"a": 1},
            {"a": torch.zeros(2).to_sparse()},
            {"a": torch.zeros(2, dtype=torch.int8)},
        ],
    )
    def test_other_content(self, path, content):
        torch.save(content, path)
        refused(path)

    @pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
    def test_truncated_anywhere(self, official, tmp_path, form):
        path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
        if form == "safetensors":
            save_file(official, str(path))
        else:
            torch.save(official, path, _use_new_zipfile_serialization=form == "zip")
        whole = path.read_bytes()
        for part in range(1, 20):
            path.write_bytes(whole[: len(whole) * part // 20])
            message = refused(path)
            if form != "pickle":
                assert "is truncated" in message
        path.write_bytes(whole[:-1])
        refused(path)

    def test_random_bytes(self, official, tmp_path):
        generator = random.Random(0)
        starts = (
            b"",
            b"PK\x03\x04",
            b"\x80\x02",
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            struct.pack("<Q", 40) + b"{",
        )
        for index in range(100):
            path = tmp_path / ("a.pth", "a.safetensors")[index % 2]
            path.write_bytes(starts[index % len(starts)] + bytes(generator.randrange(256) for _ in range(3 * index)))
            refused(path)

    @pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
    def test_flipped_bytes_give_tensors_or_a_checkpoint_error(self, tmp_path, form):
        path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
        state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
        if form == "safetensors":
            save_file(state, str(path))
        else:
            torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
        whole = path.read_bytes()
        generator = random.Random(0)
        for index in range(200):
            damaged = bytearray(whole)
            damaged[generator.randrange(len(whole))] ^= 1 << index % 8
            path = path.with_name(f"{index}{path.suffix}")  # the earlier files may still be mapped
            path.write_bytes(damaged)
            try:
                read = read_state(path, trust=True)
            except CheckpointError as error:
                assert "\n" not in str(error)
            else:
                # The other two forms have no check sums: what is finite there is taken.
                assert form != "zip" or all(torch.equal(read[key], state[key]) for key in state)


class TestNumbers:
    """What is not a finite number, or not where it should be, is refused with the tensor's name, in every form."""

    @pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_nan_and_infinity(self, tmp_path, form, number, dtype):
        path = tmp_path / ("weights.safetensors" if form == "safetensors" else "weights.pth")
        state = {"a": torch.ones(3), "b.weight": torch.tensor([1, number, 2]).to(dtype)}
        if form == "safetensors":
            save_file(state, str(path))
        else:
            torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
        assert "holds NaN or infinity in b.weight" in refused(path)

    def test_infinities_of_both_signs_and_what_float32_cannot_hold(self, path):
        for numbers in ([float("inf"), float("-inf")], [1e300, 1.0]):
            torch.save({"a": torch.tensor(numbers, dtype=torch.float64)}, path)
            assert "holds NaN or infinity in a" in refused(path)

    def test_large_finite_numbers_are_taken(self, path, trusted):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            torch.save({"a": torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)}, path)
            assert read_state(path)["a"].dtype == dtype
            path = path.with_name(f"{dtype}.pth")

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.ones(3, dtype=torch.int64),
            torch.ones(3, dtype=torch.uint8),
            torch.ones(3, dtype=torch.bool),
            torch.ones(3, dtype=torch.complex64),
            torch.empty(3, device="meta"),
        ],
        ids=["int64", "uint8", "bool", "complex", "meta"],
    )
    @pytest.mark.filterwarnings("ignore")
    def test_other_kinds_of_numbers(self, path, tensor):
        torch.save({"a.weight": tensor}, path)
        refused(path)

    def test_few_numbers_repeated_to_terabytes(self, path, trusted):
        torch.save({"a": torch.ones(1).expand(1 << 20, 1 << 20)}, path)
        assert "a is larger than the file" in refused(path)

    def test_a_long_name_is_cut(self, path, trusted):
        torch.save({"x" * 100_000: 1, "a": torch.ones(1)}, path)
        assert len(refused(path)) < 1000


class TestBombs:
    def test_a_packed_pth(self, path):
        torch.save({"a": torch.zeros(1 << 20)}, path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        assert "is compressed" in refused(path)

    def test_members_that_overlap(self, path):
        torch.save({"a": torch.zeros(1 << 10)}, path)
        content = bytearray(path.read_bytes())
        entry = content.rfind(b"PK\x01\x02")
        content[entry + 20 : entry + 28] = struct.pack("<2I", 1 << 30, 1 << 30)
        path.write_bytes(content)
        refused(path)

    @pytest.mark.parametrize(
        "header",
        [
            {
                "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
                "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
            },
            {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}},
            {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 60]}},
            {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
            {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
            {"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
            {"a": {"dtype": "F32", "shape": [4]}},
            {"a": {"dtype": "F32", "shape": [4], "data_offsets": ["0", "16"]}},
            {"a": []},
            [],
            {"__metadata__": {"a": 5}},
        ],
        ids=range(11),
    )
    def test_a_header_of_safetensors_that_lies(self, tmp_path, header):
        path = tmp_path / "weights.safetensors"
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(24))
        refused(path)

    @pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1, 50_000_000])
    def test_a_length_of_safetensors_that_lies(self, tmp_path, length):
        path = tmp_path / "weights.safetensors"
        with open(path, "wb") as stream:
            stream.write(struct.pack("<Q", length) + b"{" + b"[" * 100_000)
            stream.truncate(60_000_000)
        refused(path)


def test_a_file_that_changes_while_it_is_read_is_refused(official, path, monkeypatch, trusted):
    torch.save(official, path)
    stated = digest(path)
    load = torch.load

    def load_and_change(*arguments, **options):
        state = load(*arguments, **options)
        path.unlink()  # as a download that is done again does it
        torch.save({}, path)
        return state

    monkeypatch.setattr(torch, "load", load_and_change)
    assert "changed while it was read" in refused(path)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match="changed while"):
        read_state(path, stated)


def test_links_are_files_like_any_other(official, path, tmp_path, trusted):
    torch.save(official, path)
    os.link(path, tmp_path / "hard.pth")
    (tmp_path / "soft.pth").symlink_to(path)
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    for name in ("hard.pth", "soft.pth"):
        assert_equal(read_state(tmp_path / name), official)
    refused(tmp_path / "loop.pth")
    refused(tmp_path)


class TestSafety:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_forbidden_call_is_refused_and_not_made(self, path, tmp_path, zipped):
        marker = tmp_path / "it-ran"

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(marker),)

        torch.save({"model": Evil()}, path, _use_new_zipfile_serialization=zipped)
        assert "holds more than tensors" in refused(path)
        path.write_bytes(pickle.dumps(Evil(), protocol=2))
        refused(path)
        assert not marker.exists()

    def test_a_number_beside_the_tensors_is_read_or_said(self, official, path, trusted):
        torch.save({"model": official, "lr": 0.5}, path)
        if checkpoint._TORCH >= (2, 0):
            assert_equal(read_state(path), official)
        else:
            assert "holds more than torch 1" in refused(path)

    def test_an_old_torch_reads_only_the_published_pickles(self, official, path, monkeypatch, old_torch):
        torch.save(official, path)
        with pytest.raises(CheckpointError, match="CVE-2025-32434") as caught:
            read_state(path)
        assert "`trust`" in caught.value.hint
        assert_equal(read_state(path, trust=True), official)
        monkeypatch.setattr(checkpoint, "ROWS", (ROW,))
        with pytest.raises(CheckpointError):  # no digest known is not a digest that fits
            read_state(path)
        published = replace(ROW, files=(replace(ROW.weights, sha256=digest(path)),))
        monkeypatch.setattr(checkpoint, "ROWS", (ROW, published))
        assert_equal(read_state(path, digest(path)), official)

    def test_an_old_torch_reads_every_safetensors(self, official, tmp_path, old_torch):
        path = tmp_path / "weights.safetensors"
        save_file(official, str(path))
        assert_equal(read_state(path), official)

    def test_only_a_new_torch_needs_no_trust(self, official, path):
        torch.save(official, path)
        if checkpoint._TORCH >= (2, 6):
            assert_equal(read_state(path), official)
        else:
            with pytest.raises(CheckpointError, match="`trust`"):
                read_state(path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the kernel what is mapped")
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_the_file_is_mapped_and_not_copied(tmp_path, name):
    can_be_mapped = name.endswith(".safetensors") or checkpoint._TORCH >= (2, 1)  # older torch reads a .pth as a whole
    path = tmp_path / name
    state = {"a": torch.zeros(1 << 20)}
    torch.save(state, path) if name.endswith(".pth") else save_file(state, str(path))
    state = read_state(path, trust=True)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert (str(path) in maps.read()) == can_be_mapped
    assert state["a"].sum() == 0
