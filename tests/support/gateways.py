"""A gateway over a real service, in the test's process, with routes of the test."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from live import Live

from simenv import files
from simenv.client.administration.keys import issue_key
from simenv.client.client import Client
from simenv.client.connection.address import KeyFileAddress
from simenv.config import GatewaySettings, gateway_url
from simenv.gateway.__main__ import Server, _uvicorn, given_certificate
from simenv.gateway.app import RunningGateway, create_app
from simenv.gateway.clients import ClientPool
from simenv.gateway.limits import BoundedApplication
from simenv.wire.transport.sockets import open_socket

Routes = Callable[[RunningGateway], Sequence[Any]]


def gateway_key(live: Live, name: str) -> Path:
    """Make a key with the role gateway."""
    path = live.home / f"{name}.simenv"
    with live.client() as client:
        issue_key(client.keys, name, "gateway", path)
    return path


@contextmanager
def gateway(
    live: Live, key: Path, routes: Routes = lambda _: (), **settings: Any
) -> Iterator[RunningGateway]:
    """Serve a gateway with the key; its `url` is where."""
    with closing(open_socket("127.0.0.1", 0)) as listener:
        configured = msgspec.convert({"tls": False, **settings}, GatewaySettings)
        url = gateway_url(configured, listener.getsockname())
        pool = ClientPool(Client(KeyFileAddress(key)), None)
        folder = files.private_folder(live.home / key.stem)
        running = RunningGateway(live.name, configured, folder, url, pool)
        app = BoundedApplication(create_app(running, *routes(running)), configured)
        certificate = given_certificate(configured)
        server = Server(_uvicorn(app, configured), [(listener, certificate)])
        thread = threading.Thread(target=server.run, name="gateway")
        thread.start()
        try:
            yield running
        finally:
            server.should_exit = True
            thread.join(30.0)
