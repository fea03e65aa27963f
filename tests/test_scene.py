from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from depthcli.camera import Camera, Distortion
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.scene import Area, Scene, View, ViewTable
from tests.geometry.rooms import PICTURE, SIZE, camera, room


def view(**changes: object) -> View:
    one = room().views[0]
    return View(**{"depth": one.depth, "name": "a.png", **changes})  # type: ignore[arg-type]


def with_camera(seen_by: Camera | None) -> DepthMap:
    return DepthMap(np.ones((56, 84)), DepthKind.METRIC_DEPTH, camera=seen_by)


def test_a_view_needs_a_rigid_pose() -> None:
    good = camera((0, 0, 0))
    assert good.extrinsics is not None
    mirrored, larger = good.extrinsics * [[1], [1], [-1]], good.extrinsics * 1.1
    for depth, reason in (
        (with_camera(None), "needs a camera with a pose"),
        (with_camera(replace(good, extrinsics=None)), "needs a camera with a pose"),
        (with_camera(replace(good, extrinsics=mirrored)), "mirrored"),
        (with_camera(replace(good, extrinsics=larger)), "no rotation"),
        (with_camera(replace(good, distortion=Distortion("radial", (0.1, 0, 0, 0, 0)))), "distortion"),  # type: ignore[arg-type]
        (DepthMap(np.ones((56, 84)), DepthKind.RELATIVE_DISPARITY, camera=good), "disparity"),
    ):
        with pytest.raises(ValueError, match=reason):
            view(depth=depth)


@pytest.mark.parametrize("name", ["", "/etc/a.png", "../a.png", "a\\b.png", "a\nb.png"])
def test_a_view_is_named_by_a_relative_path(name: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        view(name=name)


def test_a_picture_has_the_size_of_its_map() -> None:
    with pytest.raises(ValueError, match="the picture is uint8"):
        view(picture=np.zeros((84, 56, 3), np.uint8))


def test_a_scene_holds_views_of_one_kind_with_names_of_their_own() -> None:
    one = view()
    with pytest.raises(ValueError, match="at least one view"):
        Scene(())
    with pytest.raises(ValueError, match=r"two views of a scene are called a\.png"):
        Scene((one, one))
    other = replace(one, name="b.png", depth=DepthMap(one.depth.values, DepthKind.RELATIVE_DEPTH, camera=one.camera))
    with pytest.raises(ValueError, match="several kinds"):
        Scene((one, other))


def test_nothing_in_a_scene_can_be_written_to() -> None:
    scene = room()
    picture = scene.views[0].picture
    assert picture is not None
    for array in (picture, scene.views[0].extrinsics, scene.views[0].camera.intrinsics, scene.views[0].depth.values):
        assert not array.flags.writeable
    with pytest.raises(TypeError):
        scene.facts["model"] = "other"  # type: ignore[index]


def test_the_camera_of_the_picture_sees_what_the_map_sees() -> None:
    """A map that covers a part of a picture: edges meet edges, so the outer corner of a pixel is where both say."""
    part = view(picture_size=(400, 300), area=Area(40, 30, 168, 112))
    corners = np.array([[-0.5, -0.5], [83.5, 55.5]])
    assert np.allclose(part.to_picture(corners), [[39.5, 29.5], [207.5, 141.5]])
    middle = np.array([part.camera.center])
    assert np.allclose(part.to_picture(middle), [part.picture_camera.center])
    assert np.allclose(np.divide(part.picture_camera.focal, part.camera.focal), 2)
    whole = room().views[0]
    assert whole.scale == (PICTURE[0] / SIZE[0], PICTURE[1] / SIZE[1])


def test_a_padded_map_tells_what_shows_the_picture() -> None:
    """A picture of 84x28 in the middle of a map of 84x56: 14 rows above and below show nothing."""
    one = view(picture_size=(168, 56), area=Area(0, -28, 168, 112))
    assert one.inside == (slice(14, 42), slice(0, 84))
    assert view().inside == (slice(0, 56), slice(0, 84))
    whole = view(picture_size=(336, 224), area=Area(40, 30, 168, 112))  # a part of a picture: nothing is outside
    assert whole.inside == (slice(0, 56), slice(0, 84))


def test_what_is_outside_of_pictures_does_not_count_for_confidence() -> None:
    from depthcli.geometry.scene_points import confidence_floor

    sure = np.full((56, 84), 1.0, np.float32)
    sure[14:42] = np.linspace(2, 3, 28)[:, None]
    depth = DepthMap(np.ones((56, 84)), DepthKind.RELATIVE_DEPTH, confidence=sure, camera=camera((0, 0, 0)))
    padded = Scene((view(depth=depth, picture_size=(84, 28), area=Area(0, -14, 84, 56)),))
    assert confidence_floor(padded, 50) == pytest.approx(2.5, abs=0.02)
    assert confidence_floor(Scene((view(depth=depth),)), 40) == pytest.approx(1.05)


def table_of(scene: Scene) -> ViewTable:
    depths = [view.depth for view in scene.views]
    return ViewTable(
        scene.views[0],
        scene.names,
        np.stack([depth.values for depth in depths]),
        np.stack([depth.values > 0 if depth.valid is None else depth.valid for depth in depths]),
        np.stack([depth.confidence for depth in depths]),  # type: ignore[arg-type]
        np.stack([view.picture for view in scene.views]),  # type: ignore[arg-type]
        scene.intrinsics,
        scene.extrinsics,
    )


def test_a_scene_of_a_table_is_that_of_its_views() -> None:
    plain = room()
    held = Scene(table_of(plain), plain.facts)
    assert held.names == plain.names and held.size == plain.size and held.kind is plain.kind
    assert np.array_equal(held.extrinsics, plain.extrinsics) and np.array_equal(held.intrinsics, plain.intrinsics)
    assert len(held.views) == len(plain.views) == len(held.views[:]) and held.views[-1].name == plain.views[-1].name
    for one, other in zip(held.views, plain.views):
        assert np.array_equal(one.depth.values, other.depth.values) and one.depth.kind is other.depth.kind
        assert one.picture is not None and np.array_equal(one.picture, other.picture)
        assert np.array_equal(one.extrinsics, other.extrinsics) and one.picture_size == other.picture_size
        assert one.depth.provenance.source == one.name
    with pytest.raises(IndexError):
        held.views[len(plain.views)]
    table = table_of(plain)
    table.names = (*plain.names[:-1], plain.names[0])
    with pytest.raises(ValueError, match="two views of a scene are called"):
        Scene(table)
