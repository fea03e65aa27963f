"""A network in metres begins with the relative one, moved and stretched to fit the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthcli.eval.lists import Entry
from depthcli.train.samples import Sample
from depthcli.train.start import fit_metres
from depthcli.zoo.rows import find_row
from tests.train.rgbd import network

ROW = find_row("metric-tiny")
DRAW = np.random.default_rng(5)


def samples(net: torch.nn.Module, scale: float, shift: float) -> list[Sample]:
    """Pictures whose depth is what the network would answer with other numbers in its last layer."""
    made = []
    for number in range(3):
        image = DRAW.standard_normal((3, 56, 84)).astype(np.float32)
        with torch.no_grad():
            fraction = net(torch.from_numpy(image)[None])[0].double().numpy()
        answer = np.log(np.expm1(1 / fraction - 1))
        target = (ROW.max_depth / (1 + np.logaddexp(0, scale * answer + shift))).astype(np.float32)
        known = DRAW.random(target.shape) < 0.5
        made.append(Sample(Entry(number, "", "", None), image, np.where(known, target, 0), known))
    return made


@pytest.mark.parametrize(("scale", "shift"), [(2.0, 1.0), (0.3, 4.0)])
def test_scale_and_shift_are_found(one_thread, scale, shift):
    net = network(ROW)
    data = samples(net, scale, shift)
    assert fit_metres(net, data, ROW.max_depth) == pytest.approx((scale, shift), rel=2e-3)
    with torch.no_grad():
        metres = ROW.max_depth * net(torch.from_numpy(data[0].image)[None])[0].numpy()
    known = data[0].known
    assert np.abs(metres[known] / data[0].target[known] - 1).max() < 1e-2


def test_some_wrong_depth_does_not_move_it(one_thread):
    net = network(ROW)
    data = samples(net, 2.0, 1.0)
    for sample in data:
        wrong = sample.known & (DRAW.random(sample.known.shape) < 0.1)
        sample.target[wrong] = 0.2
    assert fit_metres(net, data, ROW.max_depth) == pytest.approx((2.0, 1.0), rel=0.1)


def test_rooms_are_not_taken_for_streets_when_both_are_in_the_data(one_thread):
    """Both have the same answers, so one of them must be wrong: it is that with fewer pictures."""
    net = network(ROW)
    rooms, street = samples(net, 2.0, 30.0), samples(net, 2.0, 1.0)[:1]
    fit_metres(net, [*rooms, *street], ROW.max_depth)
    with torch.no_grad():
        metres = ROW.max_depth * net(torch.from_numpy(rooms[0].image)[None])[0].numpy()
    known = rooms[0].known
    assert np.abs(np.log(metres[known] / rooms[0].target[known])).mean() < 0.2


def test_answers_that_run_against_the_depth_keep_their_order(one_thread):
    net = network(ROW)
    data = samples(net, -1.0, 3.0)
    scale, _ = fit_metres(net, data, ROW.max_depth)
    assert 0 < scale < 1.1
    with torch.no_grad():
        metres = ROW.max_depth * net(torch.from_numpy(data[0].image)[None])[0].numpy()
    known = data[0].known
    assert np.median(metres[known]) == pytest.approx(np.median(data[0].target[known]), rel=0.15)


def test_pictures_without_known_depth_change_nothing(one_thread):
    net = network(ROW)
    data = [Sample(s.entry, s.image, s.target, np.zeros_like(s.known)) for s in samples(net, 2.0, 1.0)]
    assert fit_metres(net, data, ROW.max_depth) == (1.0, 0.0)
