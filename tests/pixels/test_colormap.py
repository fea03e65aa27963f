from __future__ import annotations

import numpy as np
import pytest

from depthcli.choices.settings import COLORMAPS
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.errors import UsageError
from depthcli.pixels import colormap
from depthcli.pixels.colormap import codes_of_color, color_table, nearness, to_color, to_gray8, to_gray16

NEAR_AND_FAR = np.array([[4.0, 1.0]], np.float32)


def disparity(values: np.ndarray) -> DepthMap:
    return DepthMap(values, DepthKind.RELATIVE_DISPARITY)


def test_near_is_white_and_red_for_every_kind() -> None:
    for kind in DepthKind:
        near, far = (0, 1) if kind.near_is_high else (1, 0)
        depth = DepthMap(NEAR_AND_FAR, kind)
        assert to_gray8(depth)[0, near] == 255 and to_gray8(depth)[0, far] == 0
        assert to_gray16(depth)[0, near] == 65535 and to_gray16(depth)[0, far] == 0
        assert tuple(to_color(depth, "Spectral_r")[0, near]) == (158, 1, 66)  # ColorBrewer's red end
        assert tuple(to_color(depth, "Spectral_r")[0, far]) == (94, 79, 162)


def test_codes_are_truncated_as_the_official_scripts_do() -> None:
    values = np.linspace(0.3, 7.1, 999, dtype=np.float32).reshape(27, 37)
    wanted = ((values - values.min()) / (values.max() - values.min()) * 255).astype(np.uint8)
    assert np.array_equal(to_gray8(disparity(values)), wanted)


@pytest.mark.parametrize("kind", list(DepthKind))
def test_bands_of_rows_give_the_bits_of_one_piece(kind: DepthKind, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((41, 37), np.float32) * 7
    t = (values - values.min()) / (values.max() - values.min())
    t = t if kind.near_is_high else 1 - t
    monkeypatch.setattr(colormap, "_BAND_PIXELS", 37 * 5)
    depth = DepthMap(values, kind)
    assert np.array_equal(nearness(depth), t)
    assert np.array_equal(to_gray8(depth), (t * np.float32(255)).astype(np.uint8))
    assert np.array_equal(to_gray16(depth), np.round(t.astype(np.float64) * 65535).astype(np.uint16))
    for name in ("Spectral_r", "turbo"):
        assert np.array_equal(to_color(depth, name), color_table(name)[to_gray8(depth)])


def test_a_flat_map_is_a_flat_picture() -> None:
    flat = disparity(np.full((3, 4), 2.5, np.float32))
    assert not to_gray8(flat).any() and not to_gray16(flat).any()
    assert len(np.unique(to_color(flat, "inferno").reshape(-1, 3), axis=0)) == 1


def test_a_fixed_range_clips() -> None:
    codes = to_gray8(disparity(np.array([[0.0, 1.0, 2.0, 3.0, 4.0]], np.float32)), (1.0, 3.0))
    assert codes.tolist() == [[0, 0, 127, 255, 255]]


def test_spectral_runs_through_its_eleven_colours() -> None:
    table = color_table("Spectral")
    assert table.shape == (256, 3)
    for position, color in ((0, (158, 1, 66)), (51, (244, 109, 67)), (255, (94, 79, 162))):
        assert np.abs(table[position].astype(int) - color).max() <= 1


def test_known_colours_of_matplotlibs_maps() -> None:
    assert tuple(color_table("inferno")[0]) == (0, 0, 4)
    assert tuple(color_table("inferno")[255]) == (252, 255, 164)
    assert tuple(color_table("viridis")[0]) == (68, 1, 84)
    assert tuple(color_table("turbo")[255]) == (122, 4, 3)


@pytest.mark.parametrize("name", [*COLORMAPS, "Spectral_r", "turbo_r"])
def test_colours_give_their_codes_back(name: str) -> None:
    table = color_table(name)
    codes = codes_of_color(table[None], name)[0]
    assert np.array_equal(table[codes], table)
    assert np.abs(codes.astype(int) - np.arange(256)).max() <= 2  # where neighbours share a colour


def test_foreign_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="Spectral"):
        codes_of_color(np.array([[[1, 2, 3]]], np.uint8), "Spectral")


def test_names_do_not_depend_on_case_and_unknown_ones_are_listed() -> None:
    assert np.array_equal(color_table("spectral_r"), color_table("Spectral_r"))
    with pytest.raises(UsageError, match="inferno"):
        color_table("jet")
