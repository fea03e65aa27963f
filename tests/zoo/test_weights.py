import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from depthcli.errors import CheckpointError, DownloadError, ModelError
from depthcli.zoo import rows as zoo
from depthcli.zoo import weights
from depthcli.zoo.rows import Weights, find_row
from depthcli.zoo.weights import WeightsFile, check_identity, find, obtain, obtain_auto, row_for_checkpoint, verify

# Made for these tests, for localhost, by nobody whom anybody trusts.
CERTIFICATE = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgsijKLA2QAyO2TSpR
2SCigBVbOxtlwdKtjEUrMQQVDCShRANCAARk0M7tsVEK4iOELCpmL4N4lVACZBt+
EdyqMrQpY9YPLA30dMdkcWlZqwQghS0HIKpcK/8a2eLIoWGh/1d7Pupv
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIULQod2elasIqMFjA8ZlAwX/C3EkQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODIwMzUyMloYDzIxMjYxMTA0
MjAzNTIyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARk0M7tsVEK4iOELCpmL4N4lVACZBt+EdyqMrQpY9YPLA30dMdkcWlZ
qwQghS0HIKpcK/8a2eLIoWGh/1d7Pupvo2kwZzAdBgNVHQ4EFgQU9yqzQLn0Gle6
qZUvtTqvKNOLWswwHwYDVR0jBBgwFoAU9yqzQLn0Gle6qZUvtTqvKNOLWswwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgGux0o2LK95eP6K2AFBcG4FfR/OlMciLoLrdv5ijFe9ACIQD4JEg5UmiH
I+TDjnLJ/QjrDTix5Tmw1L5Uq2qbmOitvQ==
-----END CERTIFICATE-----
"""
CONTENT = bytes(range(256)) * 2000
COMMIT = "0123456789abcdef0123456789abcdef01234567"
VITS = find_row("vits")
INDOOR = find_row("metric-indoor-vits")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


ROW = replace(VITS, weights=Weights("someone/Model", "some_model.pth", COMMIT, sha256(CONTENT), len(CONTENT)))


class Hub:
    """The two answers of the hub that a download needs, with faults on demand, on a port of this machine."""

    def __init__(self):
        self.content = CONTENT
        self.etag = sha256(CONTENT)
        self.status = 200
        self.cut = 0  # bytes missing at the end of what is sent
        self.delay = 0.0
        self.portal = ""  # where a network that wants a login sends everyone
        self.requests = []  # those for the file; versions of the hub's library also ask for other things
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.note()
                self.answer(len(hub.content))

            def do_GET(self):
                self.note()
                time.sleep(hub.delay)
                body = hub.content[: len(hub.content) - hub.cut]
                self.answer(len(body))
                if hub.status == 200:
                    self.wfile.write(body)

            def do_CONNECT(self):
                self.note()
                self.answer(0)

            def note(self):
                if self.path.endswith("/some_model.pth"):
                    hub.requests.append(self.command)

            def answer(self, length):
                self.send_response(hub.status)
                if hub.portal:
                    self.send_header("Content-Type", "text/html")
                    if hub.status in (301, 302, 307):
                        self.send_header("Location", hub.portal)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_header("ETag", f'"{hub.etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(length if hub.status == 200 else 0))
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No hub, an empty cache and an empty working folder."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to(monkeypatch, "http://127.0.0.1:1")


def point_to(monkeypatch, url):
    from huggingface_hub import constants, file_download

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Before 1.0 this module has copies of both.
    monkeypatch.setattr(file_download, "ENDPOINT", url, raising=False)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    point_to(monkeypatch, hub.url)
    yield hub
    hub.close()


def put(path, content=CONTENT):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def file_of(path, content=b"weights"):
    path = put(path, content)
    return WeightsFile(path, sha256(content), weights.NAMED)


def quiet(line):
    pass


class TestFind:
    def test_nothing_is_here(self):
        assert find(VITS) is None

    def test_a_named_file_wins(self):
        mine = put("mine.pth")
        put("checkpoints/depth_anything_v2_vits.pth", b"other")
        assert find(VITS, mine) == WeightsFile(mine, sha256(CONTENT), "--checkpoint")

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

    def test_the_digest_is_computed_once(self, monkeypatch):
        put("checkpoints/depth_anything_v2_vits.pth", b"once")
        find(VITS)
        expected = sha256(b"once")
        monkeypatch.setattr(weights.hashlib, "sha256", None)
        assert find(VITS).sha256 == expected

    def test_inventory_hashes_nothing(self, monkeypatch):
        path = put("checkpoints/depth_anything_v2_vitb.pth")
        monkeypatch.setattr(weights.hashlib, "sha256", None)
        items = {item.row.name: item for item in weights.inventory()}
        assert items["vitb"] == (find_row("vitb"), WeightsFile(path, "", "checkpoints/"), len(CONTENT))
        assert items["vitl"] == (find_row("vitl"), None, 1_341_395_338)
        assert list(items) == [row.name for row in zoo.ROWS]

    def test_verify(self):
        good, own = file_of("some_model.pth", CONTENT), file_of("own.pth")
        assert verify(ROW, good).ok is True
        assert verify(ROW, file_of("bad/some_model.pth")).ok is False
        assert verify(ROW, own).ok is None and own.sha256 in verify(ROW, own).says


class TestDownload:
    def test_downloads_once_verifies_and_then_needs_no_network(self, hub, capfd):
        lines = []
        file = obtain(ROW, talk=lines.append)
        assert file.path.read_bytes() == CONTENT
        assert (file.sha256, file.where) == (sha256(CONTENT), "downloaded")
        assert len(lines) == 1 and all(word in lines[0] for word in ("some_model.pth", "1 MB", "Apache-2.0"))
        assert capfd.readouterr().out == ""

        seen = list(hub.requests)
        assert seen.count("GET") == 1
        again = obtain(ROW, offline=True, talk=lines.append)
        assert (again.path, again.where) == (file.path, "Hugging Face cache")
        assert hub.requests == seen and len(lines) == 1

    def test_another_file_is_not_even_fetched(self, hub):
        hub.etag = "0" * 64
        with pytest.raises(DownloadError, match="offers another file"):
            obtain(ROW, talk=quiet)
        assert "GET" not in hub.requests

    def test_altered_content_is_deleted(self, hub, tmp_path):
        hub.content = CONTENT[:-1] + b"?"
        with pytest.raises(DownloadError, match=r"not the published file .* was deleted"):
            obtain(ROW, talk=quiet)
        assert not list((tmp_path / "hub").rglob("some_model.pth"))
        assert not [path for path in (tmp_path / "hub").rglob("blobs/*") if path.is_file()]
        assert find(ROW) is None

        hub.content = CONTENT
        assert obtain(ROW, talk=quiet).sha256 == sha256(CONTENT)

    def test_a_truncated_body(self, hub):
        hub.cut = 1000
        with pytest.raises(DownloadError, match="the transfer broke off"):
            obtain(ROW, talk=quiet)
        assert find(ROW) is None

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (401, r"refuses it \(HTTP 401\).*HF_TOKEN"),
            (403, r"refuses it \(HTTP 403\)"),
            (404, r"does not have it \(HTTP 404\)"),
            (429, r"too many requests from here \(HTTP 429\)"),
            (500, r"answers with HTTP 500, try again later"),
            (503, r"answers with HTTP 503, try again later"),
            (511, r"the network wants a login first \(HTTP 511\)"),
        ],
    )
    def test_refusals_of_the_hub(self, hub, status, reason):
        hub.status = status
        start = time.monotonic()
        with pytest.raises(DownloadError, match=reason) as caught:
            obtain(ROW, talk=quiet)
        assert time.monotonic() - start < 2
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
        assert "https://huggingface.co/someone/Model" in caught.value.hint and "--encoder tiny" in caught.value.hint

    def test_no_connection(self):
        with pytest.raises(DownloadError, match=r"no connection to 127\.0\.0\.1:1"):
            obtain(ROW, talk=quiet)

    def test_a_silent_server_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(weights, "CONNECT_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            point_to(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(DownloadError, match="does not answer"):
                obtain(ROW, talk=quiet)
        assert time.monotonic() - start < 2

    def test_a_full_disk_or_a_cache_of_someone_else(self, hub, monkeypatch):
        import errno

        import huggingface_hub

        for number, reason in (
            (errno.ENOSPC, "no space left"),
            (errno.EDQUOT, "no space left"),
            (errno.EACCES, "cannot be written to"),
            (errno.EROFS, "cannot be written to"),
            (errno.ENOTDIR, "cannot be written to"),
        ):
            for error in (OSError(number, "from the system"), RuntimeError(f"I/O error: it went (os error {number})")):

                def fail(*args, error=error, **kwargs):
                    raise error

                monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
                with pytest.raises(DownloadError, match=reason):
                    obtain(ROW, talk=quiet)

    def test_a_disk_that_is_too_small_is_named_before_the_download(self, hub, monkeypatch):
        import shutil

        free = shutil.disk_usage(".")._replace(free=1000)
        monkeypatch.setattr(weights.shutil, "disk_usage", lambda place: free)
        with pytest.raises(DownloadError, match="hub has 0 MB left, and it has 1 MB"):
            obtain(ROW, talk=quiet)
        assert "GET" not in hub.requests

    def test_a_cache_that_is_a_file(self, hub, tmp_path):
        put(tmp_path / "hub", b"a file")
        with pytest.raises(DownloadError, match="hub cannot be written to"):
            obtain(ROW, talk=quiet)

    def test_offline(self, hub, monkeypatch):
        from huggingface_hub import constants

        with pytest.raises(DownloadError, match="--offline forbids"):
            obtain(ROW, offline=True, talk=quiet)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids"):
            obtain(ROW, talk=quiet)
        assert hub.requests == []

    def test_what_cannot_be_downloaded(self, monkeypatch, tmp_path):
        with pytest.raises(ModelError, match="never published") as caught:
            obtain(find_row("vitg"), talk=quiet)
        assert "depth_anything_v2_vitg.pth into checkpoints/" in caught.value.hint
        monkeypatch.setattr(weights, "ASSETS", tmp_path)
        with pytest.raises(ModelError, match="missing from this installation"):
            obtain(find_row("tiny"), talk=quiet)

    def test_two_processes_at_once_download_once(self, hub, tmp_path):
        hub.delay = 0.5
        script = (
            "from dataclasses import replace\n"
            "from depthcli.zoo.rows import *; from depthcli.zoo.weights import obtain\n"
            f"weights = Weights('someone/Model', 'some_model.pth', {COMMIT!r}, {sha256(CONTENT)!r})\n"
            "print(obtain(replace(find_row('vits'), weights=weights)).sha256)"
        )
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-c", script]
        runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [run.communicate(timeout=30)[0].strip() for run in runs] == [sha256(CONTENT)] * 2
        assert hub.requests.count("GET") == 1


@pytest.fixture
def no_proxies(monkeypatch):
    """The environment has nothing about proxies or certificates, and this machine is not left out of them."""
    for name in ("http", "https", "all", "no"):
        for variable in (f"{name}_proxy", f"{name.upper()}_PROXY"):
            monkeypatch.delenv(variable, raising=False)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


USER = "somebody:geheim%21"
NETWORK = """
from depthcli.zoo import weights
from depthcli.errors import DownloadError
from depthcli.zoo.rows import find_row
try:
    weights.obtain(find_row("vits"), talk=lambda line: None)
except DownloadError as error:
    print(error.message)
"""


def reason_of(tmp_path, endpoint, **environment):
    """Return why a process with these variables cannot fetch vits; the hub's library reads them when it starts."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        **environment,
    }
    command = [sys.executable, "-c", NETWORK]
    out = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout
    (line,) = out.splitlines()
    assert "somebody" not in line and "geheim" not in line
    return line


@pytest.mark.usefixtures("no_proxies")
class TestNetworks:
    """Proxies, certificates and login pages are named, users and passwords never."""

    @pytest.mark.parametrize(
        ("proxy", "says"),
        [
            (f"http://{USER}@127.0.0.1:1", r"the proxy 127\.0\.0\.1:1 .*\(.*; check HTTPS_PROXY"),
            # httpx takes it without a scheme, requests before hub 1.0 does not
            (f"{USER}@127.0.0.1:1", r"the proxy 127\.0\.0\.1:1 |127\.0\.0\.1:1 is not a proxy that can be used"),
            (f"http://{USER}@no-such-proxy.invalid:3128/", r"the proxy no-such-proxy\.invalid:3128"),
            (f"ftp://{USER}@127.0.0.1:1", r"127\.0\.0\.1:1 is not a proxy that can be used"),
        ],
    )
    def test_a_proxy_that_is_none(self, tmp_path, proxy, says):
        assert re.search(says, reason_of(tmp_path, "https://hub.invalid", HTTPS_PROXY=proxy))

    @pytest.mark.parametrize(
        ("status", "says"),
        [
            (407, "wants a name and a password (HTTP 407): HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
            (403, "makes no connection to hub.invalid"),
            (502, "makes no connection to hub.invalid"),
        ],
    )
    def test_a_proxy_that_refuses(self, hub, tmp_path, status, says):
        hub.status = status
        place = hub.url.rpartition("/")[2]
        line = reason_of(tmp_path, "https://hub.invalid", HTTPS_PROXY=f"http://{USER}@{place}")
        assert f"the proxy {place} {says}" in line

    def test_a_proxy_for_a_hub_without_tls(self, hub, tmp_path):
        hub.status = 502
        place = hub.url.rpartition("/")[2]
        line = reason_of(tmp_path, "http://hub.invalid", HTTP_PROXY=f"http://{USER}@{place}")
        assert f"hub.invalid answers with HTTP 502 through the proxy {place}" in line

    def test_a_host_without_the_proxy(self, tmp_path):
        line = reason_of(tmp_path, "http://127.0.0.1:1", HTTP_PROXY=f"http://{USER}@127.0.0.1:2", NO_PROXY="127.0.0.1")
        assert "no connection to 127.0.0.1:1 (" in line and "proxy" not in line.lower()

    def test_a_certificate_of_its_own_maker(self, hub, tmp_path):
        put("server.pem", CERTIFICATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("server.pem")
        hub.server.socket = context.wrap_socket(hub.server.socket, server_side=True)
        endpoint = hub.url.replace("http://127.0.0.1", "https://localhost")
        line = reason_of(tmp_path, endpoint)
        assert "the certificate of localhost:" in line and "not accepted: self" in line and "SSL_CERT_FILE" in line

    def test_a_file_of_certificates_that_is_missing(self, tmp_path):
        line = reason_of(tmp_path, "https://127.0.0.1:1", SSL_CERT_FILE="missing.pem")
        assert "SSL_CERT_FILE names missing.pem, which does not exist" in line or "no connection" in line

    @pytest.mark.parametrize("status", [200, 302, 307])
    def test_a_login_page_is_not_the_hub(self, hub, status):
        hub.status, hub.portal = status, f"{hub.url}/login"
        lines = []
        with pytest.raises(DownloadError, match=r"is not the hub; perhaps the network wants a login|does not answer"):
            obtain(ROW, talk=lines.append)
        assert lines == [] and find(ROW) is None

    def test_an_endpoint_that_is_no_address(self, tmp_path):
        assert "HF_ENDPOINT=nonsense is not the address of a hub" in reason_of(tmp_path, "nonsense")


class TestAuto:
    @pytest.fixture(autouse=True)
    def rows(self, monkeypatch, tmp_path):
        monkeypatch.setitem(zoo._BY_NAME, "vits", ROW)
        monkeypatch.setattr(weights, "ASSETS", tmp_path / "assets")
        put(tmp_path / "assets/tiny.safetensors", b"tiny")

    def test_vits_that_is_here(self):
        put("checkpoints/some_model.pth")
        row, file, notice = obtain_auto(talk=quiet)
        assert (row, file.where, notice) == (ROW, "checkpoints/", None)

    def test_vits_that_can_be_downloaded(self, hub):
        row, file, notice = obtain_auto(talk=quiet)
        assert (row, file.where, notice) == (ROW, "downloaded", None)

    @pytest.mark.parametrize("offline", [True, False])
    def test_tiny_with_a_notice_otherwise(self, offline):
        row, file, notice = obtain_auto(offline=offline, talk=quiet)
        assert (row.name, file.where, file.sha256) == ("tiny", "package", sha256(b"tiny"))
        assert "\n" not in notice
        assert ("--offline" if offline else "no connection") in notice
        assert "some_model.pth from https://huggingface.co/someone/Model into checkpoints/" in notice

    def test_a_wrong_file_is_not_passed_over(self):
        put("checkpoints/some_model.pth", CONTENT[::-1])
        with pytest.raises(CheckpointError, match="is damaged"):
            obtain_auto(offline=True, talk=quiet)

    def test_no_metric_model_is_packaged(self):
        with pytest.raises(DownloadError, match="metric_hypersim_vits") as caught:
            obtain(INDOOR, offline=True, talk=quiet)
        assert "tiny" not in caught.value.hint

    def test_an_explicit_vits_never_falls_back(self):
        with pytest.raises(DownloadError):
            obtain(ROW, offline=True, talk=quiet)


class TestIdentity:
    @pytest.mark.parametrize(
        ("model", "path", "message"),
        [
            ("vits", "depth_anything_vits14.pth", "Depth Anything V1"),
            ("vitl", "depth_anything_vitl14.safetensors", "Depth Anything V1"),
            ("vits", "LiheYoung/depth-anything-small-hf/model.safetensors", "Depth Anything V1"),
            ("vitb", "hub/models--LiheYoung--depth_anything_vitb14/snapshots/1/model.safetensors", "Depth Anything V1"),
            ("metric-indoor-vitl", "depth_anything_metric_depth_indoor.pt", "Depth Anything V1"),
            ("vits", "hub/models--depth-anything--DA3-SMALL/snapshots/1/model.safetensors", "Depth Anything 3"),
            ("vits", "DA3-BASE/model.safetensors", "Depth Anything 3"),
            ("vits", "video_depth_anything_vits.pth", "Video-Depth-Anything"),
            ("vits", "metric_video_depth_anything_vits.pth", "Video-Depth-Anything"),
            ("vits", "depth_anything_v2_metric_hypersim_vits.pth", "holds metric-indoor-vits"),
            ("vits", "depth_anything_v2_metric_vkitti_vitl.pth", "holds metric-outdoor-vitl"),
            ("vits", "Depth-Anything-V2-Metric-Indoor-Small-hf/model.safetensors", "holds metric-indoor-vits"),
            ("metric-outdoor-vits", "depth_anything_v2_metric_hypersim_vits.pth", "holds metric-indoor-vits"),
            ("vda-vits", "depth_anything_v2_vits.pth", "is of Depth Anything V2, not of Video-Depth-Anything"),
            ("vda-vits", "DA3-SMALL/model.safetensors", "Depth Anything 3, not of Video-Depth-Anything"),
            ("vda-vits", "video_depth_anything_vitl.pth", "holds vda-vitl, but vda-vits"),
            ("vda-vits", "metric_video_depth_anything_vits.pth", "holds vda-metric-vits, but vda-vits"),
            ("vda-metric-vits", "video_depth_anything_vits.safetensors", "holds vda-vits, but vda-metric-vits"),
            ("vda-vits", "metric_video_depth_anything.pth", r"metric model \(metric\), but relative"),
            ("metric-indoor-vits", "depth_anything_v2_vits.pth", "holds vits"),
            ("vits", "depth_anything_v2_vitb.pth", "holds vitb"),
            ("vits", "vits_metric_hypersim_tuned.pth", "holds metric-indoor-vits"),
            ("vits", "metric_hypersim.pth", r"metric model \(indoor\), but relative"),
        ],
    )
    def test_names_that_say_another_model(self, model, path, message):
        with pytest.raises(CheckpointError, match=message) as caught:
            check_identity(find_row(model), file_of(path))
        assert caught.value.hint and "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("vits", "depth_anything_v2_vits.pth"),
            ("vits", "depth_anything_v2_vits_fp16.safetensors"),
            ("vitl", "Depth-Anything-V2-Large-hf/model.safetensors"),
            ("metric-outdoor-vits", "depth_anything_v2_metric_vkitti_vits.pth"),
            ("vits", "my_garden.pth"),
            ("metric-indoor-vits", "Depth-Anything-V2/latest.pth"),
            ("metric-indoor-vits", "depth_anything_v2_vits_kitchen.pth"),
            ("vits", "Depth-Anything/checkpoints/mine.pth"),
            ("vda-vits", "video_depth_anything_vits.pth"),
            ("vda-metric-vitl", "metric_video_depth_anything_vitl.pth"),
            ("vda-metric-vits", "video_depth_anything_kitchen.pth"),
            ("vda-vits", "mine.pth"),
        ],
    )
    def test_names_that_fit_or_say_nothing(self, model, path):
        check_identity(find_row(model), file_of(path))

    def test_content_is_believed_before_the_name(self):
        file = WeightsFile(
            put("depth_anything_v2_vits.pth"), find_row("metric-outdoor-vitb").weights.sha256, weights.NAMED
        )
        with pytest.raises(CheckpointError, match="holds metric-outdoor-vitb, but vits was asked") as caught:
            check_identity(VITS, file)
        assert caught.value.hint == "use --encoder vitb and --metric outdoor"
        check_identity(VITS, WeightsFile(Path("depth_anything_vits14.pth"), VITS.weights.sha256, weights.NAMED))

    def test_bits_that_rotted(self):
        row = replace(ROW, weights=replace(ROW.weights, bytes=len(CONTENT), sha256="0" * 64))
        with pytest.raises(CheckpointError, match="is damaged"):
            check_identity(row, file_of("some_model.pth", CONTENT))

    @pytest.mark.parametrize(
        ("model", "config", "message"),
        [
            ("vits", {}, None),
            ("vits", {"taps": [9, 10, 11, 12]}, "Depth Anything V1"),
            ("vitb", {}, "holds vits"),
            ("vits", {"depth_estimation_type": "metric", "max_depth": 20}, "holds metric-indoor-vits"),
            ("vits", {"depth_estimation_type": "metric", "max_depth": 10}, r"metric model \(metric\)"),
            ("metric-indoor-vits", {"depth_estimation_type": "metric", "max_depth": 10}, None),
            ("metric-indoor-vits", {"depth_estimation_type": "metric", "max_depth": 80}, "holds metric-outdoor-vits"),
            ("metric-indoor-vits", {}, "holds vits"),
            ("vits", {"taps": []}, None),
            ("vits", {"depth_estimation_type": "metric", "max_depth": []}, None),
        ],
    )
    def test_the_config_of_transformers(self, model, config, message):
        taps = config.pop("taps", [3, 6, 9, 12])
        file = file_of("some/model.safetensors")
        config = {
            "model_type": "depth_anything",
            "backbone_config": {"hidden_size": 384, "out_indices": taps},
            **config,
        }
        put("some/config.json", json.dumps(config).encode())
        if message is None:
            check_identity(find_row(model), file)
        else:
            with pytest.raises(CheckpointError, match=message):
                check_identity(find_row(model), file)

    def test_a_file_of_the_inventory_is_hashed_first(self):
        check_identity(ROW, WeightsFile(put("some_model.pth"), "", weights.FOLDER))

    def test_obtain_looks_at_the_identity(self):
        with pytest.raises(CheckpointError, match="Depth Anything V1"):
            obtain(VITS, checkpoint=put("depth_anything_vits14.pth"), talk=quiet)

    def test_row_for_checkpoint(self, monkeypatch):
        assert row_for_checkpoint(put("depth_anything_v2_metric_vkitti_vitb.pth")).name == "metric-outdoor-vitb"
        assert row_for_checkpoint(put("Depth-Anything-V2-Base-hf/model.safetensors")).name == "vitb"
        assert row_for_checkpoint(put("mine.pth")) is None
        assert row_for_checkpoint(put("depth_anything_vits14.pth")) is None
        assert row_for_checkpoint(put("video_depth_anything_vits.pth")).name == "vda-vits"
        assert row_for_checkpoint(put("metric_video_depth_anything_vitb.pth")).name == "vda-metric-vitb"
        hub = "hub/models--depth-anything--Video-Depth-Anything-Large/snapshots/1"
        assert row_for_checkpoint(put(f"{hub}/weights.pth")).name == "vda-vitl"
        monkeypatch.setattr(weights, "ROWS", (ROW,))
        assert row_for_checkpoint("mine.pth") == ROW
        with pytest.raises(CheckpointError):
            row_for_checkpoint("nowhere.pth")


def test_no_torch_and_no_hub_are_imported_for_a_look_around():
    script = "import sys; from depthcli.zoo import weights; weights.inventory(); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    modules = run.stdout.split()
    assert not {"torch", "huggingface_hub.file_download"} & set(modules)
    assert not [name for name in modules if re.match(r"(requests|httpx)", name)]
