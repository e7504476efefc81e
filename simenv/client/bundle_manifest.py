"""Manifest of a bundle: the description of its task. Pure.

A rerun needs the manifest, the program and the bindings. Invariant: a task read back is the task
that was written: terms, seed, shots, numbers of bindings.
"""

from __future__ import annotations

import array

import msgspec

from simenv.errors import DECODE_ERRORS, ProgramError, VersionMismatchError
from simenv.model import Chain, EngineOptions, Observable, TaskOptions, TaskSpec
from simenv.wire.messages.history import LogRow, Submitted

FORMAT = 1


class ReadableObservable(msgspec.Struct, frozen=True):
    """An observable in readable form."""

    labels: tuple[str, ...]
    coefficients: tuple[float, ...]


class BundleFailure(msgspec.Struct, frozen=True):
    """Reason why there was no result."""

    code: str
    reason: str
    message: str
    hint: str
    host: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Content of `bundle.json`."""

    format: int
    task: str
    name: str
    state: str
    failure: BundleFailure | None
    shots: int  # 0: exact
    seed: int
    outputs: tuple[str, ...]
    observables: tuple[ReadableObservable, ...]
    engine: str
    route: str
    precision: str
    pool: str
    priority: int
    queue_timeout_s: float
    run_timeout_s: float
    bindings: int  # rows of bindings.npy
    binding: int  # number of the first one in its sweep: part of the random key
    submitted_s: float
    attempts: int
    worker: str
    node: str
    slots: int
    versions: dict[str, str]
    lost: tuple[str, ...]  # reasons why earlier attempts ended
    options: EngineOptions = ()  # options of the engine
    chain: Chain | None = None  # chain rule of a gradient
    ranks: int = 0

    @property
    def terms(self) -> TaskOptions:
        """The terms of the task without the pool, which changes no result and may have another name
        elsewhere."""
        observables = tuple(
            Observable(each.labels, array.array("d", each.coefficients).tobytes())
            for each in self.observables
        )
        values = {name: getattr(self, name) for name in _TERMS if name != "pool"}
        return TaskOptions(**values, observables=observables, ranks=self.ranks)

    def spec(self, program: bytes, bindings: bytes) -> TaskSpec:
        """Return the task's specification; `bindings`: float64 [rows, slots], as bytes."""
        return TaskSpec(
            program=program, shots=self.shots, seed=self.seed, bindings=bindings,
            binding=self.binding, count=self.bindings,
        )  # fmt: skip


# Options that the manifest has as they are.
_TERMS = (
    *("outputs", "engine", "precision", "pool", "priority", "queue_timeout_s", "run_timeout_s"),
    *("name", "options", "chain"),
)


def manifest(
    submitted: Submitted,
    row: LogRow,
    task: str,
    failure: BundleFailure | None,
    versions: dict[str, str],
    lost: tuple[str, ...],
) -> Manifest:
    """Return the manifest of an ended task. `task`: its id as the user gave it, which may be one
    binding's."""
    terms, spec = submitted.terms, submitted.spec
    return Manifest(
        format=FORMAT, task=task, **{name: getattr(terms, name) for name in _TERMS},
        state=str(row.state), failure=failure, shots=spec.shots, seed=spec.seed,
        observables=tuple(_readable(each) for each in terms.observables), route=submitted.route,
        bindings=spec.count, binding=spec.binding, submitted_s=submitted.at_s,
        attempts=row.attempts, worker=row.worker, node=row.node, slots=row.slots,
        versions=versions, lost=lost,
        ranks=terms.ranks if terms.chain or "gradient" in terms.outputs else 0,
    )  # fmt: skip


def one_row(submitted: Submitted, row: int) -> Submitted:
    """Return the same submission with one of its bindings."""
    spec = submitted.spec
    size = len(spec.bindings) // spec.count
    bindings = spec.bindings[row * size : (row + 1) * size]
    part = msgspec.structs.replace(spec, bindings=bindings, binding=spec.binding + row, count=1)
    return msgspec.structs.replace(submitted, spec=part)


def read(text: bytes, where: str) -> Manifest:
    """Parse a manifest. Raises ProgramError if it is invalid, VersionMismatchError for another
    format."""
    try:
        result = msgspec.json.decode(text, type=Manifest)
    except DECODE_ERRORS as error:
        raise ProgramError(f"{where}: bundle.json cannot be read: {error}") from error
    if result.format != FORMAT:
        raise VersionMismatchError(f"{where} has format {result.format}, this build reads {FORMAT}")
    return result


def _readable(observable: Observable) -> ReadableObservable:
    values = memoryview(observable.coefficients).cast("d").tolist()
    return ReadableObservable(observable.labels, tuple(values))
