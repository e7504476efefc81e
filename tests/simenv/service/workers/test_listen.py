"""Where an environment listens, and the warning that other users can run programs through it."""

import socket
import stat
from pathlib import Path

import msgspec
import pytest
from failing import fails
from service import ServiceHarness

from simenv.config import convert, listen_parts
from simenv.errors import ConfigError
from simenv.service.handlers import environment
from simenv.service.queries import task_views
from simenv.service.workers import endpoints
from simenv.service.workers.endpoints import open_listener, resolved


@pytest.mark.parametrize(
    "host",
    [
        *("*", "0.0.0.0", "::", "[::]", "0", "0x0", "0.0", "00.0", "0x0.0", "[::0]"),
        *("[0:0:0:0:0:0:0:0]", "[::ffff:0.0.0.0]", "[::%lo]"),
    ],
)
def test_wildcard_listen_address_is_refused_with_hint(host: str) -> None:
    error = fails(ConfigError, "every interface", convert, {"listen": f"tcp://{host}:7000"})
    assert "tcp://everywhere:7000" in error.hint


@pytest.mark.parametrize(
    "text",
    ["tcp://", "tcp://host", "tcp://:7000", "udp://host:1", "ipc:///tmp/x", "host:7000", "tcp://h:-1",
     "tcp://h:70000", "tcp://h:7e3", "tcp://h:", "tcp://h:\u0667"],
)  # fmt: skip
def test_invalid_listen_address_is_refused(text: str) -> None:
    fails(ConfigError, "not an address", convert, {"listen": text})


def test_listen_address_is_split_into_host_and_port() -> None:
    assert listen_parts("tcp://10.0.0.1:0") == ("10.0.0.1", 0)
    assert listen_parts("tcp://[fe80::1]:7000") == ("fe80::1", 7000)
    assert listen_parts("tcp://everywhere:7000") == ("everywhere", 7000)


def test_name_of_the_unspecified_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]

    monkeypatch.setattr(endpoints.socket, "getaddrinfo", lookup)
    fails(ConfigError, "every interface", resolved, "zero.example")


def test_listen_host_is_resolved_from_interface_or_host_name() -> None:
    assert resolved("lo") == "127.0.0.1"
    assert resolved("localhost") in ("127.0.0.1", "::1")
    error = fails(ConfigError, "neither an interface nor a host", resolved, "no-such-host.invalid")
    assert "lo" in error.hint


def test_port_and_keys_stay_and_port_in_use_is_replaced_unless_configured(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    value, result = open_listener("tcp://lo:0", path, "node")
    value.close()
    assert result.address == f"tcp://127.0.0.1:{value.port}"
    again, same = open_listener("tcp://lo:0", path, "node")
    again.close()
    assert same == result
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.create_server(("127.0.0.1", value.port)):
        other, now = open_listener("tcp://127.0.0.1:0", path, "node")
        other.close()
        fails(ConfigError, f":{value.port}", open_listener, result.address, path, "node")
    assert now.address != result.address
    assert now.public_key == result.public_key


def test_everywhere_publishes_node_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[str] = []

    class Noted:
        port = 7000

        def __init__(self, host: str, *_: object) -> None:
            bound.append(host)

    monkeypatch.setattr(endpoints, "TcpListener", Noted)
    _, told = open_listener("tcp://everywhere:7000", tmp_path / "server-key.json", "node-7")
    assert (bound, told.address) == (["0.0.0.0"], "tcp://node-7:7000")


def test_exposure_warns_where_other_users_are_unless_isolated() -> None:
    warning = task_views.exposed("this machine allows no namespace", (1000, 1001))
    assert "2 other users of this node can run programs as you" in warning
    assert "this machine allows no namespace" in warning
    assert "docs/reference/security.md" in warning
    assert task_views.exposed("this machine allows no namespace", ()) == ""
    assert task_views.exposed("", (1000,)) == ""


def test_other_users_are_looked_up_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the status is asked for: reading all of /proc takes the loop milliseconds."""
    bench, walks = ServiceHarness(tmp_path), list[int]()

    def other_users() -> tuple[int, ...]:
        walks.append(1)
        return (1000,)

    monkeypatch.setattr(environment, "other_users", other_users)
    bench.loop.facts = msgspec.structs.replace(bench.loop.facts, exposure="there is no namespace")
    handler = bench.loop.query_handlers.environment
    for _ in range(3):
        assert any("1 other user" in each for each in handler.status().warnings)
    assert len(walks) == 1
    handler._next_others_ns = 0  # a minute later
    handler.status()
    assert len(walks) == 2
