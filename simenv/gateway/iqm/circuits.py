"""Jobs of circuits as IQM's clients send them, run by simenv's sampler.

Runs in a job process. Each measurement has a key and a register of its own. Gates act on the qubits
that they name; nothing is compiled for a device, so a gate or a pair of qubits that it lacks is
refused. A job that is repeated returns the same tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from qiskit import ClassicalRegister, QuantumCircuit
from qiskit.primitives import PrimitiveResult

from simenv.client.client import Client
from simenv.errors import DECODE_ERRORS, LimitExceededError, ProgramError
from simenv.frontends.qiskit import SimenvSampler
from simenv.gateway.ibm.backends import MAX_CIRCUITS
from simenv.gateway.ibm.programs import SubmittedJob, Work, backend_of, primitive_options
from simenv.gateway.iqm import architecture
from simenv.gateway.iqm.architecture import IMPLEMENTATIONS
from simenv.gateway.iqm.job_request import Definition, Locus, Name, read
from simenv.model.devices import DeviceInfo, DeviceKind
from simenv.text import short_repr

MAX_OUTCOME_BITS = 2**26  # measured bits of all circuits and shots of a job
_ARGUMENTS = {  # of each operation: those that it needs
    "prx": ("angle", "phase"),
    "cc_prx": ("angle", "phase", "feedback_key"),
    "cz": (),
    "measure": ("key",),
    "reset": (),
    "barrier": (),
    "delay": ("duration",),
}

MAX_OPERATIONS = 2**20  # of one circuit

Bits = NDArray[np.uint8]


class IqmOperation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One instruction; older clients say `qubits` for `locus`."""

    name: Name
    locus: Locus = ()
    qubits: Locus = ()
    args: Annotated[dict[Name, Any], msgspec.Meta(max_length=100)] = {}
    implementation: Name | None = None


class IqmCircuit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instructions: Annotated[list[IqmOperation], msgspec.Meta(max_length=MAX_OPERATIONS)]
    name: Name = ""
    metadata: msgspec.Raw = msgspec.Raw(b"null")  # of older clients


def submit(work: Work, client: Client) -> SubmittedJob:
    """Decode a job and submit its circuits. Raises SimenvError, QiskitError."""
    backend = backend_of(work, client)
    asked = read(work.params, work.job.backend, backend.info)
    try:
        given = msgspec.json.decode(asked.circuits, type=list[IqmCircuit | str])
    except DECODE_ERRORS as error:
        raise ProgramError(f"circuits: {error!s:.200}") from error
    if not 1 <= len(given) <= MAX_CIRCUITS:
        raise LimitExceededError(f"{len(given)} circuits; a job has 1 to {MAX_CIRCUITS}")
    builders = [
        _Builder(f"circuit {number}", each, backend.info, asked)
        for number, each in enumerate(given)
    ]
    bits = asked.shots * sum(each.circuit.num_clbits for each in builders)
    if bits > MAX_OUTCOME_BITS:
        text = f"{bits} measured bits in all shots; the limit of a job is {MAX_OUTCOME_BITS}"
        raise LimitExceededError(text, hint="fewer circuits or shots in a job")
    chosen = primitive_options(work, None, len(builders))
    sampler = SimenvSampler(backend, default_shots=asked.shots, **chosen)
    keys = [list(each.keys) for each in builders]
    job = sampler.run([each.circuit for each in builders])
    return SubmittedJob(job.tasks, job.result, lambda result, _: _artifacts(result, keys))


class _Builder:
    """A circuit of IQM as a Qiskit circuit: `circuit`, and `keys` of its registers m0, m1 ..."""

    def __init__(
        self, at: str, given: IqmCircuit | str, info: DeviceInfo, asked: Definition
    ) -> None:
        """Raises ProgramError; `at` names the circuit in it."""
        self._at = at
        if isinstance(given, str):
            raise ProgramError(f"{at} is QIR", hint="send circuits in IQM's JSON")
        self._mapping = asked.mapped()
        count = architecture.num_qubits(info)
        self._numbers = {architecture.qubit_name(qubit): qubit for qubit in range(count)}
        self._loci = {name: set(places) for name, places in architecture.loci(info).items()}
        self._directed = set(info.coupling)
        self.keys: dict[str, int] = {}  # with the number of the register
        self._feedback: dict[str, Any] = {}
        loci = [self._locus(number, each) for number, each in enumerate(given.instructions)]
        used = sorted({qubit for locus in loci for qubit in locus})
        ideal = info.kind is DeviceKind.IDEAL  # its qubits are all alike
        self._places = {qubit: place for place, qubit in enumerate(used if ideal else range(count))}
        self.circuit = QuantumCircuit(len(self._places), name=given.name[:100] or at)
        for _ in range(asked.active_reset_cycles or 0):
            self.circuit.reset([self._places[qubit] for qubit in used])
        for number, (each, locus) in enumerate(zip(given.instructions, loci, strict=True)):
            self._append(f"{at}, instruction {number}", each, locus)
        if not self.keys:
            raise ProgramError(f"{at} has no measurement", hint="end it with `measure`")

    def _locus(self, number: int, each: IqmOperation) -> tuple[int, ...]:
        """Qubits of an instruction. Raises ProgramError for one that the device does not have."""
        at = f"{self._at}, instruction {number}: {short_repr(each.name)}"
        if each.name not in _ARGUMENTS:
            raise ProgramError(f"{at} is not run here", hint=f"there are {', '.join(_ARGUMENTS)}")
        wanted = IMPLEMENTATIONS.get(each.name)
        if each.implementation not in (None, wanted):
            raise ProgramError(
                f"{at}: implementation {short_repr(each.implementation)}", hint=wanted or ""
            )
        qubits = []
        for name in each.locus or each.qubits:
            physical = name if self._mapping is None else self._mapping.get(name, "")
            if physical not in self._numbers:
                text = f"{at} on {short_repr(name)}, which is no qubit of the device"
                hint = f"QB1 to QB{len(self._numbers)}, or a name in qubit_mapping"
                raise ProgramError(text, hint=hint)
            qubits.append(self._numbers[physical])
        locus = tuple(qubits)
        if not locus or len(set(locus)) < len(locus):
            raise ProgramError(f"{at} on {short_repr(each.locus)}: each qubit once")
        self._check_available(at, each.name, locus)
        return locus

    def _check_available(self, at: str, name: str, locus: tuple[int, ...]) -> None:
        if name in ("barrier", "delay"):
            return
        places = self._loci.get(name, set())
        if name in ("measure", "reset"):  # each qubit by itself
            missing = [qubit for qubit in locus if (qubit,) not in places]
        else:
            missing = [] if tuple(sorted(locus)) in places else list(locus)
        if missing:
            text = (
                f"{at} on {', '.join(map(architecture.qubit_name, missing))}: the device lacks it"
            )
            raise ProgramError(text, hint="transpile the circuit for the quantum computer")

    def _append(self, at: str, each: IqmOperation, locus: tuple[int, ...]) -> None:
        lacking = [name for name in _ARGUMENTS[each.name] if name not in each.args]
        if lacking:
            raise ProgramError(f"{at}: {each.name} without the argument {lacking[0]}")
        circuit, places = self.circuit, [self._places[qubit] for qubit in locus]
        if each.name == "prx":
            circuit.r(_number(at, each, "angle"), _number(at, each, "phase"), places[0])
        elif each.name == "cz":
            known = not self._directed or locus in self._directed
            circuit.cz(*(places if known else places[::-1]))
        elif each.name == "measure":
            self._measure(at, each, locus, places)
        elif each.name == "cc_prx":
            angle, phase = _number(at, each, "angle"), _number(at, each, "phase")
            with circuit.if_test((self._condition(at, each), 1)):
                circuit.r(angle, phase, places[0])
        elif each.name == "reset":
            circuit.reset(places)
        elif each.name == "delay":
            circuit.delay(max(0.0, _number(at, each, "duration")), places, unit="s")
        else:
            circuit.barrier(places)

    def _measure(
        self, at: str, each: IqmOperation, locus: tuple[int, ...], places: list[int]
    ) -> None:
        key = each.args["key"]
        if not isinstance(key, str) or key in self.keys:
            raise ProgramError(f"{at}: key {short_repr(key)}", hint="a text of its own each")
        register = ClassicalRegister(len(places), f"m{len(self.keys)}")
        self.keys[key] = len(self.keys)
        self.circuit.add_register(register)
        self.circuit.measure(places, register)
        feedback = each.args.get("feedback_key")
        if feedback is not None:
            self._feedback[str(feedback)] = dict(zip(locus, register, strict=True))

    def _condition(self, at: str, each: IqmOperation) -> Any:
        """Clbit that decides about an instruction. Raises ProgramError."""
        bits = self._feedback.get(str(each.args["feedback_key"]), {})
        name = str(each.args.get("feedback_qubit", ""))
        physical = name if self._mapping is None else self._mapping.get(name, name)
        number = self._numbers.get(physical, -1)
        if number not in bits:
            text = f"{at}: no measurement before it has this feedback_key and feedback_qubit"
            raise ProgramError(text)
        return bits[number]


def _number(at: str, each: IqmOperation, name: str) -> float:
    value = each.args[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ProgramError(f"{at}: {name} {short_repr(value)}", hint="a number")
    return float(value)


def _artifacts(result: PrimitiveResult[Any], keys: Sequence[list[str]]) -> dict[str, bytes]:
    """Measurements of each circuit and key, and counts, in JSON. Bits are in the order of the
    qubits of a measurement."""
    measurements, counts = [], []
    for pub, names in zip(result, keys, strict=True):
        registers = [_bits(pub.data[f"m{place}"]) for place in range(len(names))]
        entries = [
            msgspec.json.encode(name) + b":" + _rows(bits)
            for name, bits in zip(names, registers, strict=True)
        ]
        measurements.append(b"{" + b",".join(entries) + b"}")
        outcomes, shots = np.unique(np.concatenate(registers, axis=1), axis=0, return_counts=True)
        found = {
            (row + ord("0")).tobytes().decode(): int(count)
            for row, count in zip(outcomes, shots, strict=True)
        }
        counts.append({"measurement_keys": names, "counts": found})
    return {
        "measurements": b"[" + b",".join(measurements) + b"]",
        "measurement_counts": msgspec.json.encode(counts),
    }


def _bits(array: Any) -> Bits:
    """Bits of a BitArray, uint8 [shots, bits], the first clbit first."""
    bits: Bits = np.unpackbits(array.array, axis=-1)[:, ::-1][:, : array.num_bits]
    return bits


def _rows(bits: Bits) -> bytes:
    """Write `[[0,1],[1,1]]` without a Python object for each bit."""
    shots, width = bits.shape
    text = np.full((shots, 2 * width + 2), ord(","), np.uint8)
    text[:, 0] = ord("[")
    text[:, 1:-1:2] = bits + ord("0")
    text[:, -2] = ord("]")
    return b"[" + text.tobytes()[:-1] + b"]"
