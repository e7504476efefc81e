"""Key pairs of workers that connect over TCP, one for each start of a worker.

The pair is in a file of mode 0600 that the worker reads; its public half is in the key table of
the workers' endpoint. Invariant: a key is accepted from before its worker is started until that
start has ended, and its messages count as those of that worker only.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from simenv import files
from simenv.errors import NotAllowedError
from simenv.wire import codec
from simenv.wire.auth import Identity, Role
from simenv.wire.keyfiles import KEYS_FORMAT, create_private, new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import DeviceDescribed
from simenv.wire.transport import worker_endpoint
from simenv.wire.transport.tcp_listener import TcpListener
from simenv.wire.transport.worker_endpoint import WorkerKey

REVOKED_NOTICE = codec.encode(m.StopWorker("this start of the worker has ended"))


class WorkerKeys:
    """Keys of the workers on other nodes. Used from the loop's thread."""

    def __init__(self, service: Path, listener: TcpListener | None) -> None:
        """`service`: the path of `worker.json`; the keys are in a folder next to it, from which
        those of an earlier service are removed. `listener`: the workers' listener; None if all
        workers are on the service's node: then there are no keys. Raises ConfigError."""
        self._service = service
        self._listener = listener
        self._public: dict[tuple[str, int], str] = {}
        self.remove_all()
        if listener is not None:
            files.private_folder(worker_endpoint.keys_folder(service))

    def make(self, worker: str, start: int) -> None:
        """Create and accept the key of a start of a worker, before that start. Raises
        ConfigError."""
        if self._listener is None:
            return
        pair = new_pair()
        path = worker_endpoint.key_path(self._service, worker, start)
        path.unlink(missing_ok=True)
        create_private(path, WorkerKey(KEYS_FORMAT, worker, start, pair.public, pair.secret))
        self._public[worker, start] = pair.public
        self._listener.admit_key(pair.public, Identity(worker, Role.WORKER))

    def remove(self, worker: str, start: int) -> None:
        """Revoke the key of a start of a worker, which has ended or failed."""
        public = self._public.pop((worker, start), None)
        if public is not None and self._listener is not None:
            self._listener.revoke_key(public, REVOKED_NOTICE)
            with suppress(OSError):
                worker_endpoint.key_path(self._service, worker, start).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove all key files; called when the service starts and ends."""
        shutil.rmtree(worker_endpoint.keys_folder(self._service), ignore_errors=True)


def check_worker(identity: Identity, message: m.FromWorker) -> None:
    """Check the worker that a message names. Raises NotAllowedError if it is not the worker of the
    key. Messages without a name belong to the worker that has joined through their socket."""
    if not isinstance(message, m.Join | m.Heartbeat | DeviceDescribed):
        return
    if identity.owner not in ("", message.name):
        raise NotAllowedError(
            f"{type(message).__name__} of worker {message.name!r:.80} came with the key of "
            f"{identity.owner!r}",
            hint="each start of a worker has a key of its own",
        )
