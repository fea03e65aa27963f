"""The provenance of depth maps and compiled networks."""

from __future__ import annotations

from depthcli.depthmap import Provenance
from depthcli.zoo.identify import is_published, trained_facts
from depthcli.zoo.locate import WeightsFile
from depthcli.zoo.rows import ModelRow


def provenance_of(
    row: ModelRow,
    weights: WeightsFile,
    backend: str = "",
    input_size: tuple[int, int] = (0, 0),
    source: str = "",
    panorama: bool = False,
    network: str = "",
) -> Provenance:
    """Return where a result comes from. Title and licence are the row's only for its published weights.

    A checkpoint of `depth train` has its own licence, and names its origin.

    backend: its description. input_size: (width, height) of the network input. source: name of the picture or clip.
    network: name of the network in the title of other weights; the row's encoder by default.
    """
    published = is_published(row, weights)
    trained = trained_facts(weights.path)
    own = f"fine-tuned from {trained.origin}" if trained else f"a {network or row.encoder} of its own"
    return Provenance(
        model=row.name,
        model_title=row.title if published else f"{weights.path.name}, {own}",
        sha256=weights.sha256,
        licence=trained.licence if trained else row.licence if published else "",
        backend=backend,
        input_size=input_size,
        source=source,
        panorama=panorama,
    )
