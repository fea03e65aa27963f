"""No hub, an empty cache and an empty working folder, or a hub on this machine."""

import pytest

from tests.zoo.hub import Hub, point_to


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No hub, an empty cache and an empty working folder."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(monkeypatch, "http://127.0.0.1:1")


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    point_to(monkeypatch, hub.url)
    yield hub
    hub.close()
