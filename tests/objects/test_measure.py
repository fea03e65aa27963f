"""Depth, place and size of objects in scenes of known geometry."""

from __future__ import annotations

import numpy as np
import pytest

from depthcli.camera import CameraSource, pinhole
from depthcli.depthmap import DepthKind, DepthMap
from depthcli.io.masks.found import ObjectMask
from depthcli.objects.document import document_of, objects_in
from depthcli.objects.measure import Region, measure
from tests.objects.scenes import FAR, FOCAL, NEAR, SIZE, SMALL, relative, scene

METRES = ("distance", "nearest", "p5", "p25", "p75", "p95", "mad", "position", "range", "width", "height")


def document(masks: list[ObjectMask], depth: DepthMap, trim: float = 1.0) -> dict:
    return document_of(objects_in(masks, depth, trim), {"path": "a.jpg"}, {"source": "test"})


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def flat(z: float, **more: object) -> DepthMap:
    return DepthMap(np.full(SIZE[::-1], z, np.float32), DepthKind.METRIC_DEPTH, **more)


class TestPlace:
    def test_a_disc_is_where_it_is_to_a_millimetre(self):
        masks, depth = scene(SMALL)
        (row,) = document(masks, depth)["objects"]
        # The middle of its pixels is within a hundredth of one of the disc's: 0.2 mm at 5 m and this focal length.
        assert row["position"] == pytest.approx([SMALL.x, SMALL.y, SMALL.z], abs=5e-3)
        assert row["distance"] == SMALL.z and row["range"] == pytest.approx(np.linalg.norm(row["position"]), abs=1e-3)

    def test_a_box_is_exactly_where_its_pixels_are(self):
        camera = pinhole(SIZE, FOCAL, CameraSource.GIVEN)
        (row,) = document([ObjectMask(box(40, 60, 101, 91))], flat(3.0, camera=camera))["objects"]
        u, v = 70, 75  # the middle pixel
        expected = [(u - 159.5) * 3 / FOCAL, (v - 119.5) * 3 / FOCAL, 3]
        assert row["position"] == pytest.approx(expected, abs=1e-4)
        assert row["width"] == pytest.approx(61 * 3 / FOCAL, abs=1e-4)
        assert row["height"] == pytest.approx(31 * 3 / FOCAL, abs=1e-4)
        assert row["range"] == pytest.approx(np.linalg.norm(expected), abs=1e-4)

    def test_a_lens_is_undone(self):
        from depthcli.camera import Camera, Distortion, LensModel

        plain = pinhole(SIZE, FOCAL, CameraSource.GIVEN)
        bent = Camera(plain.intrinsics, plain.source, distortion=Distortion(LensModel.RADIAL, (-0.2, 0, 0, 0, 0)))
        mask = ObjectMask(box(10, 10, 31, 31))
        straight, curved = (measure(mask, flat(3.0, camera=each), 1).position for each in (plain, bent))
        assert abs(curved[0]) > 1.05 * abs(straight[0])

    def test_scaled_depth_scales_metres_and_keeps_the_order(self):
        first = document(*scene(NEAR, FAR, SMALL))["objects"]
        again = document(*scene(NEAR, FAR, SMALL, scale=2.0))["objects"]
        assert [row["label"] for row in first] == [row["label"] for row in again] == ["near", "far", "small"]
        for before, after in zip(first, again):
            for name in METRES:
                assert after[name] == pytest.approx(2 * np.array(before[name]), abs=2e-4), name

    def test_without_a_camera_there_are_distances_and_no_places(self):
        (row,) = document([ObjectMask(box(40, 60, 101, 91))], flat(3.0))["objects"]
        assert row["distance"] == 3 and row["position"] is row["range"] is row["width"] is row["height"] is None


class TestEdges:
    @pytest.mark.parametrize("blur", [0, 1, 2, 3])
    def test_blurred_edges_do_not_reach_the_core(self, blur):
        masks, depth = scene(NEAR, FAR, blur=blur)
        for row, disc in zip(document(masks, depth, trim=2 * blur + 1)["objects"], (NEAR, FAR)):
            assert row["distance"] == pytest.approx(disc.z, rel=0.01)
            assert row["p5"] == pytest.approx(disc.z, rel=0.05) and row["p95"] == pytest.approx(disc.z, rel=0.05)
            assert row["nearest"] == pytest.approx(disc.z, rel=0.05)

    def test_without_the_trim_they_do(self):
        masks, depth = scene(NEAR, FAR, blur=3)
        assert document(masks, depth, trim=0)["objects"][0]["p95"] > 1.05 * NEAR.z

    def test_sizes_are_those_of_the_whole_mask(self):
        masks, depth = scene(NEAR, blur=2)
        (row,) = document(masks, depth, trim=5)["objects"]
        assert row["width"] == pytest.approx(2 * NEAR.radius, rel=0.02) and row["height"] == pytest.approx(
            2 * NEAR.radius, rel=0.02
        )

    def test_a_twig_does_not_count_for_the_size(self):
        mask = box(100, 100, 140, 160)
        mask[130, 140:200] = True
        camera = pinhole(SIZE, FOCAL, CameraSource.GIVEN)
        assert measure(ObjectMask(mask), flat(2.5, camera=camera), 1).width == pytest.approx(0.4)

    def test_the_picture_s_border_is_no_edge_of_an_object(self):
        region = Region.of(box(0, 0, 20, 20))
        assert region.inner[0, 0] == pytest.approx(np.hypot(20, 0)) and region.is_cut
        assert Region.of(np.ones((5, 5), bool)).core(3)[0].all()

    def test_a_thin_object_is_measured_along_its_middle_and_says_so(self):
        depth = flat(9.0)
        values = depth.values.copy()
        values[100:103, 50:250] = 2.0
        was = measure(ObjectMask(box(50, 100, 250, 103)), DepthMap(values, depth.kind), 4)
        assert was.distance == 2 and "thin" in was.flags and was.n >= 0.2 * 600

    def test_an_object_at_the_border_says_that_it_may_go_on(self):
        rows = document([ObjectMask(box(0, 5, 60, 60)), ObjectMask(box(5, 100, 60, 160))], flat(2.0))["objects"]
        assert [row["flags"] for row in sorted(rows, key=lambda row: row["box"][1])] == [["cut"], []]


class TestValues:
    def test_where_depth_is_unknown_nothing_is_claimed(self):
        valid = np.ones(SIZE[::-1], bool)
        valid[:, :60] = False
        depth = DepthMap(np.full(SIZE[::-1], 2.0), DepthKind.METRIC_DEPTH, valid=valid)
        masks = [ObjectMask(box(5, 5, 50, 50), "a"), ObjectMask(box(40, 60, 82, 100), "b")]
        first, second = document(masks, depth)["objects"]
        assert (first["label"], first["rank"], first["known"]) == ("b", 0, 0.525)
        assert second["rank"] is None and second["flags"] == ["no depth"]
        assert all(second[name] is None for name in (*METRES, "nearness", "nearest_at"))

    def test_outliers_and_the_nearest_part(self):
        values = np.full(SIZE[::-1], 2.0, np.float32)
        values[50:70, 50:70] = 1.0
        values[20, 20] = 0.01  # one wrong pixel
        was = measure(ObjectMask(box(10, 10, 110, 110)), DepthMap(values, DepthKind.METRIC_DEPTH), 1)
        assert (was.distance, was.nearest, was.mad) == (2, 1, 0)
        assert was.nearest_at == (59, 59)

    def test_two_things_in_one_mask_are_told(self):
        values = np.full(SIZE[::-1], 2.0, np.float32)
        values[:, 60:] = 5.0
        assert "mixed" in measure(ObjectMask(box(10, 10, 110, 110)), DepthMap(values, DepthKind.METRIC_DEPTH), 1).flags

    def test_the_end_of_a_model_s_range_is_told(self):
        assert "far limit" in measure(ObjectMask(box(10, 10, 110, 110)), flat(19.9, max_depth=20), 1).flags
        assert "far limit" not in measure(ObjectMask(box(10, 10, 110, 110)), flat(19.0, max_depth=20), 1).flags

    def test_an_empty_mask_is_no_object(self):
        with pytest.raises(ValueError, match="without pixels"):
            measure(ObjectMask(np.zeros(SIZE[::-1], bool)), flat(1.0), 1)


class TestRelativeDepth:
    @pytest.mark.parametrize("kind", [DepthKind.RELATIVE_DISPARITY, DepthKind.RELATIVE_DEPTH])
    def test_it_gives_the_order_and_no_metres_anywhere(self, kind):
        masks, depth = scene(SMALL, FAR, NEAR, blur=1)
        found = document(masks, relative(depth, kind), trim=3)
        rows = found["objects"]
        assert [row["label"] for row in rows] == ["near", "far", "small"] and found["depth"]["unit"] is None
        assert all(row[name] is None for row in rows for name in METRES)
        assert 1 >= rows[0]["nearness"] > rows[1]["nearness"] > rows[2]["nearness"] >= 0
        assert [(pair["front"], pair["back"], pair["log_ratio"]) for pair in found["hides"]] == [(0, 1, None)]


class TestOrder:
    def test_the_nearer_one_of_two_that_meet_hides_the_other(self):
        found = document(*scene(FAR, NEAR, SMALL))
        (pair,) = found["hides"]
        assert (pair["front"], pair["back"]) == (0, 1)
        assert pair["log_ratio"] == pytest.approx(np.log(FAR.z / NEAR.z), abs=1e-4)

    def test_neighbours_at_one_depth_hide_nothing(self):
        masks = [ObjectMask(box(10, 10, 60, 60)), ObjectMask(box(60, 10, 110, 60))]
        assert document(masks, flat(2.0))["hides"] == []

    def test_things_apart_hide_nothing_however_deep_the_step_is(self):
        masks, depth = scene(NEAR, SMALL)
        assert document(masks, depth)["hides"] == []

    def test_equal_ones_are_ordered_by_area(self):
        masks = [ObjectMask(box(10, 10, 30, 30), "small"), ObjectMask(box(100, 10, 150, 60), "large")]
        assert [row["label"] for row in document(masks, flat(2.0))["objects"]] == ["large", "small"]

    @pytest.mark.parametrize(
        ("sort", "labels"), [("distance", "abc"), ("area", "bca"), ("score", "cba"), ("label", "abc")]
    )
    def test_the_list_is_sorted_as_wanted_and_ranks_stay(self, sort, labels):
        values = np.full(SIZE[::-1], 2.0, np.float32)
        values[:, 100:200], values[:, 200:] = 3.0, 4.0
        masks = [
            ObjectMask(box(210, 10, 240, 40), "c", score=0.9),
            ObjectMask(box(10, 10, 30, 30), "a", score=0.6),
            ObjectMask(box(110, 10, 190, 90), "b", score=0.8),
        ]
        found = objects_in(masks, DepthMap(values, DepthKind.METRIC_DEPTH), 1, sort)
        assert "".join(item.label for item in found.masks) == labels
        assert [found.ranks[place] for place in sorted(range(3), key=lambda n: found.masks[n].label)] == [0, 1, 2]


def test_no_objects_at_all_is_an_empty_list():
    found = document([], flat(2.0))
    assert found["objects"] == [] and found["hides"] == []
