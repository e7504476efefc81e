"""Users of the site without key files: their certificates, and the process of the broker.

A user whom the broker names gets the public key of a certificate accepted for a while, if the
configuration or an account has the user. Invariants: a public key belongs to one user for ever; a
user whose account or membership ends, or cannot be confirmed, has no accepted key and no open
connection OUT_S later; the certificates of a user are bounded. Nothing of them is stored: clients
ask again after a restart.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from simenv import config as configs, files
from simenv.config import Config, IdentitySettings
from simenv.errors import DECODE_ERRORS, ConfigError, KeyConflictError, KeyRefusedError, SimenvError
from simenv.sandbox.supervised import SupervisedProcess
from simenv.service.control.accepted_keys import refusal_notice
from simenv.service.journal import reader
from simenv.service.service import ServiceComponents
from simenv.service.workers.endpoints import resolved
from simenv.wire.keyfiles import ServerFile
from simenv.wire.messages import identity
from simenv.wire.messages.identity import Denial, UserAccount, UserCertificate, UserRequest
from simenv.wire.rights import LOCAL, Identity, Role
from simenv.wire.transport.sockets import open_socket

TICK_S = 5.0  # between two looks at ends and memberships
OWN_USER = "own user"  # of the environment, in events
CHECK_S = 15.0  # between two lookups of the accounts of users with certificates
NAMED_S = 60.0  # in which the account of a user for whom a batch system reserves is not read again
ANSWER_S = 3.0  # of the broker: it answers nothing about names of no account
STALE_S = 40.0  # a user whose account the broker has not confirmed for so long is out
OUT_S = 60.0  # more than any of these together with TICK_S
MAX_OF_USER = 256  # certificates; the one that was not renewed for longest goes
MAX_FORMER = 10_000  # former public keys whose users are remembered
CHECK_USERS = 500  # of one message
CHANNEL_BYTES = 2**17  # of a message of the broker
A_PASS = 32  # messages of the broker
LOOPBACK = "tcp://127.0.0.1:0"  # where the service listens for users of its host by default

log = logging.getLogger("simenv.service")


class CertificateHolder(msgspec.Struct, eq=False):
    """Certificates of one user. `ends_s`: by public key, in the order of their renewal."""

    identity: Identity
    member: UserAccount
    confirmed_s: float
    ends_s: dict[str, float] = {}


class CertificateTable:
    """Certificates of all users by uid. Pure: monotonic times come in, and the public keys that are
    no longer accepted go out."""

    def __init__(self, lifetime_s: float) -> None:
        self.users: dict[int, CertificateHolder] = {}
        self._lifetime_s = lifetime_s
        self._former: OrderedDict[str, int] = OrderedDict()  # users of former public keys

    def issue(
        self, member: UserAccount, owner: Identity, public_key: str, now_s: float
    ) -> list[str]:
        """Issue or renew a certificate. Returns former public keys. Raises KeyConflictError if the
        public key is, or was, another user's."""
        holders = (uid for uid, user in self.users.items() if public_key in user.ends_s)
        if next(holders, self._former.get(public_key, member.uid)) != member.uid:
            raise KeyConflictError("this public key is another user's", hint="make a new pair")
        user = self.users.get(member.uid)
        if user is None:
            user = self.users[member.uid] = CertificateHolder(owner, member, now_s)
        user.member, user.confirmed_s = member, now_s
        user.ends_s.pop(public_key, None)
        user.ends_s[public_key] = now_s + self._lifetime_s
        return self._remove(member.uid, list(user.ends_s)[:-MAX_OF_USER])

    def confirm(self, member: UserAccount, now_s: float) -> None:
        """Record the present account of a user."""
        user = self.users.get(member.uid)
        if user is not None:
            user.member, user.confirmed_s = member, now_s

    def expire(self, now_s: float) -> list[str]:
        """Remove the certificates that have ended. Returns their public keys."""
        ended = []
        for uid, user in list(self.users.items()):
            keys = [key for key, end_s in user.ends_s.items() if end_s <= now_s]
            ended += self._remove(uid, keys)
        return ended

    def withdraw(self, uid: int) -> list[str]:
        """Remove all certificates of a user. Returns their public keys."""
        return self._remove(uid, list(self.users[uid].ends_s))

    def _remove(self, uid: int, keys: list[str]) -> list[str]:
        user = self.users[uid]
        for key in keys:
            del user.ends_s[key]
            self._former[key] = uid
            if len(self._former) > MAX_FORMER:
                self._former.popitem(last=False)
        if not user.ends_s:
            del self.users[uid]
        return keys


class CertificateIssuer:
    """Certificates that a part of the service has issued, and the events about them."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._table = CertificateTable(service.config.identity.lifetime_s)
        self._ticked_s = 0.0

    def _is_due(self, now_s: float) -> bool:
        """Return whether TICK_S have passed; then withdraw what has expired."""
        if now_s - self._ticked_s < TICK_S:
            return False
        self._ticked_s = now_s
        before = {uid: holder.identity.owner for uid, holder in self._table.users.items()}
        for key in self._table.expire(now_s):
            self._service.commands.keys.withdraw(key)
        for uid, user in before.items():
            if uid not in self._table.users:
                self._record("expired", user, "its last certificate was not renewed")
        return True

    def _withdraw(self, uid: int, reason: str, notice: bytes = b"") -> None:
        """Withdraw all certificates of a holder. Without a `notice` clients ask for new ones."""
        user = self._table.users[uid].identity.owner
        for key in self._table.withdraw(uid):
            self._service.commands.keys.withdraw(key, notice)
        self._record("withdrawn", user, reason)

    def _record(self, kind: str, user: str, text: str) -> None:
        executor = self._service.executor
        executor.record_event(f"audit.identity.{kind}", user or OWN_USER, text, reader.AUDIT)


class BrokerProcess:
    """The sockets of the broker, and its process, which is started again when it has ended."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        """Bind the sockets. Raises ConfigError."""
        self.handle: Callable[[UserRequest | UserAccount], None] = lambda _: None
        self._name = config.name
        few = {
            key: value
            for key, value in environ.items()
            if key in ("PATH", "LANG", "SIMENV_MUNGE_SOCKET") or key.startswith("LC_")
        }
        module = "simenv.service.broker"
        self.child = SupervisedProcess("credential broker", module, few, self._inputs, log)
        self._unix: socket.socket | None = None
        self._tcp: socket.socket | None = None
        self._path: Path | None = None
        # Both ends stay open here, so that messages survive a restart of the broker.
        self._channel, self._inherited = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setblocking(False)
        try:
            if "munge" in config.identity.use:
                self._tcp = _tcp_listener(config.identity.listen)
            if "local" in config.identity.use:
                self._path = configs.broker_folder(environ) / f"{config.name}.sock"
                self._unix = _unix_listener(self._path)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._channel.fileno()

    def _inputs(self) -> tuple[list[str], list[int]]:
        listeners = [each.fileno() if each else -1 for each in (self._unix, self._tcp)]
        numbers = [self._inherited.fileno(), *listeners]
        return [self._name, *map(str, numbers)], [number for number in numbers if number >= 0]

    def keep(self) -> None:
        """Renew the time of the socket's file, so that no cleaner of temporary folders removes it,
        and bind it again if it was removed; start the process again if it has ended."""
        if self._path is not None:
            try:
                os.utime(self._path)  # perhaps of a later service of that name, which is as good
            except OSError:
                with suppress(ConfigError):
                    former, self._unix = self._unix, _unix_listener(self._path)
                    self.child.end()
                    if former is not None:
                        former.close()
        self.child.keep()

    def receive(self) -> None:
        """Pass messages of the process on to `handle`; never waits."""
        for _ in range(A_PASS):
            try:
                body = self._channel.recv(CHANNEL_BYTES)
            except OSError:
                return
            try:
                message = identity.from_broker(body)
            except DECODE_ERRORS as error:
                log.error("a message of the credential broker is dropped: %s", error)
            else:
                self.handle(message)

    def send(self, message: identity.UserAnswer | identity.CheckUsers) -> None:
        """Send a message to the process; dropped if it reads too slowly: it will be asked again."""
        with suppress(OSError):
            self._channel.send(identity.encode(message))

    def close(self) -> None:
        """End the process, and remove the socket's file."""
        if self._path is not None and self._unix is not None:
            with suppress(OSError):
                self._path.unlink()
        self.child.end()
        for each in (self._channel, self._inherited, self._unix, self._tcp):
            if each is not None:
                each.close()


def _unix_listener(path: Path) -> socket.socket:
    """Listen at a socket that all users may connect to, in place of one of an earlier service."""
    listener = socket.socket(socket.AF_UNIX)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        files.check_private(path.parent, "SIMENV_BROKERS")
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        temporary.chmod(0o666)
        listener.listen(socket.SOMAXCONN)
        temporary.rename(path)
    except OSError as error:
        listener.close()
        hint = "set SIMENV_BROKERS to a folder that all users may enter, also for the clients"
        raise ConfigError(
            f"cannot listen at {path}: {error.strerror or error}", hint=hint
        ) from error
    return listener


def _tcp_listener(listen: str) -> socket.socket:
    host, port = configs.listen_parts(listen, "identity.listen")
    return open_socket(resolved(host, "identity.listen"), port, setting="identity.listen")


class Identities(CertificateIssuer):
    """Decisions about users, whom the broker names. Used from the loop's thread."""

    def __init__(
        self,
        service: ServiceComponents,
        broker: BrokerProcess,
        server: ServerFile,
        end_reservations: Callable[[str, str], None],
    ) -> None:
        """`server`: where the service listens. `end_reservations`: ends those of an owner, for a
        reason."""
        super().__init__(service)
        self._broker = broker
        self._server = server
        self._end_reservations = end_reservations
        self._settings: IdentitySettings = service.config.identity
        self._owners: dict[int, str] = {}  # users who have entered, while they have work
        self._checked_s = 0.0
        # Users for whom a batch system reserves: when they were looked up, and their accounts.
        self._named: dict[str, tuple[float, UserAccount | None]] = {}
        broker.handle = self._handle
        service.commands.reservations.owner_refusal = self.refusal_of

    def _handle(self, message: UserRequest | UserAccount) -> None:
        now_s = time.monotonic()
        if isinstance(message, UserAccount):
            self._table.confirm(message, now_s)
            if message.user in self._named:
                self._named[message.user] = self._named[message.user][0], message
            self._review(message.uid)
            self._review_tasks(message)
            # One who is named by its tasks alone, after a start of the service, is in no table.
            owner = self._owners.get(message.uid, message.user)
            if owner and message.uid != os.geteuid():
                groups = message.groups if owner == message.user else ()
                self._service.accounting.accounts.confirm_groups(owner, groups)
            return
        reply: UserCertificate | Denial
        try:
            reply = self._issue(message, now_s)
        except SimenvError as error:
            reply = Denial(error.code, error.message, error.hint)
        self._broker.send(identity.UserAnswer(message.number, reply))

    def _issue(self, asked: UserRequest, now_s: float) -> UserCertificate:
        """Issue or renew a certificate. Raises KeyRefusedError, KeyConflictError."""
        service, public_key = self._service, asked.request.public_key
        member = UserAccount(asked.uid, asked.user, asked.groups)
        owner = self._identity(member)
        known = self._table.users.get(asked.uid)
        if known is not None and known.identity != owner:  # the role has changed
            self._withdraw(asked.uid, "has another role now")
            known = None
        is_renewal = known is not None and public_key in known.ends_s
        if not is_renewal and service.commands.keys.holder(public_key) is not None:
            raise KeyConflictError("this public key is in use", hint="make a new pair")
        for former in self._table.issue(member, owner, public_key, now_s):
            service.commands.keys.withdraw(former)
        if not is_renewal:
            service.commands.keys.certify(public_key, owner)
        service.accounting.owners.admit(owner.owner, owner.role)
        service.accounting.accounts.removed.note_identity(owner.owner, "")
        if owner.owner:
            self._owners[asked.uid] = owner.owner
            service.accounting.accounts.confirm_groups(owner.owner, asked.groups)
        if known is None:
            self._record("admitted", asked.user, f"role {owner.role}, from {asked.origin}")
        server, settings = self._server, self._settings
        return UserCertificate(
            identity.IDENTITY_FORMAT,
            service.config.name,
            asked.request.nonce,
            owner.owner,
            owner.role,
            server.address,
            server.public_key,
            settings.lifetime_s,
        )

    def _identity(self, member: UserAccount) -> Identity:
        """Return owner and role of a user. Raises KeyRefusedError for one who may not enter."""
        if member.uid == os.geteuid():
            return LOCAL
        user, settings = member.user, self._settings
        names = {user, *(f"@{group}" for group in member.groups)}
        if configs.USER_RULE.match(user):
            if not names.isdisjoint(settings.admins):
                return Identity(user, Role.ADMIN)
            accounts = self._service.state.shares.accounts.accounts.values()
            if not names.isdisjoint(settings.users) or any(
                not names.isdisjoint(account.users) for account in accounts
            ):
                return Identity(user, Role.CLIENT)
        if not user:
            raise KeyRefusedError(
                f"the broker's host names no account of uid {member.uid}, so it may not use the"
                f" environment {self._service.config.name!r}",
                hint="is it mapped in the broker's user namespace, and known to its name service?"
                f" getent passwd {member.uid}",
            )
        raise KeyRefusedError(
            f"{user} may not use the environment {self._service.config.name!r}",
            hint="ask its owner: users and groups are in its tables [identity] and [accounts]",
        )

    def refusal_of(self, name: str, now_s: float) -> str | None:
        """Return why a user may not enter, "" for one who may, and None until the broker has looked
        the user up. `now_s`: monotonic."""
        if name in self._service.commands.keys.names:
            return ""
        asked_s, member = self._named.get(name, (-math.inf, None))
        if now_s - asked_s > NAMED_S:
            self._named[name] = now_s, None
            self._broker.send(identity.CheckUsers([name]))
            return None
        if member is None:
            text = f"the host of the service has no account {name!r}"
            return text if now_s - asked_s > ANSWER_S else None
        try:
            self._identity(member)
        except KeyRefusedError as error:
            return error.message
        return ""

    def tick(self, now_s: float) -> None:
        """End what is due; called every second or more often. `now_s`: monotonic."""
        if not self._is_due(now_s):
            return
        self._broker.keep()
        for name, (asked_s, _) in list(self._named.items()):
            if now_s - asked_s > NAMED_S:
                del self._named[name]
        for uid, user in list(self._table.users.items()):
            if now_s - user.confirmed_s > STALE_S:
                self._withdraw(uid, "could not be looked up")
            else:
                self._review(uid)
        if now_s - self._checked_s >= CHECK_S:
            self._checked_s = now_s
            holders, state = self._table.users, self._service.state
            reserving = state.reserving_owners()
            self._owners = {
                uid: owner
                for uid, owner in self._owners.items()
                if uid in holders or owner in reserving or state.tasks.by_owner.of(owner)
            }
            entered, named = {*self._owners.values()}, set[str]()
            accounts = self._service.accounting.accounts
            if accounts.has_groups:  # of those, too, who entered before a restart
                working = {each.owner for each in state.tasks.by_association} | reserving
                named = {*filter(configs.USER_RULE.match, working - entered)}
            accounts.retain_groups(entered | named)
            uids = [*holders, *(uid for uid in self._owners if uid not in holders)]
            users: list[int | str] = [*uids, *sorted(named)]
            for begin in range(0, len(users), CHECK_USERS):
                self._broker.send(identity.CheckUsers(users[begin : begin + CHECK_USERS]))

    def _review(self, uid: int) -> None:
        """Withdraw the certificates of a user who may no longer enter, or has another role."""
        user = self._table.users.get(uid)
        if user is None:
            return
        try:
            owner = self._identity(user.member)
        except KeyRefusedError as error:
            notice = refusal_notice(f"{error.message} any more", error.hint)
            self._withdraw(uid, "is no user any more", notice)
            self._review_tasks(user.member)
            self._end_reservations(user.identity.owner, error.message)
        else:
            if owner != user.identity:
                self._withdraw(uid, "has another role or name now")

    def _review_tasks(self, member: UserAccount) -> None:
        """Note whether a user who has entered, and may have waiting tasks or reservations, may
        still enter."""
        owner, refusal = self._owners.get(member.uid, ""), ""
        try:
            identity_now = self._identity(member)
        except KeyRefusedError as error:
            refusal = f"{error.message} any more"
        else:
            refusal = "" if identity_now.owner == owner else f"{owner!r} has another name now"
        if owner:
            self._service.accounting.accounts.removed.note_identity(owner, refusal)
