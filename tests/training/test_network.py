"""How the ImageNet encoder is taken over: its batch norms folded, its input the tool's own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.network import MEAN, STD, _adapted, _folded  # noqa: E402


def test_a_folded_convolution_is_the_convolution_and_its_norm() -> None:
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(4, 6, 3, bias=False), torch.nn.BatchNorm2d(6, eps=1e-3).eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.1, 2.0)
        state = {"c.weight": conv.weight, **{f"n.{name}": value for name, value in norm.state_dict().items()}}
        x = torch.randn(2, 4, 9, 9)
        weight, bias = _folded(state, "c", "n")
        assert torch.allclose(torch.nn.functional.conv2d(x, weight, bias), norm(conv(x)), atol=1e-5)


def test_the_first_convolution_sees_what_it_was_trained_on() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3, 3, 3), torch.randn(5)
    rgb = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8)).astype(np.float64)
    ours = (rgb / 255 - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    theirs = (rgb - 127) / 128
    there = torch.nn.functional.conv2d(torch.from_numpy(theirs).float(), weight, bias)
    here = torch.nn.functional.conv2d(torch.from_numpy(ours).float(), *_adapted(weight, bias))
    assert torch.allclose(here, there, atol=1e-4)
