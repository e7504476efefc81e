"""Bearer tokens of HTTP clients."""

from __future__ import annotations

from simenv.client.connection.session import ServiceSession
from simenv.config import check_name
from simenv.errors import OptionError
from simenv.wire.messages.credentials import (  # fmt: skip
    CreateToken,
    GetTokens,
    RevokeToken,
    TokenCreated,
    TokenInfo,
)

MAX_TEXT_CHARS = 64  # of the purpose of a token, and of its number
TOKEN_S = 30 * 86_400.0  # lifetime of a token by default


class TokenSettings:
    """Requests for bearer tokens of HTTP clients. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def listed(self) -> list[TokenInfo]:
        """Return the tokens of the caller, or all for an admin, without their secrets."""
        return self._session.request(GetTokens(0)).tokens

    def add(
        self,
        user: str = "",
        *,
        account: str = "",
        role: str = "client",
        purpose: str = "",
        lifetime_s: float = TOKEN_S,
        once: bool = False,
        reservation: int = 0,
        parent: str = "",
    ) -> TokenCreated:
        """Make a token of `user`, "" the caller, which ends after `lifetime_s` or, with `once`,
        with its first use. `role`: client, admin, or monitor, which may read the metrics alone
        and is an admin's to give; not above the caller's; "": that of the user.
        `reservation`: number of one of the user, under which all work of the token runs, and with
        which it ends; a repeat by its user returns the same token. `parent`: number of a token of
        `user`, with which it ends. The answer alone has its secret. Raises NotAllowedError,
        OptionError, LimitExceededError, NotReservedError, NotFoundError."""
        for name, what in ((user, "user"), (account, "account")):
            if name:
                check_name(name, what)
        if len(purpose) > MAX_TEXT_CHARS:
            text = f"the purpose of a token has {len(purpose)} characters"
            raise OptionError(text, hint=f"at most {MAX_TEXT_CHARS}")
        bound = (once, reservation, parent)
        message = CreateToken(0, user, account, role, purpose, lifetime_s, *bound)
        return self._session.request(message)

    def revoke(self, number: str) -> None:
        """Revoke a token at once. Raises NotFoundError."""
        number = number[:MAX_TEXT_CHARS]  # no longer one is known
        self._session.request(RevokeToken(0, number=number))
