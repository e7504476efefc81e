"""A service with two clients and an admin."""

from pathlib import Path

from memory_transport import MemoryConnection
from service import ServiceHarness, spec

from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.credentials import AddKey, Keys
from simenv.wire.transport.sockets import PeerKind


class MultiUserHarness(ServiceHarness):
    """Two clients and an admin with keys, in addition to the environment's own user."""

    def __init__(self, folder: Path, **options: object) -> None:
        super().__init__(folder, **{"durability": "process", **options})
        self.key = {name: new_pair().public for name in ("ana", "ben", "ops")}
        for name, key in self.key.items():
            role = "admin" if name == "ops" else "client"
            assert isinstance(self.say(AddKey(1, name, role, key))[0], Keys)
        self.arrive()

    def arrive(self) -> None:
        self.ana, self.ben, self.ops = (
            self.listener.connect(PeerKind.CLIENT, name.encode(), key)
            for name, key in self.key.items()
        )

    def admit(
        self, name: str, role: str = "client", expires_s: float = 0.0
    ) -> tuple[str, MemoryConnection]:
        """Add a key; the public key, and a connection of its holder."""
        key = new_pair().public
        self.get(Keys, AddKey(1, name, role, key, expires_s))
        return key, self.listener.connect(PeerKind.CLIENT, name.encode(), key)

    def order(self, peer: MemoryConnection, key: str = "~k", count: int = 1, seed: int = 1) -> int:
        """Submit; the number of the first task, 0 if it was refused."""
        answer = self.submit(*[spec(seed)] * count, key=key, peer=peer)
        return answer.first if isinstance(answer, m.Accepted) else 0
