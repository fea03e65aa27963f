from __future__ import annotations

import pytest

from depthcli.depthmap import DepthKind
from depthcli.errors import UsageError
from depthcli.nets.build import _MetaDevice, build_network
from depthcli.zoo.rows import DA3_NETWORKS, NETWORKS, ROWS, Channel, ModelTask, find_row, select_row, with_max_depth

# Parameters of the official networks, from their papers' code; the sizes of the published files agree.
PARAMETERS = {"vits": 24_785_089, "vitb": 97_470_785, "vitl": 335_315_649, "vitg": 1_258_132_225}
# Entries of the official checkpoints.
KEYS = {"vits": 239, "vitb": 239, "vitl": 407, "vitg": 631}
# The same of Video-Depth-Anything. Its files also hold codes of a frame's place, which are no parameters.
VIDEO_PARAMETERS = {"vits": 29_035_137, "vitb": 114_441_409, "vitl": 384_390_337}
# Depth Anything 3, by the model_name of its config.json: parameters in 0.1 millions, and keys of the file.
DA3_PARAMETERS = {
    "da3-small": (343, 437),
    "da3-base": (1354, 437),
    "da3-large": (4109, 637),
    "da3-giant": (13557, 971),
    "da3nested-giant-large": (16898, 1377),
    "da3mono-large": (3342, 406),
    "da3metric-large": (3342, 406),
}
VIDEO_KEYS = {"vits": 351, "vitb": 351, "vitl": 519}


@pytest.mark.parametrize("encoder", PARAMETERS)
def test_networks_have_the_official_size(encoder: str) -> None:
    with _MetaDevice():
        network = build_network(NETWORKS[encoder])
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[encoder]
    assert len(network.state_dict()) == KEYS[encoder]


@pytest.mark.parametrize("encoder", VIDEO_PARAMETERS)
def test_networks_for_video_have_the_official_size(encoder: str) -> None:
    with _MetaDevice():
        network = build_network(find_row(f"vda-{encoder}").network, temporal=True)
    assert sum(p.numel() for p in network.parameters()) == VIDEO_PARAMETERS[encoder]
    state = network.state_dict()
    assert len(state) == VIDEO_KEYS[encoder]
    for name in (f"vda-{encoder}", f"vda-metric-{encoder}"):
        # What torch.save writes around the tensors is 120 kB, or a quarter more for as many more blocks.
        around = (find_row(name).weights.bytes or 0) - 4 * sum(tensor.numel() for tensor in state.values())
        assert 100_000 < around < 200_000


@pytest.mark.parametrize("name", DA3_PARAMETERS)
def test_networks_of_depth_anything_3_have_the_official_size(name: str) -> None:
    with _MetaDevice():
        state = build_network(DA3_NETWORKS[name]).state_dict()
    assert (round(sum(tensor.numel() for tensor in state.values()) / 1e5), len(state)) == DA3_PARAMETERS[name]


def test_metres_need_a_focal_length_where_the_row_says_so() -> None:
    row = find_row("da3-metric")
    assert row.kind is DepthKind.METRIC_DEPTH and row.without_focal().kind is DepthKind.RELATIVE_DEPTH
    assert row.without_focal().canonical_focal is None
    assert find_row("da3-mono").without_focal() is find_row("da3-mono")


def test_names_are_unique_and_found() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert find_row(row.name) is row


def test_every_row_says_what_it_gives_and_under_which_licence() -> None:
    for row in ROWS:
        assert row.licence and row.title
        assert row.kind.is_metric == (row.kind is DepthKind.METRIC_DEPTH) == bool(row.scene)
        by_range = row.kind.is_metric and row.task is ModelTask.PICTURE and row.canonical_focal is None
        assert (row.max_depth is not None) == by_range


def test_the_packaged_model_fits_into_the_wheel() -> None:
    with _MetaDevice():
        network = build_network(find_row("tiny").network)
    assert sum(p.numel() for p in network.parameters()) * 2 <= 12_000_000


def test_the_giant_is_never_downloaded() -> None:
    assert find_row("vitg").weights.channel is Channel.UNPUBLISHED


def test_selecting_by_encoder_and_scene() -> None:
    assert select_row("vitb").name == "vitb"
    assert select_row("vits", "outdoor").max_depth == 80
    assert select_row("vitl", "indoor").max_depth == 20
    assert select_row("tiny", "outdoor") == with_max_depth(find_row("metric-tiny"), 80)


def test_a_wrong_name_is_answered_with_near_ones() -> None:
    with pytest.raises(UsageError, match="vits") as error:
        find_row("vit_s")
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="indoor or outdoor"):
        select_row("vits", "underwater")
    with pytest.raises(UsageError, match="no metric model of size vitg"):
        select_row("vitg", "indoor")


def test_only_metric_models_take_a_depth_range() -> None:
    assert with_max_depth(find_row("metric-indoor-vits"), 35).max_depth == 35
    with pytest.raises(UsageError):
        with_max_depth(find_row("vits"), 35)
    with pytest.raises(UsageError):
        with_max_depth(find_row("metric-indoor-vits"), 0)
    with pytest.raises(UsageError, match="without a range"):
        with_max_depth(find_row("vda-metric-vits"), 35)


@pytest.mark.parametrize("name", ["vitx", "vits2", "small", "", "VITS", "x" * 50])
def test_an_unknown_encoder_is_answered_with_all_there_are(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        select_row(name)
    assert caught.value.hint == "choose from: vits, vitb, vitl, vitg, tiny"
