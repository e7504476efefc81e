"""Bearer tokens of HTTP clients, and the certificates that gateways get for them.

A token is 256 random bits, of which the environment keeps the hash in a file like that of the keys.
A gateway sends a token that a user has presented, with a public key of its own, and the key is
accepted as the user's for a while. Invariants: nobody makes a token with more rights than his own;
a certificate ends with its token, with the membership of its user, and with the key of the gateway
that got it; a revoked token is refused before the file is written; tokens are bounded, and so are
the certificates of one. Used from the loop's thread.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from simenv import config as configs
from simenv.config.paths import AUTHORITY_FILE
from simenv.errors import (
    ConfigError,
    InsufficientError,
    KeyConflictError,
    KeyRefusedError,
    LimitExceededError,
    NotAllowedError,
    NotFoundError,
    OptionError,
)  # fmt: skip
from simenv.model.reservations import JOB_SCOPE
from simenv.service.accounting.groups import GroupMembers
from simenv.service.control.accepted_keys import LOCK_PATIENCE_S, refusal_notice
from simenv.service.identities import OWN_USER, CertificateIssuer
from simenv.service.service import ServiceComponents
from simenv.wire import key_list, keyfiles
from simenv.wire.keyfiles import KEYS_FORMAT, ServerFile
from simenv.wire.messages.credentials import (  # fmt: skip
    CreateToken,
    ExchangeToken,
    GetTokens,
    RevokeToken,
    TokenCertificate,
    TokenCreated,
    TokenInfo,
    Tokens,
)
from simenv.wire.messages.identity import UserAccount
from simenv.wire.rights import TOKEN_ROLES, Identity, Role

MAX_TOKENS = 1_000  # of all users
MAX_OF_USER = 64  # without those of jobs, which their reservations bound
MAX_OF_RESERVATION = 8  # without sessions of the page
MAX_SESSIONS = 16  # of the page, by one token; a new one ends the oldest
MAX_LIFETIME_S = 400 * 86_400.0
PREFIX = "simenv_"  # of every token, by which scanners of source code find it
NUMBER_BYTES = 4  # of a token's number
USED_S = 600.0  # resolution of the time of the last use: the file is written no more often
GROUP = "@"
OWN_GATEWAY = "the gateway"  # of the environment's own user; no key has such a name
REVOKED_NOTICE = refusal_notice(
    "this token was revoked; tasks submitted with it continue", "simenv gateway tokens add"
)
SESSION_NOTICE = refusal_notice(
    "this session of the page ended for newer ones; its tasks continue", "sign in again"
)
EXPIRED_NOTICE = refusal_notice(
    "this token has expired; tasks submitted with it continue", "simenv gateway tokens add"
)
_NO_GATEWAY = "this environment was started without a gateway for other users"
_WITH_GATEWAY = "simenv down, then simenv up --gateway HOST:PORT"
_PURPOSE = re.compile(r"[^\x00-\x1f\x7f-\x9f]*\Z")


class StoredToken(msgspec.Struct, frozen=True):
    """A token in the file. `digest`: SHA-256 of the token in hexadecimal. `granted`: when it was
    made, its user had neither a key nor a membership, and enters by this token alone."""

    info: TokenInfo
    digest: str
    once: bool = False
    granted: bool = False

    @property
    def is_of_page(self) -> bool:
        """True for links and sessions of the page, which have a limit of their own: a user with
        too many tokens can still open the page and end them."""
        return self.once or bool(self.info.parent)


class TokensFile(msgspec.Struct, frozen=True):
    """Contents of `tokens.json`."""

    format: int
    tokens: list[StoredToken]


def digest_of(secret: str) -> str:
    """Return the SHA-256 of a token in hexadecimal. A token is random: no salt is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenCommands(CertificateIssuer):
    """Changes of the tokens, and their exchange for certificates."""

    def __init__(self, service: ServiceComponents) -> None:
        """Raises ConfigError if the file cannot be used."""
        self.server: ServerFile | None = None  # where certificates are accepted; None: nowhere
        super().__init__(service)
        self._path = service.commands.keys.path.with_name("tokens.json")
        self._members = GroupMembers()
        settings = service.config.identity
        self._groups = frozenset(
            name.removeprefix(GROUP)
            for name in (*settings.users, *settings.admins)
            if name.startswith(GROUP)
        )
        self._holders: dict[tuple[str, str], int] = {}  # in the table, by token and gateway
        self._last_holder = 0
        # Of tokens of reservations, by digest, for a repeat of their user; not stored.
        self._secrets: dict[str, str] = {}
        self._used_s: dict[str, float] = {}  # last uses that are not in the file
        self._written_s = 0.0
        stored = keyfiles.read_private(self._path, TokensFile).tokens if self._path.exists() else []
        self._tokens = {token.digest: token for token in stored}
        self._spent = set[str]()  # digests of one-time tokens whose certificates have not ended
        for token in stored:
            service.accounting.owners.admit(token.info.user, token.info.role)

    @property
    def users(self) -> set[str]:
        """Users of all tokens."""
        return {token.info.user for token in self._tokens.values()}

    # --- changes ---------------------------------------------------------------------------------

    def create(self, identity: Identity, asked: CreateToken) -> TokenCreated:
        """Make a token. Raises NotAllowedError, OptionError, LimitExceededError, ConfigError."""
        service, now_s = self._service, time.time()
        user = asked.user or identity.owner
        if user != identity.owner and identity.role is not Role.ADMIN:
            raise NotAllowedError(
                f"a token for {user!r} is not for {identity.owner!r} to make",
                hint="leave the user out; an admin can make tokens for others",
            )
        if user:
            configs.check_name(user, "user")
        if user and self.server is None:
            raise ConfigError(_NO_GATEWAY, hint=_WITH_GATEWAY)
        membership = identity.role if user == identity.owner else self._role(user)
        most = membership or (Role.ADMIN if identity.role is Role.ADMIN else Role.CLIENT)
        role = asked.role or most.value
        possible = TOKEN_ROLES if most is Role.ADMIN else (Role.CLIENT,)
        if role not in possible:
            hint = " or ".join(possible)
            text = f"a token of {user or 'the own user'} cannot have the role {role!r:.80}"
            raise OptionError(text, hint=hint)
        if not 0.0 < asked.lifetime_s <= MAX_LIFETIME_S:
            text = f"lifetime_s = {asked.lifetime_s:g} is outside 0 .. {MAX_LIFETIME_S:.0f}"
            raise OptionError(text, hint="a time such as 30d")
        if not _PURPOSE.match(asked.purpose):
            raise OptionError("the purpose of a token is not one line of text")
        if asked.account:
            service.accounting.accounts.tree.resolve(user, asked.account)
        pool = ""
        if asked.reservation:
            pool = service.state.reservations.usable(
                asked.reservation, user, time.time_ns()
            ).grant.ask.device
            if role != Role.CLIENT:
                raise OptionError(
                    "a token of a reservation has the role client", hint="role=client"
                )
        ends_s = now_s + asked.lifetime_s
        if asked.parent:
            parent = self._numbered(identity, asked.parent).info
            if parent.user != user:
                text = f"token {parent.number} is not one of {user or OWN_USER}"
                raise OptionError(text, hint="parent: a token of the same user")
            ends_s = min(ends_s, parent.expires_s)
        service.accounting.owners.count_refusal(identity.owner)  # it costs more than its message
        is_own = bool(asked.reservation) and user == identity.owner and not identity.via
        known = self._repeated(asked, user, role) if is_own else None
        if known is not None:
            secret = self._secrets[known.digest]
            return TokenCreated(asked.request, secret, known.info, *self._reached())
        secret = PREFIX + secrets.token_urlsafe(32)
        info = TokenInfo(
            secrets.token_hex(NUMBER_BYTES), user, asked.account, role, asked.purpose,
            now_s, ends_s, reservation=asked.reservation, pool=pool, parent=asked.parent,
        )  # fmt: skip
        granted = self._is_granted(identity, user)
        token = StoredToken(info, digest_of(secret), asked.once, granted)
        self._expire(now_s)
        self._end_oldest_sessions(token)
        self._write(self._with(token))
        if is_own and not asked.once:
            self._secrets[token.digest] = secret
        service.accounting.owners.admit(user, role)
        detail = f"role {info.role}, for {asked.lifetime_s:.0f} s: {info.purpose or 'no purpose'}"
        subject = f"{info.number} of {user or OWN_USER}"
        service.commands.audit.write(identity, "tokens.create", subject, detail)
        return TokenCreated(asked.request, secret, info, *self._reached())

    def _reached(self) -> tuple[str, str]:
        """Return the certificate of the gateway's own authority, "" if it has none, and the URL of
        the gateway for users elsewhere."""
        settings, authority = self._service.config.gateway, ""
        if settings.tls and not settings.tls_certificate:
            with suppress(OSError):  # no gateway has run yet
                authority = self._path.with_name("gateway").joinpath(AUTHORITY_FILE).read_text()
        return authority, configs.known_gateway(settings, self._path.parent)

    def _repeated(self, asked: CreateToken, user: str, role: str) -> StoredToken | None:
        """Return the token that its user made for the same reservation in the same way since the
        service has started; None if there is none. Each step of a job asks for one."""
        wanted = asked.reservation, user, role, asked.account, asked.purpose, asked.parent
        now_s = time.time()
        for token in () if asked.once else self._tokens.values():
            info = token.info
            made = info.reservation, info.user, info.role, info.account, info.purpose, info.parent
            if made == wanted and token.digest in self._secrets and not self._is_over(token, now_s):
                return token
        return None

    def _is_granted(self, identity: Identity, user: str) -> bool:
        """Return whether a new token is all by which its user enters: an admin makes it for a user
        who is not known, or a user who entered so makes one. Raises KeyRefusedError for a user who
        is not known any more, InsufficientError while groups are looked up."""
        if self._role(user) is not None:
            return False
        if user == identity.owner:
            if not any(each.granted for each in self._tokens.values() if each.info.user == user):
                raise self._no_member(user)
        elif self._service.config.identity.has_users and self._members.lacks(self._groups):
            text = f"the groups of {user!r} are being looked up"
            raise InsufficientError(text, hint="try again in a few seconds", retry_after_s=5.0)
        return True

    def _no_member(self, user: str) -> KeyRefusedError:
        return KeyRefusedError(
            f"{user} may not use the environment {self._service.config.name!r} any more",
            hint="ask its owner: a key, or the tables [identity] and [accounts]",
        )

    def _end_oldest_sessions(self, token: StoredToken) -> None:
        """End the oldest sessions of the page, of its parent and of its user, for a new session, or
        for a link that begins one."""
        info = token.info
        while token.is_of_page:
            pages = [e for e in self._tokens.values() if e.is_of_page and e.info.user == info.user]
            # Without what the new one comes from: that would end with it.
            sessions = [e for e in pages if e.info.parent and e.info.number != info.parent]
            siblings = [e for e in sessions if e.info.parent == info.parent]
            if info.parent and len(siblings) >= MAX_SESSIONS:
                sessions = siblings
            elif len(pages) < MAX_OF_USER:
                return
            if not sessions:
                return
            oldest = min(sessions, key=lambda each: each.info.at_s)
            self._remove(oldest, "made way for a newer session", SESSION_NOTICE)

    def _with(self, token: StoredToken) -> dict[str, StoredToken]:
        """Return the tokens and one more. Raises LimitExceededError."""
        tokens = dict(self._tokens)
        own = [each for each in tokens.values() if each.info.user == token.info.user]
        reservation = token.info.reservation
        of_user = (
            0
            if self._is_of_job(token.info)
            else sum(
                not self._is_of_job(each.info) and each.is_of_page == token.is_of_page
                for each in own
            )
        )
        of_reservation = sum(
            each.info.reservation == reservation and not each.info.parent for each in own
        )
        of_reservation *= bool(reservation) and not token.info.parent
        for count, most, whose in (
            (of_user, MAX_OF_USER, token.info.user or OWN_USER),
            (of_reservation, MAX_OF_RESERVATION, f"reservation {reservation}"),
            (len(tokens), MAX_TOKENS, "all users"),
        ):
            if count >= most:
                raise LimitExceededError(
                    f"there are {count} tokens of {whose}, which is the limit",
                    hint="end those that nobody uses: simenv gateway tokens revoke NUMBER NUMBER",
                )
        tokens[token.digest] = token
        return tokens

    def _is_of_job(self, info: TokenInfo) -> bool:
        """Return whether an admin made the reservation of a token for a batch job."""
        reservation = self._service.state.reservations.live.get(info.reservation)
        return reservation is not None and reservation.grant.ask.scope.startswith(JOB_SCOPE)

    def revoke(self, identity: Identity, asked: RevokeToken) -> Tokens:
        """Revoke a token at once. Raises NotFoundError, ConfigError if the file cannot be
        written: then it is accepted again by the next service."""
        token = self._numbered(identity, asked.number)
        self._remove(token, "was revoked", REVOKED_NOTICE)
        subject = f"{token.info.number} of {token.info.user or OWN_USER}"
        self._service.commands.audit.write(identity, "tokens.revoke", subject, "revoked")
        self._write(self._tokens)
        return self.listed(identity, GetTokens(asked.request))

    def listed(self, identity: Identity, asked: GetTokens) -> Tokens:
        """Return the tokens of the sender, or all for an admin."""
        used = self._used_s
        infos = [each.info for each in self._visible(identity)]
        infos = [
            msgspec.structs.replace(info, used_s=used.get(info.number, info.used_s))
            for info in infos
        ]
        return Tokens(asked.request, sorted(infos, key=lambda info: info.at_s))

    def _numbered(self, identity: Identity, number: str) -> StoredToken:
        """Return a token that the sender may see. Raises NotFoundError."""
        for token in self._visible(identity):
            if token.info.number == number:
                return token
        hint = "simenv gateway tokens list"
        raise NotFoundError(f"no token with the number {number[:16]!r}", hint=hint)

    def _visible(self, identity: Identity) -> list[StoredToken]:
        now_s = time.time()
        return [
            token
            for token in self._tokens.values()
            if not self._is_over(token, now_s) and token.digest not in self._spent
            if (identity.role is Role.ADMIN or identity.owner == token.info.user)
        ]

    def exchange(self, identity: Identity, asked: ExchangeToken) -> TokenCertificate:
        """Issue or renew the certificate of a gateway for the user of a token. Raises
        KeyRefusedError, KeyConflictError, ConfigError."""
        service, now_s = self._service, time.time()
        token = self._tokens.get(digest_of(asked.secret))
        if token is None or self._is_over(token, now_s) or token.digest in self._spent:
            hint = "make a new one: simenv gateway tokens add"
            raise KeyRefusedError("the token is not known, was revoked or has expired", hint=hint)
        info = token.info
        owner = self._owner(token, identity.owner or OWN_GATEWAY)
        left_s = info.expires_s - now_s
        lifetime_s = min(left_s, service.config.identity.lifetime_s)
        if self.server is None:
            if info.user:
                raise KeyRefusedError(_NO_GATEWAY, hint=_WITH_GATEWAY)
            address, server_key = "", ""
        else:
            address, server_key = self.server.address, self.server.public_key
            self._certify(token, owner, asked.public_key)
        if token.once:
            self._spent.add(token.digest)
            self._write(self._tokens)
        self._used_s[info.number] = now_s
        service.accounting.owners.admit(info.user, owner.role)
        info = msgspec.structs.replace(info, role=owner.role.value)
        certificate = info, address, server_key, lifetime_s, token.once
        return TokenCertificate(asked.request, *certificate)

    def _certify(self, token: StoredToken, owner: Identity, public_key: str) -> None:
        """Accept a public key for the user of a token, until `tick` withdraws it."""
        commands, holding = self._service.commands.keys, (token.info.number, owner.via)
        if holding not in self._holders:
            self._last_holder += 1
            self._holders[holding] = self._last_holder
        holder = self._holders[holding]
        known = self._table.users.get(holder)
        if known is not None and known.identity != owner:
            self._withdraw(holder, "has another role now")
            known = None
        is_renewal = known is not None and public_key in known.ends_s
        if not is_renewal and commands.holder(public_key) is not None:
            raise KeyConflictError("this public key is in use", hint="make a new pair")
        member = UserAccount(holder, owner.owner)
        for former in self._table.issue(member, owner, public_key, time.monotonic()):
            commands.withdraw(former)
        if not is_renewal:
            commands.certify(public_key, owner)
        if known is None:
            text = f"role {owner.role}, by the token {token.info.number} through {owner.via}"
            self._record("admitted", owner.owner, text)

    # --- membership ------------------------------------------------------------------------------

    def _role(self, user: str) -> Role | None:
        """Return the present role of a user without regard to tokens; None for one who is not
        known."""
        if not user:
            return Role.ADMIN
        service, settings = self._service, self._service.config.identity
        now_s = time.time()
        roles = {
            key.role
            for key in service.commands.keys.keys
            if key.name == user and not key_list.has_expired(key, now_s)
        }
        if settings.has_users and self._is_of(user, settings.admins):
            roles.add(Role.ADMIN)
        listed = settings.has_users and self._is_of(user, settings.users)
        if listed or service.accounting.accounts.tree.accounts_of(user):
            roles.add(Role.CLIENT)
        return next((role for role in (Role.ADMIN, Role.CLIENT) if role in roles), None)

    def _is_of(self, user: str, names: tuple[str, ...]) -> bool:
        known = self._members.known
        return user in names or any(
            user in known.get(name.removeprefix(GROUP), ()) for name in names if name[:1] == GROUP
        )

    def _owner(self, token: StoredToken, via: str) -> Identity:
        """Return owner and role of a certificate. Raises KeyRefusedError for a user who may not
        enter any more."""
        user, role = token.info.user, Role(token.info.role)
        membership = role if token.granted else self._role(user)
        if membership is None:
            raise self._no_member(user)
        if membership is Role.CLIENT:
            if role is Role.MONITOR:
                text = f"{user} may not read the metrics of all accounts any more"
                raise KeyRefusedError(text, hint="a token with the role monitor of an admin")
            role = Role.CLIENT
        return Identity(user, role, via, token.info.reservation)

    # --- ends ------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """End what is due; called every second or more often. `now_s`: monotonic."""
        if not self._is_due(now_s):
            return
        if self._groups and self._service.config.identity.has_users:
            self._members.poll(self._groups, time.monotonic_ns())
        wall_s = time.time()
        self._expire(wall_s)
        tokens = {token.info.number: token for token in self._tokens.values()}
        for (number, via), holder in list(self._holders.items()):
            if holder in self._table.users:
                self._review(tokens[number], via, holder)
            elif number not in tokens:  # else its holder, once stopped for long, asks again
                del self._holders[number, via]
        if self._used_s and wall_s - self._written_s > USED_S:
            with suppress(ConfigError):  # a full disk: the next commit of tokens has it
                self._write(self._tokens)

    def _expire(self, wall_s: float) -> None:
        """Remove the tokens whose time, or whose reservation, is over, with their certificates."""
        for token in [each for each in self._tokens.values() if self._is_over(each, wall_s)]:
            self._remove(token, "expired", EXPIRED_NOTICE)

    def _is_over(self, token: StoredToken, wall_s: float) -> bool:
        info, live = token.info, self._service.state.reservations.live
        return info.expires_s <= wall_s or bool(info.reservation and info.reservation not in live)

    def _review(self, token: StoredToken, via: str, holder: int) -> None:
        """Withdraw the certificates of a token whose user, or whose gateway, has no rights any
        more."""
        try:
            owner = self._owner(token, via)
        except KeyRefusedError as error:
            self._withdraw(holder, "is no user any more", refusal_notice(error.message, error.hint))
            return
        if owner != self._table.users[holder].identity:
            self._withdraw(holder, "has another role now")
        elif not self._is_gateway(via):
            self._withdraw(holder, f"came through {via}, whose key is not accepted")

    def _is_gateway(self, via: str) -> bool:
        now_s = time.time()
        return via == OWN_GATEWAY or any(
            key.name == via and not key_list.has_expired(key, now_s)
            for key in self._service.commands.keys.keys
        )

    def key_revoked(self, name: str) -> None:
        """End the tokens of the owner of a revoked key, and what it got as a gateway."""
        for token in [each for each in self._tokens.values() if each.info.user == name]:
            self._remove(token, "ended with the key of its user", REVOKED_NOTICE)
        for (_, via), holder in self._holders.items():
            if via == name and holder in self._table.users:
                self._withdraw(holder, f"came through {name}, whose key was revoked")
        self._write(self._tokens)

    def _remove(self, token: StoredToken, reason: str, notice: bytes) -> None:
        """Remove a token, and those that end with it."""
        if self._tokens.pop(token.digest, None) is None:
            return
        for each in [e for e in self._tokens.values() if e.info.parent == token.info.number]:
            self._remove(each, reason, notice)
        self._secrets.pop(token.digest, None)
        self._spent.discard(token.digest)
        for (number, _), holder in self._holders.items():
            if number == token.info.number and holder in self._table.users:
                self._withdraw(holder, f"has a token that {reason}", notice)

    # --- the file --------------------------------------------------------------------------------

    def _write(self, tokens: Mapping[str, StoredToken]) -> None:
        """Replace the file, then the table. A shorter list is also written on a full disk. Raises
        ConfigError."""
        used = self._used_s
        kept = {
            digest: msgspec.structs.replace(
                each,
                info=msgspec.structs.replace(
                    each.info, used_s=used.get(each.info.number, each.info.used_s)
                ),
            )
            for digest, each in tokens.items()
        }
        stored = [each for digest, each in kept.items() if digest not in self._spent]
        with keyfiles.changing(self._path, LOCK_PATIENCE_S):
            keyfiles.write_list(self._path, TokensFile(KEYS_FORMAT, stored))
        self._tokens = kept
        self._written_s = time.time()
        self._used_s.clear()
