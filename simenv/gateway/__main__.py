"""Run the gateway of one environment: `python -P -m simenv.gateway NAME`.

The service starts it with a socket that listens already, and it ends with that start of the
service; `simenv gateway` runs it in the foreground. Invariant: one gateway of an environment runs
at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from litestar.enums import ScopeType
from litestar.types import ASGIApp, ControllerRouterHandler, Receive, Scope, Send

from simenv import config as configs, files
from simenv._version import __version__
from simenv.client.client import Client
from simenv.client.connection import address, tracing
from simenv.config import EnvironmentPaths, GatewayFile, GatewaySettings
from simenv.config.paths import gateway_lock
from simenv.errors import ConfigError, NoServiceError, SimenvError, SimenvWarning
from simenv.gateway import metrics, native, page, tls as certificates
from simenv.gateway.app import RunningGateway, create_app
from simenv.gateway.clients import ClientPool
from simenv.gateway.context import Gateway
from simenv.gateway.ibm.endpoints import routes as ibm_routes
from simenv.gateway.ibm.service import ComputeService
from simenv.gateway.iqm.endpoints import routes as iqm_routes
from simenv.gateway.limits import HEAD_S, IDLE_S, BoundedApplication, bounded_protocol
from simenv.gateway.pasqal.endpoints import routes as pasqal_routes
from simenv.process import freeze_gc, start_ticks
from simenv.wire.transport.sockets import open_socket, open_unix_socket

ANY_PORT = "127.0.0.1:0"  # where it listens by default
LOG_BYTES, LOG_FILES = 8 * 2**20, 4
EPOCH_CHECK_S = 2.0
START_S = 60.0  # in which a service has to answer that did not start this gateway
END_S = 3  # of requests under way when it ends
# Defaults of tasks in a shell: what the starter set must not decide about tasks of users.
OF_TASKS = ("SIMENV_ACCOUNT", "SIMENV_QOS", "SIMENV_RESERVATION", "SIMENV_APP", "TRACEPARENT")
log = logging.getLogger("simenv.gateway")


def main() -> int:
    warnings.simplefilter("ignore", SimenvWarning)  # answers carry them
    arguments = _arguments()
    for name in OF_TASKS:
        os.environ.pop(name, None)
    home = arguments.home or configs.home_root() / configs.check_name(arguments.name)
    paths = EnvironmentPaths(home, home)
    is_child = max(arguments.listen_fd, arguments.metrics_fd) >= 0
    try:
        folder = files.private_folder(paths.gateway)
        _log_to(files.private_folder(paths.logs) / "gateway.log" if is_child else None)
        if is_child:
            _check_start(paths, arguments.epoch)
            watch = threading.Thread(target=_end_with_service, args=(paths, arguments.epoch))
            watch.daemon = True
            watch.start()
        with gateway_lock(folder):
            run(arguments, paths)
    except SimenvError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simenv.gateway", allow_abbrev=False)
    parser.add_argument("name", help="name of the environment")
    parser.add_argument("--home", type=Path, help="its folder")
    parser.add_argument("--listen", default="", help="HOST:PORT")
    parser.add_argument("--epoch", type=int, default=0, help="of the service that starts it")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, help="default: as set")
    parser.add_argument("--listen-fd", type=int, default=-1, help="socket that listens")
    parser.add_argument("--metrics-fd", type=int, default=-1, help="socket of /metrics alone")
    parser.add_argument("--service", type=Path, help="file of a key with the role gateway")
    return parser.parse_args()


def _log_to(path: Path | None) -> None:
    """Log to a file, which is rotated, or to stderr."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if path is not None:
        handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES)
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, handlers=[handler])
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _check_start(paths: EnvironmentPaths, epoch: int) -> None:
    """Check that the service of this start leads the environment. Raises ConfigError."""
    with suppress(NoServiceError):
        if address.read(paths.connection).epoch == epoch:
            return
    text = f"start {epoch} of the service, which this gateway belongs to, has ended"
    raise ConfigError(text, hint="the next start has a gateway of its own")


def _end_with_service(paths: EnvironmentPaths, epoch: int) -> None:
    """End this process once its start of the service has ended. The kernel ends it with its parent;
    this holds too where the parent lives on, such as after a takeover by a standby."""
    try:
        while True:
            time.sleep(EPOCH_CHECK_S)
            _check_start(paths, epoch)
    except ConfigError as error:
        log.error("%s", error)
        os._exit(error.exit_code)  # the loop may be busy, and nobody could be answered


def run(arguments: argparse.Namespace, paths: EnvironmentPaths) -> None:
    """Run the gateway, or its metrics alone, until a signal. Raises SimenvError."""
    settings = configs.read(paths.config).gateway if paths.config.exists() else GatewaySettings()
    listen = arguments.listen or settings.listen or ANY_PORT
    tls = settings.tls if arguments.tls is None else arguments.tls
    settings = msgspec.structs.replace(settings, listen=listen, tls=tls)
    configs.check_gateway(settings, "simenv gateway")
    tracing.configure("simenv-gateway")
    monitored = _inherited(arguments.metrics_fd)
    listener = _inherited(arguments.listen_fd)
    is_child = monitored is not None or listener is not None
    if not is_child:
        setting = "--listen" if arguments.listen else "gateway.listen"
        last = configs.last_gateway_port(paths.gateway)
        listener = open_socket(*configs.web_address(listen), last, setting)
    # uvicorn ends on these signals, and sends them once more to the former handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with ExitStack() as sockets:
        for each in filter(None, (listener, monitored)):
            sockets.enter_context(each)
        if listener is None:
            assert monitored is not None
            gateway = _gateway(arguments, paths, settings, monitored)
            log.info("metrics at %s/metrics", _metrics_url(settings, monitored))
            monitor = BoundedApplication(metrics.application(gateway), settings)
            tls = given_certificate(settings)
            Server(_uvicorn(monitor, settings), [(monitored, tls)]).run()
            return
        gateway = _gateway(arguments, paths, settings, listener)
        app: ASGIApp = create_app(gateway, *all_routes(gateway))
        tls = given = given_certificate(settings)
        if settings.tls and given is None:
            host = listener.getsockname()[0]
            tls = _context(*certificates.issue(paths.gateway, arguments.name, host))
        path = configs.gateway_socket(paths.home)
        local = sockets.enter_context(open_unix_socket(path))
        sockets.callback(path.unlink, missing_ok=True)
        listeners = [(listener, tls), (local, None)]
        if monitored is not None:  # in the same event loop, which the clients belong to
            app = _by_port(app, monitored.getsockname()[1], metrics.application(gateway))
            listeners.append((monitored, given))
            log.info("metrics at %s/metrics", _metrics_url(settings, monitored))
        file = paths.gateway / configs.GATEWAY_FILE
        fields = (gateway.environment, gateway.url, os.getpid(), start_ticks(), __version__)
        public_url = configs.public_gateway_url(settings, listener.getsockname())
        content = GatewayFile(configs.GATEWAY_FORMAT, *fields, str(path), public_url)
        files.write_atomic(file, msgspec.json.encode(content))
        if not is_child:
            log.info("listening at %s", gateway.url)
        freeze_gc()  # a pass over all modules would stop all requests
        Server(_uvicorn(BoundedApplication(app, settings), settings), listeners).run()


def _metrics_url(settings: GatewaySettings, listener: socket.socket) -> str:
    """Return the URL of the address of metrics alone, which has no certificate of its own."""
    has_tls = bool(settings.tls_certificate)
    of_metrics = msgspec.structs.replace(settings, tls=has_tls)
    return configs.gateway_url(of_metrics, listener.getsockname())


def given_certificate(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Load the certificate of the configuration, if there is one. Raises ConfigError."""
    if not settings.tls_certificate:
        return None
    return _context(Path(settings.tls_certificate), Path(settings.tls_key))


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Load a certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:  # a password, for which OpenSSL would ask at a terminal, is wrong here
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        text = f"cannot use {certificate} and {key}: {error}"
        raise ConfigError(text, hint="PEM files, the key without a password") from error
    return context


def all_routes(gateway: Gateway) -> list[ControllerRouterHandler]:
    """Return the routes of all APIs and of the page; those of sessions are of the application."""
    service = ComputeService(gateway)
    routes = [route for part in (metrics, native, page) for route in part.routes(gateway)]
    return [
        *routes, *ibm_routes(gateway, service), *iqm_routes(service), *pasqal_routes(gateway)
    ]  # fmt: skip


def _inherited(descriptor: int) -> socket.socket | None:
    return socket.socket(fileno=descriptor) if descriptor >= 0 else None


def _by_port(app: ASGIApp, port: int, of_port: ASGIApp) -> ASGIApp:
    """Return an application that passes requests to one port to another one."""

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_other = scope["type"] == ScopeType.HTTP and server is not None and server[1] == port
        await (of_port if is_other else app)(scope, receive, send)

    return dispatch


def _gateway(
    arguments: argparse.Namespace,
    paths: EnvironmentPaths,
    settings: GatewaySettings,
    listener: socket.socket,
) -> RunningGateway:
    """Connect to the service: with the key of a gateway if there is one, else as its own user."""
    is_child = max(arguments.listen_fd, arguments.metrics_fd) >= 0
    key = paths.gateway / "key.json" if is_child else arguments.service
    own = address.FileAddress(paths.connection)
    endpoint = own if key is None else address.KeyFileAddress(key)
    observer = _observer(endpoint, paths, arguments.epoch if is_child else 0)
    users = own if paths.connection.exists() else None
    results = None
    if users and paths.config.exists():
        state = configs.state_folder(configs.read(paths.config), paths.home)
        results = EnvironmentPaths(paths.home, state).results
    pool = ClientPool(observer, users, settings.max_processes, results)
    url = configs.gateway_url(settings, listener.getsockname())
    return RunningGateway(arguments.name, settings, paths.gateway, url, pool)


def _observer(endpoint: address.Address, paths: EnvironmentPaths, epoch: int) -> Client:
    """Connect to the service. `epoch`: of the start that this gateway belongs to, for which it
    waits as long as it lasts; 0: of none. Raises NoServiceError, ConfigError."""
    while True:
        try:
            return Client(endpoint, START_S)
        except NoServiceError as error:
            if not epoch:
                raise
            _check_start(paths, epoch)
            log.warning("waiting for the service, which has too much to do: %s", error)


def _uvicorn(app: BoundedApplication, settings: GatewaySettings) -> uvicorn.Config:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    result = uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies),
        timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=END_S,
    )
    result.load()
    return result


class Server(uvicorn.Server):
    """uvicorn's server at sockets of which each has TLS of its own, or none."""

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[tuple[socket.socket, ssl.SSLContext | None]],
    ) -> None:
        super().__init__(config)
        self._listeners = listeners

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets or [])
        loop = asyncio.get_running_loop()
        state = self.lifespan.state

        def protocol() -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            made: asyncio.Protocol = kind(self.config, self.server_state, state)
            return made

        for listener, tls in self._listeners:
            is_local = listener.family == socket.AF_UNIX
            create: Any = loop.create_unix_server if is_local else loop.create_server
            limit_s = HEAD_S if tls is not None else None
            backlog = self.config.backlog
            self.servers.append(
                await create(
                    protocol, sock=listener, ssl=tls, backlog=backlog, ssl_handshake_timeout=limit_s
                )
            )


if __name__ == "__main__":
    sys.exit(main())
