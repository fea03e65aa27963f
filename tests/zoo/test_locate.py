import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from depthcli.errors import CheckpointError
from depthcli.zoo import rows as zoo
from depthcli.zoo import verify
from depthcli.zoo.locate import WeightsFile, find, inventory
from depthcli.zoo.rows import find_row
from tests.zoo.hub import COMMIT, CONTENT, INDOOR, ROW, VITS, put, sha256


class TestFind:
    def test_nothing_is_here(self):
        assert find(VITS) is None

    def test_a_named_file_wins(self):
        mine = put("mine.pth")
        put("checkpoints/depth_anything_v2_vits.pth", b"other")
        assert find(VITS, mine) == WeightsFile(mine, sha256(CONTENT), "named")

    def test_a_named_file_that_does_not_exist_is_not_replaced_by_another(self):
        put("checkpoints/depth_anything_v2_vits.pth")
        with pytest.raises(CheckpointError, match=r"there is no checkpoint nowhere\.pth"):
            find(VITS, "nowhere.pth")

    @pytest.mark.parametrize(
        "name",
        [
            "depth_anything_v2_vits.pth",
            "depth_anything_v2_vits.safetensors",
            "Depth-Anything-V2-Small-hf/model.safetensors",
        ],
    )
    def test_the_folder(self, name):
        path = put(Path("checkpoints") / name)
        assert find(VITS) == WeightsFile(path, sha256(CONTENT), "checkpoints/")

    @pytest.mark.parametrize("name", ["DA3MONO-LARGE/model.safetensors", "da3-mono.safetensors"])
    def test_the_folder_of_depth_anything_3(self, name):
        """Whose files all have one name."""
        path = put(Path("checkpoints") / name)
        put("checkpoints/model.safetensors")
        assert find(find_row("da3-mono")).path == path
        assert find(find_row("da3-metric")) is None

    def test_the_folder_of_transformers_can_be_named(self):
        put("some/model.safetensors")
        assert find(VITS, "some").path == Path("some/model.safetensors")

    def test_the_cache_at_the_pinned_revision(self, tmp_path):
        path = put(tmp_path / "hub/models--someone--Model/snapshots" / COMMIT / "some_model.pth")
        assert find(ROW) == WeightsFile(path, sha256(CONTENT), "Hugging Face cache")

    def test_the_cache_of_transformers(self, tmp_path):
        store = tmp_path / "hub/models--depth-anything--Depth-Anything-V2-Metric-Indoor-Small-hf"
        put(store / "refs/main", COMMIT.encode())
        path = put(store / "snapshots" / COMMIT / "model.safetensors")
        assert find(INDOOR).path == path

    def test_a_damaged_file_in_the_cache_is_said(self, tmp_path):
        put(tmp_path / "hub/models--someone--Model/snapshots" / COMMIT / "some_model.pth", b"damaged")
        with pytest.raises(CheckpointError, match="is damaged: its sha256"):
            find(ROW)

    def test_inventory_hashes_nothing(self, monkeypatch):
        path = put("checkpoints/depth_anything_v2_vitb.pth")
        monkeypatch.setattr(verify, "sha256_of", None)
        items = {item.row.name: item for item in inventory()}
        assert items["vitb"] == (find_row("vitb"), WeightsFile(path, "", "checkpoints/"), len(CONTENT))
        assert items["vitl"] == (find_row("vitl"), None, 1_341_395_338)
        assert list(items) == [row.name for row in zoo.ROWS]


def test_no_torch_and_no_hub_are_imported_for_a_look_around():
    script = "import sys; from depthcli.zoo.locate import inventory; inventory(); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert not {"torch", "huggingface_hub.file_download"} & set(modules)
    assert not [name for name in modules if re.match(r"(requests|httpx)", name)]
