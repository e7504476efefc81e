"""Programs of a run request, packed: one for the counts, one for the statevector.

A statevector request runs the program without its final measurements. A pulse sequence is one task
with both outputs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.client.circuits import PackedCircuit, load, untrusted_programs
from simenv.client.qpm.requests import PulseSource, Request
from simenv.client.result_data import keys
from simenv.client.submission.pulses import pack_pulses
from simenv.client.submission.untrusted_pulses import pack_untrusted
from simenv.errors import ProgramError
from simenv.model import OWNERS, Program, is_measurement
from simenv.model.calls import decode_call
from simenv.model.devices import DeviceInfo
from simenv.model.options import SubmitOptions
from simenv.model.pulses import RYDBERG, PulseCall
from simenv.qpm import contract

MAX_STATEVECTOR_QUBITS = 20  # [re, im] pairs of more qubits are gigabytes of Python objects


def counts_bytes(program: Program, shots: int) -> int:
    """Upper bound of the size of the packed counts, bytes."""
    different = min(shots, 1 << min(program.num_clbits, 60))
    return different * (4 + max(1, (program.num_clbits + 7) // 8))


def unwritten(program: Program, shots: int) -> dict[str, int]:
    """Counts of a circuit without measurements: unwritten classical bits read 0."""
    if not program.num_clbits:
        return {}
    return dict.fromkeys(keys(b"", 0, program.registers), shots)


def without_final_measurements(program: Program) -> Program:
    """Copy of the program without its final measurements: a statevector is the state before
    readout. Raises ProgramError if a measurement is not the last operation on its qubit."""
    if not set(OWNERS).isdisjoint(program.names):
        raise _in_the_middle("under a condition or in a loop")
    arities = memoryview(program.arities).cast("H").tolist()
    ops = memoryview(program.ops).cast("H").tolist()
    qubits = memoryview(program.qubits).cast("H").tolist()
    used: set[int] = set()
    kept_ops: list[int] = []
    kept_qubits: list[int] = []
    end = len(qubits)
    for row in reversed(ops):
        start = end - arities[3 * row]
        name, touched = program.names[row], qubits[start:end]
        end = start
        if is_measurement(name):
            if not used.isdisjoint(touched):
                raise _in_the_middle(f"of qubit {touched[0]}, which is used again")
            continue
        if name != "barrier":
            used.update(touched)
        kept_ops.append(row)
        kept_qubits += reversed(touched)
    kept = [row for row, name in enumerate(program.names) if not is_measurement(name)]
    place = {row: number for number, row in enumerate(kept)}
    return msgspec.structs.replace(
        program,
        names=tuple(program.names[row] for row in kept),
        labels=tuple(program.labels[row] for row in kept if program.labels),
        arities=_uint16([size for row in kept for size in arities[3 * row : 3 * row + 3]]),
        ops=_uint16([place[row] for row in reversed(kept_ops)]),
        qubits=_uint16(kept_qubits[::-1]),
        clbits=b"",
    )


def _uint16(values: list[int]) -> bytes:
    return b"".join([value.to_bytes(2, "little") for value in values])


def _in_the_middle(where: str) -> ProgramError:
    message = f"a statevector was asked of a circuit that measures {where}"
    hint = "only final measurements can be left out; or ask for counts alone"
    return ProgramError(message, hint=hint)


class PreparedPrograms(msgspec.Struct, frozen=True):
    """Programs of one request, and the part of the counts that is known without a run.

    `counts`: program that gives the counts; `amplitudes`: program that gives the statevector.
    `fixed`: counts of a circuit without measurements. `size_bytes`: bound of the size of kept
    results. `pulses`: the encoded call of a sequence, which gives both.
    """

    counts: PackedCircuit | None
    amplitudes: PackedCircuit | None
    fixed: dict[str, int] | None
    size_bytes: int
    pulses: bytes = b""


_OUTCOME_BYTES = 16  # of a result of atoms: the outcome and its count


def prepare(
    request: Request, widest: int = MAX_STATEVECTOR_QUBITS, device: DeviceInfo | None = None
) -> PreparedPrograms:
    """Pack the circuit. `widest`: limit of a statevector, in qubits; `device`: of a pulse sequence,
    None: none. Raises the errors of `load`,
    and ExecutionError if the circuit contradicts the request."""
    source = request.source
    if isinstance(source, PulseSource):
        return _prepared_pulses(request, source.sequence, widest, device)
    is_file = isinstance(source, bytes)
    loaded = untrusted_programs.load_untrusted(source, "circuit.data") if is_file else load(source)
    program = loaded.program
    width = program.num_qubits
    measures = program.measures
    if not request.statevector:
        return PreparedPrograms(loaded, None, None, counts_bytes(program, request.shots))
    _check_width(width, widest)
    size = (16 << width) + counts_bytes(program, request.shots)
    if not measures:
        return PreparedPrograms(None, loaded, unwritten(program, request.shots), size)
    return PreparedPrograms(loaded, load(without_final_measurements(program)), None, size)


def _check_width(width: int, widest: int) -> None:
    """Check the width of a statevector. Raises ExecutionError."""
    if width > widest:
        raise contract.ExecutionError(
            f"return_statevector of {width} qubits: 2**{width} amplitudes do not travel as numbers",
            hint=f"at most {widest} qubits here; or Client.submit with "
            'outputs=("statevector",), which hands out an array',
        )


def _prepared_pulses(
    request: Request, sequence: Any, widest: int, device: DeviceInfo | None
) -> PreparedPrograms:
    options = pulse_options(request)
    reader = pack_untrusted if isinstance(sequence, str) else pack_pulses
    packed = reader(sequence, options, device)
    call = decode_call(RYDBERG, packed)
    assert isinstance(call, PulseCall)
    atoms, size = call.sizes.atoms, request.shots * _OUTCOME_BYTES
    if request.statevector:
        _check_width(atoms, widest)
        size += 16 << atoms
    return PreparedPrograms(None, None, None, size, packed)


def pulse_options(request: Request) -> SubmitOptions:
    """Options of the task of a pulse sequence."""
    outputs = ("counts", "statevector") if request.statevector else ("counts",)
    given = {name: value for name, value in request.options.items() if value not in (None, ())}
    return {**given, "shots": request.shots, "seed": request.seed, "outputs": outputs}  # type: ignore[typeddict-item]
