"""Files with keys: of the environment, its users and its workers.

Invariants: a file with a secret is created with mode 0600, and is not read if another user could
have read it; each file has a format number. If the disk is full, a shorter list of keys overwrites
the old one in place. A written file is on the disk, with its name, before the writer continues; a
writer of the key list holds its lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import zmq

from simenv import files
from simenv.errors import DECODE_ERRORS, ConfigError
from simenv.wire.messages import credentials

KEYS_FORMAT = 1
MAX_FILE_BYTES = 2**20
LOCK_POLL_S = 0.005  # between two attempts to take a lock that another process holds
TOKEN = ".token"  # name of the file in the results folder that contains `WorkerBootstrap.token`
_FULL = (errno.ENOSPC, errno.EDQUOT)

T = TypeVar("T", bound=msgspec.Struct)


class KeyPair(msgspec.Struct, frozen=True):
    """Public and secret key, in ZeroMQ's base 85."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public}, secret)"


class ServerFile(msgspec.Struct, frozen=True):
    """Contents of `server-key.json`: the environment's own keys, and the address at which it
    listened last ("": never)."""

    format: int
    public_key: str
    secret_key: str
    address: str = ""
    own_public: str = ""  # the pair of its own user, who reads it in the connection file
    own_secret: str = ""

    @property
    def keys(self) -> KeyPair:
        return KeyPair(self.public_key, self.secret_key)

    def __repr__(self) -> str:
        return f"ServerFile({self.public_key}, {self.address})"


class KeysFile(msgspec.Struct, frozen=True):
    """Contents of `keys.json`: the accepted keys."""

    format: int
    keys: list[credentials.KeyInfo]


class UserKeyFile(msgspec.Struct, frozen=True):
    """Connection file of one user: the address and public key of the environment, and the user's
    own key pair."""

    format: int
    name: str  # of the environment
    address: str
    server_key: str
    owner: str
    role: str
    public_key: str
    secret_key: str
    standbys: tuple[str, ...] = ()  # addresses to try when the environment is silent
    gateway: str = ""  # URL of the gateway, which serves the web page; "": there was none

    @property
    def keys(self) -> KeyPair:
        return KeyPair(self.public_key, self.secret_key)

    def __repr__(self) -> str:
        return f"UserKeyFile({self.name}, {self.address}, {self.owner}, {self.role})"


class WorkerBootstrap(msgspec.Struct, frozen=True):
    """Contents of `worker.json`, in the environment's home: address and keys of one start of the
    service for its workers."""

    format: int
    node: str  # of the service
    sockets: str  # folder of worker.sock there
    token: str  # also in a file of the results folder
    address: str = ""  # for workers of other nodes: tcp://HOST:PORT; "": there are none
    server_key: str = ""  # public key of this start of the service, in ZeroMQ's base 85
    public_key: str = ""  # of one start of a worker, which reads them from a file of its own
    secret_key: str = ""
    epoch: int = 0  # of the service's start
    # Folder of worker.sock of the agent that relays heartbeats, and its key; "": there is none.
    agent_sockets: str = ""
    agent_key: str = ""

    @property
    def keys(self) -> KeyPair:
        return KeyPair(self.public_key, self.secret_key)

    @property
    def control(self) -> WorkerBootstrap:
        """The same for the control connection of a worker, which may lead to the agent."""
        if not self.agent_sockets:
            return self
        own = {"sockets": self.agent_sockets, "server_key": self.agent_key, "address": ""}
        return msgspec.structs.replace(self, node=os.uname().nodename, **own)

    def __repr__(self) -> str:
        return f"WorkerBootstrap({self.node}, {self.sockets}, {self.address})"


class WorkerKey(msgspec.Struct, frozen=True):
    """The key pair of one start of a worker on another node, in a folder next to `worker.json`.
    The workers' endpoint alone accepts it, and only until that worker has ended."""

    format: int
    worker: str
    start: int
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"WorkerKey({self.worker}, {self.start}, {self.public_key})"


def new_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def server_file(path: Path) -> ServerFile:
    """Read the environment's own keys; the first call creates them. Raises ConfigError."""
    if not path.exists():
        pair = new_pair()
        write_private(path, ServerFile(KEYS_FORMAT, pair.public, pair.secret))
    return _read_own(path, ServerFile)


def read_keys(path: Path) -> list[credentials.KeyInfo]:
    """Read the list of accepted keys; it is empty if there is no such file. Raises ConfigError."""
    return _read_own(path, KeysFile).keys if path.exists() else []


def _read_own(path: Path, kind: type[T]) -> T:
    """Read a file of the environment, which can be made anew. Raises ConfigError."""
    try:
        return read_private(path, kind)
    except ConfigError as error:
        anew = "copy it from a backup; or move it away: new keys are made, and users need new files"
        raise ConfigError(error.message, hint=error.hint or anew) from error


def write_keys(path: Path, keys: list[credentials.KeyInfo]) -> None:
    """Write the list of accepted keys. Raises like `write_list`."""
    write_list(path, KeysFile(KEYS_FORMAT, keys))


def write_list(path: Path, content: msgspec.Struct) -> None:
    """Write a file of keys or tokens. A shorter list is also written on a full disk, so that one
    can be revoked. Raises ConfigError."""
    try:
        write_private(path, content)
    except ConfigError as error:
        cause = error.__cause__
        is_full = isinstance(cause, OSError) and cause.errno in _FULL
        if not (is_full and _overwrite_in_place(path, content)):
            raise


def worker_keys_folder(service: Path) -> Path:
    """Folder of the workers' keys, next to the service's `worker.json`."""
    return service.with_name("worker-keys")


def worker_key_path(service: Path, worker: str, start: int) -> Path:
    """Path of the file with the key pair of one start of a worker."""
    return worker_keys_folder(service) / f"{worker}.{start}.json"


def read_bootstrap(path: Path, worker: str = "", start: int = 0) -> WorkerBootstrap:
    """Read the service's `worker.json`, with the key pair of that start of a worker if there is
    one. Raises ConfigError if the file is missing or other users can open it."""
    bootstrap = read_private(path, WorkerBootstrap)
    own = worker_key_path(path, worker, start)
    if not (worker and bootstrap.address and own.exists()):
        return bootstrap
    key = read_private(own, WorkerKey)
    return msgspec.structs.replace(bootstrap, public_key=key.public_key, secret_key=key.secret_key)


@contextlib.contextmanager
def changing(path: Path, timeout_s: float = math.inf) -> Iterator[None]:
    """Hold the lock of a list of keys for one change: to read the list and to replace it. The lock
    is a file of its own, because the list itself is replaced. Raises ConfigError if the lock file
    cannot be created, or if another process has held the lock for `timeout_s`."""
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, lock, timeout_s)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"cannot lock {lock}: {error.strerror}") from error


def _lock(descriptor: int, path: Path, timeout_s: float) -> None:
    if math.isinf(timeout_s):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline_s:
                text = f"another process has held {path} for {timeout_s} s"
                hint = "end that process (`fuser` names it), or try again"
                raise ConfigError(text, hint=hint) from error
            time.sleep(LOCK_POLL_S)
        else:
            return


# --- files ---------------------------------------------------------------------------------------


def write_private(path: Path, content: msgspec.Struct) -> None:
    """Replace the file atomically and durably, with mode 0600. Raises ConfigError."""
    try:
        files.write_atomic(path, _encoded(content), sync=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other processes from replacing a file that exists, as long as they ask here. Raises
    OSError."""
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def _overwrite_in_place(path: Path, content: msgspec.Struct) -> bool:
    """Overwrite an existing file in place, padded to its length, which needs no space on the disk.
    Returns False if that fails. A crash during the write leaves a file that cannot be decoded: then
    no key is accepted."""
    body = msgspec.json.encode(content)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if len(body) > size_bytes:
                return False
            full = os.pwrite(descriptor, body.ljust(size_bytes), 0) == size_bytes
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return full


def create_private(path: Path, content: msgspec.Struct) -> None:
    """Create a file of mode 0600. If that fails, raises ConfigError and leaves no file."""
    try:
        files.create_private(path, _encoded(content))
    except OSError as error:
        hint = "take another name, or remove it" if path.exists() else ""
        raise ConfigError(f"cannot make {path}: {error.strerror}", hint=hint) from error


def _encoded(content: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content)) + b"\n"


def read_private(path: Path, kind: type[T]) -> T:
    """Read a private file. Raises ConfigError if other users can open it, or if its content or its
    format number is another one."""
    try:
        with path.open("rb") as source:
            check_private(path, os.fstat(source.fileno()))
            body = source.read(MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    try:
        result = msgspec.json.decode(body, type=kind)
    except DECODE_ERRORS as error:
        raise ConfigError(f"{path} has unexpected content: {error}") from error
    format_number = getattr(result, "format", 0)
    if format_number != KEYS_FORMAT:
        text = f"{path} has format {format_number}, this build reads {KEYS_FORMAT}"
        raise ConfigError(text, hint="use the simenv version that wrote it")
    return result


def check_private(path: Path, info: os.stat_result) -> None:
    """Check that a file is private. Raises ConfigError if another user owns or can open it."""
    if info.st_uid != os.getuid():
        raise ConfigError(f"{path} belongs to another user, and is not believed")
    if info.st_mode & 0o077:
        raise ConfigError(
            f"{path} holds a secret key and can be opened by others "
            f"(mode {stat.S_IMODE(info.st_mode):04o})",
            hint=f"chmod 600 {path}; if others may have read it: simenv keys revoke, and a new key",
        )
