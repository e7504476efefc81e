"""Connection to the service that all threads of a client share, and its liveness.

The channel has no thread of its own. One of the waiting threads is the leader: it alone uses the
connection and dispatches the messages that arrive, until its own wait has ended (see
`leader_followers`). Other threads put their messages into the outbox and wake the leader, which
wakes a thread when what it waits for has come, and another one to lead when it leaves. A silent
service is pinged; one that has not answered for LOST_S is lost, or for the seconds given to
`Liveness.be_patient`. When the connection file names another address, or the epoch has changed, the
channel sends Hello again and calls `renew` of its owner, which repeats all open requests. An event
loop may read instead, while no thread leads: see `loop_reader`.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import msgspec

from simenv import errors
from simenv._version import __version__
from simenv.client.connection.address import Address
from simenv.client.connection.leader_followers import LeaderFollowers
from simenv.model.task_rules import checked_timeout
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.rights import CLIENT_ROUTE
from simenv.wire.transport.unix_streams import check_size
from simenv.wire.transport.zmq_transport import Connection, CurveConnection

REFRESH_S = 60.0  # interval in which a client that waits asks for the present standbys
QUIET_S = 1.0  # silence after which the service is pinged
POLL_S = 0.25  # interval in which a silent service's connection file is read again
LOST_S = 5.0
REOPEN_S = 10.0  # silence after which a connection over ZeroMQ is replaced: see `needs_reopening`
ROUTE_BYTES = 16  # of the random name of a connection, by which it gets its answers
STOPPED_S = 2.0  # a longer gap between two readings of the clock: this process was stopped


class Liveness:
    """Times of messages and pings, monotonic. Guarded by the lock of the channel."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._least_patience_s = 0.0  # 0: LOST_S
        self.reset()

    def reset(self) -> None:
        """Initialize the times; also called in a forked child. The patience stays."""
        self._last_message_s = self._pinged_s = self._looked_s = self._opened_s = monotonic()
        self._unanswered_s: float | None = None  # time of the first Ping since the last message

    def be_patient(self, least_s: float) -> None:
        """Set the silence after which a service that has answered is lost, in place of LOST_S."""
        self._least_patience_s = least_s

    @property
    def awaits_restart(self) -> bool:
        """Whether requests that a service refuses because it ends wait for the next one."""
        return self._least_patience_s > LOST_S

    @property
    def _patience_s(self) -> float:
        """Silence after which the service is lost: where there may be standbys, one of them is
        waited for."""
        return max(self._least_patience_s or LOST_S, self._address.patience_s)

    def message_came(self) -> None:
        """Record that a message has arrived."""
        self._last_message_s = monotonic()
        self._unanswered_s = None

    def is_quiet(self, now: float) -> bool:
        """Return whether no message has arrived for QUIET_S."""
        return now - self._last_message_s >= QUIET_S

    def is_final(self, now: float, start: float) -> bool:
        """Return whether a thread that waits since `start` must give up: silence for too long, or
        the service certainly refuses this client."""
        is_silent = now - max(self._last_message_s, start) >= self._patience_s
        return is_silent or self._address.refusal() is not None

    def opened(self) -> None:
        """Record that a new connection was opened."""
        self._opened_s = monotonic()

    def needs_reopening(self, now: float, connection: Connection | None) -> bool:
        """Return whether a new connection is to be opened; checked every POLL_S, else False.

        The service listens elsewhere now, or a connection through the network has brought no answer
        for REOPEN_S: libzmq connects no more after an answer that is not of ZeroMQ, such as the
        error page of a proxy, and what a proxy or a firewall has dropped looks established for
        minutes.
        """
        if now - self._looked_s < POLL_S:
            return False
        self._looked_s = now
        asked_s = self._unanswered_s  # an idle client has asked nothing
        is_silent = asked_s is not None and now - max(asked_s, self._opened_s) >= REOPEN_S
        return self._address.moved() or (is_silent and isinstance(connection, CurveConnection))

    def is_refresh_due(self, now: float) -> bool:
        """Return whether the service was not pinged for REFRESH_S, and record the time."""
        if now - self._pinged_s < REFRESH_S:
            return False
        self._pinged_s = now
        return True

    def is_ping_due(self, now: float) -> bool:
        """Return whether a Ping is due, one every QUIET_S, and record its time."""
        if now - self._pinged_s < QUIET_S:
            return False
        self._pinged_s = now
        if self._unanswered_s is None:
            self._unanswered_s = now
        return True

    def is_unanswered(self, now: float) -> bool:
        """Return whether a Ping has had no answer for too long, or the service certainly refuses
        this client; for callers that poll and never wait."""
        requested_s = self._unanswered_s
        is_silent = requested_s is not None and now - requested_s >= self._patience_s
        return is_silent or self._address.refusal() is not None

    def lost_error(self, name: str, was_connected: bool) -> errors.SimenvError:
        """Return the error to raise for a lost service; `was_connected`: it has answered before."""
        refusal = self._address.refusal()
        if refusal is not None:
            return refusal
        reason, hint = self._address.diagnose()
        if not was_connected:
            return errors.NoServiceError(f"no service answers for {name!r}: {reason}", hint=hint)
        silent_s = monotonic() - self._last_message_s
        return errors.ServiceLostError(
            f"service {name!r} has not answered for {silent_s:.1f} s: {reason}",
            hint=hint,
            last_seen_s=silent_s,
        )


Handler = Callable[[Any], None]


class ChannelOwner(Protocol):
    """The state behind a channel, guarded by its lock."""

    def handlers(self) -> Mapping[type, Handler]:
        """Return what receives messages, by their class. It is called with the lock held."""

    def renew(self) -> None:
        """Repeat all open requests. Called with the lock held."""

    def reset(self) -> None:
        """Drop all state of the parent, in a forked child."""

    def unread(self) -> None:
        """Read, if something is awaited: no thread does any more. Called with the lock held."""


class ServiceIdentity(msgspec.Struct):
    """What the service has said of itself."""

    name: str
    epoch: int = 0  # 0: it has not answered yet
    results: Path | None = None  # the results folder, if the service is on this node
    standbys: tuple[str, ...] = ()  # addresses that it has named last
    newest_completion: int = -1  # at the first Welcome; -1: unknown


class ServiceChannel:
    """Connection to one service. `lock` guards it and all state of its owner. `changed`: for
    threads that wait for something else than messages."""

    lock: threading.RLock
    changed: threading.Condition

    _owner: ChannelOwner
    _handlers: dict[type, Handler]

    def __init__(self, address: Address, *, as_client: bool = False) -> None:
        """`as_client`: use the rights of the role client, whatever role the key has."""
        self._route = CLIENT_ROUTE.decode() if as_client else "~"
        self.address = address
        self.liveness = Liveness(address)
        self.closed = False
        # Closes the socket of a client that is collected without `close`: a socket that is
        # collected with its context would block for ever. Not at the interpreter exit, where other
        # threads may still be reading.
        self._sockets: list[Connection] = []
        weakref.finalize(self, _close, self._sockets).atexit = False
        self.is_forked = False  # in a forked child before its reconnect; see `enter`
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.service = ServiceIdentity(self.address.name)
        self._connection: Connection | None = None
        self._threads = LeaderFollowers()
        self._outbox: deque[bytes] = deque()
        self._broken: errors.SimenvError | None = None
        self._renewing = False
        self.liveness.reset()

    def attach(self, owner: ChannelOwner) -> None:
        """Set the owner of the state behind this channel, before `start`."""
        self._owner = owner
        self._handlers = {
            **owner.handlers(),
            m.Welcome: self._welcome,
            m.Pong: self._pong,
        }
        _CHANNELS.add(self)

    def start(self, timeout_s: float = LOST_S) -> None:
        """Connect to the service. Raises NoServiceError, KeyRefusedError, VersionMismatchError."""
        try:
            with self.lock:
                self._connect()
            self._await_welcome(timeout_s)
        except BaseException:  # also an interrupt: the socket is closed
            if self._connection is not None:
                self._connection.close()
            raise

    def _await_welcome(self, timeout_s: float) -> None:
        """Wait for the Welcome in slices, so that time in which this process was stopped counts as
        one slice at most, and on a busy machine each one as the share of a processor that is left
        for the service."""
        left_s = timeout_s
        while not self.wait(lambda: self.service.epoch != 0, min(left_s, QUIET_S)):
            from simenv.sandbox.progress import cpu_share  # here: most clients need no slice

            left_s -= QUIET_S * cpu_share()
            if left_s <= 0:
                raise self.liveness.lost_error(self.service.name, was_connected=False)

    def enter(self) -> None:
        """Reconnect in a forked child. Every public method of a session calls it first."""
        if self.is_forked:
            with self.lock:
                if self.is_forked:
                    self.start()
                    self.is_forked = False

    def send(self, message: m.FromClient) -> bytes:
        """Send a message; return its encoded bytes for `resend`. The caller holds the lock."""
        body = codec.encode(message)
        self.resend(body)
        return body

    def resend(self, body: bytes) -> None:
        """Send an encoded message, directly or through the outbox. The caller holds the lock."""
        connection = self._open()
        check_size(body, connection.message_bytes)  # raises here, not in the thread that sends it
        if self._threads.leader in (None, threading.get_ident()):
            connection.send(body)
        else:
            self._outbox.append(body)
            connection.wake()

    def unsend(self, body: bytes) -> bool:
        """Drop an encoded message from the outbox; return whether it was still there."""
        with self.lock:
            try:
                self._outbox.remove(body)
            except ValueError:
                return False
            return True

    def wait(
        self,
        done: Callable[[], bool],
        timeout_s: float | None = None,
        repeat: Callable[[float], None] | None = None,
    ) -> bool:
        """Wait until `done()` is True; return False after `timeout_s`.

        `repeat` is called with the time (monotonic) before every receive, with the lock held; it
        may send requests again. Raises ServiceLostError after LOST_S of silence, NoServiceError
        when the client is closed.
        """
        timeout_s = checked_timeout(timeout_s)
        me = threading.get_ident()
        start = before = monotonic()
        end = math.inf if timeout_s is None else start + timeout_s
        try:
            while True:
                with self.lock:
                    if done():
                        return True
                    connection = self._open()
                    now = monotonic()
                    if now - before > STOPPED_S:
                        start = now
                    before = now
                    leading = self._threads.lead(me)
                    if now >= end:
                        break
                    if repeat is not None:
                        repeat(now)
                    limit = QUIET_S
                    if self.liveness.is_quiet(now):
                        limit = POLL_S
                        connection = self._check_liveness(now, start, leading)
                    if end - now < limit:
                        limit = end - now
                    if not leading:
                        turn = self._threads.follow(me, done)
                    else:
                        if self.liveness.is_refresh_due(now):
                            self.send(m.Ping(0))
                        if self._outbox:
                            self._flush()
                if not leading:
                    turn.acquire(timeout=limit)
                elif self._receive(connection, limit) and done():
                    return True
            while leading and not done() and self._receive(connection, 0.0):
                pass
            with self.lock:
                return done()
        finally:
            self._resign(me)

    def poll(self, *, strict: bool = False) -> None:
        """Handle messages that have arrived, unless another thread is reading; never waits. A
        silent service is looked for and pinged, as in `wait`. `strict`: raise ServiceLostError if
        it has not answered a Ping for LOST_S."""
        me = threading.get_ident()
        with self.lock:
            connection = self._open()
            leading = self._threads.lead(me)
        try:
            while leading and self._receive(connection, 0.0):
                pass
            with self.lock:
                now = monotonic()
                if self.liveness.is_quiet(now):
                    if leading:
                        self._check_address(now)
                    if strict and self.liveness.is_unanswered(now):
                        raise self._lost_error()
        finally:
            self._resign(me)

    def lead(self) -> Connection | None:
        """Make the calling thread the leader, who calls `read_all` then; None if another thread is.
        The caller holds the lock. Raises NoServiceError if the channel is closed."""
        connection = self._open()
        return connection if self._threads.lead(threading.get_ident()) else None

    def read_all(self, connection: Connection) -> None:
        """Handle messages that have arrived, and stop leading; never waits for more."""
        try:
            while self._receive(connection, 0.0):
                pass
        finally:
            self._resign(threading.get_ident())

    def close(self) -> None:
        """Close the connection; threads that wait get NoServiceError. Idempotent."""
        if self.is_forked:
            self.closed = True
            return
        with self.lock:
            self.closed = True
            if self._connection is None:
                return
            me = threading.get_ident()
            self._connection.wake()
            self.notify()
            self.changed.wait_for(lambda: self._threads.leader in (None, me), LOST_S)
            self._connection.close()
            self._connection = None

    def _resign(self, me: int) -> None:
        """End the wait of a thread; if nobody leads now, one of the others does."""
        with self.lock:
            threads = self._threads
            if threads.leave(me):
                if threads.has_followers or self.closed:
                    self._flush()
                if self.closed:
                    self.changed.notify_all()
            if threads.leader is None:
                if threads.has_followers:
                    threads.wake_next()
                else:
                    self._owner.unread()

    def notify(self) -> None:
        """Let all threads that wait look again. The caller holds the lock."""
        self._threads.wake_all()
        self.changed.notify_all()

    def _flush(self) -> None:
        """Send what other threads have put into the outbox, as far as the connection takes it."""
        with suppress(errors.NoServiceError):
            while self._outbox and self._connection is not None:
                self._connection.send(self._outbox[0])
                self._outbox.popleft()

    def _receive(self, connection: Connection, limit_s: float) -> bool:
        """Receive and dispatch one message; False if none came. The lock must not be held."""
        body = connection.receive(limit_s)
        if body is None:
            return False
        message = codec.to_client(body)
        with self.lock:
            self.liveness.message_came()
            self._handlers[type(message)](message)
            self._threads.wake_done()
        return True

    def _open(self) -> Connection:
        if self._broken is not None:
            raise self._broken
        if self.closed or self._connection is None:
            raise errors.NoServiceError("this client is closed", hint="connect again")
        return self._connection

    def _lost_error(self) -> errors.SimenvError:
        return self.liveness.lost_error(self.service.name, self.service.epoch != 0)

    def _check_liveness(self, now: float, start: float, leading: bool) -> Connection:
        """Look for a silent service and ping it; return the present connection. Raises
        ServiceLostError or NoServiceError if the silence is final."""
        if self.liveness.is_final(now, start):
            raise self._lost_error()
        if leading:
            self._check_address(now)
        return self._open()

    def _check_address(self, now: float) -> None:
        if self.liveness.needs_reopening(now, self._connection):
            self._reopen()
        if self.liveness.is_ping_due(now):
            self.send(m.Ping(0))

    def _reopen(self) -> None:
        with suppress(errors.NoServiceError):  # it has ended again; the next look retries
            self._connect()

    def _connect(self) -> None:
        """Open a connection under a name of its own, in place of the present one: from one with the
        name of another that the service has not seen to end, libzmq reads nothing there, not even
        its end. Raises NoServiceError."""
        self.client = self._route + os.urandom(ROUTE_BYTES).hex()  # "~" begins no key of a user
        connection, former = self.address.open(self.client.encode()), self._connection
        if former is not None:
            former.close()
        self._connection = connection
        self._sockets[:] = [connection]
        self.liveness.opened()
        self._hello()

    def _hello(self) -> None:
        self._renewing = self.service.epoch != 0
        self.send(m.Hello(m.PROTOCOL, __version__, self.client))

    def _welcome(self, message: m.Welcome) -> None:
        service = self.service
        renew = self._renewing or service.epoch not in (0, message.epoch)
        if not service.epoch:
            service.newest_completion = message.newest_completion
        service.epoch, service.name, self._renewing = message.epoch, message.name, False
        if self._connection is not None:
            self._connection.message_bytes = message.message_bytes
        self._learn(message.standbys)
        is_local = message.results and message.node == os.uname().nodename
        service.results = Path(message.results) if is_local else None
        if renew:
            self._owner.renew()

    def _learn(self, standbys: tuple[str, ...]) -> None:
        self.service.standbys = standbys
        self.address.learn(standbys)

    def _pong(self, message: m.Pong) -> None:
        self._learn(message.standbys)
        if self.service.epoch and message.epoch != self.service.epoch:
            self._hello()

    def refused(self, error: errors.SimenvError) -> None:
        """Raise a refusal that belongs to no request. A VersionMismatchError or KeyRefusedError is
        raised by all later calls too."""
        if isinstance(error, errors.VersionMismatchError | errors.KeyRefusedError):
            self._broken = error
        raise error

    def after_fork(self) -> None:
        """Drop the parent's socket and lock in a forked child, before anything else. Nothing is
        sent or waited for here; `enter` reconnects when it is needed."""
        connection = self._connection
        self._reset()
        if connection is not None:
            connection.close()
        self._owner.reset()
        self.is_forked = not self.closed


def _close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()


_CHANNELS: weakref.WeakSet[ServiceChannel] = weakref.WeakSet()


def _after_fork() -> None:
    for channel in list(_CHANNELS):
        channel.after_fork()


os.register_at_fork(after_in_child=_after_fork)
