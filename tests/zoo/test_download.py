import os
import re
import socket
import ssl
import subprocess
import sys
import time

import pytest

from depthcli.errors import CheckpointError, DownloadError, ModelError
from depthcli.zoo import download, locate
from depthcli.zoo import rows as zoo
from depthcli.zoo.download import obtain, obtain_auto
from depthcli.zoo.locate import find
from depthcli.zoo.rows import find_row
from tests.zoo.hub import COMMIT, CONTENT, INDOOR, ROW, point_to, put, sha256

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


def quiet(line):
    pass


class TestDownload:
    def test_downloads_once_verifies_and_then_needs_no_network(self, hub, capfd):
        lines = []
        file = obtain(ROW, log=lines.append)
        assert file.path.read_bytes() == CONTENT
        assert (file.sha256, file.where) == (sha256(CONTENT), "downloaded")
        assert len(lines) == 1 and all(word in lines[0] for word in ("some_model.pth", "1 MB", "Apache-2.0"))
        assert capfd.readouterr().out == ""

        seen = list(hub.requests)
        assert seen.count("GET") == 1
        again = obtain(ROW, offline=True, log=lines.append)
        assert (again.path, again.where) == (file.path, "Hugging Face cache")
        assert hub.requests == seen and len(lines) == 1

    def test_another_file_is_not_even_fetched(self, hub):
        hub.etag = "0" * 64
        with pytest.raises(DownloadError, match="offers another file"):
            obtain(ROW, log=quiet)
        assert "GET" not in hub.requests

    def test_altered_content_is_deleted(self, hub, tmp_path):
        hub.content = CONTENT[:-1] + b"?"
        with pytest.raises(DownloadError, match=r"not the published one .* was deleted"):
            obtain(ROW, log=quiet)
        assert not list((tmp_path / "hub").rglob("some_model.pth"))
        assert not [path for path in (tmp_path / "hub").rglob("blobs/*") if path.is_file()]
        assert find(ROW) is None

        hub.content = CONTENT
        assert obtain(ROW, log=quiet).sha256 == sha256(CONTENT)

    def test_a_truncated_body(self, hub):
        hub.cut = 1000
        with pytest.raises(DownloadError, match="the transfer was interrupted"):
            obtain(ROW, log=quiet)
        assert find(ROW) is None

    @pytest.mark.parametrize(
        ("status", "reason"),
        [
            (401, r"refuses it \(HTTP 401\).*HF_TOKEN"),
            (403, r"refuses it \(HTTP 403\)"),
            (404, r"does not have it \(HTTP 404\)"),
            (429, r"too many requests from this address \(HTTP 429\)"),
            (500, r"answers with HTTP 500, try again later"),
            (503, r"answers with HTTP 503, try again later"),
            (511, r"the network needs a login first \(HTTP 511\)"),
        ],
    )
    def test_refusals_of_the_hub(self, hub, status, reason):
        hub.status = status
        start = time.monotonic()
        with pytest.raises(DownloadError, match=reason) as caught:
            obtain(ROW, log=quiet)
        assert time.monotonic() - start < 2
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)
        assert "https://huggingface.co/someone/Model" in caught.value.hint and "`encoder` to tiny" in caught.value.hint

    def test_no_connection(self):
        with pytest.raises(DownloadError, match=r"no connection to 127\.0\.0\.1:1"):
            obtain(ROW, log=quiet)

    def test_a_silent_server_is_not_waited_for(self, monkeypatch):
        monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            point_to(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(DownloadError, match="does not answer"):
                obtain(ROW, log=quiet)
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
                    obtain(ROW, log=quiet)

    def test_a_disk_that_is_too_small_is_named_before_the_download(self, hub, monkeypatch):
        import shutil

        free = shutil.disk_usage(".")._replace(free=1000)
        monkeypatch.setattr(download.shutil, "disk_usage", lambda place: free)
        with pytest.raises(DownloadError, match=r"it needs 1 MB and .*hub has 0 MB left"):
            obtain(ROW, log=quiet)
        assert "GET" not in hub.requests

    def test_a_cache_that_is_a_file(self, hub, tmp_path):
        put(tmp_path / "hub", b"a file")
        with pytest.raises(DownloadError, match="hub cannot be written to"):
            obtain(ROW, log=quiet)

    def test_offline(self, hub, monkeypatch):
        from huggingface_hub import constants

        with pytest.raises(DownloadError, match="`offline` forbids"):
            obtain(ROW, offline=True, log=quiet)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids"):
            obtain(ROW, log=quiet)
        assert hub.requests == []

    def test_what_cannot_be_downloaded(self, monkeypatch, tmp_path):
        with pytest.raises(ModelError, match="never published") as caught:
            obtain(find_row("vitg"), log=quiet)
        assert "depth_anything_v2_vitg.pth into checkpoints/" in caught.value.hint
        monkeypatch.setattr(locate, "ASSETS", tmp_path)
        monkeypatch.setattr(download, "ASSETS", tmp_path)
        with pytest.raises(ModelError, match="missing from this installation"):
            obtain(find_row("tiny"), log=quiet)

    def test_two_processes_at_once_download_once(self, hub, tmp_path):
        hub.delay = 0.5
        script = (
            "from dataclasses import replace\n"
            "from depthcli.zoo.rows import *; from depthcli.zoo.download import obtain\n"
            f"weights = Weights('someone/Model', 'some_model.pth', {COMMIT!r}, {sha256(CONTENT)!r})\n"
            "print(obtain(replace(find_row('vits'), files=(weights,))).sha256)"
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
from depthcli.zoo.download import obtain
from depthcli.errors import DownloadError
from depthcli.zoo.rows import find_row
try:
    obtain(find_row("vits"), log=lambda line: None)
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
            (f"{USER}@127.0.0.1:1", r"the proxy 127\.0\.0\.1:1 |127\.0\.0\.1:1 is not a usable proxy"),
            (f"http://{USER}@no-such-proxy.invalid:3128/", r"the proxy no-such-proxy\.invalid:3128"),
            (f"ftp://{USER}@127.0.0.1:1", r"127\.0\.0\.1:1 is not a usable proxy"),
        ],
    )
    def test_a_proxy_that_is_none(self, tmp_path, proxy, says):
        assert re.search(says, reason_of(tmp_path, "https://hub.invalid", HTTPS_PROXY=proxy))

    @pytest.mark.parametrize(
        ("status", "says"),
        [
            (407, "needs a name and a password (HTTP 407): HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"),
            (403, "cannot connect to hub.invalid"),
            (502, "cannot connect to hub.invalid"),
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
        with pytest.raises(DownloadError, match=r"does not answer like the hub|does not answer"):
            obtain(ROW, log=lines.append)
        assert lines == [] and find(ROW) is None

    def test_an_endpoint_that_is_no_address(self, tmp_path):
        assert "HF_ENDPOINT=nonsense is not the address of a hub" in reason_of(tmp_path, "nonsense")


class TestAuto:
    @pytest.fixture(autouse=True)
    def rows(self, monkeypatch, tmp_path):
        monkeypatch.setitem(zoo._BY_NAME, "vits", ROW)
        monkeypatch.setattr(locate, "ASSETS", tmp_path / "assets")
        put(tmp_path / "assets/tiny.safetensors", b"tiny")

    def test_vits_that_is_here(self):
        put("checkpoints/some_model.pth")
        row, file, notice = obtain_auto(log=quiet)
        assert (row, file.where, notice) == (ROW, "checkpoints/", None)

    def test_vits_that_can_be_downloaded(self, hub):
        row, file, notice = obtain_auto(log=quiet)
        assert (row, file.where, notice) == (ROW, "downloaded", None)

    @pytest.mark.parametrize("offline", [True, False])
    def test_tiny_with_a_notice_otherwise(self, offline):
        row, file, notice = obtain_auto(offline=offline, log=quiet)
        assert (row.name, file.where, file.sha256) == ("tiny", "package", sha256(b"tiny"))
        assert "\n" not in notice
        assert ("`offline`" if offline else "no connection") in notice
        assert "some_model.pth from https://huggingface.co/someone/Model into checkpoints/" in notice

    def test_a_wrong_file_is_not_passed_over(self):
        put("checkpoints/some_model.pth", CONTENT[::-1])
        with pytest.raises(CheckpointError, match="is damaged"):
            obtain_auto(offline=True, log=quiet)

    def test_no_metric_model_is_packaged(self):
        with pytest.raises(DownloadError, match="metric_hypersim_vits") as caught:
            obtain(INDOOR, offline=True, log=quiet)
        assert "tiny" not in caught.value.hint

    def test_an_explicit_vits_never_falls_back(self):
        with pytest.raises(DownloadError):
            obtain(ROW, offline=True, log=quiet)
