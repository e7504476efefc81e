"""Start of the gateway's process, with its sockets and its key.

Invariants: the sockets are opened by the service, so that a start fails if they cannot be, and stay
open while the gateway is started again; at most one gateway of the environment runs, and none of an
earlier start of the service; port 0 is the port of the last gateway, as long as that is free.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from time import sleep

import msgspec
from msgspec import structs

from simenv import config as configs, files
from simenv._version import __version__
from simenv.config import EnvironmentPaths, GatewayFile, GatewaySettings
from simenv.config.paths import GATEWAY, gateway_lock, gateways_of_services
from simenv.errors import ConfigError
from simenv.process import runs
from simenv.sandbox.progress import ProgressDeadline
from simenv.sandbox.supervised import SupervisedProcess
from simenv.service.event_loop import EventLoop
from simenv.service.tokens import OWN_GATEWAY
from simenv.service.workers.endpoints import resolved
from simenv.wire.keyfiles import KEYS_FORMAT, ServerFile, UserKeyFile, new_pair, write_private
from simenv.wire.rights import Identity, Role
from simenv.wire.transport.sockets import open_socket

log = logging.getLogger("simenv.service")
_END_S, _POLL_S = 10.0, 0.01  # of a process that was killed


def start_gateway(
    loop: EventLoop,
    paths: EnvironmentPaths,
    server: ServerFile | None,
    epoch: int,
    on_leave: ExitStack,
) -> None:
    """Start the gateway, or its metrics alone, if the configuration says so, with a key that is new
    in each start. `epoch`: of this start. Raises ConfigError."""
    settings = loop.config.gateway
    addresses = [(key, getattr(settings, key)) for key in ("listen", "metrics")]
    if server is None or not any(address for _, address in addresses):
        return
    if find_spec("litestar") is None:
        hint = "pip install 'simenv[gateway]'"
        raise ConfigError("the packages of the gateway are not installed", hint=hint)
    if settings.tls_certificate:
        _check_tls(settings)
    folder = files.private_folder(paths.gateway)
    _end_former(paths.home)
    with gateway_lock(folder):  # `simenv gateway` may hold it
        last = configs.last_gateway_port(folder)
    arguments = [loop.config.name, "--epoch", str(epoch), "--home", str(paths.home.resolve())]
    descriptors = []
    for key, address in addresses:
        if address:
            host, port = configs.listen_parts(f"tcp://{address}", f"gateway.{key}")
            wanted = last if key == "listen" else 0
            listener = open_socket(resolved(host, f"gateway.{key}"), port, wanted, f"gateway.{key}")
            on_leave.callback(listener.close)
            descriptors.append(listener.fileno())
            arguments += [f"--{key}-fd", str(listener.fileno())]
            if key == "listen":
                url = configs.gateway_url(settings, listener.getsockname())
                public_url = configs.public_gateway_url(settings, listener.getsockname())
                _record(folder, loop.config.name, url, public_url)
                if last and not port and listener.getsockname()[1] != last:
                    text = f"port {last} of the last gateway is taken: {url} replaces it"
                    loop.executor.record_event("gateway.moved", loop.config.name, text)
    pair, name, role = new_pair(), OWN_GATEWAY, Role.GATEWAY
    loop.commands.keys.certify(pair.public, Identity(name, role))
    fields = (
        loop.config.name,
        server.address,
        server.public_key,
        name,
        role,
        *structs.astuple(pair),
    )
    write_private(folder / "key.json", UserKeyFile(KEYS_FORMAT, *fields))
    inputs = arguments, descriptors
    loop.gateway = SupervisedProcess("gateway", "simenv.gateway", os.environ, lambda: inputs, log)
    on_leave.callback(loop.gateway.end)
    loop.gateway.start()


def _record(folder: Path, name: str, url: str, public_url: str) -> None:
    """Store the address before a gateway is ready there: the next start takes its port again, even
    if this one ends before."""
    fields = (configs.GATEWAY_FORMAT, name, url, 0, "", __version__)
    content = GatewayFile(*fields, public_url=public_url)
    files.write_atomic(folder / configs.GATEWAY_FILE, msgspec.json.encode(content))


def _end_former(home: Path) -> None:
    """End gateways of earlier starts on this machine, which have lost their service: they hold the
    port and the lock. Raises ConfigError if one does not end."""
    former = gateways_of_services(home)
    for pid in former:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = ProgressDeadline(_END_S)
    while left := [pid for pid in former if runs(pid, GATEWAY, ending=True)]:
        if deadline.is_over:
            text = f"a gateway of an earlier start does not end: process {left[0]}"
            raise ConfigError(text, hint="it holds the port and the lock of the gateway")
        sleep(_POLL_S)


def _check_tls(settings: GatewaySettings) -> None:
    """Load the certificate and its key once: the gateway's process would fail in its log alone.
    Raises ConfigError."""
    import ssl  # its library takes 10 ms, and few gateways end TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:  # a password, for which OpenSSL would ask at a terminal, is wrong here
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        text = f"cannot use {settings.tls_certificate} and {settings.tls_key}: {error}"
        hint = "gateway.tls_certificate and gateway.tls_key: PEM files, the key without a password"
        raise ConfigError(text, hint=hint) from error
