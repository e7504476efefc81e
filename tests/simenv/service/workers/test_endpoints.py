"""Where workers of other nodes meet the service: which address, which keys, and what is left."""

import os
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from failing import fails

from launcher.base import Node
from simenv.config import EnvironmentPaths, Launching
from simenv.errors import ConfigError
from simenv.service.workers.endpoints import WorkerEndpoint, address_for
from simenv.wire import keyfiles
from simenv.wire.keyfiles import new_pair
from simenv.worker.result_files import unavailable_reason

HERE = Node(os.uname().nodename, 2, 2**30)
OTHER = Node("127.0.0.2", 2, 2**30)


@pytest.fixture
def paths() -> Iterator[EnvironmentPaths]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "results").mkdir()
        yield EnvironmentPaths(path, path)


def meet(
    paths: EnvironmentPaths, *nodes: Node, interface: str = "", epoch: int = 3, port: int = 0
) -> WorkerEndpoint:
    sockets, keys = paths.home / "s", new_pair()
    launching = Launching(interface=interface, port=port)
    return WorkerEndpoint(paths, sockets, paths.results, nodes, launching, epoch, keys)


def listening() -> set[int]:
    """Ports this process listens on."""
    result = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in result if each.status == psutil.CONN_LISTEN}


def test_environment_of_one_node_opens_no_port_and_creates_no_keys(paths: EnvironmentPaths) -> None:
    before = listening()
    meeting = meet(paths, HERE)
    file = keyfiles.read_bootstrap(paths.joining)
    assert (meeting.listener, meeting.owner_endpoint, meeting.address) == (None, None, "")
    assert (file.address, file.secret_key, file.epoch) == ("", "", 3)
    assert listening() == before


def test_worker_listener_of_nodes_binds_one_address_with_own_keys(paths: EnvironmentPaths) -> None:
    keys = []
    for _ in range(2):
        meeting = meet(paths, HERE, OTHER, interface="127.0.0.1")
        file = keyfiles.read_bootstrap(paths.joining)
        port, connections = meeting.listener.port, psutil.Process().net_connections("tcp")
        bound = {e.laddr.ip for e in connections if e.laddr.port == port and e.status == "LISTEN"}
        meeting.listener.close()
        assert (bound, file.address) == ({"127.0.0.1"}, f"tcp://127.0.0.1:{port}")
        keys += [file.server_key, meeting.owner_endpoint.public]
        assert (file.public_key, file.secret_key) == ("", "")  # a worker's own is elsewhere
    assert len(set(keys)) == 4


def test_worker_listener_has_the_port_of_the_configuration(paths: EnvironmentPaths) -> None:
    first = meet(paths, HERE, OTHER, interface="127.0.0.1")
    port, again = first.listener.port, partial(meet, paths, HERE, OTHER, interface="127.0.0.1")
    fails(ConfigError, f"cannot listen on tcp://127.0.0.1:{port}: Address", again, port=port)
    first.listener.close()
    second = again(port=port)
    second.listener.close()
    assert second.address == f"tcp://127.0.0.1:{port}"


def test_bootstrap_file_is_private_and_goes_with_its_service_alone(paths: EnvironmentPaths) -> None:
    first = meet(paths, HERE)
    assert paths.joining.stat().st_mode & 0o777 == 0o600
    second = meet(paths, HERE, epoch=4)
    first.leave()
    assert keyfiles.read_bootstrap(paths.joining).epoch == 4
    second.leave()
    assert not paths.joining.exists()


def test_interface_is_resolved_by_its_name_and_every_interface_refused() -> None:
    for everywhere in ("*", "0.0.0.0", "::"):
        fails(ConfigError, "every interface", address_for, "127.0.0.2", everywhere)
    assert address_for("127.0.0.2", "lo") == "127.0.0.1"
    fails(ConfigError, r"launcher\.interface: 'eth99'", address_for, "127.0.0.2", "eth99")


def test_address_of_route_is_used_where_name_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """This node's name means 127.0.0.1, as Debian has it."""
    getaddrinfo = socket.getaddrinfo

    def told(host: object, *rest: object, **more: object) -> object:
        return getaddrinfo("127.0.0.1" if host == HERE.name else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", told)
    assert address_for("127.0.0.2", "") == "127.0.0.1"  # from where 127.0.0.2 is reached
    unknown, route = r"'no-such-host\.invalid' is not", r"route to node '255\.255\.255\.255'"
    assert "--hosts" in fails(ConfigError, unknown, address_for, "no-such-host.invalid", "").hint
    assert "interface" in fails(ConfigError, route, address_for, "255.255.255.255", "").hint


def test_results_folder_of_other_service_is_seen(paths: EnvironmentPaths, tmp_path: Path) -> None:
    meet(paths, HERE)
    token = keyfiles.read_bootstrap(paths.joining).token
    assert unavailable_reason(paths.results, token) == ""
    assert "cannot be seen from" in unavailable_reason(tmp_path / "absent", token)
    (tmp_path / keyfiles.TOKEN).write_text("of another start")
    assert "is not the service's" in unavailable_reason(tmp_path, token)
