from __future__ import annotations

import pytest
import torch

from depthcli.graphs.official_views import OfficialViewsForm
from tests.nets import da3


@pytest.mark.parametrize(("count", "height", "width"), [(1, 28, 42), (4, 42, 28), (9, 28, 42)])
def test_it_says_what_the_network_says(count: int, height: int, width: int) -> None:
    network, views = da3.network("views"), da3.views(count, height, width)
    with torch.inference_mode():
        found, wanted = OfficialViewsForm(network)(views), network(views)["depth"]
    assert found.shape == (count, height, width) and wanted.std() > 0
    assert (found - wanted).abs().max() <= 1e-5 * wanted.max()
