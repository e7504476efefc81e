"""Jobs of circuits as IQM's clients send them, run by simenv's sampler.

`read` checks the options of a job; circuits are decoded in a job process. Each measurement has a
key and a register of its own. Gates act on the qubits that they name; nothing is compiled for a
device, so a gate or a pair of qubits that it lacks is refused. A job that is repeated returns the
same tasks.
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
from simenv.errors import LimitExceededError, OptionError, ProgramError
from simenv.frontends.qiskit import SimenvSampler
from simenv.gateway import confined
from simenv.gateway.ibm.backends import MAX_CIRCUITS, Backend
from simenv.gateway.ibm.options import NOT_JSON
from simenv.gateway.ibm.programs import SubmittedJob, Work, backend_of, primitive_options
from simenv.gateway.iqm import architecture
from simenv.gateway.iqm.architecture import IMPLEMENTATIONS
from simenv.model.views import DeviceInfo, DeviceKind
from simenv.text import short_repr
from simenv.transpiler.qpy import SandboxProcess

MAX_RESET_CYCLES = 10
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

Bits = NDArray[np.uint8]


MAX_OPERATIONS = 2**20  # of one circuit
Name = Annotated[str, msgspec.Meta(max_length=4_096)]
Mapping = Annotated[dict[Name, Name], msgspec.Meta(max_length=2**16)]
Mappings = Annotated[list[Mapping], msgspec.Meta(max_length=2**16)]
Locus = Annotated[tuple[Name, ...], msgspec.Meta(max_length=2**16)]


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job as it is sent. Options of MOVE gates have no effect: no device here has such gates."""

    circuits: msgspec.Raw
    shots: int = 1
    calibration_set_id: Name | None = None
    qubit_mapping: Mappings | Mapping | None = None
    max_circuit_duration_over_t2: float | None = None
    heralding_mode: Name = "none"
    active_reset_cycles: int | None = None
    dd_mode: Name = "disabled"
    dd_strategy: msgspec.Raw = msgspec.Raw(b"null")
    move_gate_validation: Name | None = None
    move_validation_mode: Name | None = None  # its older name
    move_gate_frame_tracking: Name | None = None
    move_gate_frame_tracking_mode: Name | None = None  # its older name

    def mapped(self) -> dict[str, str] | None:
        """Physical name of each logical qubit. Raises OptionError."""
        given = self.qubit_mapping
        if not isinstance(given, list):
            return given
        try:
            return {each["logical_name"]: each["physical_name"] for each in given}
        except KeyError as error:
            expected = "entries with logical_name and physical_name"
            raise OptionError(
                option="qubit_mapping", value=short_repr(given), expected=expected
            ) from error


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


def read(params: bytes, name: str, info: DeviceInfo) -> Definition:
    """Decode a job and check its options. `name`: of the device. Raises OptionError."""
    try:
        asked = msgspec.json.decode(params, type=Definition)
    except NOT_JSON as error:
        raise OptionError(f"the body is no job of circuits: {error!s:.200}") from error
    most = info.max_shots
    present = str(architecture.calibration_id(name, info.calibration_id))
    cycles = 0 if asked.active_reset_cycles is None else asked.active_reset_cycles
    rules: tuple[tuple[str, Any, bool, str], ...] = (
        ("shots", asked.shots, 1 <= asked.shots <= most, f"1 to {most}"),
        (
            "calibration_set_id", asked.calibration_set_id,
            asked.calibration_set_id in (None, present), f"the present one, {present}, or none",
        ),
        (
            "max_circuit_duration_over_t2", asked.max_circuit_duration_over_t2,
            not asked.max_circuit_duration_over_t2, "none, or 0.0: durations are not limited",
        ),
        (
            "heralding_mode", asked.heralding_mode, asked.heralding_mode == "none",
            "none: shots are not selected",
        ),
        (
            "active_reset_cycles", asked.active_reset_cycles,
            asked.active_reset_cycles is None
            or (info.dynamic and 1 <= cycles <= MAX_RESET_CYCLES),
            f"none, or 1 to {MAX_RESET_CYCLES} where the device has reset",
        ),
        (
            "dd_mode", asked.dd_mode, asked.dd_mode == "disabled",
            "disabled: write the gates of the decoupling sequences into the circuit",
        ),
    )  # fmt: skip
    for option, value, fits, expected in rules:
        if not fits:
            raise OptionError(option=option, value=value, expected=expected)
    asked.mapped()
    return asked


def check(sandbox: SandboxProcess, body: bytes, device: Backend) -> None:
    """Check the options of a job, in the process of the user if it is large. Blocks. Raises
    OptionError, LimitExceededError."""
    if len(body) <= confined.SMALL_BYTES:
        read(body, device.name, device.info)
        return
    info = msgspec.structs.replace(device.info, operations=(), qubits=(), coupling=())
    confined.call(sandbox, "iqm", body, (device.name, msgspec.msgpack.encode(info)))


def checked(body: bytes, device: list[Any]) -> bytes:
    """Check the options of a job; called in the process of the user."""
    name, packed = device
    read(body, name, msgspec.msgpack.decode(packed, type=DeviceInfo))
    return b""


def submit(work: Work, client: Client) -> SubmittedJob:
    """Decode a job and submit its circuits. Raises SimenvError, QiskitError."""
    backend = backend_of(work, client)
    asked = read(work.params, work.backend, backend.info)
    try:
        given = msgspec.json.decode(asked.circuits, type=list[IqmCircuit | str])
    except NOT_JSON as error:
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
