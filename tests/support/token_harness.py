"""A service in this process with users, and a gateway that exchanges their bearer tokens."""

from memory_transport import MemoryConnection
from multi_user_harness import MultiUserHarness

from simenv.wire.keyfiles import ServerFile, new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.credentials import (
    AddKey,
    CreateToken,
    ExchangeToken,
    TokenCertificate,
    TokenCreated,
)
from simenv.wire.transport.sockets import PeerKind

SERVER = ServerFile(1, "p" * 40, "s" * 40, "tcp://127.0.0.1:7")
DAY_S = 86_400.0


class TokenHarness(MultiUserHarness):
    """Two clients, an admin, and a gateway with a key."""

    def arrive(self) -> None:
        self.loop.tokens.server = SERVER
        if "web" not in self.key:
            self.key["web"] = new_pair().public
            self.say(AddKey(1, "web", "gateway", self.key["web"]))
        web = self.key.pop("web")
        super().arrive()
        self.key["web"] = web
        self.web = self.listener.connect(PeerKind.CLIENT, b"web", web)

    def create(
        self, peer: MemoryConnection | None = None, user: str = "", role: str = "client",
        lifetime_s: float = DAY_S, once: bool = False, purpose: str = "test", reservation: int = 0,
        parent: str = "",
    ) -> TokenCreated:  # fmt: skip
        message = CreateToken(1, user, "", role, purpose, lifetime_s, once, reservation, parent)
        return self.get(TokenCreated, message, peer)

    def exchange(self, secret: str, public_key: str = "") -> TokenCertificate:
        message = ExchangeToken(1, secret, public_key or new_pair().public)
        return self.get(TokenCertificate, message, self.web)

    def refused(self, secret: str) -> m.Refusal:
        """Refusal of the exchange of a token by the gateway."""
        return self.refusal(ExchangeToken(1, secret, new_pair().public), self.web)

    def enter(self, secret: str) -> MemoryConnection:
        """Return the connection that a gateway opens for the user of a token."""
        public_key = new_pair().public
        self.exchange(secret, public_key)
        return self.listener.connect(PeerKind.CLIENT, public_key[:8].encode(), public_key)

    def tick(self) -> None:
        self.loop.tokens._ticked_s = 0.0
        self.step()

    def audited(self) -> str:
        return "\n".join(f"{each.kind} {each.subject} {each.message}" for each in self.events())
