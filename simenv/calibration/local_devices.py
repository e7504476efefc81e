"""Emulated devices in this process, for commands that run without a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import wait
from typing import TYPE_CHECKING, TypeVar

from simenv.config import devices_folder
from simenv.model import TaskOptions
from simenv.model.devices import DeviceInfo
from simenv.service.devices.registry import DeviceRegistry
from simenv.service.devices.resolve import DocumentPending, EmulatedDevices
from simenv.wire.messages.worker import NoiseDocument

if TYPE_CHECKING:
    from simenv.service.devices.context import DeviceContext

T = TypeVar("T")


class LocalDocuments:
    """Noise documents in memory, by their digest in hexadecimal."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._bodies

    def body(self, digest: str) -> bytes:
        """Body of a document; b"" if it is unknown."""
        return self._bodies.get(digest, b"")

    def add(self, digest: str, body: bytes, owner: str = "") -> None:  # noqa: ARG002 - one user
        """Store a document."""
        self._bodies[digest] = body


class LocalDevices:
    """A DeviceSource for submits, with the part of admission that resolves their options."""

    def __init__(self) -> None:
        self._registry = DeviceRegistry(devices_folder())
        self._documents = LocalDocuments()
        self._emulated = EmulatedDevices((), self._registry, self._documents)

    def device(self, name: str) -> DeviceInfo:
        """An emulated device. Raises NotFoundError, OptionError."""
        return _awaited(lambda: self._emulated.info(name))

    def devices(self) -> Mapping[str, DeviceInfo]:
        """Empty mapping: there are no pools."""
        return {}

    def store(self, document: bytes) -> str:
        """Store a noise document; return its digest in hexadecimal. Raises OptionError."""
        result = self._registry.check(document).result()
        self._documents.add(result.digest, result.body)
        return result.digest

    def resolved(self, terms: TaskOptions) -> tuple[TaskOptions, DeviceContext | None]:
        """Options with the digest of their noise document, and the limits that a circuit must meet.
        Raises OptionError, NotFoundError."""
        result = _awaited(lambda: self._emulated.resolved(terms))
        return result, _awaited(lambda: self._emulated.context(result))

    def document(self, terms: TaskOptions) -> NoiseDocument | None:
        """The noise document of resolved terms; None without noise."""
        if not terms.snapshot:
            return None
        return NoiseDocument(terms.snapshot, self._documents.body(terms.snapshot))


def _awaited(ask: Callable[[], T]) -> T:
    """Repeat the call until all files that it needs have been read."""
    while True:
        try:
            return ask()
        except DocumentPending as waiting:
            wait([waiting.future])
