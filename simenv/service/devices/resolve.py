"""Device, noise and snapshot of a submit, and stored noise documents.

Resolution of the device, noise and snapshot of a Submit, before it is accepted and journaled. Used
from the loop's thread. Invariant: accepted options with noise name a document in the store.

Noise documents of accepted tasks: content-addressed, journaled, bounded for each owner. Invariant:
a document that an unfinished task names is never removed. Used from the loop's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from simenv.errors import LimitExceededError, OptionError
from simenv.model import DeviceInfo, NoiseFactors, PoolSpec, TaskOptions
from simenv.model.calls import is_pulse_call
from simenv.model.devices import MACHINE_DIGITS, MACHINE_PREFIX
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.devices.registry import DeviceRegistry, EmulatedDevice
from simenv.service.journal import tables, writer
from simenv.text import size

if TYPE_CHECKING:
    from simenv.service.devices.context import DeviceContext
    from simenv.service.devices.drifting import DriftingDevice, DriftingDevices


class Documents(Protocol):
    """A store of noise documents, by their digest in hexadecimal; see `NoiseDocuments`."""

    def __contains__(self, digest: str) -> bool: ...
    def body(self, digest: str) -> bytes: ...
    def matching(self, start: str) -> str: ...
    def add(self, digest: str, body: bytes, owner: str = "") -> None: ...


MAX_CONTEXTS = 256
EMULATORS = ("emulator", "emulated")  # kinds of devices in `prefer`
FLOAT_NS = 500  # a time of 2026 in seconds, as float, may be 120 ns before its nanoseconds


class DocumentPending(Exception):
    """A document is being read in another thread: repeat the call when `future` is done."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future


class EmulatedDevices:
    """Emulated devices for admission: the device registry and the store of noise documents."""

    def __init__(
        self, pools: tuple[PoolSpec, ...], registry: DeviceRegistry, documents: Documents
    ) -> None:
        self.registry = registry
        self.documents = documents
        self._by_pool = {pool.name: pool.device for pool in pools if pool.device}
        self._contexts: dict[tuple[object, ...], DeviceContext] = {}
        self.drifting: DriftingDevices | None = None

    def resolved(self, terms: TaskOptions) -> TaskOptions:
        """Return the options with the device of their pool, canonical noise options, and the digest
        of the noise document, which is then in the store. Raises OptionError, NotFoundError,
        LimitExceededError, DocumentPending."""
        if terms.prefer and terms.device:
            hint = "a device leaves no choice of devices"
            raise OptionError(f"prefer cannot be combined with device {terms.device!r}", hint=hint)
        device = self._device_of(terms)
        if not device and not terms.snapshot:
            if terms.noise:
                hint = "device='NAME'; simenv devices lists them"
                raise OptionError("noise without a device", hint=hint)
            return terms
        if "gradient" in terms.outputs:
            hint = "shift each parameter and ask for expectation values"
            raise OptionError("a gradient was asked of a circuit with noise", hint=hint)
        for output in ("statevector", "amplitudes"):
            if output in terms.outputs:
                raise OptionError(
                    f"the output {output!r} was asked of a circuit with noise: its state is mixed",
                    hint="ask for counts, probabilities or expectation values",
                )
        drifting = None if self.drifting is None else self.drifting.of(terms.pool)
        if drifting is None:
            result = self._emulated(device) if device else None
        elif terms.snapshot:
            text = f"a noise model of your own in pool {terms.pool!r}, whose device drifts"
            raise OptionError(text, hint="a pool whose device does not drift, or none")
        else:
            result = _accepted(drifting)
        digest = terms.snapshot
        if result is not None and digest in ("", result.digest):
            digest = result.digest
            self.documents.add(digest, result.body, "")
        elif digest not in self.documents:
            hint = "the client stores it before it submits"
            raise OptionError(f"there is no noise document {digest[:16]!r} here", hint=hint)
        return msgspec.structs.replace(
            terms, device=device, noise=self._canonical(terms), snapshot=digest, pool=terms.pool
        )

    def context(self, terms: TaskOptions) -> DeviceContext | None:
        """Return the checks of programs with these resolved options; None without noise. Raises
        OptionError, DocumentPending."""
        if not terms.snapshot:
            return None
        is_optional = not terms.noise and any(map(self._is_ideal, terms.prefer))
        key = terms.device, terms.snapshot, terms.noise, is_optional
        context = self._contexts.get(key)
        if context is None:
            from simenv.service.devices.context import DeviceContext

            source = _done(
                self.registry.document(terms.snapshot, self.documents.body(terms.snapshot))
            )
            _check_kind(terms, source)
            info = self._limits_of(terms, source)
            is_optional = is_optional and source.info is not None  # a custom noise model must act
            context = DeviceContext(info, source, terms, is_optional=is_optional)
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            self._contexts[key] = context
        return context

    def _canonical(self, terms: TaskOptions) -> NoiseFactors:
        """Return the factors of noise in canonical form. That of noise "on" is (), which a
        preference for an ideal pool may leave out: there it stays as it was requested."""
        from simenv.service.devices import noise_api

        # Canonical factors lack those of 1, which are of a device of the other kind all the same.
        if is_pulse_call(terms):
            noise_api.check_atoms(terms.noise)
        else:
            noise_api.check_gates(terms.noise, terms.device)
        result = noise_api.canonical_noise(terms.noise)
        return result or (terms.noise if any(map(self._is_ideal, terms.prefer)) else result)

    def _limits_of(self, terms: TaskOptions, source: EmulatedDevice) -> DeviceInfo | None:
        """Return the device that programs must fit, by its snapshot if that is a calibration; None
        without a device."""
        if not terms.device:
            return None
        if source.info is not None:
            return msgspec.structs.replace(source.info, name=terms.device)
        return self._emulated(terms.device).info

    def _device_of(self, terms: TaskOptions) -> str:
        """Return the device of the options, or that of their pool. Raises OptionError if they
        differ."""
        if terms.prefer and not terms.device:
            return self._preferred(terms.prefer)
        device = self._by_pool.get(terms.pool, "")
        if device and terms.device not in ("", device, terms.pool):
            text = f"pool {terms.pool!r} holds device {device!r}, not {terms.device[:64]!r}"
            raise OptionError(text, hint="leave out one of pool and device")
        return device or terms.device

    def _preferred(self, preferences: tuple[str, ...]) -> str:
        """Return the device of the first pool that matches a preference; "" if none does."""
        for preference in preferences:
            for pool, device in self._by_pool.items():
                if preference == pool or preference in EMULATORS:
                    return device
        return ""

    def _is_ideal(self, name: str) -> bool:
        """Return whether a preference can match a device that is not emulated."""
        return name not in EMULATORS and name not in self._by_pool

    def problems(self) -> list[str]:
        """Return a text for each pool whose device cannot be read. Files are read in another
        thread: a later call has the text about a file that this call is the first to request."""
        results = []
        for pool, name in self._by_pool.items():
            drifting = None if self.drifting is None else self.drifting.all.get(pool)
            future: Future[Any] = self.registry.get(name) if drifting is None else drifting.built
            is_read = future.done() and not future.cancelled()
            if is_read and (error := future.exception()) is not None:
                results.append(f"pool {pool} runs nothing: {getattr(error, 'message', error)}")
        return results

    def info(self, name: str) -> DeviceInfo:
        """Return the description of a device with its present calibration. Raises NotFoundError,
        OptionError, DocumentPending."""
        result = self.calibrated(name).info
        assert result is not None  # the registry and drifts contain devices only
        return result

    def dates(self, name: str) -> Future[list[float]]:
        """Return the times of the stored calibrations of a device or pool, in seconds since 1970.
        Raises OptionError, DocumentPending."""
        drifting = None if self.drifting is None else self.drifting.of(name)
        if drifting is None:
            return self.registry.dates(self._by_pool.get(name, name))
        result: Future[list[float]] = Future()
        _published(drifting)  # raises DocumentPending while it is read
        result.set_result(drifting.dates_s(time.time_ns()))
        return result

    def dated(self, name: str, at_s: float) -> DeviceInfo:
        """Return the description of a device with the calibration of one of its `dates`. Raises
        NotFoundError, OptionError, DocumentPending."""
        drifting = None if self.drifting is None else self.drifting.of(name)
        if drifting is None:
            result = _done(self.registry.dated(self._by_pool.get(name, name), at_s)).info
        else:
            result = _published(drifting, round(at_s * 1e9) + FLOAT_NS).info
        assert result is not None  # the registry and drifts contain devices only
        return result

    def recorded(self, name: str, calibration_id: str) -> Future[EmulatedDevice]:
        """Return a device, or that of a pool, with the stored calibration that has this id: see
        `DeviceRegistry.recorded`; a stored document has one, its own."""
        digest = self._stored(name)
        if digest and digest == calibration_id:
            return self.registry.document(digest, self.documents.body(digest))
        return self.registry.recorded(self._by_pool.get(name, name), calibration_id)

    def calibrated(self, name: str) -> EmulatedDevice:
        """Return a device with its present calibration. Raises the errors of `info`."""
        drifting = None if self.drifting is None else self.drifting.of(name)
        if drifting is not None:
            return _published(drifting)
        return self._emulated(self._by_pool.get(name, name))

    def _emulated(self, name: str) -> EmulatedDevice:
        """Return a device of the registry, or the stored document that a name gives the digest of.
        Raises NotFoundError, OptionError, DocumentPending."""
        digest = self._stored(name)
        if digest:
            result = _done(self.registry.document(digest, self.documents.body(digest)))
            if result.info is not None:
                info = msgspec.structs.replace(result.info, name=name)
                return msgspec.structs.replace(result, info=info)
        return _done(self.registry.get(name))

    def _stored(self, name: str) -> str:
        """Return the digest of the document that a name gives the first digits of; "": none."""
        start = name.removeprefix(MACHINE_PREFIX)
        is_stored = start != name and len(start) == MACHINE_DIGITS
        return self.documents.matching(start) if is_stored else ""


def _accepted(device: DriftingDevice) -> EmulatedDevice:
    """Return the first snapshot, with which all tasks are accepted. The snapshot at the start of a
    task replaces it, so that the documents that waiting tasks name do not multiply. Raises
    DocumentPending."""
    if not device.is_ready:
        raise DocumentPending(device.built)
    return device.first()


def _published(device: DriftingDevice, wall_ns: int = 0) -> EmulatedDevice:
    """Return the calibration that was published at a time; 0: the present one."""
    if not device.is_ready:
        raise DocumentPending(device.built)
    return device.published(wall_ns or time.time_ns())


def _done(future: Future[EmulatedDevice]) -> EmulatedDevice:
    if not future.done():
        raise DocumentPending(future)
    return future.result()


def _check_kind(terms: TaskOptions, source: EmulatedDevice) -> None:
    """Raise OptionError for a circuit on a device that runs pulse sequences, and for a sequence on
    another device."""
    name = terms.device or "of the noise"
    is_analog = source.info is not None and source.info.analog is not None
    is_pulses = is_pulse_call(terms)
    if is_analog and not is_pulses:
        hint = "a pulser.Sequence; or a device of gates: simenv devices"
        raise OptionError(f"device {name[:64]!r} runs pulse sequences, no circuits", hint=hint)
    if is_pulses and not is_analog:
        hint = "a device of neutral atoms, such as neutral-atoms-analog: simenv devices"
        raise OptionError(f"device {name[:64]!r} runs circuits, no pulse sequences", hint=hint)


MAX_DOCUMENTS = 64  # of one owner
MAX_OWNER_BYTES = 64 * 2**20
MAX_DOCUMENT_BYTES = 16 * 2**20


def named_documents(state: SchedulerState) -> set[str]:
    """Digests of the documents that unfinished tasks name."""
    return {record.batch.terms.snapshot for record in state.tasks.values()}


class NoiseDocuments:
    """Store of noise documents, by their digest in hexadecimal."""

    def __init__(self, journal: writer.Journal, in_use: Callable[[], set[str]]) -> None:
        """`in_use`: returns the digests that unfinished tasks name."""
        self._journal = journal
        self._in_use = in_use
        self._rows = {row.digest: row for row in tables.read_documents(journal.records)}

    def __contains__(self, digest: str) -> bool:
        return digest in self._rows

    def body(self, digest: str) -> bytes:
        """Return a document; b"" if it is not stored."""
        row = self._rows.get(digest)
        return b"" if row is None else row.body

    def matching(self, start: str) -> str:
        """Return the digest of a stored document by its first digits; "": there is none."""
        return next((digest for digest in self._rows if digest.startswith(start)), "")

    def add(self, digest: str, body: bytes, owner: str = "") -> None:
        """Store a document with the next commit. Raises LimitExceededError if the document is too
        large, or if unfinished tasks name too many documents of the owner."""
        if digest in self._rows:
            return
        if len(body) > MAX_DOCUMENT_BYTES:
            raise LimitExceededError(
                f"a noise document of {size(len(body))}; {size(MAX_DOCUMENT_BYTES)} are the limit"
            )
        self._evict(owner, len(body))
        row = tables.StoredDocument(digest, owner, time.time(), body)
        self._rows[digest] = row
        self._journal.put([tables.NOISE.put(*msgspec.structs.astuple(row))], forced=True)

    def _evict(self, owner: str, size_bytes: int) -> None:
        """Remove the owner's oldest documents that no unfinished task names."""
        own_rows = [row for row in self._rows.values() if row.owner == owner]
        held_bytes = sum(len(row.body) for row in own_rows)
        used: set[str] | None = None
        for row in own_rows:
            if len(own_rows) < MAX_DOCUMENTS and held_bytes + size_bytes <= MAX_OWNER_BYTES:
                return
            used = self._in_use() if used is None else used
            if row.digest not in used:
                own_rows = [each for each in own_rows if each is not row]
                held_bytes -= len(row.body)
                del self._rows[row.digest]
                self._journal.put([tables.NOISE.remove(row.digest)], forced=False)
        if len(own_rows) >= MAX_DOCUMENTS or held_bytes + size_bytes > MAX_OWNER_BYTES:
            raise LimitExceededError(
                f"{len(own_rows)} noise documents with {size(held_bytes)} are in use; the limits"
                f" are {MAX_DOCUMENTS} and {size(MAX_OWNER_BYTES)}",
                hint="wait for tasks to end, or use fewer noise models",
            )


MAX_SENT = 256  # documents that one worker holds
SENT_BYTES = 64 * 2**20  # of them; those of one chunk are held whatever their size


class SentDocuments:
    """Digests of the documents that each start of a worker has received, so that each document is
    sent once."""

    def __init__(self) -> None:
        # By worker: its start, and the bytes of each document by its digest.
        self._sent: dict[str, tuple[int, dict[str, int]]] = {}

    def missing(
        self, worker: str, start: int, needed: Iterable[str], size_of: Callable[[str], int]
    ) -> tuple[list[str], bool]:
        """Return the documents to send before a chunk that needs these, which are recorded as sent,
        and whether the worker must drop all others first. `size_of`: bytes of a document."""
        sent_start, sent = self._sent.get(worker, (start, {}))
        if sent_start != start:
            sent = {}
        needed_digests = dict.fromkeys(needed)
        new = {digest: size_of(digest) for digest in needed_digests if digest not in sent}
        total = sum(sent.values()) + sum(new.values())
        alone = bool(sent and new) and (len(sent) + len(new) > MAX_SENT or total > SENT_BYTES)
        if alone:
            sent, new = {}, {digest: size_of(digest) for digest in needed_digests}
        sent.update(new)
        self._sent[worker] = (start, sent)
        return list(new), alone
