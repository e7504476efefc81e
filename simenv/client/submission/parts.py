"""Circuits in parts: host code reads the outcomes of each part before it chooses the next one.

A part is a task that runs once, and whose worker keeps the state. The next part continues from that
state. Its task carries all parts before it, so any worker can run it: a worker without the state
runs the earlier parts again, with the same outcomes.
"""

from __future__ import annotations

from typing import Any, Unpack

import msgspec

from simenv.client.circuits import PackedCircuit, load
from simenv.client.circuits.joined_programs import joined, stores_bits
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import TaskHandle
from simenv.client.result import Result
from simenv.client.submission import options as submission_options
from simenv.client.submission.prepare import prepare_one, unbound
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task
from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.model import TaskParts
from simenv.model.options import PartOptions, PlacementOptions, ProgramOptions, SubmitOptions
from simenv.model.task import MAX_PARTS
from simenv.model.task_rules import checked_keep

KEEP_S = 60.0


_INHERITED = ProgramOptions.__optional_keys__ - {"after", "idempotency_key"}
_OF_ALL_PARTS = ("seed", "engine", "precision")  # fixed by the first part
_WITHOUT_PARTS = sorted(PlacementOptions.__optional_keys__)


class PartSequence(msgspec.Struct, frozen=True):
    """Consecutive parts of a circuit, from the first."""

    circuit: PackedCircuit  # all parts
    ends: tuple[int, ...]  # see `TaskParts`
    outcomes: tuple[bytes, ...]  # see `TaskParts`
    seed: int
    keep_s: float
    options: PartOptions


class PartTask(Task):
    """A submitted part of a circuit: a Task whose state later parts and circuits continue from. All
    tasks of the parts have the same seed. `submit`, `run` and `submit_part` may be called any
    number of times; each call continues from the same state."""

    __slots__ = ("_parts",)

    def __init__(self, handle: TaskHandle, parts: PartSequence) -> None:
        super().__init__(handle)
        self._parts = parts

    @property
    def measured(self) -> dict[str, str]:
        """Bits of each classical register after this part, bit 0 rightmost; waits for the part.
        Bits that no part has written are 0. Classical bits outside registers have the name "".
        Raises like `result`."""
        result = self.result()
        if not self._parts.circuit.measures:
            return {name: "0" * size for name, size in self._parts.circuit.program.registers}
        values = result.memory_strings()[0].split(" ")
        names = [name for name, _ in result.registers]
        return dict(zip(names, reversed(values), strict=True))

    def submit_part(
        self, circuit: Any, *, keep_s: float | None = None, **options: Unpack[PartOptions]
    ) -> PartTask:
        """Submit the next part, which continues from the state of this one; see
        `Client.submit_part`. Options that are not given are inherited from this part. Waits for the
        end of this part."""
        _refuse(options, _OF_ALL_PARTS)
        parts = self._parts
        part_options: PartOptions = {**_inherited(parts.options), **options}  # type: ignore[typeddict-item]
        sequence = msgspec.structs.replace(
            parts,
            circuit=_joined(parts.circuit, circuit),
            outcomes=self._outcomes(),
            keep_s=parts.keep_s if keep_s is None else checked_keep(keep_s),
            options=part_options,
        )
        return _send_part(self.session, sequence, self.result().worker)

    def submit(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Task:
        """Submit a circuit that continues from the state of this part; options as in
        `Client.submit`, without those of devices and noise.

        The circuit has the same qubits. It may have free parameters (`parameter_values`) and any
        outputs: counts of `shots` from that state, exact expectation values, the statevector. Its
        result has the registers of all parts. Waits for the end of this part.

        Raises like `Client.submit`, and like `result` if this part failed.
        """
        _refuse(options, (*_OF_ALL_PARTS, *_WITHOUT_PARTS))
        parts = self._parts
        run_options: SubmitOptions = {**_inherited(parts.options), **options}  # type: ignore[typeddict-item]
        terms = TaskParts(parts.ends, parts.keep_s, self._outcomes(), self.result().worker)
        return _send(self.session, _joined(parts.circuit, circuit), run_options, parts.seed, terms)

    def run(self, circuit: Any, **options: Unpack[SubmitOptions]) -> Result:
        """Submit a circuit with `submit` and wait for its result."""
        return self.submit(circuit, **options).result()

    def _outcomes(self) -> tuple[bytes, ...]:
        """Wait for this part; return the clbits after each part."""
        result = self.result()
        outcome_bits = result.memory.tobytes() if self._parts.circuit.measures else b""
        return (*self._parts.outcomes, outcome_bits)


def submit_part(
    session: ServiceSession, circuit: Any, keep_s: float, options: PartOptions
) -> PartTask:
    """Submit the first part of a circuit; see `Client.submit_part`."""
    seed = submission_options.checked_seed(options.get("seed"), options.get("idempotency_key"))
    parts = PartSequence(load(circuit), (), (), seed, checked_keep(keep_s), options)
    return _send_part(session, parts, "")


def _send_part(session: Any, parts: PartSequence, worker: str) -> PartTask:
    """Submit the parts of the circuit, whose last part is new."""
    submission_options.check_names(parts.options, PartOptions)
    if parts.circuit.parameters:
        hint = "bind them: circuit.assign_parameters(values); a part has no free parameters"
        raise ProgramError(unbound(parts.circuit), hint=hint)
    program = parts.circuit.program
    ends = (*parts.ends, len(program.ops) // 2)
    if len(ends) > MAX_PARTS:
        raise LimitExceededError(f"{len(ends)} parts of one circuit; the limit is {MAX_PARTS}")
    circuit = msgspec.structs.replace(parts.circuit, measures=program.measures)
    if not circuit.measures and stores_bits(program):
        message = "a part stores classical bits, and measures nothing; nor did a part before"
        hint = "bits are read where a part has measured: store them in that part or a later one"
        raise ProgramError(message, hint=hint)
    requested: dict[str, Any] = {"outputs": "memory", "shots": 1}
    if not circuit.measures:  # every task has an output: the norm
        requested = {"observables": "I" * circuit.num_qubits, "shots": None}
    terms = TaskParts(ends, parts.keep_s, parts.outcomes, worker)
    task = _send(session, circuit, {**parts.options, **requested}, parts.seed, terms)
    return PartTask(task.handle, msgspec.structs.replace(parts, circuit=circuit, ends=ends))


def _send(session: Any, circuit: PackedCircuit, options: Any, seed: int, terms: TaskParts) -> Task:
    values: SubmitOptions = {**options, "seed": seed, "ranks": 1}  # type: ignore[typeddict-item]
    prepared = prepare_one(circuit, values)
    prepared = msgspec.structs.replace(
        prepared, terms=msgspec.structs.replace(prepared.terms, parts=terms)
    )
    return send(session, prepared, options.get("idempotency_key"))[0]


def _joined(parts: PackedCircuit, circuit: Any) -> PackedCircuit:
    """Return the circuit of all parts followed by `circuit`; its measurements are those of
    `circuit`."""
    loaded = load(circuit)
    program = joined(parts.program, loaded.program)
    return msgspec.structs.replace(loaded, packed=program.packed())


def _inherited(options: PartOptions) -> dict[str, Any]:
    return {name: options.get(name) for name in _INHERITED if name in options}


def _refuse(options: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if name in options:
            raise OptionError(
                f"{name}= is no option of a circuit that continues from a part",
                hint="seed, engine and precision are those of the first part; other options need a"
                " circuit without parts",
            )
