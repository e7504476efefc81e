"""Run the gateway of one environment: `python -P -m simenv.gateway NAME`."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn

from simenv import config as configs, files
from simenv._version import __version__
from simenv.client.client import Client
from simenv.client.connection import address
from simenv.config import EnvironmentPaths, GatewayFile, GatewaySettings
from simenv.errors import SimenvError
from simenv.gateway import metrics
from simenv.gateway.app import RunningGateway, create_app
from simenv.gateway.clients import ClientPool
from simenv.process import start_ticks

log = logging.getLogger("simenv.gateway")


def main() -> int:
    parser = argparse.ArgumentParser(prog="simenv.gateway", allow_abbrev=False)
    parser.add_argument("name", help="name of the environment")
    parser.add_argument("--listen", default="", help="HOST:PORT")
    parser.add_argument("--listen-fd", type=int, default=-1)
    parser.add_argument("--key", type=Path, default=None, help="file of a key with role gateway")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        run(arguments)
    except SimenvError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def run(arguments: argparse.Namespace) -> None:
    home = configs.home_root() / configs.check_name(arguments.name)
    paths = EnvironmentPaths(home, home)
    settings = GatewaySettings()
    if paths.config.exists():
        settings = configs.read(paths.config).gateway
    if arguments.listen:
        settings = msgspec.structs.replace(settings, listen=arguments.listen)
    folder = files.private_folder(paths.gateway)
    if arguments.listen_fd >= 0:
        listener = socket.socket(fileno=arguments.listen_fd)
    else:
        host, port = settings.listen.rsplit(":", 1)
        listener = socket.create_server((host, int(port)))
    host, port = listener.getsockname()[:2]
    url = f"http://{host}:{port}"
    own = address.find(arguments.name) if arguments.key is None else None
    endpoint = address.KeyFileAddress(arguments.key) if arguments.key else own
    assert endpoint is not None
    observer = Client(endpoint)
    pool = ClientPool(observer, own)
    gateway = RunningGateway(arguments.name, settings, folder, url, pool)
    app = create_app(gateway, *metrics.routes(gateway))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    fields = (arguments.name, url, os.getpid(), start_ticks(), __version__)
    file = GatewayFile(configs.GATEWAY_FORMAT, *fields)
    files.write_atomic(folder / "gateway.json", msgspec.json.encode(file))
    server.run([listener])


if __name__ == "__main__":
    sys.exit(main())
