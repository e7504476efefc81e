"""Connections that come, go and come again under one name: the service stays, whatever they do."""

import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing import fails

from simenv.wire.keyfiles import KEYS_FORMAT, WorkerBootstrap, new_pair, write_private
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.zmq_transport import ZmqConnection

WAIT_S = 30.0
BOTH_S = 0.3  # so long two of one name live side by side
QUIET_S = 5.0  # so long after the last cut, timers of the dead connections have come up
NAME = b"main-0.1"
DOOR = """
import sys, zmq
from pathlib import Path
from simenv.service.workers.endpoints import WORKERS
from simenv.wire.rights import LOCAL_WORKER
from simenv.wire.transport.sockets import readable
from simenv.wire.keyfiles import KeyPair
from simenv.wire.transport.tcp_listener import TcpListener

worker, public, secret = sys.argv[1:]
door = TcpListener("127.0.0.1", 0, KeyPair(public, secret), print, WORKERS)
door.admit({worker: LOCAL_WORKER}, b"")
print(door.port, flush=True)
poller = zmq.Poller()
for each in door.sockets:
    poller.register(each, zmq.POLLIN)
while True:
    poller.poll(100)
    door.process_events()
    while readable(door.sockets[0]):
        if (found := door.receive()) is not None:
            door.send(found[1], found[2])
"""
PEER = """
import sys, time
from pathlib import Path
from simenv.wire import keyfiles
from simenv.wire.transport import zmq_transport

bootstrap = keyfiles.read_bootstrap(Path(sys.argv[1]))
peer = zmq_transport.connect_worker(bootstrap, sys.argv[2].encode())
while True:
    peer.send(b"beat")
    if peer.receive(0.01):
        print("answered", flush=True)
"""


class Service:
    """The workers' door as the service opens it, in a process that may die of it."""

    def __init__(self, folder: Path) -> None:
        server, worker = new_pair(), new_pair()
        argv = [sys.executable, "-c", DOOR, worker.public, server.public, server.secret]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        port = int(self.process.stdout.readline())
        keys = server.public, worker.public, worker.secret
        address = f"tcp://127.0.0.1:{port}"
        self.file = WorkerBootstrap(KEYS_FORMAT, "elsewhere", str(folder), "token", address, *keys)
        self.path = folder / "worker.json"
        write_private(self.path, self.file)

    def stays(self) -> None:
        """It lives when all is quiet, and is there for the next."""
        fails(subprocess.TimeoutExpired, "", self.process.wait, QUIET_S)
        again = self.connected()
        answered(again, b"still there?")
        again.close()

    def connected(self, name: bytes = NAME) -> ZmqConnection:
        return zmq_transport.connect_worker(self.file, name)


def answered(peer: ZmqConnection, word: bytes) -> None:
    peer.send(word)
    while (body := peer.receive(WAIT_S)) != word:
        assert body is not None, "no answer"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    outcome = Service(tmp_path)
    yield outcome
    outcome.process.kill()
    outcome.process.communicate()


def test_service_survives_connections_and_killed_workers_of_same_name(service: Service) -> None:
    for count in range(25):
        old = service.connected()
        answered(old, b"old %d" % count)
        new = service.connected()
        answered(new, b"new %d" % count)
        for _ in range(3):
            old.send(b"which nobody reads")
        old.close()
        new.close()
    argv = [sys.executable, "-c", PEER, str(service.path), NAME.decode()]
    for _ in range(4):
        pair = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2)]
        try:  # they take the name from one another: at times one of them has it for good
            assert select.select([peer.stdout for peer in pair], [], [], WAIT_S)[0], "no answer"
            time.sleep(BOTH_S)
        finally:
            for peer in pair:
                peer.kill()
                peer.communicate()
    service.stays()
