from __future__ import annotations

import pytest

from depthcli.errors import PictureError
from depthcli.memory import check_memory, free_memory, predict_bytes
from depthcli.preprocess import InputPlan, plan_input
from depthcli.zoo import NETWORKS

VITS = NETWORKS["vits"]


def test_plain_attention_grows_with_the_square_of_the_tokens() -> None:
    small, large = (InputPlan((width, 518), (width, 518)) for width in (5180, 10360))
    scores = [predict_bytes(VITS, plan, plain_attention=True) for plan in (small, large)]
    assert 3.8 < scores[1] / scores[0] < 4.01
    fused = [predict_bytes(VITS, plan) for plan in (small, large)]
    assert 1.9 < fused[1] / fused[0] < 2.1


def test_convolutions_grow_with_the_picture_and_no_faster() -> None:
    small, large = plan_input(400, 300, 210), plan_input(400, 300, 420)
    needs = [predict_bytes(NETWORKS["tiny"], plan, plain_attention=True) for plan in (small, large)]
    assert needs[1] == pytest.approx(4 * needs[0], rel=1e-6)
    # What the widest map of the encoder takes alone: 96 channels at half the input's sides, before and after.
    width, height = large.input_size
    assert needs[1] > 2 * 96 * (width // 2) * (height // 2) * 4


def test_a_batch_needs_its_number_of_times_more() -> None:
    plan = plan_input(100, 100, 140)
    assert predict_bytes(VITS, plan, batch=4) == pytest.approx(4 * predict_bytes(VITS, plan), rel=1e-6)


def test_a_strip_too_large_is_refused_with_a_size_that_fits() -> None:
    plan = plan_input(5000, 100, 518)
    with pytest.raises(PictureError, match=r"2072x518 needs about \d+\.\d GB .*--input-size \d+ would fit") as error:
        check_memory(VITS, plan, 1, free=10**9, plain_attention=True)
    size = int(error.value.hint.split()[1])
    check_memory(VITS, plan_input(5000, 100, size), 1, free=10**9, plain_attention=True)
    with pytest.raises(PictureError):
        check_memory(VITS, plan_input(5000, 100, size + 14), 1, free=10**9, plain_attention=True)


def test_where_nothing_fits_no_size_is_promised() -> None:
    with pytest.raises(PictureError, match="more memory"):
        check_memory(VITS, plan_input(100, 100, 28), 1, free=1000)


def test_an_unknown_amount_of_memory_forbids_nothing() -> None:
    check_memory(VITS, plan_input(5000, 100, 518), 64, free=None, plain_attention=True)


def test_this_machine_has_some_memory() -> None:
    free = free_memory()
    assert free is None or free > 0
