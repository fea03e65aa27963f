"""Pictures of features beside a scene's other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from depthcli.io.scenes.features import feature_files, write_features


def test_each_view_and_block_has_a_picture_of_its_patches(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    features = {layer: random.normal(size=(2, 2, 3, 8)).astype(np.float32) for layer in (3, 11)}
    features[11][1] = features[11][0]
    (tmp_path / "notes.txt").write_text("mine")
    written = write_features(features, (42, 28), tmp_path)
    assert written == [tmp_path / path for path in feature_files([3, 11], 2)]
    assert written[-1] == tmp_path / "feat_vis/feat_layer_11/000001.jpg"
    pictures = [np.asarray(Image.open(path)).astype(int) for path in written]
    assert all(picture.shape == (28, 42, 3) for picture in pictures)
    patches = pictures[0].reshape(2, 14, 3, 14, 3)
    assert patches[:, 4:10, :, 4:10].std(axis=(1, 3)).max() < 12 < pictures[0].std()  # a patch is of one colour
    assert np.array_equal(pictures[2], pictures[3]) and not np.array_equal(pictures[0], pictures[1])
    assert not [*tmp_path.rglob("*.part"), *(path for path in tmp_path.iterdir() if path.suffix == ".jpg")]
