"""The table [gateway], and the option of `simenv up` that names its address."""

from pathlib import Path

import msgspec
import pytest
from failing import fails

from simenv import config
from simenv.config import GatewaySettings, convert, load, web_address
from simenv.errors import ConfigError


@pytest.mark.parametrize("listen", ["192.0.2.1:80", "quantum.example.org:80", "everywhere:80"])
def test_open_address_needs_tls_or_proxies(listen: str) -> None:
    plain = {"listen": listen, "tls": False}
    fails(ConfigError, "gateway.listen.*without TLS", convert, {"gateway": plain})
    fails(ConfigError, "gateway.metrics.*without TLS", convert, {"gateway": {"metrics": listen}})
    files = {"tls_certificate": "/a.pem", "tls_key": "/a.key"}
    for more in ({}, files, {"tls": False, "proxies": ["192.0.2.7", "10.0.0.0/8"]}):
        assert convert({"gateway": {"listen": listen, **more}}).gateway.listen == listen
    assert convert({"gateway": {"metrics": listen, **files}}).gateway.metrics == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:8080", "[::1]:8080", "127.9.9.9:1"])
def test_loopback_has_tls_unless_the_setting_says_otherwise(listen: str) -> None:
    assert convert({"gateway": {"listen": listen}}).gateway.tls
    assert not convert({"gateway": {"listen": listen, "tls": False}}).gateway.tls


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"listen": "8080"}, "not an address"),
        ({"listen": "0.0.0.0:80"}, "every interface"),
        ({"listen": "[::]:80"}, "every interface"),
        ({"listen": "127.0.0.1:99999"}, "not an address"),
        ({"tls_certificate": "/a.pem"}, "TLS needs two files"),
        (
            {"tls": False, "tls_certificate": "/a.pem", "tls_key": "/a.key"},
            "tls_certificate without TLS",
        ),
        ({"proxies": ["proxy.example.org"]}, "no IP address"),
        ({"max_request_bytes": 1}, "max_request_bytes"),
        ({"max_connections": 0}, "max_connections"),
        ({"requests_per_s": -1.0}, "requests_per_s"),
        ({"lisen": "127.0.0.1:0"}, "lisen"),
    ],
)
def test_wrong_setting_is_named(table: dict[str, object], named: str) -> None:
    fails(ConfigError, named, convert, {"gateway": table})


def test_option_changes_the_address_alone(tmp_path: Path) -> None:
    file = tmp_path / "simenv.toml"
    file.write_text('[gateway]\nlisten = "127.0.0.1:1"\nmax_connections = 7\n')
    config = load({"gateway": "127.0.0.1:2"}, file)
    assert config.gateway == GatewaySettings(listen="127.0.0.1:2", max_connections=7)
    assert load({"gateway": ""}, file).gateway.listen == ""


def test_everywhere_is_all_interfaces() -> None:
    assert web_address("everywhere:80") == ("0.0.0.0", 80)
    assert web_address("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("port", ["9" * 30, "9" * 5_000, "", "-1", "x"])
def test_a_last_port_that_is_none_is_not_taken_again(tmp_path: Path, port: str) -> None:
    last = config.GatewayFile(config.GATEWAY_FORMAT, "lab", "http://host:8642", 1, "", "1")
    for url, taken in ((last.url, 8642), (f"http://host:{port}", 0)):
        written = msgspec.json.encode(msgspec.structs.replace(last, url=url))
        (tmp_path / config.GATEWAY_FILE).write_bytes(written)
        assert config.last_gateway_port(tmp_path) == taken
