"""Another process has a port of the configuration: `up` names the setting and who has the port;
where the configuration leaves the port open, the service takes another one and says so."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from failing import fails
from live import Live, environment
from waiting import until

from simenv.client.connection import address
from simenv.client.environments import await_gateway
from simenv.errors import ConfigError
from simenv.wire.transport.sockets import open_socket

pytestmark = pytest.mark.usefixtures("no_leaks")


@contextmanager
def taken(port: int = 0) -> Iterator[int]:
    """Listen at a port as this process."""
    with open_socket("127.0.0.1", port) as listener:
        yield listener.getsockname()[1]


def is_free(port: int) -> bool:
    try:
        open_socket("127.0.0.1", port).close()
    except ConfigError:
        return False
    return True


def options(setting: str, port: int) -> dict[str, object]:
    """A configuration that has a port in one setting."""
    address, free = f"127.0.0.1:{port}", "tcp://127.0.0.1:0"
    if setting == "identity.listen":
        users = {"use": ["keys", "munge"], "users": ["ana"], "listen": f"tcp://{address}"}
        return {"listen": free, "identity": users}
    table, _, key = setting.rpartition(".")
    return {table: {key: address}} if table else {key: f"tcp://{address}"}


@pytest.mark.parametrize(
    "setting", ["listen", "identity.listen", "gateway.listen", "gateway.metrics"]
)
def test_up_names_the_setting_and_who_has_the_port(setting: str) -> None:
    with taken() as port:
        live = Live(**options(setting, port))
        try:
            words = (
                rf"{re.escape(setting)}: cannot listen on .*127\.0\.0\.1:{port}: Address already "
            )
            words += rf"in use, process {os.getpid()} \(.*has port {port}"
            fails(ConfigError, words, live.up)
        finally:
            live.down()


def ports(live: Live) -> set[int]:
    """Of the service and its gateway."""
    gateway, service = await_gateway(live.home), address.read(live.home / "connection.json")
    assert gateway is not None
    return {int(url.rpartition(":")[2]) for url in (gateway.url, service.address)}


def test_open_ports_that_others_have_taken_are_replaced_and_the_events_say_so() -> None:
    with environment(listen="tcp://127.0.0.1:0", gateway={"listen": "127.0.0.1:0"}) as live:
        before = ports(live)
        live.crash()
        until(lambda: all(map(is_free, before)))  # the gateway has its port until its end
        with ExitStack() as stack:
            for port in before:
                stack.enter_context(taken(port))
            live.up()
        assert not before & ports(live)
        with live.client() as env:
            moved = [event.kind for event in env.events(kinds=["*.moved"])]
        assert sorted(moved) == ["gateway.moved", "service.moved"]
