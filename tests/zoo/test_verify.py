from depthcli.zoo import verify as verifying
from depthcli.zoo.locate import find
from depthcli.zoo.verify import verify
from tests.zoo.hub import CONTENT, ROW, VITS, file_of, put, sha256


def test_the_digest_is_computed_once(monkeypatch):
    put("checkpoints/depth_anything_v2_vits.pth", b"once")
    find(VITS)
    expected = sha256(b"once")
    monkeypatch.setattr(verifying, "sha256_of", None)
    assert find(VITS).sha256 == expected


def test_verify():
    good, own = file_of("some_model.pth", CONTENT), file_of("own.pth")
    assert verify(ROW, good).ok is True
    assert verify(ROW, file_of("bad/some_model.pth")).ok is False
    assert verify(ROW, own).ok is None and own.sha256 in verify(ROW, own).says
