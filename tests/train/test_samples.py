"""Samples: the same for the same seed and place, targets that are measured and never mixed, metres that stay true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depthcli.depthmap import DepthKind
from depthcli.eval.lists import Entry, read_list
from depthcli.eval.truth import Truth
from depthcli.train.samples import Sampler, common_shape, targets
from depthcli.zoo.rows import find_row
from tests.train.rgbd import depth_of, write_list

TINY = find_row("tiny").with_input_size(56)
METRIC = find_row("metric-indoor-vits").with_input_size(56)
METRES = DepthKind.METRIC_DEPTH


def sampler(row=METRIC, augment: bool = True, count: int = 4, seed: int = 0) -> Sampler:
    return Sampler(read_list(write_list(count)), row, (56, 84), augment, seed)


class TestTargets:
    def test_a_dense_truth_gives_numbers_that_were_measured(self):
        depth = np.where(np.arange(60) < 30, 1.0, 4.0) * np.ones((40, 1))
        depth[5, 5] = np.nan
        target, known = targets(Truth(depth, METRES), (28, 14), METRIC)
        assert set(np.unique(target[known])) == {1.0, 4.0} and target.shape == (14, 28) and known.mean() > 0.98

    def test_every_point_of_a_sparse_truth_is_kept_and_the_nearest_of_a_pixel_wins(self):
        depth = np.full((40, 60), np.nan)
        depth[0, 0], depth[1, 1], depth[39, 59], depth[20, 30] = 5, 3, 7, 2
        target, known = targets(Truth(depth, METRES), (30, 20), METRIC)
        assert known.sum() == 3
        assert (target[0, 0], target[19, 29], target[10, 15]) == (3, 7, 2)
        target, _ = targets(Truth(depth, METRES), (30, 20), TINY)
        assert target[0, 0] == pytest.approx(1 / 3)

    def test_depth_beyond_the_range_of_the_model_is_unknown(self):
        depth = np.full((4, 4), 5.0)
        depth[0], depth[1] = 21.0, 1e-4
        target, known = targets(Truth(depth, METRES), (4, 4), METRIC)
        assert known.sum() == 8 and target[0, 0] == 0
        assert targets(Truth(depth, METRES), (4, 4), TINY)[1].all()


class TestSampler:
    def test_a_sample_depends_on_seed_and_place_alone(self):
        one, other = sampler(), sampler()
        for position in (9, 2, 5):
            a, b = (each.sample(position, (56, 70)) for each in (one, other))
            assert a.entry == b.entry and np.array_equal(a.image, b.image) and np.array_equal(a.target, b.target)
        different = [sampler(seed=1).sample(position, (56, 70)).image for position in range(4)]
        assert not all(np.array_equal(a, one.sample(n, (56, 70)).image) for n, a in enumerate(different))

    def test_each_epoch_has_every_picture_once_in_another_order(self):
        each = sampler(count=6)
        epochs = [[each.entry_at(6 * epoch + index).number for index in range(6)] for epoch in range(3)]
        assert all(sorted(epoch) == [1, 2, 3, 4, 5, 6] for epoch in epochs) and len({tuple(e) for e in epochs}) > 1

    def test_metres_of_a_changed_picture_are_those_that_were_measured_there(self):
        """A crop, a flip and other colours leave the focal length, and with it the metres, as they were."""
        each = sampler()
        for position in range(8):
            sample = each.sample(position, (56, 56))
            depth = depth_of(int(sample.entry.name))
            windows = [depth[:, left : left + 56] for left in range(29)]
            apart = min(np.abs(w - sample.target).max() for v in windows for w in (v, v[:, ::-1]))
            assert apart < 1e-3

    def test_without_augmentation_a_sample_is_the_picture_as_depth_image_sees_it(self):
        from depthcli.io.pictures.images import read_picture
        from depthcli.pixels.preprocess import plan_input, to_network_input

        sample = sampler(augment=False).sample(3, (56, 84))
        picture = read_picture(sample.entry.picture)
        assert np.array_equal(sample.image, to_network_input(picture.rgb, plan_input(84, 56, METRIC.input)))
        assert sample.known.all()

    def test_shapes_change_by_step_and_fit_the_network(self):
        each = sampler()
        shapes = {each.shape_of(step) for step in range(40)}
        assert (56, 84) in shapes and len(shapes) > 1
        assert all(h % 14 == w % 14 == 0 and 28 <= h <= 56 and 56 <= w <= 84 for h, w in shapes)
        assert {replace(each, augment=False).shape_of(step) for step in range(40)} == {(56, 84)}

    def test_the_common_shape_fits_into_every_picture(self):
        assert common_shape([(640, 480), (1242, 375)], find_row("vits")) == (518, 686)

    def test_of_a_picture_with_a_crop_only_the_inside_is_known(self):
        write_list(1)
        entry = Entry(1, "a", "a", Path("rgb/0.png"), Path("depth/0.png"), "nyu", crop=(0, 0, 56, 42))
        sample = Sampler([entry], METRIC, (56, 84), False, 0).sample(0, (56, 84))
        assert sample.known[:, :42].all() and not sample.known[:, 42:].any()
