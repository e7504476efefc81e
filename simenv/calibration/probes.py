"""Circuits that would identify the values of a fit which its counts leave open.

Candidates are short experiments on single qubits and pairs: preparations of 0 and 1, sequences of
quarter turns and of entangling gates with and without an echo, and waiting times in |1>, in an echo
and in a Ramsey experiment. Each has a Fisher information for all values of the fit, from the same
simulator. `suggested` adds candidates to the information of the counts, one after the other: the
one that narrows most what is not identified or mixed, by the logarithms of the variances, down to
GOAL. (Greedy D_s-optimal design: Fedorov, Theory of Optimal Experiments, 1972; Atkinson, Donev and
Tobias, Optimum Experimental Designs, with SAS, section 10.3.)

`rows` are the circuits in the form of measured counts, without counts; `program` is a Python
program that runs them with Qiskit and writes their counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.data import SUGGESTED, CountsRecord, MeasuredCircuit, qasm_of, row
from simenv.calibration.experiments import programs
from simenv.calibration.experiments.clifford import native_set
from simenv.calibration.experiments.programs import CircuitPiece, NativeGateRows, joined
from simenv.calibration.fit.identify import (
    ANGLE,
    T1,
    T2,
    T2_STAR,
    TIMES,
    ZZ,
    Identification,
    LikelihoodFit,
    ParameterEstimate,
)
from simenv.client.circuits import PackedCircuit, to_qiskit
from simenv.errors import OptionError
from simenv.model import Program
from simenv.service.devices.registry import device_info

Floats = NDArray[np.float64]

SHOTS = 4_000  # of each circuit
MOST_CIRCUITS = 100
GOAL = 0.1  # relative standard deviation of a value
GOAL_RAD = 0.01
_TURNS = (8, 32, 128)  # groups of four quarter turns
_GATES = (4, 16, 48)  # entangling gates
_WAITS = (0.3, 1.0)  # in units of T1, T2, T2*
_LEAST_GAIN = 0.05  # of the sum of logarithms of variances, by one circuit
_USUAL = 0.25  # information of a value before any counts: of a factor within 0 to 5


class Probe(msgspec.Struct, frozen=True, eq=False):
    """A circuit in native gates on qubits of the device."""

    name: str
    source: Program
    body: str  # that repetitions have in common: the name without their number

    @property
    def circuit(self) -> Any:
        """The circuit as a QuantumCircuit."""
        return to_qiskit(self.source)


class Suggestion(msgspec.Struct, frozen=True, eq=False):
    """Circuits to measure, and the values that they are expected to identify, or cannot."""

    probes: tuple[Probe, ...]
    identified: tuple[str, ...]
    open: tuple[str, ...]


def suggested(
    fit: LikelihoodFit, found: Identification, shots: int = SHOTS, most: int = MOST_CIRCUITS
) -> Suggestion:
    """Choose circuits for all values that are not identified or mixed with others."""
    wanted = [
        k for k, each in enumerate(found.parameters) if not each.identified or each.mixed_with
    ]
    if not wanted:
        return Suggestion((), (), ())
    x = np.where(fit.likelihood.is_factor, np.clip(fit.start, 0.05, 20.0), fit.start)
    gradients, goals = [], []
    for k in wanted:
        value, gradient = fit.device.gradient(fit.quantities[k], fit.likelihood, x)
        gradients.append(gradient)
        goals.append(_goal(found.parameters[k], value))
    matrix, least = np.array(gradients), np.array(goals) ** 2
    covariance: Floats = np.linalg.inv(
        fit.best.fisher / fit.likelihood.dispersion + _USUAL * np.eye(len(x))
    ).astype(np.float64)
    probes = list(_candidates(fit, [found.parameters[k] for k in wanted]))
    roots = _informations(fit, probes, x, shots)
    chosen: list[int] = []
    while len(chosen) < most:
        variances = np.maximum(np.einsum("ti,ij,tj->t", matrix, covariance, matrix), least)
        gains = [_gain(matrix, covariance, variances, least, root) for root in roots]
        best = int(np.argmax(gains))
        if gains[best] < _LEAST_GAIN:
            break
        chosen.append(best)
        covariance -= _reduction(covariance, roots[best], np.eye(len(x)))
    variances = np.einsum("ti,ij,tj->t", matrix, covariance, matrix)
    reached = variances < 9.0 * least
    names = [found.parameters[k].name for k in wanted]
    return Suggestion(
        tuple(_numbered(probes, chosen)),
        tuple(name for name, ok in zip(names, reached, strict=True) if ok),
        tuple(name for name, ok in zip(names, reached, strict=True) if not ok),
    )


def _goal(parameter: ParameterEstimate, value: float) -> float:
    """Standard deviation that is enough."""
    if parameter.kind == ANGLE:
        return GOAL_RAD
    usual = parameter.fitted or parameter.calibrated
    if usual and parameter.kind in TIMES:
        usual = 1.0 / usual
    return GOAL * max(abs(value), abs(usual or 0.0), 1e-6)


def _reduction(covariance: Floats, root: Floats, matrix: Floats) -> Floats:
    """What the information root^T root takes off matrix covariance matrix^T (Woodbury)."""
    moved = root @ covariance
    inner = np.eye(len(root)) + moved @ root.T
    side = moved @ matrix.T
    return np.asarray(side.T @ np.linalg.solve(inner, side))


def _gain(
    matrix: Floats, covariance: Floats, variances: Floats, least: Floats, root: Floats
) -> float:
    """Decrease of the sum of logarithms of the variances, none below its goal."""
    after = variances - np.diag(_reduction(covariance, root, matrix))
    return float(np.log(variances / np.maximum(np.minimum(after, variances), least)).sum())


def _numbered(probes: Sequence[Probe], chosen: Sequence[int]) -> Iterator[Probe]:
    """Chosen circuits, each as often as it was chosen."""
    times: dict[int, int] = {}
    for k in chosen:
        times[k] = times.get(k, 0) + 1
        name = probes[k].name if times[k] == 1 else f"{probes[k].name} again {times[k]}"
        yield msgspec.structs.replace(probes[k], name=name)


def _informations(
    fit: LikelihoodFit, probes: Sequence[Probe], x: Floats, shots: int
) -> list[Floats]:
    """Roots of the Fisher information of each circuit, [outcomes, unknowns]."""
    likelihood = fit.likelihood
    distributions, components = likelihood.problem.distributions, likelihood.problem.components
    places = [distributions.place_of(_record(probe)) for probe in probes]
    channels = distributions.channels(places, components, likelihood.values(x), derivatives=True)
    built = distributions.outcomes(places, channels)
    scale, results = likelihood.scale(x), []
    for place in places:
        outcome = built[place]
        root = np.zeros((len(outcome.probabilities), len(x)))
        weights = np.sqrt(shots / np.maximum(outcome.probabilities, 1e-6))
        for column, param in enumerate(outcome.params):
            if param < len(x):
                root[:, param] = outcome.jacobian[:, column] * weights / scale[param]
        results.append(root)
    return results


def _record(probe: Probe) -> CountsRecord:
    program = probe.source
    loaded = PackedCircuit(program.packed(), program.num_qubits, measures=True)
    source = MeasuredCircuit(probe.name, loaded, program.num_clbits, probe.name)
    return CountsRecord(source, {0: 1}, 1, probe.name, body=probe.name)


def _candidates(fit: LikelihoodFit, wanted: Sequence[ParameterEstimate]) -> Iterator[Probe]:
    """Experiments on the qubits and pairs of the values that are wanted."""
    snapshot = fit.device.device.snapshot
    gates = native_set(device_info(snapshot.name, snapshot, ""))
    if gates.half and gates.half.name not in {each.name for each in fit.device.gates}:
        gates = msgspec.structs.replace(gates, half=None)  # its error would be one more unknown
    native = NativeGateRows(gates)
    every = any(not each.qubits for each in wanted)
    qubits = sorted(
        {q for each in wanted for q in each.qubits} | ({*fit.device.qubits} if every else set())
    )
    kinds = {each.kind for each in wanted}

    def probe(name: str, places: tuple[int, ...], piece: CircuitPiece) -> Probe:
        placed = programs.PlacedPiece(places, piece)
        where = "-".join(map(str, places))
        name = f"{name} on {where}"
        return Probe(name, native.program([placed], snapshot.num_qubits), name)

    for qubit in qubits:
        for name, piece in _on_qubit(native, fit, qubit, kinds):
            yield probe(name, (qubit,), piece)
    entangler = native.gates.entangler
    for gate in fit.device.gates:
        if entangler and gate.name == entangler.name and set(gate.qubits) <= set(qubits):
            for name, piece in _on_pair(native):
                yield probe(name, gate.qubits, piece)
    for pair in fit.device.pairs if ZZ in kinds else ():
        rate = fit.device.device.zz_khz.get(pair, 0.0)
        if rate:
            wait_ns = _rounded(min(0.25e6 / abs(rate), 50e3))
            for arm in (1, 5):
                piece = programs.conditional_ramsey(native, wait_ns, arm)
                yield probe(f"conditional ramsey {arm} {wait_ns:g} ns", pair, piece)


def _rounded(time_ns: float) -> float:
    return max(100.0, round(time_ns / 100.0) * 100.0)


def _on_qubit(
    native: NativeGateRows, fit: LikelihoodFit, qubit: int, kinds: set[str]
) -> Iterator[tuple[str, CircuitPiece]]:
    yield "preparation of 0", joined([])
    yield "preparation of 1", native.half()
    quarter, flip = native.quarter(), native.z(math.pi)
    for count in _TURNS:
        yield f"{4 * count} quarter turns", joined([quarter] * (4 * count))
        yield f"{4 * count} quarter turns back and forth", joined([quarter, flip] * (4 * count))
    experiments: dict[str, Callable[[NativeGateRows, float, int], CircuitPiece]] = {
        T1: programs.relaxation, T2: programs.echo, T2_STAR: programs.ramsey,
    }  # fmt: skip
    calibration = fit.device.device.snapshot.qubits[qubit]
    times = {T1: calibration.t1_us, T2: calibration.t2_limited_us}
    if T2_STAR in kinds:
        times[T2_STAR] = calibration.t2_ramsey_us
    for kind, time_us in times.items():
        for share in _WAITS if time_us else ():
            wait_ns = _rounded(1e3 * share * (time_us or 0.0))
            arm = 1 if kind == T1 else 0
            yield f"{kind} {wait_ns:g} ns", experiments[kind](native, wait_ns, arm)


def _on_pair(native: NativeGateRows) -> Iterator[tuple[str, CircuitPiece]]:
    gate = joined([native.entangler(), native.barrier()])
    quarters = [native.quarter(), native.quarter(1)]
    halves = joined([native.half(), native.half(1), native.barrier()])
    back = [native.z(math.pi), native.z(math.pi, 1), *quarters]
    for count in _GATES:
        gates = [gate] * count
        half = [gate] * (count // 2)
        yield f"{count} gates", joined([*quarters, native.barrier(), *gates, *back])
        echoed = [*half, halves, *half, halves]
        yield f"{count} gates with echo", joined([*quarters, native.barrier(), *echoed, *back])
        yield f"{count} gates from 11", joined([halves, *gates])
        for qubit in range(2):
            for other in range(2):
                begin = [native.half(1 - qubit)] if other else []
                begin += [native.quarter(qubit), native.barrier()]
                end = [native.z(math.pi / 2.0, qubit), native.quarter(qubit)]
                name = f"{count} gates, phase of qubit {qubit} beside {other}"
                yield name, joined([*begin, *gates, *end])


def rows(suggestion: Suggestion) -> list[dict[str, Any]]:
    """Rows of a file of measured counts, without counts."""
    return [
        row(qasm_of(each.circuit), {}, name=each.name, body=each.body, family=SUGGESTED)
        for each in suggestion.probes
    ]


def program(suggestion: Suggestion, device: str, shots: int = SHOTS) -> str:
    """Python program that measures the circuits with Qiskit and writes or appends their rows."""
    entries = []
    for each in suggestion.probes:
        circuit = each.circuit
        operations = [
            [
                item.operation.name,
                [circuit.find_bit(bit).index for bit in item.qubits],
                [circuit.find_bit(bit).index for bit in item.clbits],
                [_parameter(value) for value in item.operation.params],
            ]
            for item in circuit.data
        ]
        entries.append({
            "name": each.name, "body": each.body, "num_qubits": circuit.num_qubits,
            "num_clbits": circuit.num_clbits, "operations": operations, "qasm": qasm_of(circuit),
        })  # fmt: skip
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    return _PROGRAM.format(
        device=json.dumps(device), shots=shots, lines=lines.replace("\\", "\\\\")
    )


def _parameter(value: Any) -> float:
    try:
        return float(value)
    except TypeError as error:
        raise OptionError(f"parameter {value!r} of a native gate is no number") from error


_PROGRAM = '''"""Measure circuits that identify values of a device's noise, and write their counts.

    python FILE BACKEND COUNTS.jsonl

Needs qiskit and qiskit-ibm-runtime, and an account of IBM Quantum. For another machine, call
`measure` with its own sampler (a SamplerV2 of Qiskit). Rows are appended to COUNTS.jsonl if it
exists. The circuits are in native gates on the device's qubits: do not compile them again, which
would take gates out. Then: simenv calibrate COUNTS.jsonl --device {device} --out NAME
"""

import json
import sys
from datetime import datetime, timezone
from pathlib import Path

from qiskit import QuantumCircuit
from qiskit.circuit import Gate

DEVICE = {device}
SHOTS = {shots}
CIRCUITS = json.loads("""[
{lines}
]""")


def circuit_of(entry):
    circuit = QuantumCircuit(entry["num_qubits"], entry["num_clbits"], name=entry["name"])
    for name, qubits, clbits, params in entry["operations"]:
        if name == "measure":
            circuit.measure(qubits, clbits)
        elif name == "barrier":
            circuit.barrier(qubits)
        elif name == "delay":
            circuit.delay(params[0], qubits[0], unit="ns")
        elif hasattr(circuit, name):
            getattr(circuit, name)(*params, *qubits)
        else:
            circuit.append(Gate(name, len(qubits), params), qubits)
    return circuit


def measure(sampler, path):
    results = sampler.run([circuit_of(entry) for entry in CIRCUITS], shots=SHOTS).result()
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    lines = []
    if not Path(path).exists():
        lines.append({{"kind": "simenv-counts", "format": 1, "device": DEVICE}})
    for entry, result in zip(CIRCUITS, results):
        counts = {{key: int(count) for key, count in result.join_data().get_counts().items()}}
        lines.append({{
            "qasm": entry["qasm"], "counts": counts, "date": date,
            "name": entry["name"], "body": entry["body"], "family": "suggested",
        }})
    with open(path, "a") as out:
        out.writelines(json.dumps(line) + "\\n" for line in lines)


if __name__ == "__main__":
    from qiskit_ibm_runtime import QiskitRuntimeService, SamplerV2

    measure(SamplerV2(mode=QiskitRuntimeService().backend(sys.argv[1])), sys.argv[2])
'''
