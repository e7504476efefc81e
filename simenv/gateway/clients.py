"""Clients of the service: the gateway's own, and one for each token that users present.

A presented token is exchanged for a certificate, with which a client is connected as the user of
the token. Invariants: a token that the service does not confirm any more is refused CHECK_S later
at the latest, and its client at once; clients, their threads and their waiting calls are bounded,
and the client that was used last for longest is closed.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from simenv.client.client import Client
from simenv.client.connection import address
from simenv.client.connection.broker import TRIES, CertificateAddress, ConnectionCertificate
from simenv.client.submission.compiler import compiler_sandbox
from simenv.errors import KeyRefusedError, QueueFullError, SimenvError
from simenv.gateway.context import Caller
from simenv.gateway.limits import locked_s
from simenv.gateway.request_process import request_sandbox
from simenv.sandbox.function_process import SandboxProcess
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages.base import A, ClientRequest
from simenv.wire.messages.credentials import ExchangeToken, TokenCertificate, TokenInfo

COMPILERS = 8  # processes that compile, of as many users
MAX_CLIENTS = 256  # of presented tokens
MAX_IDLE_S, IDLE_CHECK_S = 3_600.0, 60.0  # a client without a request for so long is closed
THREADS_OF_ONE = 4
MAX_WAITING = 256  # calls of one token that no thread runs yet
ADMITTING_THREADS = 8
CHECK_S = 5.0  # age at which the service confirms a token again
REFUSED_S = 2.0  # in which a refused token is not asked for again
MAX_REFUSED = 1_000
EXCHANGE_S = 10.0  # longest wait for the service
SECRET_CHARS = (40, 100)

T = TypeVar("T")


class TokenAddress(CertificateAddress):
    """The address of a service that accepts a token."""

    def __init__(self, observer: Client, secret: str) -> None:
        super().__init__()
        self.name, self.path = observer.name, Path(observer.service)
        self._observer = observer
        self._secret = secret

    def _request(self, public_key: str, tries: int = TRIES) -> TokenCertificate:  # noqa: ARG002
        return self._observer.session.request(
            ExchangeToken(0, self._secret, public_key), EXCHANGE_S
        )

    def certificate_for(self, public_key: str) -> TokenCertificate:
        """Get a certificate for a public key, whose secret key another process has. Raises
        KeyRefusedError if the token has ended, SimenvError."""
        return self._request(public_key)

    def check(self) -> TokenInfo:
        """Renew the certificate, and return the token as it is now. Raises KeyRefusedError if it
        has ended, SimenvError."""
        # The environment's own user has no connection with a certificate.
        certificate = self._certificate = self._request(self._public_key or new_pair().public)
        return certificate.token

    def diagnose(self) -> tuple[str, str]:
        return f"the service of {self.name!r} does not answer", "see: simenv status"


class Entry:
    """A client, and the threads that run its calls. Used from the event loop's thread."""

    def __init__(self, caller: Caller, client: Client, endpoint: TokenAddress) -> None:
        self.caller = caller
        self.client = client
        self.endpoint = endpoint
        self.checked_s = self.used_s = time.monotonic()
        self.calls = 0
        self._threads = ThreadPoolExecutor(THREADS_OF_ONE, f"simenv-{caller.token}")

    async def call(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads. Raises QueueFullError if too many wait."""
        self._count()
        try:
            return await self._in_thread(function)
        finally:
            self.calls -= 1

    async def ask(self, message: ClientRequest[A]) -> A:
        """Return the answer to one request. Raises QueueFullError if too many calls wait."""
        self._count()
        try:
            reader = self.client.session.loop_reader
            return await reader.request(message, self._in_thread)
        finally:
            self.calls -= 1

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _count(self) -> None:
        if self.calls >= THREADS_OF_ONE + MAX_WAITING:
            raise QueueFullError(
                f"{self.calls} requests of this token are under way, which is the limit",
                hint="wait for some of them",
            )
        self.calls += 1

    def close(self) -> None:
        """Close the client; its calls fail. Does not wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.client.close()


class UserSandboxes:
    """Processes with bounds of memory and time: one a user, at most `most`; the one that was used
    last for longest ends for the next user. Thread-safe."""

    def __init__(self, most: int, make: Callable[[], SandboxProcess]) -> None:
        self._most = max(1, most)
        self._make = make
        self._lock = threading.Lock()
        self._sandboxes: OrderedDict[str, SandboxProcess] = OrderedDict()

    def of(self, user: str) -> SandboxProcess:
        """Return the process of a user."""
        with self._lock:
            sandbox = self._sandboxes.setdefault(user, self._make())  # starts with its first work
            self._sandboxes.move_to_end(user)
            ended = None
            if len(self._sandboxes) > self._most:
                _, ended = self._sandboxes.popitem(last=False)
        if ended is not None:  # once it has done what it does
            threading.Thread(target=ended.close, name="simenv-end-sandbox").start()
        return sandbox

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            sandboxes, self._sandboxes = self._sandboxes, OrderedDict()
        for sandbox in sandboxes.values():
            sandbox.close()


class ClientPool:
    """Clients by token. Used from the event loop's thread."""

    def __init__(
        self, observer: Client, own: address.Address | None, compilers: int = COMPILERS,
        results: Path | None = None,
    ) -> None:  # fmt: skip
        """`observer`: the gateway's own client. `own`: the address of the environment's own user;
        None: the gateway does not run as that user. `compilers`: most processes that compile for
        users at once. `results`: the folder of result files, from which downloads are read; None:
        the gateway cannot read it."""
        self.observer = observer
        self._compilers = UserSandboxes(compilers, compiler_sandbox)
        self.sandboxes = UserSandboxes(compilers, request_sandbox)
        self._own, self._results = own, results
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # by digest of the token
        self._digests: dict[str, str] = {}  # by number of the token
        self._refused: OrderedDict[str, tuple[float, SimenvError]] = OrderedDict()
        self._pending: dict[str, asyncio.Task[Entry]] = {}
        self._admitting = ThreadPoolExecutor(ADMITTING_THREADS, "simenv-admit")

    async def caller(self, secret: str) -> Caller:
        """Return who has this token. Raises KeyRefusedError for one that is not valid, SimenvError
        if the service does not answer."""
        _check_form(secret)
        digest, now_s = hashlib.sha256(secret.encode()).hexdigest(), time.monotonic()
        entry = self._entries.get(digest)
        if entry is not None:
            entry.used_s = now_s
            if now_s - entry.checked_s < CHECK_S:
                self._entries.move_to_end(digest)
                return entry.caller
        refused_s, error = self._refused.get(digest, (-REFUSED_S, None))
        if error is not None and now_s - refused_s < REFUSED_S:
            raise type(error)(error.message, hint=error.hint)
        if entry is None:
            _check_locked()
        task = self._pending.get(digest)
        if task is None:
            task = asyncio.create_task(self._admit(digest, secret))
            self._pending[digest] = task
            task.add_done_callback(lambda _: self._pending.pop(digest, None))
        return (await asyncio.shield(task)).caller

    async def _admit(self, digest: str, secret: str) -> Entry:
        run = partial(asyncio.get_running_loop().run_in_executor, self._admitting)
        entry = self._entries.get(digest)
        try:
            if entry is not None:
                info = await run(entry.endpoint.check)
                entry.checked_s = time.monotonic()
                if info.role != entry.caller.role:  # the client has the rights of the former one
                    self.drop(info.number)
                    entry = None
            if entry is None:
                entry = self._entries[digest] = Entry(*await run(self.open, secret))
                self._digests[entry.caller.token] = digest
        except KeyRefusedError as error:
            self._refused[digest] = (time.monotonic(), error)
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)
            if entry is not None:
                self.drop(entry.caller.token)
            raise
        self._entries.move_to_end(digest)
        while len(self._entries) > MAX_CLIENTS:
            self.drop(next(iter(self._entries.values())).caller.token)
        return entry

    def open(self, secret: str, *, once: bool = False) -> tuple[Caller, Client, TokenAddress]:
        """Exchange a token and connect as its user. `once`: whether it is that of a link; a link is
        no bearer token, and a bearer token is no link, which would make others that outlive it.
        Blocks. Raises KeyRefusedError, SimenvError."""
        endpoint = TokenAddress(self.observer, secret)
        certificate: ConnectionCertificate = endpoint.prepare()
        assert isinstance(certificate, TokenCertificate)
        if certificate.once is not once:
            text = "a link needs a token that is good for one use, and a request one that is not"
            raise KeyRefusedError(text, hint="simenv web prints a link")
        info = certificate.token
        reserved = info.reservation, info.pool
        caller = Caller(info.user, info.account, info.role, info.number, *reserved)
        if certificate.address:
            return caller, self._confined(Client(endpoint), caller), endpoint
        if self._own is None:
            text = "this gateway cannot act for the environment's own user"
            raise KeyRefusedError(text, hint="simenv up --gateway HOST:PORT starts one that can")
        own = address.FileAddress(self._own.path)
        client = Client(own, as_client=not caller.is_admin)
        return caller, self._confined(client, caller), endpoint

    def _confined(self, client: Client, caller: Caller) -> Client:
        """Return the client, which compiles in a process of its user: no circuit holds up the
        gateway. It reads result files where they are: a copy would take disk for as long as
        somebody does not read a download."""
        client.session.results_of_gateway = self._results
        client.submit_devices.compile_in(partial(self._compilers.of, caller.user))
        return client

    def entry(self, caller: Caller) -> Entry:
        """Return the entry of a caller, which counts as its use. Raises KeyRefusedError if it was
        closed."""
        digest = self._digests.get(caller.token, "")
        entry = self._entries.get(digest)
        if entry is not None:
            self._entries.move_to_end(digest)
            entry.used_s = time.monotonic()
            return entry
        raise KeyRefusedError("the token has ended meanwhile", hint="send the request again")

    def drop(self, token: str) -> None:
        """Close the client of a token, by its number."""
        entry = self._entries.pop(self._digests.pop(token, ""), None)
        if entry is not None:
            self._admitting.submit(entry.close)

    async def once(self, secret: str, function: Callable[[Client, Caller], T]) -> T:
        """Exchange a one-time token, run a function with the client, and close it. Raises
        SimenvError."""

        _check_form(secret)
        _check_locked()

        def run() -> T:
            caller, client, _ = self.open(secret, once=True)
            with client:
                return function(client, caller)

        return await asyncio.get_running_loop().run_in_executor(self._admitting, run)

    async def close_idle(self) -> None:
        """Close clients that nobody uses, for ever."""
        while True:
            await asyncio.sleep(IDLE_CHECK_S)
            idle_s = time.monotonic() - MAX_IDLE_S
            for entry in list(self._entries.values()):
                if entry.used_s < idle_s and not entry.calls:
                    self.drop(entry.caller.token)

    def close(self) -> None:
        """Close all clients."""
        for token in list(self._digests):
            self.drop(token)
        self._admitting.shutdown()
        self._compilers.close()
        self.sandboxes.close()
        self.observer.close()


def _check_form(secret: str) -> None:
    """Check that a text may be a token. Raises KeyRefusedError."""
    if not SECRET_CHARS[0] <= len(secret) <= SECRET_CHARS[1]:
        raise KeyRefusedError("the token is not known", hint="simenv gateway tokens add")


def _check_locked() -> None:
    """Check that unknown credentials of this request's address are still looked up. Raises
    QueueFullError."""
    wait_s = locked_s.get()
    if wait_s:
        text = "too many unknown credentials came from this address"
        raise QueueFullError(text, retry_after_s=wait_s)
