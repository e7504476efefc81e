"""A real broker whose service is a thread of the test."""

import os
import select
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simenv.config import convert
from simenv.service.identities import BrokerProcess
from simenv.wire.messages import identity
from simenv.wire.messages.identity import UserAccount, UserCertificate, UserRequest

NAME = "shared"
ADDRESS, SERVER_KEY = "tcp://127.0.0.1:1", "s" * 40


class PlayedService:
    """Answers each request with a certificate, and remembers it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        environ = {**os.environ, "SIMENV_BROKERS": str(folder)}
        table = {"use": "local", "users": ["ana"], **settings}
        listen = {"listen": "tcp://127.0.0.1:0"} if "listen" in settings else {}
        self.broker = BrokerProcess(convert({"name": NAME, "identity": table, **listen}), environ)
        self.broker.handle = self._handle
        self.asked: list[UserRequest] = []
        self.members: list[UserAccount] = []
        self.answers = True
        self.lifetime_s = 900.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.broker.child.start()
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            if select.select([self.broker], [], [], 0.05)[0]:
                self.broker.receive()

    def _handle(self, message: UserRequest | UserAccount) -> None:
        if isinstance(message, UserAccount):
            self.members.append(message)
            return
        self.asked.append(message)
        if self.answers:
            nonce, user = message.request.nonce, message.user
            ends = (ADDRESS, SERVER_KEY, self.lifetime_s)
            reply = UserCertificate(1, NAME, nonce, user, "client", *ends)
            self.broker.send(identity.UserAnswer(message.number, reply))

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.broker.close()


@contextmanager
def played(folder: Path, **settings: object) -> Iterator[PlayedService]:
    service = PlayedService(folder, **settings)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that everybody may enter, with a path that is short enough for sockets."""
    path = Path(tempfile.mkdtemp(prefix="simenv-", dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)
