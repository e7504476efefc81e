"""Namespaces of launchers: joined, refused, and what is said where there are none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.process import die_with_parent, network_namespace

HERE = os.uname().nodename
WAIT_S = 60.0
JOINS = """
import socket, sys
from launcher.process import network_namespace
network_namespace.join(int(sys.argv[1]))
print(socket.socket().connect_ex(("127.0.0.1", int(sys.argv[2]))))
"""
LISTENS = """
import socket, sys
own = socket.create_server(("127.0.0.1", 0))
print(own.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that allows no namespaces."""
    monkeypatch.setattr(
        network_namespace, "unavailable_reason", lambda: "no namespace: not permitted"
    )


def test_process_of_the_owner_can_join_the_namespace(tmp_path: Path) -> None:
    if why := network_namespace.unavailable_reason():
        pytest.skip(why)
    argv = [sys.executable, "-I", "-S", "-c", LISTENS]
    result = die_with_parent.command_line(os.getpid(), argv, isolated=True)
    with subprocess.Popen(
        result, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        port = listener.stdout.readline().strip()
        joined = [sys.executable, "-c", JOINS, str(listener.pid), port]
        done = subprocess.run(joined, capture_output=True, text=True, timeout=WAIT_S, check=False)
        listener.communicate()
    assert done.stdout.strip() == "0", done.stderr


def test_one_isolated_node_is_not_exposed() -> None:
    if why := network_namespace.unavailable_reason():
        pytest.skip(why)
    assert network_namespace.can_isolate([HERE])
    assert network_namespace.exposure([HERE], {}, None) == ""


def test_unavailable_namespace_is_reported_as_exposure_with_reason(forbidden: None) -> None:
    assert not network_namespace.can_isolate([HERE])
    assert "not permitted" in network_namespace.exposure([HERE], {}, None)
    assert network_namespace.exposure([HERE], {network_namespace.PSEC: "munge"}, None) == ""


def test_several_nodes_are_exposed_without_munge() -> None:
    assert not network_namespace.can_isolate([HERE, "node2"])
    assert "one network" in network_namespace.exposure([HERE, "node2"], {}, None)
    assert (
        network_namespace.exposure([HERE, "node2"], {network_namespace.PSEC: "munge"}, None) == ""
    )
    assert network_namespace.exposure(
        [HERE, "node2"], {network_namespace.PSEC: "munge,native"}, None
    )


@pytest.fixture
def munged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The socket of a munge daemon."""
    path = tmp_path / "munge.socket"
    monkeypatch.setattr(network_namespace, "MUNGE_SOCKET", path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield path


def test_munge_is_used_where_pmix_supports_it_and_munged_runs(munged: Path, tmp_path: Path) -> None:
    library = tmp_path / "libpmix.so.2"
    library.write_bytes(b"...mca_psec_native_component...")
    assert network_namespace.PSEC not in network_namespace.with_munge({}, library)
    library.write_bytes(b"...mca_psec_munge_component...")
    assert network_namespace.with_munge({"A": "1"}, library) == {
        "A": "1",
        network_namespace.PSEC: "munge",
    }
    assert (
        network_namespace.with_munge({network_namespace.PSEC: "native"}, library)[
            network_namespace.PSEC
        ]
        == "native"
    )
    assert network_namespace.exposure([HERE, "node2"], {}, library) == ""
    munged.unlink()
    assert network_namespace.PSEC not in network_namespace.with_munge({}, library)


def test_munge_plugin_beside_the_library_is_found(munged: Path, tmp_path: Path) -> None:
    library = tmp_path / "libpmix.so.2"
    library.write_bytes(b"")
    (tmp_path / "pmix").mkdir()
    (tmp_path / "pmix" / "pmix_mca_psec_munge.so").touch()
    assert network_namespace.with_munge({}, library)[network_namespace.PSEC] == "munge"
